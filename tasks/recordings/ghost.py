"""Drives in the game's own files: a ghost, a replay, or the author's ghost inside a map.

Only the drive is read. Names, logins and other personal data in these files stay unread.
"""

from __future__ import annotations

import itertools
import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tasks.recordings import pressed_inputs
from tasks.recordings.container import GbxFile, read_container, unpack
from tasks.recordings.cursor import ByteCursor, GbxError
from tasks.recordings.pieces import cut
from tasks.recordings.pressed_inputs import PressedInputs, read_inputs
from tasks.recordings.recording import Recording
from tasks.recordings.vehicle_record import RECORD_CLASS, read_record
from tasks.recordings.vehicle_samples import decode

SUFFIX = ".gbx"
MAX_RACE_S = 24 * 3600.0
_SKIPPABLE = b"PIKS"
_RACE_TIME, _CHECKPOINTS, _MAP, _CAR = 0x03092005, 0x0309200B, 0x03092010, 0x03092000
_KEPT = (_CAR, _RACE_TIME, _CHECKPOINTS, pressed_inputs.CHUNK)
_MAX_GHOSTS = 64
_MAX_CHECKPOINTS = 10_000
_NO_TIME = 0xFFFFFFFF
_UID = re.compile(rb"[\w-]{20,30}")


@dataclass(frozen=True)
class Ghost:
    """One drive of a file.

    Attributes:
        pieces: What was driven without a jump, in the order of time: a respawn or a splice begins a new one.
        starts_s: When each piece begins, from the start of the race [s].
        race_time_s: The lap [s]; None: it was not finished.
        checkpoint_times_s: When each checkpoint was reached, the finish last [s].
        map_uid: The name of the map among all maps; empty: the file does not say.
    """

    pieces: tuple[Recording, ...]
    starts_s: tuple[float, ...]
    race_time_s: float | None
    checkpoint_times_s: tuple[float, ...]
    map_uid: str


def is_gbx(name: str | Path) -> bool:
    """Whether a name is that of a file of the game, by its ending."""
    return Path(name).suffix.lower() == SUFFIX


def read_ghost(path: str | Path) -> Ghost:
    """The fastest finished drive in a file; where none was finished, the first.

    Raises:
        GbxError: There is none, or the file is damaged or larger than the bounds allow; the text begins with its path.
    """
    return fastest(read_ghosts(path))


