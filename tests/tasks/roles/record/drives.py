"""Drives for tests, sample by sample as a plugin would send them: 60 records a second along straight lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tasks.game.protocols import Telemetry
from tasks.roles.recording import Sample

FRAME_S = 1.0 / 60.0
Place = tuple[float, float, float]


class DriveMaker:
    """Appends samples: stand, drive, jump, pause, finish."""

    def __init__(self, place: Place = (100.0, 10.0, 200.0)) -> None:
        self.samples: list[Sample] = []
        self.place = place
        self.time_s = 50.0
        self.shows_finish = False

    def stand(self, seconds: float = 0.5, speed_mps: float = 0.0) -> DriveMaker:
        """Stays in its place, whatever speed is reported."""
        for _ in range(round(seconds / FRAME_S)):
            self._send(speed_mps)
        return self

    def drive(self, *corners: Place, speed_mps: float = 20.0) -> DriveMaker:
        """Drives straight from corner to corner at one speed."""
        for corner in corners:
            start, length = self.place, math.dist(self.place, corner)
            count = math.ceil(length / (speed_mps * FRAME_S) - 1e-9)
            for i in range(1, count + 1):
                share = min(1.0, i * speed_mps * FRAME_S / length)
                self.place = _between(start, corner, share)
                self._send(speed_mps)
        return self

    def jump(self, place: Place, speed_mps: float = 0.0) -> DriveMaker:
        """Jumps to another place in the next record."""
        self.place = place
        self._send(speed_mps)
        return self

    def pause(self, seconds: float) -> DriveMaker:
        """No record arrives."""
        self.time_s += seconds
        return self

    def finish(self, seconds: float = 0.5, speed_mps: float = 20.0) -> DriveMaker:
        """The finish screen shows; the car rolls on."""
        self.shows_finish = True
        x, y, z = self.place
        return self.drive((x, y, z + seconds * speed_mps), speed_mps=speed_mps)

    def _send(self, speed_mps: float) -> None:
        self.time_s += FRAME_S
        self.samples.append(Sample(self.time_s, self.place, speed_mps, self.shows_finish))


def telemetry_of(sample: Sample) -> Telemetry:
    x, y, z = sample.position
    return Telemetry(sample.speed_mps, 0.0, x, y, z, 0.0, 1.0, 0.0, float(sample.finished), 3.0, 5000.0)


def _between(start: Sequence[float], end: Sequence[float], share: float) -> Place:
    x, y, z = (a + share * (b - a) for a, b in zip(start, end, strict=True))
    return (x, y, z)
