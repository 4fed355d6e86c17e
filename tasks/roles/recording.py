"""The recording of a driven line: its start and end, and the path made of it, or the reason why there is none.

``tasks.roles.record.record`` (live game, scripted driver) and ``tasks.roles.drive.drive`` (by hand) give it telemetry.
It uses no clock, game or file: the same samples always make the same path.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

import numpy as np

from tasks.game.protocols import Telemetry
from tasks.roles.config import RecordConfig
from tasks.trackmania.reference_path import path_length_m, resample

START_RADIUS_M = 10.0
"""A car that stands within this distance of where the recording began is at the start again [m]."""
_MIN_SPACING_M = 0.05
"""Positions closer to the last one are left out, so that a car that stands and trembles adds no length [m]."""
_JUMP_M = 5.0
"""A step longer than its speed explains by more than this is a jump [m]."""
_SPEED_MARGIN = 1.5
_MAX_HOLE_M = 25.0
"""A longer straight between two records would cut a corner [m]."""
_STANDING_RADIUS_M = 2.0
_STANDING_REPORTED_M = 20.0
"""A car whose speed adds up to this, but whose position stays within _STANDING_RADIUS_M, is not driving [m]."""


class Sample(NamedTuple):
    """One record of telemetry, reduced to what a recording needs."""

    time_s: float
    """When it arrived [s]."""
    position: tuple[float, float, float]
    """x, y, z [m]."""
    speed_mps: float
    finished: bool
    """Whether the finish screen shows."""

    @staticmethod
    def from_telemetry(time_s: float, telemetry: Telemetry) -> Sample:
        """The sample of a record that arrived at ``time_s``."""
        position = (telemetry.x, telemetry.y, telemetry.z)
        return Sample(time_s, position, abs(telemetry.speed), telemetry.finished != 0.0)


class RecordingState(Enum):
    """State of a recording."""

    waiting = "waiting"
    """For the car to stand at the start, and then to move."""
    recording = "recording"
    finished = "finished"
    """The finish was reached."""
    stopped = "stopped"
    """Ended by hand, or by its time limit."""
    refused = "refused"
    """No path can come of it; ``Recorder.path`` says why."""

    @property
    def is_over(self) -> bool:
        """Whether the recording has ended."""
        return self not in (RecordingState.waiting, RecordingState.recording)


class Refusal(Enum):
    """Reasons why a drive gives no path."""

    no_telemetry = "no_telemetry"
    nothing_moved = "nothing_moved"
    """The car never drove off from standing."""
    standing_still = "standing_still"
    """The telemetry reports a speed, but the position stays."""
    teleported = "teleported"
    """The car jumped: a respawn, or another map."""
    interrupted = "interrupted"
    """No telemetry came for so long that a corner may be missing."""
    too_short = "too_short"


class RecordingRefused(ValueError):  # noqa: N818 (a refusal, as the documentation calls it)
    """Raised when a drive makes no reference path.

    Args:
        reason: Why.
        message: What happened and what to do.
    """

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RecordedPath(NamedTuple):
    """A recorded drive."""

    points: np.ndarray
    """x, y, z [m] every 0.1 m from where the car stood to where the recording ended, float64, shape (N, 3)."""
    trajectory: np.ndarray
    """x [m], z [m] and speed [m/s] as they came, float32, shape (T, 3)."""
    duration_s: float
    """From the last record in which the car stood to the end [s]."""
    has_finished: bool

    @property
    def length_m(self) -> float:
        """Length of the path [m]."""
        return path_length_m(self.points)


def path_of(samples: Iterable[Sample], config: RecordConfig) -> RecordedPath:
    """The path of a whole drive.

    Args:
        samples: What arrived, in order; what follows the end of the recording is not looked at. When they run out
            first, that is as if the recording were stopped by hand.
        config: When it starts and what is too short.

    Raises:
        RecordingRefused: The drive gives no path.
    """
    recorder = Recorder(config)
    for sample in samples:
        if recorder.add(sample).is_over:
            break
    recorder.stop()
    return recorder.path()


class Recorder:
    """Collects the samples of one drive.

    The recording begins with the last record in which the car stood before it moved, so a car that is already rolling
    is waited for. It begins anew when the car is put back to where it began. It ends when the finish flag rises, at
    ``stop`` or after ``max_minutes``. A finish screen that still shows from the run before is not a finish.
    """

    def __init__(self, config: RecordConfig) -> None:
        self._config = config
        self._state = RecordingState.waiting
        self._refusal: RecordingRefused | None = None
        self._samples: list[Sample] = []
        self._last: Sample | None = None
        self._length_m = 0.0
        self._top_speed_mps = 0.0
        self._farthest_m = 0.0
        self._reported_m = 0.0
        self._num_restarts = 0

    @property
    def state(self) -> RecordingState:
        """State of the recording."""
        return self._state

    @property
    def length_m(self) -> float:
        """Driven so far [m]."""
        return self._length_m

    @property
    def num_restarts(self) -> int:
        """How often the car was put back to the start and the recording restarted."""
        return self._num_restarts

    @property
    def span_s(self) -> tuple[float, float]:
        """When the first and the last record of the path arrived [s]."""
        return self._samples[0].time_s, self._samples[-1].time_s

    def add(self, sample: Sample) -> RecordingState:
        """Takes the next record; one with a value that is not finite, or after the end, changes nothing."""
        if self._state.is_over or not all(map(math.isfinite, (sample.time_s, sample.speed_mps, *sample.position))):
            return self._state
        self._top_speed_mps = max(self._top_speed_mps, sample.speed_mps)
        if self._state is RecordingState.waiting:
            self._wait(sample)
        else:
            self._follow(sample)
        self._last = sample
        return self._state

    def stop(self) -> RecordingState:
        """Ends it by hand."""
        if not self._state.is_over:
            if self._state is RecordingState.waiting:
                self._refuse_unmoved()
            else:
                self._state = RecordingState.stopped
        return self._state

    def path(self) -> RecordedPath:
        """The recorded path, once the drive is over.

        Raises:
            RecordingRefused: The drive gives no path.
        """
        if not self._state.is_over:
            raise RuntimeError("the recording is not over: call stop() first")
        if self._refusal is not None:
            raise self._refusal
        positions = np.array([sample.position for sample in self._samples], np.float64)
        if self._length_m < self._config.min_length_m:
            raise RecordingRefused(
                Refusal.too_short,
                f"too short: the car drove {self._length_m:.1f} m, record.min_length_m is "
                f"{self._config.min_length_m:g} m; drive from the start to the finish",
            )
        rows = [(sample.position[0], sample.position[2], sample.speed_mps) for sample in self._samples]
        duration_s = self._samples[-1].time_s - self._samples[0].time_s
        has_finished = self._state is RecordingState.finished
        return RecordedPath(resample(positions), np.array(rows, np.float32), duration_s, has_finished)

    def _wait(self, sample: Sample) -> None:
        last = self._last
        if last is None or self._is_moving(last) or not self._is_moving(sample) or sample.finished:
            return
        if _jump(last, sample) is None:
            self._state = RecordingState.recording
            self._samples = [last]
            self._length_m = self._farthest_m = self._reported_m = 0.0
            self._follow(sample)

    def _follow(self, sample: Sample) -> None:
        """Takes a record while recording."""
        last = self._last
        assert last is not None
        jump = _jump(last, sample)
        if self._is_back_at_start(sample, jump):
            self._num_restarts += 1
            self._samples.clear()
            self._length_m = 0.0
            self._state = RecordingState.waiting
        elif jump is not None:
            self._refuse(self._jumped(jump, last, sample))
        else:
            self._append(last, sample)
            self._look_for_the_end(sample)

    def _append(self, last: Sample, sample: Sample) -> None:
        self._reported_m += sample.speed_mps * max(sample.time_s - last.time_s, 0.0)
        step = math.dist(self._samples[-1].position, sample.position)
        self._farthest_m = max(self._farthest_m, math.dist(self._samples[0].position, sample.position))
        if step >= _MIN_SPACING_M or sample.finished:
            self._samples.append(sample)
            self._length_m += step

    def _look_for_the_end(self, sample: Sample) -> None:
        if sample.finished:
            self._state = RecordingState.finished
        elif self._is_standing():
            self._refuse(self._standing_still())
        elif sample.time_s - self._samples[0].time_s > 60.0 * self._config.max_minutes:
            self._state = RecordingState.stopped

    def _is_moving(self, sample: Sample) -> bool:
        return sample.speed_mps > self._config.start_speed_mps

    def _is_standing(self) -> bool:
        return self._farthest_m < _STANDING_RADIUS_M and self._reported_m > _STANDING_REPORTED_M

    def _is_back_at_start(self, sample: Sample, jump: Refusal | None) -> bool:
        """Put back by a jump, or so soon after it drove off that this is no jump; braking there is the same."""
        if self._is_moving(sample) or sample.finished:
            return False
        is_near = math.dist(self._samples[0].position, sample.position) < START_RADIUS_M
        return is_near and (jump is not None or self._length_m < START_RADIUS_M)

    def _refuse(self, refusal: RecordingRefused) -> None:
        self._refusal = refusal
        self._state = RecordingState.refused

    def _refuse_unmoved(self) -> None:
        if self._last is None:
            self._refuse(RecordingRefused(Refusal.no_telemetry, "no telemetry arrived: nothing was recorded"))
            return
        limit = self._config.start_speed_mps
        self._refuse(
            RecordingRefused(
                Refusal.nothing_moved,
                f"nothing moved: the car never drove off from standing (its highest speed was "
                f"{self._top_speed_mps:.1f} m/s, record.start_speed_mps is {limit:g}); "
                "let it stand at the start, then drive",
            )
        )

    def _standing_still(self) -> RecordingRefused:
        return RecordingRefused(
            Refusal.standing_still,
            f"standing still: the telemetry reports {self._top_speed_mps:.1f} m/s, but the position stayed within "
            f"{self._farthest_m:.1f} m; is task.live.record the record of your plugin?",
        )

    def _jumped(self, jump: Refusal, last: Sample, sample: Sample) -> RecordingRefused:
        step = math.dist(last.position, sample.position)
        where = f"{step:.1f} m after {self._length_m:.0f} m, at x={last.position[0]:.1f} z={last.position[2]:.1f}"
        if jump is Refusal.teleported:
            message = f"teleported: the car jumped {where} (a respawn?); drive to the finish without respawning"
        else:
            pause_s = sample.time_s - last.time_s
            message = (
                f"interrupted: for {pause_s:.1f} s no telemetry arrived while the car drove {where}; "
                "see that the game runs smoothly, then drive again"
            )
        return RecordingRefused(jump, message)


def _jump(before: Sample, after: Sample) -> Refusal | None:
    """Whether the step between two records is one that a path cannot have."""
    step = math.dist(before.position, after.position)
    pause_s = max(after.time_s - before.time_s, 0.0)
    explained_m = _SPEED_MARGIN * max(before.speed_mps, after.speed_mps) * pause_s
    if step > _JUMP_M + explained_m:
        return Refusal.teleported
    return Refusal.interrupted if step > _MAX_HOLE_M else None
