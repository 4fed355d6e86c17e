"""--check shows the observation of the environment over its source, and finds its faults."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from PIL import Image

import tasks
from tasks import registry
from tasks.config import GameKind, LiveConfig, TaskConfig
from tasks.envs.interface import TaskInterface
from tasks.experience.observation import Field, ObservationSpec
from tasks.game.clock import Clock
from tasks.game.lidar_sensor import LidarSensor
from tasks.live.screen import observed_image
from tasks.roles import overlay
from tasks.roles.check import check
from tasks.roles.check.check_picture import CheckView, check_picture, input_lines
from tasks.roles.check.findings import Finding, Problem
from tasks.roles.check.task_check import TaskCheck
from tasks.roles.config import CheckConfig
from tasks.roles.picture_window import WindowEvents
from tasks.sim.game import SimulatedGame


class NumbersInterface(TaskInterface):
    """A task that has nothing to do with TrackMania."""

    observation_spec = ObservationSpec(fields=(Field("number", (1,)),), action_size=1)

    @classmethod
    def spec_for(cls, config: TaskConfig) -> ObservationSpec:
        return cls.observation_spec

    @classmethod
    def from_config(cls, config: TaskConfig, clock: Clock) -> Self:
        return cls()

    def send_control(self, control: np.ndarray | None) -> None:
        raise AssertionError("nobody drives it")

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[list[np.ndarray], dict]:
        raise AssertionError("nobody drives it")

    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, dict[str, Any]]:
        raise AssertionError("nobody drives it")

    def episode_statistics(self) -> dict[str, float]:
        return {}


def task(name: str = "TM20Lidar", **changes: Any) -> TaskConfig:
    return dataclasses.replace(registry.default_config(name), game=GameKind.sim, track="short", **changes)


@pytest.fixture
def lidar() -> Iterator[TaskCheck]:
    with TaskCheck(task()) as looked_at:
        yield looked_at


def look_often(looked_at: TaskCheck, times: int = 40) -> None:
    for _ in range(times):
        looked_at.look()


def problems(looked_at: TaskCheck) -> list[Problem]:
    return [finding.problem for finding in looked_at.findings()]


def test_the_scan_is_the_one_of_the_screenshot_below_it(lidar: TaskCheck) -> None:
    sensor = LidarSensor()
    for _ in range(20):
        lidar.look()
        assert lidar.seen is not None
        np.testing.assert_array_equal(lidar.observation["lidar"][-1], sensor(lidar.seen.frame))
        assert lidar.observation["speed"][0] == np.float32(lidar.seen.telemetry.speed)


@pytest.mark.parametrize("grey", [True, False])
def test_the_newest_image_is_the_one_of_the_screenshot_above_it(grey: bool) -> None:
    with TaskCheck(task("TM20Full", img_grayscale=grey)) as full:
        for _ in range(20):
            full.look()
            assert full.seen is not None
            np.testing.assert_array_equal(
                full.observation["images"][-1], observed_image(full.seen.frame, 64, 64, grayscale=grey)
            )


@pytest.mark.parametrize("name", ["TM20Full", "TM20Lidar", "TM20LidarProgress", "TM20Track"])
def test_the_inputs_are_those_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tasks.roles.check.task_check._scripted_driver", lambda *_: lambda: np.array([1, 0, 0.1], np.float32)
    )
    env = tasks.make(name, observation="dict", game="sim", track="short")
    expected, _ = env.reset(seed=0)
    with TaskCheck(task(name)) as looked_at:
        for _ in range(30):
            looked_at.look()
            assert list(looked_at.observation) == list(env.observation_spec.names)
            for field, value in expected.items():
                np.testing.assert_array_equal(looked_at.observation[field], value, err_msg=field)
            expected, *_ = env.step(np.array([1, 0, 0.1], np.float32))
    env.close()


@pytest.mark.parametrize("name", ["TM20Full", "TM20Lidar", "TM20Track"])
def test_the_simulator_has_no_findings(name: str) -> None:
    with TaskCheck(task(name)) as looked_at:
        look_often(looked_at, 100)
        assert looked_at.findings() == []
        assert len(looked_at.looks) == 99


def test_a_lap_that_ends_is_followed_by_the_next(lidar: TaskCheck) -> None:
    look_often(lidar, 300)  # 15 s: the lap takes about 6
    driven = [look.telemetry.distance for look in lidar.looks]
    assert max(driven) > 200.0
    assert driven[-1] < driven[0] or min(driven) < 20.0
    assert lidar.findings() == []


def test_a_standing_car_is_observed_without_a_limit(lidar: TaskCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lidar, "_driver", lambda: np.zeros(3, np.float32))
    look_often(lidar, 150)
    assert len(lidar.looks) == 149, "one look began the episode, and none another"
    assert problems(lidar) == [Problem.not_driven]


def test_a_restart_by_hand_begins_a_new_episode() -> None:
    with TaskCheck(task("TM20LidarProgress")) as looked_at:
        look_often(looked_at, 60)
        assert looked_at.episode_return > 1.0
        looked_at.game.inner.restart(0)
        look_often(looked_at, 5)
        assert looked_at.episode_return < 0.1
        assert looked_at.observation["progress"][0] < 0.02
        look_often(looked_at, 60)
        assert looked_at.episode_return > 1.0


@pytest.mark.parametrize(
    ("shade", "found"),
    [(0, [Problem.black_screen]), (200, [Problem.no_contrast, Problem.frozen_picture, Problem.no_border])],
)
def test_a_picture_of_one_colour_is_found(shade: int, found: list[Problem], monkeypatch: pytest.MonkeyPatch) -> None:
    flat = np.full((488, 958, 4), shade, np.uint8)
    monkeypatch.setattr(SimulatedGame, "frame", lambda _: flat)
    monkeypatch.setattr(SimulatedGame, "lidar", lambda _: LidarSensor()(flat))
    with TaskCheck(task()) as looked_at:
        look_often(looked_at)
        assert problems(looked_at) == found


def test_the_wrong_map_is_found_and_observing_continues(tmp_path: Path) -> None:
    path = tmp_path / "far.npy"
    np.save(path, np.stack([np.full(500, 2000.0), np.full(500, 10.0), np.arange(500.0)], axis=1))
    reward = dataclasses.replace(registry.default_config("TM20Lidar").reward, path=str(path))
    with TaskCheck(task(reward=reward)) as looked_at:
        look_often(looked_at, 60)
        assert problems(looked_at) == [Problem.far_from_path]
        assert str(path) in looked_at.findings()[0].message


def test_headless_writes_pictures_and_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = check.run(task(), CheckConfig(seconds=2.0, pictures=3), headless=True, runs=tmp_path)
    assert folder is not None
    assert folder.parent == tmp_path / "checks"
    assert sorted(file.name for file in folder.iterdir()) == [
        "check_1.png",
        "check_2.png",
        "check_3.png",
        "findings.json",
    ]
    facts = json.loads((folder / "findings.json").read_text())
    assert facts["findings"] == []
    assert facts["looks"] == pytest.approx(40, abs=2)
    assert facts["observation"]["lidar"]["shape"] == [4, 19]
    pictures = []
    for number in (1, 2, 3):
        with Image.open(folder / f"check_{number}.png") as file:
            pictures.append(np.asarray(file))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[2]).any(axis=2).mean() > 0.05, "taken at different times"
    assert capsys.readouterr().out == f"nothing looks wrong\n{folder}\n"


def own_track(folder: Path, *corners: tuple[float, float]) -> str:
    file = folder / "own $a_{$.csv"
    file.write_text("x,z\n" + "".join(f"{x},{z}\n" for x, z in corners))
    return str(file)


def test_a_track_of_ones_own_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = dataclasses.replace(task(), track=own_track(tmp_path, *((0, z) for z in range(0, 150, 5))))
    folder = check.run(config, CheckConfig(seconds=0.5, pictures=1), headless=True, runs=tmp_path)
    assert folder is not None
    assert f"{folder / 'track.png'}\n" in capsys.readouterr().out
    with Image.open(folder / "track.png") as file:
        start = (np.asarray(file)[:, :, 1].astype(int) - np.asarray(file)[:, :, 0] > 80).any(axis=1)
    assert np.flatnonzero(start).max() > 500, "the green start of a road along +z is below"


def test_a_track_that_is_refused_is_drawn_too(tmp_path: Path) -> None:
    corners = [(0, z) for z in range(100)] + [(x, 99) for x in range(1, 100)]
    config = dataclasses.replace(task(), track=own_track(tmp_path, *corners))
    with pytest.raises(ValueError, match=r"kink .* --check draws the line: .*track\.png$") as refusal:
        check.run(config, CheckConfig(seconds=0.5), headless=True, runs=tmp_path)
    picture = Path(str(refusal.value).rpartition("line: ")[2])
    assert picture.parent.parent == tmp_path / "checks"
    with Image.open(picture) as file:
        assert file.height == 700


def test_headless_prints_the_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimulatedGame, "frame", lambda _: np.zeros((488, 958, 4), np.uint8))
    folder = check.run(task(), CheckConfig(seconds=1.0, pictures=1), headless=True, runs=tmp_path)
    assert folder is not None
    facts = json.loads((folder / "findings.json").read_text())
    assert facts["findings"][0]["problem"] == "black_screen"
    assert capsys.readouterr().out.startswith("the screenshot is black: ")


def test_the_window_shows_each_look_until_it_is_closed(
    no_screen: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[np.ndarray] = []
    window = "tasks.roles.picture_window.PictureWindow"
    monkeypatch.setattr(f"{window}.show", lambda _, picture: shown.append(picture))
    monkeypatch.setattr(f"{window}.events", lambda _: WindowEvents(wants_quit=len(shown) >= 12))
    assert check.run(task("TM20Full"), CheckConfig(), headless=False, runs=tmp_path) is None
    assert len(shown) == 12
    assert (shown[2] != shown[11]).any()
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == "nothing looks wrong\n"


def test_a_missing_game_is_refused_without_a_long_wait(display: str, tmp_path: Path) -> None:
    live = LiveConfig(port=1, display=display, window_title="no such game")
    config = dataclasses.replace(task(), game=GameKind.live, live=live)
    with pytest.raises(ValueError, match="--check could not look at the game: the window 'no such game' was not found"):
        check.run(config, CheckConfig(seconds=1.5, pictures=1), headless=True, runs=tmp_path)
    (folder,) = (tmp_path / check.FOLDER).iterdir()
    facts = json.loads((folder / "findings.json").read_text())
    assert [finding["problem"] for finding in facts["findings"]] == ["game_lost"]
    assert "no such game" in facts["findings"][0]["message"], "the window"
    assert "nothing listens on 127.0.0.1:1" in facts["findings"][0]["message"], "and the plugin"
    assert facts["telemetry"] is None
    assert (folder / "check_1.png").is_file()


def test_a_machine_without_a_display_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    config = dataclasses.replace(task(), game=GameKind.live, live=LiveConfig(port=1))
    with pytest.raises(ValueError, match="DISPLAY"):
        check.run(config, CheckConfig(seconds=1.0), headless=True, runs=tmp_path)


def test_other_tasks_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    registry.register("Numbers", "tests.tasks.roles.check.test_check:NumbersInterface")
    config = dataclasses.replace(registry.default_config("Numbers"), game=GameKind.sim)
    with pytest.raises(ValueError, match=r"--check shows TrackMania tasks.*'Numbers'"):
        check.run(config, CheckConfig(), headless=True, runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_input_is_listed_with_its_scaled_value(lidar: TaskCheck) -> None:
    look_often(lidar, 10)
    spec = registry.observation_spec("TM20Lidar")
    lines = input_lines(spec, lidar.observation)
    assert [line.split()[0].rstrip(":") for line in lines] == list(spec.names)
    speed = float(lidar.observation["speed"][0])
    assert lines[0] == f"speed: {speed:.2f} ({speed / 55.6:.2f})"
    newest = lidar.observation["lidar"][-1]
    assert f"newest {newest.min():.0f} to {newest.max():.0f}" in lines[1]


def test_the_summary_is_green_or_red(lidar: TaskCheck) -> None:
    look_often(lidar, 20)
    view = CheckView(
        "t", registry.observation_spec("TM20Lidar"), lidar.observation, lidar.seen, 0.0, 0.0, 0.0, 60.0, []
    )
    good = check_picture(view)
    bad = check_picture(view._replace(findings=[Finding(Problem.black_screen, "all is black")]))
    assert (good[-30:] == overlay.GOOD_COLOUR).all(axis=2).sum() > 20
    assert (bad[-30:] == overlay.BAD_COLOUR).all(axis=2).sum() > 20
    assert not (bad[-30:] == overlay.GOOD_COLOUR).all(axis=2).any()
