"""Rewards, worked out by hand on paths where every index can be read off the position."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from tasks.config import RewardCompat, RewardConfig
from tasks.trackmania.reward import ProgressReward, ProgressRewards
from tests.tasks.fake_game import straight_path

STEP_S = 0.05


def tmrl(path: np.ndarray, **config: Any) -> ProgressReward:
    return ProgressReward(path, RewardConfig(compat=RewardCompat.tmrl, **{"END_OF_TRACK": 100.0, **config}), STEP_S)


def ours(path: np.ndarray, **config: Any) -> ProgressReward:
    return ProgressReward(path, RewardConfig(**config), STEP_S)


def along(*x: float) -> np.ndarray:
    return np.array([[entry, 0.0, 0.0] for entry in x])


def hairpin() -> np.ndarray:
    """30 m along x, 2 m across, 30 m back: index 100 k is (10 k, 0) on the way out, 520 is (10, 2) on the way back."""
    out = np.arange(300) * 0.1
    points = [(x, 0.0, 0.0) for x in out] + [(30.0, 0.0, 0.1 * k) for k in range(20)]
    return np.array(points + [(30.0 - x, 0.0, 2.0) for x in np.arange(301) * 0.1])


def rewards(reward: ProgressReward, *x: float) -> list[float]:
    return [round(reward.step(entry, 0.0, 0.0, False)[0], 6) for entry in x]


def end_when_repeating(reward: ProgressReward, positions: Any, limit: int = 1000) -> int | None:
    """The step at which the episode terminates."""
    for step in range(1, limit + 1):
        if reward.step(next(positions), 0.0, 0.0, False)[1]:
            return step
    return None


def test_tmrl_pays_a_tenth_per_metre() -> None:
    assert rewards(tmrl(straight_path()), 1.0, 3.0, 3.5) == [0.1, 0.2, 0.05]


def test_tmrl_pays_a_cut_within_the_forward_window() -> None:
    reward = tmrl(hairpin())
    reward.step(10.0, 0.0, 0.0, False)
    assert reward.step(10.0, 0.0, 2.0, False)[0] == pytest.approx(4.2)
    assert reward.current_index == 520


def test_tmrl_does_not_see_a_cut_beyond_the_forward_window() -> None:
    reward = tmrl(hairpin(), CHECK_FORWARD=420)
    reward.step(10.0, 0.0, 0.0, False)
    # Tested from 100 on: 100 .. 519; the point 519 is nearer than 100 (0.1 m against 2 m), so the search goes on.
    assert reward.step(10.0, 0.0, 2.0, False)[0] == pytest.approx(4.2)
    reward = tmrl(hairpin(), CHECK_FORWARD=400)
    reward.step(10.0, 0.0, 0.0, False)
    # 499 is (12.1, 2): 2.1 m away, farther than the 2 m of point 100, so nothing is found.
    assert reward.step(10.0, 0.0, 2.0, False)[0] == 0.0
    assert reward.current_index == 100


def test_tmrl_gives_a_tie_to_the_later_point() -> None:
    reward = tmrl(along(0, 1, 2, 3))
    assert rewards(reward, 0.5) == [0.01]


def test_tmrl_gives_a_tie_in_the_rewind_to_the_earlier_point() -> None:
    reward = tmrl(along(0, 1, 2, 3, 4))
    assert rewards(reward, 3.0, 2.5) == [0.03, 0.0]
    assert reward.current_index == 2


def test_tmrl_rewinds_to_where_the_car_is() -> None:
    reward = tmrl(straight_path())
    assert rewards(reward, 5.0, 3.0, 4.0) == [0.5, 0.0, 0.1]


def test_tmrl_never_rewinds_to_the_first_point() -> None:
    reward = tmrl(along(0, 1, 2, 3))
    assert rewards(reward, 2.0, 0.0, 3.0) == [0.02, 0.0, 0.02]


def test_tmrl_rewinds_no_farther_than_its_window() -> None:
    # Seen from (50, -1), the points 9, 8, 7 are farther and farther away than point 10; point 6 is 1 m away.
    before = [[0.0, 0.0, 10.0 * k] for k in range(6)]
    path = np.array([*before, [50.0, 0.0, 0.0], *([90.0, 0.0, 3.0 - k] for k in range(4))])
    near = tmrl(path, CHECK_BACKWARD=3)
    far = tmrl(path, CHECK_BACKWARD=6)
    for reward in (near, far):
        reward._state[0] = 10
        reward.step(50.0, 0.0, -1.0, False)
    assert (near.current_index, far.current_index) == (10, 6)


def test_tmrl_only_withholds_the_reward_from_a_car_that_strayed() -> None:
    reward = tmrl(straight_path(), MAX_STRAY=5.0)
    assert reward.step(3.0, 0.0, 6.0, False) == (0.0, False)
    assert reward.step(3.0, 0.0, 5.0, False) == (pytest.approx(0.3), False)


def test_tmrl_stops_paying_at_the_end_of_the_data() -> None:
    reward = tmrl(straight_path(2.0))
    assert rewards(reward, 1.5, 2.5, 3.0) == [0.15, 0.05, 0.0]


def test_tmrl_ends_an_episode_that_stands_still_at_step_81() -> None:
    assert end_when_repeating(tmrl(straight_path()), iter([0.0] * 200)) == 81


def test_tmrl_begins_its_countdown_after_the_last_progress() -> None:
    # Progress until step 75, then nothing: the failures are counted at steps 76 .. 86, the eleventh ends it.
    positions = iter([0.5 * min(step, 75) for step in range(1, 200)])
    assert end_when_repeating(tmrl(straight_path()), positions) == 86


def test_tmrl_is_kept_alive_by_creeping() -> None:
    assert end_when_repeating(tmrl(straight_path()), (0.01 * step for step in range(1, 1001))) is None


def test_tmrl_pays_for_driving_back_and_forth() -> None:
    reward = tmrl(straight_path())
    reward.step(5.0, 0.0, 0.0, False)
    assert sum(rewards(reward, *[3.0, 5.0] * 10)) == pytest.approx(2.0)


def test_tmrl_adds_finish_and_penalty_in_single_precision() -> None:
    reward = tmrl(straight_path(), CONSTANT_PENALTY=-0.3)
    assert reward.step(1.0, 0.0, 0.0, True) == (float(np.float32(0.1 + 100.0 - 0.3)), True)


def test_tmrl_observes_the_current_index_over_the_number_of_points() -> None:
    reward = tmrl(straight_path(20.0))
    rewards(reward, 10.0, 5.0)
    assert reward.observed_progress == pytest.approx(50 / 201)


def test_a_lap_is_worth_a_tenth_of_its_length_and_the_finish() -> None:
    reward = ours(straight_path(200.0), END_OF_TRACK=10.0)
    total = sum(rewards(reward, *np.arange(0.0, 190.0, 1.7)))
    total += reward.step(199.0, 0.0, 0.0, True)[0]
    assert total == pytest.approx(200.0 / 10.0 + 10.0)
    assert reward.progress == 1.0


def test_the_finish_is_paid_once() -> None:
    reward = ours(straight_path(20.0))
    assert reward.step(20.0, 0.0, 0.0, True) == (pytest.approx(12.0), True)
    assert reward.step(20.0, 0.0, 0.0, True) == (0.0, True)


def test_driving_back_and_forth_earns_nothing() -> None:
    reward = ours(straight_path())
    assert rewards(reward, 5.0) == [0.5]
    assert rewards(reward, *[3.0, 5.0] * 10) == [0.0] * 20
    assert rewards(reward, 5.5) == [0.05]


def test_the_car_is_followed_when_it_goes_back() -> None:
    reward = ours(straight_path())
    rewards(reward, 5.0, 3.0)
    assert reward.current_index == 30
    assert reward.observed_progress == pytest.approx(30 / 2000)
    assert reward.progress == pytest.approx(50 / 2000)


def test_standing_still_ends_at_step_81_too() -> None:
    assert end_when_repeating(ours(straight_path()), iter([0.0] * 200)) == 81


@pytest.mark.parametrize(("speed", "end"), [(1.5, 81), (1.8, 81), (2.2, None), (10.0, None)])
def test_creeping_does_not_keep_an_episode_alive(speed: float, end: int | None) -> None:
    positions = (speed * STEP_S * step for step in range(1, 301))
    assert end_when_repeating(ours(straight_path(), min_speed=2.0), positions, 300) == end


def test_a_car_that_stops_later_has_the_countdown_left() -> None:
    # 10 m/s until step 100: the steps 101 .. 110 still see at least one moving step of 5 points, step 111 sees none;
    # 11 steps must bring 11 points, so the step after which only two moved (10 points) is 109.
    positions = iter([0.5 * min(step, 100) for step in range(1, 300)])
    assert end_when_repeating(ours(straight_path()), positions) == 109


def test_without_a_minimum_speed_only_standing_still_ends_it() -> None:
    positions = (0.02 * step for step in range(1, 301))
    assert end_when_repeating(ours(straight_path(), min_speed=0.0), positions, 300) is None
    assert end_when_repeating(ours(straight_path(), min_speed=0.0), iter([0.0] * 200)) == 81


def test_a_car_that_strays_ends_its_episode_at_once() -> None:
    reward = ours(straight_path(), MAX_STRAY=5.0)
    assert reward.step(3.0, 0.0, 4.9, False) == (pytest.approx(0.3), False)
    assert reward.step(4.0, 0.0, 5.1, False) == (0.0, True)


def test_a_position_that_is_not_a_number_ends_the_episode() -> None:
    assert ours(straight_path()).step(float("nan"), 0.0, 0.0, False) == (0.0, True)


def test_cuts_are_measured_from_the_car() -> None:
    reward = ours(hairpin(), CHECK_FORWARD=500)
    reward.step(10.0, 0.0, 0.0, False)
    assert reward.step(10.0, 0.0, 2.0, False)[0] == pytest.approx(4.2)
    reward = ours(hairpin(), CHECK_FORWARD=400)
    reward.step(10.0, 0.0, 0.0, False)
    assert reward.step(10.0, 0.0, 2.0, False)[0] == 0.0


def test_speed_lost_into_a_wall_costs() -> None:
    reward = ours(straight_path(), wall_penalty=0.05, CONSTANT_PENALTY=-0.01)
    assert reward.step(1.0, 0.0, 0.0, False, 2.0)[0] == pytest.approx(0.1 - 0.1 - 0.01)
    assert reward.step(2.0, 0.0, 0.0, False, 2.0)[0] == pytest.approx(0.1 - 0.01)
    assert reward.step(3.0, 0.0, 0.0, False, 3.0)[0] == pytest.approx(0.1 - 0.05 - 0.01)


def test_a_reset_clears_the_state() -> None:
    reward = ours(straight_path(), wall_penalty=0.05)
    for _ in range(60):
        reward.step(30.0, 0.0, 0.0, False, 5.0)
    reward.reset()
    assert reward.progress == 0.0
    assert reward.step(1.0, 0.0, 0.0, False, 0.0) == (pytest.approx(0.1), False)
    assert end_when_repeating(reward, iter([1.0] * 200)) == 80


def test_another_path_for_a_car_leaves_the_path_of_others_alone() -> None:
    path = straight_path(30.0)
    before = path.copy()
    one, other = (ProgressRewards(path, RewardConfig(), STEP_S, 1) for _ in range(2))
    one.put_on(straight_path(20.0) + 5.0, 0)
    np.testing.assert_array_equal(path, before)
    np.testing.assert_array_equal(other.path(0), before)
    np.testing.assert_array_equal(one.path(0), straight_path(20.0) + 5.0)


def test_a_call_takes_a_few_microseconds() -> None:
    reward = ours(straight_path(2500.0))
    positions = np.linspace(0.0, 2400.0, 20_000).tolist()
    reward.step(0.0, 0.0, 0.0, False)
    started = time.perf_counter()
    for x in positions:
        reward.step(x, 0.0, 1.0, False)
    mean_s = (time.perf_counter() - started) / len(positions)
    assert mean_s < 20e-6, f"{mean_s * 1e6:.1f} us; about 3 us on an idle core"
