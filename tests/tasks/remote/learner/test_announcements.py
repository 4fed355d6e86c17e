"""What a learner tells a relay, in which order, and what it does not tell twice."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import islice

import pytest

from tasks.remote.learner.announcements import Announcements, Kind
from tasks.remote.wire.parts import BETWEEN, PART_BYTES, joined
from tasks.remote.wire.relay_messages import Marks, decode_marks

LARGE = os.urandom(4 * PART_BYTES)


@pytest.fixture
def told() -> Announcements:
    """With a connection on which the relay has answered."""
    made = Announcements()
    made.begin()
    made.answered()
    return made


def messages(told: Announcements, count: int) -> list[bytes | bytearray]:
    """The first that come out at the relay, but for signs of life."""
    stream = (message for message in joined(told.stream(threading.Event())) if not is_sign_of_life(message))
    return list(islice(stream, count))


def is_sign_of_life(message: bytes | bytearray) -> bool:
    return message.startswith(b"TMLK") and decode_marks(message) == Marks({}, {})


def parts_of(stream: Iterator[bytes]) -> Iterator[bytes]:
    return (message for message in stream if not is_sign_of_life(message))


def test_marks_do_not_wait_for_a_large_message(told: Announcements) -> None:
    told.put(Kind.weights, LARGE)
    stream = parts_of(told.stream(threading.Event()))
    sent = [next(stream)]
    told.mark({"alice": 7})
    told.refuse("bob", 2, "why")
    sent += islice(stream, 2)
    assert sent[1] == BETWEEN
    assert decode_marks(sent[2]) == Marks({"alice": 7}, {"bob": (2, "why")})
    sent += islice(stream, 3)
    assert list(joined(sent)) == [sent[2], LARGE]


def test_only_the_newest_of_a_kind_is_told(told: Announcements) -> None:
    for version in range(5):
        told.put(Kind.weights, b"weights %d" % version)
        told.put(Kind.request, b"request %d" % version)
    assert messages(told, 2) == [b"weights 4", b"request 4"]


def test_what_was_published_is_told_again_on_the_next_connection_and_what_was_withdrawn_is_not(
    told: Announcements,
) -> None:
    told.put(Kind.weights, b"weights")
    told.put(Kind.request, b"request")
    assert len(messages(told, 2)) == 2
    told.withdraw(Kind.request)
    told.mark({"alice": 1})
    told.begin()
    told.mark({"alice": 2})
    (marks,) = messages(told, 1)
    assert decode_marks(marks) == Marks({"alice": 2}, {})
    told.answered()
    assert messages(told, 1) == [b"weights"]


def test_a_connection_that_is_over_takes_nothing_from_the_next_one(told: Announcements) -> None:
    is_over = threading.Event()
    stream = told.stream(is_over)
    told.mark({"alice": 1})
    next(stream)
    is_over.set()
    told.begin()
    told.mark({"alice": 2})
    assert list(stream) == []
    assert decode_marks(next(told.stream(threading.Event()))).durable == {"alice": 2}


def test_the_last_marks_are_told_before_the_end(told: Announcements) -> None:
    told.mark({"alice": 3})
    told.close()
    (marks,) = told.stream(threading.Event())
    assert decode_marks(marks).durable == {"alice": 3}
