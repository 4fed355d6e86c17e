"""The warm-up policies and held pedals: their ranges, what is held for how long, their state."""

from __future__ import annotations

import json

import numpy as np
import pytest

from algos.acting.exploration import HeldPedals, make_warm_up
from algos.config import WarmUp


def test_driving_presses_the_gas_and_holds_the_steer_for_six_steps_on_average() -> None:
    policy = make_warm_up(WarmUp.driving, 3, 0)
    policy.begin_episode()
    actions = np.array([policy.act() for _ in range(12_000)])
    gas, brake, steer = actions.T
    assert gas.mean() == pytest.approx(0.4, abs=0.02)
    assert (gas.min(), gas.max()) == (pytest.approx(-0.2, abs=0.01), pytest.approx(1.0, abs=0.01))
    assert brake.mean() == pytest.approx(-0.35, abs=0.02)
    assert (brake.min(), brake.max()) == (pytest.approx(-1.0, abs=0.01), pytest.approx(0.3, abs=0.01))
    num_holds = 1 + np.count_nonzero(np.diff(steer))
    assert len(steer) / num_holds == pytest.approx(6.0, rel=0.05)
    assert (steer.min(), steer.max()) == (pytest.approx(-1.0, abs=0.01), pytest.approx(1.0, abs=0.01))


def test_driving_draws_a_new_steer_at_the_start_of_an_episode() -> None:
    policy = make_warm_up(WarmUp.driving, 3, 0)
    steers = []
    for _ in range(20):
        policy.begin_episode()
        steers.append(policy.act()[2])
    assert len(set(steers)) == 20


def test_uniform_samples_the_whole_range_for_any_number_of_actions() -> None:
    policy = make_warm_up(WarmUp.uniform, 5, 0)
    actions = np.array([policy.act() for _ in range(5000)])
    assert actions.shape == (5000, 5)
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions.mean(0), 0, atol=0.04)
    np.testing.assert_allclose(actions.std(0), 1 / np.sqrt(3), rtol=0.03)


@pytest.mark.parametrize("kind", list(WarmUp))
def test_a_state_restored_from_json_continues_the_same_actions(kind: WarmUp) -> None:
    one, other = make_warm_up(kind, 3, 0), make_warm_up(kind, 3, 9)
    for _ in range(5):
        one.act()
    other.load_state(json.loads(json.dumps(one.state())))
    assert all(np.array_equal(one.act(), other.act()) for _ in range(30))


def test_driving_refuses_action_spaces_other_than_trackmanias() -> None:
    with pytest.raises(ValueError, match=r"three actions .* got 2 actions; set warm_up: uniform"):
        make_warm_up(WarmUp.driving, 2, 0)


def pressed(pedals: HeldPedals, steps: int) -> np.ndarray:
    """What is made of the action (0.1, 0.2, 0.3), shape (steps, 3)."""
    actions = np.tile(np.array([0.1, 0.2, 0.3], np.float32), (steps, 1))
    for action in actions:
        pedals.press(action)
    return actions


def test_pedals_are_held_for_two_to_eight_steps_once_in_a_hundred_and_the_steer_is_left_alone() -> None:
    actions = pressed(HeldPedals(0.01, 3, 0), 100_000)
    assert (actions[:, 2] == np.float32(0.3)).all()
    is_held = actions[:, 0] != np.float32(0.1)
    assert np.array_equal(is_held, actions[:, 1] != np.float32(0.2))
    pairs, counts = np.unique(actions[is_held, :2], axis=0, return_counts=True)
    assert pairs.tolist() == [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    np.testing.assert_allclose(counts / counts.sum(), 0.25, atol=0.05)
    changes = np.flatnonzero(np.diff(is_held, prepend=False, append=False))
    lengths = changes[1::2] - changes[::2]
    assert lengths.min() == 2
    assert 8 in lengths
    assert len(lengths) / np.count_nonzero(~is_held) == pytest.approx(0.01, rel=0.1)


def test_an_episode_begins_with_no_pedals_held_and_a_rate_of_zero_never_holds_any() -> None:
    pedals = HeldPedals(0.999, 3, 0)
    assert (pressed(pedals, 1)[:, :2] != (np.float32(0.1), np.float32(0.2))).all()
    pedals.begin_episode()
    assert pedals.state()["steps_left"] == 0
    assert (pressed(HeldPedals(0.0, 3, 0), 1000) == np.array([0.1, 0.2, 0.3], np.float32)).all()


def test_held_pedals_go_on_from_a_state_restored_from_json() -> None:
    one, other = HeldPedals(0.3, 3, 0), HeldPedals(0.3, 3, 9)
    pressed(one, 20)
    other.load_state(json.loads(json.dumps(one.state())))
    assert np.array_equal(pressed(one, 50), pressed(other, 50))


def test_held_pedals_are_refused_for_other_actions() -> None:
    with pytest.raises(ValueError, match=r"held_pedals needs the three actions .* got 2 actions; set held_pedals: 0"):
        HeldPedals(0.01, 2, 0)
    HeldPedals(0.0, 2, 0)
