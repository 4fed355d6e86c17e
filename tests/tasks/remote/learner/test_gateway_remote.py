"""Remote workers, over TLS: who may join, what is refused and how, revocation, and nobody delays another."""

from __future__ import annotations

import logging
import math
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from tasks.remote.access import handshakes, stream_limit
from tasks.remote.access.credentials import load_client, load_server, make_credentials
from tasks.remote.access.dialing import RefusedError
from tasks.remote.access.listener import Port
from tasks.remote.learner.gateway import Gateway
from tasks.remote.station import calls, peers
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire import link, parts
from tasks.remote.wire.methods import METHODS
from tests.tasks.remote.raw_worker import (
    FINGERPRINT,
    SPEC,
    Folder,
    RawWorker,
    Reader,
    drain,
    make_segment,
    num_connected,
    read_all,
    refused,
    wait_until,
)

pytestmark = pytest.mark.timeout(120)

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
WEIGHTS = {"w": np.ones(3, np.float32)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "credentials"
    make_credentials(path, [], ["alice", "bob"])
    return path


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Folder:
    shutil.copytree(made, tmp_path / "credentials")
    return Folder(tmp_path / "credentials")


@pytest.fixture
def gateway(folder: Folder) -> Iterator[Gateway]:
    with folder.gateway() as gateway:
        yield gateway


def first_part(size: int) -> bytes:
    """The first part of a message that claims to be so large."""
    return struct.pack("<4sQ", b"TMLP", size) + bytes(parts.PART_BYTES)


def refusal_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("refused")]


# --- joining ---


def test_a_worker_from_elsewhere_sends_segments_and_gets_weights_over_tls(gateway: Gateway, folder: Folder) -> None:
    gateway.publish(WEIGHTS, 3)
    with RawWorker(gateway, folder.alice) as alice:
        assert alice.hello() == 0
        weights = alice.weights()
        assert link.decode_weights(next(weights)).version == 3
        acknowledgements, send = alice.push()
        for seq in (1, 2, 3):
            send(seq)
        segments = drain(gateway, 3)
        assert [(s.worker, s.seq) for s in segments] == [(alice.identity, seq) for seq in (1, 2, 3)]
        np.testing.assert_array_equal(segments[0].frames["count"], make_segment("?", 1).frames["count"])
        gateway.acknowledge({alice.identity: 2})
        while link.decode_acknowledgement(next(acknowledgements)) != (3, 2):
            pass
        gateway.publish(WEIGHTS, 4)
        assert link.decode_weights(next(weights)).version == 4


def test_the_wire_is_encrypted_and_what_is_not_tls_gets_nowhere(gateway: Gateway) -> None:
    host, _, port = (gateway.remote_address or "").rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.settimeout(20)
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        answer = connection.recv(100)
        # Nothing, or a TLS alert record: not a frame of HTTP/2.
        assert answer == b"" or answer[0] == 0x15


def test_after_a_restart_a_worker_hears_what_the_stored_replay_has(folder: Folder) -> None:
    received = {"alice.00000001": 7, "somebody": 3}
    with (
        folder.gateway(received=received) as gateway,
        RawWorker(gateway, folder.alice) as alice,
        RawWorker(gateway, folder.bob) as bob,
    ):
        assert (alice.hello(), bob.hello()) == (7, 0)
        acknowledgements, send = alice.push()
        assert link.decode_acknowledgement(next(acknowledgements)) == (7, 7)
        for seq in (6, 7, 8):
            send(seq)
        assert [s.seq for s in drain(gateway, 1)] == [8]
        assert gateway.statistics()["gateway/duplicates"] == 2


def test_two_outboxes_of_one_name_are_two_workers(gateway: Gateway, folder: Folder) -> None:
    with (
        RawWorker(gateway, folder.alice, "alice.aaaa0000") as first,
        RawWorker(gateway, folder.alice, "alice.bbbb") as second,
    ):
        for worker in (first, second):
            worker.hello()
            worker.push()[1](1)
        assert {s.worker for s in drain(gateway, 2)} == {"alice.aaaa0000", "alice.bbbb"}
        assert [first.hello(), second.hello()] == [1, 1]


# --- who is refused ---


