"""The line that is logged when the live game is first driven."""

from __future__ import annotations

import math

from tasks.config import GameKind, TaskConfig, TelemetryRecord
from tasks.game.errors import TelemetryError, TelemetryState, WindowError, WindowState
from tasks.live.controls.controls import NoControls
from tasks.live.doctor import doctor_line
from tasks.live.live_game import LiveGame
from tasks.live.parts import LiveParts
from tasks.live.telemetry.status import TelemetryStatus
from tests.tasks.live.live_fakes import FakeLiveGame

CONFIG = TaskConfig(game=GameKind.live)


def test_all_parts_are_described() -> None:
    fake = FakeLiveGame()
    fake.status = lambda: TelemetryStatus(TelemetryState.receiving, 59.7, 0.008, 100, 0, "")  # type: ignore[attr-defined]
    config = TaskConfig(game=GameKind.live)
    config.live.record, config.live.port = TelemetryRecord.floats33, 9002
    line = doctor_line(fake.game(config).open(), config.live)
    parts = line.removeprefix("live game: ").split(", ")
    assert line.startswith("live game: window 'Trackmania' 958x488 at (0, 0), focused, 25% covered by other windows, ")
    assert any(part.startswith("pictures in ") and part.endswith(" ms") for part in parts)
    assert "telemetry 60 records/s (one a frame), 8 ms old" in line
    assert "record floats33 on port 9002" in parts


def test_a_rate_that_is_not_known_yet_is_left_out() -> None:
    fake = FakeLiveGame()
    fake.status = lambda: TelemetryStatus(TelemetryState.receiving, math.nan, 0.008, 1, 0, "")  # type: ignore[attr-defined]
    assert "telemetry 8 ms old" in doctor_line(fake.game(CONFIG).open(), CONFIG.live)


def test_a_fault_is_reported_in_its_place() -> None:
    fake = FakeLiveGame()
    fake.fault = TelemetryError(TelemetryState.in_menu, "a menu, load a map")
    line = doctor_line(fake.game(CONFIG).open(), CONFIG.live)
    assert "telemetry: a menu, load a map, record floats11" in line
    fake.fault, fake.faulty = WindowError(WindowState.minimised, "it is minimised"), "frames"
    line = doctor_line(fake.game(CONFIG).open(), CONFIG.live)
    assert "pictures: it is minimised, telemetry 8 ms old" in line


def test_a_person_drives_without_controls() -> None:
    fake = FakeLiveGame()
    game = LiveGame(fake.clock, CONFIG, lambda: LiveParts(fake, fake, fake, NoControls()))
    assert doctor_line(game.open(), CONFIG.live).endswith("controls none")


def test_a_window_without_the_focus_is_reported() -> None:
    fake = FakeLiveGame()
    fake.has_focus = False
    assert ", without the focus, " in doctor_line(fake.game(CONFIG).open(), CONFIG.live)
