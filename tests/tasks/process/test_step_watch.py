"""Hanging and waiting environments: a hang is reported once when it begins and once when it ends."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium
import numpy as np
import pytest

from tasks.acting.rollout import Rollout
from tasks.process.step_watch import HANGING_S, HangReporter, StepWatch
from tests.tasks.remote.fakes import CountingEnv, RandomPolicy


class SteppedClock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Interface:
    is_waiting = False


class SlowEnv(gymnasium.Env):
    """An environment whose calls take a while and query the watch meanwhile."""

    is_real_time = False

    def __init__(self, clock: SteppedClock, watch: StepWatch) -> None:
        self._clock, self._watch = clock, watch
        self.interface = Interface()
        self.takes_s = 1.0
        self.seen: list[float] = []

    def _spend(self) -> None:
        self._clock.now_s += self.takes_s
        self.seen.append(self._watch.hangs_for_s())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._spend()
        return 0, {"seed": seed}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._spend()
        return action, 1.0, False, False, {}

    def watch(self, stop: Any) -> str:
        return f"watched by {stop}"


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def watch(clock: SteppedClock) -> StepWatch:
    return StepWatch(clock)


@pytest.fixture
def env(clock: SteppedClock, watch: StepWatch) -> SlowEnv:
    return SlowEnv(clock, watch)


def test_a_call_hangs_once_it_takes_long_and_only_while_it_lasts(watch: StepWatch, env: SlowEnv) -> None:
    watched = watch.around(env)
    watched.step(0)
    env.takes_s = HANGING_S + 5.0
    watched.reset(seed=4)
    assert env.seen == [0.0, HANGING_S + 5.0]
    assert watch.hangs_for_s() == 0.0


def test_time_between_two_calls_does_not_count(clock: SteppedClock, watch: StepWatch, env: SlowEnv) -> None:
    watch.around(env).step(0)
    clock.now_s += 10 * HANGING_S  # waiting for the learner, or between two evaluations
    assert watch.hangs_for_s() == 0.0


def test_a_call_that_waits_for_its_game_on_purpose_does_not_hang(watch: StepWatch, env: SlowEnv) -> None:
    env.takes_s, env.interface.is_waiting = 2 * HANGING_S, True
    watch.around(env).reset()
    assert env.seen == [0.0]


def test_an_environment_that_is_always_slow_is_not_reported_for_ever(watch: StepWatch, env: SlowEnv) -> None:
    watched = watch.around(env)
    env.takes_s = 40.0
    for _ in range(3):
        watched.step(0)
    env.takes_s = 90.0
    watched.step(0)
    assert env.seen == [40.0, 0.0, 0.0, 90.0]
    env.takes_s = 3600.0
    watched.step(0)
    watched.step(0)
    assert env.seen[-2:] == [3600.0, 3600.0]


def test_a_call_that_raises_has_ended(clock: SteppedClock, watch: StepWatch) -> None:
    seen: list[float] = []

    def fail() -> None:
        clock.now_s += HANGING_S
        seen.append(watch.hangs_for_s())
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), watch.call():
        fail()
    assert seen == [HANGING_S]
    assert watch.hangs_for_s() == 0.0


def test_a_watched_environment_behaves_as_before(watch: StepWatch, env: SlowEnv) -> None:
    watched = watch.around(env)
    assert isinstance(watched, gymnasium.Env)
    assert watched.reset(seed=3) == (0, {"seed": 3})
    assert watched.step(7)[0] == 7
    assert watched.unwrapped is env
    assert watched.get_wrapper_attr("watch")("me") == "watched by me"
    assert getattr(watched, "is_real_time", True) is False
    assert not hasattr(watched, "something_else")


def test_a_hang_is_reported_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    states = [{"w0": 0.0, "w1": 31.0}, {"w0": 0.0, "w1": 33.0}, {"w0": 40.0, "w1": 0.0}, {"w1": 0.0}, {"w0": 35.0}]
    looks = iter(states)
    reporter = HangReporter(lambda: next(looks))
    with caplog.at_level(logging.INFO):
        for _ in states:
            reporter.look()
    assert [record.getMessage() for record in caplog.records] == [
        "w1 has not stepped for 31 s: its environment hangs, or is very slow",
        "w0 has not stepped for 40 s: its environment hangs, or is very slow",
        "w1 steps again, after more than 33 s",
        # w0 was disconnected meanwhile: its restart is reported elsewhere
        "w0 has not stepped for 35 s: its environment hangs, or is very slow",
    ]


def test_what_a_rollout_drives_is_watched_without_a_wrapper() -> None:
    clock = SteppedClock()
    watch, seen = StepWatch(clock), []

    class SlowlyCounting(CountingEnv):
        def reset(self, **kwargs: Any) -> Any:
            clock.now_s += 2 * HANGING_S
            seen.append(watch.hangs_for_s())
            return super().reset(**kwargs)

        def step(self, action: np.ndarray) -> Any:
            clock.now_s += 3 * HANGING_S
            seen.append(watch.hangs_for_s())
            return super().step(action)

    rollout = Rollout(SlowlyCounting(), RandomPolicy(0), "w", 0, 0, step_watch=watch)  # type: ignore[arg-type]
    rollout.run(3)
    assert seen == [2 * HANGING_S, 0.0, 0.0]  # the reset was long, so a longer step is no surprise
    assert watch.hangs_for_s() == 0.0


def test_a_rollout_whose_step_raises_does_not_hang() -> None:
    clock = SteppedClock()
    watch = StepWatch(clock)

    class Failing(CountingEnv):
        def step(self, action: np.ndarray) -> Any:
            raise ValueError("no")

    rollout = Rollout(Failing(), RandomPolicy(0), "w", 0, 0, step_watch=watch)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no"):
        rollout.run(3)
    clock.now_s += 10 * HANGING_S
    assert watch.hangs_for_s() == 0.0
