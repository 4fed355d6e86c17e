"""What a worker's link keeps in memory: numbered, until it is stored, and what goes when there is no room."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from algos.replay.memory import ReplayMemory
from tasks.acting.rollout import Rollout
from tasks.experience.samples import Segment
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire import link
from tests.tasks.remote.fakes import CountingEnv, RandomPolicy

SPEC = CountingEnv().observation_spec


@pytest.fixture
def rollout() -> Rollout:
    return Rollout(CountingEnv(length=9), RandomPolicy(), "w", 0, 0)  # episodes of ten rows


@pytest.fixture
def uplink() -> Iterator[Uplink]:
    """With room for three segments, to a learner that is not there."""
    stop = threading.Event()
    hello = link.Hello("w", 0, "worker", "task")
    with closing(Uplink("127.0.0.1:1", "token", hello, stop, window=10, buffer_segments=3)) as made:
        yield made
        stop.set()


def sent(uplink: Uplink, seq: int) -> Segment:
    found = uplink.after(seq)
    assert found is not None
    segment = link.decode_segment(found[1], SPEC).segment
    assert segment.seq == found[0]
    return segment


def counts(segment: Segment) -> list[float]:
    return segment.frames["count"][:, 0].tolist()


def test_a_full_buffer_drops_the_oldest_and_leaves_their_numbers_out(uplink: Uplink, rollout: Rollout) -> None:
    for _ in range(5):
        uplink.send(rollout.run(4))
    segments = [sent(uplink, seq) for seq in (0, 3, 4)]
    assert [segment.seq for segment in segments] == [3, 4, 5]
    assert [counts(segment) for segment in segments] == [[8, 9, 0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]
    assert (uplink.dropped, uplink.last_seq) == (2, 5)


def test_nothing_is_rebuilt_over_what_was_dropped(uplink: Uplink, rollout: Rollout) -> None:
    for _ in range(5):
        uplink.send(rollout.run(4))
    memory = ReplayMemory(SPEC, 100, n_step=2, gamma=0.9, seed=0)
    for seq in (0, 3, 4):
        memory.append(sent(uplink, seq))
    seen = memory.sample(200).observation["images"][:, :, 0, 0].tolist()
    # Row 8 has lost what came before it, so a history of four begins with the episode behind it.
    assert {tuple(history) for history in seen} <= {
        (0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 6), (4, 5, 6, 7),
        (5, 6, 7, 8),
    }  # fmt: skip


def test_what_the_learner_has_received_is_not_lost_when_it_goes(uplink: Uplink, rollout: Rollout) -> None:
    for received in range(5):
        uplink.acknowledge(received, 0)
        uplink.send(rollout.run(4))
    assert uplink.dropped == 0
    segment = sent(uplink, 4)
    assert (segment.seq, len(segment)) == (5, 4)


def test_only_what_is_stored_is_forgotten(uplink: Uplink, rollout: Rollout) -> None:
    for _ in range(3):
        uplink.send(rollout.run(4))
    assert not uplink.acknowledge(3, 0)
    assert uplink.acknowledge(3, 2)
    assert (uplink.bytes_after(0) > 0, uplink.bytes_after(3)) == (True, 0)
    uplink.resume(1)  # the learner lost what it had not stored
    assert sent(uplink, 1).seq == 3
