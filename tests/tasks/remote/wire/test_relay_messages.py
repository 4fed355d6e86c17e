"""What learner and relay tell each other survives the way to bytes and back; bad bytes make only LinkErrors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks import registry
from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.worker_status import WorkerStatus
from tasks.remote.wire import link, relay_messages
from tasks.remote.wire.relay_messages import Content, Item, Marks, PullRequest, RelayStatus
from tests.tasks.remote.raw_worker import SPEC
from tests.tasks.remote.wire.test_link import _damage

pytestmark = pytest.mark.timeout(120)

WORKER = WorkerStatus(
    "alice.00000001", "worker", "ipv4:10.0.0.1:5", 19.5, 10, 1, 2, 3, 4096, math.nan, 7, math.nan, True
)
REQUEST = PullRequest("0123", "task A", SPEC, {"a": 5, "b.00000001": 0}, {"a": 3})
MARKS = Marks({"a": 5}, {"b": (2, "no")})
STATUS = Item(Content.status, status=RelayStatus((WORKER, replace(WORKER, connected=False)), 4, 5, 6))

MESSAGES: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "pull request": (relay_messages.encode_pull_request(REQUEST), relay_messages.decode_pull_request),
    "marks": (relay_messages.encode_marks(MARKS), relay_messages.decode_marks),
    "segment": (
        relay_messages.encode_item(Item(Content.segment, "alice.00000001", 7, 2)),
        relay_messages.decode_item,
    ),
    "report": (relay_messages.encode_item(Item(Content.report)), relay_messages.decode_item),
    "status": (relay_messages.encode_item(STATUS), relay_messages.decode_item),
}


def test_messages_survive() -> None:
    assert relay_messages.decode_pull_request(relay_messages.encode_pull_request(REQUEST)) == REQUEST
    assert relay_messages.decode_marks(relay_messages.encode_marks(MARKS)) == MARKS
    for item in (Item(Content.segment, "alice.00000001", 7, 2), Item(Content.report)):
        assert relay_messages.decode_item(relay_messages.encode_item(item)) == item


def test_a_status_survives_with_what_is_not_known() -> None:
    status = relay_messages.decode_item(relay_messages.encode_item(STATUS)).status
    assert status is not None
    assert status[1:] == (4, 5, 6)
    assert [worker.connected for worker in status.workers] == [True, False]
    row = status.workers[0]
    assert math.isnan(row.round_trip_ms)
    assert math.isnan(row.weights_age_s)
    assert replace(row, round_trip_ms=0.0, weights_age_s=0.0) == replace(WORKER, round_trip_ms=0.0, weights_age_s=0.0)


@pytest.mark.parametrize("name", ["TM20Full", "TM20Lidar", "TM20LidarProgress", "TM20Track"])
def test_the_specs_of_the_tasks_survive(name: str) -> None:
    spec = registry.observation_spec(name, registry.default_config(name))
    again = relay_messages.decode_spec(relay_messages.encode_spec(spec))
    assert again == spec
    assert again.fingerprint() == spec.fingerprint()


def test_of_very_many_workers_the_newest_are_told_and_the_message_stays_small() -> None:
    numbers = {f"worker-{number:06d}.{number:08x}": number for number in range(20_000)}
    message = relay_messages.encode_pull_request(PullRequest("s", "f", SPEC, numbers, numbers))
    decoded = relay_messages.decode_pull_request(message)
    assert list(decoded.received.items()) == list(numbers.items())[-relay_messages.MAX_MARKS :]
    many = RelayStatus((replace(WORKER, name="w" * 64),) * 5000, 0, 0, 0)
    status = relay_messages.decode_item(relay_messages.encode_item(Item(Content.status, status=many))).status
    assert status is not None
    assert len(status.workers) == relay_messages.MAX_ROWS


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "object"},
        {"shape": (2**20, 2**20)},
        {"shape": (-1,)},
        {"shape": (0,)},
        {"shape": (True,)},
        {"shape": ()},
        {"name": ""},
        {"name": "n" * 1000},
        {"history": -4},
    ],
)
def test_a_spec_that_cannot_be_one_is_refused(change: dict[str, Any]) -> None:
    field = replace(Field("images", (4, 8, 8), "uint8", 0, 255, history=4), **change)
    with pytest.raises(link.LinkError, match="not an observation spec"):
        relay_messages.decode_spec(relay_messages.encode_spec(ObservationSpec(fields=(field,))))


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"fields": 3}', '{"fields": [], "action_size": 3}'])
def test_a_text_that_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(link.LinkError, match="not an observation spec"):
        relay_messages.decode_spec(text)


@pytest.mark.parametrize(
    ("decode", "data", "match"),
    [
        (relay_messages.decode_marks, {"durable": {"a": -1}, "refused": {}}, "malformed durable"),
        (relay_messages.decode_marks, {"durable": {"a": True}, "refused": {}}, "malformed durable"),
        (relay_messages.decode_marks, {"durable": [], "refused": {}}, "durable must be"),
        (relay_messages.decode_marks, {"durable": {}, "refused": {"a": [1]}}, "refused must be"),
        (relay_messages.decode_marks, {"durable": {"w" * 300: 1}, "refused": {}}, "malformed durable"),
        (relay_messages.decode_marks, {"durable": {str(n): 1 for n in range(9000)}, "refused": {}}, "at most 8000"),
        (relay_messages.decode_item, {"content": "code"}, "unknown content"),
        (relay_messages.decode_item, {"content": "segment", "worker": "a", "seq": -1, "epoch": 0}, "seq must be"),
        (
            relay_messages.decode_item,
            {"content": "status", "version": 2, "workers": [[1]]},
            "malformed row|must be an integer",
        ),
    ],
)
def test_what_does_not_fit_is_refused(decode: Callable[[bytes], Any], data: dict[str, Any], match: str) -> None:
    kind = "marks" if decode is relay_messages.decode_marks else "relay_item"
    with pytest.raises(link.LinkError, match=match):
        decode(link.pack(kind, data))


@pytest.mark.parametrize("name", MESSAGES)
def test_random_damage_raises_nothing_but_link_errors(name: str) -> None:
    message, decode = MESSAGES[name]
    decode(message)
    rng = np.random.default_rng(0)
    for _ in range(1000):
        try:
            decode(_damage(message, rng))
        except link.LinkError:
            continue


def test_the_kind_of_a_message_is_read_without_its_contents() -> None:
    assert link.kind_of(link.encode_weights({"w": np.ones(3, np.float32)}, 1)) == "weights"
    for bad in (b"", b"\x80\x04pickled", MESSAGES["marks"][0][:30]):
        with pytest.raises(link.LinkError):
            link.kind_of(bad)
