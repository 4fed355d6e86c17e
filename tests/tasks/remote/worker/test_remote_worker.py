"""``--worker``: drives for a real learner over TLS, ends in good order, and says what is wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.acting.env_source import EnvSource
from tasks.experience.samples import Segment
from tasks.remote.access.fingerprint import agreed_fingerprint
from tasks.remote.config import OutboxPolicy, RemoteConfig, RemoteWorkerConfig
from tasks.remote.station.outbox import open_outbox
from tasks.remote.station.segment_queue import size_of
from tasks.remote.worker import remote_worker
from tests.tasks.remote.fake_learner import FakeLearner
from tests.tasks.remote.fakes import CountingEnv
from tests.tasks.remote.raw_worker import num_connected, wait_until

pytestmark = pytest.mark.timeout(120)

FAKES = "tests.tasks.remote.fakes"
GAME = "tests.tasks.remote.fake_learner:make_resting_game"
POLICY: dict[str, Any] = {"function": f"{FAKES}:make_policy", "kwargs": {}}


def source(function: str = "make_env", **kwargs: Any) -> EnvSource:
    return EnvSource({}, f"{FAKES}:{function}", kwargs)


@pytest.fixture(autouse=True)
def _no_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop without pauses in real-time priority leaves nothing of the machine to anybody else."""
    monkeypatch.setattr(remote_worker, "punctual", contextlib.nullcontext)


@pytest.fixture
def learner(tmp_path: Path) -> Iterator[FakeLearner]:
    with FakeLearner(tmp_path, agreed_fingerprint(source().describe().fingerprint, POLICY)) as learner:
        yield learner


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., RemoteWorkerConfig]:
    def make(**kwargs: Any) -> RemoteWorkerConfig:
        return RemoteWorkerConfig(**({"outbox": str(tmp_path / "outbox")} | kwargs))

    return make


