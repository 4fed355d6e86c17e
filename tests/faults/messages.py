"""Messages for the hostile tests: valid ones, and changed ones."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from tasks.experience.samples import Segment
from tasks.remote.wire import link
from tests.faults.numbered_env import ACTION_SIZE, fingerprint, number_bytes, picture_of, reward_of

_LENGTH = struct.Struct("<Q")
_HEADER_AT = 16
_NUMBERS = (0, 1, -1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64, 10**400)
_VALUES: tuple[Any, ...] = (*_NUMBERS, 0.5, 1e308, True, None, "", "x" * 5_000, [], [[]], {}, {"a": {}}, [1] * 3_000)


def hello(identity: str, picture_bytes: int) -> bytes:
    """A greeting."""
    return link.encode_hello(link.Hello(identity, 0, "worker", fingerprint(picture_bytes), {"python": "3"}))


def ping() -> bytes:
    """A ping."""
    return link.encode_ping(link.Ping(1.0, 0))


def segment(identity: str, seq: int, picture_bytes: int, rows: int = 16) -> Segment:
    """The segment with this number, if every segment of the environment has this many rows."""
    numbers = np.arange((seq - 1) * rows + 1, seq * rows + 1)
    is_first = numbers % 64 == 1
    return Segment(
        worker=identity,
        stream=1_000,
        seq=seq,
        frames={"number": number_bytes(numbers), "picture": picture_of(numbers, picture_bytes)},
        action=np.zeros((rows, ACTION_SIZE), np.float32),
        reward=np.where(is_first, 0.0, reward_of(numbers)).astype(np.float32),
        terminated=np.zeros(rows, np.bool_),
        truncated=np.zeros(rows, np.bool_),
        is_first=is_first,
    )


def encoded(identity: str, seq: int, picture_bytes: int, rows: int = 16) -> bytes:
    """``segment`` as a message."""
    return link.encode_segment(segment(identity, seq, picture_bytes, rows))


def with_header(message: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The message with a changed header and the matching length."""
    header, body = _split(message)
    change(header)
    text = json.dumps(header).encode()
    return message[:8] + _LENGTH.pack(len(text)) + text + body


def with_data(message: bytes, **values: Any) -> bytes:
    """The message with changed plain data."""

    def change(header: dict[str, Any]) -> None:
        data = json.loads(header["__metadata__"]["data"])
        header["__metadata__"]["data"] = json.dumps(data | values)

    return with_header(message, change)


def with_array(message: bytes, name: str, **values: Any) -> bytes:
    """The message with a changed description of an array."""
    return with_header(message, lambda header: header[name].update(values))


def bomb(message: bytes, name: str, megabytes: int) -> bytes:
    """The message with an array that is small when sent and huge when decompressed."""
    import zstandard

    size = megabytes * 1024 * 1024
    content = zstandard.ZstdCompressor().compress(bytes(size))
    data, arrays = link.unpack(message, "segment")
    arrays[name] = np.frombuffer(content, np.uint8)
    claims = {name: {"dtype": "U8", "shape": [size]}}
    return with_header(
        link.pack("segment", data, arrays), lambda header: header["__metadata__"].update(compressed=json.dumps(claims))
    )


def mutated(message: bytes, rng: random.Random) -> bytes:
    """The message with a random change."""
    return rng.choice(_MUTATIONS)(message, rng)


def _split(message: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = _LENGTH.unpack_from(message, 8)
    return json.loads(message[_HEADER_AT : _HEADER_AT + length]), message[_HEADER_AT + length :]


def _flip_bits(message: bytes, rng: random.Random) -> bytes:
    changed = bytearray(message)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite_number(message: bytes, rng: random.Random) -> bytes:
    changed = bytearray(message)
    at = rng.choice((0, 4, 8, rng.randrange(len(message) - 8)))
    changed[at : at + 8] = (rng.choice(_NUMBERS) % 2**64).to_bytes(8, "little")
    return bytes(changed)


def _truncate(message: bytes, rng: random.Random) -> bytes:
    return message[: rng.randrange(len(message))]


def _insert(message: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(message))
    return message[:at] + rng.randbytes(rng.randint(1, 64)) + message[at:]


def _repeat(message: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(message))
    return message[:at] + message[rng.randrange(len(message)) :] + message[at:]


def _noise(message: bytes, rng: random.Random) -> bytes:
    return message[: rng.choice((0, 4, 8, 16))] + rng.randbytes(rng.randint(0, 2_000))


def _change_header(message: bytes, rng: random.Random) -> bytes:
    header, body = _split(message)
    name = rng.choice(list(header))
    if rng.random() < 0.2:
        del header[name]
    elif rng.random() < 0.2:
        header[rng.choice(("reward", "x" * 300, "frames/picture", "__metadata__"))] = header[name]
    else:
        header[name][rng.choice(list(header[name]))] = rng.choice(_VALUES)
    text = json.dumps(header).encode()
    return message[:8] + _LENGTH.pack(len(text)) + text + body


def _change_data(message: bytes, rng: random.Random) -> bytes:
    header, _ = _split(message)
    names = list(json.loads(header["__metadata__"]["data"]))
    return with_data(message, **{rng.choice(names) if names else "x": rng.choice(_VALUES)})


def _nest(message: bytes, rng: random.Random) -> bytes:
    text = rng.choice((b"[", b'{"a":')) * rng.randint(1_000, 100_000)
    return message[:8] + _LENGTH.pack(len(text)) + text


_MUTATIONS = (
    *(_flip_bits, _overwrite_number, _truncate, _insert, _repeat, _noise),
    *(_change_header, _change_header, _change_data, _change_data, _nest),
)
