"""Reading and resampling reference paths."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from tasks.config import TaskConfig
from tasks.trackmania.reference_path import load_reference_path, path_length_m, path_of_task, resample


def corner() -> np.ndarray:
    return np.array([[0.0, 1.0, 0.0], [3.0, 1.0, 0.0], [3.0, 1.0, 0.0], [3.0, 1.0, 2.05]])


def mirrored(points: np.ndarray) -> np.ndarray:
    return points * np.array([-1.0, 1.0, 1.0])


def test_points_lie_every_tenth_of_a_metre_along_the_path() -> None:
    path = resample(corner())
    assert len(path) == 52
    corners = np.array([[0.0, 1, 0], [1.5, 1, 0], [3, 1, 0], [3, 1, 1], [3, 1, 2.05]])
    np.testing.assert_allclose(path[[0, 15, 30, 40, 51]], corners)
    assert path_length_m(path) == pytest.approx(5.1)


def test_a_path_spaced_so_already_is_kept() -> None:
    path = resample(corner())[:50]
    np.testing.assert_array_equal(resample(path), path)


def test_npy_and_tmrls_pickle_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", corner().astype(np.float32))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(corner()))
    np.testing.assert_allclose(load_reference_path(tmp_path / "a.npy"), resample(corner()), atol=1e-6)
    np.testing.assert_array_equal(load_reference_path(tmp_path / "a.pkl"), resample(mirrored(corner())))


@pytest.mark.parametrize(
    ("frame", "is_in_game", "is_mirrored"),
    [("game", True, True), ("game", False, True), ("simulator", True, False), ("", True, True), ("", False, False)],
)
def test_a_path_is_turned_into_our_frame(tmp_path: Path, frame: str, is_in_game: bool, is_mirrored: bool) -> None:
    file = tmp_path / "path.npy"
    np.save(file, corner())
    file.with_suffix(".json").write_text(json.dumps({"frame": frame}))
    path = load_reference_path(file, is_in_game=is_in_game)
    np.testing.assert_array_equal(path, resample(mirrored(corner()) if is_mirrored else corner()))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((4, 2)), "must have rows of x,y,z, got no heights"),
        (np.array([[0, 0, 0], [0, 0, 1.0], [0, 0, 90]]), r"jumps by 89\.0 m after point 1"),
        (np.zeros((5, 3)), r"at least 0\.1 m long"),
        ([1, 2, 3], "must hold one numpy array"),
    ],
)
def test_an_invalid_path_file_is_refused_by_name(tmp_path: Path, points: object, message: str) -> None:
    file = tmp_path / "reward.pkl"
    file.write_bytes(pickle.dumps(points))
    with pytest.raises(ValueError, match=message) as refusal:
        load_reference_path(file)
    assert str(file) in str(refusal.value)


def test_a_table_is_a_path_of_the_live_game_with_its_heights(tmp_path: Path) -> None:
    file = tmp_path / "path.csv"
    np.savetxt(file, corner(), delimiter=",", header="x,y,z")
    config = TaskConfig(track=str(file))
    np.testing.assert_allclose(path_of_task(config), resample(mirrored(corner())))
