from __future__ import annotations

import math

import pytest

from algos.learning.pace import Pace


def _run(pace: Pace, env_steps: int, rows: int) -> None:
    """Updates as much as allowed, then receives; the learner is the faster one."""
    while pace.env_steps < env_steps:
        if pace.may_receive():
            pace.add_env_steps(rows)
        while pace.may_update():
            pace.add_updates()


def test_no_update_during_warm_up():
    pace = Pace(1.0, 1.0, env_steps_before_training=100)
    pace.add_env_steps(100)
    assert not pace.may_update()
    assert math.isnan(pace.ratio)
    pace.add_env_steps(1)
    assert pace.may_update()


@pytest.mark.parametrize("ratio", [0.5, math.inf])
def test_the_step_of_the_first_update_is_predicted(ratio):
    pace = Pace(0.0, ratio, env_steps_before_training=100)
    assert [pace.may_update_at(steps) for steps in (0, 100, 102)] == [False, False, True]
    pace.add_env_steps(102)
    pace.add_updates()
    pace.restart_ratio(available_env_steps=99)
    assert [pace.may_update_at(steps) for steps in (103, 105)] == [False, True]


@pytest.mark.parametrize("ratio", [0.01, 0.29, 1.0, 4.0, math.inf])
@pytest.mark.parametrize("updates", [0, 28])
def test_the_steps_of_the_next_update_are_the_fewest_at_which_it_may_be_made(ratio, updates):
    pace = Pace(0.0, ratio, env_steps_before_training=100)
    pace.add_updates(updates)
    fewest = next(steps for steps in range(4000) if pace.may_update_at(steps))
    assert pace.next_update_at == fewest


@pytest.mark.parametrize("ratio", [0.29, 0.7, 1.0, 4.0])
def test_fast_learner_makes_exactly_the_maximum(ratio):
    pace = Pace(0.0, ratio, 0)
    _run(pace, 1000, rows=100)
    assert pace.updates == round(ratio * 1000)  # by hand: 290, 700, 1000, 4000


def test_slow_learner_holds_samples_back_at_the_minimum():
    pace = Pace(2.0, 8.0, env_steps_before_training=50)
    while pace.env_steps < 1050:
        if pace.may_receive():
            pace.add_env_steps(10)
        elif pace.may_update():
            pace.add_updates()
    while not pace.may_receive():
        pace.add_updates()
    assert pace.updates == 2000
    assert pace.ratio == pytest.approx(2.0, rel=0.05)


def test_live_game_ignores_the_minimum():
    pace = Pace(2.0, 8.0, 0, ignore_min=True)
    pace.add_env_steps(1000)
    assert pace.may_receive()
    assert pace.may_update()


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 1.0, 1.5])
def test_equal_bounds_never_block_both_sides(ratio):
    pace = Pace(ratio, ratio, 0)
    for _ in range(5000):
        assert pace.may_receive() or pace.may_update()
        if pace.may_update():
            pace.add_updates()
        else:
            pace.add_env_steps(1)
        assert not (pace.env_steps and pace.updates > ratio * pace.env_steps + 1e-6)


def test_infinite_maximum_sets_no_limit_to_updates():
    pace = Pace(0.0, math.inf, 0)
    pace.add_env_steps(1)
    pace.add_updates(10_000)
    assert pace.may_update()


def test_stored_rows_shorten_the_warm_up_after_a_restart():
    pace = Pace(1.0, 1.0, 100)
    pace.restart_ratio(available_env_steps=70)
    pace.add_env_steps(30)
    assert not pace.may_update()
    pace.add_env_steps(1)
    assert pace.may_update()
    pace.restart_ratio(available_env_steps=1000)
    pace.add_env_steps(1)
    assert pace.may_update()


def test_a_restored_state_makes_the_same_decisions():
    pace = Pace(1.0, 2.0, 10)
    pace.add_env_steps(25)
    pace.add_updates(17)
    other = Pace(1.0, 2.0, 10)
    other.load_state_dict(pace.state_dict())
    assert (other.ratio, other.may_update(), other.may_receive()) == (17 / 15, True, True)


@pytest.mark.parametrize(("low", "high"), [(2.0, 1.0), (-1.0, 1.0), (0.0, 0.0), (math.nan, 1.0)])
def test_contradicting_bounds_are_refused(low, high):
    with pytest.raises(ValueError, match="min_updates_per_env_step"):
        Pace(low, high, 0)
