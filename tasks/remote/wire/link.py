"""Encodes the messages between learner and workers as bytes, and decodes them; ``pack`` and ``unpack`` are the format.

A message is ``TMLK``, a schema version and a safetensors file: named arrays, and a header with the kind of the message
and its plain data as JSON. Everything read is checked against a cap, an allowlist or an expected shape; whatever does
not fit raises ``LinkError`` and nothing else. Knows neither sockets nor processes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import NamedTuple, TypeGuard

import numpy as np

from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment

SCHEMA_VERSION = 1
ANSWERED = "answered"
"""Metadata of every refusal: the other side was reached, even where the status is also that of a dead line."""
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
MAX_SEGMENT_ROWS = 4096
MAX_STATE_SIZE = 16384

_MAGIC = b"TMLK"
_PREFIX = struct.Struct("<4sI")
_LENGTH = struct.Struct("<Q")
_ACKNOWLEDGEMENT = struct.Struct("<qq")
_MAX_HEADER_BYTES = 1024 * 1024
_MAX_ARRAYS = 4096
_MAX_DIMENSIONS = 8
_MAX_TEXT = 256
MAX_COUNT = 2**62
_DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class LinkError(ValueError):
    """Raised when bytes from the other side are not the message that was expected."""


@dataclass(frozen=True)
class Hello:
    """The first message of a worker."""

    worker: str
    """Name, unique within the run and never used again: sequence numbers belong to it."""
    index: int
    """Index of the worker among those of its role; a restarted worker keeps it."""
    role: str
    """worker, evaluator or lock_step."""
    fingerprint: str
    """What worker and learner must agree on: observation, actions and task."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Names and versions, for the log."""


_NETWORK = " + network "


def joint_fingerprint(task: str, network: str) -> str:
    """What a worker that takes weights must agree on: the task, and the network that they are for."""
    return f"{task}{_NETWORK}{network}"


def explain_mismatch(theirs: str, ours: str) -> str:
    """In what two fingerprints differ, and what to do, for the worker's user."""
    their_task, _, their_network = theirs.partition(_NETWORK)
    our_task, _, our_network = ours.partition(_NETWORK)
    if their_task != our_task:
        what, got, expected, words = "task", their_task, our_task, "task and train"
    else:
        what, got, expected, words = "network", their_network, our_network, "train"
    return (
        f"has another {what} than the learner: fingerprint {got!r}, expected {expected!r}; start both with the same "
        f"{words} configuration and version"
    )


class HelloReply(NamedTuple):
    """The learner's answer."""

    received: int
    """Sequence number up to which the learner has this worker's segments; the worker goes on behind it."""


class Acknowledgement(NamedTuple):
    """How far a worker's segments have come."""

    received: int
    """Held in memory by the learner."""
    durable: int
    """In the stored replay: the worker may forget them."""


class ReceivedSegment(NamedTuple):
    """A segment and the counters of its sender."""

    segment: Segment
    dropped: int
    """Segments that the worker had to drop so far because its buffer was full."""


class Ping(NamedTuple):
    """What a worker says of itself now and then; the call that brings it is also what it measures."""

    round_trip_ms: float
    """What the ping before took; NaN: not known."""
    dropped: int
    """Segments that it had to drop so far because its outbox was full."""
    hangs_for_ms: int = 0
    """How long its environment has not come back from a step or a reset; 0: it does not hang."""


class Weights(NamedTuple):
    """Weights of the acting part."""

    arrays: dict[str, np.ndarray]
    version: int


REQUESTS = b"evaluator"
"""Asks the Weights stream for evaluation requests instead of what belongs to the role of the worker."""


class EvaluationRequest(NamedTuple):
    """An order to an evaluator."""

    id: int
    weights: Weights
    seeds: tuple[int, ...]
    """One episode is driven for each."""
    clip: bool
    """Whether pictures of the first episode are wanted."""


class LockStepCommand(NamedTuple):
    """What the environments of one worker do next."""

    id: int
    actions: np.ndarray | None
    """float32, shape (k, A); None: reset them all."""


