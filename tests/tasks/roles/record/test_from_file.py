"""A drive in one of the game's files becomes a path with a description."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.config import GameKind, TaskConfig
from tasks.points.files import read_points
from tasks.recordings.recording import load_npz
from tasks.roles.config import DriveConfig, RecordConfig
from tasks.roles.record import record
from tasks.sim.track import load_track
from tasks.trackmania.course import course, file_notes, laps_to_compare
from tasks.trackmania.reference_path import load_reference_path, path_of_task
from tests.tasks.recordings.ghost_files import NICKNAME, UID, drive_along, replay_file, right_turn

SIM = TaskConfig(name="TM20Lidar", game=GameKind.sim, track="short")


def _replay(tmp_path: Path, points: np.ndarray) -> Path:
    path = tmp_path / "run.Replay.Gbx"
    path.write_bytes(replay_file([drive_along(points, 25.0)]))
    return path


def _recorded(tmp_path: Path, points: np.ndarray) -> Path:
    config = RecordConfig(name="mine", from_file=str(_replay(tmp_path, points)))
    return record.run(SIM, config, DriveConfig(), headless=True, runs=tmp_path)


def test_a_replay_becomes_a_path_with_the_humans_times_and_inputs(tmp_path: Path) -> None:
    points = right_turn()
    file = _recorded(tmp_path, points)
    names = sorted(path.name for path in file.parent.iterdir())
    assert names == ["drive.npz", "map.png", "path.json", "path.npy"]
    path = np.load(file)
    np.testing.assert_allclose(np.linalg.norm(np.diff(path, axis=0), axis=1)[:-1], 0.1, atol=1e-3)
    np.testing.assert_allclose(path[0], points[0], atol=0.01)
    facts = json.loads((file.parent / "path.json").read_text())
    drive = load_npz(file.parent / "drive.npz")
    lap = 0.05 * (len(drive.states) - 1)
    assert facts["human_lap_time_s"] == facts["checkpoint_times_s"][-1] == pytest.approx(lap)
    assert facts["map_uid"] == UID
    assert facts["source"] == "run.Replay.Gbx"
    assert facts["is_simulator_track"] is True
    assert drive.has_inputs
    written = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert NICKNAME not in written


def test_the_path_is_driven_in_both_games_with_the_humans_lap(tmp_path: Path) -> None:
    file = _recorded(tmp_path, right_turn())
    lap = read_points(file).human_lap_time_s
    assert lap is not None
    for game in ("sim", "live"):
        task = {"track": str(file), "game": game}
        assert laps_to_compare(task) == course(task).laps == {"human": lap}
    live = TaskConfig(name="TM20Lidar", game=GameKind.live, track=str(file))
    np.testing.assert_array_equal(path_of_task(live), np.load(file) * [-1.0, 1.0, 1.0])
    simulated = load_track(str(file)).centre_line
    offsets = [np.hypot(*(simulated[:, [0, 2]] - point).T).min() for point in path_of_task(live)[::50, [0, 2]]]
    assert max(offsets) < 0.1  # the same line, so every corner turns to the same side


def test_a_line_with_slopes_is_a_path_for_the_game_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _recorded(tmp_path, right_turn(0.1))
    assert json.loads((file.parent / "path.json").read_text())["is_simulator_track"] is False
    assert "is not flat: at 12" in capsys.readouterr().out
    assert np.ptp(load_reference_path(file)[:, 1]) > 5.0


def test_a_run_logs_what_it_read_from_the_file(tmp_path: Path) -> None:
    replay = _replay(tmp_path, right_turn())
    (note,) = file_notes(TaskConfig(name="TM20Lidar", game=GameKind.sim, track=str(replay)))
    assert "the line of a drive of" in note


def test_a_file_without_a_drive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.Ghost\.Gbx: No such file"):
        record.run(
            SIM, RecordConfig(from_file=str(tmp_path / "none.Ghost.Gbx")), DriveConfig(), headless=True, runs=tmp_path
        )
    with pytest.raises(ValueError, match="too short"):
        _recorded(tmp_path, np.array([[0.0, 8.0, 0.0], [0.0, 8.0, 20.0]]))
