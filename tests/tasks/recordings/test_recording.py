"""Recordings are written and read without loss; another file is refused with its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.recordings.recording import COLUMNS, Recording, load_npz, save_npz


def _recording() -> Recording:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(7, len(COLUMNS))).astype(np.float32)
    return Recording(states, rng.uniform(-1, 1, (31, 3)).astype(np.float32), True)


def test_a_recording_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = _recording()
    save_npz(tmp_path / "drive.npz", written)
    read = load_npz(tmp_path / "drive.npz")
    np.testing.assert_array_equal(read.states, written.states)
    np.testing.assert_array_equal(read.inputs, written.inputs)
    assert read.has_inputs
    np.testing.assert_array_equal(read.column("yaw"), written.states[:, 4])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing", b"no archive at all"])
def test_another_file_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.npz: must be a recording"):
        load_npz(path)


def test_pickled_objects_in_an_archive_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "objects.npz"
    objects = np.array([{}, {}], dtype=object)
    np.savez(path, rows=objects, columns=np.array(COLUMNS), inputs_10ms=objects, has_inputs=np.array(True))
    with pytest.raises(ValueError, match=r"objects\.npz: must be a recording"):
        load_npz(path)


def test_nan_and_infinity_are_refused(tmp_path: Path) -> None:
    drive = _recording()
    drive.states[3, 1] = np.nan
    save_npz(tmp_path / "drive.npz", drive)
    with pytest.raises(ValueError, match="rows must be finite"):
        load_npz(tmp_path / "drive.npz")