@pytest.mark.parametrize(
    ("attempt", "code", "message"),
    [
        (lambda g, f: RawWorker(g, f.alice, token="guessed"), UNAUTHENTICATED, "the token is not known here"),
        (lambda g, f: RawWorker(g, f.alice, token=""), UNAUTHENTICATED, "the token is not known here"),
        (
            lambda g, f: RawWorker(g, f.alice, "mallory.1", token="guessed"),
            UNAUTHENTICATED,
            "the token is not known here",
        ),
        (lambda g, f: RawWorker(g, f.alice, token=g.token), UNAUTHENTICATED, "the token is not known here"),
        (lambda g, f: RawWorker(g, f.alice, "bob.00000001"), DENIED, "the token was made for another name than 'bob'"),
        (lambda g, f: RawWorker(g, f.alice, "alice.a/b"), PRECONDITION, "the worker's name must be letters"),
        (
            lambda g, f: RawWorker(g, f.alice, "learner.1", token=load_client(f.path / "learner").token),
            UNAUTHENTICATED,
            "the token is not known here",
        ),
    ],
    ids=["wrong token", "no token", "unknown name", "the run's token", "another's name", "no name", "trainer's token"],
)
def test_strangers_are_refused_at_once_told_why_and_noted_once(
    gateway: Gateway,
    folder: Folder,
    caplog: pytest.LogCaptureFixture,
    attempt: Callable[[Gateway, Folder], RawWorker],
    code: grpc.StatusCode,
    message: str,
) -> None:
    with attempt(gateway, folder) as worker:
        error = refused(worker.hello)
    assert error.code() is code
    assert message in error.details()
    assert gateway.statistics()["gateway/refused"] == 1
    lines = refusal_lines(caplog)
    assert len(lines) == 1
    assert message in lines[0]
    assert "127.0.0.1" in lines[0]
    assert gateway.workers() == []


@pytest.mark.parametrize(
    ("hello", "code", "message"),
    [
        (
            {"fingerprint": link.joint_fingerprint("task B", "network A")},
            PRECONDITION,
            "worker alice.00000001 has another task than the learner: fingerprint 'task B', expected 'task A'",
        ),
        (
            {"fingerprint": link.joint_fingerprint("task A", "network B")},
            PRECONDITION,
            "has another network than the learner: fingerprint 'network B', expected 'network A'",
        ),
        ({"worker": "bob.00000001"}, DENIED, "alice.00000001 greets under the name of another worker: 'bob.00000001'"),
        ({"role": "evaluator"}, DENIED, "wants to be evaluator, which is only for the learner's own processes"),
        ({"role": "lock_step"}, DENIED, "wants to be lock_step, which is only for the learner's own processes"),
    ],
    ids=["task", "network", "name", "evaluator", "lock step"],
)
def test_a_worker_that_does_not_fit_is_refused_with_the_reason(
    gateway: Gateway,
    folder: Folder,
    caplog: pytest.LogCaptureFixture,
    hello: dict[str, str],
    code: grpc.StatusCode,
    message: str,
) -> None:
    with RawWorker(gateway, folder.alice) as worker:
        error = refused(lambda: worker.hello(**hello))
        assert error.code() is code
        assert message in error.details()
        assert [message in line for line in refusal_lines(caplog)] == [True]
        # Nothing of it stays: without a greeting there is no stream.
        assert refused(lambda: next(worker.push()[0])).code() is grpc.StatusCode.ABORTED


def test_another_schema_version_is_refused_with_the_reason(gateway: Gateway, folder: Folder) -> None:
    message = bytearray(link.encode_hello(link.Hello("alice.00000001", 0, "worker", FINGERPRINT)))
    message[4] += 1
    with RawWorker(gateway, folder.alice) as alice:
        error = refused(lambda: alice.unary("Hello", bytes(message)))
    assert error.code() is PRECONDITION
    assert "install the same version on both sides" in error.details()


def test_the_token_is_checked_before_anything_is_read(gateway: Gateway, folder: Folder) -> None:
    with RawWorker(gateway, folder.alice, token="guessed") as stranger:
        for method in ("Hello", "Push", "Weights", "Report", "Ping"):
            # Nothing is ever sent, and the answer comes all the same.
            call, _ = stranger.stream(method)
            error = read_all(call)
            assert error is not None
            assert error.code() is UNAUTHENTICATED


