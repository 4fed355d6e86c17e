"""Large messages in parts: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import contextlib
import os
import random
import struct
from collections.abc import Iterator

import pytest

from tasks.remote.wire.link import LinkError
from tasks.remote.wire.parts import BETWEEN, PART_BYTES, joined, split

SIZES = (0, 1, PART_BYTES, 2 * PART_BYTES, 2 * PART_BYTES + 1, 3 * PART_BYTES, 3 * PART_BYTES - 1, 7 * PART_BYTES + 11)


def first(size: int, length: int = PART_BYTES) -> bytes:
    return struct.pack("<4sQ", b"TMLP", size) + bytes(length)


def test_messages_of_all_sizes_come_out_as_they_went_in() -> None:
    messages = [os.urandom(size) for size in SIZES]
    sent = [part for message in messages for part in split(message)]
    assert list(joined(sent)) == messages
    assert max(map(len, sent)) <= 2 * PART_BYTES


def test_a_small_message_goes_as_it_is_and_a_large_one_comes_out_writable() -> None:
    small, large = bytes(2 * PART_BYTES), bytes(2 * PART_BYTES + 1)
    assert [part is small for part in split(small)] == [True]
    (message,) = joined(split(large))
    assert isinstance(message, bytearray)


def test_each_message_comes_out_as_soon_as_its_last_part_is_there() -> None:
    taken = 0

    def stream() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(2):
            for part in split(bytes(3 * PART_BYTES)):
                taken += 1
                yield part

    messages = joined(stream())
    next(messages)
    assert taken == 3
    next(messages)
    assert taken == 6


def test_whole_messages_between_the_parts_of_another_come_out_first() -> None:
    large = os.urandom(3 * PART_BYTES)
    one, two, three = split(large)
    assert list(joined([one, BETWEEN, b"a", BETWEEN, b"b", two, BETWEEN, b"c", three])) == [b"a", b"b", b"c", large]
    assert list(joined([one, BETWEEN, b"a", two])) == [b"a"]
    assert list(joined([BETWEEN, b"a"])) == [BETWEEN, b"a"]


def test_a_message_whose_stream_ends_is_left_out() -> None:
    message = os.urandom(3 * PART_BYTES)
    for count in range(3):
        assert list(joined([b"before", *list(split(message))[:count]])) == [b"before"]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ([b"TMLP"], f"first part of 4 bytes, expected {PART_BYTES + 12}"),
        ([first(3 * PART_BYTES, PART_BYTES + 1)], f"first part of {PART_BYTES + 13} bytes"),
        ([first(3 * PART_BYTES, 0)], "first part of 12 bytes"),
        ([first(2 * PART_BYTES)], f"message in parts of {2 * PART_BYTES} bytes, expected {2 * PART_BYTES + 1} to"),
        ([first(0)], "message in parts of 0 bytes"),
        ([first(2**63)], f"message in parts of {2**63} bytes"),
        ([first(4 * PART_BYTES + 1)], f"to {4 * PART_BYTES}"),
        ([first(3 * PART_BYTES), b"short"], f"part of 5 bytes at {PART_BYTES}, expected {PART_BYTES}"),
        (
            [first(3 * PART_BYTES), bytes(PART_BYTES), bytes(PART_BYTES + 1)],
            f"at {2 * PART_BYTES}, expected {PART_BYTES}",
        ),
        ([first(3 * PART_BYTES - 1), *[bytes(PART_BYTES)] * 2], f"expected {PART_BYTES - 1}"),
        ([first(3 * PART_BYTES), first(3 * PART_BYTES)], f"part of {PART_BYTES + 12} bytes"),
    ],
)
def test_what_is_no_message_in_parts_is_refused(sent: list[bytes], said: str) -> None:
    with pytest.raises(LinkError) as caught:
        list(joined(sent, 4 * PART_BYTES))
    assert said in str(caught.value)


def test_parts_that_were_dropped_repeated_cut_or_grown_never_make_another_message() -> None:
    generator = random.Random(1)
    for _ in range(300):
        message = generator.randbytes(3 * PART_BYTES + 5)
        sent = list(split(message))
        index = generator.randrange(len(sent))
        change = generator.choice(("drop", "repeat", "cut", "grow"))
        if change == "drop":
            del sent[index]
        elif change == "repeat":
            sent.insert(index, sent[index])
        else:
            sent[index] = sent[index][:-1] if change == "cut" else sent[index] + b"x"
        got: list[bytes | bytearray] = []
        with contextlib.suppress(LinkError):
            got.extend(joined(sent))
        # Without the first, parts are messages of their own: not of the link, whose decoding refuses them.
        assert all(found == message or found in sent for found in got)
