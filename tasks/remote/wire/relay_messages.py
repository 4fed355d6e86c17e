"""What learner and relay say to each other over ``Pull``, to bytes and back.

It is one stream each way. The learner begins with a ``PullRequest`` and goes on with ``Marks``, and with weights and
evaluation requests in the form of ``link``; the relay answers with ``Item``, each followed by one message with its
content: a segment as the worker sent it, or the report of an evaluation; a status has its content inside.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from enum import Enum
from typing import Any, NamedTuple

from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.worker_status import WorkerStatus
from tasks.remote.wire import link
from tasks.remote.wire.link import MAX_COUNT, count_of, is_count, require, text_of

VERSION = 2
"""Of what they say; 1 published by a method of its own. Both sides say theirs in their first message."""
MAX_MARKS = 8_000
"""Workers about which a message speaks at most, so that it stays below the cap of a header."""
MAX_ROWS = 1_000
"""Workers in a status at most."""

_MAX_NAME = 200
_MAX_REASON = 500
_MAX_FIELDS = 256
_MAX_SPEC = 200_000
_LARGEST_FIELD = link.MAX_MESSAGE_BYTES


class PullRequest(NamedTuple):
    """The learner's first message."""

    session: str
    """Names one process of the learner: it takes over from its own dead connections, and from nobody else's."""
    fingerprint: str
    """What workers must agree on."""
    spec: ObservationSpec
    """What workers must send."""
    received: Mapping[str, int]
    """Sequence number up to which the learner has the segments of each worker; what is missing here comes again."""
    durable: Mapping[str, int]
    """The same for what is in the stored replay."""


class Marks(NamedTuple):
    """What the learner says of the segments that it got; also sign of life."""

    durable: Mapping[str, int]
    """What has changed: sequence number up to which a worker's segments are stored."""
    refused: Mapping[str, tuple[int, str]]
    """Workers whose segments cannot be used: ``Item.epoch`` of the segment, and why."""


class Content(Enum):
    """What an item is."""

    segment = "segment"
    report = "report"
    status = "status"


class Item(NamedTuple):
    """What the relay sends; a segment or a report follows in a message of its own."""

    content: Content
    worker: str = ""
    seq: int = 0
    epoch: int = 0
    """Grows when the relay begins anew with a worker, so that refusals of before do not count any more."""
    status: RelayStatus | None = None


class RelayStatus(NamedTuple):
    """How the relay is."""

    workers: tuple[WorkerStatus, ...]
    waiting_segments: int
    """Segments in its memory, on their way to the learner."""
    waiting_bytes: int
    refused: int
    """Calls that were refused so far."""


def encode_pull_request(request: PullRequest) -> bytes:
    """To bytes; of many workers, those that were seen last."""
    data = {
        "version": VERSION,
        "session": request.session,
        "fingerprint": request.fingerprint,
        "spec": encode_spec(request.spec),
        "received": _newest(request.received),
        "durable": _newest(request.durable),
    }
    return link.pack("pull_request", data)


def decode_pull_request(message: bytes) -> PullRequest:
    """From bytes."""
    data, arrays = link.unpack(message, "pull_request")
    require(not arrays, "a pull request has no arrays")
    _require_version(data, "the learner", "this relay")
    return PullRequest(
        text_of(data, "session", _MAX_NAME),
        text_of(data, "fingerprint", 4 * _MAX_NAME),
        decode_spec(text_of(data, "spec", _MAX_SPEC)),
        _counts(data, "received"),
        _counts(data, "durable"),
    )


def encode_marks(marks: Marks) -> bytes:
    """To bytes."""
    refused = {worker: [epoch, reason[:_MAX_REASON]] for worker, (epoch, reason) in marks.refused.items()}
    return link.pack("marks", {"durable": dict(marks.durable), "refused": refused})


def decode_marks(message: bytes | bytearray) -> Marks:
    """From bytes."""
    data, arrays = link.unpack(message, "marks")
    require(not arrays, "marks have no arrays")
    refused = data.get("refused")
    if not isinstance(refused, dict) or len(refused) > MAX_MARKS:
        raise link.LinkError("refused must be workers and reasons")
    for entry in refused.values():
        is_pair = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)
        require(is_pair and is_count(entry[0]), "refused must be workers and reasons")
    reasons = {worker: (epoch, reason[:_MAX_REASON]) for worker, (epoch, reason) in refused.items()}
    return Marks(_counts(data, "durable"), reasons)


def encode_item(item: Item) -> bytes:
    """To bytes."""
    data: dict[str, object] = {"content": item.content.value}
    if item.content is Content.segment:
        data |= {"worker": item.worker, "seq": item.seq, "epoch": item.epoch}
    if item.status is not None:
        rows = [_status_row(worker) for worker in item.status.workers[:MAX_ROWS]]
        data |= item.status._asdict() | {"workers": rows, "version": VERSION}
    return link.pack("relay_item", data)


