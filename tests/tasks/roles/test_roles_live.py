"""--record and --check on the stand-in game: real window, real telemetry, a person at the pad.

All time limits are generous: the tests check what happens, not how soon.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import registry
from tasks.config import GameKind, LiveConfig, TaskConfig
from tasks.game.lidar_sensor import LidarSensor
from tasks.live.screen import observed_image
from tasks.recordings.recording import load_npz
from tasks.roles.check import check
from tasks.roles.check.findings import Problem
from tasks.roles.check.task_check import TaskCheck
from tasks.roles.config import CheckConfig, DriveConfig, RecordConfig
from tasks.roles.record import record
from tasks.sim.track import load_track
from tasks.trackmania.reference_path import load_reference_path
from tests.tasks.live.stand_ins import StandIn
from tests.tasks.roles.people import Person, put_at_start

pytest.importorskip("Xlib", reason="python-xlib is not installed: pip install '.[game]'")

from tests.tasks.live.plain_window import PlainWindow

TIMEOUT_S = 40.0


def task(game: StandIn, name: str = "TM20Full", **changes: Any) -> TaskConfig:
    live = LiveConfig(
        port=game.port,
        ghost_port=game.ghost_port,
        display=game.display,
        window_title=game.title,
        max_telemetry_age_s=0.7,
        wait_for_game_s=TIMEOUT_S,
    )
    config = dataclasses.replace(registry.default_config(name), game=GameKind.live, track="short", live=live)
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def shared_game(display: str) -> Iterator[StandIn]:
    with StandIn(display, title="Checked") as game:
        yield game


@pytest.fixture
def game(shared_game: StandIn) -> Iterator[StandIn]:
    yield shared_game
    shared_game.clear()


def look_until(looked_at: TaskCheck, holds: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, [finding.message for finding in looked_at.findings()]
        looked_at.look()


def problems(looked_at: TaskCheck) -> list[Problem]:
    return [finding.problem for finding in looked_at.findings()]


def test_a_person_records_a_path_that_can_be_driven(game: StandIn, tmp_path: Path) -> None:
    with Person(game, wait_s=1.5):
        file = record.run(task(game), RecordConfig(name="stand_in"), DriveConfig(), headless=False, runs=tmp_path)
    facts = json.loads((file.parent / "path.json").read_text())
    assert facts["has_finished"]
    assert facts["game"] == "live"
    points, track = load_reference_path(file), load_track("short")
    assert np.linalg.norm(points[0] - track.centre_line[0]) < 1.0
    assert np.hypot(*(points[-1, [0, 2]] - track.finish_position)) < track.width_m
    offsets = [np.hypot(*(track.centre_line[:, [0, 2]] - point).T).min() for point in points[::50, [0, 2]]]
    assert max(offsets) < track.width_m / 2 + 1.0
    drive = load_npz(file.parent / "drive.npz")
    np.testing.assert_allclose(drive.states[0, 1:4], np.load(file)[0], atol=0.5)
    simulated = load_track(str(file)).centre_line
    assert max(np.hypot(*(simulated[:, [0, 2]] - point).T).min() for point in points[::50, [0, 2]]) < 0.1
    assert drive.column("t_ms")[-1] / 1000 == pytest.approx(facts["human_lap_time_s"], abs=0.2)
    assert drive.inputs[:, 1].max() == 1.0
    env = registry.make("TM20Full", config=task(game, track=str(file)))
    np.testing.assert_array_equal(env.interface.path, points)  # type: ignore[attr-defined,union-attr]
    env.close()


def test_the_network_gets_what_the_screen_shows(display: str) -> None:
    with StandIn(display, size="958x488", title="Beams") as game, TaskCheck(task(game, "TM20Lidar")) as looked_at:
        sensor = LidarSensor()
        with Person(game):
            look_until(looked_at, lambda: len(looked_at.looks) >= 30 and looked_at.looks[-1].telemetry.speed > 5.0)
            for _ in range(10):
                looked_at.look()
                assert looked_at.seen is not None
                np.testing.assert_array_equal(looked_at.observation["lidar"][-1], sensor(looked_at.seen.frame))
        assert looked_at.findings() == []
        state = game.state()
        assert not any(state["keys"].values()) if isinstance(state["keys"], dict) else not state["keys"]


def test_images_are_those_of_the_screenshot(game: StandIn) -> None:
    with TaskCheck(task(game)) as looked_at:
        look_until(looked_at, lambda: len(looked_at.looks) >= 5)
        assert looked_at.seen is not None
        np.testing.assert_array_equal(
            looked_at.observation["images"][-1], observed_image(looked_at.seen.frame, 64, 64, grayscale=True)
        )


def test_a_standing_car_is_asked_to_be_driven(game: StandIn) -> None:
    with TaskCheck(task(game)) as looked_at:
        put_at_start(game)
        look_until(looked_at, lambda: len(looked_at.looks) >= 30)
        assert problems(looked_at) == [Problem.not_driven]


@pytest.mark.parametrize(
    ("fault", "particulars", "problem"),
    [
        ("black", {}, Problem.black_screen),
        ("frozen", {}, Problem.frozen_picture),
        ("slow", {"fps": 8}, Problem.low_rate),
    ],
)
def test_a_fault_of_the_picture_is_found_while_it_lasts(
    game: StandIn, fault: str, particulars: dict[str, Any], problem: Problem
) -> None:
    with TaskCheck(task(game)) as looked_at, Person(game):
        game.fault(fault, **particulars)
        look_until(looked_at, lambda: problem in problems(looked_at))
        game.clear()
        look_until(looked_at, lambda: problem not in problems(looked_at))


@pytest.mark.parametrize(
    ("fault", "words"),
    [("silence", "silent"), ("unload", "plugin is not loaded"), ("minimise", "minimised")],
)
def test_a_lost_game_is_reported_and_observed_again_later(game: StandIn, fault: str, words: str) -> None:
    with TaskCheck(task(game)) as looked_at, Person(game):
        look_until(looked_at, lambda: len(looked_at.looks) >= 3)
        game.fault(fault)
        look_until(looked_at, lambda: any(words in finding.message for finding in looked_at.findings()))
        assert problems(looked_at)[0] is Problem.game_lost
        game.clear()
        look_until(looked_at, lambda: Problem.game_lost not in problems(looked_at))


def test_a_speed_in_kmh_is_found_here_or_by_the_telemetry_client(game: StandIn) -> None:
    with TaskCheck(task(game)) as looked_at, Person(game):
        game.fault("kmh")
        look_until(looked_at, lambda: any("km/h" in finding.message for finding in looked_at.findings()))
        assert problems(looked_at)[0] in (Problem.speed_in_kmh, Problem.game_lost)


def test_a_covered_window_is_found(game: StandIn) -> None:
    with TaskCheck(task(game)) as looked_at:
        look_until(looked_at, lambda: len(looked_at.looks) >= 20)
        cover = PlainWindow(game.display, (0, 0, 1280, 800), net_wm_name="in the way")
        try:
            look_until(looked_at, lambda: Problem.covered_window in problems(looked_at))
            message = next(x.message for x in looked_at.findings() if x.problem is Problem.covered_window)
            assert message.startswith("100%")
        finally:
            cover.close()


def test_another_map_is_found_and_observing_continues(game: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "far.npy"
    np.save(path, np.stack([np.full(500, 3000.0), np.full(500, 10.0), np.arange(500.0)], axis=1))
    with TaskCheck(task(game, track=str(path))) as looked_at:
        look_until(looked_at, lambda: len(looked_at.looks) >= 20)
        assert Problem.far_from_path in problems(looked_at)


def test_headless_writes_pictures_of_the_live_game(game: StandIn, tmp_path: Path) -> None:
    with Person(game):
        folder = check.run(task(game), CheckConfig(seconds=3.0, pictures=2), headless=True, runs=tmp_path)
    assert folder is not None
    facts = json.loads((folder / "findings.json").read_text())
    assert facts["game"] == "live"
    assert facts["looks"] > 10
    assert len(list(folder.glob("check_*.png"))) == 2
