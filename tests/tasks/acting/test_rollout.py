"""Rollout: rows hold what the environment returned, and a restored state continues bit for bit."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest

from tasks import registry
from tasks.acting.rollout import Rollout
from tasks.experience.samples import Segment
from tests.tasks.remote.fakes import CountingEnv, RandomPolicy

pytestmark = pytest.mark.timeout(60)


def make_rollout(seed: int = 0, check_samples: bool = False, **env: object) -> Rollout:
    return Rollout(CountingEnv(**env), RandomPolicy(seed), "w", 0, seed, check_samples)  # type: ignore[arg-type]


def assert_equal(a: Segment, b: Segment) -> None:
    for name in ("action", "reward", "terminated", "truncated", "is_first"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name, frames in a.frames.items():
        np.testing.assert_array_equal(frames, b.frames[name], err_msg=name)


def test_rows_follow_the_sample_convention() -> None:
    segment = make_rollout(length=3).run(9)
    # Episodes of three steps are four rows each: the reset, then counts 1 to 3.
    np.testing.assert_array_equal(segment.frames["count"][:, 0], [0, 1, 2, 3, 0, 1, 2, 3, 0])
    np.testing.assert_array_equal(segment.is_first, [1, 0, 0, 0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(segment.reward, [0, 1, 2, 3, 0, 1, 2, 3, 0])
    np.testing.assert_array_equal(segment.action[segment.is_first], 0)
    np.testing.assert_array_equal(segment.frames["images"][:, 0, 0], segment.frames["count"][:, 0])
    ended = segment.terminated | segment.truncated
    np.testing.assert_array_equal(ended, [0, 0, 0, 1, 0, 0, 0, 1, 0])
    assert not (segment.terminated & segment.truncated).any()
    assert segment.num_env_steps == 6
    assert [episode["length"] for episode in segment.episodes] == [3.0, 3.0]
    assert segment.checksums is None


def test_position_is_reproduced_from_the_stored_actions() -> None:
    segment = make_rollout(length=50).run(40)
    noise = np.random.default_rng()
    from gymnasium.utils import seeding  # the environment's own generator, a second time

    seed = int(np.random.default_rng(0).integers(2**31 - 1))
    noise, _ = seeding.np_random(seed)
    position = 0.0
    for row in range(1, 40):
        position += float(segment.action[row].sum()) + float(noise.normal())
        assert segment.frames["position"][row, 0] == np.float32(position)


def test_segments_of_a_stream_follow_each_other() -> None:
    whole = make_rollout(length=7).run(60)
    rollout = make_rollout(length=7)
    pieces = [rollout.run(n) for n in (1, 2, 7, 8, 9, 33)]
    for name in ("action", "reward", "terminated", "truncated", "is_first"):
        np.testing.assert_array_equal(np.concatenate([getattr(piece, name) for piece in pieces]), getattr(whole, name))


def test_the_action_buffer_decides_the_first_action() -> None:
    segment = make_rollout(length=3, reset_act_buf=False).run(20)
    # With histories that continue, reset() still applies the default action, zero.
    np.testing.assert_array_equal(segment.action[segment.is_first], 0)


@pytest.mark.parametrize("num_rows", [0, 1, 5, 11, 12, 40])
@pytest.mark.parametrize("reset_act_buf", [True, False])
def test_a_restored_state_continues_bit_for_bit(num_rows: int, reset_act_buf: bool) -> None:
    original = make_rollout(seed=3, check_samples=True, reset_act_buf=reset_act_buf)
    if num_rows:
        original.run(num_rows)
    state = json.loads(json.dumps(original.state()))
    resumed = make_rollout(seed=99, check_samples=True, reset_act_buf=reset_act_buf)
    resumed.load_state(state)
    expected, got = original.run(50), resumed.run(50)
    assert_equal(expected, got)
    # The checksums cover the whole stacked observations, action buffers included.
    np.testing.assert_array_equal(expected.checksums, got.checksums)
    assert original.policy.num_episodes == resumed.policy.num_episodes  # type: ignore[attr-defined]


def test_loading_a_state_notices_a_changed_environment() -> None:
    original = make_rollout(length=10)
    original.run(5)
    state = original.state()
    state["actions"][2] = [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="not deterministic or has changed"):
        make_rollout(length=10).load_state(state)


def test_checksums_are_of_the_whole_observation() -> None:
    segment = make_rollout(check_samples=True).run(3)
    assert segment.checksums is not None
    observation = [
        *(segment.frames[name][0] for name in ("count", "seed", "position")),
        np.zeros((4, 8, 8), np.uint8),
        np.zeros(3, np.float32),
        np.zeros(3, np.float32),
    ]
    assert segment.checksums[0] == zlib.crc32(b"".join(part.tobytes() for part in observation))


def test_stopping_ends_a_segment_early() -> None:
    answers = iter([False, False, True])
    segment = make_rollout().run(10, lambda: next(answers))
    assert len(segment) == 3
    assert all(len(frames) == 3 for frames in segment.frames.values())


def test_a_reward_that_is_not_a_number_is_refused_with_its_place() -> None:
    with pytest.raises(ValueError, match="reward must be finite, got nan at row 4"):
        make_rollout(bad_reward_at=4).run(10)


def test_seed_zero_differs_from_seed_one_and_repeats() -> None:
    np.testing.assert_array_equal(make_rollout(0).run(5).action, make_rollout(0).run(5).action)
    assert (make_rollout(0).run(5).action[1:] != make_rollout(1).run(5).action[1:]).any()


@pytest.mark.parametrize("name", ["TM20Full", "TM20LidarProgress", "TM20Track"])
def test_the_simulator_is_restored_bit_for_bit(name: str) -> None:
    def rollout(seed: int) -> Rollout:
        env = registry.make(name, observation="dict", track="short", game="sim")
        return Rollout(env, RandomPolicy(seed), "w", 0, seed, check_samples=True)

    original = rollout(3)
    original.run(137)  # in the middle of an episode that is not the first
    resumed = rollout(99)
    resumed.load_state(original.state())
    expected, got = original.run(200), resumed.run(200)
    assert expected.episodes
    assert_equal(expected, got)
    np.testing.assert_array_equal(expected.checksums, got.checksums)