def test_lock_step_is_not_served_to_other_machines(gateway: Gateway, folder: Folder) -> None:
    with RawWorker(gateway, folder.alice) as alice:
        alice.hello()
        assert refused(lambda: next(alice.stream("LockStep")[0])).code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_workers_token_is_of_no_use_at_the_port_of_the_learners_own_workers(gateway: Gateway, folder: Folder) -> None:
    with RawWorker(gateway, None, "alice.1", token=folder.alice.token, address=gateway.address) as alice:
        error = refused(alice.hello)
    assert error.code() is UNAUTHENTICATED
    assert error.details() == "the token is not the one of this run"


def test_nobody_from_elsewhere_takes_the_name_of_a_worker_of_the_learner(gateway: Gateway, folder: Folder) -> None:
    with (
        RawWorker(gateway, None, "alice.00000001", token=gateway.token, address=gateway.address) as own,
        RawWorker(gateway, folder.alice) as alice,
    ):
        own.hello()
        error = refused(alice.hello)
    assert error.code() is DENIED
    assert "taken by another worker" in error.details()


def test_a_flood_of_strangers_is_counted_but_fills_no_log(
    gateway: Gateway, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    with RawWorker(gateway, folder.alice, token="guessed") as stranger, RawWorker(gateway, folder.alice) as alice:
        for _ in range(200):
            refused(stranger.hello)
        alice.hello()
        alice.push()[1](1)
        assert len(drain(gateway, 1)) == 1
    assert gateway.statistics()["gateway/refused"] == 200
    assert 20 <= len(refusal_lines(caplog)) <= 30


def test_no_token_is_ever_logged(gateway: Gateway, folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        RawWorker(gateway, folder.alice) as alice,
        RawWorker(gateway, folder.alice, token="a-guessed-secret") as stranger,
    ):
        alice.hello()
        reader = Reader(alice.push()[0])
        refused(stranger.hello)
        folder.revoke("alice")
        wait_until(lambda: reader.ended_s is not None)
    text = caplog.text + "".join(str(record.args) for record in caplog.records)
    assert text
    for secret in (folder.alice.token, folder.bob.token, "a-guessed-secret", gateway.token):
        assert secret not in text


@pytest.mark.parametrize("trouble", ["another authority", "plaintext"])
def test_a_connection_that_comes_to_nothing_is_noted(
    folder: Folder, tmp_path: Path, trouble: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "PATIENCE_S", 2.0)
    with folder.gateway() as gateway:
        with RawWorker(gateway, folder.alice) as alice:
            alice.hello()
        if trouble == "plaintext":
            worker = RawWorker(gateway, None, "alice.1", token=folder.alice.token)
        else:
            make_credentials(tmp_path / "other", [], ["alice"])
            worker = RawWorker(gateway, load_client(tmp_path / "other/workers/alice"))
        with worker:
            assert refused(worker.hello).code() is grpc.StatusCode.UNAVAILABLE
        wait_until(lambda: refusal_lines(caplog))
        (line,) = refusal_lines(caplog)
        assert line.startswith("refused 1 connection: came to nothing: plaintext, no trust in our certificate")
        assert gateway.statistics()["gateway/refused"] == 1


@pytest.mark.parametrize("trouble", ["another authority", "plaintext", "no TLS at the learner"])
def test_a_worker_with_the_wrong_kind_of_connection_is_told_so_and_does_not_try_again(
    folder: Folder, tmp_path: Path, trouble: str
) -> None:
    make_credentials(tmp_path / "other", [], ["alice"])
    credentials, message = {
        "another authority": (load_client(tmp_path / "other/workers/alice"), "cannot be trusted"),
        "plaintext": (None, "speaks TLS: name this worker's folder in remote.credentials"),
        "no TLS at the learner": (folder.alice, "speaks plaintext, and this worker has credentials"),
    }[trouble]
    stop = threading.Event()
    hello = link.Hello("alice.1", 0, "worker", FINGERPRINT)
    with folder.gateway() as gateway:
        address = (gateway.address if trouble == "no TLS at the learner" else gateway.remote_address) or ""
        uplink = Uplink(address, folder.alice.token, hello, stop, credentials=credentials)
        try:
            with pytest.raises(RefusedError, match=message):
                uplink.connect()
        finally:
            stop.set()
            uplink.close()


def test_one_folder_serves_one_server_after_another(folder: Folder) -> None:
    server = load_server(folder.path / "learner")
    for _ in range(2):
        port = Port("127.0.0.1:0", server.channel, server.tokens, handshakes=server.handshakes)
        with Gateway(SPEC, FINGERPRINT, remote=port) as gateway, RawWorker(gateway, folder.alice) as alice:
            assert alice.hello() == 0


def test_without_tls_everything_else_is_checked_all_the_same(folder: Folder) -> None:
    tokens = load_server(folder.path / "learner").tokens
    with Gateway(SPEC, FINGERPRINT, remote=Port("127.0.0.1:0", None, tokens)) as gateway:
        with RawWorker(gateway, None, "alice.1", token=folder.alice.token) as alice:
            assert alice.hello() == 0
            alice.push()[1](1)
            assert len(drain(gateway, 1)) == 1
        with RawWorker(gateway, None, "alice.2", token=folder.bob.token) as bob:
            assert refused(bob.hello).code() is DENIED


def test_an_address_that_is_taken_is_named_and_nothing_stays_open(folder: Folder) -> None:
    tokens = load_server(folder.path / "learner").tokens
    before = {thread.name for thread in threading.enumerate()}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}: is the port taken"):
            Gateway(SPEC, FINGERPRINT, remote=Port(address, None, tokens))
    wait_until(lambda: "watch-calls" in before or "watch-calls" not in {t.name for t in threading.enumerate()})


