"""``RemoteVecEnv``: rl_games' vectorised environment over worker processes, in two modes.

With a policy it is asynchronous: workers act by themselves and stream segments (``start``, ``receive``,
``acknowledge``, ``publish``; ``algos.learner`` uses these). Without one it is in lock step: ``reset`` and
``step(actions)`` as stock rl_games algorithms call them. Nothing starts before the first use.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import gymnasium
import numpy as np
from rl_games.common.ivecenv import IVecEnv

from tasks.evaluation import EvaluationReport
from tasks.plugins import load_plugins, plugin_paths
from tasks.remote import link
from tasks.remote.env_source import EnvSource
from tasks.remote.gateway import Gateway
from tasks.remote.launch import LocalLauncher, Place
from tasks.remote.worker import WorkerConfig
from tasks.samples import Segment

_log = logging.getLogger(__name__)

STEP_TIMEOUT_S = 120.0
"""How long a lock-step worker may take, its start included [s]."""


class RemoteVecEnv(IVecEnv):
    """Environments in worker processes on this machine.

    Args:
        config_name: Registered task; ``task`` may leave its name out.
        num_actors: Environments in all, spread over the workers.
        task: ``TaskConfig`` as plain data.
        policy: {"function": "module:function", "kwargs": {...}}; None: lock step.
        num_workers: Processes; None: one for each environment.
        seed: Seed of everything the workers draw.
        segment_rows: Rows per segment.
        window: Unacknowledged segments per worker beyond which it waits; on the wall clock nothing waits.
        buffer_segments: Unacknowledged segments a wall-clock worker keeps; beyond them it drops the oldest.
        evaluator: Whether an evaluator process runs too.
        observation: "flat" or "dict", in lock step.
        check_samples: Whether segments carry checksums of the stacked observations.
        compress: Whether images are compressed on the link.
        plugins: Python files that every process imports first.
        env: {"function": "module:function", "kwargs": {...}} that makes the environments instead of the registry.
    """

    def __init__(
        self,
        config_name: str,
        num_actors: int,
        *,
        task: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
        num_workers: int | None = None,
        seed: int = 0,
        segment_rows: int = 32,
        window: int = 4,
        buffer_segments: int = 512,
        evaluator: bool = False,
        observation: str = "flat",
        check_samples: bool = False,
        compress: bool = False,
        plugins: Sequence[str] = (),
        env: Mapping[str, Any] | None = None,
    ) -> None:
        num_workers = num_actors if num_workers is None else num_workers
        _check(num_actors, num_workers, segment_rows, window, buffer_segments, observation)
        load_plugins(plugins)
        task = {"name": config_name, **(task or {})}
        self._source = EnvSource(task, **(env or {})).resolved()
        self._description = self._source.describe()
        self._spec = self._description.spec
        self._policy = None if policy is None else dict(policy)
        self._num_envs = _shares(num_actors, num_workers)
        self._is_flat = observation == "flat"
        self._seed = int(seed)
        self._has_evaluator = evaluator
        self._settings: dict[str, Any] = {
            "segment_rows": segment_rows,
            "window": window,
            "buffer_segments": buffer_segments,
            "observation": observation,
            "check_samples": check_samples,
            "compress": compress,
            "plugins": plugin_paths(plugins),
        }
        # Names are never used again, also not by a resumed run: the stored replay knows the old ones.
        self._session = secrets.token_hex(3)
        self._gateway: Gateway | None = None
        self._launcher: LocalLauncher | None = None
        self._lock = threading.Lock()
        self._command_id = 0
        self._is_closed = False

    # --- asynchronous ---

    def start(self) -> None:
        """Starts the workers; returns at once. They act with version 0 until weights are published."""
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the vectorised environment is closed; make a new one")
            if self._gateway is None:
                self._start()

    def receive(self, timeout_s: float, max_segments: int | None = None) -> list[Segment]:
        """Segments that have come in, in order for each worker; waits for the first, at most ``timeout_s``.

        Raises:
            WorkerFailed: If an environment or a policy raised, or a worker keeps dying.
        """
        return self._started().receive(timeout_s, max_segments)

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        """Says up to which number the segments of each worker are stored; only this lets workers go on."""
        self._started().acknowledge(durable)

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Offers weights to all workers, which take the newest between two segments."""
        self._started().publish(weights, version)

    def request_evaluation(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool = False
    ) -> None:
        """Has the evaluator drive one deterministic episode per seed; see ``poll_evaluation``."""
        if not self._has_evaluator:
            raise ValueError("request_evaluation needs env_config.evaluator to be true, got false")
        self._started().request_evaluation(weights, version, seeds, clip)

    def poll_evaluation(self) -> EvaluationReport | None:
        """The next finished evaluation, or None."""
        return None if self._gateway is None else self._gateway.poll_evaluation()

    @property
    def is_evaluating(self) -> bool:
        """Whether an evaluation was requested and has not come in yet."""
        return self._gateway is not None and self._gateway.is_evaluating

    def statistics(self) -> dict[str, float]:
        """Metrics under ``gateway/``."""
        if self._gateway is None or self._launcher is None:
            return {}
        return self._gateway.statistics() | {"gateway/restarts": float(self._launcher.restarts)}

    def process_ids(self) -> dict[Place, int]:
        """Worker processes that run now."""
        return {} if self._launcher is None else self._launcher.process_ids()

    # --- lock step ---

    def reset(self) -> np.ndarray | dict[str, np.ndarray]:
        """Resets all environments, starting the workers at the first call."""
        self.start()
        replies = self._exchange([None] * len(self._num_envs))
        return self._observation(replies)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray | dict[str, np.ndarray], np.ndarray, np.ndarray, dict]:
        """Steps all environments; those that end are reset and return the first observation of their next episode.

        Returns:
            Observation, rewards (float32), dones (bool), and infos: ``time_outs`` (bool, truncated and not terminated),
            ``episode_statistics`` and ``episode_indices`` (of the episodes that ended). The environments of a worker
            that had to be restarted come back as timed out with reward 0.
        """
        actions = np.asarray(actions, np.float32)
        expected = (sum(self._num_envs), self._spec.action_size)
        if actions.shape != expected:
            raise ValueError(f"actions must have shape {expected}, got {actions.shape}")
        bounds = np.cumsum(self._num_envs)[:-1]
        replies = self._exchange(np.split(actions, bounds))
        terminated = np.concatenate([reply.terminated for reply in replies])
        time_outs = np.concatenate([reply.truncated | reply.is_reset for reply in replies]) & ~terminated
        rewards = np.concatenate([reply.reward for reply in replies])
        firsts = [0, *bounds.tolist()]
        infos = {
            "time_outs": time_outs,
            "episode_statistics": [episode for reply in replies for episode in reply.episodes],
            "episode_indices": [
                first + index for first, reply in zip(firsts, replies, strict=True) for index in reply.episode_indices
            ],
        }
        return self._observation(replies), rewards, terminated | time_outs, infos

    # --- rl_games ---

    def get_env_info(self) -> dict[str, Any]:
        """Spaces and what else rl_games asks for; starts nothing."""
        is_flat = self._is_flat and self._policy is None
        return {
            "observation_space": self._spec.flat_space() if is_flat else self._spec.dict_space(),
            "action_space": self._description.action_space,
            "state_space": None,
            "use_global_observations": False,
            "agents": 1,
            "value_size": 1,
            "observation_spec": self._spec.to_json(),
        }

    def get_number_of_agents(self) -> int:
        """One driver per environment."""
        return 1

    def has_action_masks(self) -> bool:
        """No action is ever forbidden."""
        return False

    def seed(self, seed: int) -> None:
        """Sets the seed; only before the workers are started."""
        if self._gateway is not None:
            raise RuntimeError("seed must be set before the workers are started")
        self._seed = int(seed)

    def close(self) -> None:
        """Ends all workers within two seconds. Calling it twice is fine."""
        with self._lock:
            self._is_closed = True
            launcher, gateway = self._launcher, self._gateway
        if launcher is not None:
            launcher.close()
        if gateway is not None:
            gateway.close()

    def __enter__(self) -> RemoteVecEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ---

    def _start(self) -> None:
        role = "lock_step" if self._policy is None else "worker"
        places = [Place(role, index) for index in range(len(self._num_envs))]
        if self._has_evaluator:
            places.append(Place("evaluator", 0))
        self._gateway = Gateway(
            self._spec,
            self._description.fingerprint,
            max_workers=len(places),
            queue_segments=max(256, 2 * len(places) * self._settings["window"]),
        )
        self._launcher = LocalLauncher(places, self._worker_config, self._gateway.fail)
        self._launcher.start()

    def _worker_config(self, place: Place, incarnation: int) -> WorkerConfig:
        assert self._gateway is not None
        is_evaluator = place.role == "evaluator"
        return WorkerConfig(
            address=self._gateway.address,
            token=self._gateway.token,
            worker=f"{place.role.replace('_', '-')}-{place.index}.{self._session}.{incarnation}",
            index=place.index,
            incarnation=incarnation,
            role=place.role,
            env=asdict(self._source),
            policy=self._policy,
            seed=self._seed,
            num_envs=1 if is_evaluator else self._num_envs[place.index],
            **self._settings,
        )

    def _started(self) -> Gateway:
        if self._gateway is None:
            raise RuntimeError("call start() first")
        return self._gateway

    def _exchange(self, actions: Sequence[np.ndarray | None]) -> list[link.LockStepReply]:
        """One command to each worker and its reply."""
        if self._policy is not None:
            raise RuntimeError("reset() and step() are for lock step; this one has a policy and is asynchronous")
        gateway = self._started()
        gateway.raise_failure()
        self._command_id += 1
        channels = [gateway.lock_step_channel(index) for index in range(len(actions))]
        for channel, part in zip(channels, actions, strict=True):
            channel.send(link.LockStepCommand(self._command_id, part))
        deadline = time.monotonic() + STEP_TIMEOUT_S
        return [self._reply(gateway, index, deadline) for index in range(len(actions))]

    def _reply(self, gateway: Gateway, index: int, deadline: float) -> link.LockStepReply:
        channel = gateway.lock_step_channel(index)
        while True:
            reply = channel.wait_reply(self._command_id, timeout_s=0.5)
            if reply is not None:
                if len(reply.reward) != self._num_envs[index]:
                    raise link.LinkError(f"worker {index} answered for {len(reply.reward)} environments")
                return reply
            gateway.raise_failure()
            if self._is_closed:
                raise RuntimeError("the vectorised environment was closed while it was stepping")
            if time.monotonic() > deadline:
                raise TimeoutError(f"lock-step worker {index} has not answered for {STEP_TIMEOUT_S:.0f} s")

    def _observation(self, replies: Sequence[link.LockStepReply]) -> np.ndarray | dict[str, np.ndarray]:
        names = ["obs"] if self._is_flat else [f.name for f in self._spec.all_fields()]
        observation = {name: np.concatenate([reply.observation[name] for reply in replies]) for name in names}
        return observation["obs"] if self._is_flat else observation


