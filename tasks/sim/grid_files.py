"""Grids of long tracks as files, so that the processes of a machine build them once and share their memory.

A file is named after a hash of the road and of the code that paints it, and is mapped, not read: all processes see the
same pages. It lies in the user's cache folder. What is not exactly as it was written, or belongs to somebody else, is
built anew; where no file can be written, each process keeps grids of its own.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.sim import grids as grids_module
from tasks.sim import stretches, vehicle
from tasks.sim.grids import BLOCK_TILES, TILE_CELLS, Road, TrackGrids, build_grids

logger = logging.getLogger(__name__)

MAX_FOLDER_BYTES = 512 * 2**20
"""The files that were not used for longest are deleted beyond this."""

_MAGIC = b"TM20 track grids"
_HEADER = struct.Struct("<16s32s5q")
_DTYPES = (np.float64, np.int32, np.float32, np.uint8, np.uint8)
_LONGEST_BUILD_S = 60.0


def shared_grids(road: Road, folder: Path | None = None) -> TrackGrids:
    """The grids of a road: mapped from its file, which the first process that needs it writes.

    Args:
        road: The road.
        folder: Where the files lie; the user's cache folder when None.
    """
    key = _key(road)
    built: TrackGrids | None = None
    try:
        folder = folder or cache_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = folder / f"{key}.grids"
        with _locked(folder / "lock"):
            found = _read(file, key)
            if found is None:
                built = build_grids(road)
                _write(file, key, built)
                _delete_old(folder, file)
                found = _read(file, key)
        if found is not None:
            return found
    except (OSError, RuntimeError) as error:
        logger.warning("each process keeps its own copy of the track's grids: no file can be shared, %s", error)
    return built or build_grids(road)


def cache_folder() -> Path:
    """The user's folder for such files.

    Raises:
        RuntimeError: The user has no home folder.
    """
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tm20-rl" / "grids"


def _key(road: Road) -> str:
    """Hash of everything that the grids follow from, this version of their code included."""
    digest = hashlib.sha256()
    for module in (grids_module, stretches, vehicle):
        digest.update(Path(str(module.__file__)).read_bytes())
    numbers = [road.period_m, road.length_m, road.width_m, *road.finish, float(road.seed)]
    for array in (road.points, road.station, np.array(numbers)):
        digest.update(np.ascontiguousarray(array, np.float64).tobytes())
    return digest.hexdigest()[:32]


def _arrays(grids: TrackGrids) -> tuple[NDArray[np.generic], ...]:
    """In the order of the file: the widest numbers first, so that all are aligned."""
    return grids.place, grids.index, grids.field, grids.texture, grids.clearance


def _write(file: Path, key: str, grids: TrackGrids) -> None:
    """Writes the file beside its place and moves it there, so that nobody ever sees half of it."""
    arrays = _arrays(grids)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
        try:
            part.write(
                _HEADER.pack(_MAGIC, _digest(key, *(array.data for array in arrays)), *(array.size for array in arrays))
            )
            for array in arrays:
                part.write(array.data)
            part.close()
            os.replace(part.name, file)
        except OSError:
            part.close()
            Path(part.name).unlink(missing_ok=True)
            raise


def _read(file: Path, key: str) -> TrackGrids | None:
    """Maps a file; None when there is none, or it is not what ``_write`` wrote for this key and user."""
    try:
        with file.open("rb") as stream:
            if hasattr(os, "getuid") and os.fstat(stream.fileno()).st_uid != os.getuid():
                return None
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        grids = _parse(content, key)
    except (FileNotFoundError, ValueError, struct.error):
        return None
    if grids is None:
        content.close()
        return None
    with suppress(OSError):
        os.utime(file)  # used now: deleted last
    return grids


def _parse(content: mmap.mmap, key: str) -> TrackGrids | None:
    magic, digest, *sizes = _HEADER.unpack(content[: _HEADER.size])
    lengths = [size * np.dtype(dtype).itemsize for size, dtype in zip(sizes, _DTYPES, strict=True)]
    ends = np.cumsum([_HEADER.size, *lengths])
    if magic != _MAGIC or min(sizes) < 1 or int(ends[-1]) != len(content):
        return None
    with memoryview(content)[_HEADER.size :] as payload:
        if _digest(key, payload) != digest:
            return None
    place, index, field, texture, clearance = (
        np.frombuffer(content, dtype, size, int(begin))
        for dtype, size, begin in zip(_DTYPES, sizes, ends[:-1], strict=True)
    )
    side = TILE_CELLS // 2 + 1
    grids = TrackGrids(place, index, texture, clearance, field.reshape(-1, side, side))
    return grids if _is_sound(grids) else None


def _digest(key: str, *parts: memoryview) -> bytes:
    """Hash of the key and of all bytes that follow the header."""
    digest = hashlib.sha256(key.encode())
    for part in parts:
        digest.update(part)
    return digest.digest()


def _is_sound(grids: TrackGrids) -> bool:
    """Whether no look-up in the grids can leave their arrays."""
    tile, block = TILE_CELLS**2, BLOCK_TILES**2
    if len(grids.place) != vehicle.PLACE_SIZE or not np.isfinite(grids.place).all():
        return False
    if grids.place[vehicle.INDEX_AT] != 0.0:
        return False
    shape = grids.place[[vehicle.BLOCK_ROWS, vehicle.BLOCK_COLUMNS]]
    cells = grids.place[[vehicle.FIELD_ROWS, vehicle.FIELD_COLUMNS]]
    if (shape < 1).any() or (cells < 2).any() or (cells > shape * BLOCK_TILES * (TILE_CELLS // 2)).any():
        return False
    count = int(shape[0]) * int(shape[1])
    blocks, tiles = grids.index[:count], grids.index[count:]
    return bool(
        len(tiles) >= block
        and blocks.min() >= count
        and blocks.max() <= len(grids.index) - block
        and tiles.min() >= 0
        and tiles.max() <= len(grids.texture) - tile
        and (tiles % tile == 0).all()
        and len(grids.clearance) == len(grids.field) * tile <= len(grids.texture)
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits while another process builds; the system takes the lock from a process that ends."""
    with path.open("ab") as file:
        until = time.monotonic() + _LONGEST_BUILD_S
        while not _try_lock(file) and time.monotonic() < until:
            time.sleep(0.05)
        yield


def _try_lock(file: BinaryIO) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _delete_old(folder: Path, newest: Path) -> None:
    """Keeps the folder small; a file that a process still maps stays on Windows, and in memory elsewhere."""
    total = newest.stat().st_size
    others = [(file.stat().st_mtime, file) for file in folder.iterdir() if file.suffix in (".grids", ".part")]
    for _, file in sorted(others, reverse=True):
        if file == newest:
            continue
        total += file.stat().st_size
        if total > MAX_FOLDER_BYTES or file.suffix == ".part":
            with suppress(OSError):
                file.unlink()
