"""The relay over real sockets, learner and workers on both sides: exactly once, and room."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.remote.access.admission import Admission, Refusals
from tasks.remote.access.credentials import ClientCredentials, load_server
from tasks.remote.access.listener import Listener
from tasks.remote.learner.relay_link import RelayLink
from tasks.remote.station.calls import Call, OpenCalls
from tasks.remote.wire import link, relay_messages
from tasks.remote.wire.relay_messages import Content, Item, Marks, PullRequest, RelayStatus
from tests.tasks.remote.raw_worker import (
    FINGERPRINT,
    SPEC,
    Folder,
    Reader,
    make_segment,
    wait_until,
)
from tests.tasks.remote.relay_site import (
    DiskWorker,
    Site,
    last_acknowledgement,
    numbers,
    push_all,
    take,
)

pytestmark = pytest.mark.timeout(120)


# --- exactly once ---


def test_segments_come_through_in_order_and_durable_comes_back(
    site: Site, folder: Folder, learner: ClientCredentials
) -> None:
    with site.relay(), site.link(learner) as relay_link, site.worker(folder.alice) as alice:
        wait_until(lambda: relay_link.is_connected)
        reader = push_all(alice, range(1, 21), 0)
        assert take(relay_link, 20) == numbers(alice, 1, 20)
        assert last_acknowledgement(reader) == (20, 0)
        relay_link.acknowledge({alice.identity: 15, "somebody else": 7})
        wait_until(lambda: last_acknowledgement(reader) == (20, 15))
        relay_link.acknowledge({alice.identity: 20})
        wait_until(lambda: last_acknowledgement(reader) == (20, 20))
        assert relay_link.statistics()["gateway/duplicates"] == 0


def test_while_the_learner_is_away_workers_keep_what_they_have(
    site: Site, folder: Folder, learner: ClientCredentials, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(site.relay())
        with site.link(learner) as relay_link:
            wait_until(lambda: relay_link.is_connected)
        wait_until(lambda: not relay.state().learner)
        workers = [
            stack.enter_context(DiskWorker(site, credentials, tmp_path / credentials.name))
            for credentials in (folder.alice, folder.bob)
        ]
        for worker in workers:
            worker.send(15)
        time.sleep(0.3)
        assert relay.state().waiting_segments == 0
        assert [len(worker.outbox) for worker in workers] == [15, 15]
        with site.link(learner) as relay_link:
            taken = take(relay_link, 30)
            for worker in workers:
                own = [entry for entry in taken if entry[0] == worker.identity]
                assert own == [(worker.identity, seq) for seq in range(1, 16)]
            assert [len(worker.outbox) for worker in workers] == [15, 15]
            relay_link.acknowledge({worker.identity: 15 for worker in workers})
            wait_until(lambda: [len(worker.outbox) for worker in workers] == [0, 0])
            assert relay_link.statistics()["gateway/duplicates"] == 0


def test_what_was_acknowledged_last_is_heard_although_the_learner_leaves(
    site: Site, folder: Folder, learner: ClientCredentials
) -> None:
    with site.relay(), site.link(learner) as relay_link, site.worker(folder.alice) as alice:
        wait_until(lambda: relay_link.is_connected)
        reader = push_all(alice, range(1, 6), 0)
        take(relay_link, 5)
        relay_link.acknowledge({alice.identity: 5})
        relay_link.close()
        wait_until(lambda: last_acknowledgement(reader) == (5, 5))


def test_a_learner_that_comes_back_gets_what_its_storage_lacks(
    site: Site, folder: Folder, learner: ClientCredentials, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(site.relay())
        with site.link(learner) as relay_link:
            worker = stack.enter_context(DiskWorker(site, folder.alice, tmp_path / "outbox"))
            worker.send(20)
            take(relay_link, 20)
            relay_link.acknowledge({worker.identity: 8})
            wait_until(lambda: len(worker.outbox) == 12)
        # It had received 20 and stored 12; the last four were stored when it died, before it could say so.
        with site.link(learner, received={worker.identity: 12}) as relay_link:
            assert take(relay_link, 8) == [(worker.identity, seq) for seq in range(13, 21)]
            wait_until(lambda: len(worker.outbox) == 8)
            assert relay_link.statistics()["gateway/duplicates"] == 0


def test_a_connection_of_the_learner_that_breaks_loses_nothing_that_was_on_its_way(
    site: Site, folder: Folder, learner: ClientCredentials, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(site.relay())
        # The learner takes three at a time, so that most are at the relay or between the two when the line breaks.
        relay_link = stack.enter_context(site.link(learner, queue_segments=3))
        worker = stack.enter_context(DiskWorker(site, folder.alice, tmp_path / "outbox"))
        worker.send(40)
        taken = take(relay_link, 5)
        for _ in range(2):
            relay_link._call.cancel()
            wait_until(lambda: not relay_link.is_connected)
            taken += take(relay_link, 5)
        taken += take(relay_link, 25)
        assert taken == [(worker.identity, seq) for seq in range(1, 41)]


def test_a_learner_and_a_worker_outlive_a_relay(
    site: Site, folder: Folder, learner: ClientCredentials, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        with site.relay():
            relay_link = stack.enter_context(site.link(learner))
            worker = stack.enter_context(DiskWorker(site, folder.alice, tmp_path / "outbox"))
            worker.send(10)
            taken = take(relay_link, 10)
            relay_link.acknowledge({worker.identity: 4})
            wait_until(lambda: len(worker.outbox) == 6)
        worker.send(10)
        wait_until(lambda: not relay_link.is_connected)
        with site.relay():
            worker.send(10)
            taken += take(relay_link, 20)
            assert taken == [(worker.identity, seq) for seq in range(1, 31)]
            relay_link.acknowledge({worker.identity: 30})
            wait_until(lambda: len(worker.outbox) == 0)


def test_a_relay_that_is_lost_loses_nothing_even_when_the_learner_loses_its_memory_next(
    site: Site, folder: Folder, learner: ClientCredentials, tmp_path: Path
) -> None:
    """The learner has 30 in memory and 10 on its disk; then the relay is lost, then the learner's memory."""
    with contextlib.ExitStack() as stack:
        with site.relay():
            relay_link = stack.enter_context(site.link(learner))
            worker = stack.enter_context(DiskWorker(site, folder.alice, tmp_path / "outbox"))
            worker.send(30)
            assert len(take(relay_link, 30)) == 30
            relay_link.acknowledge({worker.identity: 10})
            wait_until(lambda: len(worker.outbox) == 20)
        with site.relay():
            worker.send(5)
            assert take(relay_link, 5) == [(worker.identity, seq) for seq in range(31, 36)]
            relay_link.close()
            second = stack.enter_context(site.link(learner, received={worker.identity: 10}))
            assert take(second, 25) == [(worker.identity, seq) for seq in range(11, 36)]
            second.acknowledge({worker.identity: 35})
            wait_until(lambda: len(worker.outbox) == 0)


