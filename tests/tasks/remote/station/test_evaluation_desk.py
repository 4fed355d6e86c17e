"""One worker at a time drives an evaluation, and it is not lost with whoever had it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tasks.remote.station.evaluation_desk import EvaluationDesk, Seat

pytestmark = pytest.mark.timeout(60)


def take(seat: Seat, timeout_s: float = 0.0) -> bytes | None:
    return seat.take(lambda: False, timeout_s)


@pytest.fixture
def desk() -> EvaluationDesk:
    return EvaluationDesk(patience_s=30.0)


def test_a_request_goes_to_one_worker_once(desk: EvaluationDesk) -> None:
    with desk.seat("a.1", True) as a, desk.seat("b.1", True) as b:
        desk.put(b"first")
        assert [take(b), take(a), take(a), take(b)] == [None, b"first", None, None]
        assert desk.driver == "a.1"


def test_a_worker_of_this_machine_goes_before_one_from_elsewhere_that_was_there_first(desk: EvaluationDesk) -> None:
    with desk.seat("far.1", True) as far, desk.seat("worker-0.x.1", False) as near:
        desk.put(b"first")
        assert [take(far), take(near)] == [None, b"first"]


def test_who_comes_later_takes_what_nobody_had(desk: EvaluationDesk) -> None:
    desk.put(b"old")
    desk.put(b"new")
    with desk.seat("a.1", True) as a:
        assert take(a) == b"new"


def test_the_next_request_is_given_anew_but_not_before_the_last_was_answered(desk: EvaluationDesk) -> None:
    with desk.seat("far.1", True) as far:
        desk.put(b"first")
        assert take(far) == b"first"
        with desk.seat("worker-0.x.1", False) as near:
            desk.put(b"second")  # far may still be driving the first
            assert [take(near), take(far)] == [None, b"second"]
            desk.clear()
            desk.put(b"third")
            assert [take(far), take(near)] == [None, b"third"]


def test_an_answered_request_is_not_given_again(desk: EvaluationDesk) -> None:
    with desk.seat("a.1", True) as a:
        desk.put(b"first")
        assert take(a) == b"first"
    desk.clear()
    with desk.seat("a.1", True) as a:
        assert take(a) is None


def test_a_far_worker_that_comes_back_soon_keeps_its_request(desk: EvaluationDesk) -> None:
    with desk.seat("a.1", True) as a, desk.seat("b.1", True) as b:
        desk.put(b"first")
        assert take(a) == b"first"
        with desk.seat("a.1", True) as again:  # while the old stream lingers
            assert [take(b), take(again), take(a)] == [None, b"first", None]
    with desk.seat("b.1", True) as b:
        assert take(b) is None
        with desk.seat("a.1", True) as a:
            assert [take(b), take(a)] == [None, b"first"]


def test_a_request_passes_on_when_a_far_worker_stays_away() -> None:
    desk = EvaluationDesk(patience_s=0.3)
    desk.put(b"first")
    with desk.seat("a.1", True) as a:
        assert take(a) == b"first"
    lost_s = time.monotonic()
    with desk.seat("b.1", True) as b:
        assert take(b, timeout_s=20.0) == b"first"
        assert time.monotonic() - lost_s >= 0.3
        assert desk.driver == "b.1"


def test_a_request_passes_on_at_once_from_a_process_that_ended(desk: EvaluationDesk) -> None:
    with desk.seat("evaluator-0.x.1", False) as first:
        desk.put(b"first")
        assert take(first) == b"first"
    with desk.seat("evaluator-0.x.2", False) as second:
        assert take(second) == b"first"


def in_background(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_a_wait_ends_with_a_request_and_when_it_is_over(desk: EvaluationDesk) -> None:
    got: list[bytes | None] = []
    is_over = threading.Event()
    with desk.seat("a.1", True) as a:
        waiting = in_background(lambda: got.append(a.take(is_over.is_set, 30.0)))
        desk.put(b"first")
        waiting.join(20)
        waiting = in_background(lambda: got.append(a.take(is_over.is_set, 30.0)))
        is_over.set()
        desk.wake()
        waiting.join(20)
        assert not waiting.is_alive()
    assert got == [b"first", None]