# --- how many ---


def test_there_is_room_for_so_many_workers_and_then_for_the_next(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "PLACE_S", 1.0)
    with folder.gateway(max_workers=2) as gateway:
        workers = [RawWorker(gateway, folder.alice, f"alice.{i}") for i in range(3)]
        calls = []
        for worker in workers[:2]:
            worker.hello()
            calls.append(worker.push()[0])
            next(calls[-1])
        error = refused(workers[2].hello)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "room for 2 workers (remote.max_workers)" in error.details()
        # Who is in may greet again.
        workers[0].hello()
        calls[0].cancel()

        time.sleep(1.1)  # the first has no place any more
        workers[2].hello()
        next(workers[2].push()[0])
        # The first hears it at its stream, too.
        error = refused(lambda: next(workers[0].push()[0]))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for worker in workers:
            worker.__exit__()


def test_a_greeting_keeps_a_place_only_for_a_while(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        folder.gateway(max_workers=1) as gateway,
        RawWorker(gateway, folder.alice) as alice,
        RawWorker(gateway, folder.bob) as bob,
    ):
        alice.hello()
        assert refused(bob.hello).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        monkeypatch.setattr(peers, "PLACE_S", 0.0)
        bob.hello()


def test_names_that_never_send_anything_are_forgotten(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MAX_PEERS", 10)
    monkeypatch.setattr(peers, "PLACE_S", 0.0)
    with folder.gateway() as gateway:
        with RawWorker(gateway, folder.bob) as bob:
            bob.hello()
            bob.push()[1](1)
            drain(gateway, 1)
        for i in range(50):
            with RawWorker(gateway, folder.alice, f"alice.{i}") as alice:
                alice.hello()
        assert len(list(gateway._peers)) == 10
        with RawWorker(gateway, folder.bob) as bob:
            assert bob.hello() == 1


# --- revocation ---


def test_a_revoked_worker_is_out_within_five_seconds_and_the_others_go_on(gateway: Gateway, folder: Folder) -> None:
    gateway.publish(WEIGHTS, 1)
    with RawWorker(gateway, folder.alice) as alice, RawWorker(gateway, folder.bob) as bob:
        readers = {}
        for worker in (alice, bob):
            worker.hello()
            readers[worker] = [
                Reader(worker.push()[0]),
                Reader(worker.weights()),
                Reader(worker.weights(link.REQUESTS)),
            ]
        wait_until(lambda: all(len(r[1].messages) == 1 for r in readers.values()))
        revoked_s = time.monotonic()
        folder.revoke("alice")
        wait_until(lambda: all(reader.ended_s is not None for reader in readers[alice]))
        # What is promised holds by construction; a machine that is busy may be late.
        assert calls.CHECK_S + calls.GRACE_S < 5.0
        assert time.monotonic() - revoked_s < 20.0
        for reader in readers[alice]:
            assert reader.error is not None
            assert (reader.error.code(), reader.error.details()) == (UNAUTHENTICATED, "the token was revoked")
        error = refused(alice.hello)
        assert (error.code(), error.details()) == (UNAUTHENTICATED, "the token was revoked")
        gateway.publish(WEIGHTS, 2)
        wait_until(lambda: len(readers[bob][1].messages) == 2)
        assert [reader.ended_s for reader in readers[bob]] == [None, None, None]


@pytest.fixture
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open calls are checked, and cut off, sooner."""
    monkeypatch.setattr(calls, "CHECK_S", 0.1)
    monkeypatch.setattr(calls, "GRACE_S", 0.3)


@pytest.mark.usefixtures("quick_checks")
def test_a_revoked_worker_that_does_not_listen_is_cut_off(gateway: Gateway, folder: Folder) -> None:
    big = {"w": np.zeros(4_000_000, np.float32)}
    with RawWorker(gateway, folder.alice) as alice:
        alice.hello()
        weights = alice.weights()
        next_seq = iter(range(1, 10**6))
        acknowledgements, send = alice.push()
        del acknowledgements  # never read
        gateway.publish(big, 1)  # stuck: nobody reads it
        wait_until(lambda: num_connected(gateway) == 1)
        folder.revoke("alice")
        wait_until(lambda: num_connected(gateway) == 0)
        time.sleep(0.2)
        gateway.receive(0.0)
        for _ in range(5):
            send(next(next_seq))
        assert gateway.receive(0.5) == []
        weights.cancel()


@pytest.mark.usefixtures("quick_checks")
def test_while_the_list_of_tokens_is_damaged_those_who_are_in_stay(gateway: Gateway, folder: Folder) -> None:
    content = folder.tokens.read_bytes()
    with RawWorker(gateway, folder.alice) as alice, RawWorker(gateway, folder.bob) as bob:
        alice.hello()
        acknowledgements, send = alice.push()
        reader = Reader(acknowledgements)
        wait_until(lambda: reader.messages)
        folder.tokens.write_text("{")
        error = refused(bob.hello)
        # Not final: the worker tries again.
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "the list of tokens cannot be read" in error.details()
        time.sleep(3 * (calls.CHECK_S + calls.GRACE_S))
        send(1)
        assert len(drain(gateway, 1)) == 1
        assert reader.ended_s is None
        folder.tokens.write_bytes(content)
        bob.hello()


def test_a_revoked_worker_with_a_new_token_goes_on_where_it_was(gateway: Gateway, folder: Folder) -> None:
    with RawWorker(gateway, folder.alice) as alice:
        alice.hello()
        alice.push()[1](1)
        drain(gateway, 1)
    folder.revoke("alice")
    make_credentials(folder.path, [], ["alice"])
    with RawWorker(gateway, load_client(folder.path / "workers/alice")) as alice:
        assert alice.hello() == 1


# --- nobody delays or harms another ---


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"not a message",
        link.encode_segment(make_segment("bob.00000001", 1)),
        link.encode_segment(make_segment("alice.00000001", 1))[:-1],
        link.encode_segment(make_segment("alice.00000001", 1, reward=np.full(4, np.nan, np.float32))),
        link.encode_segment(
            make_segment(
                "alice.00000001",
                1,
                frames=dict(make_segment("", 1).frames) | {"count": np.full((4, 1), np.inf, np.float32)},
            )
        ),
        link.encode_weights(WEIGHTS, 1),
    ],
    ids=["nothing", "noise", "another's segment", "truncated", "no number", "infinite frame", "weights"],
)
def test_a_malformed_segment_ends_its_worker_and_nothing_else(gateway: Gateway, folder: Folder, message: bytes) -> None:
    with RawWorker(gateway, folder.alice) as alice, RawWorker(gateway, folder.bob) as bob:
        alice.hello()
        bob.hello()
        call, send = alice.stream("Push")
        send(message)
        error = read_all(call)
        assert error is not None
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "segment refused" in error.details()
        bob.push()[1](1)
        assert [s.worker for s in drain(gateway, 1)] == ["bob.00000001"]
        assert [alice.hello(), bob.hello()] == [0, 1]


def test_what_the_gateway_cannot_handle_ends_a_remote_worker_and_not_the_learner(
    gateway: Gateway, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawWorker(gateway, folder.alice) as alice, RawWorker(gateway, folder.bob) as bob:
        alice.hello()
        call, send = alice.push()
        next(call)
        with monkeypatch.context() as patch:
            patch.setattr(link, "decode_segment", lambda *_: 1 / 0)
            send(1)
            error = read_all(call)
        assert error is not None
        assert "it could not be handled" in error.details()
        bob.hello()
        bob.push()[1](1)
        assert len(drain(gateway, 1)) == 1


def test_a_token_is_good_for_so_many_streams(gateway: Gateway, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_limit, "MAX_STREAMS", 3)

    def sent(worker: RawWorker, stream: int, seq: int) -> bytes:
        return link.encode_segment(make_segment(worker.identity, seq, stream=stream))

    with RawWorker(gateway, folder.alice) as alice, RawWorker(gateway, folder.alice, "alice.bbbb") as other:
        for worker, streams in ((alice, (1000, 1001, 1000)), (other, (1000, 1000))):
            worker.hello()
            call, send = worker.stream("Push")
            for seq, stream in enumerate(streams, 1):
                send(sent(worker, stream, seq))
            assert len(drain(gateway, len(streams))) == len(streams)
        send(sent(other, 1001, 3))
        error = read_all(call)
        assert error is not None
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "3 streams were begun under the name alice" in (error.details() or "")
        with RawWorker(gateway, folder.bob) as bob:
            bob.hello()
            bob.push()[1](1)
            assert [s.worker for s in drain(gateway, 1)] == [bob.identity]


def test_a_message_beyond_the_cap_is_refused_before_it_is_handled(folder: Folder) -> None:
    with folder.gateway(max_message_bytes=100_000) as gateway, RawWorker(gateway, folder.alice) as alice:
        alice.hello()
        call, send = alice.stream("Push")
        send(bytes(200_000))
        error = read_all(call)
        assert error is not None
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in error.details()
        assert refused(lambda: alice.unary("Hello", bytes(200_000))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        alice.push()[1](1)
        assert len(drain(gateway, 1)) == 1


def test_a_large_segment_comes_in_parts(folder: Folder) -> None:
    with folder.gateway(max_message_bytes=2**24) as gateway, RawWorker(gateway, folder.alice) as alice:
        alice.hello()
        call, send = alice.stream("Push")
        one = make_segment(alice.identity, 1)
        columns = ("action", "reward", "terminated", "truncated", "is_first")
        repeated = {name: np.repeat(getattr(one, name)[:1], 40, axis=0) for name in columns}
        frames = {name: np.repeat(frame[:1], 40, axis=0) for name, frame in one.frames.items()}
        states = np.random.default_rng(0).random((40, link.MAX_STATE_SIZE), np.float32)
        large = make_segment(alice.identity, 1, frames=frames, states=states, **repeated)
        sent = list(parts.split(link.encode_segment(large)))
        assert len(sent) == 3
        for part in (*sent, link.encode_segment(make_segment(alice.identity, 2))):
            send(part)
        segments = drain(gateway, 2)
        assert [segment.seq for segment in segments] == [1, 2]
        np.testing.assert_array_equal(segments[0].states, states)
        call.cancel()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ([b"TMLP"], "first part of 4 bytes"),
        ([first_part(2**21 + 2)], "message in parts of 2097154 bytes, expected 2097153 to 2097153"),
        ([first_part(2**63)], "message in parts of 9223372036854775808 bytes"),
        ([first_part(2**21 + 1), b"few"], "part of 3 bytes at 1048576"),
    ],
)
def test_parts_of_no_message_end_the_stream(folder: Folder, sent: list[bytes], said: str) -> None:
    with folder.gateway(max_message_bytes=2**21 + 1) as gateway, RawWorker(gateway, folder.alice) as alice:
        alice.hello()
        call, send = alice.stream("Push")
        for part in sent:
            send(part)
        error = read_all(call)
        assert error is not None
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert said in error.details()
        alice.push()[1](1)
        assert len(drain(gateway, 1)) == 1


def test_a_worker_that_reads_nothing_delays_nobody(gateway: Gateway, folder: Folder) -> None:
    big = {"w": np.zeros(2_000_000, np.float32)}
    with RawWorker(gateway, folder.alice) as deaf, RawWorker(gateway, folder.bob) as bob:
        deaf.hello()
        stuck = deaf.weights()
        bob.hello()
        reader = Reader(parts.joined(bob.weights()))
        # Its window holds a little, so that soon its stream cannot be written to.
        for version in range(1, 20):
            gateway.publish(big, version)
            wait_until(lambda: reader.messages and link.decode_weights(reader.messages[-1]).version == version)  # noqa: B023
        # What it missed it never sees.
        messages = parts.joined(stuck)
        versions = [link.decode_weights(next(messages)).version for _ in range(2)]
        assert versions[1] == 19
        stuck.cancel()


def test_a_backlog_of_one_worker_leaves_room_to_another(folder: Folder) -> None:
    with (
        folder.gateway(queue_segments=8) as gateway,
        RawWorker(gateway, folder.alice) as greedy,
        RawWorker(gateway, folder.bob) as bob,
    ):
        bob.hello()
        acknowledgements, send_bob = bob.push()
        next(acknowledgements)
        greedy.hello()
        _, send = greedy.push()
        for seq in range(1, 201):
            send(seq)
        wait_until(lambda: gateway.statistics()["gateway/queue_depth"] == 4)
        send_bob(1)
        wait_until(lambda: any(w.name == "bob.00000001" and w.segments == 1 for w in gateway.workers()))
        segments = drain(gateway, 201)
        assert [s.seq for s in segments if s.worker != "bob.00000001"] == list(range(1, 201))
        assert [s.worker for s in segments].index("bob.00000001") <= 8


@pytest.mark.parametrize("which", ["Push", "Weights"])
def test_a_worker_that_is_back_takes_over_from_its_half_open_connection(
    gateway: Gateway, folder: Folder, which: str
) -> None:
    with RawWorker(gateway, folder.alice) as ghost, RawWorker(gateway, folder.alice) as alive:
        ghost.hello()
        reader = Reader(ghost.stream(which, [b""] if which == "Weights" else [])[0])
        wait_until(lambda: num_connected(gateway) == 1)
        alive.hello()
        gateway.publish(WEIGHTS, 1)
        call = alive.push()[0] if which == "Push" else alive.weights()
        next(call)
        wait_until(lambda: reader.ended_s is not None)
        assert num_connected(gateway) == 1
        call.cancel()


def test_a_ghost_that_is_stuck_in_writing_is_cut_off(gateway: Gateway, folder: Folder) -> None:
    big = {"w": np.zeros(4_000_000, np.float32)}
    with RawWorker(gateway, folder.alice) as ghost, RawWorker(gateway, folder.alice) as alive:
        ghost.hello()
        stuck = ghost.weights()
        gateway.publish(big, 1)
        wait_until(lambda: num_connected(gateway) == 1)
        time.sleep(0.3)
        assert len(gateway._service.calls._snapshot()) == 1
        call = alive.weights()
        next(call)
        wait_until(lambda: len(gateway._service.calls._snapshot()) == 1)
        call.cancel()
        stuck.cancel()


# --- evaluation ---


def test_a_report_of_a_worker_that_was_not_asked_is_not_taken(gateway: Gateway, folder: Folder) -> None:
    from tests.algos.fakes import make_report

    with RawWorker(gateway, folder.alice) as alice, RawWorker(gateway, folder.bob) as bob:
        alice.hello()
        bob.hello()
        requests = alice.weights(link.REQUESTS)
        gateway.request_evaluation(WEIGHTS, 5, [0])
        request = link.decode_evaluation_request(next(requests))
        assert request.weights.version == 5
        message = link.encode_evaluation_report(make_report(True, 30.0), request.id)
        bob.unary("Report", message)
        assert gateway.poll_evaluation() is None
        alice.unary("Report", message)
        assert gateway.poll_evaluation() is not None


@pytest.mark.parametrize("method", ["Hello", "Ping", "Report", "Weights"])
def test_a_call_whose_message_never_comes_is_cut_off(
    gateway: Gateway, folder: Folder, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, method, METHODS[method]._replace(limit_s=0.5))
    with RawWorker(gateway, folder.alice) as alice:
        alice.hello()
        reader = Reader(alice.stream(method)[0])
        wait_until(lambda: reader.ended_s is not None)
        wait_until(lambda: gateway._service.calls._snapshot() == [])


# --- what is seen of them ---


@pytest.mark.parametrize("method", ["Hello", "Ping", "Report", "Weights"])
def test_a_caller_that_hangs_up_before_it_has_said_anything_is_not_refused(
    gateway: Gateway, folder: Folder, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    with RawWorker(gateway, folder.alice) as alice:
        alice.hello()
        call, _ = alice.stream(method)
        wait_until(lambda: gateway._service.calls._snapshot() != [])
        call.cancel()
        wait_until(lambda: gateway._service.calls._snapshot() == [])
    assert gateway.statistics()["gateway/refused"] == 0
    assert not refusal_lines(caplog)


def test_a_row_for_each_worker_says_what_it_did(gateway: Gateway, folder: Folder) -> None:
    gateway.publish(WEIGHTS, 3)
    with RawWorker(gateway, folder.alice) as alice, RawWorker(gateway, folder.bob) as bob:
        for worker in (alice, bob):
            worker.hello()
        messages = [link.encode_segment(make_segment(alice.identity, seq, weights_version=3)) for seq in (1, 2, 2, 3)]
        call, send = alice.stream("Push")
        for message in messages:
            send(message)
        next(call)
        drain(gateway, 3)
        gateway.acknowledge({alice.identity: 1})
        alice.unary("Ping", link.encode_ping(link.Ping(12.5, 4)))
        first, second = gateway.workers()
        assert (first.name, first.role, first.connected) == (alice.identity, "worker", True)
        assert first.address.startswith("ipv4:127.0.0.1:")
        assert (first.segments, first.duplicates, first.dropped, first.unacknowledged) == (3, 1, 4, 2)
        assert first.bytes == sum(len(message) for message in messages)
        assert first.samples_per_s == pytest.approx(3 * make_segment("", 1).num_env_steps)  # within the first second
        assert first.round_trip_ms == 12.5
        assert first.weights_version == 3
        assert 0 <= first.weights_age_s < 60
        assert (second.name, second.connected, second.segments) == (bob.identity, False, 0)
        assert math.isnan(second.round_trip_ms)
        metrics = gateway.statistics()
        assert metrics["gateway/workers"] == metrics["gateway/remote_workers"] == 1
        assert metrics["gateway/dropped"] == 4
        assert metrics["gateway/duplicates"] == 1
        assert metrics["gateway/unacknowledged"] == 2
        assert metrics["gateway/round_trip_ms"] == 12.5
        assert metrics["gateway/megabytes"] == pytest.approx(first.bytes / 1e6)
        call.cancel()
        wait_until(lambda: not gateway.workers()[0].connected)


def test_a_row_says_how_long_a_worker_has_not_stepped(gateway: Gateway, folder: Folder) -> None:
    with RawWorker(gateway, folder.alice) as alice:
        alice.hello()
        call, _ = alice.stream("Push")
        next(call)
        assert gateway.workers()[0].hangs_for_s == 0.0
        alice.unary("Ping", link.encode_ping(link.Ping(1.0, 0, 34_000)))
        assert gateway.workers()[0].hangs_for_s >= 34.0
        alice.unary("Ping", link.encode_ping(link.Ping(1.0, 0)))
        assert gateway.workers()[0].hangs_for_s == 0.0
        alice.unary("Ping", link.encode_ping(link.Ping(1.0, 0, 34_000)))
        call.cancel()
        wait_until(lambda: not gateway.workers()[0].connected)
        assert gateway.workers()[0].hangs_for_s == 0.0  # it is gone, which is said elsewhere


def test_a_worker_that_claims_weights_of_the_future_does_not_change_what_is_shown(
    gateway: Gateway, folder: Folder
) -> None:
    gateway.publish(WEIGHTS, 3)
    with RawWorker(gateway, folder.alice) as alice:
        alice.hello()
        _, send = alice.stream("Push")
        send(link.encode_segment(make_segment(alice.identity, 1, weights_version=10**9)))
        drain(gateway, 1)
        assert gateway.workers()[0].weights_version == 3
        assert gateway.statistics()["gateway/weights_lag"] == 0


def test_close_is_quick_with_remote_workers_connected(folder: Folder) -> None:
    with folder.gateway() as gateway, RawWorker(gateway, folder.alice) as alice:
        alice.hello()
        reader = Reader(alice.push()[0])
        Reader(alice.weights())
        wait_until(lambda: reader.messages)
        start = time.monotonic()
        gateway.close()
        assert time.monotonic() - start < 20.0
        wait_until(lambda: reader.ended_s is not None)