def read_ghosts(path: str | Path) -> list[Ghost]:
    """All drives in a file, at least one.

    Raises:
        GbxError: There is none, or the file is damaged or larger than the bounds allow; the text begins with its path.
    """
    file = Path(path).expanduser()
    try:
        return _ghosts(read_container(file))
    except (GbxError, OSError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise GbxError(f"{file}: {text}") from error


def ghosts_in(data: bytes) -> list[Ghost]:
    """All drives in the bytes of a file, at least one.

    Raises:
        GbxError: There is none, or they are damaged or larger than the bounds allow.
    """
    return _ghosts(unpack(data))


def fastest(ghosts: Sequence[Ghost]) -> Ghost:
    """The fastest finished drive; where none was finished, the first."""
    return min(ghosts, key=lambda ghost: math.inf if ghost.race_time_s is None else ghost.race_time_s)


class _Chunk(NamedTuple):
    """A part of a body that says how long it is."""

    id: int
    begin: int
    end: int
    """End of its data."""


def _ghosts(file: GbxFile) -> list[Ghost]:
    """Each begins with its car; what follows up to the next car belongs to it."""
    chunks = list(_chunks(file.body))
    cars = [i for i, chunk in enumerate(chunks) if chunk.id == _CAR]
    if len(cars) > _MAX_GHOSTS:
        raise GbxError(f"{file.kind} must hold at most {_MAX_GHOSTS} ghosts, got {len(cars)}")
    ghosts = []
    for first, after in itertools.pairwise([*cars, len(chunks)]):
        end = chunks[after].begin if after < len(chunks) else len(file.body)
        ghost = _ghost(file, chunks[first:after], end)
        if ghost is not None:
            ghosts.append(ghost)
    if not ghosts:
        raise GbxError(f"{file.kind} must hold a drive, it has none{_ADVICE.get(file.kind, '')}")
    return ghosts


_ADVICE = {"map": " (its author's drive is kept only in some maps): take a ghost or a replay of it"}


def _chunks(body: bytes) -> Iterator[_Chunk]:
    """The chunks that are read, at any place: a replay or a map wraps its ghosts in its own chunks."""
    at = body.find(_SKIPPABLE, 4)
    while at >= 0:
        chunk_id, size = struct.unpack_from("<I", body, at - 4)[0], _size_at(body, at + 4)
        begin = at + 8
        is_kept = chunk_id in _KEPT
        if is_kept and size > len(body) - begin:
            raise GbxError(f"chunk 0x{chunk_id:08X} must have {size} bytes, {max(0, len(body) - begin)} are left")
        if is_kept:
            yield _Chunk(chunk_id, begin, begin + size)
        at = body.find(_SKIPPABLE, begin + size if is_kept else at + 4)


def _size_at(body: bytes, at: int) -> int:
    return int.from_bytes(body[at : at + 4], "little")


def _ghost(file: GbxFile, chunks: list[_Chunk], end: int) -> Ghost | None:
    """The drive of one car; None: it has no record of it."""
    car = file.body[chunks[0].begin : chunks[0].end]
    mark = struct.pack("<II", RECORD_CLASS, RECORD_CLASS)  # a node, and its only chunk
    at = car.find(mark)
    if at < 0:
        return None
    data = {chunk.id: file.body[chunk.begin : chunk.end] for chunk in reversed(chunks)}
    version, cars = read_record(ByteCursor(car[at + len(mark) :], "the record"))
    inputs = read_inputs(data[pressed_inputs.CHUNK]) if pressed_inputs.CHUNK in data else None
    pieces = cut([decode(samples) for samples in cars], _aligned(inputs, version))
    if not pieces:
        return None
    race_time_s = _race_time_s(data.get(_RACE_TIME))
    checkpoints = _checkpoint_times_s(data.get(_CHECKPOINTS)) if race_time_s is not None else ()
    uid = _map_uid(file.body[chunks[0].end : end]) or _header_uid(file.user_header)
    starts_s = tuple(float(piece.column("t_ms")[0]) / 1000 for piece in pieces)
    return Ghost(tuple(pieces), starts_s, race_time_s, checkpoints, uid)


def _aligned(inputs: PressedInputs | None, version: int) -> PressedInputs | None:
    """The inputs with the time of the sample that each acts on: records of version 10 begin a tick later."""
    if inputs is None or version >= 11:
        return inputs
    return inputs._replace(start_ms=inputs.start_ms + 10)


def _race_time_s(chunk: bytes | None) -> float | None:
    if chunk is None:
        return None
    time_ms = ByteCursor(chunk, "race time").u32("race time")
    if time_ms in (0, _NO_TIME):
        return None
    return _checked_time_s(time_ms)


def _checkpoint_times_s(chunk: bytes | None) -> tuple[float, ...]:
    if chunk is None:
        return ()
    cursor = ByteCursor(chunk, "checkpoints")
    count = cursor.count("checkpoints", item_bytes=8, at_most=_MAX_CHECKPOINTS)
    times = []
    for _ in range(count):
        times.append(_checked_time_s(cursor.u32("time of a checkpoint")))
        cursor.u32("score at a checkpoint")
    return tuple(times)


def _checked_time_s(time_ms: int) -> float:
    if time_ms > 1000 * MAX_RACE_S:
        raise GbxError(f"times must be at most {MAX_RACE_S:g} s, got {time_ms / 1000:g} s")
    return time_ms / 1000


def _map_uid(part: bytes) -> str:
    """The uid behind the chunk of the map, which does not say how long it is."""
    at = part.find(struct.pack("<I", _MAP))
    found = _UID.search(part[at : at + 60]) if at >= 0 else None
    return found[0].decode("ascii") if found else ""


def _header_uid(header: bytes) -> str:
    """The uid in the text of a header of a replay or a map."""
    found = re.search(rb'uid="([\w-]{20,30})"', header[:65536])
    return found[1].decode("ascii") if found else ""
