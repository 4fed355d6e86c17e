"""What a far worker and its courier process say to each other: frames of bytes over two pipes, nothing pickled."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import IO, NamedTuple

_HEADER = struct.Struct("<BQQ")


class Kind(IntEnum):
    """What a frame holds."""

    segment = 1
    """To the courier: a segment without sequence number; frames are numbered 1, 2, 3, ... within a session."""
    finish = 2
    """To the courier: deliver everything, then end."""
    leave = 3
    """To the courier: keep what is not delivered, then end."""
    status = 4
    """To the worker: ``CourierStatus``."""
    weights = 5
    """To the worker: the newest message of the Weights stream."""
    request = 6
    """To the worker: a request for an evaluation."""
    report = 7
    """To the courier: what came of it."""
    hanging = 8
    """To the courier, as the number of a frame: how long the environment has not come back [ms]; 0: it has."""


class Frame(NamedTuple):
    """One message of the pipe."""

    kind: int
    number: int
    payload: bytearray


@dataclass(frozen=True)
class CourierConfig:
    """Everything a courier needs, as plain data."""

    address: str
    """host:port of the learner or relay."""
    credentials: str
    """Folder with name and token, and the certificate of the authority."""
    is_plaintext: bool
    """Whether the connection is not encrypted."""
    name: str
    """Of the worker; several of one machine may share it."""
    fingerprint: str
    """What worker and learner must agree on."""
    session: str
    """Names this run of the worker."""
    outbox: str
    """Folder; another one beside it when it is taken."""
    outbox_bytes: int
    outbox_policy: str
    """Name of an ``OutboxPolicy``."""
    max_message_bytes: int
    compress: bool = False
    """Whether images are compressed."""
    forwards_weights: bool = True
    """Whether the worker gets weights."""
    evaluates: bool = False
    """Whether the worker gets requests for evaluations."""
    weights_history: int = 0
    """Every so many-th version is kept in the outbox folder; 0: none."""
    software: dict[str, str] = field(default_factory=dict)
    """Names and versions, for the learner's log."""

    def to_line(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @staticmethod
    def from_line(line: bytes) -> CourierConfig:
        """The inverse of ``to_line``."""
        return CourierConfig(**json.loads(line))


@dataclass(frozen=True)
class CourierStatus:
    """How things are with the courier."""

    worker: str = ""
    """Name under which the learner knows this worker: its own and that of its outbox."""
    folder: str = ""
    """Of the outbox."""
    taken: int = 0
    """Frames up to this number are stored or counted as dropped."""
    segments: int = 0
    """Not stored by the learner yet."""
    num_bytes: int = 0
    """Their size."""
    dropped: int = 0
    """Segments lost because there was no room."""
    full: str = ""
    """Why the outbox takes nothing more; empty: it does."""
    has_joined: bool = False
    """Whether the learner has ever taken this worker in."""
    is_connected: bool = False
    trouble: str = ""
    """What keeps the learner from being reached."""
    weights_version: int = 0
    """Newest version that has come in."""
    round_trip_ms: float | None = None
    """What a call and its answer take; None: not known."""
    refusal: str = ""
    """Why the courier has given up: there is something that the user has to put right."""
    failure: str = ""
    """Why the courier has given up: a fault of the program, with its traceback."""

    def to_bytes(self) -> bytes:
        """JSON."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(data: bytes | bytearray) -> CourierStatus:
        """The inverse of ``to_bytes``."""
        return CourierStatus(**json.loads(data))


def write_frame(stream: IO[bytes], kind: Kind, number: int = 0, payload: bytes | bytearray = b"") -> None:
    """Writes a frame; waits while the pipe is full."""
    stream.write(_HEADER.pack(kind, number, len(payload)))
    stream.write(payload)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Frame | None:
    """Waits for a frame; None when the other side is gone, also in the middle of one."""
    header = _read(stream, _HEADER.size)
    if header is None:
        return None
    kind, number, length = _HEADER.unpack(header)
    payload = _read(stream, length)
    return None if payload is None else Frame(kind, number, payload)


def _read(stream: IO[bytes], length: int) -> bytearray | None:
    buffer = bytearray(length)
    view = memoryview(buffer)
    position = 0
    while position < length:
        count = stream.readinto(view[position:])  # type: ignore[attr-defined]
        if not count:
            return None
        position += count
    return buffer