def decode_item(message: bytes | bytearray) -> Item:
    """From bytes."""
    data, arrays = link.unpack(message, "relay_item")
    require(not arrays, "an item has no arrays")
    try:
        content = Content(data.get("content"))
    except ValueError as error:
        raise link.LinkError("an item of unknown content") from error
    if content is Content.segment:
        return Item(content, text_of(data, "worker", _MAX_NAME), count_of(data, "seq"), count_of(data, "epoch"))
    if content is Content.report:
        return Item(content)
    _require_version(data, "the relay", "this learner")
    rows = data.get("workers")
    if not isinstance(rows, list) or len(rows) > MAX_ROWS:
        raise link.LinkError(f"a status speaks of at most {MAX_ROWS} workers")
    counts = [count_of(data, name) for name in ("waiting_segments", "waiting_bytes", "refused")]
    return Item(content, status=RelayStatus(tuple(_worker_status(row) for row in rows), *counts))


def _require_version(data: Mapping[str, object], whose: str, ours: str) -> None:
    """Refuses the other side when it is of another version; the first did not say its own."""
    version = count_of({"version": 1} | dict(data), "version")
    require(
        version == VERSION,
        f"{whose} speaks version {version} of the protocol between learner and relay, {ours} version {VERSION}; "
        "install the same version of this program on both",
    )


def encode_spec(spec: ObservationSpec) -> str:
    """To text. JSON as Python writes it: bounds may be infinite."""
    return json.dumps(spec.to_json())


def decode_spec(text: str) -> ObservationSpec:
    """From text.

    Raises:
        LinkError: If it is not the specification of an observation.
    """
    try:
        spec = ObservationSpec.from_json(json.loads(text))
        _check_spec(spec)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise link.LinkError(f"not an observation spec: {str(error)[:_MAX_REASON]}") from error
    return spec


def _check_spec(spec: ObservationSpec) -> None:
    require(1 <= len(spec.fields) <= _MAX_FIELDS, "number of fields")
    require(is_count(spec.action_size) and 1 <= spec.action_size <= 4096, "action_size")
    require(is_count(spec.act_buf_len) and spec.act_buf_len <= 4096, "act_buf_len")
    for field in spec.fields:
        _check_field(field)


def _check_field(field: Field) -> None:
    require(isinstance(field.name, str) and 1 <= len(field.name) <= _MAX_NAME, "name of a field")
    require(field.dtype in ("float32", "uint8"), "dtype of a field")
    require(len(field.shape) <= 8 and all(is_count(n) and n >= 1 for n in field.shape), "shape of a field")
    require(math.prod(field.shape) <= _LARGEST_FIELD, "size of a field")
    require(is_count(field.history) and (not field.history or len(field.shape) >= 1), "history of a field")


def _status_row(worker: WorkerStatus) -> list[object]:
    """Its values in order; JSON has no NaN."""
    return [None if isinstance(value, float) and math.isnan(value) else value for value in asdict(worker).values()]


def _worker_status(row: object) -> WorkerStatus:
    kinds = [_STATUS_KINDS[field.type] for field in fields(WorkerStatus)]  # type: ignore[index]
    if not isinstance(row, list) or len(row) != len(kinds):
        raise link.LinkError("a malformed row of a status")
    return WorkerStatus(*(convert(value) for convert, value in zip(kinds, row, strict=True)))


def _as_text(value: object) -> str:
    require(isinstance(value, str) and len(value) <= _MAX_NAME, "a malformed text in a status")
    return str(value)


def _as_number(value: object) -> float:
    require(value is None or (type(value) in (int, float) and abs(value) <= MAX_COUNT), "a malformed number")  # type: ignore[arg-type, operator]
    return math.nan if value is None else float(value)  # type: ignore[arg-type]


def _as_count(value: object) -> int:
    require(is_count(value), "a malformed count in a status")
    return int(value)  # type: ignore[call-overload, no-any-return]


def _as_truth(value: object) -> bool:
    require(isinstance(value, bool), "a malformed truth value in a status")
    return bool(value)


_STATUS_KINDS: dict[str, Callable[[object], Any]] = {
    "str": _as_text,
    "float": _as_number,
    "int": _as_count,
    "bool": _as_truth,
}


def _newest(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(list(counts.items())[-MAX_MARKS:])


def _counts(data: Mapping[str, object], key: str) -> dict[str, int]:
    value = data.get(key)
    if not isinstance(value, dict) or len(value) > MAX_MARKS:
        raise link.LinkError(f"{key} must be at most {MAX_MARKS} workers and numbers")
    require(all(len(name) <= _MAX_NAME and is_count(count) for name, count in value.items()), f"malformed {key}")
    return value
