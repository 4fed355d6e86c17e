"""A worker process: acts with its own policy and streams segments, evaluates, or steps environments on command.

Started by ``launch`` as ``python -m tasks.remote.worker.worker`` with one line of JSON on standard input, which stays
open: when it closes, the learner is gone and so is the worker. A failure goes to the learner as one line of JSON on
standard output; everything else that is printed goes to standard error. Imports neither torch nor rl_games by itself:
that comes with the policy.

A single game has one worker and nobody beside it: that worker also answers evaluation requests,
between two episodes on its own environment (``evaluates``).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from tasks.acting.env_source import EnvDescription, EnvSource
from tasks.acting.punctuality import punctual
from tasks.envs.batch import BatchSimulator
from tasks.envs.env_batch import EnvBatch
from tasks.envs.foreign import WrongValueError
from tasks.game.errors import GameError
from tasks.live.controls import exit_release
from tasks.plugins import load_plugins
from tasks.process.precedence import step_back
from tasks.process.step_watch import StepWatch
from tasks.process.stop_signals import ignore_terminal
from tasks.remote.access.dialing import RefusedError
from tasks.remote.access.fingerprint import agreed_fingerprint
from tasks.remote.access.run_credentials import client_credentials
from tasks.remote.station.child_process import Line, take_standard_output
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire import link
from tasks.remote.worker.acting_loop import (
    Acting,
    ActingLoop,
    AnyRollout,
    make_envs,
    make_policy,
    make_rollouts,
    only_env,
)
from tasks.remote.worker.env_group import EnvGroup
from tasks.remote.worker.evaluator import Evaluator

_log = logging.getLogger(__name__)

_GRACE_S = 1.0
_PARENT_CHECK_S = 1.0


@dataclass(frozen=True)
class WorkerConfig(Line):
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
    """{function, kwargs}: makes the policy; it also gets a ``seed``. In lock_step it only evaluates."""
    evaluates: bool = False
    """Whether a worker or lock_step answers evaluation requests, too; needs ``policy`` and one environment."""
    seed: int = 0
    num_stored: int = 0
    """Segments that were stored when the run went on: it then draws other episodes than at its first start."""
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
    authority: str | None = None
    """Certificate that the gateway's must be signed by; None: plaintext, on the learner's machine."""


def main() -> int:
    """Runs the worker that standard input describes; returns the exit code."""
    ignore_terminal()
    # Here, because the environment opens the controls in a thread of its own.
    exit_release.handle_signals()
    answers = take_standard_output()
    config = WorkerConfig.from_line(sys.stdin.readline())
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format=f"{config.worker} %(levelname)s %(name)s: %(message)s"
    )
    stop = StopSignal()
    _watch_parent(stop)
    try:
        run(config, stop)
    except Exception as error:
        # What is wrong with the game, the link or a returned value is said in the message; a traceback adds nothing.
        kind = "refused" if isinstance(error, RefusedError | GameError | WrongValueError) else "error"
        answers.write(json.dumps({"kind": kind, "message": str(error), "traceback": traceback.format_exc()}) + "\n")
        answers.flush()
        return 1
    return 0


class StopSignal(threading.Event):
    """The event that ends the worker; setting it also wakes other waits."""

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
    # In lock step the learner acts, and the policy, if there is one, only evaluates.
    agreed = agreed_fingerprint(description.fingerprint, None if config.role == "lock_step" else config.policy)
    hello = link.Hello(config.worker, config.index, config.role, agreed, software())
    step_watch = StepWatch()
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
        credentials=None
        if config.authority is None
        else client_credentials(config.authority, config.worker, config.token),
        hangs_for_s=step_watch.hangs_for_s,
    )
    stop.on_set(uplink.wake)
    roles = {"worker": _roll_out, "evaluator": _evaluate, "lock_step": _step_on_command}
    is_lock_step = config.role == "lock_step"
    with contextlib.ExitStack() as stack:
        stack.callback(uplink.close)
        uplink.connect()
        uplink.start_pings()
        # Before the environments, so that the learner shows a worker that hangs while it makes them.
        if is_lock_step:
            uplink.start_lock_step()
        uplink.start(
            push=config.role == "worker",
            weights=not is_lock_step,
            requests=config.evaluates,
        )
        try:
            roles[config.role](config, uplink, _Environments(stack, source, description, step_watch, stop), stop)
        except Exception:
            if not stop.is_set():
                raise
            _log.debug("on the way out", exc_info=True)
        finally:
            stop.set()


class _Environments(NamedTuple):
    """What is driven: nothing yet, until a role makes it."""

    stack: contextlib.ExitStack
    source: EnvSource
    description: EnvDescription
    step_watch: StepWatch
    stop: StopSignal

    def make(self, count: int) -> list[gymnasium.Env]:
        """So many, each by itself."""
        return make_envs(self.stack, self.source, count, self.step_watch, self.stop)

    def make_batch(self, count: int, seed: int) -> tuple[BatchSimulator, list[gymnasium.Env]]:
        """So many that step together, and each by itself where the task has no batch of them."""
        with self.step_watch.call():
            batch = self.source.make_batch(count, seed)
        if batch is not None:
            self.stack.callback(batch.close)
            return batch, []
        envs = self.make(count)
        return EnvBatch(envs, self.description.spec, seed), envs

    def make_rollouts(self, acting: Acting) -> Sequence[AnyRollout]:
        """With policies that drive them, all together where the task can do that."""
        return make_rollouts(self.stack, self.source, acting, self.step_watch, self.stop)


def _roll_out(config: WorkerConfig, uplink: Uplink, environments: _Environments, stop: StopSignal) -> None:
    """Acts and streams; new weights are taken between segments."""
    seeds, count = _seeds(config), config.num_envs
    acting = Acting(config.policy, config.worker, seeds[:count], seeds[: -1 - count : -1], config.check_samples)
    rollouts = environments.make_rollouts(acting)
    evaluator = None
    if config.evaluates:
        evaluator = _make_evaluator(config, uplink, only_env(rollouts, environments.step_watch), stop)
    with punctual() if environments.description.is_wall_clock else contextlib.nullcontext():
        ActingLoop(uplink, rollouts, config.segment_rows, stop, evaluator=evaluator).run()


def _evaluate(config: WorkerConfig, uplink: Uplink, environments: _Environments, stop: StopSignal) -> None:
    """Waits for requests and answers each with a report; what learns and drives comes first."""
    if not environments.description.is_wall_clock:
        step_back()
    evaluator = _make_evaluator(config, uplink, environments.make(1)[0], stop)
    while (message := uplink.wait_newest()) is not None:
        evaluator.answer(message)


def _step_on_command(config: WorkerConfig, uplink: Uplink, environments: _Environments, stop: StopSignal) -> None:
    """Steps the environments with the learner's actions."""
    batch, envs = environments.make_batch(config.num_envs, _seeds(config)[0])
    group = EnvGroup(batch, config.num_envs, environments.description.spec, config.observation == "flat")

    def answer(message: bytes) -> bytes:
        command = link.decode_lock_step_command(message)
        with environments.step_watch.call():
            reply = group.answer(command)
        return link.encode_lock_step_reply(reply)

    if not config.evaluates:
        uplink.serve_lock_step(answer)
        return
    evaluator = _make_evaluator(config, uplink, envs[0], stop)

    def evaluate_in_between(message: bytes | bytearray) -> None:
        group.abandon_episodes()
        evaluator.answer(message)

    uplink.serve_lock_step(answer, evaluate_in_between)


