"""``RemoteVecEnv``: rl_games' vectorised environment over worker processes, in two modes.

With a policy it is asynchronous: workers act by themselves and stream segments (``start`` gives the link to
them), its own and remote ones that join (``remote``). Without one it is in lock
step: ``reset`` and ``step(actions)`` as stock rl_games algorithms call them. Nothing starts before the first use.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rl_games.common.ivecenv import IVecEnv

from tasks import registry
from tasks.acting.env_source import EnvSource
from tasks.config import config_from_dict
from tasks.envs.classic_env import ClassicEnv
from tasks.experience.networking import LearnerLink
from tasks.experience.worker_status import WorkerStatus, samples_by_name
from tasks.plugins import load_plugins, plugin_paths
from tasks.remote.access.fingerprint import agreed_fingerprint
from tasks.remote.access.invitation import check_credentials
from tasks.remote.config import Launcher, RayConfig, RemoteConfig
from tasks.remote.launch.launch import Place
from tasks.remote.launch.ray_launch import check_ray
from tasks.remote.learner.batch_vecenv import BatchVecEnv
from tasks.remote.learner.lock_step import STEP_TIMEOUT_S, LockStep, Observation
from tasks.remote.learner.worker_pool import Connection, PoolConfig, WorkerPool
from tasks.remote.wire import link
from tasks.remote.worker.worker import WorkerConfig

_log = logging.getLogger(__name__)


class RemoteVecEnv(IVecEnv):
    """Environments in worker processes: on this machine, and on others that join.

    A single game, as the live game is, has one worker with one environment and no evaluator process.
    Where that worker is remote (``num_workers`` is 0), evaluations go to one of those that joined.

    Args:
        config_name: Registered task; ``task`` may leave its name out.
        num_actors: Environments in all, spread over the workers.
        task: ``TaskConfig`` as plain data.
        policy: {"function": "module:function", "kwargs": {...}}; None: lock step.
        num_workers: Processes on this machine; None: one for each environment; 0: none, with ``remote`` only.
        seed: Seed of everything the workers draw.
        segment_rows: Rows per segment.
        window: Unacknowledged segments per worker beyond which it waits; on the wall clock nothing waits.
        buffer_segments: Unacknowledged segments a wall-clock worker keeps; beyond them it drops the oldest.
        evaluator: Whether evaluations can be requested: a process of its own drives them, or, with a game that is there
            only once, the worker between two episodes.
        observation: "flat" or "dict", in lock step.
        check_samples: Whether segments carry checksums of the stacked observations.
        compress: Whether images are compressed on the link.
        plugins: Python files that every process imports first.
        env: {"function": "module:function", "kwargs": {...}} that makes the environments instead of the registry.
        remote: ``RemoteConfig`` as plain data: where remote workers join; None: nowhere.
        worker_words: Words of the configuration that such a worker must have, for the command that is shown.
        launcher: "local" or "ray": what runs the worker processes.
        ray: ``RayConfig`` as plain data, with ray.
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
        remote: Mapping[str, Any] | None = None,
        worker_words: Sequence[str] = (),
        launcher: str = "local",
        ray: Mapping[str, Any] | None = None,
    ) -> None:
        num_workers = num_actors if num_workers is None else num_workers
        _check(num_actors, num_workers, segment_rows, window, buffer_segments, observation)
        self._remote = config_from_dict(RemoteConfig, remote or {}, "remote")
        _check_remote(self._remote, num_workers, policy)
        check_credentials(self._remote)
        self._worker_words = tuple(worker_words)
        self._ray = config_from_dict(RayConfig, ray or {}, "ray") if Launcher[launcher] is Launcher.ray else None
        if self._ray is not None:
            check_ray()
        load_plugins(plugins)
        task = {"name": config_name, **(task or {})}
        self._source = EnvSource(task, **(env or {})).resolved()
        self._description = self._source.describe()
        spec = self._description.spec
        # In lock step observations go to policies only; samples have the privileged fields too.
        self._spec = spec.visible if policy is None else spec
        if self._description.is_single_game:
            _check_single_game(num_actors, num_workers)
        self._policy = None if policy is None else dict(policy)
        self._evaluated_policy = self._policy
        self._num_envs = _shares(num_actors, num_workers)
        self._is_flat = observation == "flat"
        self._seed = int(seed)
        self._has_evaluator = False
        if evaluator:
            self._enable_evaluation()
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
        timeout_s = STEP_TIMEOUT_S + self._description.longest_wait_s
        self._lock_step = LockStep(
            self._spec, self._num_envs, self._is_flat, timeout_s, lambda: self._started().gateway
        )
        self._received: dict[str, int] = {}
        self._pool: WorkerPool | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    # --- asynchronous ---

    def go_on_from(self, received: Mapping[str, int]) -> None:
        """Has workers that were here before go on behind what is stored of theirs; before the workers are started.

        Args:
            received: Sequence number up to which the stored replay has the segments of each worker.
        """
        if self._pool is not None:
            raise RuntimeError("go_on_from must be called before the workers are started")
        self._received = dict(received)

    def start(self) -> LearnerLink:
        """Starts the workers and returns the link to them, at once, with Ray when its cluster has answered.

        Workers act with version 0 until weights are published.

        Raises:
            WorkerRefused: There is no such cluster.
        """
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the vectorised environment is closed; make a new one")
            if self._pool is None:
                self._pool = self._open_pool()
            return self._pool.link

    @property
    def link(self) -> LearnerLink:
        """The way to all workers, which must be started: segments come from it, weights go to it.

        Its ``receive`` raises ``WorkerFailed`` if an environment or a policy raised, or a worker keeps dying. In lock
        step the environments of a single game that were evaluated on are reset by the next ``step``, or ``reset``.
        """
        return self._started().link

    def statistics(self) -> dict[str, float]:
        """Metrics under ``gateway/``."""
        if self._pool is None:
            return {}
        restarts = {"gateway/restarts": float(self._pool.launcher.restarts)}
        return self._pool.link.statistics() | samples_by_name(self._pool.link.workers()) | restarts

    def workers(self) -> list[WorkerStatus]:
        """A row for each worker that is there, and for remote ones that were there not long ago."""
        return [] if self._pool is None else self._pool.link.workers()

    @property
    def remote_address(self) -> str | None:
        """host:port at which remote workers join, with the port that was chosen; None: nowhere, or not yet."""
        return None if self._pool is None else self._pool.gateway.remote_address

    def process_ids(self) -> dict[Place, int]:
        """Worker processes that run now."""
        return {} if self._pool is None else self._pool.launcher.process_ids()

    @property
    def is_real_time(self) -> bool:
        """Whether the environments run in real time, so that their workers must never be held."""
        return self._description.is_wall_clock

    @property
    def is_single_game(self) -> bool:
        """Whether the game is a single one, so that this learner must not make an environment itself."""
        return self._description.is_single_game

    # --- lock step ---

    def evaluate_with(self, policy: Mapping[str, Any]) -> None:
        """Enables evaluations, driven by this policy; before the workers are started.

        Args:
            policy: {"function": "module:function", "kwargs": {...}}.
        """
        if self._pool is not None:
            raise RuntimeError("evaluate_with must be called before the workers are started")
        self._evaluated_policy = dict(policy)
        self._enable_evaluation()

    def watch(self, stop: Callable[[], bool]) -> None:
        """Has ``reset`` and ``step`` raise ``Interrupted`` soon after ``stop()`` becomes true while they wait."""
        self._lock_step.watch(stop)

    def reset(self) -> Observation:
        """Resets all environments, starting the workers at the first call."""
        self._refuse_with_policy()
        self.start()
        return self._lock_step.reset()

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments; those that end are reset and return the first observation of their next episode.

        Returns:
            Observation, rewards (float32), dones (bool), and infos: ``time_outs`` (bool, truncated and not terminated),
            ``episode_statistics`` and ``episode_indices`` (of the episodes that ended). The environments of a worker
            that had to be restarted come back as timed out with reward 0.
        """
        self._refuse_with_policy()
        return self._lock_step.step(actions)

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
        """One per environment."""
        return 1

    def has_action_masks(self) -> bool:
        """No action is ever forbidden."""
        return False

    def seed(self, seed: int) -> None:
        """Sets the seed; only before the workers are started."""
        if self._pool is not None:
            raise RuntimeError("seed must be set before the workers are started")
        self._seed = int(seed)

    def close(self) -> None:
        """Ends all workers within two seconds, and leaves a Ray cluster within some more. Calling it twice is fine."""
        with self._lock:
            self._is_closed = True
            pool = self._pool
        self._lock_step.close()
        if pool is not None:
            pool.close()

    def __enter__(self) -> RemoteVecEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ---

    def _open_pool(self) -> WorkerPool:
        role = "lock_step" if self._policy is None else "worker"
        places = [Place(role, index) for index in range(len(self._num_envs))]
        if self._has_evaluator and not self.is_single_game:
            places.append(Place("evaluator", 0))
        config = PoolConfig(
            self._spec,
            agreed_fingerprint(self._description.fingerprint, self._policy),
            places,
            queue_segments=max(256, 2 * len(places) * self._settings["window"]),
            ray=self._ray,
            remote=self._remote,
            worker_words=self._worker_words,
            received=self._received,
            evaluates_here=bool(places),
        )
        return WorkerPool(config, self._worker_config)

    def _worker_config(self, connection: Connection, place: Place, incarnation: int) -> WorkerConfig:
        is_evaluator = place.role == "evaluator"
        evaluates = self._has_evaluator and self.is_single_game
        return WorkerConfig(
            **connection._asdict(),
            worker=f"{place.role.replace('_', '-')}-{place.index}.{self._session}.{incarnation}",
            index=place.index,
            incarnation=incarnation,
            role=place.role,
            env=asdict(self._source),
            policy=self._evaluated_policy if is_evaluator or evaluates else self._policy,
            evaluates=evaluates,
            seed=self._seed,
            num_stored=sum(self._received.values()),
            num_envs=1 if is_evaluator else self._num_envs[place.index],
            **self._settings,
        )

    def _enable_evaluation(self) -> None:
        if self.is_single_game and not self._spec.reset_act_buf:
            raise ValueError(
                "task.rtgym.reset_act_buf must be true to evaluate on the game that is also trained on: the evaluation "
                "comes between two episodes, of which the second would begin with its actions; got false"
            )
        self._has_evaluator = True

    def _started(self) -> WorkerPool:
        if self._pool is None:
            raise RuntimeError("call start() first")
        return self._pool

    def _refuse_with_policy(self) -> None:
        if self._policy is not None:
            raise RuntimeError("reset() and step() are for lock step; this one has a policy and is asynchronous")


def make_vecenv(config_name: str, num_actors: int, **kwargs: Any) -> RemoteVecEnv | BatchVecEnv:
    """What rl_games' vecenv registry calls: in lock step the task's own batch of environments, where it has one.

    The batch is stepped in this process; with two or more workers, or Ray, each of these steps its share.
    """
    is_lock_step = kwargs.get("policy") is None and not kwargs.get("env")
    is_here = (kwargs.get("num_workers") or 1) == 1 and kwargs.get("launcher", "local") == Launcher.local.name
    if is_lock_step and is_here and config_name in registry.names():
        task = EnvSource({"name": config_name, **(kwargs.get("task") or {})}).resolved().config()
        if registry.batch_class(task) is not None:
            return BatchVecEnv(task, num_actors, int(kwargs.get("seed", 0)), str(kwargs.get("observation", "flat")))
    return RemoteVecEnv(config_name, num_actors, **kwargs)


def env_creator(config_name: str, **kwargs: Any) -> ClassicEnv:
    """One environment in this process, for rl_games' players; takes the same keyword arguments and ignores the rest."""
    load_plugins(kwargs.get("plugins", ()))
    source = EnvSource({"name": config_name, **(kwargs.get("task") or {})}, **(kwargs.get("env") or {}))
    return ClassicEnv(source.make(), str(kwargs.get("observation", "flat")))


