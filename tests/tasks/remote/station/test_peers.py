"""What is known of a worker that does not step."""

from __future__ import annotations

import threading

import pytest

from tasks.process.step_watch import HANGING_S
from tasks.remote.station.calls import Call
from tasks.remote.station.peers import Peer
from tasks.remote.wire import link


@pytest.fixture
def peer() -> Peer:
    made = Peer(link.Hello("w0", 0, "worker", "task"), False, threading.Condition(), 0)
    made.calls["push"] = object.__new__(Call)  # it is connected
    return made


def test_what_it_says_goes_on_counting_until_it_says_otherwise(peer: Peer) -> None:
    assert peer.hangs_for_s(100.0) == 0.0
    peer.note_ping(link.Ping(1.0, 0, 31_000), 100.0)
    assert peer.hangs_for_s(104.0) == pytest.approx(35.0)
    peer.note_ping(link.Ping(1.0, 0), 105.0)
    assert peer.hangs_for_s(106.0) == 0.0


def test_one_that_has_fallen_silent_although_connected_hangs(peer: Peer) -> None:
    peer.note_ping(link.Ping(1.0, 0), 100.0)
    assert peer.hangs_for_s(100.0 + HANGING_S - 1.0) == 0.0
    assert peer.hangs_for_s(100.0 + HANGING_S) == HANGING_S
    peer.calls.clear()
    assert peer.hangs_for_s(100.0 + HANGING_S) == 0.0


def test_one_that_has_never_said_anything_does_not_hang(peer: Peer) -> None:
    assert peer.hangs_for_s(1e6) == 0.0


def test_a_worker_that_comes_back_begins_anew(peer: Peer) -> None:
    peer.note_ping(link.Ping(1.0, 0, 31_000), 100.0)
    peer.forget_pings()
    assert peer.hangs_for_s(500.0) == 0.0
