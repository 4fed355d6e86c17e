"""The TrackMania tasks over a fake game: observations, controls, end of an episode, statistics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tasks.config import ControlKind, RewardCompat, TaskConfig
from tasks.envs.realtime import VirtualTimeEnv
from tasks.experience.samples import EPISODE_STATISTICS
from tasks.game.arrow_keys import press_arrows
from tasks.game.clock import VirtualClock
from tasks.trackmania.driving import DrivingInterface
from tasks.trackmania.frame_history import FrameHistory
from tasks.trackmania.full import FullInterface
from tasks.trackmania.lidar import LidarInterface
from tasks.trackmania.lidar_progress import LidarProgressInterface
from tasks.trackmania.track import TrackInterface
from tests.tasks.fake_game import LENGTH_M, FakeGame, straight_path, task_config

GAS = np.array([1.0, 0.0, 0.0], np.float32)
COAST = np.zeros(3, np.float32)


def build(
    kind: type[DrivingInterface], config: TaskConfig, length_m: float = LENGTH_M
) -> tuple[VirtualTimeEnv, FakeGame]:
    clock = VirtualClock()
    game = FakeGame(clock, config, length_m)
    return VirtualTimeEnv(kind(game, straight_path(length_m), config, clock), config.rtgym, clock), game


def drive_to_the_end(env: VirtualTimeEnv, action: np.ndarray = GAS) -> tuple[list[float], bool, dict[str, Any]]:
    rewards = []
    while True:
        _, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        if terminated or truncated:
            return rewards, terminated, info


@pytest.mark.parametrize("act_buf_len", [1, 2, 5])
@pytest.mark.parametrize("history", [1, 4, 7])
@pytest.mark.parametrize("grey", [True, False])
def test_full_has_tmrls_fields_for_any_sizes(act_buf_len: int, history: int, grey: bool) -> None:
    config = task_config(act_buf_len=act_buf_len)
    config.img_hist_len, config.img_grayscale, config.img_width, config.img_height = history, grey, 9, 5
    env, _ = build(FullInterface, config)
    observation, _ = env.reset(seed=1)
    images = (history, 5, 9) if grey else (history, 5, 9, 3)
    assert env.observation_spec.names[:4] == ("speed", "gear", "rpm", "images")
    assert [entry.shape for entry in observation] == [(1,), (1,), (1,), images, *[(3,)] * act_buf_len]
    assert [entry.dtype for entry in observation] == [*["float32"] * 3, "uint8", *["float32"] * act_buf_len]
    assert observation in env.observation_space
    assert env.step(GAS)[0] in env.observation_space


def test_lidar_has_tmrls_fields() -> None:
    env, _ = build(LidarInterface, task_config("TM20Lidar"))
    observation, _ = env.reset(seed=1)
    assert env.observation_spec.names == ("speed", "lidar", "action_0", "action_1")
    assert [entry.shape for entry in observation] == [(1,), (4, 19), (3,), (3,)]
    assert env.observation_spec.flat_space().shape == (83,)
    assert observation in env.observation_space


def test_lidar_progress_has_tmrls_fields() -> None:
    env, _ = build(LidarProgressInterface, task_config("TM20LidarProgress"))
    observation, _ = env.reset(seed=1)
    assert env.observation_spec.names == ("speed", "progress", "lidar", "action_0", "action_1")
    assert [entry.shape for entry in observation] == [(1,), (1,), (4, 19), (3,), (3,)]
    assert observation[1].tolist() == [0.0]
    for _ in range(40):
        observation, *_, info = env.step(GAS)
    assert observation[1][0] == pytest.approx(round(info["x"] / 0.1) * 0.1 / LENGTH_M, abs=1e-3)


def test_track_sees_the_road_and_no_picture() -> None:
    env, game = build(TrackInterface, task_config("TM20Track"))
    game.frame = game.image = game.lidar = None  # type: ignore[method-assign, assignment]
    observation, _ = env.reset(seed=1)
    assert env.observation_spec.names[:5] == ("speed", "gear", "rpm", "velocity", "yaw_rate")
    assert observation in env.observation_space
    for _ in range(40):
        observation, *_, info = env.step(GAS)
    seen = env.observation_spec.to_dict(observation)
    assert seen["velocity"].tolist() == pytest.approx([info["speed_mps"], 0.0])
    assert seen["path_ahead"][-1] == pytest.approx([6.0 * info["speed_mps"], 0.0], abs=0.11)
    assert seen["left_border_ahead"][:, 1] == pytest.approx(np.full(20, -25.75 / 2))


def test_lidar_needs_its_window() -> None:
    config = task_config("TM20Lidar")
    config.window_width = 256
    with pytest.raises(ValueError, match=r"must be 958x488 for LIDAR, got 256x488"):
        LidarInterface.spec_for(config)


def test_a_history_starts_with_the_first_frame_and_shifts() -> None:
    config = task_config("TM20Lidar", start_obs_capture=0.05)
    env, _ = build(LidarInterface, config)
    observation, _ = env.reset(seed=1)
    assert observation[1][:, 0].tolist() == [0, 0, 0, 0]
    seen = [env.step(COAST)[0][1][:, 0].tolist() for _ in range(5)]
    assert seen == [[0, 0, 0, 5], [0, 0, 5, 10], [0, 5, 10, 15], [5, 10, 15, 20], [10, 15, 20, 25]]


def test_returned_observations_never_change() -> None:
    config = task_config(ep_max_length=1000)
    config.reward.MIN_STEPS = 10_000
    env, _ = build(FullInterface, config)
    observations = [env.reset(seed=1)[0]] + [env.step(COAST)[0] for _ in range(300)]
    copies = [[entry.copy() for entry in observation] for observation in observations]
    env.reset(seed=2)
    for _ in range(100):
        env.step(GAS)
    for observation, copy in zip(observations, copies, strict=True):
        for one, other in zip(observation, copy, strict=True):
            np.testing.assert_array_equal(one, other)
    newest = [observation[3][-1, 0, 0] for observation in observations]
    assert all(np.array_equal(observations[k][3][:, 0, 0], newest[k - 3 : k + 1]) for k in range(3, len(observations)))


@pytest.mark.parametrize("length", [1, 3])
def test_a_history_of_any_length_wraps_around(length: int) -> None:
    history = FrameHistory(length, (2,), "uint8")
    history.fill(np.array([0, 0]))
    for k in range(1, 200):
        stack = history.append(np.array([k, k]))
        assert stack[:, 0].tolist() == [max(0, k - length + 1 + i) for i in range(length)]


@pytest.mark.parametrize(
    ("action", "pressed"),
    [
        ([0.01, 0.0, 0.5], [1, 0, 0]),
        ([0.0, 0.01, 0.51], [0, 1, 1]),
        ([-1.0, -1.0, -0.5], [0, 0, 0]),
        ([1.0, 1.0, -0.51], [1, 1, -1]),
    ],
)
def test_the_keyboard_presses_arrows_at_tmrls_thresholds(action: list[float], pressed: list[int]) -> None:
    assert press_arrows(np.array(action, np.float32)).tolist() == pressed
    env, game = build(FullInterface, task_config(control=ControlKind.keyboard))
    env.reset(seed=1)
    observation, *_ = env.step(np.array(action, np.float32))
    assert game.applied[-1][1] == pressed
    np.testing.assert_array_equal(observation[-1], np.array(action, np.float32))


def test_nothing_is_sent_for_no_control() -> None:
    env, game = build(FullInterface, task_config(control=ControlKind.keyboard))
    env.interface.send_control(None)
    assert game.applied == []


def test_a_lap_is_worth_its_length_and_ends_at_the_finish() -> None:
    env, _ = build(FullInterface, task_config())
    env.reset(seed=1)
    rewards, terminated, info = drive_to_the_end(env)
    assert terminated
    assert info["progress"] == 1.0
    assert sum(rewards) == pytest.approx(LENGTH_M / 10 + 10)


def test_statistics_describe_the_episode() -> None:
    env, _ = build(FullInterface, task_config())
    for seed in (1, 2):
        env.reset(seed=seed)
        rewards, _, info = drive_to_the_end(env)
        statistics = info["episode_statistics"]
        assert tuple(statistics) == EPISODE_STATISTICS
        assert all(isinstance(value, float) for value in statistics.values())
        assert statistics["return"] == pytest.approx(sum(rewards))
        assert statistics["length"] == len(rewards)
        assert (statistics["finished"], statistics["progress"]) == (1.0, 1.0)
        assert statistics["distance_m"] == pytest.approx(info["x"])
        assert statistics["max_speed_mps"] == pytest.approx(30.0, abs=0.1)
        assert LENGTH_M / 8.0 < statistics["mean_speed_mps"] < 30.0
        # The step before last ends short of the line and the last one beyond it, 50 ms apart.
        assert 0.05 * len(rewards) - 0.06 < statistics["lap_time_s"] < 0.05 * len(rewards)
        assert statistics["wall_contacts"] == pytest.approx(statistics["lap_time_s"] // 0.5, abs=1)


def test_an_episode_that_does_not_finish_has_no_lap_time() -> None:
    env, _ = build(FullInterface, task_config())
    env.reset(seed=1)
    rewards, terminated, info = drive_to_the_end(env, COAST)
    assert (len(rewards), terminated) == (81, True)
    assert math.isnan(info["episode_statistics"]["lap_time_s"])
    assert info["episode_statistics"]["finished"] == 0.0


def test_a_truncated_episode_has_statistics() -> None:
    env, _ = build(FullInterface, task_config(ep_max_length=5))
    env.reset(seed=1)
    _, terminated, info = drive_to_the_end(env)
    assert not terminated
    assert info["episode_statistics"]["length"] == 5.0


def test_a_finish_flag_left_from_the_last_race_does_not_count() -> None:
    env, game = build(FullInterface, task_config())
    game.stale_finish = True
    env.reset(seed=1)
    assert not env.step(GAS)[2]
    game.stale_finish = False
    assert not env.step(GAS)[2]
    game.stale_finish = True
    assert env.step(GAS)[2]


@pytest.mark.parametrize(("length_m", "steps"), [(200.0, 1000), (400.0, 1000), (1000.0, 2500)])
def test_the_maximum_length_of_an_episode_follows_the_track(length_m: float, steps: int) -> None:
    env, _ = build(FullInterface, task_config(), length_m)
    assert env.ep_max_length == steps


def test_the_default_action_is_sent_before_the_restart_and_the_game_gets_the_seed() -> None:
    env, game = build(FullInterface, task_config())
    env.reset(seed=0)
    env.step(GAS)
    env.reset(seed=9)
    assert game.seeds == [0, 9]
    assert [control for _, control in game.applied] == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_every_info_says_where_the_car_is() -> None:
    env, _ = build(FullInterface, task_config())
    _, info = env.reset(seed=1)
    assert info["progress"] == 0.0
    *_, info = env.step(GAS)
    assert set(info) == {"progress", "x", "z", "speed_mps", "race_time_s"}


def test_tmrls_reward_can_be_chosen() -> None:
    config = task_config()
    config.reward.compat = RewardCompat.tmrl
    env, _ = build(FullInterface, config)
    env.reset(seed=1)
    rewards, terminated, info = drive_to_the_end(env)
    assert terminated
    assert info["progress"] == 1.0
    # TMRL pays no rest: the nearest point at the last capture counts, which is the last one.
    assert sum(rewards) == pytest.approx(20 + 10, abs=0.01)


def test_rendering_gives_a_colour_picture() -> None:
    env, _ = build(FullInterface, task_config())
    env.reset(seed=1)
    picture = env.render()
    assert picture is not None
    assert (picture.shape, picture.dtype) == ((128, 256, 3), np.uint8)


def test_closing_twice_closes_the_game_once() -> None:
    env, game = build(FullInterface, task_config())
    env.close()
    env.close()
    assert game.closed == 1
