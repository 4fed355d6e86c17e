"""Shared grids: built once for all, and never from a file that is not exactly what was written."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from tasks.sim import grid_files
from tasks.sim.grid_files import shared_grids
from tasks.sim.grids import Road, TrackGrids, build_grids
from tasks.sim.track import load_track, road_of
from tests.tasks.sim import lines

ARRAYS = ("place", "index", "texture", "clearance", "field")


@pytest.fixture
def road() -> Road:
    return road_of(load_track("short"))


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Road]:
    """The roads that were built, in order."""
    built: list[Road] = []

    def build(road: Road) -> TrackGrids:
        built.append(road)
        return build_grids(road)

    monkeypatch.setattr(grid_files, "build_grids", build)
    return built


def _assert_right(grids: TrackGrids, road: Road) -> None:
    expected = build_grids(road)
    for name in ARRAYS:
        found = getattr(grids, name)
        np.testing.assert_array_equal(found, getattr(expected, name))
        assert found.dtype == getattr(expected, name).dtype
        assert type(found) is np.ndarray
        assert not found.flags.writeable


def _file(folder: Path) -> Path:
    (file,) = folder.glob("*.grids")
    return file


def test_second_process_maps_what_the_first_has_built(tmp_path: Path, road: Road, builds: list[Road]) -> None:
    first, second = shared_grids(road, tmp_path), shared_grids(road, tmp_path)
    assert len(builds) == 1
    _assert_right(first, road)
    _assert_right(second, road)
    # Arrays of a mapped file own no memory.
    assert all(getattr(second, name).base is not None for name in ARRAYS)


def test_processes_that_start_together_build_once(tmp_path: Path, road: Road, builds: list[Road]) -> None:
    threads = [threading.Thread(target=shared_grids, args=(road, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1


def test_another_road_has_another_file(tmp_path: Path, road: Road, builds: list[Road]) -> None:
    shared_grids(road, tmp_path)
    _assert_right(shared_grids(road._replace(width_m=20.0), tmp_path), road._replace(width_m=20.0))
    assert len(builds) == len(list(tmp_path.glob("*.grids"))) == 2


@pytest.mark.parametrize("damage", ["flipped", "short", "long", "empty", "text", "size", "other road", "directory"])
def test_damaged_or_foreign_file_is_built_anew(tmp_path: Path, road: Road, builds: list[Road], damage: str) -> None:
    shared_grids(road, tmp_path)
    file = _file(tmp_path)
    content = bytearray(file.read_bytes())
    file.unlink()
    if damage == "flipped":
        content[len(content) // 2] ^= 4
    elif damage in ("short", "long"):
        content = content[:-100] if damage == "short" else content + b"more"
    elif damage in ("empty", "text"):
        content = bytearray(b"" if damage == "empty" else b"x,z\n0,0\n" * 100)
    elif damage == "size":
        content[48:56] = (2**62).to_bytes(8, "little")
    elif damage == "other road":
        other = tmp_path / "other"
        shared_grids(road._replace(width_m=20.0), other)
        content = bytearray(_file(other).read_bytes())
    if damage == "directory":
        file.mkdir()
    else:
        file.write_bytes(content)
    builds.clear()
    _assert_right(shared_grids(road, tmp_path), road)
    assert len(builds) == 1


@pytest.mark.parametrize(("at", "value"), [(0, 2**30), (0, -1), (-1, 2**30), (-1, -256), (-1, 7)])
def test_file_whose_look_ups_would_leave_it_is_built_anew(
    tmp_path: Path, road: Road, builds: list[Road], at: int, value: int
) -> None:
    """As somebody would write it who knows the format: the hash is right."""
    grids = shared_grids(road, tmp_path)
    index = grids.index.copy()
    index[at] = value
    key = _file(tmp_path).stem
    grid_files._write(_file(tmp_path), key, TrackGrids(grids.place, index, grids.texture, grids.clearance, grids.field))
    builds.clear()
    _assert_right(shared_grids(road, tmp_path), road)
    assert len(builds) == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have owners on POSIX only")
def test_file_of_another_user_is_built_anew(
    tmp_path: Path, road: Road, builds: list[Road], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_grids(road, tmp_path)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    _assert_right(shared_grids(road, tmp_path), road)
    assert len(builds) == 2


def test_without_a_folder_each_process_builds_and_says_so(
    tmp_path: Path, road: Road, caplog: pytest.LogCaptureFixture
) -> None:
    obstacle = tmp_path / "file"
    obstacle.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        _assert_right(shared_grids(road, obstacle), road)
    assert "each process keeps its own copy" in caplog.text


def test_full_disk_leaves_nothing_behind(
    tmp_path: Path, road: Road, builds: list[Road], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    _assert_right(shared_grids(road, tmp_path), road)
    assert len(builds) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]


def test_files_not_used_for_longest_are_deleted(tmp_path: Path, road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "left.part").write_bytes(b"of a process that was killed")
    roads = [road._replace(seed=seed) for seed in range(4)]
    for age, each in enumerate(roads[:3]):
        shared_grids(each, tmp_path)
        for file in tmp_path.glob("*.grids"):
            if file.stem == grid_files._key(each):
                os.utime(file, (1000.0 + age, 1000.0 + age))
    monkeypatch.setattr(grid_files, "MAX_FOLDER_BYTES", 11_000_000)
    shared_grids(roads[3], tmp_path)
    left = {file.stem for file in tmp_path.glob("*.grids")}
    assert left == {grid_files._key(each) for each in roads[2:]}
    assert not list(tmp_path.glob("*.part"))


def test_long_tracks_only_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    for length, count in ((1000.0, 0), (6000.0, 1)):
        np.save(tmp_path / "line.npy", lines.loop(length))
        assert load_track(str(tmp_path / "line.npy")).grids.nbytes > 0
        assert len(list((tmp_path / "cache").rglob("*.grids"))) == count


def test_key_follows_from_the_code_that_paints(tmp_path: Path, road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    before = grid_files._key(road)
    changed = tmp_path / "grids.py"
    changed.write_bytes(Path(grid_files.grids_module.__file__).read_bytes() + b"# another wall\n")
    monkeypatch.setattr(grid_files.grids_module, "__file__", str(changed))
    assert grid_files._key(road) != before
    assert len(before) * 4 <= hashlib.sha256().digest_size * 8
