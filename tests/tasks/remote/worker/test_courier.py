"""The courier: a process of its own between the driving loop and a real gateway, with TLS; it may be killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.experience.samples import Segment
from tasks.remote.access.credentials import make_credentials
from tasks.remote.config import OutboxPolicy
from tasks.remote.station.outbox import open_outbox
from tasks.remote.wire import link
from tasks.remote.worker.courier import Courier, CourierFailedError
from tasks.remote.worker.courier_pipe import CourierConfig
from tasks.remote.worker.uplink import RefusedError
from tests.tasks.remote.far_fakes import SPEC, FakeLearner, wait_until

pytestmark = pytest.mark.timeout(120)

NEVER = threading.Event()


def message(number: int, rows: int = 2, stream: int = 0) -> bytes:
    """A segment whose rewards tell which one it is."""
    rng = np.random.default_rng(number)
    frames = {
        f.name: np.zeros((rows, *f.frame_shape), np.dtype(f.dtype))
        if f.name != "images"
        else rng.integers(0, 255, (rows, *f.frame_shape), np.uint8)
        for f in SPEC.fields
    }
    nothing = np.zeros(rows, np.bool_)
    segment = Segment(
        worker="far",
        stream=stream,
        seq=0,
        frames=frames,
        action=np.zeros((rows, SPEC.action_size), np.float32),
        reward=np.full(rows, number, np.float32),
        terminated=nothing,
        truncated=nothing,
        is_first=nothing,
    )
    return link.encode_segment(segment)


def numbers(segments: list[Segment]) -> list[int]:
    return [int(segment.reward[0]) for segment in segments]


@pytest.fixture
def learner(tmp_path: Path) -> Iterator[FakeLearner]:
    with FakeLearner(tmp_path, "task A") as learner:
        yield learner


@pytest.fixture
def couriers(tmp_path: Path, learner: FakeLearner) -> Iterator[Any]:
    """Makes couriers, started; ends them."""
    made: list[Courier] = []

    def make(buffer_bytes: int = 10**9, **kwargs: Any) -> Courier:
        values: dict[str, Any] = {
            "address": learner.address,
            "credentials": str(learner.credentials / "workers" / "pc"),
            "is_plaintext": learner.is_plaintext,
            "name": "pc",
            "fingerprint": "task A",
            "session": str(len(made)),
            "outbox": str(tmp_path / "outbox"),
            "outbox_bytes": 10**9,
            "outbox_policy": "drop_oldest",
            "max_message_bytes": 10**7,
            "compress": True,
        }
        made.append(Courier(CourierConfig(**(values | kwargs)), buffer_bytes))
        made[-1].start()
        return made[-1]

    yield make
    for courier in made:
        courier.close()


def test_segments_arrive_once_in_order_with_a_name_of_their_own(couriers: Any, learner: FakeLearner) -> None:
    courier = couriers()
    for number in range(1, 41):
        courier.send(message(number, stream=number % 2))
    courier.finish(NEVER)
    assert numbers(learner.stored) == list(range(1, 41))
    assert [segment.seq for segment in learner.stored] == list(range(1, 41))
    assert {segment.stream for segment in learner.stored} == {1000, 1001}
    assert {segment.worker for segment in learner.stored} == {courier.status.worker}
    assert courier.status.worker.startswith("pc.")
    expected = link.unpack(message(7), "segment")[1]
    assert (learner.stored[6].frames["images"] == expected["frames/images"]).all()
    assert (courier.status.segments, courier.unacknowledged) == (0, 0)


def test_the_newest_weights_come_back(couriers: Any, learner: FakeLearner) -> None:
    courier = couriers()
    learner.publish(0.1, 1)
    courier.wait_until_joined(NEVER)
    for version in range(2, 30):
        learner.publish(version / 100, version, size=100_000)
    seen: list[link.Weights] = []

    def newest_has_come() -> bool:
        weights = courier.take_weights()
        if weights is not None:
            seen.append(link.decode_weights(weights))
        return bool(seen) and seen[-1].version == 29

    wait_until(newest_has_come)
    assert seen[-1].arrays["value"][0] == np.float32(0.29)
    assert [weights.version for weights in seen] == sorted({weights.version for weights in seen})
    assert courier.take_weights() is None
    wait_until(lambda: courier.status.weights_version == 29)


def test_the_learner_hears_that_the_environment_hangs_and_that_it_is_over(couriers: Any, learner: FakeLearner) -> None:
    courier = couriers()
    courier.wait_until_joined(NEVER)

    def hangs_for_s() -> float:
        return max((worker.hangs_for_s for worker in learner.gateway.workers()), default=0.0)

    courier.note_hanging(31.0)
    wait_until(lambda: hangs_for_s() >= 31.0)
    courier.note_hanging(0.0)
    wait_until(lambda: hangs_for_s() == 0.0)


def test_a_courier_that_is_killed_loses_and_doubles_nothing(couriers: Any, learner: FakeLearner) -> None:
    courier = couriers()
    courier.wait_until_joined(NEVER)
    killed: set[int | None] = set()
    for number in range(1, 301):
        courier.send(message(number, rows=20))
        if number in (100, 200):
            wait_until(lambda: courier.process_id not in (None, *killed) and courier.status.taken > 0)
            killed.add(courier.process_id)
            os.kill(courier.process_id, signal.SIGKILL)
    courier.finish(NEVER)
    assert len(killed) == 2
    assert numbers(learner.stored) == list(range(1, 301))
    assert {segment.stream for segment in learner.stored} == {1000}


def test_a_learner_that_is_killed_gets_again_what_it_had_not_stored(couriers: Any, learner: FakeLearner) -> None:
    courier = couriers()
    for number in range(1, 11):
        courier.send(message(number))
    wait_until(lambda: len(learner.stored) == 10)
    learner.stores = False
    for number in range(11, 21):
        courier.send(message(number))
    wait_until(lambda: learner.num_received == 20)
    wait_until(lambda: courier.unacknowledged == 10)  # what is stored is told a moment after it is
    learner.crash()
    for number in range(21, 31):
        courier.send(message(number))
    learner.stores = True
    learner.start()
    courier.finish(NEVER)
    assert numbers(learner.stored) == list(range(1, 31))


def test_what_is_not_delivered_waits_for_the_next_start(couriers: Any, learner: FakeLearner, tmp_path: Path) -> None:
    learner.crash()
    first = couriers()
    for number in range(1, 31):
        first.send(message(number))
    began = time.monotonic()
    assert first.close() == 0
    assert time.monotonic() - began < 20.0
    assert first.status.segments == 30
    learner.start()
    second = couriers()
    for number in range(31, 41):
        second.send(message(number))
    second.finish(NEVER)
    assert second.status.worker == first.status.worker
    assert numbers(learner.stored) == list(range(1, 41))
    assert [segment.stream for segment in learner.stored] == [1000] * 30 + [2000] * 10


def test_two_workers_of_one_machine_need_no_hand_edits(couriers: Any, learner: FakeLearner) -> None:
    pair = [couriers(), couriers()]
    for courier in pair:
        courier.wait_until_joined(NEVER)
    for courier in pair:
        for number in range(1, 6):
            courier.send(message(number))
    for courier in pair:
        courier.finish(NEVER)
    names = {courier.status.worker for courier in pair}
    assert len(names) == 2
    for name in names:
        assert numbers([segment for segment in learner.stored if segment.worker == name]) == [1, 2, 3, 4, 5]


def test_handing_over_never_waits_for_a_courier_that_hangs(couriers: Any, learner: FakeLearner) -> None:
    courier = couriers(buffer_bytes=1_000_000)
    courier.wait_until_joined(NEVER)
    wait_until(lambda: courier.process_id is not None)
    os.kill(courier.process_id, signal.SIGSTOP)
    content = [message(number, rows=300) for number in range(1, 201)]  # 90 kB each, 18 MB in all
    longest = 0.0
    for one in content:
        began = time.perf_counter()
        courier.send(one)
        longest = max(longest, time.perf_counter() - began)
    assert longest < 1.0  # not a bar: it would hang for ever
    assert not courier.has_room(None, may_drop=False)
    assert courier.has_room(None, may_drop=True)
    os.kill(courier.process_id, signal.SIGCONT)
    courier.finish(NEVER)
    arrived = numbers(learner.stored)
    assert arrived == sorted(set(arrived))
    assert arrived[-1] == 200
    assert courier.status.dropped == 200 - len(arrived) > 100
    assert learner.stored[-1].seq == 200


def test_a_full_outbox_that_pauses_says_so_and_goes_on_when_there_is_room(couriers: Any, learner: FakeLearner) -> None:
    learner.stores = False
    courier = couriers(outbox_bytes=10_000, outbox_policy="pause", compress=False)
    for number in range(1, 21):  # about 1.4 kB each
        courier.send(message(number))
    wait_until(lambda: bool(courier.status.full))
    assert not courier.has_room(None, may_drop=False)
    assert courier.status.taken < 20
    learner.stores = True
    courier.wait_for_room(None, False, NEVER)
    courier.finish(NEVER)
    assert numbers(learner.stored) == list(range(1, 21))
    assert courier.status.dropped == 0


def test_a_driver_that_pauses_is_never_further_ahead_than_the_outbox_and_one_segment(
    couriers: Any, learner: FakeLearner
) -> None:
    # A slow learner makes room again and again; what waits for the courier meanwhile has to count, too.
    learner.stores = False
    courier = couriers(outbox_bytes=10_000, outbox_policy="pause", compress=False)
    courier.wait_until_joined(NEVER)
    ahead: list[int] = []
    stop = threading.Event()

    def drive() -> None:
        for number in range(1, 61):
            courier.wait_for_room(None, False, stop)
            courier.send(message(number))
            ahead.append(courier.unacknowledged)

    driver = threading.Thread(target=drive)
    driver.start()
    most = 10_000 // len(message(1)) + 1
    wait_until(lambda: len(ahead) >= most)
    for number in range(1, 61):
        wait_until(lambda: learner.num_received >= number)  # noqa: B023
        learner.gateway.acknowledge({courier.status.worker: number})
    driver.join(60)
    stop.set()
    assert len(ahead) == 60
    assert max(ahead) == most
    courier.finish(NEVER)
    assert courier.status.dropped == 0


def test_a_driver_that_pauses_rests_while_the_courier_hangs(couriers: Any) -> None:
    courier = couriers(outbox_bytes=10_000, outbox_policy="pause")
    courier.wait_until_joined(NEVER)
    wait_until(lambda: courier.process_id is not None)
    os.kill(courier.process_id, signal.SIGSTOP)
    sent = 0
    while courier.has_room(None, may_drop=False) and sent < 100:
        sent += 1
        courier.send(message(sent))
    assert sent == 10_000 // len(message(1)) + 1
    os.kill(courier.process_id, signal.SIGCONT)
    courier.finish(NEVER)


def test_a_full_outbox_that_drops_counts_what_is_lost(couriers: Any, learner: FakeLearner) -> None:
    learner.crash()
    courier = couriers(outbox_bytes=10_000, compress=False)
    for number in range(1, 41):
        courier.send(message(number))
    wait_until(lambda: courier.status.taken == 40)
    learner.start()
    courier.finish(NEVER)
    arrived = numbers(learner.stored)
    assert arrived == list(range(41 - len(arrived), 41))
    assert courier.status.dropped == 40 - len(arrived) > 20


# --- refusals ---


def refusal(courier: Courier) -> str:
    with pytest.raises(RefusedError) as caught:
        courier.wait_until_joined(NEVER)
    return str(caught.value)


def test_a_wrong_token_is_refused_once(couriers: Any, learner: FakeLearner) -> None:
    (learner.credentials / "workers" / "pc" / "token").write_text("x" * 43)
    courier = couriers()
    assert "the token is not known here" in refusal(courier)
    time.sleep(0.5)
    assert courier.process_id is None
    assert learner.gateway.statistics()["gateway/refused"] == 1


def test_another_task_is_refused_and_the_outbox_kept(couriers: Any, learner: FakeLearner, tmp_path: Path) -> None:
    courier = couriers(fingerprint="task B")
    courier.send(message(1))
    assert "has another task than the learner" in refusal(courier)
    courier.close()
    with open_outbox(tmp_path / "outbox", 10**6, OutboxPolicy.drop_oldest, "task B", "next") as outbox:
        assert len(outbox) <= 1


def test_another_authority_is_not_trusted(couriers: Any, learner: FakeLearner, tmp_path: Path) -> None:
    make_credentials(tmp_path / "others", ["localhost"], ["pc"])
    courier = couriers(credentials=str(tmp_path / "others" / "workers" / "pc"))
    said = refusal(courier)
    assert "cannot be trusted" in said
    assert "ca.pem" in said


def test_an_address_that_is_not_in_the_certificate_is_not_trusted(tmp_path: Path, couriers: Any) -> None:
    with FakeLearner(tmp_path / "elsewhere", "task A", host="127.0.0.2") as learner:
        courier = couriers(address=learner.address, credentials=str(learner.credentials / "workers" / "pc"))
        assert "--hosts" in refusal(courier)


def test_plaintext_against_tls_is_told_from_a_learner_that_is_away(couriers: Any, learner: FakeLearner) -> None:
    courier = couriers(is_plaintext=True)
    assert "speaks TLS" in refusal(courier)


def test_tls_against_plaintext_is_told_from_a_learner_that_is_away(tmp_path: Path, couriers: Any) -> None:
    with FakeLearner(tmp_path / "open", "task A", is_plaintext=True) as learner:
        courier = couriers(address=learner.address, credentials=str(learner.credentials / "workers" / "pc"))
        assert "speaks plaintext" in refusal(courier)


def test_plaintext_works_when_both_sides_speak_it(tmp_path: Path, couriers: Any) -> None:
    with FakeLearner(tmp_path / "open", "task A", is_plaintext=True) as learner:
        credentials = str(learner.credentials / "workers" / "pc")
        courier = couriers(address=learner.address, credentials=credentials, is_plaintext=True)
        courier.send(message(1))
        courier.finish(NEVER)
        assert numbers(learner.stored) == [1]


def test_a_token_that_is_revoked_ends_a_worker_that_is_connected(couriers: Any, learner: FakeLearner) -> None:
    courier = couriers()
    courier.send(message(1))
    wait_until(lambda: len(learner.stored) == 1)
    book = learner.credentials / "learner" / "tokens.json"
    book.write_text('{"version": 1, "tokens": []}')
    with pytest.raises(RefusedError, match="revoked"):
        courier.wait_for_room(0, True, NEVER)


def test_a_message_above_the_learners_cap_is_no_reason_to_try_for_ever(tmp_path: Path, couriers: Any) -> None:
    with FakeLearner(tmp_path / "small", "task A", max_message_bytes=5_000) as learner:
        courier = couriers(
            address=learner.address, credentials=str(learner.credentials / "workers" / "pc"), compress=False
        )
        courier.send(message(1, rows=100))
        with pytest.raises(RefusedError, match="larger than max"):
            courier.wait_for_room(0, True, NEVER)


def test_a_message_above_the_own_cap_names_the_key(couriers: Any) -> None:
    courier = couriers(max_message_bytes=5_000, compress=False)
    courier.send(message(1, rows=100))
    with pytest.raises(RefusedError, match=r"worker\.samples_per_packet makes a message of 0\.0 MB"):
        courier.wait_for_room(0, True, NEVER)


def test_a_courier_that_keeps_dying_is_given_up_with_its_last_words(couriers: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("tasks.remote.worker.courier._FIRST_PAUSE_S", 0.01)
    courier = couriers(outbox_policy="no such policy")
    with pytest.raises(CourierFailedError, match="no such policy"):
        courier.wait_until_joined(NEVER)
