"""The course: the line and the lap that a drive is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.config import GameKind, RewardConfig, TaskConfig, config_to_dict
from tasks.sim.track import load_track
from tasks.trackmania.course import course, file_notes
from tests.tasks.sim import lines


def test_the_simulators_course_is_its_track() -> None:
    found = course({"track": "short", "game": "sim"})
    track = load_track("short")
    np.testing.assert_array_equal(found.centre_line, track.centre_line)
    assert (found.name, found.width_m) == ("short", track.width_m)


def test_the_live_games_course_is_the_path_that_was_recorded_there(tmp_path: Path) -> None:
    line = np.stack([np.arange(31.0), np.full(31, 9.0), np.zeros(31)], axis=1)
    line[20:, 2] += np.arange(11.0)
    for name in ("track.npy", "reward.npy"):
        np.save(tmp_path / name, line)
        line = line + np.array([0.0, 0.0, 100.0])
    task = config_to_dict(TaskConfig(track=str(tmp_path / "track.npy"))) | {"game": "live"}
    found = course(task)
    assert found.name == str(tmp_path / "track.npy")
    np.testing.assert_allclose(found.centre_line[[0, -1]], [[0.0, 9.0, 0.0], [-30.0, 9.0, 10.0]])
    task["reward"]["path"] = str(tmp_path / "reward.npy")
    np.testing.assert_allclose(course(task).centre_line[0], [0.0, 9.0, 100.0])


def test_a_shipped_track_may_be_used_in_the_live_game() -> None:
    found = course({"track": "short", "game": "live"})
    np.testing.assert_allclose(found.centre_line, load_track("short").centre_line)


def hill(folder: Path, height_m: float) -> str:
    along = np.arange(201.0)
    file = folder / "hill.csv"
    points = np.stack([along, 9.0 + height_m * np.sin(np.pi * along / 200.0), np.zeros(201)], axis=1)
    np.savetxt(file, points, delimiter=",", header="x,y,z")
    return str(file)


def test_heights_that_the_simulator_ignores_are_logged(tmp_path: Path) -> None:
    track = hill(tmp_path, 20.0)
    (note,) = file_notes(TaskConfig(game=GameKind.sim, track=track))
    assert note.startswith(f"track {track}: 200 m in 201 points, x, y, z in columns 1, 2, 3 as its header says; ")
    assert "heights span 20.0 m, and they are ignored: the simulator's road is flat" in note


def test_heights_are_not_logged_for_a_flat_road_or_the_live_game(tmp_path: Path) -> None:
    track = hill(tmp_path, 0.3)
    assert "ignored" not in file_notes(TaskConfig(game=GameKind.sim, track=track))[0]
    track = hill(tmp_path, 20.0)
    assert "ignored" not in file_notes(TaskConfig(game=GameKind.live, track=track))[0]


def test_only_files_are_logged(tmp_path: Path) -> None:
    file = hill(tmp_path, 20.0)
    assert file_notes(TaskConfig(game=GameKind.sim, track="short")) == []
    live = TaskConfig(game=GameKind.live, track="nowhere.csv", reward=RewardConfig(path=file))
    assert [note.partition(":")[0] for note in file_notes(live)] == [f"reference path {file}"]


def test_narrow_places_of_a_track_are_logged_for_the_simulator_only(tmp_path: Path) -> None:
    file = tmp_path / "hairpin.npy"
    np.save(file, lines.hairpin(20.0, 100.0))
    notes = file_notes(TaskConfig(game=GameKind.sim, track=str(file)))
    assert "a wall stands between them" in notes[1]
    assert len(file_notes(TaskConfig(game=GameKind.sim, track=str(file), track_width_m=19.9))) == 1
    assert len(file_notes(TaskConfig(game=GameKind.live, track=str(file)))) == 1
