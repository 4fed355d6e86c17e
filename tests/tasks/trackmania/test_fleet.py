"""Many cars in one call: each is the car of the ordinary environment, bit by bit, whatever drives beside it."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from numba.np.ufunc.parallel import get_thread_count

from tasks import registry
from tasks.config import TaskConfig
from tasks.envs.batch import Observations
from tasks.sim.threads import use_threads
from tasks.trackmania.fleet import Fleet

pytestmark = pytest.mark.timeout(300)  # the first run compiles the simulator

RANDOM = {
    "input_delay_ticks": [0, 5],
    "capture_jitter_s": 0.009,
    "start_offset_m": 3.0,
    "rolling_starts": 0.5,
    "vehicle": {"acceleration_percent": 10.0, "grip_percent": 10.0, "steering_gain_percent": 10.0},
}
SHORT = {"track": "short", "game": "sim", "randomization": RANDOM}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lidar": ("TM20Lidar", {}),
    "lidar on its own clock": ("TM20Lidar", {"rtgym": {"start_obs_capture": 0.05, "time_step_timeout_factor": 1.0}}),
    "progress": ("TM20LidarProgress", {"reward": {"compat": "tmrl"}, "rtgym": {"reset_act_buf": False}}),
    "last act": ("TM20Lidar", {"rtgym": {"reset_act_buf": False, "last_act_on_reset": True, "wait_on_done": False}}),
    "grey": ("TM20Full", {"reward": {"wall_penalty": 0.1, "CONSTANT_PENALTY": -0.01}}),
    "colour": ("TM20Full", {"img_grayscale": False, "img_width": 48, "img_height": 40, "img_hist_len": 2}),
    "keyboard": ("TM20Lidar", {"control": "keyboard", "rtgym": {"ep_max_length": 35, "act_buf_len": 3}}),
    "privileged": ("TM20Lidar", {"privileged": True}),
    "track": ("TM20Track", {"look_ahead_exponent": 2.0}),
    "track by keyboard": ("TM20Track", {"control": "keyboard", "privileged": True, "rtgym": {"ep_max_length": 35}}),
    "actions not seen": ("TM20LidarProgress", {"rtgym": {"act_in_obs": False}}),
    "track on random": ("TM20Track", {"track": "random", "look_ahead_exponent": 3.0}),
    "random tracks": ("TM20LidarProgress", {"track": "random", "privileged": True}),
    "random tracks in pictures": ("TM20Full", {"track": "random"}),
}
NUM_CARS = 5


def config_of(name: str, changes: dict[str, Any]) -> TaskConfig:
    config = registry._merged(name, None, {**SHORT, **changes})
    assert isinstance(config, TaskConfig)
    return registry.resolve_game(config)


def fleet_of(config: TaskConfig, count: int, threads: int | None = None) -> Fleet:
    batch = registry.batch_class(config)
    assert batch is not None
    assert issubclass(batch, Fleet)
    return batch(config, count, 0, threads)


def driven(rng: np.random.Generator, count: int) -> np.ndarray:
    """Actions of drivers that go ahead, and now and then into a wall."""
    actions = rng.uniform(-1.0, 1.0, (count, 3)).astype(np.float32)
    actions[:, 0] += 0.7
    actions[:, 1] -= 0.8
    return np.clip(actions, -1.0, 1.0)


def assert_row(observation: Observations, row: int, expected: dict[str, np.ndarray], when: str) -> None:
    assert set(observation) == set(expected)
    for name, value in expected.items():
        assert observation[name].dtype == value.dtype, name
        np.testing.assert_array_equal(observation[name][row], value, err_msg=f"{name} {when}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_car_is_that_of_the_ordinary_environment(variant: str) -> None:
    name, changes = VARIANTS[variant]
    config = config_of(name, {**changes, "rtgym": {"ep_max_length": 75, **changes.get("rtgym", {})}})
    fleet = fleet_of(config, NUM_CARS)
    envs: list[Any] = [registry.make(name, observation="dict", config=config) for _ in range(NUM_CARS)]
    assert fleet.observation_spec.to_json() == envs[0].observation_spec.to_json()
    rng, seeds = np.random.default_rng(0), np.random.default_rng(1)
    ended, num_ended, latest = list(range(NUM_CARS)), 0, [dict[str, np.ndarray]() for _ in envs]
    for step in range(200):
        if ended:
            drawn = [int(seed) for seed in seeds.integers(2**31, size=len(ended))]
            observation = fleet.begin(ended, drawn)
            for car, seed in zip(ended, drawn, strict=True):
                latest[car] = envs[car].reset(seed=seed)[0]
            for car, expected in enumerate(latest):
                assert_row(observation, car, expected, f"of car {car} after cars {ended} were reset")
        actions = driven(rng, NUM_CARS)
        outcome = fleet.act(actions)
        ended = []
        for car, env in enumerate(envs):
            seen, reward, terminated, truncated, info = env.step(actions[car])
            latest[car], when = seen, f"of car {car} at step {step}"
            assert_row(outcome.observation, car, seen, when)
            got = (outcome.reward[car], outcome.terminated[car], outcome.truncated[car])
            assert got == (reward, terminated, truncated), when
            if terminated or truncated:
                ended.append(car)
                np.testing.assert_equal(fleet.statistics(car), info["episode_statistics"])
        num_ended += len(ended)
        if step % 9 == 0 and step < 9 * NUM_CARS and step // 9 not in ended:  # so that they do not all end at once
            ended.append(step // 9)
    assert num_ended > NUM_CARS


def test_episodes_may_be_abandoned() -> None:
    config = config_of("TM20Lidar", {})
    fleet, env = fleet_of(config, 2), registry.make("TM20Lidar", observation="dict", config=config)
    fleet.begin([0, 1], [5, 6])
    env.reset(seed=6)
    rng = np.random.default_rng(0)
    for seed in (7, 8):
        for _ in range(9):
            actions = driven(rng, 2)
            assert_row(fleet.act(actions).observation, 1, env.step(actions[1])[0], "of car 1")
        assert_row(fleet.begin([1], [seed]), 1, env.reset(seed=seed)[0], "of car 1 after its reset")


def test_a_finished_lap_is_paid_and_told() -> None:
    from tasks.sim.game import SimulatedGame
    from tasks.sim.scripted_driver import ScriptedDriver

    config = config_of("TM20Lidar", {"randomization": {}})
    env: Any = registry.make("TM20Lidar", observation="dict", config=config)
    game = env.interface.game
    assert isinstance(game, SimulatedGame)
    driver, fleet = ScriptedDriver(game.track), fleet_of(config, 3)
    fleet.begin([0, 1, 2], [1, 0, 2])
    env.reset(seed=0)
    for _ in range(2000):
        action = driver.act(game.state())
        _, reward, terminated, truncated, info = env.step(action)
        outcome = fleet.act(np.stack([action] * 3))
        assert (outcome.reward[1], outcome.terminated[1], outcome.truncated[1]) == (reward, terminated, truncated)
        others = [car for car in (0, 2) if outcome.terminated[car] or outcome.truncated[car]]
        fleet.begin(others, [3] * len(others))
        if terminated:
            break
    assert fleet.statistics(1) == info["episode_statistics"]
    assert info["episode_statistics"]["finished"] == 1.0


def test_no_more_threads_are_asked_for_than_numba_has() -> None:
    use_threads(10_000)
    assert numba.get_num_threads() == get_thread_count()


@pytest.mark.parametrize("name", ["TM20Lidar", "TM20Full"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_car_is_the_same_in_a_fleet_of_any_size(name: str, threads: int) -> None:
    config = config_of(name, {})
    alone, many = fleet_of(config, 1), fleet_of(config, 37, threads)
    actions = driven(np.random.default_rng(3), 60)
    first = alone.begin([0], [11])
    assert_row(many.begin(range(37), range(37)), 11, {key: value[0] for key, value in first.items()}, "at its start")
    for step, action in enumerate(actions):
        expected, got = alone.act(action[None]), many.act(np.stack([action] * 37))
        seen = {key: value[0] for key, value in expected.observation.items()}
        assert_row(got.observation, 11, seen, f"at step {step}")
        assert got.reward[11] == expected.reward[0]


def test_observations_never_change_afterwards() -> None:
    fleet = fleet_of(config_of("TM20Full", {}), 3)
    rng = np.random.default_rng(0)
    held = [fleet.reset()]
    copies = [{name: value.copy() for name, value in held[0].items()}]
    for _ in range(4):
        held.append(fleet.step(driven(rng, 3)).observation)
        held.append(fleet.begin([1], [4]))
        copies += [{name: value.copy() for name, value in entry.items()} for entry in held[-2:]]
    for entry, copy in zip(held, copies, strict=True):
        for name, value in entry.items():
            np.testing.assert_array_equal(value, copy[name])


def test_the_batch_begins_the_next_episode_and_tells_of_the_last() -> None:
    fleet = fleet_of(config_of("TM20Lidar", {"rtgym": {"ep_max_length": 3}}), 2)
    fleet.reset()
    steps = [fleet.step(np.zeros((2, 3))) for _ in range(3)]
    assert [step.truncated.tolist() for step in steps] == [[False, False], [False, False], [True, True]]
    assert [index for index, _ in steps[-1].episodes] == [0, 1]
    assert steps[-1].episodes[0][1]["length"] == 3.0
    assert (steps[-1].observation["lidar"] == steps[-1].observation["lidar"][:, :1]).all()


@pytest.mark.parametrize(("action", "message"), [([0.0, 0.0], r"\(2, 3\), got \(2, 2\)"), ([0, np.nan, 0], "finite")])
def test_wrong_actions_are_refused(action: list[float], message: str) -> None:
    fleet = fleet_of(config_of("TM20Lidar", {}), 2)
    fleet.reset()
    with pytest.raises(ValueError, match=message):
        fleet.act(np.array([action, action]))


@pytest.mark.parametrize("clock", ["wall", "virtual"])
def test_there_is_no_batch_in_real_time(clock: str) -> None:
    assert (registry.batch_class(config_of("TM20Lidar", {"clock": clock})) is None) == (clock == "wall")
