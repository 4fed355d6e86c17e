"""One live game, one worker: what is refused, and the evaluation between two episodes of the worker itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.acting.env_source import EnvSource
from tasks.remote.launch.launch import Place, WorkerFailed
from tasks.remote.learner.vecenv import RemoteVecEnv
from tests.tasks.remote.learner.test_vecenv import FAKES, POLICY, assert_whole_and_in_order, receive
from tests.tasks.remote.raw_worker import wait_report, wait_until

pytestmark = pytest.mark.timeout(90)

WEIGHTS = {"value": np.array([0.25], np.float32)}


def make(folder: Path, num_actors: int = 1, env: dict[str, Any] | None = None, **kwargs: Any) -> RemoteVecEnv:
    defaults: dict[str, Any] = {"policy": POLICY, "segment_rows": 8, "window": 1, "evaluator": True}
    source = {
        "function": f"{FAKES}:make_single_game",
        "kwargs": {"folder": str(folder), "step_s": 0.002, **(env or {})},
    }
    return RemoteVecEnv("Single", num_actors, env=source, **(defaults | kwargs))


@contextmanager
def started(*args: Any, **kwargs: Any) -> Iterator[RemoteVecEnv]:
    with make(*args, **kwargs) as vecenv:
        vecenv.start()
        yield vecenv


def diary(folder: Path) -> list[tuple[int, str]]:
    """Process and event, in order."""
    path = folder / "diary"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(pid), event) for pid, event in (line.split(" ", 1) for line in lines)]


def episodes(folder: Path) -> list[str]:
    """Resets and ends in order, with the last episode left out where it runs still."""
    events = [event for _, event in diary(folder) if event.startswith(("reset", "end"))]
    return events[: len(events) - len(events) % 2]


def is_evaluated(vecenv: RemoteVecEnv) -> Any:
    return wait_report(vecenv.link)


# --- what is refused ---


def test_a_second_worker_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"num_workers must be 1 .*got 2.*task\.game=sim"):
        make(tmp_path, num_actors=2, num_workers=2)
    with pytest.raises(ValueError, match=r"num_actors must be 1 .*got 3.*task\.game=sim"):
        make(tmp_path, num_actors=3, num_workers=1, policy=None)
    assert diary(tmp_path) == []


@pytest.mark.parametrize("policy", [POLICY, None], ids=["asynchronous", "lock step"])
def test_more_than_one_environment_on_the_live_game_is_refused(policy: dict[str, Any] | None) -> None:
    with pytest.raises(ValueError, match="num_workers must be 1"):
        RemoteVecEnv("TM20Lidar", 2, task={"game": "live", "track": "short"}, policy=policy)


def test_the_live_game_is_there_once_and_the_simulator_as_often_as_wanted() -> None:
    live = EnvSource({"name": "TM20Lidar", "game": "live", "live": {"wait_for_game_s": 5.0}}).resolved().describe()
    assert (live.is_single_game, live.is_wall_clock, live.longest_wait_s) == (True, True, 5.0)
    simulated = EnvSource({"name": "TM20Lidar", "game": "sim", "clock": "wall"}).resolved().describe()
    assert (simulated.is_single_game, simulated.is_wall_clock, simulated.longest_wait_s) == (False, True, 0.0)


def test_evaluation_needs_an_action_buffer_that_is_reset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task\.rtgym\.reset_act_buf must be true"):
        make(tmp_path, env={"reset_act_buf": False})
    make(tmp_path, env={"reset_act_buf": False}, evaluator=False).close()


# --- evaluation ---


def test_the_worker_evaluates_between_two_episodes_and_goes_on(tmp_path: Path) -> None:
    with started(tmp_path) as vecenv:
        segments = receive(vecenv, 3)
        assert list(vecenv.process_ids()) == [Place("worker", 0)]
        vecenv.link.publish({"value": np.array([0.5], np.float32)}, 6)
        vecenv.link.request_evaluation(WEIGHTS, 7, seeds=[4, 5, 6])
        report = is_evaluated(vecenv)
        segments += receive(vecenv, 6)
    assert report.weights_version == 7
    assert [episode.seed for episode in report.episodes] == [4, 5, 6]
    # Ten steps with rewards 1 to 10.
    assert [episode.steps for episode in report.episodes] == [10, 10, 10]
    np.testing.assert_array_equal(report.episodes[0].trajectory[:, 3], np.arange(1, 11))
    # Every episode before, during and after was driven to its end, by one process.
    events = episodes(tmp_path)
    assert all(event.startswith("reset") for event in events[::2])
    assert all(event == "end" for event in events[1::2])
    first = events.index("reset 4")
    assert first > 0
    assert events[first : first + 6] == ["reset 4", "end", "reset 5", "end", "reset 6", "end"]
    assert len(events) > first + 6
    assert len({pid for pid, event in diary(tmp_path) if event != "let go"}) == 1
    # The samples know nothing of it: whole, in order, and none of them by the evaluated weights.
    assert_whole_and_in_order(segments)
    assert {segment.weights_version for segment in segments} == {0, 6}
    assert {int(seed) for segment in segments for seed in segment.frames["seed"][:, 0]}.isdisjoint({4, 5, 6})


def test_an_evaluation_does_not_wait_for_the_learner_to_take_samples(tmp_path: Path) -> None:
    with started(tmp_path, window=1, buffer_segments=2) as vecenv:
        receive(vecenv, 2, acknowledge=False)
        time.sleep(0.3)
        vecenv.link.request_evaluation(WEIGHTS, 3, seeds=[8])
        assert is_evaluated(vecenv).weights_version == 3


def test_a_request_before_the_first_episode_is_answered(tmp_path: Path) -> None:
    with started(tmp_path) as vecenv:
        vecenv.link.request_evaluation(WEIGHTS, 1, seeds=[2])
        assert is_evaluated(vecenv).episodes[0].seed == 2
        assert_whole_and_in_order(receive(vecenv, 4))


def test_the_newest_of_several_requests_is_answered(tmp_path: Path) -> None:
    with started(tmp_path, env={"length": 40, "step_s": 0.01}) as vecenv:
        receive(vecenv, 1)
        for version in (1, 2, 3):
            vecenv.link.request_evaluation(WEIGHTS, version, seeds=[9])
        assert is_evaluated(vecenv).weights_version == 3
        assert vecenv.link.poll_evaluation() is None


def test_a_worker_killed_while_it_evaluates_does_it_again_after_its_restart(tmp_path: Path) -> None:
    with started(tmp_path, env={"length": 20, "step_s": 0.02}) as vecenv:
        receive(vecenv, 1)
        vecenv.link.request_evaluation(WEIGHTS, 3, seeds=[1, 2, 3])
        wait_until(lambda: any(event == "reset 2" for _, event in diary(tmp_path)))
        os.kill(vecenv.process_ids()[Place("worker", 0)], signal.SIGKILL)
        report = is_evaluated(vecenv)
        assert len(report.episodes) == 3
        assert vecenv.statistics()["gateway/restarts"] == 1
        assert [event for _, event in diary(tmp_path)].count("reset 1") == 2


def test_close_abandons_an_evaluation_at_once(tmp_path: Path) -> None:
    with started(tmp_path, env={"length": 40, "step_s": 0.02}) as vecenv:
        vecenv.link.request_evaluation(WEIGHTS, 1, seeds=range(7, 107))  # more than a minute
        wait_until(lambda: any(event == "reset 7" for _, event in diary(tmp_path)))
        start = time.monotonic()
        vecenv.close()
        assert time.monotonic() - start < 20.0


# --- lock step ---


def test_in_lock_step_the_worker_evaluates_between_two_commands(tmp_path: Path) -> None:
    with make(tmp_path, policy=None, evaluator=False, observation="dict") as vecenv:
        vecenv.evaluate_with(POLICY)
        vecenv.reset()
        actions = np.zeros((1, 3), np.float32)
        for _ in range(3):
            vecenv.step(actions)
        vecenv.link.request_evaluation(WEIGHTS, 5, seeds=[4, 6])
        report = is_evaluated(vecenv)
        assert report.weights_version == 5
        assert [episode.steps for episode in report.episodes] == [10, 10]
        # The episode that ran is over; the next command begins another, whatever it is.
        observation, rewards, dones, infos = vecenv.step(actions)
        assert isinstance(observation, dict)
        np.testing.assert_array_equal(observation["count"], [[0]])
        assert (rewards[0], dones[0], infos["time_outs"][0]) == (0, True, True)
        observation, rewards, dones, _ = vecenv.step(actions)
        assert (rewards[0], dones[0]) == (1, False)
        vecenv.link.request_evaluation(WEIGHTS, 6, seeds=[8])
        assert is_evaluated(vecenv).weights_version == 6
        assert isinstance(vecenv.reset(), dict)
        _, rewards, dones, _ = vecenv.step(actions)
        assert (rewards[0], dones[0]) == (1, False)
        with pytest.raises(RuntimeError, match="before the workers are started"):
            vecenv.evaluate_with(POLICY)


def test_lock_step_notices_a_stop_while_the_game_is_waited_for(tmp_path: Path) -> None:
    from tasks.envs.interface import Interrupted

    with make(tmp_path, policy=None, evaluator=False, env={"hang": "unwatched"}) as vecenv:
        vecenv.watch(lambda: any(event.startswith("reset") for _, event in diary(tmp_path)))
        with pytest.raises(Interrupted):
            vecenv.reset()


# --- the end ---


def test_a_worker_that_waits_for_its_game_notices_the_end(tmp_path: Path) -> None:
    with started(tmp_path, env={"hang": "watched"}):
        wait_until(lambda: any(event.startswith("reset") for _, event in diary(tmp_path)))
    wait_until(lambda: any(event == "interrupted" for _, event in diary(tmp_path)))


def test_a_worker_that_hangs_lets_go_of_the_controls_before_it_is_ended(tmp_path: Path) -> None:
    with started(tmp_path, env={"hang": "for ever"}):
        wait_until(lambda: any(event.startswith("reset") for _, event in diary(tmp_path)))
    wait_until(lambda: any(event == "let go" for _, event in diary(tmp_path)))


def test_what_is_wrong_with_the_game_is_said_without_a_traceback(tmp_path: Path) -> None:
    trouble = "no telemetry: start the game"
    with started(tmp_path, env={"trouble": trouble}) as vecenv:
        with pytest.raises(WorkerFailed, match=trouble) as raised:
            receive(vecenv, 1)
        assert "Traceback" not in str(raised.value)
