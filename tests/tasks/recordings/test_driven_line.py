"""The line of a ghost is smooth, ends at the finish, and leaves out parts that a respawn discarded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.recordings.cursor import GbxError
from tasks.recordings.driven_line import SPACING_M, DrivenLine, driven_line
from tasks.recordings.ghost import read_ghost
from tasks.recordings.spline import between, slopes
from tests.tasks.recordings.ghost_files import Drive, drive_along, ghost_file


def _line(tmp_path: Path, drive: Drive) -> DrivenLine:
    path = tmp_path / "run.Ghost.Gbx"
    path.write_bytes(ghost_file(drive))
    return driven_line(read_ghost(path))


def _circle(radius_m: float = 50.0) -> np.ndarray:
    angle = np.linspace(0, 3, 3000)
    return np.stack([radius_m * np.cos(angle), 8 + 0 * angle, radius_m * np.sin(angle)], axis=1)


def _ahead(length_m: float) -> np.ndarray:
    return np.array([[0.0, 8.0, 0.0], [0.0, 8.0, length_m]])


def test_the_spline_goes_through_its_points_with_their_slopes() -> None:
    t = 0.05 * np.arange(200)
    points = np.stack([np.sin(t), np.cos(t)], axis=1)
    np.testing.assert_allclose(slopes(points, 0.05)[10:-10], np.stack([np.cos(t), -np.sin(t)], 1)[10:-10], atol=1e-6)
    curve = between(points, 0.05, 5)
    np.testing.assert_array_equal(curve[::5], points)
    np.testing.assert_allclose(curve[50:-50, 0], np.sin(0.01 * np.arange(len(curve)))[50:-50], atol=1e-6)


def test_the_line_is_cubic_between_the_samples(tmp_path: Path) -> None:
    line = _line(tmp_path, drive_along(_circle(), 60.0))
    assert np.linalg.norm(np.diff(line.points, axis=0), axis=1).max() <= SPACING_M
    radius = np.hypot(line.points[:, 0], line.points[:, 2])
    assert np.abs(radius - 50.0)[200:-200].max() < 0.005  # a chord of 3 m would miss by 0.02 m
    np.testing.assert_allclose(line.speeds, 60.0, rtol=1e-3)


def test_the_line_ends_at_the_finish(tmp_path: Path) -> None:
    drive = drive_along(_ahead(200.0), 20.0)
    drive.race_time_ms = 8000
    line = _line(tmp_path, drive)
    assert line.times_s[-1] == pytest.approx(8.0, abs=0.01)
    assert line.points[-1, 2] == pytest.approx(160.0, abs=0.1)


def test_after_a_respawn_the_line_continues_where_the_car_was(tmp_path: Path) -> None:
    drive = drive_along(_ahead(400.0), 20.0)
    drive.positions[100:, 2] -= np.float32(30.0)
    line = _line(tmp_path, drive)
    forward = np.diff(line.points[:, 2])
    assert forward.min() >= 0.0
    assert forward.max() < 0.2
    assert line.times_s[-1] == pytest.approx(drive.race_time_ms / 1000)


def test_a_jump_to_another_place_is_refused_with_both_places(tmp_path: Path) -> None:
    drive = drive_along(_ahead(400.0), 20.0)
    drive.positions[100:, 0] += np.float32(80.0)
    with pytest.raises(GbxError, match=r"jumps by 80\.\d m after 4\.95 s, from x 0\.0, z 99\.0 to x 80\.0, z 100\.0"):
        _line(tmp_path, drive)
