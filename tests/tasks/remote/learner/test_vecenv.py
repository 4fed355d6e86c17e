"""RemoteVecEnv end to end, with real worker processes and fake environments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.experience.samples import Segment
from tasks.remote.launch.launch import LocalLauncher, Place, WorkerFailed
from tasks.remote.learner.vecenv import RemoteVecEnv
from tasks.remote.station import child_process
from tests.tasks.remote.raw_worker import num_connected, wait_report, wait_until

pytestmark = pytest.mark.timeout(90)

FAKES = "tests.tasks.remote.fakes"
POLICY = {"function": f"{FAKES}:make_policy", "kwargs": {}}


def make(num_actors: int = 1, env: dict[str, Any] | None = None, **kwargs: Any) -> RemoteVecEnv:
    defaults: dict[str, Any] = {"policy": POLICY, "segment_rows": 8, "window": 3}
    source = {"function": f"{FAKES}:make_env", "kwargs": env or {}}
    return RemoteVecEnv("Counting", num_actors, env=source, **(defaults | kwargs))


@contextmanager
def started(*args: Any, **kwargs: Any) -> Iterator[RemoteVecEnv]:
    with make(*args, **kwargs) as vecenv:
        vecenv.start()
        yield vecenv


def receive(vecenv: RemoteVecEnv, count: int, timeout_s: float = 30.0, acknowledge: bool = True) -> list[Segment]:
    segments: list[Segment] = []
    deadline = time.monotonic() + timeout_s
    while len(segments) < count:
        assert time.monotonic() < deadline, f"only {len(segments)} of {count} segments came"
        new = vecenv.link.receive(0.5)
        segments += new
        if acknowledge:
            vecenv.link.acknowledge({segment.worker: segment.seq for segment in new})
    return segments


def num_of(segments: list[Segment], worker: str) -> int:
    return sum(segment.worker.startswith(worker) for segment in segments)


def assert_whole_and_in_order(segments: list[Segment]) -> None:
    """Exactly once and in order: numbers 1..N per worker, and the env's own counter without a gap per stream."""
    for worker in {segment.worker for segment in segments}:
        own = [segment for segment in segments if segment.worker == worker]
        assert [segment.seq for segment in own] == list(range(1, len(own) + 1))
        for stream in {segment.stream for segment in own}:
            rows = [segment for segment in own if segment.stream == stream]
            counts = np.concatenate([segment.frames["count"][:, 0] for segment in rows])
            firsts = np.concatenate([segment.is_first for segment in rows])
            assert firsts[0]
            np.testing.assert_array_equal(counts[firsts], 0)
            np.testing.assert_array_equal(counts[1:][~firsts[1:]], counts[:-1][~firsts[1:]] + 1)


def test_rows_arrive_in_order_and_exactly_once_from_every_worker() -> None:
    with started(num_actors=3, num_workers=2) as vecenv:
        segments = receive(vecenv, 1)
        while min(num_of(segments, "worker-0"), num_of(segments, "worker-1")) < 30:
            segments += receive(vecenv, 1)
    assert {(segment.worker.split(".")[0], segment.stream) for segment in segments} == {
        ("worker-0", 0),
        ("worker-0", 1),
        ("worker-1", 0),
    }
    assert_whole_and_in_order(segments)
    assert all(len(segment) == 8 for segment in segments)
    episodes = [episode for segment in segments for episode in segment.episodes]
    assert episodes
    assert all(episode["length"] == 10 and np.isnan(episode["lap_time_s"]) for episode in episodes)


def test_a_worker_is_held_at_the_window_until_it_is_acknowledged() -> None:
    with started(window=3) as vecenv:
        segments = receive(vecenv, 3, acknowledge=False)
        time.sleep(0.5)
        assert vecenv.link.receive(0.2) == []
        vecenv.link.acknowledge({segments[0].worker: 2})
        more = receive(vecenv, 2, acknowledge=False)
        time.sleep(0.3)
        assert vecenv.link.receive(0.2) == []
        assert_whole_and_in_order(segments + more)
        assert vecenv.statistics()["gateway/unacknowledged"] == 3