def _shares(num_envs: int, num_workers: int) -> list[int]:
    """Environments of each worker, as even as possible."""
    if not num_workers:
        return []
    return [num_envs // num_workers + (index < num_envs % num_workers) for index in range(num_workers)]


def _check_single_game(num_actors: int, num_workers: int) -> None:
    for name, value in (("num_workers", num_workers), ("num_actors", num_actors)):
        if value > 1:
            raise ValueError(
                f"{name} must be 1 with a single game, got {value}: a second environment would drive "
                f"the same car; set {name}=1, or drive several simulators with task.game=sim"
            )


def _check_remote(remote: RemoteConfig, num_workers: int, policy: Mapping[str, Any] | None) -> None:
    is_remote = remote.listen is not None or remote.relay is not None
    if is_remote and policy is None:
        raise ValueError(
            "remote.listen and remote.relay need workers that act by themselves (SAC and its variants); in lock step "
            "every step would wait for the network"
        )
    if not is_remote and not num_workers:
        raise ValueError("num_workers must be >= 1 without remote.listen and remote.relay, got 0")


def _check(
    num_actors: int, num_workers: int, segment_rows: int, window: int, buffer_segments: int, observation: str
) -> None:
    if not 0 <= num_workers <= num_actors:
        raise ValueError(f"num_workers must be from 0 to num_actors ({num_actors}), got {num_workers}")
    if not 1 <= segment_rows <= link.MAX_SEGMENT_ROWS:
        raise ValueError(f"segment_rows must be from 1 to {link.MAX_SEGMENT_ROWS}, got {segment_rows}")
    for name, value in (("window", window), ("buffer_segments", buffer_segments)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    if observation not in ("flat", "dict"):
        raise ValueError(f"observation must be 'flat' or 'dict', got {observation!r}")
