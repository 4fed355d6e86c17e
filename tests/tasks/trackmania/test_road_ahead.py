"""The fields of TM20Track against geometry by hand, and against what the simulator knows of its own car."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tasks
from tasks.config import RewardConfig, TaskConfig
from tasks.game.protocols import Telemetry
from tasks.sim.game import SimulatedGame
from tasks.sim.scripted_driver import ScriptedDriver
from tasks.sim.track import load_track
from tasks.trackmania.reference_path import road_of_task
from tasks.trackmania.road_ahead import AHEAD_FIELDS, NUM_POINTS, RoadAhead, road_along

RADIUS_M = 40.0
WIDTH_M = 16.0
RIGHT, LEFT = 1.0, -1.0
BORDERS = {"path_ahead": 0.0, "left_border_ahead": -WIDTH_M / 2, "right_border_ahead": WIDTH_M / 2}
"""How far each line lies to the right of the path [m]."""


def record(x: float, z: float, speed: float = 0.0, **changes: float) -> Telemetry:
    names = Telemetry._fields[: Telemetry._fields.index("velocity_x")]
    return Telemetry(**(dict.fromkeys(names, 0.0) | {"x": x, "z": z, "speed": speed} | changes))


def moving(x: float, z: float, yaw: float, forward: float, sideways: float = 0.0) -> Telemetry:
    """A record of the plugin that tells heading and velocity."""
    sine, cosine = math.sin(yaw), math.cos(yaw)
    velocity = {"velocity_x": forward * sine + sideways * cosine, "velocity_z": forward * cosine - sideways * sine}
    return record(x, z, math.hypot(forward, sideways), yaw=yaw, **velocity)


def on_circle(angle: float, side: float, radius: float = RADIUS_M) -> tuple[float, float]:
    """On a circle that begins at the origin along +z and turns to one side, after ``angle`` radians of it."""
    return side * (RADIUS_M - radius * math.cos(angle)), radius * math.sin(angle)


def circle(side: float, length_m: float) -> np.ndarray:
    """Points 0.1 m apart along it, shape (N, 3)."""
    places = [on_circle(0.1 * i / RADIUS_M, side) for i in range(round(length_m / 0.1) + 1)]
    return np.array([(x, 0.0, z) for x, z in places])


def straight(length_m: float = 50.0, x: float = 0.0) -> np.ndarray:
    along = 0.1 * np.arange(round(length_m / 0.1) + 1)
    return np.stack([np.full_like(along, x), np.zeros_like(along), along], axis=1)


def ahead_of(path: np.ndarray, middle: np.ndarray | None = None, exponent: float = 1.0) -> RoadAhead:
    road = RoadAhead(road_along(path, path if middle is None else middle, WIDTH_M), exponent)
    road.begin()
    return road


def observe(road: RoadAhead, telemetry: Telemetry, index: int) -> dict[str, np.ndarray]:
    seen = road.observe(np.array(telemetry), index)
    assert [field.name for field in AHEAD_FIELDS] == list(seen)
    for field in AHEAD_FIELDS:
        assert field.space().contains(seen[field.name]), field.name
    return seen


@pytest.mark.parametrize("side", [RIGHT, LEFT])
@pytest.mark.parametrize("is_told", [True, False], ids=["told", "displacement"])
def test_a_car_on_a_circle_beside_the_path(side: float, is_told: bool) -> None:
    road = ahead_of(circle(side, 150.0))
    # 3 m nearer to the centre, that is to the side to which the path turns
    radius, speed, index = RADIUS_M - 3.0, 12.0, 0
    angle, step = 0.0, 0.05 * speed / radius
    for angle in np.arange(40) * step:
        index = round(angle * RADIUS_M / 0.1)
        x, z = on_circle(angle, side, radius)
        told = moving(x, z, side * angle, speed)
        seen = observe(road, told if is_told else record(x, z, speed), index)
    # Without a told heading it is that of the last chord, half a step behind.
    yaw = side * (angle if is_told else angle - step / 2)
    assert seen["velocity"] == pytest.approx([speed, 0.0], abs=1e-5)
    assert seen["yaw_rate"][0] == pytest.approx(side * speed / radius, rel=2e-3)
    for name, right_m in BORDERS.items():
        for k in (0, 7, NUM_POINTS - 1):
            at = (index * 0.1 + 6.0 * speed * k / (NUM_POINTS - 1)) / RADIUS_M
            px, pz = on_circle(at, side, RADIUS_M - side * right_m)
            ahead = (px - x) * math.sin(yaw) + (pz - z) * math.cos(yaw)
            aside = (px - x) * math.cos(yaw) - (pz - z) * math.sin(yaw)
            assert seen[name][k] == pytest.approx([ahead, aside], abs=0.08), (name, k)


def test_a_slow_car_looks_as_far_as_at_10_mps_and_a_fast_one_6_s() -> None:
    road = ahead_of(straight(500.0))
    for speed, far_m in ((0.0, 60.0), (10.0, 60.0), (50.0, 300.0)):
        seen = observe(road, moving(1.0, 20.0, 0.0, speed), 200)["path_ahead"]
        assert seen[0] == pytest.approx([0.0, -1.0])
        assert seen[-1] == pytest.approx([far_m, -1.0], abs=1e-3)
        assert np.diff(seen[:, 0]) == pytest.approx(np.full(NUM_POINTS - 1, far_m / (NUM_POINTS - 1)), abs=0.101)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, 4.5])
def test_an_exponent_moves_the_points_between_the_first_and_the_last_towards_the_car(exponent: float) -> None:
    seen = observe(ahead_of(straight(500.0), exponent=exponent), moving(0.0, 20.0, 0.0, 50.0), 200)
    forward_m = [300.0 * (k / (NUM_POINTS - 1)) ** exponent for k in range(NUM_POINTS)]
    for name, right_m in BORDERS.items():
        assert seen[name][:, 0] == pytest.approx(forward_m, abs=0.051)
        assert seen[name][:, 1] == pytest.approx(np.full(NUM_POINTS, right_m))


def test_an_open_road_goes_straight_on_behind_its_end() -> None:
    path = circle(RIGHT, 30.0)
    turned = 29.5 / RADIUS_M  # the direction at the end is that of the last metre
    seen = observe(ahead_of(path), moving(path[-1, 0], path[-1, 2], turned, 40.0), len(path) - 1)
    along = 240.0 / (NUM_POINTS - 1) * np.arange(NUM_POINTS)
    assert seen["path_ahead"] == pytest.approx(np.stack([along, np.zeros_like(along)], axis=1), abs=0.1)
    assert seen["right_border_ahead"][:, 1] == pytest.approx(np.full(NUM_POINTS, WIDTH_M / 2), abs=0.1)


def test_a_closed_road_goes_on_at_its_start() -> None:
    round_m = 2 * math.pi * RADIUS_M
    path = circle(RIGHT, round_m - 4.0)
    left_m = 2.0
    x, z = on_circle((round_m - 4.0 - left_m) / RADIUS_M, RIGHT)
    seen = observe(ahead_of(path), moving(x, z, 0.0, 20.0), round((round_m - 4.0 - left_m) / 0.1))
    for k in (1, 3, 10):  # the way back, and beyond the start
        px, pz = on_circle((120.0 * k / (NUM_POINTS - 1) - 4.0 - left_m) / RADIUS_M, RIGHT)
        assert seen["path_ahead"][k] == pytest.approx([pz - z, px - x], abs=0.15)


def test_borders_are_those_of_the_road_that_the_path_lies_on() -> None:
    seen = observe(ahead_of(straight(x=3.0), straight()), moving(0.0, 10.0, 0.0, 5.0), 100)
    assert seen["path_ahead"][:, 1] == pytest.approx(np.full(NUM_POINTS, 3.0))
    assert seen["left_border_ahead"][:, 1] == pytest.approx(np.full(NUM_POINTS, -WIDTH_M / 2))
    assert seen["right_border_ahead"][:, 1] == pytest.approx(np.full(NUM_POINTS, WIDTH_M / 2))
    # A path that leaves it belongs to another road: the width lies around the path.
    seen = observe(ahead_of(straight(x=100.0), straight()), moving(100.0, 10.0, 0.0, 5.0), 100)
    assert seen["left_border_ahead"][:, 1] == pytest.approx(np.full(NUM_POINTS, -WIDTH_M / 2))


def test_a_slide_is_seen_where_the_plugin_tells_it() -> None:
    road = ahead_of(straight())
    seen = observe(road, moving(0.0, 10.0, 0.5, 20.0, -6.0), 100)
    assert seen["velocity"] == pytest.approx([20.0, -6.0], abs=1e-5)


def test_without_a_told_heading_a_car_looks_along_the_path_until_it_moves_and_may_roll_back() -> None:
    road = ahead_of(straight())
    assert observe(road, record(1.0, 10.0), 100)["path_ahead"][0].tolist() == [0.0, -1.0]
    observe(road, record(2.0, 11.0, 5.0), 110)  # to the right, at 45 degrees
    standing = observe(road, record(2.0, 11.01), 110)
    assert standing["path_ahead"][0] == pytest.approx([-math.sqrt(2.0), -math.sqrt(2.0)], abs=0.02)
    assert standing["velocity"].tolist() == [0.0, 0.0]
    for speed in (4.0, -4.0):  # plugins differ in the sign
        road.begin()
        observe(road, record(0.0, 10.0), 100)
        back = observe(road, record(0.0, 9.0, speed), 90)
        assert back["velocity"].tolist() == [-4.0, 0.0]
        assert back["path_ahead"][-1] == pytest.approx([60.0, 0.0], abs=1e-4)


def test_impossible_motions_stay_within_the_space() -> None:
    road = ahead_of(circle(LEFT, 50.0))
    for telemetry in (record(0.0, 0.0), record(0.06, 0.0, 390.0), record(0.0, 0.0, 390.0), record(1e5, -1e5, 399.0)):
        observe(road, telemetry, 400)


def test_a_new_episode_clears_the_state() -> None:
    fresh, used = ahead_of(circle(LEFT, 50.0)), ahead_of(circle(LEFT, 50.0))
    for step in range(5):
        observe(used, record(*on_circle(0.1 * step, LEFT), 20.0), 40 * step)
    for road in (fresh, used):
        road.begin()
        observe(road, record(0.5, 0.0), 0)
    got, expected = (observe(road, record(0.5, 1.0, 3.0), 10) for road in (used, fresh))
    assert all(np.array_equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("reward", [RewardConfig(), RewardConfig(path="line.npy")])
def test_the_simulators_road_is_that_of_its_track(reward: RewardConfig) -> None:
    track = load_track("short")
    middle, width_m = road_of_task(TaskConfig(name="TM20Track", track="short", reward=reward))
    np.testing.assert_array_equal(middle, track.centre_line)
    road, (left, right) = road_along(middle, middle, width_m), track.edges()
    assert np.linalg.norm(road.points[:, 2:4] - left, axis=1).max() < 0.25
    assert np.linalg.norm(road.points[:, 4:6] - right, axis=1).max() < 0.25


def test_a_lap_of_the_simulator_is_seen_as_it_is_driven() -> None:
    env: Any = tasks.make("TM20Track", observation="dict", game="sim", track="short", randomization={})
    game = env.interface.game
    assert isinstance(game, SimulatedGame)
    driver = ScriptedDriver(game.track)
    env.reset(seed=3)
    driver.reset()
    rates, is_over = [], False
    while not is_over:
        observation, _, terminated, truncated, info = env.step(driver.act(game.state()))
        is_over = terminated or truncated
        state = game.state()
        # The record is up to 27 ms older than the state.
        assert observation["velocity"] == pytest.approx([state.forward_mps, state.sideways_mps], abs=1.0)
        rates.append((float(observation["yaw_rate"][0]), state.yaw_rate))
    assert info["progress"] == 1.0
    seen, true = np.array(rates[5:]).T
    assert np.corrcoef(seen, true)[0, 1] > 0.95
    assert np.std(seen) == pytest.approx(np.std(true), rel=0.1)
