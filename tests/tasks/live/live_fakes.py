"""The parts of a live game for tests without one: a car that answers buttons, in virtual time."""

from __future__ import annotations

import numpy as np

from tasks.config import TaskConfig
from tasks.game.clock import VirtualClock
from tasks.game.errors import GameError, WindowState
from tasks.game.protocols import Telemetry
from tasks.live.live_game import LiveGame
from tasks.live.parts import LiveParts
from tasks.live.window.window import Geometry

FRAME_S = 1 / 60
START = Telemetry(
    speed=0.0, distance=0.0, x=100.0, y=10.0, z=200.0, steer=0.0, gas=0.0, is_braking=0.0, finished=0.0, gear=1.0,
    rpm=900.0,
)  # fmt: skip
DRIVING = START._replace(speed=40.0, distance=300.0, x=250.0)
FINISHED = START._replace(speed=10.0, distance=500.0, x=450.0, finished=1.0)


class FakeLiveGame:
    """Telemetry, window, pictures and controls in one; ``journal`` has (time, action).

    The restart button works ``restart_after_s`` later, from its ``presses_needed``-th press on. ``fault`` is raised by
    the parts in ``faulty``: telemetry, frames or controls.
    """

    title = "Trackmania"

    def __init__(self, record: Telemetry = DRIVING, restart_after_s: float = 0.05, presses_needed: int = 1) -> None:
        self.clock = VirtualClock()
        self.record = record
        self.at_start = START
        self.restart_after_s = restart_after_s
        self.presses_needed = presses_needed
        self.journal: list[tuple[float, str]] = []
        self.fault: GameError | None = None
        self.faulty = "telemetry"
        self.has_focus = True
        self.num_opened = 0
        self.closed: list[str] = []
        self.picture = np.full((488, 958, 4), 200, np.uint8)
        self._restarts_at: float | None = None

    def game(self, config: TaskConfig, start: np.ndarray | None = None) -> LiveGame:
        return LiveGame(self.clock, config, self._open, start)

    def deeds(self) -> list[str]:
        """The actions of the journal, without times."""
        return [deed for _, deed in self.journal]

    # Telemetry
    def newest(self) -> tuple[Telemetry, float]:
        self._require("telemetry")
        self._live()
        return self.record, 0.008

    def wait_newer(self, timeout_s: float) -> tuple[Telemetry, float]:
        assert timeout_s > 0
        self.clock.sleep_until(self.clock.now() + min(FRAME_S, timeout_s))
        return self.newest()

    # Window
    def state(self) -> WindowState:
        return WindowState.ready

    def geometry(self) -> Geometry:
        return Geometry(0, 0, 958, 488)

    def screen(self) -> Geometry:
        return Geometry(0, 0, 1280, 800)

    def place(self, left: int, top: int, width: int, height: int) -> Geometry:
        return Geometry(left, top, width, height)

    def focus(self) -> None:
        self._note("focus")
        self.has_focus = True

    def is_focused(self) -> bool:
        return self.has_focus

    def covered_fraction(self) -> float:
        return 0.25

    # Pictures
    def grab(self) -> np.ndarray:
        self._require("frames")
        return self.picture

    # Controls
    def send(self, control: np.ndarray | None) -> None:
        self._require("controls")
        self._note(f"send {control}")

    def restart(self) -> None:
        self._require("controls")
        self._note("restart")
        self.presses_needed -= 1
        if self.presses_needed <= 0 and self._restarts_at is None:
            self._restarts_at = self.clock.now() + self.restart_after_s

    def close_popup(self) -> None:
        self._note("popup")

    def release(self) -> None:
        self._note("release")

    def close(self) -> None:
        self.closed.append("part")

    def _open(self) -> LiveParts:
        self.num_opened += 1
        return LiveParts(self, self, self, self)

    def _live(self) -> None:
        if self._restarts_at is not None and self.clock.now() >= self._restarts_at:
            self.record, self._restarts_at = self.at_start, None

    def _require(self, part: str) -> None:
        if self.fault is not None and self.faulty == part:
            raise self.fault

    def _note(self, deed: str) -> None:
        self.journal.append((self.clock.now(), deed))
