"""Who may join a relay, for which task, and what may be believed of what they say."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from tasks.remote.access import stream_limit
from tasks.remote.access.credentials import ClientCredentials
from tasks.remote.access.dialing import RefusedError
from tasks.remote.access.handshakes import HandshakeWatch
from tasks.remote.access.tokens import read_tokens, write_tokens
from tasks.remote.learner import relay_link
from tasks.remote.learner.relay_link import RelayLink
from tasks.remote.relay import relay_learner
from tasks.remote.wire import link
from tasks.remote.wire.relay_messages import Item, encode_spec
from tests.tasks.remote.raw_worker import (
    FINGERPRINT,
    SPEC,
    Folder,
    RawWorker,
    Reader,
    make_segment,
    read_all,
    refused,
    wait_until,
)
from tests.tasks.remote.relay_site import (
    DiskWorker,
    Site,
    numbers,
    pull_request,
    push_all,
    raw_learner,
    take,
)

pytestmark = pytest.mark.timeout(120)


# --- who may join ---


def test_a_second_learner_is_refused_and_the_first_goes_on(
    site: Site, folder: Folder, learner: ClientCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_link, "GHOST_PATIENCE_S", 0.3)
    reason = "another learner is connected to this relay, from ipv4:127"
    with site.relay(), site.link(learner) as first, site.worker(folder.alice) as alice:
        wait_until(lambda: first.is_connected)
        with site.link(learner) as second, pytest.raises(RefusedError, match=reason):
            second.receive(30.0)
        push_all(alice, range(1, 4), 0)
        assert take(first, 3) == numbers(alice, 1, 3)


def test_a_learner_takes_over_from_its_own_dead_connection(
    site: Site, folder: Folder, learner: ClientCredentials
) -> None:
    pull = pull_request("the same")
    with site.relay() as relay, raw_learner(site, learner) as relay_link, raw_learner(site, learner) as again:
        ghost = Reader(relay_link.stream("Pull", [pull])[0])
        wait_until(lambda: relay.state().learner)
        alive = Reader(again.stream("Pull", [pull])[0])
        wait_until(lambda: ghost.ended_s is not None and alive.messages)
        assert relay.state().learner
        assert alive.ended_s is None


def test_a_learner_that_has_gone_silent_makes_room(
    site: Site, folder: Folder, learner: ClientCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_learner, "SILENCE_S", 0.5)
    with site.relay() as relay, raw_learner(site, learner) as relay_link:
        ghost = Reader(relay_link.stream("Pull", [pull_request("silent")])[0])
        wait_until(lambda: relay.state().learner)
        with site.link(learner) as second:
            wait_until(lambda: second.is_connected)
            wait_until(lambda: ghost.ended_s is not None)
            second.receive(0.0)


def test_only_the_learner_pulls(site: Site, folder: Folder) -> None:
    with site.relay(), site.worker(folder.alice) as alice:
        error = read_all(alice.stream("Pull", [pull_request("alice")])[0])
        assert error is not None
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "not made for the role 'trainer'" in error.details()


def test_the_learners_token_is_no_workers(site: Site, learner: ClientCredentials) -> None:
    with site.relay(), site.worker(learner) as pretender:
        error = refused(pretender.hello)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "not made for the role 'worker'" in error.details()


@pytest.mark.parametrize("method", ["Hello", "Push", "Weights", "Report", "Ping", "Pull"])
def test_every_method_asks_for_the_token(site: Site, folder: Folder, method: str) -> None:
    with site.relay(), RawWorker(None, folder.alice, token="guess" * 9, address=site.address) as stranger:  # type: ignore[arg-type]
        error = read_all(stranger.stream(method, [b""])[0])
        assert error is not None
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_learner_with_a_wrong_token_is_told_at_once(site: Site, learner: ClientCredentials) -> None:
    wrong = replace(learner, token="guess" * 9)
    with site.relay(), RelayLink(site.address, wrong, SPEC, FINGERPRINT) as relay_link:
        with pytest.raises(RefusedError, match="refused this learner: the token is not known here"):
            relay_link.receive(30.0)
        with pytest.raises(RefusedError):
            relay_link.poll_evaluation()


def test_a_learner_without_tls_is_told_why(site: Site, learner: ClientCredentials) -> None:
    with (
        site.relay(),
        site.link(learner, is_plaintext=True) as relay_link,
        pytest.raises(RefusedError, match="speaks TLS"),
    ):
        relay_link.receive(30.0)


def test_a_revoked_learner_is_turned_away_while_it_pulls(
    site: Site, folder: Folder, learner: ClientCredentials
) -> None:
    path = folder.path / "relay" / "tokens.json"
    before = read_tokens(path)
    with site.relay(), site.link(learner) as relay_link:
        wait_until(lambda: relay_link.is_connected)
        write_tokens(path, [entry for entry in before if entry.role != "trainer"])
        try:
            with pytest.raises(RefusedError, match="the token was revoked"):
                relay_link.receive(30.0)
        finally:
            write_tokens(path, before)


# --- the task ---


def test_a_worker_of_another_task_is_refused_and_told_why(
    site: Site, folder: Folder, learner: ClientCredentials
) -> None:
    with site.relay(), site.worker(folder.alice) as alice:
        error = refused(alice.hello)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "no learner has been at this relay yet" in error.details()
        with site.link(learner) as relay_link:
            wait_until(lambda: relay_link.is_connected)
            error = refused(lambda: alice.hello(link.joint_fingerprint("task B", "network A")))
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "another task than the learner: fingerprint 'task B', expected 'task A'" in error.details()


def test_a_worker_that_was_answered_looks_for_no_fault_in_the_connection(
    site: Site, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handshakes: list[None] = []
    monkeypatch.setattr(HandshakeWatch, "began", lambda _: handshakes.append(None))
    with site.relay() as relay, contextlib.ExitStack() as stack:
        worker = DiskWorker(site, folder.alice, tmp_path / "outbox")
        stack.push(worker)
        threading.Thread(target=worker.uplink.connect, daemon=True).start()
        refusals = relay._hub.service.refusals
        wait_until(lambda: refusals.count >= 1)
        before = len(handshakes)
        wait_until(lambda: refusals.count >= 4)
        assert len(handshakes) == before == 1


def test_the_learner_of_another_task_gets_none_of_the_old_segments(
    site: Site, folder: Folder, learner: ClientCredentials, tmp_path: Path
) -> None:
    other = link.joint_fingerprint("task B", "network B")
    with site.relay(), site.worker(folder.bob) as bob:
        with site.link(learner) as relay_link, DiskWorker(site, folder.alice, tmp_path / "outbox") as alice:
            wait_until(lambda: relay_link.is_connected)
            alice.send(5)
            wait_until(lambda: relay_link.statistics()["gateway/segments"] == 5)
            relay_link.close()
            with site.link(learner, fingerprint=other) as second:
                with pytest.raises(RefusedError, match="another task than the learner"):
                    alice.uplink.wait_newest()
                assert bob.hello(other) == 0
                _, send = bob.push()
                send(1)
                assert take(second, 1) == numbers(bob, 1, 1)
                time.sleep(0.3)
                assert second.receive(0.0) == []
        with site.link(learner) as relay_link:
            wait_until(lambda: relay_link.is_connected)  # else the relay still goes by the task of the one before
            with DiskWorker(site, folder.alice, tmp_path / "outbox") as alice:
                assert take(relay_link, 5) == [(alice.identity, seq) for seq in range(1, 6)]


# --- what may be believed ---


def test_a_segment_that_cannot_be_read_is_refused_at_the_relay(
    site: Site, folder: Folder, learner: ClientCredentials
) -> None:
    with site.relay() as relay, site.link(learner) as relay_link, site.worker(folder.alice) as alice:
        wait_until(lambda: relay_link.is_connected)
        alice.hello()
        for message, reason in [
            (b"\x80\x04pickled", "segment refused: message of only"),
            (link.encode_segment(make_segment(alice.identity, 1, reward=np.zeros(4, np.float64))), "'reward' must be"),
            (link.encode_segment(make_segment("bob.00000001", 1)), "sent a segment of 'bob.00000001'"),
        ]:
            error = read_all(alice.stream("Push", [message])[0])
            assert error is not None
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert reason in error.details()
        assert relay.state().waiting_segments == 0
        push_all(alice, range(1, 3), 0)
        assert take(relay_link, 2) == numbers(alice, 1, 2)


def test_a_segment_that_only_the_learner_finds_wrong_is_refused_there_and_its_worker_told(
    site: Site, folder: Folder, learner: ClientCredentials
) -> None:
    with site.relay() as relay, site.worker(folder.alice) as alice, site.link(learner) as relay_link:
        wait_until(lambda: relay_link.is_connected)
        # The same fingerprint with another observation: a fault of versions that the fingerprint did not catch.
        relay_link._spec = dataclasses.replace(SPEC, action_size=2)
        assert alice.hello() == 0
        call, send = alice.push()
        reader = Reader(call)
        for seq in (1, 2, 3):
            send(seq)
        wait_until(lambda: reader.error is not None)
        assert reader.error is not None
        assert reader.error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "'action' must be float32" in reader.error.details()
        assert relay.state().waiting_segments == 0
        assert relay_link.receive(0.0) == []
        wait_until(lambda: relay_link.statistics()["gateway/refused"] >= 2)  # by the learner, and to the worker
        relay_link._spec = SPEC
        # They were not durable, so the worker begins where it was.
        push_all(alice, range(1, 4), 0)
        assert take(relay_link, 3) == numbers(alice, 1, 3)


def test_a_worker_that_begins_too_many_streams_is_refused_by_the_learner(
    site: Site, folder: Folder, learner: ClientCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_limit, "MAX_STREAMS", 2)
    with site.relay(), site.worker(folder.alice) as alice, site.link(learner) as relay_link:
        wait_until(lambda: relay_link.is_connected)
        alice.hello()
        call, send = alice.stream("Push")
        for seq in (1, 2, 3):
            send(link.encode_segment(make_segment(alice.identity, seq, stream=seq)))
        reader = Reader(call)
        assert take(relay_link, 2) == numbers(alice, 1, 2)
        wait_until(lambda: reader.error is not None)
        assert reader.error is not None
        assert "2 streams were begun under the name alice" in reader.error.details()


@pytest.mark.parametrize("first", [b"", b"\x80\x04pickled", link.encode_hello(link.Hello("w", 0, "worker", "f"))])
def test_nonsense_from_the_learner_does_not_end_the_relay(
    site: Site, folder: Folder, learner: ClientCredentials, first: bytes
) -> None:
    with site.relay(), raw_learner(site, learner) as relay_link:
        error = read_all(relay_link.stream("Pull", [first])[0])
        assert error is not None
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        error = read_all(relay_link.stream("Pull", [pull_request("s"), first])[0])
        assert error is not None
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        with site.link(learner) as real:
            wait_until(lambda: real.is_connected)


def test_a_learner_of_another_version_is_told_both(site: Site, learner: ClientCredentials) -> None:
    data = {"session": "old", "fingerprint": FINGERPRINT, "spec": encode_spec(SPEC), "received": {}, "durable": {}}
    with site.relay(), raw_learner(site, learner) as old:
        error = read_all(old.stream("Pull", [link.pack("pull_request", data)])[0])
        assert error is not None
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "the learner speaks version 1" in error.details()
        assert "this relay version 2; install the same version" in error.details()


def test_a_relay_of_another_version_is_refused_by_the_learner(
    site: Site, learner: ClientCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def old_item(item: Item) -> bytes:
        assert item.status is not None
        return link.pack("relay_item", {"content": "status"} | item.status._asdict() | {"workers": []})

    monkeypatch.setattr(relay_learner.relay_messages, "encode_item", old_item)
    message = "the relay speaks version 1 of the protocol between learner and relay, this learner version 2; install"
    with site.relay(), site.link(learner) as relay_link, pytest.raises(RefusedError, match=message):
        relay_link.receive(30.0)


def test_rows_of_the_table_tell_of_the_workers(site: Site, folder: Folder, learner: ClientCredentials) -> None:
    with site.relay(), site.link(learner) as relay_link, site.worker(folder.alice) as alice:
        wait_until(lambda: relay_link.is_connected)
        relay_link.publish({"w": np.ones(3, np.float32)}, 2)
        push_all(alice, range(1, 6), 0)
        alice.unary("Ping", link.encode_ping(link.Ping(12.5, 3)))
        wait_until(lambda: any(worker.dropped == 3 for worker in relay_link.workers()))
        (row,) = relay_link.workers()
        assert (row.name, row.role, row.segments, row.connected) == (alice.identity, "worker", 5, True)
        assert row.round_trip_ms == 12.5
        assert row.address.startswith("ipv4:127.0.0.1:")
        statistics = relay_link.statistics()
        assert statistics["gateway/relay_connected"] == 1.0
        assert statistics["gateway/workers"] == 1.0