class Running:
    """A worker that drives in a thread of this process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.stop = threading.Event()
        self.code: int | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(args, kwargs), daemon=True)
        self._thread.start()

    def _run(self, args: Any, kwargs: Any) -> None:
        try:
            self.code = remote_worker.drive(*args, stop=self.stop, headless=True, **kwargs)
        except BaseException as error:
            self.error = error

    def end(self) -> int:
        self.stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self.code is not None, self.error
        return self.code


def steps(segments: list[Segment]) -> int:
    return sum(segment.num_env_steps for segment in segments)


def rows(segments: list[Segment], name: str) -> list[float]:
    return [float(row) for segment in segments for row in segment.frames[name][:, 0]]


def test_so_many_episodes_are_driven_and_delivered(learner: FakeLearner, config: Any) -> None:
    code = remote_worker.drive(
        source(), learner.remote(), config(episodes=7, samples_per_packet=4), POLICY, headless=True
    )
    assert code == 0
    # Ten steps and one reset each; the seventh is the last row.
    assert rows(learner.stored, "count") == [*range(11)] * 7
    assert [len(segment) for segment in learner.stored] == [4] * 19 + [1]
    assert sum(len(segment.episodes) for segment in learner.stored) == 7


def test_weights_of_the_learner_drive(learner: FakeLearner, config: Any) -> None:
    running = Running(source(step_s=0.002), learner.remote(), config(), POLICY)
    wait_until(lambda: len(learner.stored) > 2)
    learner.publish(0.25, 8)
    wait_until(lambda: learner.stored[-1].weights_version == 8)
    wait_until(lambda: (learner.stored[-1].action[1:] == np.float32(0.25)).any())
    learner.publish(0.5, 9)
    wait_until(lambda: learner.stored[-1].weights_version == 9)
    assert running.end() == 0


def test_an_expert_ignores_the_learner(learner: FakeLearner, config: Any) -> None:
    learner.publish(0.25, 8)
    weights = {"value": np.array([0.75], np.float32)}
    configuration = config(expert=True, episodes=6)
    assert (
        remote_worker.drive(source(), learner.remote(), configuration, POLICY, expert_weights=weights, headless=True)
        == 0
    )
    assert {segment.weights_version for segment in learner.stored} == {1}
    steps_only = [~segment.is_first for segment in learner.stored]
    actions = np.concatenate([segment.action[mask] for segment, mask in zip(learner.stored, steps_only, strict=True)])
    assert (actions == np.float32(0.75)).all()


def test_a_deterministic_worker_takes_the_mean_action(learner: FakeLearner, config: Any) -> None:
    weights = {"value": np.array([-0.5], np.float32)}  # the fake policy explores below zero
    configuration = config(expert=True, deterministic=True, episodes=1)
    assert (
        remote_worker.drive(source(), learner.remote(), configuration, POLICY, expert_weights=weights, headless=True)
        == 0
    )
    assert (learner.stored[0].action[1:] == np.float32(-0.5)).all()


def test_every_kth_version_of_the_weights_is_kept(learner: FakeLearner, config: Any, tmp_path: Path) -> None:
    import safetensors.numpy

    running = Running(source(step_s=0.002), learner.remote(), config(weights_history=3), POLICY)
    wait_until(lambda: bool(learner.stored))
    for version in range(1, 9):
        learner.publish(version / 10, version)
        wait_until(lambda: learner.stored[-1].weights_version == version)  # noqa: B023
    running.end()
    files = sorted((tmp_path / "outbox" / "weights").iterdir())
    assert [path.name for path in files] == ["000000003.safetensors", "000000006.safetensors"]
    assert safetensors.numpy.load_file(files[1])["value"][0] == np.float32(0.6)


def test_several_environments_are_streams_of_one_worker(learner: FakeLearner, config: Any) -> None:
    configuration = config(envs_per_worker=3, episodes=9)
    assert remote_worker.drive(source(), learner.remote(), configuration, POLICY, headless=True) == 0
    streams = {segment.stream for segment in learner.stored}
    assert streams == {1000, 1001, 1002}
    for stream in streams:
        own = [segment for segment in learner.stored if segment.stream == stream]
        counts = rows(own, "count")
        assert counts == [index % 11 for index in range(len(counts))]
    seeds = [set(rows([s for s in learner.stored if s.stream == stream], "seed")) for stream in streams]
    assert len(set.union(*seeds)) == sum(map(len, seeds))


def test_a_simulator_waits_for_its_learner(learner: FakeLearner, config: Any) -> None:
    learner.stores = False
    running = Running(source(), learner.remote(), config(), POLICY, window=4)
    wait_until(lambda: learner.num_received == 4)
    time.sleep(0.5)
    assert learner.num_received == 4
    learner.stores = True
    wait_until(lambda: len(learner.stored) > 20)
    running.end()


def test_real_time_goes_on_while_the_learner_is_away_and_drops_the_oldest(tmp_path: Path, config: Any) -> None:
    game = EnvSource({}, GAME, {"folder": str(tmp_path), "length": 99})
    with FakeLearner(tmp_path / "learner", agreed_fingerprint(game.describe().fingerprint, POLICY)) as learner:
        configuration = config(outbox_mb=1, compress=False, samples_per_packet=100)  # room for some 250
        running = Running(game, learner.remote(), configuration, POLICY)
        wait_until(lambda: len(learner.stored) > 0)
        learner.crash()
        episodes = (tmp_path / "diary").read_text().count("end")
        wait_until(lambda: (tmp_path / "diary").read_text().count("end") > episodes + 600)
        learner.start()
        wait_until(lambda: len(learner.stored) > 50)
        running.end()
        segments = learner.stored
        assert [segment.seq for segment in segments] == sorted({segment.seq for segment in segments})
        assert segments[-1].seq - len(segments) > 100
        # Each is an episode of its own: reset, 99 steps.
        assert rows(segments[:-1], "count") == [index % 100 for index in range(100 * (len(segments) - 1))]


def test_real_time_with_the_policy_to_pause_rests_between_two_episodes(tmp_path: Path, config: Any) -> None:
    game = EnvSource({}, GAME, {"folder": str(tmp_path), "length": 1000})
    diary = tmp_path / "diary"
    with FakeLearner(tmp_path / "learner", agreed_fingerprint(game.describe().fingerprint, POLICY)) as learner:
        learner.stores = False
        configuration = config(outbox_policy=OutboxPolicy.pause, outbox_mb=1, compress=False, samples_per_packet=300)
        running = Running(game, learner.remote(), configuration, POLICY)
        wait_until(lambda: diary.exists() and "wait" in diary.read_text())
        resets = diary.read_text().count("reset")
        time.sleep(0.5)
        assert diary.read_text().count("reset") == resets
        learner.stores = True
        wait_until(lambda: diary.read_text().count("reset") > resets + 3)
        running.end()
        segments = sorted(learner.stored, key=lambda segment: segment.seq)
        assert [segment.seq for segment in segments] == list(range(1, len(segments) + 1))
        is_first = np.concatenate([segment.is_first for segment in segments])
        counts = np.array(rows(segments, "count"))
        jumps = np.diff(counts) != 1
        assert (is_first[1:] == jumps).all()
        assert 0 < counts[:-1][jumps].min() < 1000  # an episode was left in the middle
        assert steps(segments) == len(counts) - is_first.sum()


@pytest.mark.parametrize(
    "hangs", [False, pytest.param(True, marks=pytest.mark.skipif(os.name != "posix", reason="signals"))]
)
def test_a_worker_that_pauses_is_no_further_ahead_than_its_outbox_and_one_segment(
    tmp_path: Path, config: Any, hangs: bool
) -> None:
    """Whether the learner stores nothing, or the station takes nothing in."""
    game = EnvSource({}, GAME, {"folder": str(tmp_path), "length": 99})
    diary = tmp_path / "diary"
    with FakeLearner(tmp_path / "learner", agreed_fingerprint(game.describe().fingerprint, POLICY)) as learner:
        learner.stores = hangs
        pausing = config(outbox_policy=OutboxPolicy.pause, outbox_mb=1, compress=False, samples_per_packet=100)
        running = Running(game, learner.remote(), pausing, POLICY)
        # An episode is a segment.
        wait_until(lambda: learner.num_received >= 1)
        stored = (learner.stored + learner._pending)[0]
        if hangs:
            station = station_pid()
            os.kill(station, signal.SIGSTOP)
        before = diary.read_text().count("end") if hangs else 0
        wait_until(lambda: "wait" in diary.read_text())
        time.sleep(0.3)
        ahead = diary.read_text().count("end") - before
        assert ahead <= 1_000_000 // size_of(stored) + 2
        if hangs:
            os.kill(station, signal.SIGCONT)
        learner.stores = True
        wait_until(lambda: diary.read_text().count("end") > before + ahead)
        running.end()
        assert [segment.seq for segment in learner.stored] == list(range(1, len(learner.stored) + 1))


def station_pid() -> int:
    """Of the station that this process has started."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    (line,) = [line for line in listed.stdout.splitlines() if "worker_station" in line]
    return int(line.split()[0])


