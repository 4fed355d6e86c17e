"""Invalid messages from an attacker with a worker's token: they are refused and harm nobody else."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import random
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.faults import messages
from tests.faults.attacker import Attacker
from tests.faults.audit import FUZZ
from tests.faults.conftest import AddRow
from tests.faults.rig import LearnerProcess, Process, Rig, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

PICTURE_BYTES = 64
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Size limit of the learner in these tests."""


LEARNER_METHODS = {"Push": 70, "Hello": 15, "Ping": 10, "Report": 5}
ANSWERS = ("OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "PERMISSION_DENIED")


class PickleBomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self._path), 0o700)


def malformed(identity: str, bomb: Path) -> dict[str, tuple[bytes, str]]:
    """Invalid segments by their fault, each with a part of the expected error message."""
    good = messages.encoded(identity, 1, PICTURE_BYTES)
    pickled = pickle.dumps(PickleBomb(bomb))
    cases = {
        "an object array": (messages.with_array(good, "reward", dtype="object"), "dtype 'object'"),
        "another dtype": (messages.with_array(good, "reward", dtype="U32"), "'reward' must be float32"),
        "another shape": (messages.with_array(good, "frames/number", shape=[8, 16]), "'frames/number' must be uint8"),
        "a negative shape": (messages.with_array(good, "reward", shape=[-16]), "shape [-16]"),
        "a shape beyond memory": (messages.with_array(good, "reward", shape=[2**40, 2**40]), "shape"),
        "offsets beyond the end": (messages.with_array(good, "reward", data_offsets=[0, 2**60]), "array"),
        "a missing array": (messages.with_header(good, lambda header: header.pop("reward")), "array"),
        "bytes too many": (good + b"x", "1 bytes too many"),
        "another schema": (good[:4] + b"\x09" + good[5:], "schema version 9"),
        "another worker's name": (messages.with_data(good, worker="w0"), "w0"),
        "number 0": (messages.with_data(good, seq=0), "sequence number >= 1"),
        "a negative number": (messages.with_data(good, seq=-1), "seq must be an integer"),
        "a number beyond 64 bits": (messages.with_data(good, seq=2**80), "seq must be an integer"),
        "a boolean number": (messages.with_data(good, seq=True), "seq must be an integer"),
        "a million statistics": (messages.with_data(good, episode_names=["x"] * 100_000), "names of the statistics"),
        "not a number": (messages.with_data(good, seq=math.nan), "seq must be an integer"),
        "deep nesting": (good[:8] + (100_000).to_bytes(8, "little") + b"[" * 100_000, "not JSON"),
        "a header of 2**63 bytes": (good[:8] + (2**63).to_bytes(8, "little") + good[16:], "header of"),
        "an array of zeros that is huge": (messages.bomb(good, "frames/picture", 1_000), "shape [1048576000]"),
        "an array of zeros that is large": (messages.bomb(good, "frames/picture", 200), "must be uint8"),
        "a pickle": (pickled, "not a message of this link"),
        "a pickle as an array": (
            messages.with_array(good[: -len(pickled)] + pickled, "reward", dtype="O"),
            "dtype 'O'",
        ),
        "nothing": (b"", "message of only 0 bytes"),
    }
    for size in (1, 15, 16, 40, len(good) // 2, len(good) - 1):
        cases[f"only {size} bytes"] = (good[:size], "")
    return cases


@pytest.mark.fault("malformed, huge, truncated and replayed messages")
def test_invalid_messages_are_refused_and_change_nothing(rig: Rig, tmp_path: Path, add_row: AddRow) -> None:
    learner, worker = rig.learner(), rig.worker(episodes=150, step_s=0.002)
    learner.start()
    worker.start()
    learner.await_rows(400, worker)
    bomb = tmp_path / "boom"
    with attacker(rig, "w1.thief") as thief:
        assert thief.greet(PICTURE_BYTES).code == "OK"
        cases = malformed(thief.identity, bomb)
        for what, (message, expected) in cases.items():
            outcome = thief.push(message)
            assert outcome.code == "INVALID_ARGUMENT", f"{what}: {outcome}"
            assert expected in outcome.details, f"{what}: {outcome}"
            assert not outcome.was_taken, what
        assert thief.push(bytes(MAX_MESSAGE_BYTES + 1)).code == "RESOURCE_EXHAUSTED"
        for method in ("Hello", "Ping"):
            for message in (b"", pickle.dumps(PickleBomb(bomb)), messages.encoded(thief.identity, 1, PICTURE_BYTES)):
                assert thief.call(method, message).code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")
        assert thief.call("LockStep", b"").code == "UNIMPLEMENTED"
        # Afterwards a valid segment is still accepted, once.
        for _ in range(3):
            assert thief.push(messages.encoded(thief.identity, 1, PICTURE_BYTES)).was_taken
    assert not bomb.exists(), "the pickle was loaded"
    replayed = replay(rig, learner, worker)
    worker.finish()
    # Of the thief's segments, only the valid one is stored, once.
    account = rig.account(learner, w0=9_600, w1=16)
    add_row(account, f"{len(cases)} kinds, a pickle bomb among them; {replayed} segments replayed with a stolen token")


def replay(rig: Rig, learner: LearnerProcess, worker: Process) -> int:
    """Sends all segments of a worker again, under its name and with its token; returns how many were sent."""
    identity = joined_name(learner, "w0")
    count = learner.rows // 16
    with attacker(rig, identity) as thief:
        assert thief.greet(PICTURE_BYTES).code == "OK"
        for _ in range(2):
            assert thief.push(
                *(messages.encoded(identity, seq, PICTURE_BYTES) for seq in range(1, count + 1))
            ).was_taken
    learner.await_more(400, worker)
    wait_until(lambda: learner.status["statistics"]["gateway/duplicates"] >= 2 * count, learner, worker)
    return 2 * count


@pytest.mark.fault("10,000 fuzzed messages")
def test_ten_thousand_fuzzed_messages_leave_no_trace(rig: Rig, add_row: AddRow) -> None:
    learner, worker = rig.learner(), rig.worker(episodes=300, step_s=0.002)
    learner.start()
    worker.start()
    learner.await_rows(400, worker)
    fuzz(rig, 2_000, seed=1)
    before = resident_bytes(learner)
    fuzz(rig, 4_000, seed=2)
    between = resident_bytes(learner)
    outcomes = fuzz(rig, 4_000, seed=3)
    growth = [(resident_bytes(learner) - between) / 1e6, (between - before) / 1e6]
    knock(learner.status["address"])
    assert min(growth) < 8.0, f"the learner grew by {growth} MB"
    assert outcomes["INVALID_ARGUMENT"] > 1_000
    worker.finish()
    account = rig.account(learner, w0=19_200)
    add_row(account, f"the learner grew by {max(growth[0], 0):.1f} MB in the last 4,000")


@pytest.mark.fault("2,000 fuzzed messages at a relay")
def test_a_relay_survives_two_thousand_fuzzed_messages(rig: Rig, add_row: AddRow) -> None:
    to_learner = rig.another_proxy()
    relay = rig.relay([rig.proxy, to_learner])
    learner, worker = rig.learner(is_local=False, relay=to_learner.address), rig.worker(episodes=120, step_s=0.002)
    relay.start()
    learner.start()
    worker.start()
    learner.await_rows(400, worker, relay)
    outcomes = fuzz(rig, 2_000, seed=4, methods={"Push": 60, "Hello": 15, "Ping": 10, "Pull": 15})
    assert outcomes["INVALID_ARGUMENT"] > 500
    # A worker may not call the learner's methods.
    assert outcomes["PERMISSION_DENIED"] > 200
    worker.finish()
    add_row(rig.account(learner, w0=7_680), "with the token of a worker")


def fuzz(rig: Rig, count: int, seed: int, methods: Mapping[str, int] = LEARNER_METHODS) -> dict[str, int]:
    """Sends randomly changed messages; returns the number of each status code.

    Args:
        rig: The target of its proxy is attacked.
        count: Messages.
        seed: Seed of the changes.
        methods: Relative frequency of each method.
    """
    rng = random.Random(seed)
    outcomes: dict[str, int] = {}
    with attacker(rig, f"w1{FUZZ}") as fuzzer:
        assert fuzzer.greet(PICTURE_BYTES).code == "OK"
        segments = [messages.encoded(fuzzer.identity, seq, PICTURE_BYTES, rows) for seq, rows in ((1, 1), (2, 16))]
        rights = {"Push": segments, "Hello": [messages.hello(fuzzer.identity, PICTURE_BYTES)]}
        for method in rng.choices(list(methods), weights=list(methods.values()), k=count):
            message = messages.mutated(rng.choice(rights.get(method, [messages.ping()])), rng)
            outcome = fuzzer.push(message) if method == "Push" else fuzzer.call(method, message)
            assert outcome.code in ANSWERS, outcome
            outcomes[outcome.code] = outcomes.get(outcome.code, 0) + 1
    return outcomes


def knock(address: str) -> None:
    """Opens connections without a token: random bytes before TLS, random bytes within TLS, and silence."""
    host, _, port = address.rpartition(":")
    rng = random.Random(0)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with contextlib.ExitStack() as stack:
        for index in range(100):
            connection = stack.enter_context(socket.create_connection((host, int(port)), 10.0))
            with contextlib.suppress(OSError):
                if index % 4 == 0:
                    connection.sendall(rng.randbytes(rng.randint(1, 3_000)))
                elif index % 4 == 1:
                    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(100))
                elif index % 4 == 2:
                    secure = stack.enter_context(context.wrap_socket(connection, server_hostname=host))
                    secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(rng.randint(1, 3_000)))


def attacker(rig: Rig, identity: str) -> Attacker:
    """An attacker with the credentials of a worker, who connects directly, not through the proxy."""
    assert rig.proxy.target is not None
    return Attacker(rig.proxy.target, rig.credentials / "workers" / identity.partition(".")[0], identity)


def joined_name(learner: LearnerProcess, name: str) -> str:
    """The full name of a worker (name and identity of its outbox), from the learner's log."""
    found = [word for word in learner.log.read_text().split() if word.startswith(f"{name}.")]
    return found[0]


def resident_bytes(process: Process) -> int:
    """Memory of a process."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
