"""Timing statistics of an episode, compared with values by hand."""

from __future__ import annotations

import logging
import math

import pytest

from tasks.envs.step_times import StepTimes
from tasks.experience.samples import TIMING_STATISTICS

STEP_S = 0.1


def episode(times: StepTimes, sent_s: list[float], *, timed_out: set[int] = frozenset(), paused: int = -1) -> None:  # type: ignore[assignment]
    """Steps of 0.1 s that were due at 0.0, 0.1, 0.2, ..."""
    times.begin_episode()
    for index, at in enumerate(sent_s):
        times.add(index * STEP_S, at, STEP_S, is_rebased=index in timed_out, is_paused=index == paused)


def test_a_step_is_late_beyond_a_tenth_of_its_duration() -> None:
    times = StepTimes()
    episode(times, [0.0, 0.109, 0.211, 0.3, 0.42])
    assert times.statistics()["late_steps"] == 2.0
    assert times.statistics()["timeouts"] == 0.0


def test_percentiles_are_of_the_time_between_actions() -> None:
    times = StepTimes()
    episode(times, [0.0, 0.1, 0.2, 0.3, 0.5])
    statistics = times.statistics()
    assert tuple(statistics) == TIMING_STATISTICS
    assert statistics["step_p50_s"] == pytest.approx(0.1)
    # Linear between the third (0.1 s) and the fourth (0.2 s) of four: at 0.99 x 3 = 2.97.
    assert statistics["step_p99_s"] == pytest.approx(0.1 + 0.97 * 0.1)


def test_a_time_out_is_also_late() -> None:
    times = StepTimes()
    episode(times, [0.0, 0.1, 0.35], timed_out={2})
    assert (times.statistics()["late_steps"], times.statistics()["timeouts"]) == (1.0, 1.0)


def test_the_first_step_and_one_after_a_pause_do_not_count() -> None:
    times = StepTimes()
    episode(times, [7.0, 9.0, 9.1], timed_out={0, 1}, paused=1)
    statistics = times.statistics()
    assert statistics["timeouts"] == 0.0
    assert statistics["step_p50_s"] == pytest.approx(0.1)


def test_a_single_step_has_no_duration() -> None:
    times = StepTimes()
    episode(times, [0.0])
    statistics = times.end_episode()
    assert (statistics["late_steps"], statistics["timeouts"]) == (0.0, 0.0)
    assert math.isnan(statistics["step_p50_s"])
    assert math.isnan(statistics["step_p99_s"])


def test_a_new_episode_starts_new_statistics() -> None:
    times = StepTimes()
    episode(times, [0.0, 0.5], timed_out={1})
    episode(times, [0.0, 0.1])
    assert times.statistics()["timeouts"] == 0.0


def test_late_steps_are_logged_once_a_minute_with_their_number(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    times = StepTimes(now=lambda: now[0])
    for now[0] in (0.0, 10.0, 20.0, 70.0):
        episode(times, [0.0, 0.1, 0.35], timed_out={2})
        times.end_episode()
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(",")[0] for line in said] == ["1 of 2 steps began late", "3 of 6 steps began late"]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_few_late_steps_give_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    times = StepTimes()
    sent = [index * STEP_S for index in range(41)]
    episode(times, [at + 0.02 * (index == 5) for index, at in enumerate(sent)])
    assert times.end_episode()["late_steps"] == 1.0
    assert caplog.records == []
    times = StepTimes()
    episode(times, [at + 0.02 * (index % 5 == 1) for index, at in enumerate(sent)])
    times.end_episode()
    assert "8 of 40 steps began late, 0 of them" in caplog.records[0].getMessage()
