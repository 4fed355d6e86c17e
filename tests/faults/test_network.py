"""Networks that are cut, silent, half open or slow: every segment is stored exactly once."""

from __future__ import annotations

import time

import pytest

from tests.faults import namespaces
from tests.faults.conftest import AddRow
from tests.faults.rig import Rig

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.mark.fault("connection cut (RST) for 8 s")
def test_a_reset_connection_is_reopened(rig: Rig, add_row: AddRow) -> None:
    learner, worker = rig.learner(), rig.worker(episodes=120, step_s=0.0015)
    learner.start()
    worker.start()
    learner.await_rows(800, worker)
    rig.proxy.cut()
    dials = rig.proxy.connections
    time.sleep(8.0)
    attempts = rig.proxy.connections - dials
    rig.proxy.restore()
    worker.finish()
    assert attempts >= 1
    add_row(rig.account(learner, w0=7_680), f"{attempts} attempts to connect meanwhile")


@pytest.mark.fault("silent hole for 25 s")
def test_a_silent_network_loses_nothing(rig: Rig, add_row: AddRow) -> None:
    learner, worker = rig.learner(), rig.worker(episodes=200, step_s=0.002)
    learner.start()
    worker.start()
    learner.await_rows(800, worker)
    rig.proxy.swallow()
    before = worker.made
    time.sleep(25.0)
    driven = worker.made - before
    rig.proxy.restore()
    worker.finish()
    add_row(rig.account(learner, w0=12_800), f"{driven:,} rows were driven meanwhile")


@pytest.mark.fault("packets dropped for 35 s")
def test_both_sides_close_a_dead_connection_and_reconnect(rig: Rig, add_row: AddRow) -> None:
    with namespaces.Network() as network:
        learner = rig.learner(listen=f"{namespaces.LEARNER}:0", is_local=False, prefix=network.at_learner)
        learner.start()
        address = learner.status["address"]
        worker = rig.worker(address=address, prefix=network.at_worker, episodes=150, step_s=0.004)
        worker.start()
        learner.await_rows(800, worker)
        network.drop_packets()
        # Longer than the keepalive timeout, so that both sides close the connection; neither sees the other do so.
        time.sleep(35.0)
        is_noticed = learner.status["workers"] == 0
        network.deliver_packets()
        worker.finish()
        assert is_noticed, "the learner still counted the worker as connected"
        add_row(rig.account(learner, w0=9_600), "in network namespaces; the learner counted the worker as disconnected")


@pytest.mark.fault("half-open peers")
def test_stale_connections_keep_no_worker_out(rig: Rig, add_row: AddRow) -> None:
    learner, worker = rig.learner(max_workers=1), rig.worker(episodes=1_000, step_s=0.002)
    learner.start()
    worker.start()
    for _ in range(3):
        learner.await_more(500, worker)
        rig.proxy.strand("server")
    learner.await_more(500, worker)
    assert learner.status["workers"] == 1
    rig.proxy.strand("client")
    learner.await_more(500, worker)
    # A killed worker also reconnects while its old connection looks open.
    rig.proxy.strand("server")
    worker.kill()
    sent = worker.start_again(worker.kept + 3_000)
    worker.finish()
    add_row(rig.account(learner, w0=sent), "five dead connections, at both ends; one worker admitted")


@pytest.mark.fault("slow network")
def test_a_worker_on_a_slow_network_delays_no_other(rig: Rig, add_row: AddRow) -> None:
    rig.picture_bytes = 1_024
    slowly = rig.another_proxy()
    learner = rig.learner()
    slow = rig.worker("w0", address=slowly.address, episodes=40, step_s=0.001)
    fast = rig.worker("w1", episodes=40, step_s=0.001)
    learner.start()
    slowly.target = rig.proxy.target
    slowly.bytes_per_s = 50_000
    slow.start()
    fast.start()
    fast.finish()
    is_behind = slow.is_running
    slowly.bytes_per_s = None
    slow.finish()
    assert is_behind
    add_row(rig.account(learner, w0=2_560, w1=2_560), "50 kB/s; the other worker was not delayed")
