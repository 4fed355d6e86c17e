"""Reading and resampling reference paths."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tasks.trackmania.reference_path import load_reference_path, path_length_m, resample


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("exit 1",))


def corner() -> np.ndarray:
    return np.array([[0.0, 1.0, 0.0], [3.0, 1.0, 0.0], [3.0, 1.0, 0.0], [3.0, 1.0, 2.05]])


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
    for protocol in (2, 3, 4, 5):
        (tmp_path / f"{protocol}.pkl").write_bytes(pickle.dumps(corner(), protocol=protocol))
    np.testing.assert_allclose(load_reference_path(tmp_path / "a.npy"), resample(corner()), atol=1e-6)
    for protocol in (3, 4, 5):
        np.testing.assert_array_equal(load_reference_path(tmp_path / f"{protocol}.pkl"), resample(corner()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(_Evil()), "only numpy arrays are allowed"),
        (pickle.dumps([1, 2, 3]), "must hold a numpy array, got list"),
        (pickle.dumps(np.zeros((4, 2))), r"must be numbers of shape \(N >= 2, 3\), got float64 \(4, 2\)"),
        (pickle.dumps(np.array([[0, 0, 0], [0, np.nan, 1.0], [0, 0, 2]])), "not finite at point 1"),
        (pickle.dumps(np.array([[0, 0, 0], [0, 0, 1.0], [0, 0, 90]])), r"jumps by 89\.0 m after point 1"),
        (pickle.dumps(np.zeros((5, 3))), r"at least 0\.1 m long"),
        (b"not a pickle", "not a readable reward.pkl"),
        (b"", "not a readable reward.pkl"),
        (pickle.dumps(corner())[:-40], "not a readable reward.pkl"),
    ],
)
def test_a_file_that_is_no_path_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "reward.pkl"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as refusal:
        load_reference_path(file)
    assert str(file) in str(refusal.value)


def test_an_npy_file_of_objects_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([_Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy is not a readable \.npy"):
        load_reference_path(tmp_path / "a.npy")


@pytest.mark.parametrize(("name", "message"), [("none.npy", "does not exist"), ("a.txt", r"\.npy or \.pkl")])
def test_a_missing_or_other_file_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "a.txt").write_text("0 0 0")
    with pytest.raises(ValueError, match=message):
        load_reference_path(tmp_path / name)
