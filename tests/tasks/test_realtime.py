"""Timing of the environments: virtual time, the wall clock, and rtgym itself."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rtgym.envs.real_time_env import RealTimeEnv

from tasks.clock import Clock, VirtualClock, WallClock
from tasks.config import RtgymConfig, TaskConfig
from tasks.interface import TaskInterface
from tasks.observation import Field, ObservationSpec
from tasks.realtime import TaskEnv, VirtualTimeEnv, WallClockEnv, make_wall_env
from tasks.trackmania.full import FullInterface
from tests.tasks.fake_game import FakeGame, straight_path, task_config


class Recorder(TaskInterface):
    """Logs when it is called; the observation is the number of captures in this episode."""

    def __init__(self, clock: Clock, config: RtgymConfig, ends_after: int = 10**9) -> None:
        self.observation_spec = self.spec_for(config)
        self.calls: list[tuple[str, float, Any]] = []
        self._clock = clock
        self._ends_after = ends_after
        self._captures = 0
        self.reset_takes_s = 0.0
        self.fails_at: dict[str, Exception] = {}

    @classmethod
    def spec_for(cls, config: RtgymConfig) -> ObservationSpec:
        length = config.act_buf_len if config.act_in_obs else 0
        return ObservationSpec((Field("count", (1,)),), 2, length, config.reset_act_buf)

    @classmethod
    def from_config(cls, config: Any, clock: Clock) -> Recorder:
        return cls(clock, config)

    def send_control(self, control: np.ndarray | None) -> None:
        self._log("send", None if control is None else np.asarray(control).tolist())

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[list[np.ndarray], dict[str, Any]]:
        self._log("reset", seed)
        self._clock.sleep_until(self._clock.now() + self.reset_takes_s)
        self._captures = 0
        return [np.array([0], np.float32)], {}

    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, dict[str, Any]]:
        self._log("capture", None)
        self._captures += 1
        return [np.array([self._captures], np.float32)], 1.0, self._captures >= self._ends_after, {}

    def episode_statistics(self) -> dict[str, float]:
        return {"length": float(self._captures)}

    def wait(self) -> None:
        self._log("wait", None)

    def times(self, name: str) -> list[float]:
        return [round(at, 6) for call, at, _ in self.calls if call == name]

    def sent(self) -> Any:
        return [what for call, _, what in self.calls if call == "send"]

    def _log(self, name: str, what: Any) -> None:
        if name in self.fails_at:
            raise self.fails_at[name]
        self.calls.append((name, self._clock.now(), what))


def virtual(ends_after: int = 10**9, inference: Any = 0.0, jitter: float = 0.0, **rtgym: Any) -> Any:
    config, clock = RtgymConfig(**rtgym), VirtualClock()
    interface = Recorder(clock, config, ends_after)
    return VirtualTimeEnv(interface, config, clock, capture_jitter_s=jitter, inference_time_s=inference)


def action(value: float) -> np.ndarray:
    return np.array([value, -value], np.float32)


@pytest.fixture
def walls() -> Iterator[list[WallClockEnv]]:
    """Environments to close at the end."""
    opened: list[WallClockEnv] = []
    yield opened
    for env in opened:
        env.close()


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


@pytest.mark.parametrize("ended", [False, True])
def test_a_step_without_a_running_episode_is_refused(ended: bool) -> None:
    env = virtual(ends_after=1)
    if ended:
        env.reset(seed=1)
        env.step(action(0))
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step"):
        env.step(action(0))


def test_the_environment_waits_by_itself_at_the_end_when_asked() -> None:
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


def wall(walls: list[WallClockEnv], implementation: str, ends_after: int = 10**9, **options: Any) -> Any:
    config = RtgymConfig(time_step_duration=0.02, start_obs_capture=0.01)
    env = make_wall_env(Recorder(WallClock(), config, ends_after), config, implementation=implementation, **options)
    walls.append(env)
    return env


@pytest.mark.parametrize("implementation", ["v1", "ts"])
def test_an_exception_in_the_game_reaches_the_caller(walls: list[WallClockEnv], implementation: str) -> None:
    for call in ("capture", "send", "reset", "wait"):
        env = wall(walls, implementation)
        env.reset(seed=1)
        env.step(action(0))
        env.interface.fails_at[call] = ConnectionError(f"{call} lost")
        with pytest.raises(ConnectionError, match=f"{call} lost"):
            _use_everything(env)
        with pytest.raises((RuntimeError, ConnectionError)):
            _use_everything(env)


@pytest.mark.parametrize("implementation", ["v1", "ts"])
def test_a_game_that_hangs_times_out(
    walls: list[WallClockEnv], implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = wall(walls, implementation, timeout_s=0.2)
    env.reset(seed=1)
    env.step(action(0))
    monkeypatch.setattr(env.interface, "get_obs_rew_terminated_info", lambda: time.sleep(1.0))
    started = time.perf_counter()
    with pytest.raises(TimeoutError, match=r"no observation within 0\.2 s"):
        _use_everything(env)
    assert time.perf_counter() - started < 1.0


def test_a_reset_that_hangs_times_out(walls: list[WallClockEnv]) -> None:
    env = wall(walls, "ts", reset_timeout_s=0.2)
    env.interface.reset_takes_s = 1.0
    with pytest.raises(TimeoutError, match=r"reset\(\)"):
        env.reset(seed=1)


@pytest.mark.parametrize("implementation", ["v1", "ts"])
def test_seeds_and_statistics_hold_on_the_wall_clock(walls: list[WallClockEnv], implementation: str) -> None:
    env = wall(walls, implementation, ends_after=2)
    for seed in (0, 5):
        _, info = env.reset(seed=seed)
        assert info["seed"] == seed
        env.step(action(0))
        *_, terminated, _, info = env.step(action(0))
        assert terminated
        assert info["episode_statistics"] == {"length": 2.0}
        with pytest.raises(RuntimeError, match=r"call reset\(\)"):
            env.step(action(0))
    assert [seed for call, _, seed in env.interface.calls if call == "reset"] == [0, 5]
    env.close()
    env.close()


def test_an_unknown_implementation_is_refused() -> None:
    with pytest.raises(ValueError, match="'v1' or 'ts', got 'v3'"):
        make_wall_env(Recorder(WallClock(), RtgymConfig()), RtgymConfig(), implementation="v3")


@pytest.mark.parametrize("kind", ["rtgym", "v1", "ts"])
def test_virtual_time_equals_rtgym_on_a_moving_car(kind: str) -> None:
    """A loaded machine may be late by a tick now and then, so one of a few attempts has to agree."""
    config = task_config(wait_on_done=False, act_buf_len=3)
    actions = np.random.default_rng(3).uniform(-0.2, 1.0, (30, 3)).astype(np.float32)
    clock = VirtualClock()
    expected = _drive(VirtualTimeEnv(_car(clock, config), config.rtgym, clock), actions)
    apart: list[float] = []
    while len(apart) < 4 and min(apart, default=9.0) > 2.0:
        apart.append(_apart(expected, _drive_real(kind, config, actions)))
    assert min(apart) <= 2.0, f"observations are {apart} ticks apart"


def _use_everything(env: TaskEnv) -> None:
    env.step(action(0))
    env.step(action(0))
    env.wait()
    env.reset(seed=1)


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
