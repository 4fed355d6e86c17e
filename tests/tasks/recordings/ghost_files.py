"""Writes files as the game does: ghosts, replays and maps with a drive, in both versions of the record."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from lzallright import LZOCompressor

SAMPLE_BYTES = 107
START_MS = -1500
UID = "AbCdEfGhIjKlMnOpQrStUvWxYz0"
NICKNAME = b"SomebodysNickname"
GHOST, REPLAY, MAP = 0x03092000, 0x03093000, 0x03043000


@dataclass
class Drive:
    """A drive of a car in a test."""

    positions: np.ndarray
    """x, y, z every 50 ms, shape (N, 3)."""
    yaw: np.ndarray
    speed: np.ndarray
    inputs: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    """steer (multiples of 1/127), gas, brake of each tick from the start of the race on."""
    race_time_ms: int = 0
    checkpoints_ms: Sequence[int] = ()
    others: Sequence[tuple[int, np.ndarray]] = ()
    """Further cars: the time of the first sample [ms], and positions."""
    words: dict[int, int] = field(default_factory=dict)
    """Words of the input stream, by tick of the race."""


def drive_along(points: np.ndarray, speed: float, *, with_inputs: bool = True) -> Drive:
    """A car at a constant speed along a polyline (x, y, z); it steers as much as it turns."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    station = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.arange(0.0, station[-1], 0.05 * speed)
    positions = np.stack([np.interp(wanted, station, points[:, axis]) for axis in range(3)], 1).astype(np.float32)
    ahead = np.gradient(positions.astype(float), axis=0)
    yaw = -np.unwrap(np.arctan2(ahead[:, 0], ahead[:, 2]))
    turn = np.gradient(yaw) if len(yaw) > 1 else np.zeros(1)
    steer = np.round(np.clip(20 * turn, -1, 1) * 127) / 127
    ticks = np.stack([steer, np.ones_like(steer), np.zeros_like(steer)], 1).repeat(5, axis=0)
    race_time_ms = 50 * (len(positions) - 1)
    inputs = ticks if with_inputs else np.zeros((0, 3))
    return Drive(positions, yaw, np.full(len(yaw), speed), inputs, race_time_ms, (race_time_ms // 2, race_time_ms))


def right_turn(climb: float = 0.0) -> np.ndarray:
    """150 m along z and 150 m to -x, which is to the right in the game; from 100 m on it climbs."""
    angle = np.linspace(0, np.pi / 2, 60)
    arc = np.stack([30 * np.cos(angle) - 30, 0 * angle, 150 + 30 * np.sin(angle)], axis=1)
    points = np.vstack([[[0, 0, 0], [0, 0, 100]], arc, [[-150, 0, 180]]]).astype(float)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    points[:, 1] = 8 + climb * np.maximum(0.0, along - 100.0)
    return points


def ghost_file(drive: Drive, version: int = 11) -> bytes:
    return gbx(GHOST, b"", ghost_chunks(drive, version))


def replay_file(drives: Sequence[Drive], version: int = 11) -> bytes:
    header = f'<header type="replay"><map uid="{UID}"/></header>'.encode()
    ghosts = b"".join(struct.pack("<II", 1, GHOST) + ghost_chunks(drive, version) for drive in drives)
    return gbx(REPLAY, header, _skippable(0x03093002, b"the map") + struct.pack("<I", len(drives)) + ghosts)


def map_file(drive: Drive | None, version: int = 11) -> bytes:
    inside = b"" if drive is None else struct.pack("<I", GHOST) + ghost_chunks(drive, version)
    return gbx(MAP, f'<header type="map"><ident uid="{UID}"/></header>'.encode(), _skippable(0x0304305B, inside))


def gbx(class_id: int, header: bytes, body: bytes) -> bytes:
    packed = bytes(LZOCompressor().compress(body))
    head = b"GBX" + struct.pack("<H", 6) + b"BUCR" + struct.pack("<II", class_id, len(header)) + header
    return head + struct.pack("<IIII", 2, 0, len(body), len(packed)) + packed


def ghost_chunks(drive: Drive, version: int) -> bytes:
    record = record_bytes(drive, version)
    packed = zlib.compress(record)
    car = (
        NICKNAME + struct.pack("<IIIII", 0x0911F000, 0x0911F000, version, len(record), len(packed)) + packed + NICKNAME
    )
    checkpoints = b"".join(struct.pack("<II", time, 0) for time in drive.checkpoints_ms)
    uid = struct.pack("<IIII", 0x03092010, 3, 0x40000000, len(UID)) + UID.encode()
    chunks = _skippable(0x03092000, car) + _skippable(0x03092005, struct.pack("<I", drive.race_time_ms or 2**32 - 1))
    chunks += _skippable(0x0309200B, struct.pack("<I", len(drive.checkpoints_ms)) + checkpoints) + uid
    if len(drive.inputs):
        chunks += _skippable(0x0309201D, inputs_chunk(drive))
    return chunks + struct.pack("<I", 0xFACADE01)


def record_bytes(drive: Drive, version: int) -> bytes:
    kinds = struct.pack("<IIiiiII", 2, 0x0A019000, 588, 0, 19, 0, 0) + struct.pack(
        "<IiiiII", 0x0A018000, 864, 0, 33, 0, 0
    )
    record = struct.pack("<ii", 0, drive.race_time_ms) + kinds + struct.pack("<I", 1) + struct.pack("<iiI", 19, 0, 7)
    first = 0 if version >= 11 else 10
    cars = [(first, drive.positions, drive.yaw, drive.speed)]
    for start_ms, positions in drive.others:
        speed = np.linalg.norm(np.gradient(positions.astype(float), axis=0), axis=1) / 0.05
        cars.append((start_ms + first, positions, np.zeros(len(positions)), speed))
    record += b"\1"
    for start_ms, positions, yaw, speed in cars:
        rows = sample_rows(positions, yaw, speed, drive.inputs[::5])
        times = start_ms + 50 * np.arange(len(rows))
        record += struct.pack("<iiiii", 1, 7, int(times[0]), int(times[-1]), 0) + _samples(times, rows, version)
        record += b"\1" if start_ms != cars[-1][0] else b"\0"
        record += b"\1" + struct.pack("<iiI", 5, 0, 3) + b"abc" + b"\0"
    return record


def _samples(times: np.ndarray, rows: np.ndarray, version: int) -> bytes:
    if version >= 11:
        differences = np.diff(times, prepend=0).astype("<i4").tobytes()
        columns = np.diff(rows.T, axis=1, prepend=np.uint8(0)).astype(np.uint8)
        return struct.pack("<II", *rows.shape) + differences + columns.tobytes()
    heads = [b"\1" + struct.pack("<iI", time, rows.shape[1]) for time in times]
    marked = (head + row.tobytes() for head, row in zip(heads, rows, strict=True))
    return b"".join(marked) + b"\0"


def sample_rows(positions: np.ndarray, yaw: np.ndarray, speed: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    rows = np.zeros((len(positions), SAMPLE_BYTES), np.uint8)
    for i, (position, heading, fast) in enumerate(zip(positions, yaw, speed, strict=True)):
        stored = round(1000 * math.log(fast)) if fast > 1e-6 else -32768
        half = (-heading / 2) % math.pi
        attitude = struct.pack("<Hhhh", round(half / math.pi * 65535), 32767 // 2 + 1, 0, stored)
        rows[i, 47:67] = np.frombuffer(struct.pack("<fff", *position) + attitude, np.uint8)
        rows[i, 24:32:2] = 16
        rows[i, 91] = 4 * 3 + 1
        rows[i, 5] = 88
        if i < len(inputs):
            steer, gas, brake = inputs[i]
            rows[i, 14] = math.floor((round(steer * 127) + 127) * 255 / 254)
            rows[i, 15], rows[i, 18] = 255 * (gas and not brake), 255 * (gas and brake)
    return rows


def inputs_chunk(drive: Drive) -> bytes:
    bits = _Bits()
    before = -START_MS // 10
    last: tuple[float, ...] | None = None
    word: int | None = None
    total = before + len(drive.inputs)
    for tick in range(total):
        wanted = drive.words.get(tick - before, 2 if tick == 0 else word)
        if wanted == word:
            bits.put(1, 1)
        else:
            bits.put(0, 1)
            bits.put(0, 1)
            bits.put(wanted or 0, 34)
        word = wanted
        bits.put(1, 1)
        pressed = drive.inputs[max(0, tick - before)]
        if last is not None and tuple(pressed) == last:
            bits.put(1, 1)
        else:
            bits.put(0, 1)
            bits.put(round(pressed[0] * 127) & 255, 8)
            bits.put(int(pressed[1]), 1)
            bits.put(int(pressed[2]), 1)
        last = tuple(pressed)
    stream = bits.data()
    return struct.pack("<IIIIiII", 4, 1, 12, 0, START_MS, total, len(stream)) + stream


class _Bits:
    def __init__(self) -> None:
        self._value: list[int] = []

    def put(self, value: int, count: int) -> None:
        self._value += [value >> i & 1 for i in range(count)]

    def data(self) -> bytes:
        return np.packbits(np.array(self._value, np.uint8), bitorder="little").tobytes()


def _skippable(chunk_id: int, data: bytes) -> bytes:
    return struct.pack("<I4sI", chunk_id, b"PIKS", len(data)) + data