@pytest.mark.parametrize("where", ["make", "step"])
def test_an_environment_that_hangs_is_told_to_the_learner_and_said_here(
    where: str, learner: FakeLearner, config: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on = threading.Event()
    owner: Any = {"make": EnvSource, "step": CountingEnv}[where]
    call = getattr(owner, where)

    def hang(*args: Any) -> Any:
        if learner.gateway.workers():  # it has joined: not while the environment is only described
            goes_on.wait(60)
        return call(*args)

    def hangs_for_s() -> float:
        return max((worker.hangs_for_s for worker in learner.gateway.workers()), default=0.0)

    monkeypatch.setattr(owner, where, hang)
    monkeypatch.setattr("tasks.process.step_watch.HANGING_S", 0.1)
    monkeypatch.setattr("tasks.process.step_watch.LOOK_EVERY_S", 0.05)
    running = Running(source(), learner.remote(), config(), POLICY)
    wait_until(lambda: hangs_for_s() > 0.0)
    wait_until(lambda: "this worker has not stepped for" in caplog.text)
    goes_on.set()
    wait_until(lambda: hangs_for_s() == 0.0)
    wait_until(lambda: "this worker steps again" in caplog.text)
    assert running.end() == 0


def test_a_refusal_is_final_and_said_once(learner: FakeLearner, config: Any, caplog: pytest.LogCaptureFixture) -> None:
    other: dict[str, Any] = {"function": f"{FAKES}:make_policy", "kwargs": {"fail_at_version": 3}}
    began = time.monotonic()
    assert remote_worker.drive(source(), learner.remote(), config(), other, headless=True) == 2
    assert time.monotonic() - began < 30.0
    assert [record.message.count("has another network than the learner") for record in caplog.records].count(1) >= 1
    assert learner.gateway.statistics()["gateway/refused"] == 1


def test_what_breaks_in_the_environment_comes_out_and_what_was_driven_is_kept(
    learner: FakeLearner, config: Any, tmp_path: Path
) -> None:
    broken = source(fail_at=100)
    learner.stores = False
    with pytest.raises(RuntimeError, match="the wheel fell off"):
        remote_worker.drive(broken, learner.remote(), config(samples_per_packet=8), POLICY, headless=True, window=100)
    with open_outbox(tmp_path / "outbox", 10**9, OutboxPolicy.drop_oldest, learner.fingerprint, "next") as outbox:
        assert outbox.state().segments == 100 * 11 // 10 // 8


SCRIPT = """
import logging, sys
from tasks.remote.worker import remote_worker
from tasks.remote.config import RemoteWorkerConfig, RemoteConfig
from tests.tasks.remote.worker.test_remote_worker import POLICY, source
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
address, credentials, outbox, kind = sys.argv[1:]
kwargs = {"step_s": 0.002} if kind == "good" else {"step_s": 1000.0}
code = remote_worker.drive(
    source(**kwargs), RemoteConfig(address=address, credentials=credentials), RemoteWorkerConfig(outbox=outbox), POLICY
)
heavy = {"ray", "rl_games", "torch", "tensorboard"} & set(sys.modules)
print("code", code, "heavy", sorted(heavy))
sys.exit(code)
"""


@pytest.fixture
def start_process(learner: FakeLearner, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    processes = []

    def start(kind: str = "good") -> subprocess.Popen[str]:
        remote = learner.remote()
        words = [str(remote.address), str(remote.credentials), str(tmp_path / "outbox"), kind]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGHUP))],
)
def test_ctrl_c_ends_it_in_good_order_and_keeps_the_outbox(
    learner: FakeLearner, start_process: Any, tmp_path: Path, number: int
) -> None:
    process = start_process()
    wait_until(lambda: len(learner.stored) > 3)
    learner.stores = False
    wait_until(lambda: learner.num_received - len(learner.stored) >= 4)
    began = time.monotonic()
    os.killpg(process.pid, number)  # as the terminal does
    out, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert time.monotonic() - began < 20.0  # 5 s on a machine that has nothing else to do
    assert out == "code 0 heavy []\n"
    assert "wait in" in log
    learner.stores = True
    wait_until(lambda: len(learner.stored) == learner.num_received)
    first = len(learner.stored)
    process = start_process()
    wait_until(lambda: len(learner.stored) > first + 3)
    os.killpg(process.pid, number)
    process.communicate(timeout=60)
    by_seq = sorted(learner.stored, key=lambda segment: segment.seq)
    assert [segment.seq for segment in by_seq] == list(range(1, len(by_seq) + 1))
    assert {segment.worker for segment in by_seq} == {by_seq[0].worker}
    for stream in (1000, 2000):
        own = [segment for segment in by_seq if segment.stream == stream]
        assert own[0].is_first[0]
        counts = rows(own, "count")
        assert counts == [index % 11 for index in range(len(counts))]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_kill_9_of_a_worker_loses_nothing_that_was_handed_over(learner: FakeLearner, start_process: Any) -> None:
    process = start_process()
    wait_until(lambda: len(learner.stored) > 3)
    process.kill()
    process.wait()
    start_process()
    before = len(learner.stored)
    wait_until(lambda: len(learner.stored) > before + 5)
    by_seq = sorted(learner.stored, key=lambda segment: segment.seq)
    assert [segment.seq for segment in by_seq] == list(range(1, len(by_seq) + 1))
    assert {segment.stream for segment in by_seq} == {1000, 2000}
    assert len({segment.worker for segment in by_seq}) == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_environment_that_hangs_does_not_hold_up_the_end(learner: FakeLearner, start_process: Any) -> None:
    process = start_process("hanging")
    wait_until(lambda: num_connected(learner.gateway) == 1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("remote", "worker", "message"),
    [
        ({"address": None}, {}, r"remote\.address must be host:port"),
        ({"credentials": None}, {}, r"remote\.credentials must be this worker's folder"),
        ({"credentials": "/nowhere"}, {}, "there is no folder /nowhere"),
        ({}, {"name": "laptop"}, r"worker\.name must be 'pc'.*got 'laptop'"),
        ({}, {"expert": True}, r"worker\.expert=true and --checkpoint FILE belong together"),
        ({}, {"samples_per_packet": 5000}, r"worker\.samples_per_packet must be <= 4096, got 5000"),
        ({}, {"envs_per_worker": 1001}, r"worker\.envs_per_worker must be <= 1000, got 1001"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_starts(
    learner: FakeLearner, config: Any, remote: dict[str, Any], worker: dict[str, Any], message: str
) -> None:
    values = {"address": learner.address, "credentials": str(learner.credentials / "workers" / "pc")} | remote
    with pytest.raises(ValueError, match=message):
        remote_worker.drive(source(), RemoteConfig(**values), config(**worker), POLICY, headless=True)


def test_pausing_in_real_time_needs_episodes_that_begin_anew(tmp_path: Path, learner: FakeLearner, config: Any) -> None:
    game = source("make_single_game", folder=str(tmp_path), reset_act_buf=False)
    with pytest.raises(ValueError, match=r"task\.rtgym\.reset_act_buf must be true"):
        remote_worker.drive(game, learner.remote(), config(outbox_policy=OutboxPolicy.pause), POLICY, headless=True)


def test_one_game_has_one_environment(tmp_path: Path, learner: FakeLearner, config: Any) -> None:
    game = source("make_single_game", folder=str(tmp_path))
    with pytest.raises(ValueError, match=r"worker\.envs_per_worker must be 1 with a single game"):
        remote_worker.drive(game, learner.remote(), config(envs_per_worker=2), POLICY, headless=True)
