"""The privileged fields against geometry by hand, and against what the simulator knows of its own car."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.game.protocols import Telemetry
from tasks.sim.game import CarState, SimulatedGame
from tasks.sim.scripted_driver import ScriptedDriver
from tasks.trackmania.driving import DrivingInterface
from tasks.trackmania.lidar import LidarInterface
from tasks.trackmania.road_state import NUM_PIECES, PIECE_M, ROAD_FIELDS, RoadState, path_angles
from tests.tasks.fake_game import task_config

NAMES = [field.name for field in ROAD_FIELDS]
RADIUS_M = 40.0
RIGHT, LEFT = 1.0, -1.0


def record(x: float, z: float, speed: float = 0.0, **changes: float) -> Telemetry:
    values = dict.fromkeys(Telemetry._fields, 0.0) | {"x": x, "z": z, "speed": speed} | changes
    return Telemetry(**values)


def place(angle: float, side: float, radius: float = RADIUS_M) -> tuple[float, float]:
    """On a circle that begins at the origin along +z and turns to one side, after ``angle`` radians of it."""
    return side * (RADIUS_M - radius * math.cos(angle)), radius * math.sin(angle)


def circle(side: float, length_m: float = 300.0) -> np.ndarray:
    """Points 0.1 m apart along it, shape (N, 3)."""
    angles = np.arange(round(length_m / 0.1) + 1) * 0.1 / RADIUS_M
    x, z = side * (RADIUS_M - RADIUS_M * np.cos(angles)), RADIUS_M * np.sin(angles)
    return np.stack([x, np.zeros_like(x), z], axis=1)


def observe(road: RoadState, telemetry: Telemetry, index: int) -> dict[str, np.ndarray]:
    fields = road.observe(telemetry, index)
    for field, value in zip(ROAD_FIELDS, fields, strict=True):
        assert field.space().contains(value), field.name
    return dict(zip(NAMES, fields, strict=True))


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_a_car_on_a_circle_beside_the_path(side: float) -> None:
    road = RoadState(circle(side))
    road.begin(record(0.0, 0.0))
    # 3 m nearer to the centre, that is to the side to which the path turns, at 20 m/s
    radius, speed, index = RADIUS_M - 3.0, 20.0, 0
    for step in range(40):
        angle = 0.05 * step * speed / radius
        index = round(angle * RADIUS_M / 0.1)
        seen = observe(road, record(*place(angle, side, radius), speed), index)
    assert seen["road_progress"][0] == pytest.approx(index / 3000)
    assert seen["road_offset"][0] == pytest.approx(side * 3.0, abs=0.02)
    # The motion is that of the last chord, half a step behind.
    lag = 0.5 * 0.05 * speed / radius
    assert seen["road_direction"] == pytest.approx([-side * math.sin(lag), math.cos(lag)], abs=2e-3)
    assert seen["road_velocity"] == pytest.approx([speed * math.cos(lag), -side * speed * math.sin(lag)], abs=0.05)
    assert seen["road_curvature"] == pytest.approx(np.full(NUM_PIECES, side / RADIUS_M), abs=1e-4)
    assert seen["car_turn_rate"][0] == pytest.approx(side * speed / radius, rel=1e-3)


def test_the_road_goes_straight_on_behind_its_end() -> None:
    road = RoadState(circle(RIGHT, 50.0))
    road.begin(record(0.0, 0.0))
    ahead = observe(road, record(0.0, 0.0), 200)["road_curvature"]
    # 30 m are left; the direction of the last point is that of the chord of the last metre.
    assert ahead[:2] == pytest.approx([1 / RADIUS_M] * 2, abs=1e-4)
    assert ahead[2] == pytest.approx((PIECE_M - 0.5) / PIECE_M / RADIUS_M, abs=1e-4)
    assert not ahead[3:].any()
    assert not observe(road, record(0.0, 0.0), 500)["road_curvature"].any()


def test_directions_of_a_path_do_not_jump() -> None:
    path = circle(RIGHT, 600.0)
    angles = path_angles(path[:, 0], path[:, 2])
    assert angles[-1] == pytest.approx(600.0 / RADIUS_M, abs=0.05)
    assert np.abs(np.diff(angles)).max() < 0.01


def test_a_car_that_stands_keeps_its_direction_and_one_that_rolls_back_moves_against_the_path() -> None:
    path = np.stack([np.zeros(501), np.zeros(501), 0.1 * np.arange(501)], axis=1)
    road = RoadState(path)
    road.begin(record(1.0, 2.0))
    assert observe(road, record(1.0, 2.0), 20)["road_direction"].tolist() == [0.0, 1.0]
    observe(road, record(2.0, 3.0, 5.0), 30)  # to the right, at 45 degrees
    standing = observe(road, record(2.0, 3.01, 0.0), 30)
    assert standing["road_direction"] == pytest.approx([math.sqrt(0.5)] * 2)
    assert standing["road_velocity"].tolist() == [0.0, 0.0]
    assert standing["road_offset"][0] == pytest.approx(2.0)
    for speed in (4.0, -4.0):  # plugins differ in the sign
        road.begin(record(0.0, 3.0))
        back = observe(road, record(0.0, 2.0, speed), 20)
        assert back["road_velocity"] == pytest.approx([-4.0, 0.0], abs=1e-6)


def test_slow_motion_adds_up_until_its_direction_can_be_told() -> None:
    road = RoadState(np.stack([np.zeros(101), np.zeros(101), 0.1 * np.arange(101)], axis=1))
    road.begin(record(0.0, 0.0))
    for step in range(1, 5):
        seen = observe(road, record(0.01 * step, 0.0, 0.2), 0)["road_direction"]
        assert seen.tolist() == [0.0, 1.0]
    assert observe(road, record(0.06, 0.0, 0.2), 0)["road_direction"] == pytest.approx([1.0, 0.0], abs=1e-6)


def test_a_new_episode_clears_the_state() -> None:
    fresh, used = RoadState(circle(LEFT)), RoadState(circle(LEFT))
    used.begin(record(0.0, 0.0))
    for step in range(5):
        used.observe(record(*place(0.1 * step, LEFT), 20.0), 40 * step)
    for road in (fresh, used):
        road.begin(record(0.5, 0.0))
    got, expected = (road.observe(record(0.5, 1.0, 3.0), 10) for road in (used, fresh))
    assert all(np.array_equal(one, other) for one, other in zip(got, expected, strict=True))


def test_controls_are_those_that_the_game_reports() -> None:
    road = RoadState(circle(LEFT))
    road.begin(record(0.0, 0.0))
    seen = observe(road, record(0.0, 0.0, gas=0.75, is_braking=1.0, steer=-0.5), 0)
    assert seen["car_controls"].tolist() == [0.75, 1.0, -0.5]


def test_impossible_motions_stay_within_the_space() -> None:
    road = RoadState(circle(LEFT))
    road.begin(record(0.0, 0.0))
    observe(road, record(0.06, 0.0, 300.0), 0)
    observe(road, record(0.0, 0.0, 300.0, steer=1.0005), 0)
    observe(road, record(1e5, -1e5, 399.0), 3000)


def test_the_fields_agree_with_the_simulators_state() -> None:
    """A lap of the scripted driver: the true motion of the car, from its heading and its slip."""
    import tasks

    config = task_config("TM20Lidar")
    config.track, config.privileged = "short", True
    env = tasks.make("TM20Lidar", observation="dict", config=config)
    interface = env.get_wrapper_attr("interface")
    assert isinstance(interface, DrivingInterface)
    assert isinstance(interface.game, SimulatedGame)
    driver = ScriptedDriver(interface.game.track)
    seen, true = [], []
    observation, _ = env.reset(seed=3)
    driver.reset()
    is_over = False
    while not is_over:
        observation, _, terminated, truncated, info = env.step(driver.act(interface.game.state()))
        seen.append(observation)
        true.append((interface.game.state(), info["progress"]))
        is_over = terminated or truncated
    assert info["progress"] == 1.0
    assert len(seen) > 100
    check_against_truth(interface, seen[20:-2], true[20:-2])


def check_against_truth(
    interface: DrivingInterface, seen: list[dict[str, np.ndarray]], true: list[tuple[CarState, float]]
) -> None:
    path = interface.path
    rates, true_rates = [], []
    for observation, (state, progress) in zip(seen, true, strict=True):
        index = round(progress * (len(path) - 1))
        tangent = path[min(index + 10, len(path) - 1)] - path[max(index - 10, 0)]
        road = math.atan2(tangent[0], tangent[2])
        motion = state.yaw + math.atan2(state.sideways_mps, state.forward_mps)
        # The record is up to 27 ms older than the state, and the middle of the chord 25 ms older than the record.
        lag = abs(state.yaw_rate) * 0.052 + 0.02
        off = math.remainder(math.atan2(*observation["road_direction"]) - (motion - road), 2 * math.pi)
        assert abs(off) < lag
        speed = math.hypot(state.forward_mps, state.sideways_mps)
        assert np.linalg.norm(observation["road_velocity"]) == pytest.approx(speed, abs=1.0)
        nearest = path[np.hypot(path[:, 0] - state.x, path[:, 2] - state.z).argmin()]
        offset = (state.x - nearest[0]) * math.cos(road) - (state.z - nearest[2]) * math.sin(road)
        assert observation["road_offset"][0] == pytest.approx(
            offset, abs=0.1 + 0.03 * speed * abs(math.sin(motion - road))
        )
        rates.append(float(observation["car_turn_rate"][0]))
        true_rates.append(state.yaw_rate)
    assert np.corrcoef(rates, true_rates)[0, 1] > 0.95
    assert np.std(rates) == pytest.approx(np.std(true_rates), rel=0.1)


def test_the_interface_adds_them_after_its_own_fields() -> None:
    config = task_config("TM20Lidar")
    plain = LidarInterface.spec_for(config)
    config.privileged = True
    spec = LidarInterface.spec_for(config)
    assert spec.fields == plain.fields + ROAD_FIELDS
    assert spec.visible == plain
    assert [field.name for field in spec.privileged_fields] == NAMES
