"""The queue in front of the learner: order, bounds in segments and bytes, and room for workers that send little."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np

from tasks.acting.rollout import Rollout
from tasks.experience.samples import Segment
from tasks.remote.station.segment_queue import SegmentQueue, size_of
from tests.tasks.remote.fakes import CountingEnv, RandomPolicy

TEMPLATE = Rollout(CountingEnv(), RandomPolicy(), "w", 0, 0).run(4)


def segment(worker: str, seq: int) -> Segment:
    return replace(TEMPLATE, worker=worker, seq=seq)


def make(max_segments: int, max_bytes: int = 10**9) -> tuple[threading.Lock, SegmentQueue[Segment]]:
    lock = threading.Lock()
    return lock, SegmentQueue(lock, max_segments, max_bytes)


def put(queue: SegmentQueue[Segment], worker: str, seq: int) -> None:
    new = segment(worker, seq)
    queue.put(new, worker, size_of(new))


def fits(queue: SegmentQueue[Segment], worker: str, num_senders: int = 1) -> bool:
    asked = iter([True, False])  # looks once
    return queue.wait_for_room(worker, lambda: num_senders, lambda: next(asked))


def fill(queue: SegmentQueue[Segment], worker: str, num_senders: int) -> int:
    count = 0
    while fits(queue, worker, num_senders):
        count += 1
        put(queue, worker, count)
    return count


def test_first_in_first_out_all_or_so_many() -> None:
    lock, queue = make(10)
    with lock:
        for seq in range(1, 6):
            put(queue, "a" if seq % 2 else "b", seq)
        assert [s.seq for s in queue.take(2)] == [1, 2]
        assert [s.seq for s in queue.take(None)] == [3, 4, 5]
        assert queue.take(None) == []


def test_it_is_full_at_so_many_segments_or_bytes_and_counts_both_down_again() -> None:
    size = TEMPLATE.action.nbytes + sum(np.asarray(frames).nbytes for frames in TEMPLATE.frames.values())
    for max_segments, max_bytes in ((5, 10**9), (1000, 5 * size)):
        lock, queue = make(max_segments, max_bytes)
        with lock:
            assert fill(queue, "a", 1) == 5
            assert (len(queue), queue.num_bytes) == (5, 5 * size)
            queue.take(1)
            assert (len(queue), queue.num_bytes) == (4, 4 * size)
            assert fits(queue, "a")
            queue.take(None)
            assert (len(queue), queue.num_bytes) == (0, 0)


def test_a_segment_larger_than_all_the_room_is_taken_when_nothing_else_waits() -> None:
    lock, queue = make(10, max_bytes=1)
    with lock:
        assert fill(queue, "a", 1) == 1


def test_a_worker_with_a_backlog_leaves_room_to_the_others() -> None:
    lock, queue = make(12)
    with lock:
        assert fill(queue, "greedy", num_senders=4) == 3
        assert [fill(queue, name, num_senders=4) for name in "abc"] == [3, 3, 3]
        queue.take(None)
        assert fill(queue, "alone", num_senders=1) == 12


def test_a_wait_for_room_ends_when_there_is_some() -> None:
    lock, queue = make(1)
    with lock:
        put(queue, "a", 1)
    results = []

    def wait() -> None:
        with lock:
            results.append(queue.wait_for_room("a", lambda: 1, lambda: True))

    thread = threading.Thread(target=wait)
    thread.start()
    with lock:
        assert [s.seq for s in queue.take(None)] == [1]
    thread.join(20)
    assert results == [True]
