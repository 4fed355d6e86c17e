from __future__ import annotations

import signal
import threading

import pytest

from algos.run.interrupt import StopOnInterrupt


def test_first_signal_stops_second_within_two_seconds_is_the_same():
    times = iter([10.0, 11.9, 12.1])
    stop = threading.Event()
    guard = StopOnInterrupt(stop, now=lambda: next(times))
    guard.handle(signal.SIGINT, None)
    assert stop.is_set()
    assert guard.was_interrupted
    guard.handle(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        guard.handle(signal.SIGINT, None)


def test_previous_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT)
    with StopOnInterrupt(threading.Event()):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="SIGHUP")
def test_a_closed_terminal_requests_a_stop():
    before = signal.getsignal(signal.SIGHUP)
    stop = threading.Event()
    try:
        with StopOnInterrupt(stop):
            signal.raise_signal(signal.SIGHUP)
        assert stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_install_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def run() -> None:
        with StopOnInterrupt(threading.Event()):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
