"""A worker that joins from elsewhere (``train.py --worker``): drives here, delivers through a courier process.

``run`` is called by ``train.py``, ``drive`` by whoever has an environment of their own. Driving and delivering are two
processes: the loop here hands encoded segments over and never waits for a disk or a network; ``courier`` does the rest.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.acting.env_source import EnvDescription, EnvSource, load_function
from tasks.acting.evaluation import ClipRecorder
from tasks.acting.punctuality import punctual
from tasks.acting.rollout import Policy, Rollout
from tasks.config import TaskConfig, config_to_dict
from tasks.game.errors import GameError
from tasks.live.controls import exit_release
from tasks.process.step_watch import HangTeller, StepWatch
from tasks.process.stop_signals import stop_signals
from tasks.remote.access.agreement import agreement
from tasks.remote.access.credentials import load_client
from tasks.remote.config import FarWorkerConfig, OutboxPolicy, RemoteConfig
from tasks.remote.station.outbox import STREAMS_PER_START
from tasks.remote.wire import link
from tasks.remote.worker.courier import Courier
from tasks.remote.worker.courier_pipe import CourierConfig
from tasks.remote.worker.examiner import Examiner
from tasks.remote.worker.uplink import RefusedError
from tasks.remote.worker.worker_display import WorkerDisplay

_log = logging.getLogger(__name__)

SEGMENT_ROWS = 32
WINDOW = 4
OUTBOX_ROOT = Path("runs") / "outbox"
DONE, REFUSED = 0, 2
"""Exit codes: ended as asked, also by Ctrl-C; there is something that the user has to put right."""

_GIVE_UP_S = 4.0
_EXPERT_VERSION = 1


def run(
    task: TaskConfig,
    remote: RemoteConfig,
    worker: FarWorkerConfig,
    policy: Mapping[str, Any],
    *,
    expert_weights: Mapping[str, np.ndarray] | None = None,
    headless: bool = False,
    segment_rows: int = SEGMENT_ROWS,
    window: int = WINDOW,
) -> int:
    """Drives a task for the learner or relay at ``remote.address`` until Ctrl-C, or ``worker.episodes`` are delivered.

    Args:
        task: What is driven; its game is decided.
        remote: Where to and with which credentials.
        worker: How.
        policy: {"function": "module:function", "kwargs": {...}}: makes what acts; it also gets a ``seed``.
        expert_weights: With worker.expert: drives with these, of the same network, and ignores the learner's.
        headless: Plain lines instead of a live one.
        segment_rows: What worker.samples_per_packet=auto means.
        window: Segments that the learner has not stored, at which environments that are not in real time wait for it.

    Returns:
        The exit code: 0, or 2 when learner, relay or game refused with a message in the log.

    Raises:
        ValueError: If a value does not fit; nothing was started.
    """
    return drive(
        EnvSource(config_to_dict(task)),
        remote,
        worker,
        policy,
        expert_weights=expert_weights,
        headless=headless,
        segment_rows=segment_rows,
        window=window,
    )


def drive(
    source: EnvSource,
    remote: RemoteConfig,
    worker: FarWorkerConfig,
    policy: Mapping[str, Any],
    *,
    expert_weights: Mapping[str, np.ndarray] | None = None,
    headless: bool = False,
    segment_rows: int = SEGMENT_ROWS,
    window: int = WINDOW,
    stop: threading.Event | None = None,
) -> int:
    """As ``run``, with environments from anywhere.

    Args:
        source: Makes the environments.
        remote: As for ``run``.
        worker: As for ``run``.
        policy: As for ``run``.
        expert_weights: As for ``run``.
        headless: As for ``run``.
        segment_rows: As for ``run``.
        window: As for ``run``.
        stop: Ends it when it is set, as Ctrl-C does.
    """
    description = source.describe()
    _check(remote, worker, description, expert_weights)
    fingerprint = agreement(description.fingerprint, policy)
    config = _courier_config(remote, worker, fingerprint, evaluates(worker, description))
    stop = threading.Event() if stop is None else stop
    courier = Courier(config)
    driver = FarDriver(courier, worker, description, segment_rows, window, stop)
    with (
        _stopping_by_signal(stop, courier.wake),
        WorkerDisplay(config.address, courier, driver, headless),
        HangTeller(driver.hanging),
    ):
        try:
            courier.start()
            courier.wait_until_joined(stop)
            if not stop.is_set():
                driver.drive(source, policy, expert_weights)
        except (RefusedError, GameError) as error:
            _log.error("%s", error)
            return REFUSED
        finally:
            unkept = courier.close()
            _say_what_is_left(courier, unkept)
    return DONE


class FarDriver:
    """The loop that drives: environments and policies in turn, their segments to the courier.

    Args:
        courier: Takes segments, brings weights.
        worker: How to drive.
        description: Of the environments.
        segment_rows: Of ``drive``.
        window: Of ``drive``.
        stop: Ends the loop.
    """

    def __init__(
        self,
        courier: Courier,
        worker: FarWorkerConfig,
        description: EnvDescription,
        segment_rows: int,
        window: int,
        stop: threading.Event,
    ) -> None:
        self._courier = courier
        self._worker = worker
        self._is_wall_clock = description.is_wall_clock
        self._evaluates = evaluates(worker, description)
        self._may_drop = worker.outbox_policy is OutboxPolicy.drop_oldest
        # Real time waits for nobody; a simulator ahead of the learner does.
        self._window = None if description.is_wall_clock else max(window, worker.envs_per_worker)
        self._rows = segment_rows if worker.samples_per_packet == "auto" else int(worker.samples_per_packet)
        self._stop = stop
        self.num_acts = 0
        """Rows so far: environment steps and resets."""
        self.num_episodes = 0
        """Episodes that ended."""
        self.last_return = float("nan")
        """Of the last of them."""
        self.is_waiting = False
        """Whether driving rests until there is room in the outbox."""
        self._watch = StepWatch()
        self._hung = False

    def hanging(self) -> dict[str, float]:
        """How long the environments have not come back, for the log here; the learner is told, too."""
        hangs_for_s = self._watch.hangs_for_s()
        if hangs_for_s or self._hung:
            self._courier.note_hanging(hangs_for_s)
        self._hung = hangs_for_s > 0
        return {"this worker": hangs_for_s}

    def drive(
        self, source: EnvSource, policy: Mapping[str, Any], expert_weights: Mapping[str, np.ndarray] | None
    ) -> None:
        """Makes the environments, drives until the end, and delivers what ``worker.episodes`` made."""
        with contextlib.ExitStack() as stack:
            try:
                rollouts = self._make_rollouts(stack, source, policy, expert_weights)
                examiner = self._make_examiner(rollouts[0], policy)
                with punctual() if self._is_wall_clock else contextlib.nullcontext():
                    self._loop(rollouts, examiner)
            except Exception:
                if not self._stop.is_set():
                    raise
                _log.debug("on the way out", exc_info=True)
        if not self._stop.is_set():
            _log.info("%d episodes are driven; waiting until the learner has stored them", self.num_episodes)
            self._courier.finish(self._stop)

    def _make_rollouts(
        self,
        stack: contextlib.ExitStack,
        source: EnvSource,
        policy: Mapping[str, Any],
        expert_weights: Mapping[str, np.ndarray] | None,
    ) -> list[Rollout]:
        # Every start of every worker explores in its own way; there is no configured seed that could tell them apart.
        sequence = np.random.SeedSequence()
        seeds = sequence.generate_state(2 * self._worker.envs_per_worker).tolist()
        rollouts = []
        for index in range(self._worker.envs_per_worker):
            with self._watch.call():
                env = self._watch.around(stack.enter_context(contextlib.closing(source.make())))
            if env.has_wrapper_attr("watch"):
                env.get_wrapper_attr("watch")(self._stop.is_set)
            made = _make_policy(policy, seeds[2 * index])
            if expert_weights is not None:
                made.load_weights(expert_weights, _EXPERT_VERSION)
            rollouts.append(
                Rollout(env, made, "far", index, seeds[2 * index + 1], deterministic=self._worker.deterministic)
            )
        return rollouts

    def _make_examiner(self, rollout: Rollout, policy: Mapping[str, Any]) -> Examiner | None:
        if not self._evaluates:
            return None
        # A policy of its own: what explores here is not disturbed.
        return Examiner(_make_policy(policy, 0), self._courier, rollout.env, self._stop, _small_clip)

    def _loop(self, rollouts: Sequence[Rollout], examiner: Examiner | None) -> None:
        while True:
            for rollout in rollouts:
                if examiner is not None and rollout.is_between_episodes:
                    examiner.answer_waiting()
                self._wait_for_room(rollout)
                self._load_newest(rollouts)
                if self._is_done():
                    return
                segment = rollout.run(self._rows, partial(self._note_row, rollout))
                self._courier.send(link.encode_segment(segment))
                self._courier.raise_failure()
                if segment.episodes:
                    self.last_return = segment.episodes[-1].get("return", float("nan"))

    def _note_row(self, rollout: Rollout) -> bool:
        """Called after every row; whether driving shall end here."""
        self.num_acts += 1
        self.num_episodes += rollout.is_between_episodes
        return self._is_done() or (self._courier.has_request and rollout.is_between_episodes)

    def _is_done(self) -> bool:
        return self._stop.is_set() or 0 < self._worker.episodes <= self.num_episodes

    def _wait_for_room(self, rollout: Rollout) -> None:
        if self._courier.has_room(self._window, self._may_drop):
            return
        if self._is_wall_clock:
            _log.warning("driving rests: %s", self._courier.status.full or "too much is not delivered yet")
            rollout.rest()
        self.is_waiting = True
        self._courier.wait_for_room(self._window, self._may_drop, self._stop)
        self.is_waiting = False

    def _load_newest(self, rollouts: Sequence[Rollout]) -> None:
        message = self._courier.take_weights()
        if message is None:
            return
        weights = link.decode_weights(message)
        for rollout in rollouts:
            rollout.policy.load_weights(weights.arrays, weights.version)


def evaluates(worker: FarWorkerConfig, description: EnvDescription) -> bool:
    """Whether a worker drives evaluations between two episodes: where the learner cannot have a game for itself."""
    return description.is_single_game and not worker.expert


def _small_clip() -> ClipRecorder:
    """Pictures that the uplink of a home carries in a quarter of a minute: at most 3 MB."""
    return ClipRecorder(max_frames=75, max_width=160)


def _courier_config(remote: RemoteConfig, worker: FarWorkerConfig, fingerprint: str, evaluates: bool) -> CourierConfig:
    if remote.address is None:
        raise ValueError("remote.address must be host:port of the learner or relay to join, got null")
    if remote.credentials is None:
        raise ValueError(
            "remote.credentials must be this worker's folder: a copy of .../workers/NAME that --make-credentials made "
            "for the learner or relay; got null"
        )
    name = load_client(remote.credentials).name
    if worker.name not in (None, name):
        raise ValueError(
            f"worker.name must be {name!r}, for which the token in {remote.credentials} was made, got {worker.name!r}"
        )
    return CourierConfig(
        address=remote.address,
        credentials=remote.credentials,
        is_plaintext=remote.insecure,
        name=name,
        fingerprint=fingerprint,
        session=secrets.token_hex(8),
        outbox=str(OUTBOX_ROOT / name if worker.outbox is None else Path(worker.outbox).expanduser()),
        outbox_bytes=worker.outbox_mb * 1_000_000,
        outbox_policy=worker.outbox_policy.name,
        max_message_bytes=remote.max_message_mb * 1024 * 1024,
        compress=worker.compress,
        forwards_weights=not worker.expert,
        evaluates=evaluates,
        weights_history=worker.weights_history,
        software={"python": platform.python_version(), "numpy": np.__version__, "platform": sys.platform},
    )


def _check(
    remote: RemoteConfig,
    worker: FarWorkerConfig,
    description: EnvDescription,
    expert_weights: Mapping[str, np.ndarray] | None,
) -> None:
    if remote.insecure:
        _log.warning("remote.insecure: samples, weights and the token go to %s in plaintext", remote.address)
    if worker.expert != (expert_weights is not None):
        raise ValueError("worker.expert=true and --checkpoint FILE belong together: an expert drives with the file")
    if description.is_single_game and worker.envs_per_worker > 1:
        raise ValueError(
            f"worker.envs_per_worker must be 1 with a game that is there only once, got {worker.envs_per_worker}"
        )
    if worker.envs_per_worker > STREAMS_PER_START:
        raise ValueError(f"worker.envs_per_worker must be <= {STREAMS_PER_START}, got {worker.envs_per_worker}")
    if worker.samples_per_packet != "auto" and int(worker.samples_per_packet) > link.MAX_SEGMENT_ROWS:
        raise ValueError(
            f"worker.samples_per_packet must be <= {link.MAX_SEGMENT_ROWS}, got {worker.samples_per_packet}"
        )
    rests = description.is_wall_clock and worker.outbox_policy is OutboxPolicy.pause
    if rests and not description.spec.reset_act_buf:
        raise ValueError(
            "task.rtgym.reset_act_buf must be true with worker.outbox_policy=pause in real time: driving rests in the "
            "middle of an episode, of which the next would begin with its actions; got false"
        )


def _make_policy(policy: Mapping[str, Any], seed: int) -> Policy:
    made: Policy = load_function(policy["function"], "policy.function")(
        **{**(policy.get("kwargs") or {}), "seed": seed}
    )
    return made


def _say_what_is_left(courier: Courier, unkept: int) -> None:
    status = courier.status
    if status.segments:
        _log.info(
            "%d segments (%.1f MB) that the learner has not stored wait in %s for the next start",
            status.segments,
            status.num_bytes / 1e6,
            status.folder,
        )
    if unkept > 0:
        _log.warning("%d segments could not be kept", unkept)


@contextlib.contextmanager
def _stopping_by_signal(stop: threading.Event, wake: Callable[[], None]) -> Iterator[None]:
    """Has the stop signals end the loop in good order, or the process when that takes too long."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timer = threading.Timer(_GIVE_UP_S, _give_up)
    timer.daemon = True

    def end(number: int, frame: object) -> None:
        del number, frame
        if stop.is_set():
            raise KeyboardInterrupt  # a second one does not wait
        stop.set()
        timer.start()
        # Not here: the interrupted code may hold the lock.
        threading.Thread(target=wake, name="wake", daemon=True).start()

    former = {number: signal.signal(number, end) for number in stop_signals()}
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in former.items():
            signal.signal(number, handler)


def _give_up() -> None:
    """An environment hangs; the courier keeps what it has got when this process is gone."""
    exit_release.release_all()
    os._exit(130)