@dataclass(frozen=True)
class LockStepReply:
    """The result of a command; environments that ended have already been reset."""

    id: int
    is_reset: bool
    """The environments were reset, which a restarted worker does whatever was commanded."""
    observation: Mapping[str, np.ndarray]
    """Each of shape (k, ...); under the single name "obs" when flat."""
    reward: np.ndarray
    """float32, shape (k,)."""
    terminated: np.ndarray
    """bool, shape (k,)."""
    truncated: np.ndarray
    """bool, shape (k,)."""
    episodes: tuple[Mapping[str, float], ...] = ()
    """Statistics of the episodes that ended, in the order of ``episode_indices``."""
    episode_indices: tuple[int, ...] = ()


# --- frames -----------------------------------------------------------------------------------------------------------


def pack(
    kind: str,
    data: Mapping[str, object],
    arrays: Mapping[str, np.ndarray] | None = None,
    compress: Collection[str] = (),
) -> bytes:
    """Builds a message.

    Args:
        kind: What it is.
        data: Plain data, finite numbers only.
        arrays: Arrays by name; the dtypes of ``_DTYPES``.
        compress: Names of the arrays to be compressed with zstd.
    """
    stored: dict[str, np.ndarray] = {}
    compressed: dict[str, object] = {}
    for name, array in (arrays or {}).items():
        contiguous = np.ascontiguousarray(array)
        if contiguous.dtype not in _DTYPE_NAMES:
            raise LinkError(f"{kind}: array {name!r} has dtype {array.dtype}, expected one of {sorted(_DTYPES)}")
        # ascontiguousarray makes a scalar one-dimensional.
        stored[name] = contiguous.reshape(np.shape(array))
        if name in compress:
            compressed[name] = {"dtype": _DTYPE_NAMES[contiguous.dtype], "shape": list(np.shape(array))}
            stored[name] = _compress(contiguous)
    metadata = {"kind": kind, "data": json.dumps(data, allow_nan=False), "compressed": json.dumps(compressed)}
    header: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    # The widest first, so that every array is aligned.
    ordered = sorted(stored.items(), key=lambda item: -item[1].dtype.itemsize)
    for name, array in ordered:
        end = offset + array.nbytes
        header[name] = {
            "dtype": _DTYPE_NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    size = _PREFIX.size + _LENGTH.size + len(text) + offset
    require(size <= MAX_MESSAGE_BYTES, f"{kind} of {size} bytes cannot be sent, at most {MAX_MESSAGE_BYTES}")
    buffers = [array.reshape(-1).view(np.uint8).data for _, array in ordered]
    return b"".join([_PREFIX.pack(_MAGIC, SCHEMA_VERSION), _LENGTH.pack(len(text)), text, *buffers])


def unpack(message: bytes | bytearray, kind: str) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Reads a message of this kind.

    Returns:
        Its plain data, and its arrays as views on ``message``: writable when that is a bytearray.

    Raises:
        LinkError: If it is anything else.
    """
    require(len(message) <= MAX_MESSAGE_BYTES, f"message of {len(message)} bytes, at most {MAX_MESSAGE_BYTES}")
    header, start = _header(message)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict):
        raise LinkError("message without metadata")
    got = metadata.get("kind")
    require(got == kind, f"expected a message of kind {kind!r}, got {_shorten(got)}")
    data = _json_object(metadata.get("data"), "data")
    arrays = _arrays(message, header, start)
    _expand(arrays, _json_object(metadata.get("compressed"), "compressed"))
    return data, arrays


def kind_of(message: bytes | bytearray) -> str:
    """What a message says it is; its contents are not looked at."""
    header, _ = _header(message)
    metadata = header.get("__metadata__")
    kind = metadata.get("kind") if isinstance(metadata, dict) else None
    if not isinstance(kind, str):
        raise LinkError("message without metadata")
    return kind


def _header(message: bytes | bytearray) -> tuple[dict[str, object], int]:
    require(len(message) >= _PREFIX.size + _LENGTH.size, f"message of only {len(message)} bytes")
    magic, schema = _PREFIX.unpack_from(message)
    require(magic == _MAGIC, "not a message of this link")
    require(
        schema == SCHEMA_VERSION,
        f"link schema version {schema}, this side speaks {SCHEMA_VERSION}; install the same version on both sides",
    )
    (length,) = _LENGTH.unpack_from(message, _PREFIX.size)
    start = _PREFIX.size + _LENGTH.size
    require(length <= min(_MAX_HEADER_BYTES, len(message) - start), f"header of {length} bytes")
    header = _json_object(bytes(message[start : start + length]), "header")
    require(len(header) <= _MAX_ARRAYS, f"{len(header)} arrays, at most {_MAX_ARRAYS}")
    return header, start + length


def _arrays(message: bytes | bytearray, header: Mapping[str, object], start: int) -> dict[str, np.ndarray]:
    arrays = {}
    position = 0
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise LinkError("malformed array")
        dtype, shape, size = _layout(entry)
        offsets = entry["data_offsets"]
        require(offsets == [position, position + size], f"array {_shorten(name)} at {_shorten(offsets)}")
        require(start + position + size <= len(message), f"array {_shorten(name)} is cut off")
        arrays[name] = _array(message, dtype, shape, start + position)
        position += size
    require(start + position == len(message), f"{len(message) - start - position} bytes too many")
    return arrays


def _array(message: bytes | bytearray, dtype: np.dtype, shape: tuple[int, ...], offset: int) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    array = np.frombuffer(message, np.uint8, size, offset)
    if dtype == np.bool_:
        require(int(array.max()) <= 1, "truth values other than 0 and 1")
    return array.view(dtype).reshape(shape)


def _layout(entry: Mapping[str, object]) -> tuple[np.dtype, tuple[int, ...], int]:
    """Checked dtype, shape and size in bytes."""
    name, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(name, str) or name not in _DTYPES:
        raise LinkError(f"dtype {_shorten(name)}, expected one of {sorted(_DTYPES)}")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise LinkError(f"shape {_shorten(shape)}")
    require(all(type(n) is int and 0 <= n <= MAX_MESSAGE_BYTES for n in shape), f"shape {_shorten(shape)}")
    dtype = _DTYPES[name]
    # A zero among the others must not hide them: numpy refuses shapes beyond its range.
    extent = math.prod(max(n, 1) for n in shape) * dtype.itemsize
    require(extent <= MAX_MESSAGE_BYTES, f"array of {_shorten(extent)} bytes, at most {MAX_MESSAGE_BYTES}")
    return dtype, tuple(shape), math.prod(shape) * dtype.itemsize


def _compress(array: np.ndarray) -> np.ndarray:
    import zstandard

    return np.frombuffer(zstandard.ZstdCompressor(level=1).compress(array.reshape(-1).view(np.uint8).data), np.uint8)


def _expand(arrays: dict[str, np.ndarray], compressed: Mapping[str, object]) -> None:
    """Replaces the compressed arrays; the size each claims, and their sum, is checked before anything is expanded."""
    if not compressed:
        return
    import zstandard

    budget = MAX_MESSAGE_BYTES
    for name, entry in compressed.items():
        if not isinstance(entry, dict) or name not in arrays:
            raise LinkError("malformed compressed array")
        dtype, shape, size = _layout(entry)
        budget -= size
        require(budget >= 0, f"compressed arrays of more than {MAX_MESSAGE_BYTES} bytes")
        content = arrays[name].reshape(-1).view(np.uint8).data
        try:
            require(zstandard.frame_content_size(content) == size, "a compressed size that is not the array's")
            expanded = zstandard.ZstdDecompressor().decompress(content, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise LinkError(f"compressed array cannot be expanded: {error}") from error
        require(len(expanded) == size, "a compressed array of the wrong size")
        arrays[name] = _array(expanded, dtype, shape, 0)


# --- messages ---------------------------------------------------------------------------------------------------------


def encode_hello(hello: Hello) -> bytes:
    """To bytes."""
    return pack("hello", asdict(hello))


def decode_hello(message: bytes) -> Hello:
    """From bytes."""
    data, _ = unpack(message, "hello")
    software = data.get("software")
    if not isinstance(software, dict) or len(software) > _MAX_TEXT:
        raise LinkError("software must be names and versions")
    role = text_of(data, "role")
    require(role in ("worker", "evaluator", "lock_step"), f"unknown role {role!r}")
    return Hello(
        worker=text_of(data, "worker"),
        index=count_of(data, "index"),
        role=role,
        fingerprint=text_of(data, "fingerprint"),
        software={str(name)[:_MAX_TEXT]: str(version)[:_MAX_TEXT] for name, version in software.items()},
    )


def encode_hello_reply(reply: HelloReply) -> bytes:
    """To bytes."""
    return pack("hello_reply", reply._asdict())


def decode_hello_reply(message: bytes) -> HelloReply:
    """From bytes."""
    data, _ = unpack(message, "hello_reply")
    return HelloReply(count_of(data, "received"))


def encode_ping(ping: Ping) -> bytes:
    """To bytes."""
    arrays = {"round_trip_ms": np.array(ping.round_trip_ms, np.float64)}
    return pack("ping", {"dropped": ping.dropped, "hangs_for_ms": ping.hangs_for_ms}, arrays)


def decode_ping(message: bytes) -> Ping:
    """From bytes."""
    data, arrays = unpack(message, "ping")
    round_trip_ms = float(_take(arrays, "round_trip_ms", np.dtype("<f8"), ()))
    require(math.isnan(round_trip_ms) or 0.0 <= round_trip_ms <= 1e9, f"round trip of {round_trip_ms} ms")
    return Ping(round_trip_ms, count_of(data, "dropped"), count_of({"hangs_for_ms": 0} | data, "hangs_for_ms"))


def encode_acknowledgement(acknowledgement: Acknowledgement) -> bytes:
    """To bytes."""
    return _ACKNOWLEDGEMENT.pack(*acknowledgement)


def decode_acknowledgement(message: bytes) -> Acknowledgement:
    """From bytes."""
    require(len(message) == _ACKNOWLEDGEMENT.size, f"acknowledgement of {len(message)} bytes")
    received, durable = _ACKNOWLEDGEMENT.unpack(message)
    require(0 <= durable <= received, f"acknowledgement of {durable} stored of {received} received")
    return Acknowledgement(received, durable)


def encode_segment(segment: Segment, dropped: int = 0, compress: bool = False) -> bytes:
    """To bytes.

    Args:
        segment: What to send; ``seq`` is set.
        dropped: Segments that this worker had to drop so far.
        compress: Whether uint8 frames are compressed: pays off on a network, not on loopback.
    """
    arrays = {f"frames/{name}": frames for name, frames in segment.frames.items()}
    images = [name for name, frames in arrays.items() if frames.dtype == np.uint8] if compress else []
    for name in ("action", "reward", "terminated", "truncated", "is_first"):
        arrays[name] = getattr(segment, name)
    if segment.checksums is not None:
        arrays["checksums"] = segment.checksums
    if segment.states is not None:
        arrays["states"] = segment.states
    names, arrays["episodes"] = _episode_table(segment.episodes)
    data = {
        "worker": segment.worker,
        "stream": segment.stream,
        "seq": segment.seq,
        "weights_version": segment.weights_version,
        "episode_names": names,
        "dropped": dropped,
    }
    return pack("segment", data, arrays, images)


def decode_segment(message: bytes | bytearray, spec: ObservationSpec) -> ReceivedSegment:
    """From bytes; frames and actions must be those of ``spec``."""
    data, arrays = unpack(message, "segment")
    reward = arrays.get("reward")
    rows = len(reward) if reward is not None and reward.ndim else 0
    require(1 <= rows <= MAX_SEGMENT_ROWS, f"segment of {rows} rows, 1 to {MAX_SEGMENT_ROWS} expected")
    frames = {f.name: _take(arrays, f"frames/{f.name}", np.dtype(f.dtype), (rows, *f.frame_shape)) for f in spec.fields}
    are_finite = (np.isfinite(frame).all() for frame in frames.values() if frame.dtype.kind == "f")
    require(all(are_finite), "frames must be finite")
    columns = {name: _take(arrays, name, np.dtype("?"), (rows,)) for name in ("terminated", "truncated", "is_first")}
    _check_episodes(**columns)
    checksums = _take(arrays, "checksums", np.dtype("<u4"), (rows,)) if "checksums" in arrays else None
    states = _take_states(arrays, rows) if "states" in arrays else None
    action = _take(arrays, "action", np.dtype("<f4"), (rows, spec.action_size))
    reward = _take(arrays, "reward", np.dtype("<f4"), (rows,))
    require(bool(np.isfinite(action).all() and np.isfinite(reward).all()), "actions and rewards must be finite")
    episodes = _episodes(_pop(arrays, "episodes"), data.get("episode_names"), rows)
    require(not arrays, f"unexpected arrays {_shorten(sorted(arrays))}")
    segment = Segment(
        worker=text_of(data, "worker"),
        stream=count_of(data, "stream"),
        seq=count_of(data, "seq"),
        frames=frames,
        action=action,
        reward=reward,
        weights_version=count_of(data, "weights_version"),
        episodes=episodes,
        checksums=checksums,
        states=states,
        **columns,
    )
    require(segment.seq >= 1, "a segment must have a sequence number >= 1")
    return ReceivedSegment(segment, count_of(data, "dropped"))


def _take_states(arrays: dict[str, np.ndarray], rows: int) -> np.ndarray:
    """What a recurrent policy remembered; how much is the network's own affair."""
    shape = arrays["states"].shape
    require(len(shape) == 2 and 1 <= shape[1] <= MAX_STATE_SIZE, f"states of shape {shape}")
    states = _take(arrays, "states", np.dtype("<f4"), (rows, shape[1]))
    require(bool(np.isfinite(states).all()), "states must be finite")
    return states


def _check_episodes(terminated: np.ndarray, truncated: np.ndarray, is_first: np.ndarray) -> None:
    """Refuses rows that cannot follow one another: no learner may stumble over them later."""
    has_ended = terminated | truncated
    require(not (has_ended[:-1] & ~is_first[1:]).any(), "a row after the end of an episode must be a first row")
    require(not (has_ended & is_first).any(), "a first row cannot end its episode")


def encode_weights(arrays: Mapping[str, np.ndarray], version: int) -> bytes:
    """To bytes; what the learner changes afterwards does not matter."""
    return pack("weights", {"version": version}, arrays)


def decode_weights(message: bytes | bytearray) -> Weights:
    """From bytes; the arrays are writable, and views on ``message`` if that is."""
    data, arrays = unpack(message if isinstance(message, bytearray) else bytearray(message), "weights")
    return Weights(arrays, count_of(data, "version"))


def encode_evaluation_request(request: EvaluationRequest) -> bytes:
    """To bytes."""
    data = {
        "id": request.id,
        "version": request.weights.version,
        "seeds": [int(seed) for seed in request.seeds],
        "clip": request.clip,
    }
    return pack("evaluation_request", data, request.weights.arrays)


def decode_evaluation_request(message: bytes | bytearray) -> EvaluationRequest:
    """From bytes."""
    data, arrays = unpack(bytearray(message), "evaluation_request")
    seeds = data.get("seeds")
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
        raise LinkError("seeds must be integers")
    clip = _truth_of(data, "clip")
    weights = Weights(arrays, count_of(data, "version"))
    return EvaluationRequest(count_of(data, "id"), weights, tuple(seeds), clip)


def encode_evaluation_report(report: EvaluationReport, request_id: int) -> bytes:
    """To bytes."""
    return pack("evaluation_report", {"id": request_id, "report": report.to_json()}, report.arrays())


def decode_evaluation_report(message: bytes | bytearray) -> tuple[EvaluationReport, int]:
    """From bytes: the report and the request that it answers."""
    data, arrays = unpack(message, "evaluation_report")
    stored = data.get("report")
    if not isinstance(stored, dict):
        raise LinkError("malformed evaluation report: no data")
    try:
        report = EvaluationReport.from_parts(stored, arrays)
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise LinkError(f"malformed evaluation report: {error}") from error
    return report, count_of(data, "id")


def encode_lock_step_command(command: LockStepCommand) -> bytes:
    """To bytes."""
    arrays = {} if command.actions is None else {"actions": np.asarray(command.actions, np.float32)}
    return pack("lock_step_command", {"id": command.id}, arrays)


def decode_lock_step_command(message: bytes) -> LockStepCommand:
    """From bytes; the actions are writable."""
    data, arrays = unpack(bytearray(message), "lock_step_command")
    actions = arrays.get("actions")
    fits = actions is None or (actions.dtype == np.float32 and actions.ndim == 2)
    require(fits, "actions must be float32 of shape (k, A)")
    return LockStepCommand(count_of(data, "id"), actions)


def encode_lock_step_reply(reply: LockStepReply) -> bytes:
    """To bytes."""
    names, table = _episode_table(reply.episodes)
    data = {
        "id": reply.id,
        "is_reset": reply.is_reset,
        "episode_names": names,
        "episode_indices": list(reply.episode_indices),
    }
    arrays = {f"observation/{name}": array for name, array in reply.observation.items()}
    for name in ("reward", "terminated", "truncated"):
        arrays[name] = getattr(reply, name)
    return pack("lock_step_reply", data, arrays | {"episodes": table})


def decode_lock_step_reply(message: bytes) -> LockStepReply:
    """From bytes."""
    data, arrays = unpack(message, "lock_step_reply")
    reward = arrays.get("reward")
    count = len(reward) if reward is not None and reward.ndim else 0
    reward = _take(arrays, "reward", np.dtype("<f4"), (count,))
    columns = {name: _take(arrays, name, np.dtype("?"), (count,)) for name in ("terminated", "truncated")}
    episodes = _episodes(_pop(arrays, "episodes"), data.get("episode_names"), count)
    indices = data.get("episode_indices")
    if not isinstance(indices, list) or len(indices) != len(episodes):
        raise LinkError("expected an index for each episode")
    require(all(type(i) is int and 0 <= i < count for i in indices), "indices of environments")
    observation = {}
    for name in list(arrays):
        array = _pop(arrays, name)
        require(name.startswith("observation/"), f"unexpected array {_shorten(name)}")
        require(array.ndim >= 1 and len(array) == count, f"array {_shorten(name)} of shape {array.shape}")
        observation[name.removeprefix("observation/")] = array
    return LockStepReply(
        id=count_of(data, "id"),
        is_reset=_truth_of(data, "is_reset"),
        observation=observation,
        reward=reward,
        episodes=episodes,
        episode_indices=tuple(indices),
        **columns,
    )


# --- checks -----------------------------------------------------------------------------------------------------------


def _episode_table(episodes: tuple[Mapping[str, float], ...]) -> tuple[list[str], np.ndarray]:
    """Statistics as a table, because JSON has no NaN."""
    names = list(episodes[0]) if episodes else []
    table = np.array([[episode[name] for name in names] for episode in episodes], np.float64)
    return names, table.reshape(len(episodes), len(names))


def _episodes(table: np.ndarray, names: object, most: int) -> tuple[dict[str, float], ...]:
    if not isinstance(names, list) or len(names) > _MAX_TEXT:
        raise LinkError("names of the statistics")
    require(all(isinstance(name, str) and len(name) <= _MAX_TEXT for name in names), "names of the statistics")
    fits = table.dtype == np.float64 and table.ndim == 2 and table.shape[1] == len(names) and len(table) <= most
    require(fits, f"statistics of shape {table.shape} for {len(names)} names")
    require(not np.isinf(table).any(), "statistics must not be infinite")
    return tuple(dict(zip(names, row, strict=True)) for row in table.tolist())


def _take(arrays: dict[str, np.ndarray], name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    array = _pop(arrays, name)
    fits = array.dtype == dtype and array.shape == shape
    require(fits, f"array {name!r} must be {dtype} of shape {shape}, got {array.dtype} {array.shape}")
    return array


def _pop(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    require(name in arrays, f"array {_shorten(name)} is missing")
    return arrays.pop(name)


def text_of(data: Mapping[str, object], key: str, longest: int = _MAX_TEXT) -> str:
    """A text of a message's plain data."""
    value = data.get(key)
    fits = isinstance(value, str) and len(value) <= longest
    require(fits, f"{key} must be a text of at most {longest} characters, got {_shorten(value)}")
    return str(value)


def count_of(data: Mapping[str, object], key: str) -> int:
    """A number of a message's plain data."""
    value = data.get(key)
    if not is_count(value):
        raise LinkError(f"{key} must be an integer from 0 to {MAX_COUNT}, got {_shorten(value)}")
    return value


def _truth_of(data: Mapping[str, object], key: str) -> bool:
    value = data.get(key)
    if not isinstance(value, bool):
        raise LinkError(f"{key} must be true or false")
    return value


def is_count(value: object) -> TypeGuard[int]:
    """Whether this is an integer from 0 to ``MAX_COUNT``."""
    return type(value) is int and 0 <= value <= MAX_COUNT


def _json_object(text: object, what: str) -> dict[str, object]:
    require(isinstance(text, str | bytes), f"{what} is missing")
    try:
        value = json.loads(text)  # type: ignore[arg-type]
    except (ValueError, RecursionError) as error:
        raise LinkError(f"{what} is not JSON: {_shorten(error)}") from error
    require(isinstance(value, dict), f"{what} must be a JSON object")
    return value


def _shorten(value: object) -> str:
    """The value for an error message, whatever the other side made of it."""
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 256 else "a huge number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def require(condition: bool, message: str) -> None:
    """Raises ``LinkError`` unless this holds."""
    if not condition:
        raise LinkError(message)
