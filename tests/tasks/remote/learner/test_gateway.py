"""Gateway and uplink against each other in one process: who may join, exactly once, backpressure, newest weights."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from tasks.acting.rollout import Rollout
from tasks.experience.evaluation_report import EpisodeResult, EvaluationReport
from tasks.experience.samples import Segment
from tasks.remote.access.dialing import RefusedError
from tasks.remote.learner.gateway import Gateway
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire import link
from tasks.remote.wire.methods import path_of
from tests.tasks.remote.fakes import CountingEnv, RandomPolicy
from tests.tasks.remote.raw_worker import num_connected, wait_until

pytestmark = pytest.mark.timeout(60)

SPEC = CountingEnv().observation_spec


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway(SPEC, "task A", queue_segments=4) as gateway:
        yield gateway


@contextmanager
def uplink_to(gateway: Gateway, worker: str = "w", role: str = "worker", **kwargs: Any) -> Iterator[Uplink]:
    stop = threading.Event()
    hello = link.Hello(worker, 0, role, kwargs.pop("fingerprint", "task A"))
    uplink = Uplink(gateway.address, kwargs.pop("token", gateway.token), hello, stop, **kwargs)
    try:
        yield uplink
    finally:
        stop.set()
        uplink.close()


def make_rollout(worker: str = "w", length: int = 5) -> Rollout:
    return Rollout(CountingEnv(length=length), RandomPolicy(), worker, 0, 0)


def drain(gateway: Gateway, count: int) -> list[Segment]:
    segments: list[Segment] = []
    deadline = time.monotonic() + 10.0
    while len(segments) < count:
        assert time.monotonic() < deadline, f"only {len(segments)} of {count} segments came"
        segments += gateway.receive(0.1, count - len(segments))
    return segments


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"token": "guessed"}, "the token is not the one of this run"),
        ({"fingerprint": "task B"}, "another task than the learner: fingerprint 'task B', expected 'task A'"),
    ],
)
def test_strangers_are_refused_at_once_and_told_why(gateway: Gateway, kwargs: dict[str, Any], message: str) -> None:
    with uplink_to(gateway, **kwargs) as uplink:
        start = time.monotonic()
        with pytest.raises(RefusedError, match=message):
            uplink.connect()
        assert time.monotonic() - start < 20.0  # it would dial for ever
    assert gateway.statistics()["gateway/refused"] == 1
    assert num_connected(gateway) == 0


def test_another_schema_version_is_refused_at_once_and_told_why(gateway: Gateway) -> None:
    with uplink_to(gateway) as uplink:
        uplink._hello_message = uplink._hello_message[:4] + (9).to_bytes(4, "little") + uplink._hello_message[8:]
        with pytest.raises(RefusedError, match="schema version 9, this side speaks 1"):
            uplink.connect()


@pytest.mark.parametrize("method", ["Hello", "Push", "Weights", "Report", "LockStep"])
def test_every_method_asks_for_the_token(gateway: Gateway, method: str) -> None:
    with grpc.insecure_channel(gateway.address) as channel:
        call = channel.stream_stream(path_of(method))
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b""]), metadata=(("worker", "w"),), timeout=5))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_the_gateway_listens_on_this_machine_only(gateway: Gateway) -> None:
    assert gateway.address.startswith("127.0.0.1:")
    assert len(gateway.token) >= 40
    with Gateway(SPEC, "task A") as other:
        assert other.token != gateway.token
        assert other.address != gateway.address


def test_a_segment_that_cannot_be_read_ends_the_worker_not_the_gateway(gateway: Gateway) -> None:
    with uplink_to(gateway) as uplink:
        uplink.connect()
        uplink.start(push=True)
        uplink.send(replace(make_rollout().run(3), reward=np.zeros(3, np.float64)))
        with pytest.raises(RefusedError, match="'reward' must be float32"):
            uplink.wait_newest()
    with uplink_to(gateway, "v") as uplink:
        uplink.connect()
        uplink.start(push=True)
        uplink.send(make_rollout("v").run(3))
        assert [segment.worker for segment in drain(gateway, 1)] == ["v"]


def test_a_segment_in_another_workers_name_is_refused(gateway: Gateway) -> None:
    with uplink_to(gateway) as uplink:
        uplink.connect()
        uplink.start(push=True)
        uplink.send(make_rollout("somebody else").run(3))
        with pytest.raises(RefusedError, match="somebody else"):
            uplink.wait_newest()


def test_the_full_queue_holds_segments_back_without_losing_any(gateway: Gateway) -> None:
    rollout = make_rollout()
    with uplink_to(gateway, window=100, buffer_segments=100) as uplink:
        uplink.connect()
        uplink.start(push=True)
        for _ in range(20):
            uplink.send(rollout.run(3))
        wait_until(lambda: gateway.statistics()["gateway/queue_depth"] == 4)
        time.sleep(0.2)
        assert gateway.statistics()["gateway/queue_depth"] == 4
        segments = gateway.receive(1.0, max_segments=1) + drain(gateway, 19)
        assert [segment.seq for segment in segments] == list(range(1, 21))


def test_a_lost_connection_is_taken_up_again_without_loss_or_repetition(gateway: Gateway) -> None:
    rollout = make_rollout()
    segments: list[Segment] = []
    with uplink_to(gateway, window=1000, buffer_segments=1000) as uplink:
        uplink.connect()
        uplink.start(push=True)
        for i in range(60):
            uplink.send(rollout.run(3))
            segments += gateway.receive(0.01)
            if i % 20 == 10:
                for call in list(uplink._calls):
                    call.cancel()
        segments += drain(gateway, 60 - len(segments))
    assert [segment.seq for segment in segments] == list(range(1, 61))


def test_a_repeated_segment_is_dropped_and_counted(gateway: Gateway) -> None:
    messages = [link.encode_segment(replace(make_rollout().run(3), seq=seq)) for seq in (1, 2, 1, 2, 3)]
    with uplink_to(gateway) as uplink, grpc.insecure_channel(gateway.address) as channel:
        uplink.connect()
        call = channel.stream_stream(path_of("Push"))(iter(messages), metadata=uplink._metadata)
        assert [segment.seq for segment in drain(gateway, 3)] == [1, 2, 3]
        assert gateway.statistics()["gateway/duplicates"] == 2
        gateway.acknowledge({"w": 2, "unknown": 5})
        while link.decode_acknowledgement(next(call)) != (3, 2):
            pass
        call.cancel()


def test_a_second_stream_of_a_worker_takes_over_from_its_ghost(gateway: Gateway) -> None:
    with uplink_to(gateway) as uplink, grpc.insecure_channel(gateway.address) as channel:
        uplink.connect()
        never = threading.Event()

        def silence() -> Iterator[bytes]:
            never.wait(20)
            yield from ()

        stub = channel.stream_stream(path_of("Push"))
        ghost = stub(silence(), metadata=uplink._metadata)
        wait_until(lambda: num_connected(gateway) == 1)
        message = link.encode_segment(replace(make_rollout().run(3), seq=1))
        alive = stub(iter([message]), metadata=uplink._metadata)
        assert [segment.seq for segment in drain(gateway, 1)] == [1]
        list(ghost)  # ends by itself
        alive.cancel()
        never.set()


def test_a_slow_worker_sees_only_the_newest_weights(gateway: Gateway) -> None:
    with uplink_to(gateway) as uplink:
        uplink.connect()
        uplink.start(push=False)
        big = {"w": np.zeros(200_000, np.float32)}
        for version in range(1, 101):
            gateway.publish(big, version)
        wait_until(lambda: (m := uplink._newest) is not None and link.decode_weights(m).version == 100)
        assert link.decode_weights(uplink.take_newest() or b"").version == 100
        assert uplink.take_newest() is None


def test_a_late_worker_gets_the_weights_that_are_there(gateway: Gateway) -> None:
    gateway.publish({"w": np.ones(3, np.float32)}, 5)
    with uplink_to(gateway) as uplink:
        uplink.connect()
        uplink.start(push=False)
        assert link.decode_weights(uplink.wait_newest() or b"").version == 5


def test_what_failed_is_raised_to_who_waits(gateway: Gateway) -> None:
    threading.Timer(0.2, gateway.fail, [RuntimeError("the wheel fell off")]).start()
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="the wheel fell off"):
        gateway.receive(20.0)
    assert time.monotonic() - start < 15.0


def test_stopping_ends_a_wait_for_room_and_for_a_learner_that_is_not_there() -> None:
    stop = threading.Event()
    uplink = Uplink("127.0.0.1:1", "t", link.Hello("w", 0, "worker", "f"), stop)
    threading.Timer(0.3, stop.set).start()
    start = time.monotonic()
    uplink.connect()
    assert time.monotonic() - start < 15.0
    uplink.send(make_rollout().run(1))
    assert not uplink.wait_for_room()
    uplink.close()


def test_close_is_quick_with_workers_connected_and_twice() -> None:
    gateway = Gateway(SPEC, "task A")
    with uplink_to(gateway) as uplink:
        uplink.connect()
        uplink.start(push=True)
        wait_until(lambda: num_connected(gateway) == 1)
        start = time.monotonic()
        gateway.close()
        gateway.close()
        assert time.monotonic() - start < 15.0


def test_an_evaluation_whose_report_was_lost_on_its_way_is_driven_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a station or a relay that dies after it has taken the report."""
    monkeypatch.setattr(Gateway, "take_report", lambda _, message: None)
    with uplink_to(gateway) as uplink:
        uplink.connect()
        uplink.start(push=True, requests=True)
        gateway.request_evaluation({"w": np.ones(3, np.float32)}, 3, [0])
        wait_until(lambda: uplink.has_request)
        request = uplink.take_request()
        assert request is not None
        number = link.decode_evaluation_request(request).id
        result = EpisodeResult(0, True, 30.0, 100.0, 1.0, 0)
        uplink.report(link.encode_evaluation_report(EvaluationReport((result,), 3), number))
        for call in list(uplink._calls):
            call.cancel()  # with the next connection comes what was not answered
        wait_until(lambda: uplink.has_request)
        assert uplink.take_request() == request
