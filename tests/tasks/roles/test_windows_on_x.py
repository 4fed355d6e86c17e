"""The windows of --drive and --check on a real X server: real keys, real pixels."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tasks import registry
from tasks.config import GameKind, LiveConfig, TaskConfig
from tasks.live.window.finder import window_exists
from tasks.roles.check import check
from tasks.roles.config import CheckConfig, DriveConfig, RecordConfig
from tasks.roles.record import record
from tasks.trackmania.reference_path import load_reference_path
from tests.tasks.live.stand_ins import StandIn

pytest.importorskip("Xlib", reason="python-xlib is not installed: pip install '.[game]'")

from Xlib import XK, X
from Xlib.display import Display
from Xlib.ext import xtest

TIMEOUT_S = 60.0


@pytest.fixture
def screen(display: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """SDL opens its windows on the test's display."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    monkeypatch.setenv("DISPLAY", display)
    yield display
    import pygame

    pygame.quit()


class Fingers(threading.Thread):
    """Waits for a window, then presses keys one after the other, (name, seconds held) each, in its own thread.

    The last key is pressed again and again until the window is gone.
    """

    def __init__(self, display: str, title: str, *keys: tuple[str, float]) -> None:
        super().__init__(daemon=True)
        self._name, self._title, self._keys = display, title, keys
        self._has_ended = threading.Event()

    def run(self) -> None:
        if not self._wait(lambda: window_exists(self._title, self._name)):
            return
        connection = Display(self._name)
        time.sleep(1.0)
        for name, seconds in self._keys:
            self._press(connection, name, seconds)
        while not self._has_ended.wait(0.5) and window_exists(self._title, self._name):
            self._press(connection, self._keys[-1][0], 0.1)
        connection.close()

    def end(self) -> None:
        self._has_ended.set()
        self.join(TIMEOUT_S)

    def _press(self, connection: Display, name: str, seconds: float) -> None:
        code = connection.keysym_to_keycode(XK.string_to_keysym(name))
        xtest.fake_input(connection, X.KeyPress, code)
        connection.sync()
        self._has_ended.wait(seconds)
        xtest.fake_input(connection, X.KeyRelease, code)
        connection.sync()

    def _wait(self, holds: Callable[[], bool]) -> bool:
        end = time.monotonic() + TIMEOUT_S
        while not holds():
            if time.monotonic() > end or self._has_ended.wait(0.1):
                return False
        return True


def test_a_person_records_a_path_with_real_keys(screen: str, tmp_path: Path) -> None:
    task = dataclasses.replace(registry.default_config("TM20Full"), game=GameKind.sim, track="short")
    fingers = Fingers(screen, "drive short", ("Up", 1.5), ("q", 0.1))
    fingers.start()
    try:
        file = record.run(task, RecordConfig(min_length_m=2.0), DriveConfig(), headless=False, runs=tmp_path)
    finally:
        fingers.end()
    path = load_reference_path(file)
    # Straight ahead along z from the start line.
    assert path[-1, 2] - path[0, 2] > 2.0
    assert np.abs(path[:, 0]).max() < 2.0


def test_the_check_window_stands_beside_the_game_until_it_is_closed(
    screen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StandIn(screen, title="Beside") as game:
        live = LiveConfig(port=game.port, display=screen, window_title=game.title)
        task: TaskConfig = dataclasses.replace(
            registry.default_config("TM20Full"), game=GameKind.live, track="short", live=live
        )
        fingers = Fingers(screen, "check TM20Full", ("F1", 2.0), ("Escape", 0.1))
        fingers.start()
        try:
            assert check.run(task, CheckConfig(), headless=False, runs=tmp_path) is None
        finally:
            fingers.end()
    answer = capsys.readouterr().out
    assert answer.startswith("the car stood still"), "and nothing else is wrong, such as a covered window"
    assert answer.count("\n") == 1