def _make_evaluator(config: WorkerConfig, uplink: Uplink, env: gymnasium.Env, stop: StopSignal) -> Evaluator:
    return Evaluator(make_policy(config.policy, _seeds(config)[0]), uplink, env, stop)


def _seeds(config: WorkerConfig) -> list[int]:
    """Two independent seeds for each environment; another incarnation, and a run that goes on, has others."""
    place = [config.seed, config.index, config.incarnation, len(config.role)]
    sequence = np.random.SeedSequence(place, spawn_key=(config.num_stored,) if config.num_stored else ())
    return [int(seed) for seed in sequence.generate_state(2 * config.num_envs)]


def software() -> dict[str, str]:
    """Names and versions, for the learner's log."""
    return {"python": platform.python_version(), "numpy": np.__version__, "platform": sys.platform}


def _watch_parent(stop: StopSignal) -> None:
    """Ends the process when standard input closes or the parent changes: first gently, then for good."""
    parent = os.getppid()

    def end() -> None:
        stop.set()
        time.sleep(_GRACE_S)
        # An environment that hangs has not let go of keys, and os._exit skips what else would.
        exit_release.release_all()
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

    for target in (watch_input, watch_parent):
        threading.Thread(target=target, name=target.__name__, daemon=True).start()


if __name__ == "__main__":
    _status = main()
    sys.stderr.flush()
    exit_release.release_all()
    # Without the teardown of what a policy has loaded: the learner waits for this process to end.
    os._exit(_status)
