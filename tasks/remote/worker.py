"""A worker process: acts with its own policy and streams segments, evaluates, or steps environments on command.

Started by ``launch`` as ``python -m tasks.remote.worker`` with one line of JSON on standard input, which stays open:
when it closes, the learner is gone and so is the worker. A failure goes to the learner as one line of JSON on standard
output; everything else that is printed goes to standard error. Imports neither torch nor rl_games by itself: that
comes with the policy.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

import gymnasium
import numpy as np

from tasks.evaluation import ClipRecorder, evaluate
from tasks.plugins import load_plugins
from tasks.remote import link
from tasks.remote.env_source import EnvDescription, EnvSource, load_function
from tasks.remote.rollout import Policy, Rollout
from tasks.remote.uplink import RefusedError, Uplink

_log = logging.getLogger(__name__)

_GRACE_S = 1.0
_PARENT_CHECK_S = 1.0


@dataclass(frozen=True)
class WorkerConfig:
    """Everything a worker needs, as plain data."""

    address: str
    """host:port of the gateway."""
    token: str
    """The secret of the run."""
    worker: str
    """Name of this process, never used twice."""
    index: int
    """Its place; a restarted worker keeps it."""
    incarnation: int
    """1, 2, 3, ...: how often a worker has been started at this place."""
    role: str
    """worker, evaluator or lock_step."""
    env: dict[str, Any]
    """``EnvSource`` as plain data."""
    policy: dict[str, Any] | None = None
    """{function, kwargs}: makes the policy; it also gets a ``seed``. None for lock_step."""
    seed: int = 0
    num_envs: int = 1
    """Environments in this process."""
    segment_rows: int = 32
    """Rows per segment."""
    window: int = 4
    """Unacknowledged segments beyond which a worker on the virtual clock waits."""
    buffer_segments: int = 512
    """Unacknowledged segments kept at most on the wall clock."""
    observation: str = "dict"
    """lock_step: dict or flat."""
    check_samples: bool = False
    """Whether segments carry checksums."""
    compress: bool = False
    """Whether images are compressed."""
    plugins: list[str] = field(default_factory=list)
    """Python files to import first."""

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @staticmethod
    def from_line(line: str) -> WorkerConfig:
        """The inverse of ``to_line``."""
        return WorkerConfig(**json.loads(line))


def main() -> int:
    """Runs the worker that standard input describes; returns the exit code."""
    # Ctrl-C reaches the whole group; it is the learner that decides what it means.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = _take_standard_output()
    config = WorkerConfig.from_line(sys.stdin.readline())
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format=f"{config.worker} %(levelname)s %(name)s: %(message)s"
    )
    stop = StopSignal()
    _watch_parent(stop)
    try:
        run(config, stop)
    except Exception as error:
        kind = "refused" if isinstance(error, RefusedError) else "error"
        answers.write(json.dumps({"kind": kind, "message": str(error), "traceback": traceback.format_exc()}) + "\n")
        answers.flush()
        return 1
    return 0


class StopSignal(threading.Event):
    """The event that ends the worker; setting it also wakes who waits elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self._wake: Callable[[], None] = lambda: None

    def on_set(self, wake: Callable[[], None]) -> None:
        """Has ``wake`` called when the event is set, at once if it already is."""
        self._wake = wake
        if self.is_set():
            wake()

    def set(self) -> None:
        """Sets the event and wakes."""
        super().set()
        self._wake()


def run(config: WorkerConfig, stop: StopSignal) -> None:
    """Connects and does what the role says until ``stop`` is set."""
    load_plugins(config.plugins)
    source = EnvSource(**config.env)
    description = source.describe()
    hello = link.Hello(config.worker, config.index, config.role, description.fingerprint, _software())
    capacity = config.buffer_segments if description.is_wall_clock else config.window + config.num_envs
    uplink = Uplink(
        config.address,
        config.token,
        hello,
        stop,
        # Real time waits for nobody: there the buffer drops the oldest instead.
        window=sys.maxsize if description.is_wall_clock else config.window,
        buffer_segments=capacity,
        compress=config.compress,
    )
    stop.on_set(uplink.wake)
    roles = {"worker": _roll_out, "evaluator": _evaluate, "lock_step": _step_on_command}
    with contextlib.ExitStack() as stack:
        stack.callback(uplink.close)
        uplink.connect()
        envs = [stack.enter_context(contextlib.closing(source.make())) for _ in range(config.num_envs)]
        try:
            roles[config.role](config, uplink, envs, description, stop)
        except Exception:
            if not stop.is_set():
                raise
            _log.debug("on the way out", exc_info=True)
        finally:
            stop.set()


def _roll_out(
    config: WorkerConfig, uplink: Uplink, envs: Sequence[gymnasium.Env], _: EnvDescription, stop: StopSignal
) -> None:
    """Acts and streams; new weights are taken between segments."""
    seeds = _seeds(config)
    rollouts = [
        Rollout(env, _make_policy(config, seeds[i]), config.worker, i, seeds[-1 - i], config.check_samples)
        for i, env in enumerate(envs)
    ]
    uplink.start(push=True)
    while not stop.is_set():
        for rollout in rollouts:
            if not uplink.wait_for_room():
                return
            _load_newest(uplink, rollouts)
            segment = rollout.run(config.segment_rows, stop.is_set)
            if stop.is_set():
                return
            uplink.send(segment)


def _load_newest(uplink: Uplink, rollouts: Sequence[Rollout]) -> None:
    message = uplink.take_newest()
    if message is None:
        return
    weights = link.decode_weights(message)
    for rollout in rollouts:
        rollout.policy.load_weights(weights.arrays, weights.version)


