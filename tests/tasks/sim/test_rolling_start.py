"""Episodes that begin on the way: where, how fast, and what counts of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tasks import registry
from tasks.config import TaskConfig
from tasks.envs.interface import FROM_START_OPTION
from tasks.sim import vehicle
from tasks.sim.cars import NOTHING_DRAWN, Cars
from tasks.sim.rolling_start import RollingDraw, RollingStarts
from tasks.sim.scripted_driver import ScriptedDriver
from tasks.sim.speed_profile import speed_profile
from tasks.sim.track import load_track
from tasks.sim.vehicle import VehicleConstants

CAR = VehicleConstants()


def env_of(share: float, **changes: Any) -> Any:
    config = registry._merged(
        "TM20LidarProgress",
        None,
        {"game": "sim", "track": "short", "randomization": {"rolling_starts": share}, **changes},
    )
    assert isinstance(config, TaskConfig)
    return registry.make(config.name, observation="dict", config=config)


def test_a_start_lies_on_the_road_and_moves_along_it_at_a_speed_that_it_allows() -> None:
    track = load_track("medium")
    starts, middle = RollingStarts(track, CAR), track.centre_line[:, [0, 2]]
    fastest = speed_profile(middle[::20], CAR).max()
    slips = []
    for draw in np.random.default_rng(0).random((200, 5)).tolist():
        start = starts.start(RollingDraw(*draw))
        at = int(np.argmin(np.linalg.norm(middle - (start.x, start.z), axis=1)))
        assert np.linalg.norm(middle[at] - (start.x, start.z)) <= track.width_m / 2 - 3.0 + 0.05
        dx, dz = middle[min(at + 10, len(middle) - 1)] - middle[max(at - 10, 0)]
        slips.append(math.atan2(start.sideways_mps, start.speed_mps))
        turned = start.yaw + slips[-1] - math.atan2(dx, dz)
        assert abs(math.remainder(turned, 2 * math.pi)) <= math.radians(15 + 12), "12: the road bends within 2 m"
        assert 0.0 < math.hypot(start.speed_mps, start.sideways_mps) <= (1.8 if slips[-1] else 1.3) * fastest
        assert start.along_m == pytest.approx(0.1 * at, abs=10.0), "inside and outside of a bend differ"
    sliding = np.degrees([slip for slip in slips if slip])
    assert len(sliding) / 200 == pytest.approx(0.4, abs=0.1)
    assert (np.abs(sliding) >= 8.0).all()
    assert (np.abs(sliding) <= 35.0).all()
    assert (sliding > 0.0).mean() == pytest.approx(0.5, abs=0.15)


def test_the_middle_of_the_draw_is_the_middle_of_the_road() -> None:
    track = load_track("short")
    start = RollingStarts(track, CAR).start(RollingDraw(0.0, 0.5, 0.5, 0.0, 0.9))
    x, _, z = track.centre_line[50].tolist()
    assert (start.x, start.z, start.along_m) == pytest.approx((x, z, 5.0), abs=0.05)
    assert start.yaw == pytest.approx(track.start_yaw, abs=0.01)
    assert start.sideways_mps == 0.0


@pytest.mark.parametrize(("slide", "is_sliding"), [(0.1, True), (0.3, True), (0.9, False)])
def test_a_car_that_begins_in_a_slide_slides(slide: float, is_sliding: bool) -> None:
    cars = Cars(load_track("medium"), TaskConfig(), 1)
    cars.restart(0, NOTHING_DRAWN._replace(rolling=RollingDraw(0.5, 0.5, 0.5, 0.9, slide)), 0.0)
    cars.advance(np.array([0.02]))
    assert cars.memory[0, vehicle.SLIDING] == is_sliding
    sideways = cars.memory[0, vehicle.SPEED_LAT]
    assert abs(sideways) > 2.6 if is_sliding else sideways == pytest.approx(0.0, abs=0.5)


def test_an_episode_begins_on_the_way_and_pays_only_for_what_it_drives() -> None:
    env = env_of(1.0)
    _, info = env.reset(seed=3)
    begun = info["progress"]
    assert 0.02 < begun < 0.96
    speed = env.interface.game.state().forward_mps
    assert speed > 3.0
    _, reward, *_ = env.step(np.array([1.0, -1.0, 0.0], np.float32))
    assert 0.0 <= reward <= 0.1 * (speed + 5.0) * 0.2, "a step or two of driving, not the way to where it began"
    env.close()


def test_an_evaluated_episode_begins_at_the_start() -> None:
    env = env_of(1.0)
    observation, info = env.reset(seed=3, options={FROM_START_OPTION: True})
    plain = env_of(0.0)
    expected, _ = plain.reset(seed=3)
    assert info["progress"] == 0.0
    for name, value in expected.items():
        np.testing.assert_array_equal(observation[name], value, err_msg=name)
    env.close()
    plain.close()


def test_the_finish_of_an_episode_that_began_on_the_way_is_no_lap() -> None:
    env = env_of(1.0)
    driver = ScriptedDriver(load_track("short"))
    for seed in range(20):
        env.reset(seed=seed)
        if env.interface._reward.progress > 0.6:
            break
    begun = env.interface._reward.progress
    driver._index = int(begun * len(driver.line))
    done, info = False, {}
    while not done:
        _, _, terminated, truncated, info = env.step(driver.act(env.interface.game.state()))
        done = terminated or truncated
    statistics = info["episode_statistics"]
    assert statistics["finished"] == 1.0
    assert math.isnan(statistics["lap_time_s"])
    rest = 0.1 * (1.0 - begun) * load_track("short").length_m
    assert statistics["return"] == pytest.approx(rest + TaskConfig().reward.END_OF_TRACK, abs=0.1)
    env.close()
