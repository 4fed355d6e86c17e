"""A remote worker (``train.py --worker``): drives here, delivers through its station.

``train.py`` calls ``drive``, and so do programs with an environment of their own. Driving and delivering are two
processes: the loop here is the one of any worker, over a link to the station (``worker_station``) on this machine, and
never waits for a disk or a network.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.acting.env_source import EnvDescription, EnvSource
from tasks.acting.evaluation import ClipRecorder
from tasks.acting.punctuality import punctual
from tasks.game.errors import GameError
from tasks.live.controls import exit_release
from tasks.process import stop_signals
from tasks.process.step_watch import HangReporter, StepWatch
from tasks.remote.access.credentials import load_client
from tasks.remote.access.dialing import RefusedError
from tasks.remote.access.fingerprint import agreed_fingerprint
from tasks.remote.config import OutboxPolicy, RemoteConfig, RemoteWorkerConfig
from tasks.remote.station.outbox import STREAMS_PER_START
from tasks.remote.station.station_config import StationConfig, StationStatus
from tasks.remote.station.station_process import StationProcess
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire import link
from tasks.remote.worker.acting_loop import (
    Acting,
    ActingLoop,
    AnyRollout,
    Progress,
    make_policy,
    make_rollouts,
    only_env,
)
from tasks.remote.worker.evaluator import Evaluator
from tasks.remote.worker.worker import software
from tasks.remote.worker.worker_display import WorkerDisplay

_log = logging.getLogger(__name__)

SEGMENT_ROWS = 32
WINDOW = 4
OUTBOX_ROOT = Path("runs") / "outbox"
DONE, REFUSED = 0, 2
"""Exit codes: ended as asked, also by Ctrl-C; there is something that the user has to put right."""

MAX_BUFFER_SEGMENTS = 512
BUFFER_BYTES = 128 << 20
"""In real time: what may wait here for the station; beyond it the oldest segments go."""

_NAME = "worker"
_SMALL_CLIP = partial(ClipRecorder, max_frames=75, max_width=160)
"""Pictures that the connection of a home carries in a quarter of a minute: at most 3 MB."""
_LISTEN = "127.0.0.1:0"
_GIVE_UP_S = 4.0
_HAND_OVER_S = 2.0
_HANG_UP_POLL_S = 0.05
_POLL_S = 0.5
_EXPERT_VERSION = 1


def drive(
    source: EnvSource,
    remote: RemoteConfig,
    worker: RemoteWorkerConfig,
    policy: Mapping[str, Any],
    *,
    expert_weights: Mapping[str, np.ndarray] | None = None,
    headless: bool = False,
    window: int = WINDOW,
    stop: threading.Event | None = None,
) -> int:
    """Drives for the learner or relay at ``remote.address`` until Ctrl-C, or ``worker.episodes`` are delivered.

    Args:
        source: Makes the environments; the game of a task is decided.
        remote: Where to and with which credentials.
        worker: How.
        policy: {"function": "module:function", "kwargs": {...}}: makes what acts; it also gets a ``seed``.
        expert_weights: With worker.expert: drives with these, of the same network, and ignores the learner's.
        headless: Plain lines instead of a live one.
        window: Segments that the learner has not stored, at which environments that are not in real time wait for it.
        stop: Ends it when it is set, as Ctrl-C does.

    Returns:
        The exit code: 0, or 2 when learner, relay or game refused with a message in the log.

    Raises:
        ValueError: If a value does not fit; nothing was started.
    """
    description = source.describe()
    _check(remote, worker, description, expert_weights)
    fingerprint = agreed_fingerprint(description.fingerprint, policy)
    config = _station_config(remote, worker, fingerprint, description)
    stop = threading.Event() if stop is None else stop
    station, progress, step_watch = StationProcess(config), Progress(), StepWatch()
    with (
        _stopping_by_signal(stop, station.wake),
        WorkerDisplay(config.address, lambda: station.status, progress, headless),
        HangReporter(lambda: {"this worker": step_watch.hangs_for_s()}),
    ):
        try:
            station.start()
            station.wait(lambda status: status.has_joined, stop)
            if not stop.is_set():
                remote_worker = RemoteWorker(station, config, worker, description, window, stop, progress, step_watch)
                remote_worker.drive(source, policy, expert_weights)
        except (RefusedError, GameError) as error:
            _log.error("%s", error)
            return REFUSED
        finally:
            station.close()
            _say_what_is_left(station.status)
    return DONE


class RemoteWorker:
    """Drives, and hands what happened to the station.

    Args:
        station: Stores and delivers.
        config: Of the station.
        worker: How to drive.
        description: Of the environments.
        window: Of ``drive``.
        stop: Ends driving.
        progress: Where it is noted how far it has come.
        step_watch: Where it is noted how long a step takes.
    """

    def __init__(
        self,
        station: StationProcess,
        config: StationConfig,
        worker: RemoteWorkerConfig,
        description: EnvDescription,
        window: int,
        stop: threading.Event,
        progress: Progress,
        step_watch: StepWatch,
    ) -> None:
        self._station = station
        self._worker = worker
        self._is_wall_clock = description.is_wall_clock
        self._evaluates = config.evaluates
        rows = worker.samples_per_packet
        self._segment_rows = SEGMENT_ROWS if rows == "auto" else int(rows)
        self._stop = stop
        self._progress = progress
        self._step_watch = step_watch
        # Real time waits for nobody; a simulator ahead of the learner does.
        window = max(window, worker.num_envs)
        buffer_segments = window + worker.num_envs
        if description.is_wall_clock:
            buffer_segments = min(
                max(BUFFER_BYTES // (self._segment_rows * _row_bytes(description)), 1), MAX_BUFFER_SEGMENTS
            )
        self._buffer_segments = buffer_segments
        self._outbox_bytes = sys.maxsize if worker.outbox_policy is OutboxPolicy.drop_oldest else config.outbox_bytes
        self._is_full = False
        self._hangs_up = threading.Event()
        self._uplink = Uplink(
            station.status.listen,
            config.token,
            link.Hello(_NAME, 0, "worker", config.fingerprint, config.software),
            self._hangs_up,
            window=sys.maxsize if description.is_wall_clock else window,
            buffer_segments=buffer_segments,
            hangs_for_s=step_watch.hangs_for_s,
            peer="the station",
        )
        station.on_failure(self._uplink.fail)

    def drive(
        self, source: EnvSource, policy: Mapping[str, Any], expert_weights: Mapping[str, np.ndarray] | None
    ) -> None:
        """Makes the environments, drives until the end, and delivers what ``worker.episodes`` made."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._hang_up)
            self._uplink.connect()
            self._uplink.start_pings()
            self._uplink.start(push=True, requests=self._evaluates, weights=expert_weights is None)
            try:
                self._act(source, policy, expert_weights)
            except Exception:
                if not self._stop.is_set():
                    raise
                _log.debug("on the way out", exc_info=True)
            if not self._stop.is_set():
                count = self._progress.num_episodes
                _log.info("%d episodes are driven; waiting until the learner has stored them", count)
                last = self._uplink.last_seq
                self._station.wait(lambda status: status.taken >= last and not status.segments, self._stop)

    def _act(
        self, source: EnvSource, policy: Mapping[str, Any], expert_weights: Mapping[str, np.ndarray] | None
    ) -> None:
        with contextlib.ExitStack() as stack:
            rollouts = self._make_rollouts(stack, source, policy, expert_weights)
            evaluator = None
            if self._evaluates:
                # A policy of its own: what explores here is not disturbed.
                own = make_policy(policy, 0)
                evaluator = Evaluator(own, self._uplink, only_env(rollouts, self._step_watch), self._stop, _SMALL_CLIP)
            loop = ActingLoop(
                self._uplink,
                rollouts,
                self._segment_rows,
                self._stop,
                evaluator=evaluator,
                episodes=self._worker.episodes,
                wait_for_room=self._wait_for_room,
                progress=self._progress,
            )
            with punctual() if self._is_wall_clock else contextlib.nullcontext():
                loop.run()

    def _make_rollouts(
        self,
        stack: contextlib.ExitStack,
        source: EnvSource,
        policy: Mapping[str, Any],
        expert_weights: Mapping[str, np.ndarray] | None,
    ) -> Sequence[AnyRollout]:
        # Every start of every worker explores in its own way; there is no configured seed that could tell them apart.
        sequence = np.random.SeedSequence()
        seeds = sequence.generate_state(2 * self._worker.num_envs).tolist()
        acting = Acting(policy, _NAME, seeds[::2], seeds[1::2], deterministic=self._worker.deterministic)
        rollouts = make_rollouts(stack, source, acting, self._step_watch, self._stop)
        if expert_weights is not None:
            for rollout in rollouts:
                rollout.policy.load_weights(expert_weights, _EXPERT_VERSION)
        return rollouts

    def _wait_for_room(self, rollout: AnyRollout) -> bool:
        if self._has_room():
            return True
        if self._is_wall_clock:
            _log.warning("driving pauses: %s", self._station.status.full or "too many segments are undelivered")
            rollout.rest()
        self._progress.is_waiting = True
        self._uplink.wait_for_room(_POLL_S, self._stop.is_set)
        self._station.wait(lambda _: self._has_room(), self._stop)
        self._progress.is_waiting = False
        return True

    def _has_room(self) -> bool:
        """Whether there is room for another segment at the learner and, where none may be dropped, in the outbox."""
        status = self._station.status
        # What was handed over before the outbox was known to be full waits here, and comes first.
        self._is_full = bool(status.full) or (self._is_full and status.taken < self._uplink.last_seq)
        if self._outbox_bytes == sys.maxsize or not self._uplink.has_room:
            return self._uplink.has_room
        held_bytes = status.num_bytes + self._uplink.bytes_after(status.taken)
        lags = 2 * self._uplink.unreceived > self._buffer_segments
        return not (self._is_full or lags or held_bytes >= self._outbox_bytes)

    def _hang_up(self) -> None:
        """Hands the last segments to the station, if it takes them soon."""
        deadline_s = time.monotonic() + _HAND_OVER_S
        with contextlib.suppress(Exception):  # What it is, is known already.
            while self._uplink.unreceived and time.monotonic() < deadline_s:
                self._uplink.wait_change(_HANG_UP_POLL_S)
        if self._uplink.unreceived:
            _log.warning("%d segments could not be kept", self._uplink.unreceived)
        self._hangs_up.set()
        self._uplink.close()


