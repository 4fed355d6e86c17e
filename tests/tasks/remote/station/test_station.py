"""The station of a remote worker: a process between its link and a real gateway, with TLS; it may be killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tasks.experience.samples import Segment
from tasks.remote.access.credentials import make_credentials
from tasks.remote.access.dialing import RefusedError
from tasks.remote.config import OutboxPolicy
from tasks.remote.station import child_process
from tasks.remote.station.outbox import open_outbox
from tasks.remote.station.station_config import StationConfig
from tasks.remote.station.station_process import StationFailedError, StationProcess
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire import link
from tests.tasks.remote.fake_learner import SPEC, FakeLearner
from tests.tasks.remote.raw_worker import wait_until

pytestmark = pytest.mark.timeout(120)

NEVER = threading.Event()


def segment(number: int, rows: int = 2, stream: int = 0) -> Segment:
    """A segment whose rewards tell which one it is."""
    rng = np.random.default_rng(number)
    frames = {
        f.name: np.zeros((rows, *f.frame_shape), np.dtype(f.dtype))
        if f.name != "images"
        else rng.integers(0, 255, (rows, *f.frame_shape), np.uint8)
        for f in SPEC.fields
    }
    nothing = np.zeros(rows, np.bool_)
    return Segment(
        worker="worker",
        stream=stream,
        seq=0,
        frames=frames,
        action=np.zeros((rows, SPEC.action_size), np.float32),
        reward=np.full(rows, number, np.float32),
        terminated=nothing,
        truncated=nothing,
        is_first=np.arange(rows) == 0,
    )


def numbers(segments: list[Segment]) -> list[int]:
    return [int(segment.reward[0]) for segment in segments]


@pytest.fixture
def learner(tmp_path: Path) -> Iterator[FakeLearner]:
    with FakeLearner(tmp_path, "task A") as learner:
        yield learner


class Station(StationProcess):
    """A station, and the link of its worker once it is there."""

    def __init__(self, config: StationConfig, buffer_segments: int) -> None:
        super().__init__(config)
        self._buffer_segments = buffer_segments
        self._over = threading.Event()
        self._uplink: Uplink | None = None
        self.hangs_for_s = 0.0
        self.start()

    @property
    def uplink(self) -> Uplink:
        if self._uplink is None:
            config = self._config
            self.wait(lambda status: bool(status.listen), NEVER)
            self._uplink = Uplink(
                self.status.listen,
                config.token,
                link.Hello("worker", 0, "worker", config.fingerprint),
                self._over,
                window=10**9,
                buffer_segments=self._buffer_segments,
                hangs_for_s=lambda: self.hangs_for_s,
            )
            self.on_failure(self._uplink.fail)
            self._uplink.connect()
            self._uplink.start_pings()
            self._uplink.start(push=True)
        return self._uplink

    def send(self, segment: Segment) -> None:
        self.uplink.send(segment)

    def join(self) -> None:
        self.wait(lambda status: status.has_joined, NEVER)

    def take_all(self) -> None:
        """Waits until everything is in the outbox."""
        self.wait(lambda status: status.taken >= self.uplink.last_seq, NEVER)

    def finish(self) -> None:
        """Waits until everything is delivered."""
        self.take_all()
        self.wait(lambda status: not status.segments, NEVER)

    def close(self, grace_s: float = 3.0) -> None:
        self._over.set()
        if self._uplink is not None:
            self._uplink.close()
        super().close(grace_s)


@pytest.fixture
def stations(tmp_path: Path, learner: FakeLearner) -> Iterator[Any]:
    """Makes stations, started; ends them."""
    made: list[Station] = []

    def make(buffer_segments: int = 10**6, **kwargs: Any) -> Station:
        values: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "token": "t" * 43,
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
        made.append(Station(StationConfig(**(values | kwargs)), buffer_segments))
        return made[-1]

    yield make
    for station in made:
        station.close()


def test_segments_arrive_once_in_order_with_a_name_of_their_own(stations: Any, learner: FakeLearner) -> None:
    station = stations()
    for number in range(1, 41):
        station.send(segment(number, stream=number % 2))
    station.finish()
    assert numbers(learner.stored) == list(range(1, 41))
    assert [segment.seq for segment in learner.stored] == list(range(1, 41))
    assert {segment.stream for segment in learner.stored} == {1000, 1001}
    assert {segment.worker for segment in learner.stored} == {station.status.worker}
    assert station.status.worker.startswith("pc.")
    expected = segment(7).frames
    assert (learner.stored[6].frames["images"] == expected["images"]).all()
    assert station.status.segments == 0


def test_the_newest_weights_come_back(stations: Any, learner: FakeLearner) -> None:
    station = stations()
    learner.publish(0.1, 1)
    station.join()
    for version in range(2, 30):
        learner.publish(version / 100, version, size=100_000)
    seen: list[link.Weights] = []

    def newest_has_come() -> bool:
        weights = station.uplink.take_newest()
        if weights is not None:
            seen.append(link.decode_weights(weights))
        return bool(seen) and seen[-1].version == 29

    wait_until(newest_has_come)
    assert seen[-1].arrays["value"][0] == np.float32(0.29)
    assert [weights.version for weights in seen] == sorted({weights.version for weights in seen})
    assert station.uplink.take_newest() is None
    wait_until(lambda: station.status.weights_version == 29)


def test_the_learner_hears_that_the_environment_hangs_and_that_it_is_over(stations: Any, learner: FakeLearner) -> None:
    station = stations()
    station.hangs_for_s = 31.0
    station.join()
    station.send(segment(1))

    def hangs_for_s() -> float:
        return max((worker.hangs_for_s for worker in learner.gateway.workers()), default=0.0)

    wait_until(lambda: hangs_for_s() >= 31.0)
    station.hangs_for_s = 0.0
    wait_until(lambda: hangs_for_s() == 0.0)


def test_a_station_leaves_ctrl_c_and_a_closed_terminal_to_its_worker(stations: Any, learner: FakeLearner) -> None:
    station = stations()
    station.join()
    process_id = station.process_id
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(process_id, number)
    station.send(segment(1))
    station.finish()
    assert station.process_id == process_id


def test_a_station_that_is_killed_loses_and_doubles_nothing(stations: Any, learner: FakeLearner) -> None:
    station = stations()
    station.join()
    killed: set[int | None] = set()
    for number in range(1, 301):
        station.send(segment(number, rows=20))
        if number in (100, 200):
            wait_until(lambda: station.process_id not in (None, *killed) and station.status.taken > 0)
            killed.add(station.process_id)
            os.kill(station.process_id, signal.SIGKILL)
    station.finish()
    assert len(killed) == 2
    assert numbers(learner.stored) == list(range(1, 301))
    assert {segment.stream for segment in learner.stored} == {1000}


def test_a_learner_that_is_killed_gets_again_what_it_had_not_stored(stations: Any, learner: FakeLearner) -> None:
    station = stations()
    for number in range(1, 11):
        station.send(segment(number))
    wait_until(lambda: len(learner.stored) == 10)
    learner.stores = False
    for number in range(11, 21):
        station.send(segment(number))
    wait_until(lambda: learner.num_received == 20)
    wait_until(lambda: station.status.segments == 10)  # what is stored is told a moment after it is
    learner.crash()
    for number in range(21, 31):
        station.send(segment(number))
    learner.stores = True
    learner.start()
    station.finish()
    assert numbers(learner.stored) == list(range(1, 31))


def test_what_is_not_delivered_waits_for_the_next_start(stations: Any, learner: FakeLearner, tmp_path: Path) -> None:
    learner.crash()
    first = stations()
    for number in range(1, 31):
        first.send(segment(number))
    first.take_all()
    began = time.monotonic()
    first.close()
    assert time.monotonic() - began < 20.0
    assert first.status.segments == 30
    learner.start()
    second = stations()
    for number in range(31, 41):
        second.send(segment(number))
    second.finish()
    assert second.status.worker == first.status.worker
    assert numbers(learner.stored) == list(range(1, 41))
    assert [segment.stream for segment in learner.stored] == [1000] * 30 + [2000] * 10


def test_two_workers_of_one_machine_need_no_hand_edits(stations: Any, learner: FakeLearner) -> None:
    pair = [stations(), stations()]
    for station in pair:
        station.join()
    for station in pair:
        for number in range(1, 6):
            station.send(segment(number))
    for station in pair:
        station.finish()
    names = {station.status.worker for station in pair}
    assert len(names) == 2
    for name in names:
        assert numbers([segment for segment in learner.stored if segment.worker == name]) == [1, 2, 3, 4, 5]


def test_handing_over_never_waits_for_a_station_that_hangs(stations: Any, learner: FakeLearner) -> None:
    station = stations(buffer_segments=20)
    station.join()
    uplink = station.uplink
    os.kill(station.process_id, signal.SIGSTOP)
    content = [segment(number, rows=300) for number in range(1, 201)]  # 90 kB each, 18 MB in all
    longest = 0.0
    for one in content:
        began = time.perf_counter()
        uplink.send(one)
        longest = max(longest, time.perf_counter() - began)
    assert longest < 1.0  # not a bar: it would hang for ever
    os.kill(station.process_id, signal.SIGCONT)
    station.finish()
    arrived = numbers(learner.stored)
    assert arrived == sorted(set(arrived))
    assert arrived[-1] == 200
    assert station.status.dropped == 200 - len(arrived) > 100


def test_a_full_outbox_that_pauses_says_so_and_goes_on_when_there_is_room(stations: Any, learner: FakeLearner) -> None:
    learner.stores = False
    station = stations(outbox_bytes=10_000, outbox_policy="pause", compress=False)
    for number in range(1, 21):  # about 1.4 kB each
        station.send(segment(number))
    wait_until(lambda: bool(station.status.full))
    assert station.status.taken < 20
    assert station.uplink.unreceived > 0
    learner.stores = True
    station.finish()
    assert numbers(learner.stored) == list(range(1, 21))
    assert station.status.dropped == 0


@pytest.mark.parametrize("holds_back", [True, False])
def test_a_worker_may_forget_what_is_stored_or_in_real_time_what_is_in_the_outbox(
    stations: Any, learner: FakeLearner, holds_back: bool
) -> None:
    learner.stores = False
    station = stations(holds_back=holds_back)
    for number in range(1, 11):
        station.send(segment(number))
    wait_until(lambda: learner.num_received == 10 and not station.uplink.unreceived)
    kept = (lambda: station.uplink.bytes_after(0) > 0) if holds_back else (lambda: station.uplink.bytes_after(0) == 0)
    wait_until(kept)
    learner.stores = True
    wait_until(lambda: station.uplink.bytes_after(0) == 0)


def test_a_full_outbox_that_drops_counts_what_is_lost(stations: Any, learner: FakeLearner) -> None:
    learner.crash()
    station = stations(outbox_bytes=10_000, compress=False)
    for number in range(1, 41):
        station.send(segment(number))
    station.take_all()
    learner.start()
    station.finish()
    arrived = numbers(learner.stored)
    assert arrived == list(range(41 - len(arrived), 41))
    assert station.status.dropped == 40 - len(arrived) > 20


# --- refusals ---


def refusal(station: Station) -> str:
    with pytest.raises(RefusedError) as caught:
        station.join()
    return str(caught.value)


def test_a_wrong_token_is_refused_once(stations: Any, learner: FakeLearner) -> None:
    (learner.credentials / "workers" / "pc" / "token").write_text("x" * 43)
    station = stations()
    assert "the token is not known here" in refusal(station)
    time.sleep(0.5)
    assert station.process_id is None
    assert learner.gateway.statistics()["gateway/refused"] == 1


def test_another_task_is_refused_and_the_outbox_kept(stations: Any, learner: FakeLearner, tmp_path: Path) -> None:
    station = stations(fingerprint="task B")
    with suppress(RefusedError):  # kept in any case, and raised where the answer was quick
        station.send(segment(1))
    assert "has another task than the learner" in refusal(station)
    station.close()
    with open_outbox(tmp_path / "outbox", 10**6, OutboxPolicy.drop_oldest, "task B", "next") as outbox:
        assert len(outbox) <= 1


def test_another_authority_is_not_trusted(stations: Any, learner: FakeLearner, tmp_path: Path) -> None:
    make_credentials(tmp_path / "others", ["localhost"], ["pc"])
    station = stations(credentials=str(tmp_path / "others" / "workers" / "pc"))
    said = refusal(station)
    assert "cannot be trusted" in said
    assert "ca.pem" in said


def test_an_address_that_is_not_in_the_certificate_is_not_trusted(tmp_path: Path, stations: Any) -> None:
    with FakeLearner(tmp_path / "elsewhere", "task A", host="127.0.0.2") as learner:
        station = stations(address=learner.address, credentials=str(learner.credentials / "workers" / "pc"))
        assert "--hosts" in refusal(station)


def test_plaintext_against_tls_is_told_from_a_learner_that_is_away(stations: Any, learner: FakeLearner) -> None:
    station = stations(is_plaintext=True)
    assert "speaks TLS" in refusal(station)


def test_tls_against_plaintext_is_told_from_a_learner_that_is_away(tmp_path: Path, stations: Any) -> None:
    with FakeLearner(tmp_path / "open", "task A", is_plaintext=True) as learner:
        station = stations(address=learner.address, credentials=str(learner.credentials / "workers" / "pc"))
        assert "speaks plaintext" in refusal(station)


def test_plaintext_works_when_both_sides_speak_it(tmp_path: Path, stations: Any) -> None:
    with FakeLearner(tmp_path / "open", "task A", is_plaintext=True) as learner:
        credentials = str(learner.credentials / "workers" / "pc")
        station = stations(address=learner.address, credentials=credentials, is_plaintext=True)
        station.send(segment(1))
        station.finish()
        assert numbers(learner.stored) == [1]


def test_a_token_that_is_revoked_ends_a_worker_that_is_connected(stations: Any, learner: FakeLearner) -> None:
    station = stations()
    station.send(segment(1))
    wait_until(lambda: len(learner.stored) == 1)
    book = learner.credentials / "learner" / "tokens.json"
    book.write_text('{"version": 1, "tokens": []}')
    with pytest.raises(RefusedError, match="revoked"):
        station.wait(lambda status: False, NEVER)


def test_a_message_above_the_learners_cap_is_no_reason_to_try_for_ever(tmp_path: Path, stations: Any) -> None:
    with FakeLearner(tmp_path / "small", "task A", max_message_bytes=5_000) as learner:
        station = stations(
            address=learner.address, credentials=str(learner.credentials / "workers" / "pc"), compress=False
        )
        station.send(segment(1, rows=100))
        with pytest.raises(RefusedError, match="larger than max"):
            station.finish()


def test_a_message_above_the_own_cap_names_the_key(stations: Any) -> None:
    station = stations(max_message_bytes=5_000, compress=False)
    station.send(segment(1, rows=100))
    with pytest.raises(RefusedError, match=r"worker\.samples_per_packet makes a message of 0\.0 MB"):
        station.finish()


def test_a_station_that_keeps_dying_is_given_up_with_its_last_words(stations: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("tasks.remote.station.child_process.FIRST_PAUSE_S", 0.01)
    station = stations(outbox_policy="no such policy")
    with pytest.raises(StationFailedError, match="no such policy"):
        station.join()


def test_hanging_up_while_another_thread_does_so_is_fine() -> None:
    class Closing:
        def close(self) -> None:
            raise ValueError("PyMemoryView_FromBuffer(): info->buf must not be NULL")  # what Python says then

    process: Any = SimpleNamespace(stdin=Closing(), pid=1)
    child_process.hang_up(process)
