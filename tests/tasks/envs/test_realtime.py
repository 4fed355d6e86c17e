"""Timing of the environments in virtual time, compared with the wall clock and rtgym itself."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from rtgym.envs.real_time_env import RealTimeEnv

import tasks
from tasks.config import RtgymConfig, TaskConfig
from tasks.envs.realtime import VirtualTimeEnv, make_wall_env
from tasks.game.clock import Clock, VirtualClock, WallClock
from tasks.trackmania.full import FullInterface
from tests.tasks.fake_game import FakeGame, straight_path, task_config
from tests.tasks.recorder import Recorder, action


def virtual(ends_after: int = 10**9, inference: Any = 0.0, jitter: float = 0.0, **rtgym: Any) -> Any:
    config, clock = RtgymConfig(**rtgym), VirtualClock()
    interface = Recorder(clock, config, ends_after)
    return VirtualTimeEnv(interface, config, clock, capture_jitter_s=jitter, inference_time_s=inference)


def test_actions_are_sent_at_the_start_and_observed_later() -> None:
    env = virtual()
    env.reset(seed=1)
    for value in (0.1, 0.2, 0.3):
        env.step(action(value))
    assert env.interface.times("send") == [0.0, 0.05, 0.1, 0.15]
    assert env.interface.times("capture") == [0.04, 0.09, 0.14]
    assert np.allclose(env.interface.sent(), [[0.0, 0.0], [0.1, -0.1], [0.2, -0.2], [0.3, -0.3]])


def test_a_step_returns_the_observation_before_its_action_and_the_buffer_with_it() -> None:
    env = virtual(act_buf_len=2)
    observation, _ = env.reset(seed=1)
    assert [entry.tolist() for entry in observation] == [[0.0], [0.0, 0.0], [0.0, 0.0]]
    observation, *_ = env.step(action(0.5))
    assert [entry.tolist() for entry in observation] == [[1.0], [0.0, 0.0], [0.5, -0.5]]
    observation, *_ = env.step(action(1.0))
    assert [entry.tolist() for entry in observation] == [[2.0], [0.5, -0.5], [1.0, -1.0]]


def test_the_last_action_of_an_episode_is_never_sent() -> None:
    env = virtual(ends_after=2, wait_on_done=False)
    env.reset(seed=1)
    env.step(action(0.1))
    *_, terminated, truncated, info = env.step(action(0.2))
    assert (terminated, truncated, info["episode_statistics"]) == (True, False, {"length": 2.0})
    assert np.allclose(env.interface.sent(), [[0.0, 0.0], [0.1, -0.1]])


def test_an_episode_is_truncated_at_its_maximum_length_and_not_both() -> None:
    env = virtual(ends_after=3, ep_max_length=3)
    env.reset(seed=1)
    assert [env.step(action(0))[2:4] for _ in range(3)] == [(False, False), (False, False), (True, False)]
    env = virtual(ep_max_length=2)
    env.reset(seed=1)
    assert [env.step(action(0))[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_a_terminated_episode_is_not_truncated_too() -> None:
    env = virtual(ends_after=2)
    env.interface.lost_after = 2
    env.reset(seed=1)
    assert [env.step(action(0))[2:4] for _ in range(2)] == [(False, False), (True, False)]


@pytest.mark.parametrize("ended", [False, True])
def test_a_step_without_a_running_episode_is_refused(ended: bool) -> None:
    env = virtual(ends_after=1)
    if ended:
        env.reset(seed=1)
        env.step(action(0))
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step"):
        env.step(action(0))


def test_the_environment_pauses_at_the_end_when_configured() -> None:
    for wait_on_done, calls in ((True, 1), (False, 0)):
        env = virtual(ends_after=1, wait_on_done=wait_on_done)
        env.reset(seed=1)
        env.step(action(0))
        assert len(env.interface.times("wait")) == calls


def test_steps_follow_each_other_across_a_reset() -> None:
    env = virtual(ends_after=1)
    for _ in range(3):
        env.reset(seed=1)
        env.step(action(0))
    assert env.interface.times("send") == [0.0, 0.05, 0.1]


def test_a_late_step_within_the_tolerance_is_caught_up() -> None:
    delays = iter([0.0, 0.08, 0.0, 0.0])
    env = virtual(inference=lambda _: next(delays))
    env.reset(seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            env.step(action(0))
    # The second step ends at 0.13 instead of 0.10; its successor still counts from 0.10.
    assert env.interface.times("send") == [0.0, 0.05, 0.13, 0.15, 0.2]
    assert env.interface.times("capture") == [0.04, 0.09, 0.14, 0.19]


def test_a_step_beyond_the_tolerance_moves_the_clock_and_warns() -> None:
    delays = iter([0.0, 0.15, 0.0])
    env = virtual(inference=lambda _: next(delays))
    env.reset(seed=1)
    env.step(action(0))
    with pytest.warns(UserWarning, match="Time-step timed out"):
        env.step(action(0))
    env.step(action(0))
    assert env.interface.times("send") == [0.0, 0.05, 0.2, 0.25]
    assert env.interface.times("capture") == [0.04, 0.09, 0.24]


def test_a_pause_moves_the_clock_without_a_warning() -> None:
    env = virtual(ends_after=1, wait_on_done=True)
    env.reset(seed=1)
    env.step(action(0))
    env.interface.reset_takes_s = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.reset(seed=1)
    env.step(action(0))
    assert env.interface.times("send") == [0.0, 1.05]


def test_wait_in_an_episode_keeps_the_observation_of_the_step_in_flight() -> None:
    env = virtual()
    env.reset(seed=1)
    env.step(action(0))
    env.wait()
    observation, *_ = env.step(action(0))
    assert observation[0].tolist() == [2.0]
    assert env.interface.times("capture") == [0.04, 0.09]


def test_a_kept_action_buffer_replaces_the_action_that_was_never_applied() -> None:
    env = virtual(ends_after=2, reset_act_buf=False, act_buf_len=2)
    env.reset(seed=1)
    env.step(action(0.25))
    env.step(action(0.5))
    observation, _ = env.reset(seed=1)
    assert [entry.tolist() for entry in observation[1:]] == [[0.25, -0.25], [0.0, 0.0]]


def test_the_last_action_can_be_applied_by_the_reset() -> None:
    env = virtual(ends_after=2, reset_act_buf=False, last_act_on_reset=True, wait_on_done=False)
    env.reset(seed=1)
    env.step(action(0.25))
    env.step(action(0.5))
    observation, _ = env.reset(seed=1)
    assert [entry.tolist() for entry in observation[1:]] == [[0.25, -0.25], [0.5, -0.5]]
    assert env.interface.sent()[-1] == [0.5, -0.5]


def test_the_action_buffer_can_be_left_out_of_the_observation() -> None:
    env = virtual(act_in_obs=False)
    observation, _ = env.reset(seed=1)
    assert len(observation) == len(env.observation_space) == 1


def test_another_default_action_is_sent_by_the_next_reset() -> None:
    env = virtual()
    env.set_default_action(action(0.5))
    observation, _ = env.reset(seed=1)
    assert env.interface.sent() == [[0.5, -0.5]]
    assert observation[-1].tolist() == [0.5, -0.5]


def test_durations_can_be_changed_while_running() -> None:
    env = virtual()
    env.reset(seed=1)
    env.step(action(0))
    env.set_time_step_duration(0.1)
    env.set_start_obs_capture(0.1)
    env.set_ep_max_length(3)
    env.step(action(0))
    assert env.step(action(0))[3]
    assert env.interface.times("send") == [0.0, 0.05, 0.1]
    assert env.interface.times("capture") == [0.04, 0.09, 0.2]


def test_the_capture_jitter_belongs_to_the_seed_of_the_episode() -> None:
    def captures(seed: int) -> list[float]:
        env = virtual(jitter=0.003)
        env.reset(seed=seed)
        for _ in range(20):
            env.step(action(0))
        return [at - (0.05 * k + 0.04) for k, at in enumerate(env.interface.times("capture"))]

    jitter = captures(3)
    assert jitter == captures(3)
    assert jitter != captures(4)
    assert min(jitter) >= -1e-6
    assert max(jitter) <= 0.003 + 1e-6
    assert np.std(jitter) > 0.0003


def test_pictures_come_as_fast_as_steps() -> None:
    env = tasks.make(
        "TM20Track", track="short", game="sim", rtgym={"time_step_duration": 0.2, "start_obs_capture": 0.1}
    )
    assert env.metadata["render_fps"] == pytest.approx(5.0)
    assert tasks.make("TM20Track", track="short", game="sim").metadata["render_fps"] == pytest.approx(20.0)


def test_episodes_without_a_seed_draw_theirs_from_the_last_one() -> None:
    def seeds() -> list[int]:
        env = virtual()
        return [env.reset(seed=7)[1]["seed"], env.reset()[1]["seed"], env.reset()[1]["seed"]]

    assert seeds() == seeds()
    assert seeds()[0] == 7
    assert len(set(seeds())) == 3


def test_the_callers_array_may_change_after_the_step() -> None:
    env = virtual()
    env.reset(seed=1)
    reused = action(0.5)
    observation, *_ = env.step(reused)
    reused[:] = 9.0
    assert observation[-1].tolist() == [0.5, -0.5]
    assert env.step(action(0))[0][1].tolist() == [0.5, -0.5]


@pytest.mark.parametrize("wrong", [np.zeros(3), np.array([np.nan, 0.0]), np.array([np.inf, -np.inf])])
def test_an_impossible_action_is_refused(wrong: np.ndarray) -> None:
    env = virtual()
    env.reset(seed=1)
    with pytest.raises(ValueError, match="action must"):
        env.step(wrong)


def test_benchmarks_measure_real_time_and_must_be_switched_on() -> None:
    env = virtual(benchmark=True)
    env.reset(seed=1)
    for _ in range(3):
        env.step(action(0))
    assert set(env.benchmarks()) >= {"time_step_duration", "inference_duration", "get_obs_duration"}
    assert 0.0 < env.benchmarks()["step_duration"][0] < 0.01
    with pytest.raises(ValueError, match="benchmark"):
        virtual().benchmarks()


@pytest.mark.parametrize("kind", ["rtgym", "v1", "ts"])
def test_virtual_time_equals_rtgym_on_a_moving_car(kind: str) -> None:
    """A loaded machine may be late by a tick, so one of a few attempts must agree."""
    config = task_config(wait_on_done=False, act_buf_len=3)
    actions = np.random.default_rng(3).uniform(-0.2, 1.0, (30, 3)).astype(np.float32)
    clock = VirtualClock()
    expected = _drive(VirtualTimeEnv(_car(clock, config), config.rtgym, clock), actions)
    apart: list[float] = []
    while len(apart) < 4 and min(apart, default=9.0) > 2.0:
        apart.append(_apart(expected, _drive_real(kind, config, actions)))
    assert min(apart) <= 2.0, f"observations are {apart} ticks apart"


def _car(clock: Clock, config: TaskConfig) -> FullInterface:
    return FullInterface(FakeGame(clock, config), straight_path(), config, clock)


def _drive_real(kind: str, config: TaskConfig, actions: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Time-step timed out")
        if kind != "rtgym":
            env: Any = make_wall_env(_car(WallClock(), config), config.rtgym, implementation=kind)
            observations = _drive(env, actions)
            env.close()
            return observations
        plain = {
            "interface": lambda: _car(WallClock(), config),
            "time_step_duration": config.rtgym.time_step_duration,
            "start_obs_capture": config.rtgym.start_obs_capture,
            "act_buf_len": config.rtgym.act_buf_len,
            "ep_max_length": 1000,
        }
        env = RealTimeEnv(plain)
        observations = _drive(env, actions)
        env.stop()
        return observations


def _drive(env: Any, actions: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    return [env.reset(seed=2)[0], *(env.step(entry)[0] for entry in actions)]


def _apart(expected: list[tuple[np.ndarray, ...]], got: list[tuple[np.ndarray, ...]]) -> float:
    """Largest difference of the tick counter in the observations [ticks]; everything else must be equal."""
    ticks = 0.0
    for one, other in zip(expected, got, strict=True):
        ticks = max(ticks, abs(float(one[2][0] - other[2][0])))
        np.testing.assert_array_equal(one[4:], other[4:])
        assert [entry.shape for entry in one] == [entry.shape for entry in other]
        if one[2][0] == other[2][0]:
            np.testing.assert_allclose(one[0], other[0], atol=6.0)
    return ticks