def test_a_waiting_worker_uses_no_processor_time() -> None:
    with started(window=2) as vecenv:
        receive(vecenv, 2, acknowledge=False)
        pid = vecenv.process_ids()[Place("worker", 0)]
        time.sleep(0.3)
        before = cpu_seconds(pid)
        time.sleep(1.0)
        assert cpu_seconds(pid) - before <= 0.2  # a loop without a pause would take most of the second


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("roles", [{"worker", "evaluator"}, {"lock_step"}], ids=["asynchronous", "lock step"])
def test_an_environment_that_hangs_while_it_is_made_is_shown(roles: set[str], tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    env = {"function": f"{FAKES}:make_hanging", "kwargs": {"go_on": str(go_on), "learner": os.getpid()}}
    policy = None if "lock_step" in roles else POLICY
    with RemoteVecEnv("Hanging", 1, env=env, policy=policy, evaluator=policy is not None) as vecenv:
        vecenv.start()
        wait_until(lambda: {worker.role for worker in vecenv.workers() if worker.hangs_for_s} == roles)
        go_on.touch()
        wait_until(lambda: not any(worker.hangs_for_s for worker in vecenv.workers()))
        assert {worker.role for worker in vecenv.workers()} == roles


def test_newest_weights_win() -> None:
    with started(window=1) as vecenv:
        segments = receive(vecenv, 1, acknowledge=False)
        assert segments[0].weights_version == 0
        for version in range(1, 20):
            vecenv.link.publish({"value": np.array([version / 100], np.float32)}, version)
        wait_until(lambda: vecenv.statistics()["gateway/workers"] == 1)
        time.sleep(0.3)
        vecenv.link.acknowledge({segments[0].worker: 1})
        (segment,) = receive(vecenv, 1)
        assert segment.weights_version == 19
        np.testing.assert_array_equal(segment.action[~segment.is_first], np.float32(0.19))
        statistics = vecenv.statistics()
        assert statistics["gateway/weights_lag"] == 0
        assert 0 < statistics["gateway/weights_age_s"] < 10


def test_a_killed_worker_is_restarted_under_a_new_name_and_counted() -> None:
    with started() as vecenv:
        before = receive(vecenv, 4)
        assert vecenv._pool is not None
        launcher = vecenv._pool.launcher
        assert isinstance(launcher, LocalLauncher)
        process = launcher._processes[Place("worker", 0)]
        os.kill(process.pid, signal.SIGKILL)
        old = before[0].worker
        segments = before
        while segments[-1].worker == old:
            segments += receive(vecenv, 1)
        segments += receive(vecenv, 3)
        assert_whole_and_in_order(segments)
        assert vecenv.statistics()["gateway/restarts"] == 1
        pipes = (process.stdin, process.stdout, process.stderr)
        assert [pipe is not None and pipe.closed for pipe in pipes] == [True, True, True]
        first = next(segment for segment in segments if segment.worker != old)
        assert (first.frames["seed"][0] != before[0].frames["seed"][0]).all(), "a restart must not repeat episodes"


def test_an_exception_in_an_environment_reaches_the_user_with_its_traceback() -> None:
    with started(env={"fail_at": 20}) as vecenv:
        with pytest.raises(WorkerFailed, match="the wheel fell off") as caught:
            receive(vecenv, 1000)
        assert "fakes.py" in str(caught.value)
        assert "in step" in str(caught.value)
        with pytest.raises(WorkerFailed):
            vecenv.link.receive(0.1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"policy": {"function": f"{FAKES}:nothing", "kwargs": {}}}, "nothing"),
        ({"policy": {"function": f"{FAKES}:make_policy", "kwargs": {"colour": 1}}}, "colour"),
        ({"env": {"bad_reward_at": 5}}, "reward must be finite, got nan"),
    ],
)
def test_what_is_wrong_in_a_worker_is_said(kwargs: dict[str, Any], message: str) -> None:
    with started(**kwargs) as vecenv, pytest.raises(WorkerFailed, match=message):
        receive(vecenv, 1000)


