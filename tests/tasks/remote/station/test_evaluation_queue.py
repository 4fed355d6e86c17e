"""One worker at a time drives an evaluation, and it is not lost with the worker that had it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tasks.remote.station.evaluation_queue import Candidate, EvaluationQueue

pytestmark = pytest.mark.timeout(60)


def take(queue: EvaluationQueue, candidate: Candidate, timeout_s: float = 0.0) -> bytes | None:
    return queue.take(candidate, lambda: False, timeout_s)


@pytest.fixture
def queue() -> EvaluationQueue:
    return EvaluationQueue(patience_s=30.0)


def test_a_request_goes_to_one_worker_once(queue: EvaluationQueue) -> None:
    with queue.candidate("a.1", True) as a, queue.candidate("b.1", True) as b:
        queue.put(b"first")
        assert [take(queue, b), take(queue, a), take(queue, a), take(queue, b)] == [None, b"first", None, None]
        assert queue.assigned == "a.1"


def test_a_worker_of_this_machine_goes_before_one_from_elsewhere_that_was_there_first(queue: EvaluationQueue) -> None:
    with queue.candidate("remote.1", True) as remote, queue.candidate("worker-0.x.1", False) as local:
        queue.put(b"first")
        assert [take(queue, remote), take(queue, local)] == [None, b"first"]


def test_who_comes_later_takes_what_nobody_had(queue: EvaluationQueue) -> None:
    queue.put(b"old")
    queue.put(b"new")
    with queue.candidate("a.1", True) as a:
        assert take(queue, a) == b"new"


def test_the_next_request_is_given_anew_but_not_before_the_last_was_answered(queue: EvaluationQueue) -> None:
    with queue.candidate("remote.1", True) as remote:
        queue.put(b"first")
        assert take(queue, remote) == b"first"
        with queue.candidate("worker-0.x.1", False) as local:
            queue.put(b"second")  # remote may still be driving the first
            assert [take(queue, local), take(queue, remote)] == [None, b"second"]
            queue.clear()
            queue.put(b"third")
            assert [take(queue, remote), take(queue, local)] == [None, b"third"]


def test_an_answered_request_is_not_given_again(queue: EvaluationQueue) -> None:
    with queue.candidate("a.1", True) as a:
        queue.put(b"first")
        assert take(queue, a) == b"first"
    queue.clear()
    with queue.candidate("a.1", True) as a:
        assert take(queue, a) is None


def test_a_remote_worker_that_comes_back_soon_keeps_its_request(queue: EvaluationQueue) -> None:
    with queue.candidate("a.1", True) as a, queue.candidate("b.1", True) as b:
        queue.put(b"first")
        assert take(queue, a) == b"first"
        with queue.candidate("a.1", True) as again:  # while the old stream lingers
            assert [take(queue, b), take(queue, again), take(queue, a)] == [None, b"first", None]
    with queue.candidate("b.1", True) as b:
        assert take(queue, b) is None
        with queue.candidate("a.1", True) as a:
            assert [take(queue, b), take(queue, a)] == [None, b"first"]


def test_a_request_passes_on_when_a_remote_worker_stays_away() -> None:
    queue = EvaluationQueue(patience_s=0.3)
    queue.put(b"first")
    with queue.candidate("a.1", True) as a:
        assert take(queue, a) == b"first"
    lost_s = time.monotonic()
    with queue.candidate("b.1", True) as b:
        assert take(queue, b, timeout_s=20.0) == b"first"
        assert time.monotonic() - lost_s >= 0.3
        assert queue.assigned == "b.1"


def test_a_request_passes_on_at_once_from_a_process_that_ended(queue: EvaluationQueue) -> None:
    with queue.candidate("evaluator-0.x.1", False) as first:
        queue.put(b"first")
        assert take(queue, first) == b"first"
    with queue.candidate("evaluator-0.x.2", False) as second:
        assert take(queue, second) == b"first"


def in_background(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_a_wait_ends_with_a_request_and_when_it_is_over(queue: EvaluationQueue) -> None:
    got: list[bytes | None] = []
    is_over = threading.Event()
    with queue.candidate("a.1", True) as a:
        waiting = in_background(lambda: got.append(queue.take(a, is_over.is_set, 30.0)))
        queue.put(b"first")
        waiting.join(20)
        waiting = in_background(lambda: got.append(queue.take(a, is_over.is_set, 30.0)))
        is_over.set()
        queue.wake()
        waiting.join(20)
        assert not waiting.is_alive()
    assert got == [b"first", None]