def test_a_new_relay_takes_nothing_before_a_learner_has_been_there(
    site: Site, folder: Folder, learner: ClientCredentials, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        with site.relay(), site.link(learner) as relay_link:
            worker = stack.enter_context(DiskWorker(site, folder.alice, tmp_path / "outbox"))
            worker.send(12)
            take(relay_link, 12)
            relay_link.acknowledge({worker.identity: 5})
            wait_until(lambda: len(worker.outbox) == 7)
        with site.relay():
            worker.send(3)
            wait_until(lambda: "no learner has been at this relay yet" in worker.uplink.trouble)
            with site.link(learner, received={worker.identity: 5}) as relay_link:
                assert take(relay_link, 10) == [(worker.identity, seq) for seq in range(6, 16)]


def test_segments_that_came_another_way_are_known(site: Site, folder: Folder, learner: ClientCredentials) -> None:
    """A worker that dialled the learner itself meanwhile."""
    with (
        site.relay(),
        site.link(learner, received={"alice.00000001": 25}) as relay_link,
        site.worker(folder.alice) as alice,
    ):
        wait_until(lambda: relay_link.is_connected)
        assert alice.hello() == 25
        reader = Reader(alice.push()[0])
        wait_until(lambda: last_acknowledgement(reader) == (25, 25))


def test_the_learner_drops_what_comes_twice(learner: ClientCredentials, folder: Folder) -> None:
    """A relay that sends everything again, in a second connection and within one."""
    name = "alice.00000001"
    pulls: list[PullRequest] = []
    marks: list[Marks] = []

    def pull(requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
        call.take_up()
        pulls.append(relay_messages.decode_pull_request(next(requests)))
        yield relay_messages.encode_item(Item(Content.status, status=RelayStatus((), 0, 0, 0)))
        for seq in (1, 2, 3, 2, 3, 4):
            yield relay_messages.encode_item(Item(Content.segment, name, seq, 0))
            yield link.encode_segment(make_segment(name, seq))
        if len(pulls) > 1:
            marks.extend(relay_messages.decode_marks(message) for message in requests)

    server = load_server(folder.path / "relay")
    calls = OpenCalls()
    check = calls.check_at(Admission(server.tokens, Refusals()))
    listener = Listener("127.0.0.1:0", {"Pull": pull}, check, 8, credentials=server.channel, is_remote=True)
    with (
        contextlib.closing(calls),
        contextlib.closing(listener),
        RelayLink(listener.address, learner, SPEC, FINGERPRINT) as relay_link,
    ):
        assert take(relay_link, 4) == [(name, seq) for seq in range(1, 5)]
        relay_link.acknowledge({name: 3})
        wait_until(lambda: relay_link.statistics()["gateway/duplicates"] == 8)
        assert relay_link.receive(0.0) == []
        # What it has is said at the next greeting, and again when something comes that should not have.
        assert (pulls[1].received[name], pulls[1].durable.get(name, 0) in (0, 3)) == (4, True)
        wait_until(lambda: any(mark.durable == {name: 3} for mark in marks))


def test_a_gap_in_the_numbers_stays_a_gap(site: Site, folder: Folder, learner: ClientCredentials) -> None:
    with site.relay(), site.link(learner) as relay_link, site.worker(folder.alice) as alice:
        wait_until(lambda: relay_link.is_connected)
        assert alice.hello() == 0
        _, send = alice.push()
        for seq in (3, 4, 4, 3, 9):
            send(seq)
        assert take(relay_link, 3) == [(alice.identity, seq) for seq in (3, 4, 9)]
        wait_until(lambda: sum(worker.duplicates for worker in relay_link.workers()) == 2)


# --- room ---


def test_workers_wait_while_the_learner_does_not_keep_up(
    site: Site, folder: Folder, learner: ClientCredentials, tmp_path: Path
) -> None:
    # 40 kB each: more than sockets hold on their way.
    segment = make_segment("alice.00000001", 1)
    site.queue_bytes = 5 * len(link.encode_segment(segment)) + 10
    with (
        site.relay() as relay,
        site.link(learner, queue_segments=2) as relay_link,
        DiskWorker(site, folder.alice, tmp_path / "outbox") as worker,
    ):
        worker.send(3_000)
        wait_until(lambda: relay.state().is_full)
        assert relay.state().waiting_segments <= 6
        assert len(worker.outbox) == 3_000
        taken: list[tuple[str, int]] = []
        while len(taken) < 3_000:
            assert relay.state().waiting_segments <= 6
            taken += take(relay_link, 500)
            relay_link.acknowledge({worker.identity: len(taken)})
        assert taken == [(worker.identity, seq) for seq in range(1, 3_001)]
        wait_until(lambda: len(worker.outbox) == 0)
        assert not relay.state().is_full


def test_a_worker_that_waits_does_not_hold_up_the_end(site: Site, folder: Folder, learner: ClientCredentials) -> None:
    with site.relay() as relay:
        with site.link(learner) as relay_link:
            wait_until(lambda: relay_link.is_connected)
        with site.worker(folder.alice) as alice:
            assert alice.hello() == 0
            _, send = alice.push()
            for seq in range(1, 4):
                send(seq)
            time.sleep(0.2)
            start = time.monotonic()
            relay.close()
            relay.close()
            assert time.monotonic() - start < 15.0
