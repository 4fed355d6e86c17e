"""A game that keeps the screenshot and telemetry behind the newest observation, so that people can see exactly these.

``tasks.roles.check.task_check`` wraps a task's game in one. A live one presses nothing: a person drives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tasks.config import TaskConfig
from tasks.game.clock import Clock, WallClock
from tasks.game.errors import GameError, GameSetupError
from tasks.game.protocols import FrameSource, Game, Telemetry
from tasks.live.window.window import Geometry

_FRESH_TIMEOUT_S = 0.5
"""How long a begin of looking waits for a record [s]."""


class Seen(NamedTuple):
    """What an observation was made of."""

    frame: np.ndarray
    """The screenshot, uint8 BGRA, shape (h, w, 4)."""
    telemetry: Telemetry
    age_s: float
    """Of the record when it was read [s]."""
    time_s: float
    """When it was read [s]."""


class LiveSurroundings(NamedTuple):
    """State of the live game besides its observations."""

    covered_fraction: float
    rate_hz: float
    """Records per second; NaN when unknown."""
    window: Geometry
    """Where its picture is on the screen."""


class WatchedGame:
    """A ``tasks.game.protocols.Game`` that passes everything on to another one.

    Args:
        inner: The game.
        clock: Its clock.
        newest_frame: The screenshot that the last ``image``, ``lidar`` or ``frame`` was made of.
    """

    def __init__(self, inner: Game, clock: Clock, newest_frame: Callable[[], np.ndarray]) -> None:
        self.inner = inner
        self._clock = clock
        self._newest_frame = newest_frame
        self._record: tuple[Telemetry, float, float] | None = None
        self._seen: Seen | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def seen(self) -> Seen | None:
        """What the newest observation was made of, or its record and the present screenshot; None before the first.

        Raises:
            GameError: The present screenshot is needed and cannot be taken.
        """
        if self._seen is None and self._record is not None:
            self.inner.frame()
            self._keep()
        return self._seen

    def telemetry(self) -> tuple[Telemetry, float]:
        """Newest record and its age [s]."""
        record, age_s = self.inner.telemetry()
        self._record, self._seen = (record, age_s, self._clock.now()), None
        return record, age_s

    def image(self) -> np.ndarray:
        """The observed picture."""
        image = self.inner.image()
        self._keep()
        return image

    def lidar(self) -> np.ndarray:
        """The LIDAR scan."""
        scan = self.inner.lidar()
        self._keep()
        return scan

    def _keep(self) -> None:
        if self._record is not None:
            record, age_s, read_at_s = self._record
            self._seen = Seen(self._newest_frame(), record, age_s, read_at_s)


class WatchedLiveGame(WatchedGame):
    """The live game while a person drives it: nothing is pressed and nothing is restarted.

    Args:
        task: The task.
    """

    def __init__(self, task: TaskConfig) -> None:
        from tasks.live.live_game import LiveGame
        from tasks.live.parts import LiveParts, open_parts

        self._frames: _WatchedFrames | None = None

        def open_watched() -> LiveParts:
            parts = open_parts(task, with_controls=False)
            self._frames = _WatchedFrames(parts.frames)
            return parts._replace(frames=self._frames)

        clock = WallClock()
        self._live = LiveGame(clock, task, open_watched)
        super().__init__(self._live, clock, self._newest)

    def look(self) -> None:
        """Sees that there is a picture and that telemetry arrives.

        Raises:
            GameError: Something is missing; the message says everything that is, and what to do.
        """
        parts = self._live.open()
        missing = []
        for attempt in (parts.frames.grab, lambda: parts.telemetry.wait_newer(_FRESH_TIMEOUT_S)):
            try:
                attempt()
            except GameSetupError:
                raise
            except GameError as error:
                missing.append(str(error))
        if missing:
            raise GameError("; ".join(missing))

    def restart(self, seed: int | None, from_start: bool = True) -> None:
        """Waits: the person restarts."""
        del seed, from_start
        self.look()

    def rest(self, save_replay: bool) -> None:
        """Nothing to do: the person continues to drive."""
        del save_replay

    def describe(self) -> str:
        """The doctor's line."""
        from tasks.live.doctor import doctor_line

        return doctor_line(self._live.open(), self._live.config.live)

    def surroundings(self) -> LiveSurroundings:
        """State of window and telemetry.

        Raises:
            GameError: There is no window.
        """
        parts = self._live.open()
        status = getattr(parts.telemetry, "status", None)
        rate_hz = float(status().rate_hz) if status is not None else float("nan")
        return LiveSurroundings(parts.window.covered_fraction(), rate_hz, parts.window.geometry())

    def _newest(self) -> np.ndarray:
        assert self._frames is not None
        assert self._frames.newest is not None
        return self._frames.newest


class _WatchedFrames:
    """A ``FrameSource`` that keeps the picture it gave last."""

    def __init__(self, inner: FrameSource) -> None:
        self._inner = inner
        self.newest: np.ndarray | None = None

    def grab(self) -> np.ndarray:
        self.newest = self._inner.grab()
        return self.newest

    def close(self) -> None:
        self._inner.close()
