"""The whole program on separate machines: workers that cannot reach the learner train a policy with it.

The machines are those of ``benchmarks.two_machines``, whose clean-up is tested here, too.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.two_machines.network import ROOT, Network, remove_left_over
from benchmarks.two_machines.training import LEARNER, PORT, RELAY, Outcome, Setting, Way, train
from tests.faults.permission import need_root, refuse
from tests.faults.rig import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

STEPS = 2_500
QUICKLY = ("train.params.config.env_steps_before_training=500", "train.params.config.evaluation_episodes=1")
HOLD = "from benchmarks.two_machines.network import Network; Network(['a', 'b'], 'a', 4.0).__enter__(); input()"


@pytest.fixture(autouse=True)
def machines_can_be_made() -> None:
    need_root("a network namespace")
    try:
        with Network(("a", "b"), "a", 4.0):
            pass
    except (OSError, subprocess.SubprocessError) as error:
        refuse(f"network namespaces cannot be made: {error}")


def namespaces(pid: int) -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split() if name.startswith(f"tm20-{pid}-")]


def reached(outcome: Outcome) -> set[tuple[str, str]]:
    return {pair for pair, took in outcome.round_trips.items() if took is not None}


def test_workers_and_learner_that_reach_only_a_relay_train_together(tmp_path: Path) -> None:
    outcome = train(Setting(Way.relay, steps=STEPS, round_trip_ms=20.0, words=QUICKLY), tmp_path)
    others = (LEARNER, "pc1", "pc2")
    assert reached(outcome) == {(RELAY, other) for other in others} | {(other, RELAY) for other in others}
    assert all(took is None or took >= 0.020 for took in outcome.round_trips.values())
    (relayed,) = outcome.open_ports.pop(RELAY)
    assert relayed.endswith(f":{PORT}")
    assert outcome.open_ports == {other: [] for other in others}
    segments = outcome.segments
    assert (segments.workers, segments.lost, segments.doubled, segments.dropped) == (2, 0, 0, 0)
    assert segments.env_steps == outcome.steps >= STEPS
    assert outcome.driven.episodes == 10
    assert all(received > 0.1 and sent > 0.01 for received, sent in outcome.megabytes.values())


def test_ctrl_c_leaves_no_machine_and_no_process_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.two_machines", "--ways", "direct", "--folder", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / "1_direct_s0" / LEARNER / f"{LEARNER}.log"
        wait_until(lambda: process.poll() is not None or (log.exists() and "workers join at" in log.read_text()))
        assert namespaces(process.pid)
        assert len(processes_in(tmp_path)) >= 3
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted; what was started has ended\n")
    assert not namespaces(process.pid)
    assert not processes_in(tmp_path)


def test_what_a_killed_command_left_is_removed_by_the_next() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], cwd=ROOT, stdin=subprocess.PIPE) as process:
        wait_until(lambda: len(namespaces(process.pid)) == 3)
        process.kill()
    assert namespaces(process.pid)
    remove_left_over()
    assert not namespaces(process.pid)


def processes_in(folder: Path) -> list[Path]:
    """Processes that run in this folder or below."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            is_in = link.readlink().is_relative_to(folder)
        except OSError:  # it has ended
            continue
        if is_in:
            found.append(link)
    return found