def evaluates(worker: RemoteWorkerConfig, description: EnvDescription) -> bool:
    """Whether a worker drives evaluations between two episodes: where the learner cannot have a game for itself."""
    return description.is_single_game and not worker.expert


def _station_config(
    remote: RemoteConfig, worker: RemoteWorkerConfig, fingerprint: str, description: EnvDescription
) -> StationConfig:
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
    return StationConfig(
        listen=_LISTEN,
        token=secrets.token_urlsafe(32),
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
        holds_back=not description.is_wall_clock,
        takes_weights=not worker.expert,
        evaluates=evaluates(worker, description),
        weights_history=worker.weights_history,
        software=software(),
    )


def _check(
    remote: RemoteConfig,
    worker: RemoteWorkerConfig,
    description: EnvDescription,
    expert_weights: Mapping[str, np.ndarray] | None,
) -> None:
    if remote.insecure:
        _log.warning("remote.insecure: samples, weights and the token go to %s in plaintext", remote.address)
    if worker.expert != (expert_weights is not None):
        raise ValueError("worker.expert=true and --checkpoint FILE belong together: an expert drives with the file")
    if description.is_single_game and worker.num_envs > 1:
        raise ValueError(f"worker.envs_per_worker must be 1 with a single game, got {worker.envs_per_worker}")
    if worker.num_envs > STREAMS_PER_START:
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


def _row_bytes(description: EnvDescription) -> int:
    return sum(math.prod(field.frame_shape) * np.dtype(field.dtype).itemsize for field in description.spec.fields)


def _say_what_is_left(status: StationStatus) -> None:
    if status.segments:
        _log.info(
            "%d segments (%.1f MB) that the learner has not stored wait in %s for the next start",
            status.segments,
            status.num_bytes / 1e6,
            status.folder,
        )


@contextlib.contextmanager
def _stopping_by_signal(stop: threading.Event, wake: Callable[[], None]) -> Iterator[None]:
    """Has the stop signals end the loop in good order, or the process when that takes too long."""
    timer = threading.Timer(_GIVE_UP_S, _give_up)
    timer.daemon = True

    def end() -> None:
        stop.set()
        timer.start()
        # Not here: the interrupted code may hold the lock.
        threading.Thread(target=wake, name="wake", daemon=True).start()

    with stop_signals.answered_by(end):
        try:
            yield
        finally:
            timer.cancel()


def _give_up() -> None:
    """An environment hangs; the station keeps what it has got when this process is gone."""
    exit_release.release_all()
    os._exit(130)
