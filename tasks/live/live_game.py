"""The live game: telemetry, pictures and controls of TrackMania on this machine, as a ``tasks.game.protocols.Game``.

``tasks.trackmania.driving`` and the roles at the game build one with ``make_live_game``. Building opens nothing: the
telemetry connection, the window and the controls are opened when the game is first used.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable

import numpy as np

from tasks.config import TaskConfig
from tasks.game.clock import Clock
from tasks.game.errors import GameError, TelemetryError, WindowError
from tasks.game.protocols import GameFacts, Telemetry, TelemetrySource
from tasks.live.controls import exit_release
from tasks.live.doctor import doctor_line
from tasks.live.parts import LiveParts, close_all, open_parts
from tasks.live.window.window import GameWindow

FRESH_TIMEOUT_S = 1.0
"""How long a restart waits for a record before it presses anything [s]."""
RESTART_TIMEOUT_S = 2.0
"""How long the car may take to stand at the start after the restart button [s]."""
RESTART_PRESSES = 2
"""How often the restart button is pressed before the game is called lost."""
AT_START_M = 2.0
"""A car that has driven less than this since the start stands at the start [m]."""
NEAR_START_M = 15.0
"""So does one this near to where the reference path begins [m]."""
STANDING_MPS = 2.0
"""A slower car stands [m/s]."""
GHOST_PAUSE_S = 1.0
"""How long the game may take to save a ghost [s]."""
POPUP_PAUSE_S = 0.5
"""Between the restart button and the one that closes a pop-up [s]."""

_RETRY_S = 0.05

_logger = logging.getLogger(__name__)


class LiveGame:
    """TrackMania on this machine; implements ``tasks.game.protocols.Game``.

    Everything that can go wrong with the game raises ``GameError``; the next call works again when the game does: a
    closed window is looked for by its title, a lost connection is made again by its own thread. Buttons are pressed
    only while telemetry arrives, so that nothing is pressed in a menu.
    """

    def __init__(
        self, clock: Clock, config: TaskConfig, open_parts: Callable[[], LiveParts], start: np.ndarray | None = None
    ) -> None:
        """Opens nothing yet; use ``make_live_game``.

        Args:
            clock: Real time.
            config: The task: size of the pictures, and ``live``.
            open_parts: Opens the game; called at first use.
            start: Where the reference path begins [m], x to the right of z, shape (3,); one more sign that a car stands
                at the start.
        """
        self.config = config
        self._clock = clock
        self._open_parts = open_parts
        self._start = start
        self._parts: LiveParts | None = None
        self._lock = threading.Lock()
        self._lidar: Callable[[np.ndarray], np.ndarray] | None = None
        self._is_closed = False
        self._has_started = False

    def open(self) -> LiveParts:
        """The parts, opened at the first call.

        Raises:
            GameSetupError: This machine cannot drive the game; the message says what is missing.
        """
        with self._lock:
            if self._is_closed:
                raise GameError("the live game is closed")
            if self._parts is None:
                self._parts = self._open_parts()
            return self._parts

    def telemetry(self) -> tuple[Telemetry, float]:
        """Newest record and its age [s], with x to the right of z as everywhere in this program."""
        record, age_s = self.open().telemetry.newest()
        return record.mirrored(), age_s

    def frame(self) -> np.ndarray:
        """The window now, uint8 BGRA, shape (window_height, window_width, 4)."""
        return self.open().frames.grab()

    def image(self) -> np.ndarray:
        """The observed picture, uint8, shape (img_height, img_width), or (img_height, img_width, 3) RGB."""
        from tasks.live.screen import observed_image

        config = self.config
        return observed_image(self.frame(), config.img_width, config.img_height, config.img_grayscale)

    def lidar(self) -> np.ndarray:
        """TMRL's LIDAR of the window now [px], float32, shape (19,)."""
        if self._lidar is None:
            from tasks.game.lidar_sensor import LidarSensor

            self._lidar = LidarSensor(self.config.window_width, self.config.window_height)
        return self._lidar(self.frame())

    def apply(self, control: np.ndarray | None) -> None:
        """Sends [gas, brake, steer], each in [-1, 1]; None touches nothing."""
        if control is not None:
            self.open().controls.send(control)

    def restart(self, seed: int | None = None, from_start: bool = True) -> None:
        """Presses the restart button and waits until telemetry shows the car standing at the start.

        Args:
            seed: Not used: the live game draws nothing.
            from_start: Not used: it always begins there.

        Raises:
            GameError: No telemetry or no picture, or the button has no effect.
        """
        del seed, from_start
        parts = self.open()
        parts.controls.release()
        record, _ = parts.telemetry.wait_newer(FRESH_TIMEOUT_S)
        parts.frames.grab()
        self._take_focus(parts.window)
        for _ in range(RESTART_PRESSES):
            parts.controls.restart()
            record, is_at_start = self._wait_for_start(parts.telemetry, record)
            if is_at_start:
                self._say_how_it_is_driven()
                return
        raise GameError(_no_restart(record, self.config))

    def rest(self, save_replay: bool) -> None:
        """Between episodes, in TMRL's order: releases the controls, saves a ghost if asked, restarts, closes popups.

        Args:
            save_replay: Whether a ghost is saved; when the ghost plugin cannot be reached, that is a warning.
        """
        if self._parts is None:
            return
        parts = self.open()
        parts.controls.release()
        parts.telemetry.newest()
        if save_replay:
            self._save_ghost()
        parts.controls.restart()
        self._pause(POPUP_PAUSE_S)
        parts.controls.close_popup()

    def episode_facts(self) -> GameFacts:
        """Always unknown: telemetry does not contain them."""
        return GameFacts(finish_time_s=math.nan, wall_contacts=0, wall_impact_mps=0.0, yaw=math.nan)

    def close(self) -> None:
        """Releases all controls, the window and the connection. Calling it twice is fine."""
        with self._lock:
            parts, self._parts, self._is_closed = self._parts, None, True
        if parts is not None:
            close_all(parts.controls, parts.frames, parts.window, parts.telemetry)

    def _take_focus(self, window: GameWindow) -> None:
        """Best effort: keys that need the focus say so themselves, and a gamepad may work without."""
        if not window.is_focused():
            with contextlib.suppress(WindowError):
                window.focus()

    def _wait_for_start(self, telemetry: TelemetrySource, record: Telemetry) -> tuple[Telemetry, bool]:
        """The newest record, and whether it shows the car at the start; a restart may interrupt the records shortly."""
        deadline = self._clock.now() + RESTART_TIMEOUT_S
        while (left := deadline - self._clock.now()) > 0.0 and not self._is_closed:
            try:
                record, _ = telemetry.wait_newer(left)
            except TelemetryError:
                self._pause(_RETRY_S)
                continue
            if self._is_at_start(record):
                return record, True
        telemetry.newest()
        return record, False

    def _is_at_start(self, record: Telemetry) -> bool:
        if record.finished != 0.0 or abs(record.speed) >= STANDING_MPS:
            return False
        if 0.0 <= record.distance < AT_START_M:
            return True
        return self._start is not None and math.dist(record.mirrored()[2:5], self._start) < NEAR_START_M

    def _save_ghost(self) -> None:
        from tasks.live.telemetry.openplanet import save_ghost

        port = self.config.live.ghost_port
        try:
            save_ghost(port)
        except OSError as error:
            _logger.warning(
                "no ghost saved: nothing answers on 127.0.0.1:%d (%s); load the ghost plugin or set "
                "task.save_replays=false",
                port,
                error,
            )
        else:
            self._pause(GHOST_PAUSE_S)

    def _say_how_it_is_driven(self) -> None:
        if not self._has_started:
            self._has_started = True
            _logger.info(doctor_line(self.open(), self.config.live))

    def _pause(self, seconds: float) -> None:
        self._clock.sleep_until(self._clock.now() + seconds)


def make_live_game(config: TaskConfig, clock: Clock, start: np.ndarray | None = None) -> LiveGame:
    """The live game as a task's configuration describes it; nothing is opened yet.

    Args:
        config: The task.
        clock: Real time.
        start: Where the reference path begins [m], shape (3,); None when there is none.
    """
    # Here in the main thread, because the controls are opened in the environment's own.
    exit_release.handle_signals()
    return LiveGame(clock, config, lambda: open_parts(config), start)


def _no_restart(record: Telemetry, config: TaskConfig) -> str:
    if record.finished:
        state = "the finish screen shows"
    elif abs(record.speed) >= STANDING_MPS:
        state = f"it moves at {record.speed:.1f} m/s"
    else:
        state = "it stands there"
    place = f"({record.x:.1f}, {record.y:.1f}, {record.z:.1f}) m"
    return (
        f"the restart button has no effect: the car is at {place}, {record.distance:.0f} m after the start, and "
        f"{state}; click on the game's window, and bind 'restart' in the game to what "
        f"task.control={config.control.name} presses (gamepad: B; keyboard: BackSpace on Linux, Delete on Windows)"
    )
