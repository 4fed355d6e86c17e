"""A lock that is passed on."""

from __future__ import annotations

import threading
import time

import pytest

from tasks.remote.station.fair_lock import FairLock
from tests.tasks.remote.far import wait_until

pytestmark = pytest.mark.timeout(60)


def test_who_waits_comes_before_who_has_just_had_it() -> None:
    for _ in range(200):
        lock = FairLock()
        order: list[str] = []

        def wait(lock: FairLock = lock, order: list[str] = order) -> None:
            with lock:
                order.append("waited")

        thread = threading.Thread(target=wait)
        with lock:
            thread.start()
            wait_until(lambda: lock.has_waiter)  # noqa: B023
        with lock:
            order.append("again")
        thread.join(20)
        assert order == ["waited", "again"]


def test_only_one_is_inside() -> None:
    lock = FairLock()
    counts = {"now": 0, "most": 0, "all": 0}

    def enter() -> None:
        for _ in range(500):
            with lock:
                counts["now"] += 1
                counts["most"] = max(counts["most"], counts["now"])
                time.sleep(0)
                counts["all"] += 1
                counts["now"] -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counts == {"now": 0, "most": 1, "all": 2000}
    assert not lock.has_waiter


def test_it_is_given_up_when_an_error_comes() -> None:
    lock = FairLock()
    with pytest.raises(KeyError), lock:
        raise KeyError("a")
    with lock:
        pass
