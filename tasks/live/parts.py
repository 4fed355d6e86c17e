"""The parts of the live game: telemetry, window, pictures and controls, opened together and closed together."""

from __future__ import annotations

import contextlib
import importlib.util
from typing import NamedTuple

from tasks.config import TaskConfig
from tasks.game.errors import GameSetupError
from tasks.game.protocols import ControlSink, FrameSource, TelemetrySource
from tasks.live.window.window import GameWindow


class LiveParts(NamedTuple):
    """What the live game is made of."""

    telemetry: TelemetrySource
    window: GameWindow
    frames: FrameSource
    controls: ControlSink


def open_parts(config: TaskConfig, *, with_controls: bool = True) -> LiveParts:
    """Opens telemetry, window, pictures and controls; the game itself need not run yet.

    Args:
        config: The task.
        with_controls: False sends nothing: a person drives.

    Raises:
        GameSetupError: A package, a driver, a permission or the display is missing.
    """
    from tasks.live.controls.controls import NoControls, make_controls
    from tasks.live.screen import ScreenCapture
    from tasks.live.telemetry.openplanet import OpenPlanetClient
    from tasks.live.window.finder import window_exists
    from tasks.live.window.titled_window import TitledWindow

    live = config.live
    opened: list[object] = []
    try:
        opened.append(window := TitledWindow(live.window_title, live.display))
        opened.append(
            controls := make_controls(config.control, window, live.display) if with_controls else NoControls()
        )
        opened.append(
            frames := ScreenCapture(
                window, config.window_width, config.window_height, display=live.display, place=live.place_window
            )
        )
        telemetry = OpenPlanetClient(
            live.port,
            record=live.record,
            max_age_s=live.max_telemetry_age_s,
            is_game_running=lambda: window_exists(live.window_title, live.display),
        )
    except BaseException:
        close_all(*reversed(opened))
        raise
    return LiveParts(telemetry, window, frames, controls)


def check_setup(config: TaskConfig) -> None:
    """Raises if this machine lacks something to drive a live game, before anything starts; the game need not run.

    Raises:
        GameSetupError: A package, a driver, a permission or the display is missing; the message has the fix.
    """
    from tasks.live.controls.controls import make_controls
    from tasks.live.window.titled_window import TitledWindow

    if importlib.util.find_spec("mss") is None:
        raise GameSetupError("the live game needs the packages of the extra 'game': pip install '.[game]'")
    with contextlib.closing(TitledWindow(config.live.window_title, config.live.display)) as window:
        window.state()
        make_controls(config.control, window, config.live.display).close()


def close_all(*parts: object) -> None:
    """Closes each part, also when closing another fails; the first failure is raised at the end."""
    failures: list[Exception] = []
    for part in parts:
        try:
            part.close()  # type: ignore[attr-defined]
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]
