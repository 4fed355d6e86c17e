"""Processes that are killed (kill -9) and restarted: no row is lost or duplicated."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults.conftest import NUM_WORKERS, AddRow
from tests.faults.rig import Rig, WorkerProcess, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.mark.fault("learner killed (kill -9) twice")
def test_a_killed_learner_resumes_with_the_rows_it_had_stored(rig: Rig, add_row: AddRow) -> None:
    # The learner is slower than the worker, so that it has many unstored segments in memory when it is killed.
    learner, worker = rig.learner(segment_s=0.05), rig.worker(episodes=60, step_s=0.001)
    learner.start()
    worker.start()
    in_memory: list[int] = []
    loaded: list[int] = []
    for rows in (400, 1_200):
        learner.await_rows(rows, worker)
        in_memory.append(learner.unacknowledged)
        learner.kill()
        learner.start(segment_s=0.0 if loaded else 0.05)
        loaded.append(learner.status["loaded"])
    worker.finish()
    assert min(in_memory) > 10
    assert 0 < loaded[0] < loaded[1] < 3_840
    remark = (
        f"with {in_memory[0]} and {in_memory[1]} segments in memory; resumed with {loaded[0]:,} and {loaded[1]:,} rows"
    )
    add_row(rig.account(learner, w0=3_840), remark)


@pytest.mark.fault("worker killed (kill -9)")
def test_a_killed_worker_delivers_the_rows_in_its_outbox(rig: Rig, add_row: AddRow) -> None:
    # The learner is much slower than the worker, so that there is a backlog when the worker is killed.
    learner, worker = rig.learner(segment_s=0.5), rig.worker(episodes=100, step_s=0.001)
    learner.start()
    worker.start()
    sent, undriven = 0, 0
    for rows in (1_000, 3_000):
        worker.await_made(rows, learner)
        worker.kill()
        undriven += worker.made - worker.kept
        assert worker.kept > learner.rows
        sent = worker.start_again(5_000)
    learner.kill()
    learner.start(segment_s=0.0)
    worker.finish()
    add_row(rig.account(learner, w0=sent), f"twice; {undriven} rows were only in its memory and were driven again")


@pytest.mark.fault("station killed (kill -9) twice")
def test_a_killed_station_is_restarted(rig: Rig, add_row: AddRow) -> None:
    learner, worker = rig.learner(), rig.worker(episodes=60, step_s=0.003)
    learner.start()
    worker.start()
    stations = set()
    for rows in (600, 1_800):
        learner.await_rows(rows, worker)
        stations.add(worker.station_pid())
        os.kill(worker.station_pid(), signal.SIGKILL)
    worker.finish()
    assert len(stations) == 2
    add_row(rig.account(learner, w0=3_840))


@pytest.mark.fault("learner and worker killed at once")
def test_learner_and_worker_recover_when_both_are_killed(rig: Rig, add_row: AddRow) -> None:
    learner, worker = rig.learner(segment_s=0.05), rig.worker(episodes=100, step_s=0.001)
    learner.start()
    worker.start()
    learner.await_rows(800, worker)
    assert learner.unacknowledged > 10
    learner.kill()
    worker.kill()
    sent = worker.start_again(4_000)
    wait_until(lambda: "next try" in worker.tail(), worker)
    learner.start()
    learner.await_rows(2_000, worker)
    worker.kill()
    learner.kill()
    learner.start(segment_s=0.0)
    sent = worker.start_again(6_000)
    worker.finish()
    add_row(rig.account(learner, w0=sent), "twice: the worker restarted first, then the learner")


@pytest.mark.fault("learner slowed to 1 segment/s")
def test_a_slow_learner_makes_workers_wait_with_bounded_memory(rig: Rig, add_row: AddRow) -> None:
    # 130 kB a segment: seven of them fill the outbox of 1 MB.
    rig.picture_bytes = 8_192
    learner = rig.learner(segment_s=1.0)
    worker = rig.worker(episodes=6, outbox_mb=1, step_s=0.01)
    learner.start()
    worker.start()
    ahead: list[int] = []

    def has_many_rows() -> bool:
        ahead.append(worker.made - learner.rows)
        return learner.rows >= 128

    wait_until(has_many_rows, learner, worker)
    assert max(ahead) <= 320, "the worker did not wait"
    worker.finish(120.0)
    add_row(rig.account(learner, w0=384), f"the worker waited, at most {max(ahead)} rows ahead")


@pytest.mark.fault("16 workers at once")
def test_sixteen_workers_share_a_machine_names_and_an_outbox_folder(rig: Rig, add_row: AddRow) -> None:
    learner = rig.learner()
    workers: list[WorkerProcess] = []
    for index in range(16):
        name = f"w{index % NUM_WORKERS}"
        outbox = rig.folder / f"{name}.outbox"
        workers.append(rig.worker(name, log=f"worker-{index}", outbox=outbox, episodes=20, step_s=0.002, window=16))
    learner.start()
    for worker in workers:
        worker.start()
    wait_until(lambda: learner.status["workers"] == 16 or learner.rows == 16 * 1_280, learner, *workers)
    for worker in workers:
        worker.finish()
    stored = rig.stored(learner)
    assert len(stored.numbers) == 16
    account = stored.account(dict.fromkeys(stored.numbers, 1_280))
    add_row(account, f"started with {NUM_WORKERS} different commands, no key edited by hand")


@pytest.mark.fault("relay killed (kill -9)")
def test_a_killed_relay_is_replaced_by_a_new_one(rig: Rig, add_row: AddRow) -> None:
    to_workers, to_learner = rig.proxy, rig.another_proxy()
    relay = rig.relay([to_workers, to_learner])
    learner, worker = rig.learner(is_local=False, relay=to_learner.address), rig.worker(episodes=60, step_s=0.002)
    relay.start()
    learner.start()
    worker.start()
    for rows in (600, 1_800):
        learner.await_rows(rows, worker, relay)
        relay.kill()
        relay.start()
    worker.finish()
    add_row(rig.account(learner, w0=3_840), "twice")


@pytest.mark.fault("learner and relay killed while a backlog is on its way")
def test_killing_learner_and_relay_loses_nothing_of_the_relays_memory(rig: Rig, add_row: AddRow) -> None:
    to_workers, to_learner = rig.proxy, rig.another_proxy()
    relay = rig.relay([to_workers, to_learner])
    # The learner is slower than the worker, so that relay and learner have many segments in memory.
    learner = rig.learner(is_local=False, relay=to_learner.address, segment_s=0.05)
    worker = rig.worker(episodes=60, step_s=0.001)
    relay.start()
    learner.start()
    worker.start()
    learner.await_rows(400, worker, relay)
    assert learner.unacknowledged > 10
    learner.kill()
    worker.await_made(min(worker.made + 1_000, 3_840), relay)
    relay.kill()
    relay.start()
    learner.start(segment_s=0.0)
    worker.finish()
    add_row(rig.account(learner, w0=3_840), "first the learner, then the relay")


@pytest.mark.fault("learner away from a relay")
def test_workers_keep_everything_while_the_learner_is_away_from_the_relay(rig: Rig, add_row: AddRow) -> None:
    to_workers, to_learner = rig.proxy, rig.another_proxy()
    relay = rig.relay([to_workers, to_learner])
    learner, worker = rig.learner(is_local=False, relay=to_learner.address), rig.worker(episodes=60, step_s=0.002)
    relay.start()
    learner.start()
    worker.start()
    learner.await_rows(400, worker, relay)
    learner.kill()
    wait_until(lambda: "episodes are driven" in worker.tail(), worker, relay)
    assert worker.is_running, "the worker ended before the learner had stored everything"
    learner.start()
    worker.finish()
    add_row(rig.account(learner, w0=3_840))


@pytest.mark.fault("learner behind a relay slowed to 1 segment/s")
def test_a_slow_learner_behind_a_relay_makes_workers_wait_with_bounded_memory(rig: Rig, add_row: AddRow) -> None:
    # 130 kB a segment: seven of them fill the outbox of 1 MB.
    rig.picture_bytes = 8_192
    to_learner = rig.another_proxy()
    relay = rig.relay([rig.proxy, to_learner])
    learner = rig.learner(is_local=False, relay=to_learner.address, segment_s=1.0)
    worker = rig.worker(episodes=6, outbox_mb=1, step_s=0.01)
    relay.start()
    learner.start()
    worker.start()
    ahead: list[int] = []

    def has_many_rows() -> bool:
        ahead.append(worker.made - learner.rows)
        return learner.rows >= 128

    wait_until(has_many_rows, learner, worker, relay)
    # Segments that only the relay has are not durable, so the size of the outbox limits both.
    assert max(ahead) <= 320, "the worker did not wait"
    worker.finish(120.0)
    add_row(rig.account(learner, w0=384), f"the worker waited, at most {max(ahead)} rows ahead")