def test_a_worker_that_keeps_dying_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.remote.station.child_process.MAX_QUICK_DEATHS", 2)
    with started(env={"die_at": 4}) as vecenv:
        with pytest.raises(WorkerFailed, match=r"died 2 times in a row.*exit status 1"):
            receive(vecenv, 1000)
        assert vecenv.statistics()["gateway/restarts"] == 1


def test_a_worker_that_cannot_be_started_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> subprocess.Popen[str]:
        raise OSError("too many open files")

    monkeypatch.setattr(child_process, "spawn", refuse)
    with started() as vecenv, pytest.raises(WorkerFailed, match="could not be started: too many open files"):
        receive(vecenv, 1)


def test_close_is_quick_and_leaves_no_process() -> None:
    with started(num_actors=2, evaluator=True, env={"step_s": 0.05}) as vecenv:
        receive(vecenv, 2)
        wait_until(lambda: len(vecenv.process_ids()) == 3)
        pids = list(vecenv.process_ids().values())
        start = time.monotonic()
        vecenv.close()
        assert time.monotonic() - start < 20.0
        assert not any(is_alive(pid) for pid in pids)
        vecenv.close()


def test_close_is_quick_while_workers_are_still_starting() -> None:
    vecenv = make(num_actors=2)
    vecenv.start()
    wait_until(lambda: len(vecenv.process_ids()) == 2)
    start = time.monotonic()
    vecenv.close()
    assert time.monotonic() - start < 20.0
    assert vecenv.process_ids() == {}


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_end_when_the_learner_is_killed() -> None:
    code = (
        "import time\n"
        "from tests.tasks.remote.learner.test_vecenv import make, receive\n"
        "vecenv = make(num_actors=2)\n"
        "vecenv.start()\n"
        "receive(vecenv, 8)\n"
        "print(*vecenv.process_ids().values(), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as learner:
        assert learner.stdout is not None
        pids = [int(pid) for pid in learner.stdout.readline().split()]
        assert len(pids) == 2
        assert all(is_alive(pid) for pid in pids)
        learner.kill()
        learner.wait(5)
    wait_until(lambda: not any(is_alive(pid) for pid in pids), timeout_s=4.0)


def test_a_program_that_forgets_to_close_ends_all_the_same() -> None:
    code = (
        "from tests.tasks.remote.learner.test_vecenv import make, receive\n"
        "vecenv = make(num_actors=2)\n"
        "vecenv.start()\n"
        "receive(vecenv, 8)\n"
        "print(*vecenv.process_ids().values(), flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as learner:
        assert learner.stdout is not None
        pids = [int(pid) for pid in learner.stdout.readline().split()]
        assert learner.wait(5) == 0
    wait_until(lambda: not any(is_alive(pid) for pid in pids), timeout_s=4.0)


def test_workers_leave_ctrl_c_and_a_closed_terminal_to_the_learner() -> None:
    with started() as vecenv:
        receive(vecenv, 2)
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(vecenv.process_ids()[Place("worker", 0)], number)
        receive(vecenv, 10)
        assert vecenv.statistics()["gateway/restarts"] == 0


def test_the_evaluator_reports_without_holding_anyone_up() -> None:
    with started(evaluator=True) as vecenv:
        receive(vecenv, 2)
        assert vecenv.link.poll_evaluation() is None
        vecenv.link.request_evaluation({"value": np.array([0.25], np.float32)}, 7, seeds=[4, 5, 6])
        report = wait_report(vecenv.link)
        assert report.weights_version == 7
        niceness = {place.role: os.getpriority(os.PRIO_PROCESS, pid) for place, pid in vecenv.process_ids().items()}
        assert niceness["evaluator"] > niceness["worker"] == os.getpriority(os.PRIO_PROCESS, 0)
        assert [episode.seed for episode in report.episodes] == [4, 5, 6]
        # Ten steps with rewards 1 to 10, of which the fake's own statistics say the count.
        assert [episode.steps for episode in report.episodes] == [10, 10, 10]
        np.testing.assert_array_equal(report.episodes[0].trajectory[:, 3], np.arange(1, 11))
        assert vecenv.link.poll_evaluation() is None


def test_a_killed_evaluator_does_its_request_again() -> None:
    with started(evaluator=True, env={"length": 20, "step_s": 0.02}) as vecenv:
        wait_until(lambda: Place("evaluator", 0) in vecenv.process_ids())
        vecenv.link.request_evaluation({"value": np.array([0.5], np.float32)}, 3, seeds=[1, 2, 3, 4])
        wait_until(lambda: vecenv._pool is not None and num_connected(vecenv._pool.gateway, "evaluator") == 1)
        time.sleep(0.3)
        os.kill(vecenv.process_ids()[Place("evaluator", 0)], signal.SIGKILL)
        report = wait_report(vecenv.link)
        assert len(report.episodes) == 4
        assert vecenv.statistics()["gateway/restarts"] == 1


def test_checksums_travel() -> None:
    with started(check_samples=True) as vecenv:
        (segment, *_) = receive(vecenv, 1)
    assert segment.checksums is not None
    assert segment.checksums.dtype == np.uint32
    assert len(np.unique(segment.checksums)) > 1


def test_the_same_seed_gives_the_same_rows() -> None:
    def run(seed: int) -> np.ndarray:
        with started(seed=seed) as vecenv:
            return np.concatenate([segment.action for segment in receive(vecenv, 5)[:5]])

    first, second, other = run(0), run(0), run(1)
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_a_run_that_goes_on_draws_other_episodes() -> None:
    def seeds(received: dict[str, int]) -> set[float]:
        with make() as vecenv:
            vecenv.go_on_from(received)
            vecenv.start()
            return set(np.concatenate([segment.frames["seed"] for segment in receive(vecenv, 5)[:5]]).ravel().tolist())

    assert seeds({}) == seeds({})
    assert not seeds({}) & seeds({"worker-0.a1b2c3.1": 5})


# --- the tasks themselves ---


def test_a_task_is_driven_by_workers_and_evaluated() -> None:
    task = {"track": "short", "game": "sim", "rtgym": {"ep_max_length": 60}}
    with RemoteVecEnv("TM20Lidar", 1, task=task, policy=POLICY, evaluator=True) as vecenv:
        assert vecenv.get_env_info()["observation_space"]["lidar"].shape == (4, 19)
        vecenv.start()
        vecenv.link.request_evaluation({"value": np.array([0.0], np.float32)}, 1, seeds=[0, 1], clip=True)
        segments = receive(vecenv, 6)
        report = wait_report(vecenv.link)
    assert all(segment.frames["lidar"].shape == (32, 19) for segment in segments)
    assert sum(len(segment.episodes) for segment in segments) >= 2
    assert [episode.seed for episode in report.episodes] == [0, 1]
    assert report.clip is not None
    assert 1 <= len(report.clip) <= report.episodes[0].steps
    assert report.clip.std() > 0


def test_a_worker_in_real_time_never_waits_for_acknowledgements() -> None:
    task = {"track": "short", "game": "sim", "clock": "wall"}
    with RemoteVecEnv("TM20Lidar", 1, task=task, policy=POLICY, segment_rows=4, window=1) as vecenv:
        vecenv.start()
        segments = receive(vecenv, 4, acknowledge=False)
    assert [segment.seq for segment in segments] == [1, 2, 3, 4]


# --- lock step ---


def make_lock_step(num_actors: int, num_workers: int, **kwargs: Any) -> RemoteVecEnv:
    return make(num_actors, policy=None, num_workers=num_workers, **kwargs)


def test_lock_step_steps_and_resets_like_the_environments_themselves() -> None:
    with make_lock_step(3, 2, observation="dict", env={"length": 4}) as vecenv:
        observation = vecenv.reset()
        assert isinstance(observation, dict)
        assert observation["images"].shape == (3, 4, 8, 8)
        assert observation["images"].dtype == np.uint8
        np.testing.assert_array_equal(observation["count"][:, 0], [0, 0, 0])
        actions = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)
        for count in (1, 2, 3):
            observation, rewards, dones, infos = vecenv.step(actions)
            assert isinstance(observation, dict)
            np.testing.assert_array_equal(observation["count"][:, 0], count)
            np.testing.assert_array_equal(observation["action_1"], actions)
            np.testing.assert_array_equal(rewards, np.float32(count))
            assert not dones.any()
            seeds = observation["seed"][:, 0]
        observation, rewards, dones, infos = vecenv.step(actions)
        assert isinstance(observation, dict)
        # The end of all three: the reward is of the last step, the observation of the next episode.
        np.testing.assert_array_equal(rewards, 4)
        assert dones.all()
        np.testing.assert_array_equal(observation["count"][:, 0], 0)
        np.testing.assert_array_equal(infos["time_outs"], seeds % 2 == 1)
        assert infos["episode_indices"] == [0, 1, 2]
        assert [episode["length"] for episode in infos["episode_statistics"]] == [4, 4, 4]
        assert (observation["seed"][:, 0] != seeds).all()


def test_lock_step_flat_observations_are_the_scaled_fields() -> None:
    with make_lock_step(2, 1) as vecenv:
        info = vecenv.get_env_info()
        observation = vecenv.reset()
        assert isinstance(observation, np.ndarray)
        # count, seed, position, 4 x 8 x 8 pixels, two actions of three.
        assert observation.shape == (2, 3 + 256 + 6)
        assert observation.dtype == np.float32
        assert info["observation_space"].shape == (265,)
        observation, *_ = vecenv.step(np.full((2, 3), 0.5, np.float32))
        assert isinstance(observation, np.ndarray)
        np.testing.assert_allclose(observation[:, 0], 0.1)  # count 1, scale 10
        np.testing.assert_allclose(observation[:, 3 + 255], 1 / 255)  # newest image
        np.testing.assert_array_equal(observation[:, -3:], 0.5)


def test_lock_step_worker_that_is_killed_comes_back_as_timed_out() -> None:
    with make_lock_step(2, 2) as vecenv:
        vecenv.reset()
        actions = np.zeros((2, 3), np.float32)
        for _ in range(3):
            vecenv.step(actions)
        os.kill(vecenv.process_ids()[Place("lock_step", 1)], signal.SIGKILL)
        observation, rewards, dones, infos = vecenv.step(actions)
        assert isinstance(observation, np.ndarray)
        np.testing.assert_array_equal(rewards, [4, 0])
        np.testing.assert_array_equal(dones, [False, True])
        np.testing.assert_array_equal(infos["time_outs"], [False, True])
        np.testing.assert_allclose(observation[:, 0], [0.4, 0.0])
        observation, rewards, *_ = vecenv.step(actions)
        np.testing.assert_array_equal(rewards, [5, 1])


def test_lock_step_exception_reaches_the_user() -> None:
    with make_lock_step(1, 1, env={"fail_at": 3}) as vecenv:
        vecenv.reset()
        vecenv.step(np.zeros((1, 3), np.float32))
        vecenv.step(np.zeros((1, 3), np.float32))
        with pytest.raises(WorkerFailed, match="the wheel fell off"):
            vecenv.step(np.zeros((1, 3), np.float32))


def test_wrong_uses_are_explained() -> None:
    wrong_shape = pytest.raises(ValueError, match=r"actions must have shape \(2, 3\), got \(1, 3\)")
    with make_lock_step(2, 1) as vecenv, wrong_shape:
        vecenv.step(np.zeros((1, 3), np.float32))
    with make() as vecenv:
        with pytest.raises(RuntimeError, match=r"call start\(\) first"):
            vecenv.link.receive(0.1)
        with pytest.raises(RuntimeError, match="asynchronous"):
            vecenv.reset()
    with pytest.raises(ValueError, match="num_workers must be from 0 to num_actors"):
        make(num_actors=1, num_workers=2)
    with pytest.raises(ValueError, match="observation must be"):
        make(observation="picture")


def test_env_info_is_what_rl_games_asks_for() -> None:
    with make(num_actors=2) as vecenv:
        info = vecenv.get_env_info()
        assert set(info["observation_space"].spaces) == {"count", "seed", "position", "images", "action_0", "action_1"}
        assert info["action_space"].shape == (3,)
        assert (info["agents"], info["value_size"], info["state_space"]) == (1, 1, None)
        assert info["use_global_observations"] is False
        assert info["observation_spec"]["act_buf_len"] == 2
        assert vecenv.get_number_of_agents() == 1
        assert not vecenv.has_action_masks()
