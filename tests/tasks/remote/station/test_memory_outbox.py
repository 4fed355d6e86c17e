"""The buffer of a worker in real time: what it drops, and that what is left is still right."""

from __future__ import annotations

import pytest

from tasks.acting.rollout import Rollout
from tasks.experience.samples import Segment
from tasks.remote.station.memory_outbox import MemoryOutbox
from tasks.remote.wire import link
from tests.tasks.remote.fakes import CountingEnv, RandomPolicy

SPEC = CountingEnv().observation_spec


@pytest.fixture
def rollout() -> Rollout:
    return Rollout(CountingEnv(length=9), RandomPolicy(), "w", 0, 0)  # episodes of ten rows


def sent(outbox: MemoryOutbox, seq: int) -> Segment:
    found = outbox.after(seq)
    assert found is not None
    segment = link.decode_segment(found[1](), SPEC).segment
    assert segment.seq == found[0]
    return segment


def counts(segment: Segment) -> list[float]:
    return segment.frames["count"][:, 0].tolist()


def test_a_full_outbox_drops_the_oldest_up_to_the_next_start_of_an_episode(rollout: Rollout) -> None:
    outbox = MemoryOutbox(capacity=3)
    for _ in range(5):
        outbox.append(rollout.run(4))
    # Rows 0-3 were dropped, so 4-9 belong to an episode that lost its start; row 10 starts the next one.
    segments = [sent(outbox, seq) for seq in (0, 3, 4)]
    assert [counts(segment) for segment in segments] == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]
    assert [segment.seq for segment in segments] == [3, 4, 5]
    assert [len(segment.action) for segment in segments] == [2, 4, 4]
    assert outbox.dropped == 2


def test_a_cut_reaches_over_segments_that_are_still_to_come(rollout: Rollout) -> None:
    outbox = MemoryOutbox(capacity=1)
    kept = []
    for _ in range(6):
        outbox.append(rollout.run(4))
        kept.append(outbox.after(0) and sent(outbox, 0))
    # 0-3 is kept until 4-7 pushes it out and is cut itself; 8-11 loses 8 and 9; 12-15 pushes 10-11 out, and so on.
    last = kept[2]
    assert last is not None
    assert counts(last) == [0, 1]
    assert last.is_first[0]


def test_what_the_learner_has_received_is_forgotten_without_a_cut(rollout: Rollout) -> None:
    outbox = MemoryOutbox(capacity=2)
    for received in range(5):
        outbox.acknowledge(received, 0)
        outbox.append(rollout.run(4))
    assert outbox.dropped == 0
    assert len(outbox) == 2
    segment = sent(outbox, 4)
    assert (segment.seq, len(segment)) == (5, 4)


def test_only_what_is_stored_is_forgotten(rollout: Rollout) -> None:
    outbox = MemoryOutbox(capacity=9)
    for _ in range(3):
        outbox.append(rollout.run(4))
    assert not outbox.acknowledge(3, 0)
    assert outbox.acknowledge(3, 2)
    assert len(outbox) == 1
    outbox.resume(1)  # the learner lost what it had not stored
    assert sent(outbox, 1).seq == 3