def make_vecenv(config_name: str, num_actors: int, **kwargs: Any) -> RemoteVecEnv:
    """What rl_games' vecenv registry calls."""
    return RemoteVecEnv(config_name, num_actors, **kwargs)


def env_creator(config_name: str, **kwargs: Any) -> gymnasium.Env:
    """One environment in this process, for rl_games' players; takes the same keyword arguments and ignores the rest."""
    env = kwargs.get("env") or {}
    load_plugins(kwargs.get("plugins", ()))
    return EnvSource({"name": config_name, **(kwargs.get("task") or {})}, **env).make()


def _shares(num_envs: int, num_workers: int) -> list[int]:
    """Environments of each worker, as even as possible."""
    return [num_envs // num_workers + (index < num_envs % num_workers) for index in range(num_workers)]


def _check(
    num_actors: int, num_workers: int, segment_rows: int, window: int, buffer_segments: int, observation: str
) -> None:
    if not 1 <= num_workers <= num_actors:
        raise ValueError(f"num_workers must be from 1 to num_actors ({num_actors}), got {num_workers}")
    if not 1 <= segment_rows <= link.MAX_SEGMENT_ROWS:
        raise ValueError(f"segment_rows must be from 1 to {link.MAX_SEGMENT_ROWS}, got {segment_rows}")
    for name, value in (("window", window), ("buffer_segments", buffer_segments)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    if observation not in ("flat", "dict"):
        raise ValueError(f"observation must be 'flat' or 'dict', got {observation!r}")
