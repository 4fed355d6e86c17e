"""The windows of --drive and --check on a real X server: real keys, real pixels."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tasks import registry
from tasks.config import GameKind, LiveConfig, TaskConfig
from tasks.live.window.finder import window_exists
from tasks.roles.check import check
from tasks.roles.check.findings import MIN_LOOKS
from tasks.roles.config import CheckConfig, DriveConfig, RecordConfig
from tasks.roles.picture_window import PictureWindow
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


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of all pictures that a window has shown so far."""
    shapes: list[tuple[int, ...]] = []
    show = PictureWindow.show

    def show_and_count(window: PictureWindow, picture: np.ndarray) -> None:
        show(window, picture)
        shapes.append(picture.shape)

    monkeypatch.setattr(PictureWindow, "show", show_and_count)
    return shapes


class Key(NamedTuple):
    """A key to press; it is held until all of these are true, as a busy machine may look at the keys late."""

    name: str
    pictures: int = 0
    """So many more pictures were shown."""
    until: Callable[[], bool] = lambda: True
    seconds: float = 0.1
    """How much longer it is held [s]."""


class Fingers(threading.Thread):
    """Presses keys one after the other, again and again until the window is gone, in its own thread."""

    def __init__(self, display: str, title: str, shown: Sized, *keys: Key) -> None:
        super().__init__(daemon=True)
        self._name, self._title, self._shown, self._keys = display, title, shown, keys
        self._has_ended = threading.Event()

    def run(self) -> None:
        if not self._wait(self._has_window):
            return
        connection = Display(self._name)
        for key in itertools.cycle(self._keys):
            if self._has_ended.is_set() or not self._has_window():
                break
            self._press(connection, key)
        connection.close()

    def end(self) -> None:
        self._has_ended.set()
        self.join(TIMEOUT_S)

    def _has_window(self) -> bool:
        return window_exists(self._title, self._name)

    def _press(self, connection: Display, key: Key) -> None:
        enough = len(self._shown) + key.pictures
        code = connection.keysym_to_keycode(XK.string_to_keysym(key.name))
        xtest.fake_input(connection, X.KeyPress, code)
        connection.sync()
        self._wait(lambda: not self._has_window() or (len(self._shown) >= enough and key.until()))
        self._has_ended.wait(key.seconds)
        xtest.fake_input(connection, X.KeyRelease, code)
        connection.sync()

    def _wait(self, holds: Callable[[], bool]) -> bool:
        end = time.monotonic() + TIMEOUT_S
        while not holds():
            if time.monotonic() > end or self._has_ended.wait(0.1):
                return False
        return True


def test_a_person_records_a_path_with_real_keys(
    screen: str, shown: list[tuple[int, ...]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    task = dataclasses.replace(registry.default_config("TM20Full"), game=GameKind.sim, track="short")

    def is_recorded() -> bool:
        return caplog.text.rfind("recording; q ends it") > caplog.text.rfind("not recorded")

    keys = (
        Key("Delete"),
        Key("F1", pictures=3),  # meanwhile the car is seen to stand
        Key("Up", until=is_recorded, seconds=1.0),
        Key("q", pictures=1),
    )
    fingers = Fingers(screen, "drive short", shown, *keys)
    window = DriveConfig(width=320, height=240)  # small, so that a busy machine can draw it
    fingers.start()
    try:
        file = record.run(task, RecordConfig(min_length_m=2.0), window, headless=False, runs=tmp_path)
    finally:
        fingers.end()
    path = load_reference_path(file)
    # Straight ahead along z from the start line; a point every 0.1 m.
    assert path[20, 2] - path[0, 2] == pytest.approx(2.0, abs=0.1)
    assert np.abs(path[:21, 0]).max() < 2.0


def test_the_check_window_stands_beside_the_game_until_it_is_closed(
    screen: str, shown: list[tuple[int, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StandIn(screen, title="Beside") as game:
        live = LiveConfig(port=game.port, display=screen, window_title=game.title)
        task: TaskConfig = dataclasses.replace(
            registry.default_config("TM20Full"), game=GameKind.live, track="short", live=live
        )
        fingers = Fingers(screen, "check TM20Full", shown, Key("F1", pictures=MIN_LOOKS), Key("Escape"))
        fingers.start()
        try:
            assert check.run(task, CheckConfig(), headless=False, runs=tmp_path) is None
        finally:
            fingers.end()
    # A busy machine may draw the game slowly, and is told so.
    (said,) = [
        line for line in capsys.readouterr().out.splitlines() if "records of telemetry arrive per second" not in line
    ]
    assert said.startswith("the car stood still"), "and nothing else is wrong, such as a covered window"
