"""Drives are read from the game's files as they were written; damaged and false files are refused with a message."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from lzallright import LZOCompressor

from tasks.recordings import container
from tasks.recordings.container import unpacked_size
from tasks.recordings.cursor import GbxError
from tasks.recordings.ghost import Ghost, read_ghost, read_ghosts
from tests.tasks.recordings import ghost_files
from tests.tasks.recordings.ghost_files import UID, Drive, drive_along, ghost_file, map_file, replay_file


def _corner(length_m: float = 60.0) -> np.ndarray:
    """Straight on along z, and a quarter turn to -x, which is to the right in the game's frame."""
    angle = np.linspace(0, np.pi / 2, 50)
    arc = np.stack([20 * np.cos(angle) - 20, 8 + 0 * angle, 20 * np.sin(angle)], axis=1)
    straight = np.array([[0.0, 8.0, -length_m]])
    return np.vstack([straight, arc, [[-20.0 - length_m, 8.0, 20.0]]])


def _read(tmp_path: Path, data: bytes, name: str = "run.Ghost.Gbx") -> Ghost:
    path = tmp_path / name
    path.write_bytes(data)
    return read_ghost(path)


@pytest.mark.parametrize("version", [10, 11])
def test_a_drive_comes_back_as_it_was_written(tmp_path: Path, version: int) -> None:
    drive = drive_along(_corner(), 25.0)
    ghost = _read(tmp_path, ghost_file(drive, version))
    (piece,) = ghost.pieces
    assert ghost.race_time_s == pytest.approx(drive.race_time_ms / 1000)
    assert ghost.checkpoint_times_s == pytest.approx((drive.race_time_ms // 2 / 1000, drive.race_time_ms / 1000))
    assert ghost.map_uid == UID
    np.testing.assert_array_equal(piece.states[:, 1:4], drive.positions)
    np.testing.assert_allclose(piece.column("yaw"), drive.yaw, atol=1e-3)
    np.testing.assert_allclose(piece.column("speed"), 25.0, rtol=1e-3)
    np.testing.assert_allclose(np.hypot(piece.column("u"), piece.column("w")), 25.0, rtol=1e-3)
    assert set(piece.states[:, 13:17].ravel()) == {16.0}
    assert set(piece.column("gear")) == {3.0}


@pytest.mark.parametrize("version", [10, 11])
def test_inputs_apply_from_their_sample_on(tmp_path: Path, version: int) -> None:
    drive = drive_along(_corner(), 25.0)
    (piece,) = _read(tmp_path, ghost_file(drive, version)).pieces
    assert piece.has_inputs
    assert len(piece.inputs) == 5 * (len(piece.states) - 1) + 1
    np.testing.assert_allclose(piece.inputs, drive.inputs[: len(piece.inputs)], atol=1e-6)
    np.testing.assert_allclose(piece.column("steer"), piece.inputs[::5, 0])


def test_without_the_chunk_of_the_inputs_they_are_held_from_the_samples(tmp_path: Path) -> None:
    drive = drive_along(_corner(), 25.0)
    whole = ghost_files.ghost_chunks(drive, 11)
    at = whole.index(struct.pack("<I4s", 0x0309201D, b"PIKS"))
    without = whole[:at] + struct.pack("<I", 0xFACADE01)
    (piece,) = _read(tmp_path, ghost_files.gbx(ghost_files.GHOST, b"", without)).pieces
    assert not piece.has_inputs
    np.testing.assert_allclose(piece.inputs[::5, 0], drive.inputs[::5, 0], atol=1e-6)


def test_an_action_key_limits_the_steering_until_it_is_pressed_again(tmp_path: Path) -> None:
    drive = drive_along(_corner(), 25.0)
    drive.inputs[:, 0] = 1.0
    drive.words = {100: 2 | 1 << 17, 110: 2, 200: 2 | 1 << 17, 210: 2}
    (piece,) = _read(tmp_path, ghost_file(drive)).pieces
    np.testing.assert_allclose(piece.inputs[[99, 100, 150, 199, 200, 250], 0], [1, 0.4, 0.4, 0.4, 1, 1], rtol=1e-6)


def test_a_respawn_begins_a_new_piece(tmp_path: Path) -> None:
    drive = drive_along(_corner(), 25.0)
    drive.positions[30:] += np.float32(40.0)
    ghost = _read(tmp_path, ghost_file(drive))
    assert [len(piece.states) for piece in ghost.pieces] == [30, len(drive.positions) - 30]
    assert ghost.starts_s == pytest.approx((0.0, 1.5))
    np.testing.assert_allclose(ghost.pieces[1].inputs[0], drive.inputs[150])


def test_all_cars_of_a_record_are_read_and_another_driver_has_no_inputs(tmp_path: Path) -> None:
    drive = drive_along(_corner(), 25.0)
    after_ms = 50 * len(drive.positions)
    later, other = drive.positions[:10] + np.float32(300.0), drive.positions[:20] + np.float32(600.0)
    drive.others = [(after_ms, later), (1000, other)]
    ghost = _read(tmp_path, ghost_file(drive))
    assert [len(piece.states) for piece in ghost.pieces] == [len(drive.positions), 10, 20]
    assert not ghost.pieces[2].has_inputs


def test_of_several_drives_the_fastest_is_used(tmp_path: Path) -> None:
    slow, fast = drive_along(_corner(), 20.0), drive_along(_corner(), 30.0)
    path = tmp_path / "run.Replay.Gbx"
    path.write_bytes(replay_file([slow, fast]))
    assert len(read_ghosts(path)) == 2
    assert read_ghost(path).race_time_s == pytest.approx(fast.race_time_ms / 1000)


def test_a_map_gives_the_drive_of_its_author_or_says_that_it_has_none(tmp_path: Path) -> None:
    drive = drive_along(_corner(), 25.0)
    assert _read(tmp_path, map_file(drive), "a.Map.Gbx").race_time_s == pytest.approx(drive.race_time_ms / 1000)
    with pytest.raises(GbxError, match=r"b\.Map\.Gbx: map must hold a drive.*take a ghost or a replay"):
        _read(tmp_path, map_file(None), "b.Map.Gbx")


def test_a_drive_that_was_not_finished_has_no_time(tmp_path: Path) -> None:
    drive = drive_along(_corner(), 25.0)
    drive.race_time_ms = 0
    ghost = _read(tmp_path, ghost_file(drive))
    assert ghost.race_time_s is None
    assert ghost.checkpoint_times_s == ()


def test_names_are_not_kept(tmp_path: Path) -> None:
    assert ghost_files.NICKNAME.decode() not in repr(_read(tmp_path, ghost_file(drive_along(_corner(), 25.0))))


def _small() -> Drive:
    return drive_along(_corner(8.0), 25.0)


def _damaged_body(change: dict[int, bytes]) -> bytes:
    """A ghost whose body was changed at places before it was packed."""
    body = bytearray(ghost_files.ghost_chunks(_small(), 11))
    for at, data in change.items():
        body[at : at + len(data)] = data
    return ghost_files.gbx(ghost_files.GHOST, b"", bytes(body))


def _zlib_bomb() -> bytes:
    """A record that says it has 100 bytes and unpacks to 100 MB."""
    packed = zlib.compress(bytes(100_000_000))
    car = struct.pack("<IIIII", 0x0911F000, 0x0911F000, 11, 100, len(packed)) + packed
    return ghost_files.gbx(ghost_files.GHOST, b"", struct.pack("<I4sI", 0x03092000, b"PIKS", len(car)) + car)


def _with_body_size(size: int) -> bytes:
    data = bytearray(ghost_file(_small()))
    data[25:29] = struct.pack("<I", size)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the mark GBX must have 3 bytes, 0 are left"),
        (b"PK\x03\x04 and so on", "must begin with GBX"),
        (b"GBX\x05\x00BUCR", "version must be 6, got 5"),
        (b"GBX\x06\x00TUCR", "must be a binary file"),
        (
            b"GBX\x06\x00BUCR" + struct.pack("<II", 0x03079000, 0),
            "must be a ghost, replay or map, got the class 0x03079000",
        ),
        (ghost_file(_small())[:-100], "packed body must have"),
        (_with_body_size(2**32 - 1), "body must unpack to at most 256 MB, got 4095 MB"),
        (_with_body_size(10), "body must unpack to 10 bytes, got"),
        (_damaged_body({8: struct.pack("<I", 10**9)}), "must have 1000000000 bytes"),
        (_zlib_bomb(), "record must unpack to 100 bytes, got more"),
    ],
)
def test_a_fault_is_reported_with_the_name_of_the_file(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(GbxError) as refused:
        _read(tmp_path, data)
    assert str(refused.value).startswith(str(tmp_path / "run.Ghost.Gbx") + ": ")
    assert said in str(refused.value)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(GbxError, match=r"none\.Ghost\.Gbx: No such file"):
        read_ghost(tmp_path / "none.Ghost.Gbx")


def test_a_body_that_would_unpack_to_more_than_it_says_is_refused_before_it_is_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(container, "MAX_BODY_BYTES", 1_000_000)
    packed = bytes(LZOCompressor().compress(bytes(4_000_000)))
    head = b"GBX\x06\x00BUCR" + struct.pack("<IIIIII", ghost_files.GHOST, 0, 1, 0, 50_000, len(packed))
    with pytest.raises(GbxError, match="body must unpack to 50000 bytes, got more"):
        container.unpack(head + packed)


def test_the_size_of_packed_bytes_is_counted_without_unpacking_them() -> None:
    rng = random.Random(0)
    for _ in range(200):
        words = [rng.randbytes(rng.randint(1, 40)) for _ in range(5)]
        data = b"".join(rng.choice(words) for _ in range(rng.randint(1, 2000)))
        data += bytes(rng.randint(0, 5000)) + rng.randbytes(rng.randint(0, 500))
        packed = bytes(LZOCompressor().compress(data))
        assert unpacked_size(packed, 10**9) == len(data)


_FILES = 10_000


def _mutated(rng: random.Random, data: bytes) -> bytes:
    """A few bytes changed, cut out, put in, or numbers made extreme."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(changed) or 1)
        kind = rng.randrange(5)
        if kind == 0:
            changed[at : at + 1] = rng.randbytes(1)
        elif kind == 1:
            changed[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 10**7]))
        elif kind == 2:
            del changed[at : at + rng.randint(1, 60)]
        elif kind == 3:
            changed[at:at] = rng.randbytes(rng.randint(1, 20))
        else:
            del changed[at:]
    return bytes(changed)


class _Layers:
    """Layers of a ghost: file, body, record and stream of inputs can each be changed and reassembled."""

    def __init__(self, version: int) -> None:
        drive = drive_along(_corner(2.0), 60.0)
        self._version = version
        self._file = ghost_file(drive, version)
        self._body = ghost_files.ghost_chunks(drive, version)
        self._record = ghost_files.record_bytes(drive, version)
        self._inputs = ghost_files.inputs_chunk(drive)
        self._behind_car = self._body[self._body.index(struct.pack("<I4s", 0x03092005, b"PIKS")) :]
        self._before_inputs = self._body[: self._body.index(struct.pack("<I4s", 0x0309201D, b"PIKS"))]

    def mutated(self, rng: random.Random) -> bytes:
        layer = rng.randrange(4)
        if layer == 0:
            return _mutated(rng, self._file)
        if layer == 1:
            body = _mutated(rng, self._body)
        elif layer == 2:
            record = _mutated(rng, self._record)
            packed = zlib.compress(record, 1)
            head = struct.pack("<IIIII", 0x0911F000, 0x0911F000, self._version, len(record), len(packed))
            body = struct.pack("<I4sI", 0x03092000, b"PIKS", 20 + len(packed)) + head + packed + self._behind_car
        else:
            chunk = _mutated(rng, self._inputs)
            body = self._before_inputs + struct.pack("<I4sI", 0x0309201D, b"PIKS", len(chunk)) + chunk
        return ghost_files.gbx(ghost_files.GHOST, b"", body)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("version", [10, 11])
def test_damaged_files_give_a_drive_or_a_message_and_nothing_else(tmp_path: Path, version: int) -> None:
    rng = random.Random(version)
    layers = _Layers(version)
    path = tmp_path / "run.Ghost.Gbx"
    outcomes = {True: 0, False: 0}
    for _ in range(_FILES // 2):
        path.write_bytes(layers.mutated(rng))
        outcomes[_is_read(path)] += 1
    assert min(outcomes.values()) > _FILES // 40, outcomes


def _is_read(path: Path) -> bool:
    """Whether there is a drive in a file, rather than a message that names it."""
    try:
        ghost = read_ghost(path)
    except GbxError as error:
        text = str(error)
    else:
        return all(np.isfinite(piece.states).all() and np.isfinite(piece.inputs).all() for piece in ghost.pieces)
    if not (text.startswith(str(path)) and len(text) < 400):
        raise AssertionError(text)
    return False