def _evaluate(
    config: WorkerConfig, uplink: Uplink, envs: Sequence[gymnasium.Env], _: EnvDescription, stop: StopSignal
) -> None:
    """Waits for requests and answers each with a report."""
    policy = _make_policy(config, _seeds(config)[0])
    uplink.start(push=False)
    while (message := uplink.wait_newest()) is not None:
        request = link.decode_evaluation_request(message)
        policy.load_weights(request.weights.arrays, request.weights.version)
        clip = ClipRecorder() if request.clip else None
        report = evaluate(envs[0], policy, request.seeds, clip=clip, stop=stop.is_set)
        if not stop.is_set():
            uplink.report(link.encode_evaluation_report(report, request.id))


def _step_on_command(
    config: WorkerConfig,
    uplink: Uplink,
    envs: Sequence[gymnasium.Env],
    description: EnvDescription,
    stop: StopSignal,
) -> None:
    """Steps the environments with the learner's actions."""
    del stop
    group = EnvGroup(envs, description, config.observation == "flat", _seeds(config))
    uplink.serve_lock_step(
        lambda message: link.encode_lock_step_reply(group.answer(link.decode_lock_step_command(message)))
    )


class EnvGroup:
    """Environments stepped together; one that ends is reset at once.

    Args:
        envs: Dict-observation environments.
        description: Their spec.
        is_flat: Whether observations are flattened.
        seeds: One for each environment, from which the seeds of its episodes are drawn.
    """

    def __init__(
        self, envs: Sequence[gymnasium.Env], description: EnvDescription, is_flat: bool, seeds: Sequence[int]
    ) -> None:
        self._envs = envs
        self._spec = description.spec
        self._is_flat = is_flat
        self._rngs = [np.random.default_rng(seed) for seed in seeds[: len(envs)]]
        count = len(envs)
        if is_flat:
            size = sum(f.size for f in self._spec.all_fields())
            self._observation = {"obs": np.empty((count, size), np.float32)}
        else:
            self._observation = {
                f.name: np.empty((count, *f.shape), np.dtype(f.dtype)) for f in self._spec.all_fields()
            }

    def answer(self, command: link.LockStepCommand) -> link.LockStepReply:
        """Does what is commanded."""
        if command.actions is None:
            return self._reset(command.id)
        expected = (len(self._envs), self._spec.action_size)
        if command.actions.shape != expected:
            raise link.LinkError(f"actions must have shape {expected}, got {command.actions.shape}")
        return self._step(command.id, command.actions)

    def _reset(self, command_id: int) -> link.LockStepReply:
        for i in range(len(self._envs)):
            self._begin_episode(i)
        nothing = np.zeros(len(self._envs), np.bool_)
        rewards = np.zeros(len(self._envs), np.float32)
        return link.LockStepReply(command_id, True, self._observation, rewards, nothing, nothing)

    def _step(self, command_id: int, actions: np.ndarray) -> link.LockStepReply:
        count = len(self._envs)
        reward = np.empty(count, np.float32)
        terminated, truncated = np.empty(count, np.bool_), np.empty(count, np.bool_)
        episodes, indices = [], []
        for i, env in enumerate(self._envs):
            observation, reward[i], terminated[i], truncated[i], info = env.step(actions[i])
            if terminated[i] or truncated[i]:
                episodes.append({name: float(value) for name, value in info.get("episode_statistics", {}).items()})
                indices.append(i)
                self._begin_episode(i)
            else:
                self._store(i, observation)
        if not np.isfinite(reward).all():
            raise ValueError(f"rewards must be finite, got {reward.tolist()}")
        return link.LockStepReply(
            command_id, False, self._observation, reward, terminated, truncated, tuple(episodes), tuple(indices)
        )

    def _begin_episode(self, index: int) -> None:
        observation, _ = self._envs[index].reset(seed=int(self._rngs[index].integers(2**31 - 1)))
        self._store(index, observation)

    def _store(self, index: int, observation: Mapping[str, np.ndarray]) -> None:
        if self._is_flat:
            self._observation["obs"][index] = self._spec.to_flat(observation)
            return
        for name, array in self._observation.items():
            array[index] = observation[name]


def _seeds(config: WorkerConfig) -> list[int]:
    """Two independent seeds for each environment; another incarnation has others."""
    sequence = np.random.SeedSequence([config.seed, config.index, config.incarnation, len(config.role)])
    return [int(seed) for seed in sequence.generate_state(2 * config.num_envs)]


def _make_policy(config: WorkerConfig, seed: int) -> Policy:
    if config.policy is None:
        raise ValueError(f"a worker in the role {config.role} needs a policy: {{function, kwargs}}")
    kwargs = dict(config.policy.get("kwargs") or {})
    return load_function(config.policy["function"], "policy.function")(**{**kwargs, "seed": seed})


def _software() -> dict[str, str]:
    return {"python": platform.python_version(), "numpy": np.__version__, "platform": sys.platform}


def _take_standard_output() -> TextIO:
    """A private handle on standard output, so that nothing an environment prints mixes with answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _watch_parent(stop: StopSignal) -> None:
    """Ends the process when standard input closes or the parent changes: first gently, then for good."""
    parent = os.getppid()

    def end() -> None:
        stop.set()
        time.sleep(_GRACE_S)
        os._exit(0)

    def watch_input() -> None:
        with contextlib.suppress(OSError, ValueError):
            while sys.stdin.readline():
                pass
        end()

    def watch_parent() -> None:
        while not stop.wait(_PARENT_CHECK_S):
            if os.getppid() != parent:
                end()

    for watch in (watch_input, watch_parent):
        threading.Thread(target=watch, name=watch.__name__, daemon=True).start()


if __name__ == "__main__":
    _status = main()
    sys.stderr.flush()
    # Without the teardown of what a policy has loaded: the learner waits for this process to end.
    os._exit(_status)
