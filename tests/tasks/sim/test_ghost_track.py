"""Drives in the game as tracks of the simulator: the right way round, and refused where they are not flat."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.points.files import Frame, read_points
from tasks.sim.track import load_track
from tests.tasks.recordings.ghost_files import drive_along, ghost_file, right_turn


def _ghost(tmp_path: Path, points: np.ndarray) -> Path:
    path = tmp_path / "run.Ghost.Gbx"
    path.write_bytes(ghost_file(drive_along(points, 25.0)))
    return path


def _turn(x: np.ndarray, z: np.ndarray) -> float:
    """The heading at the end less that at the start [rad], where x points to the right of z."""
    heading = np.unwrap(np.arctan2(np.diff(x), np.diff(z)))
    return float(heading[-20] - heading[20])


def test_aright_turn_of_the_game_is_aright_turn_in_the_simulator(tmp_path: Path) -> None:
    path = _ghost(tmp_path, right_turn())
    line = load_track(str(path)).centre_line
    assert _turn(line[:, 0], line[:, 2]) == pytest.approx(np.pi / 2, abs=0.02)
    file = read_points(path)
    assert file.frame is Frame.game
    assert _turn(-file.ground[::40, 0], file.ground[::40, 1]) == pytest.approx(np.pi / 2, abs=0.1)


def test_a_path_that_was_recorded_in_the_game_turns_the_same_way_as_the_ghost(tmp_path: Path) -> None:
    ghost = _ghost(tmp_path, right_turn())
    path = tmp_path / "path.npy"
    np.save(path, read_points(ghost).points)
    path.with_suffix(".json").write_text(json.dumps({"frame": "game", "human_lap_time_s": 12.5}))
    np.testing.assert_array_equal(load_track(str(path)).centre_line, load_track(str(ghost)).centre_line)
    assert read_points(path).human_lap_time_s == 12.5


@pytest.mark.parametrize("description", ["", "[]", "{", '{"frame": 3, "human_lap_time_s": "x"}', "[" * 100_000])
def test_a_path_with_a_strange_description_is_taken_as_it_is(tmp_path: Path, description: str) -> None:
    path = tmp_path / "path.npy"
    np.save(path, right_turn())
    path.with_suffix(".json").write_text(description)
    file = read_points(path)
    assert (file.frame, file.human_lap_time_s) == (None, None)


@pytest.mark.parametrize(("climb", "side"), [(0.1, "above"), (-0.1, "below")])
def test_a_slope_is_refused_with_its_place(tmp_path: Path, climb: float, side: str) -> None:
    path = _ghost(tmp_path, right_turn(climb))
    with pytest.raises(
        ValueError, match=rf"run\.Ghost\.Gbx is not flat: at 12\d\.\d m \(x -?0\.0, z 1\d\d\.\d\).*{side}"
    ):
        load_track(str(path))


def test_a_damaged_ghost_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "run.Ghost.Gbx"
    path.write_bytes(b"GBX and no more")
    with pytest.raises(ValueError, match=r"run\.Ghost\.Gbx version must be 6"):
        load_track(str(path))
