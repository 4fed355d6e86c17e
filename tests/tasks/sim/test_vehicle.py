"""The car against closed forms: numbers come from the constants by hand, not from the kernels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tasks.sim import vehicle
from tasks.sim.vehicle import TICK_S, VehicleConstants, VehicleFactors

CAR = VehicleConstants()
NO_WALLS = 1e9


class Rig:
    """A car on an endless plain, or beside a straight wall that runs along z at x = ``wall_x``."""

    def __init__(self, wall_x: float = NO_WALLS, constants: VehicleConstants = CAR) -> None:
        self.constants = constants.vector()
        self.memory = vehicle.new_memory()
        self.place = np.zeros(vehicle.PLACE_SIZE)
        self.place[vehicle.FIELD_X] = -1.0
        self.place[vehicle.FIELD_Z], self.place[vehicle.FIELD_CELL] = -1e6, 1e6
        self.place[vehicle.BORDER_AT], self.place[vehicle.WALL_AT] = wall_x - 0.45, wall_x
        self.place[vehicle.MIN_DISTANCE] = math.inf
        if wall_x < NO_WALLS:
            # distance = x: the field's columns lie 1 m apart, its rows 1e6 m would be too coarse for that.
            self.place[vehicle.FIELD_X], self.place[vehicle.FIELD_Z], self.place[vehicle.FIELD_CELL] = 0.0, -500.0, 1.0
            self._lay(np.tile(np.arange(40, dtype=np.float32), (1000, 1)))
        else:
            self._lay(np.zeros((3, 3), np.float32))
        self.world = self.constants, self.place, self.index, self.field
        for array in self.world[1:]:  # as those of a track
            array.setflags(write=False)
        vehicle.reset_memory(self.memory, 0.0, 0.0, 0.0, 0.0, 0.0, 0, self.constants, 0.0, 0.0, 0.0)

    def _lay(self, distances: np.ndarray) -> None:
        """Makes one column of blocks of tiles of these distances; tiles share the points at their edges."""
        rows, columns = distances.shape
        num_blocks = math.ceil(rows / 512)
        size = vehicle.FIELD_ROWS, vehicle.FIELD_COLUMNS, vehicle.BLOCK_ROWS, vehicle.BLOCK_COLUMNS
        self.place[list(size)] = rows, columns, num_blocks, 1
        padded = np.pad(distances, ((0, 512 * num_blocks + 1 - rows), (0, 513 - columns)), mode="edge")
        tiles = np.lib.stride_tricks.sliding_window_view(padded, (9, 9))[::8, ::8]
        self.field = tiles.reshape(-1, 9, 9).copy()
        starts = num_blocks + 4096 * np.arange(num_blocks)
        self.index = np.concatenate([starts, 256 * np.arange(len(self.field))]).astype(np.int32)

    def drive(self, gas: float, brake: float, steer: float, ticks: int = 1) -> None:
        self.memory[vehicle.GAS_IN], self.memory[vehicle.BRAKE_IN] = gas, brake
        self.memory[vehicle.STEER_IN] = steer
        for _ in range(ticks):
            vehicle.tick(self.memory, *self.world)

    def __getitem__(self, index: int) -> float:
        return float(self.memory[index])

    def set(self, index: int, value: float) -> None:
        self.memory[index] = value

    def start(self, kmh: float, gear: int) -> None:
        self.set(vehicle.SPEED_LONG, kmh / 3.6)
        self.set(vehicle.GEAR, gear)

    def kmh(self) -> float:
        return 3.6 * self[vehicle.SPEED_LONG]


def _hold(rig: Rig, kmh: float, gas: float, brake: float, steer: float, ticks: int) -> None:
    """Drives while the speed is put back to ``kmh`` after each tick."""
    for _ in range(ticks):
        rig.drive(gas, brake, steer)
        rig.set(vehicle.SPEED_LONG, kmh / 3.6)


def test_standing_start_has_no_delay() -> None:
    rig = Rig()
    rig.drive(1.0, 0.0, 0.0, 5)
    # A recorded start: 0.77 m/s after 50 ms.
    assert rig[vehicle.SPEED_LONG] == pytest.approx(0.77, abs=0.025)
    # The car moves by the speed before each tick: 0 + 1 + 2 + 3 + 4 ticks of acceleration.
    assert rig[vehicle.Z] == pytest.approx(10 * 15.8 * TICK_S**2)


STEPS = ((15.80, 101.0), (10.96, 200.5), (6.99, 400.5), (5.49, 1000.0))
UPSHIFTS = ((102.0, 0.30), (161.9, 0.18), (235.0, 0.23), (341.9, 0.17))


@pytest.mark.parametrize("kmh", [100.0, 200.0, 300.0, 450.0])
def test_time_to_speed_is_the_sum_of_the_steps_of_acceleration_and_the_shift_pauses(kmh: float) -> None:
    expected = sum(pause for speed, pause in UPSHIFTS if speed < kmh)
    below = 0.0
    for acceleration, until in STEPS:
        expected += max(0.0, min(kmh, until) - below) / 3.6 / acceleration
        below = until
    rig, ticks = Rig(), 0
    while rig.kmh() < kmh:
        rig.drive(1.0, 0.0, 0.0)
        ticks += 1
    assert ticks * TICK_S == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(("kmh", "gear", "expected"), [(80, 1, 15.78), (140, 2, 10.97), (300, 4, 7.00), (450, 5, 5.50)])
def test_full_gas_accelerates_as_recorded_and_full_steer_costs_some(kmh: float, gear: int, expected: float) -> None:
    losses = {80: 1.16, 140: 0.56, 300: 0.47, 450: 0.43}
    for steer, loss in ((0.0, 0.0), (1.0, losses[int(kmh)])):
        rig = Rig()
        rig.start(kmh, gear)
        rig.set(vehicle.STEER, steer)
        rig.drive(1.0, 0.0, steer)
        assert (rig.kmh() - kmh) / 3.6 / TICK_S == pytest.approx(expected - loss, abs=0.6 if steer else 0.05)


FULL_STEER = {
    89: (1, 1.77, -0.69), 134: (2, 1.53, -0.75), 186: (3, 1.24, -0.71),
    216: (3, 1.10, -0.70), 268: (4, 0.97, -0.75), 310: (4, 0.88, -0.78), 370: (5, 0.85, -0.89), 443: (5, 0.82, -1.04),
}  # fmt: skip
"""Recorded: speed [km/h]: gear, yaw rate [rad/s], sideways speed [m/s]."""


@pytest.mark.parametrize("kmh", FULL_STEER)
def test_full_steer_turns_and_leans_out_as_recorded(kmh: int) -> None:
    gear, yaw_rate, sideways = FULL_STEER[kmh]
    rig = Rig()
    rig.start(kmh, gear)
    _hold(rig, kmh, 1.0, 0.0, 1.0, 150)
    assert rig[vehicle.YAW_RATE] == pytest.approx(yaw_rate, abs=0.035)
    assert rig[vehicle.SPEED_LAT] == pytest.approx(sideways, abs=0.2)


@pytest.mark.parametrize("steer", [0.2, 0.36, 0.6, 0.8])
def test_part_of_the_steer_turns_at_that_part_of_the_rate(steer: float) -> None:
    rates = []
    for share in (steer, 1.0):
        rig = Rig()
        rig.start(250.0, 4)
        _hold(rig, 250.0, 1.0, 0.0, share, 150)
        rates.append(rig[vehicle.YAW_RATE])
    assert rates[0] == pytest.approx(steer * rates[1], rel=1e-4)


@pytest.mark.parametrize("kmh", [80.0, 250.0, 430.0])
def test_yaw_rate_follows_the_wheel_with_its_time_constant(kmh: float) -> None:
    rig = Rig()
    rig.start(kmh, 5 if kmh > 342 else 1)
    rig.set(vehicle.STEER, 1.0)
    rates = []
    for _ in range(200):
        _hold(rig, kmh, 1.0, 0.0, 1.0, 1)
        rates.append(rig[vehicle.YAW_RATE])
    for ticks in (5, 14, 29):
        expected = 1.0 - math.exp(-ticks * TICK_S / 0.145)
        assert rates[ticks - 1] / rates[-1] == pytest.approx(expected, rel=1e-3)


def test_grip_alone_never_breaks() -> None:
    rig = Rig()
    rig.drive(1.0, 0.0, 0.0, 2000)
    for steer in (1.0, -1.0, 1.0):
        rig.drive(1.0, 0.0, steer, 60)
        assert rig[vehicle.SLIDING] == 0.0
    assert rig.kmh() > 400.0


@pytest.mark.parametrize(("kmh", "deceleration"), [(40.0, 4.2), (100.0, 9.3), (228.0, 20.4), (353.0, 30.6)])
def test_coasting_slows_down_as_recorded(kmh: float, deceleration: float) -> None:
    rig = Rig()
    rig.start(kmh, 3)
    # The table was read off cars that turned a little.
    rig.drive(0.0, 0.0, 0.0)
    assert (kmh - rig.kmh()) / 3.6 / TICK_S == pytest.approx(deceleration, abs=0.7)


def test_coasting_car_comes_to_rest_and_stays() -> None:
    for sign in (1.0, -1.0):
        rig = Rig()
        rig.set(vehicle.SPEED_LONG, sign * 3.0)
        rig.drive(0.0, 0.0, 0.0, 400)
        assert rig[vehicle.SPEED_LONG] == 0.0


@pytest.mark.parametrize(("kmh", "expected"), [(15.0, 17.6), (150.0, 0.752 * 150 / 3.6), (190.0, 0.752 * 190 / 3.6)])
def test_brake_alone_slows_down_as_recorded(kmh: float, expected: float) -> None:
    rig = Rig()
    rig.start(kmh, 2)
    rig.drive(0.0, 1.0, 0.0)
    assert (kmh - rig.kmh()) / 3.6 / TICK_S == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize(("kmh", "yaw_rate"), [(16, 0.53), (32, 1.1), (50, 1.42), (67, 1.65)])
def test_slow_full_steer_turns_between_a_standing_start_and_a_steady_circle(kmh: int, yaw_rate: float) -> None:
    starting, steady = Rig(), Rig()
    while starting.kmh() < kmh:
        starting.drive(1.0, 0.0, 1.0)
    _hold(steady, kmh, 1.0, 0.0, 1.0, 150)
    # The recorded cars gained speed, and the yaw rate lags behind it, but not all of them came from standstill.
    assert starting[vehicle.YAW_RATE] < yaw_rate < steady[vehicle.YAW_RATE]


def test_steering_to_the_right_turns_towards_positive_x_and_yaw() -> None:
    rig = Rig()
    rig.set(vehicle.SPEED_LONG, 20.0)
    rig.drive(0.0, 0.0, 0.5, 30)
    assert rig[vehicle.YAW] > 0.1
    assert rig[vehicle.X] > 0.1


def test_left_and_right_are_mirror_images() -> None:
    left, right = Rig(), Rig()
    for steer in (0.3, -1.0, 0.7, 0.1):
        left.drive(1.0, 0.0, -steer, 60)
        right.drive(1.0, 0.0, steer, 60)
    assert left[vehicle.X] == pytest.approx(-right[vehicle.X], abs=1e-9)
    assert left[vehicle.Z] == pytest.approx(right[vehicle.Z], abs=1e-9)


def test_steering_wheel_needs_its_slew_time_to_full_lock() -> None:
    rig = Rig()
    rig.drive(0.0, 0.0, 1.0, 4)
    assert rig[vehicle.STEER] == pytest.approx(0.8)
    rig.drive(0.0, 0.0, 1.0, 1)
    assert rig[vehicle.STEER] == pytest.approx(1.0)


def test_up_shifts_happen_at_the_games_speeds_and_pause_the_drive() -> None:
    rig, shifts, paused = Rig(), [], []
    for _ in range(1600):
        gear, speed = rig[vehicle.GEAR], rig[vehicle.SPEED_LONG]
        rig.drive(1.0, 0.0, 0.0)
        if rig[vehicle.GEAR] > gear:
            shifts.append(3.6 * speed)
        if rig[vehicle.SPEED_LONG] == speed:
            paused.append(rig[vehicle.GEAR])
    assert shifts == pytest.approx([102, 161.9, 235, 341.9], abs=0.6)
    assert [paused.count(gear) for gear in (2, 3, 4, 5)] == [30, 18, 23, 17]
    assert rig[vehicle.GEAR] == 5


def test_gears_go_down_again_at_their_own_speeds_and_rpm_stays_in_range() -> None:
    rig, left = Rig(), {}
    rig.start(360.0, 5)
    while rig[vehicle.SPEED_LONG] > 1.0:
        before, gear = rig.kmh(), int(rig[vehicle.GEAR])
        rig.drive(0.0, 1.0, 0.0)
        if rig[vehicle.GEAR] != gear:
            left[gear] = before
        assert 800.0 <= rig[vehicle.RPM] <= 11000.0
    assert list(left) == [5, 4, 3, 2]
    assert list(left.values()) == pytest.approx([300, 202, 142, 90], abs=3.0)


@pytest.mark.parametrize(("kmh", "gear"), [(102.0, 1), (161.9, 2), (235.0, 3), (341.9, 4)])
def test_engine_is_near_its_highest_speed_at_each_up_shift(kmh: float, gear: int) -> None:
    rig = Rig()
    rig.start(kmh - 1.0, gear)
    rig.drive(1.0, 0.0, 0.0)
    assert 10_000.0 <= rig[vehicle.RPM] <= 11_000.0


def test_brake_at_standstill_reverses_as_recorded_and_gas_drives_off_again() -> None:
    rig, gains = Rig(), {}
    for _ in range(600):
        before = rig.kmh()
        rig.drive(0.0, 1.0, 0.0)
        gains[round(-before)] = (before - rig.kmh()) / 3.6 / TICK_S
    for kmh, expected in ((6, 13.4), (24, 11.0), (32, 9.8), (40, 9.3), (95, 2.0)):
        nearest = min(gains, key=lambda at, kmh=kmh: abs(at - kmh))  # type: ignore[misc]
        assert gains[nearest] == pytest.approx(expected, abs=0.6)
    assert rig[vehicle.GEAR] == 0
    before = rig[vehicle.SPEED_LONG]
    rig.drive(1.0, 0.0, 0.0)
    assert rig[vehicle.SPEED_LONG] - before == pytest.approx(17.3 * TICK_S)
    rig.drive(1.0, 0.0, 0.0, 300)
    assert rig[vehicle.SPEED_LONG] > 10.0
    assert rig[vehicle.GEAR] >= 1


def test_standing_car_stays_where_it_is_while_the_wheel_turns() -> None:
    rig = Rig()
    for steer in (1.0, -0.5):
        rig.drive(0.0, 0.0, steer, 100)
    assert [rig[i] for i in (vehicle.X, vehicle.Z, vehicle.YAW, vehicle.SPEED_LAT)] == [0.0, 0.0, 0.0, 0.0]


def test_braking_drift_comes_to_rest() -> None:
    rig = Rig()
    rig.start(300.0, 4)
    rig.drive(1.0, 0.0, 1.0, 40)
    rig.drive(1.0, 1.0, 1.0, 40)
    while rig[vehicle.SPEED_LONG] > 0.5:
        rig.drive(0.0, 1.0, 0.0)
    assert rig[vehicle.SLIDING] == 0.0
    assert rig[vehicle.SPEED_LAT] == pytest.approx(0.0, abs=0.01)


def test_steering_backwards_swings_the_nose_the_other_way() -> None:
    rig = Rig()
    rig.set(vehicle.SPEED_LONG, -5.0)
    rig.drive(0.0, 1.0, 1.0, 40)
    assert rig[vehicle.YAW] < -0.1


def test_with_gas_a_car_that_rolls_back_already_turns_as_it_will_forwards() -> None:
    rig = Rig()
    rig.set(vehicle.SPEED_LONG, -6.0)
    rig.drive(1.0, 0.0, 1.0, 20)
    assert rig[vehicle.SPEED_LONG] < 0.0
    assert rig[vehicle.YAW] > 0.05


def test_steering_costs_acceleration_backwards_too() -> None:
    rig = Rig()
    rig.set(vehicle.SPEED_LONG, -3.0)
    rig.drive(0.0, 1.0, -1.0, 10)
    before = rig[vehicle.SPEED_LONG]
    rig.drive(0.0, 1.0, -1.0)
    # Recorded at 12 to 16 km/h with full steer: 8.8 m/s2; straight: 11.8.
    assert (before - rig[vehicle.SPEED_LONG]) / TICK_S == pytest.approx(8.8, abs=0.9)


@pytest.mark.parametrize("speed", [0.0, 5.0, -5.0])
def test_gas_and_brake_together_stop_a_slow_car(speed: float) -> None:
    rig = Rig()
    rig.set(vehicle.SPEED_LONG, speed)
    rig.drive(1.0, 1.0, 0.0, 400)
    assert rig[vehicle.SPEED_LONG] == 0.0


@pytest.mark.parametrize(("gas", "kmh", "drifts"), [(1.0, 250.0, True), (1.0, 170.0, False), (0.0, 200.0, False)])
def test_gas_and_brake_in_a_fast_corner_start_a_drift(gas: float, kmh: float, drifts: bool) -> None:
    rig = Rig()
    rig.start(kmh, 3)
    rig.drive(1.0, 0.0, 1.0, 40)
    rig.drive(gas, 1.0, 1.0, 25)
    assert (rig[vehicle.SLIDING] > 0.0) == drifts
    assert (abs(rig[vehicle.SPEED_LAT]) > 4.0) == drifts


@pytest.mark.parametrize(("sideways", "force"), [(8.0, 28.0), (14.5, 39.4), (20.5, 44.0)])
def test_sideways_force_of_a_drift_is_the_recorded_one(sideways: float, force: float) -> None:
    for brake, expected in ((1.0, force), (0.0, {8.0: 92.0, 14.5: 96.0, 20.5: 107.0}[sideways])):
        rig = Rig()
        rig.start(300.0, 4)
        rig.set(vehicle.SPEED_LAT, -sideways)
        rig.drive(1.0, brake, 0.0)
        # The car turns left a little or not at all, so that the force alone changes the sideways speed.
        assert (rig[vehicle.SPEED_LAT] + sideways) / TICK_S == pytest.approx(expected, rel=0.035)


def test_drift_ends_after_the_brake_is_released() -> None:
    rig = Rig()
    rig.start(300.0, 4)
    rig.drive(1.0, 0.0, 1.0, 40)
    rig.drive(1.0, 1.0, 1.0, 40)
    assert abs(rig[vehicle.SPEED_LAT]) > 8.0
    rig.drive(1.0, 0.0, 0.0, 80)
    assert rig[vehicle.SLIDING] == 0.0
    assert abs(rig[vehicle.SPEED_LAT]) < 0.1


def _coasting(speed: float) -> float:
    return 1.06 + 0.296 * speed


def test_wheels_over_the_border_are_dragged_by_their_share() -> None:
    rig = Rig(wall_x=20.0)
    half_over = 20.0 - 0.45 / 2 - CAR.half_width
    rig.set(vehicle.X, half_over)
    rig.set(vehicle.SPEED_LONG, 40.0)
    rig.drive(0.0, 0.0, 0.0)
    assert rig[vehicle.OFF_ROAD] == pytest.approx(0.5, abs=1e-5)
    before = rig[vehicle.SPEED_LONG]
    rig.drive(0.0, 0.0, 0.0)
    expected = (_coasting(before) + before * CAR.off_road_drag / 2) * TICK_S
    assert before - rig[vehicle.SPEED_LONG] == pytest.approx(expected, rel=1e-2)


def test_wall_takes_speed_by_the_speed_into_it() -> None:
    rig = Rig(wall_x=20.0, constants=replace(CAR, off_road_drag=0.0))
    angle = math.radians(20.0)
    reach = CAR.half_length * math.sin(angle) + CAR.half_width * math.cos(angle)
    rig.set(vehicle.YAW, angle)
    rig.set(vehicle.X, 20.0 - reach - 0.05)
    rig.set(vehicle.SPEED_LONG, 50.0)
    rig.drive(0.0, 0.0, 0.0)
    coasted = 50.0 - _coasting(50.0) * TICK_S
    into, along = coasted * math.sin(angle), coasted * math.cos(angle)
    expected = math.hypot(0.1 * into, along - 0.8 * into - 10.0 * TICK_S)
    assert math.hypot(rig[vehicle.SPEED_LONG], rig[vehicle.SPEED_LAT]) == pytest.approx(expected, rel=1e-5)
    assert rig[vehicle.IMPACT] == pytest.approx(coasted - expected, rel=1e-5)
    assert rig[vehicle.CONTACTS] == 1
    assert rig[vehicle.YAW] == pytest.approx(angle - CAR.wall_turn * TICK_S, abs=1e-6)


def test_car_never_passes_a_wall_and_contacts_are_counted_once() -> None:
    rig = Rig(wall_x=20.0)
    rig.set(vehicle.YAW, 0.6)
    rig.drive(1.0, 0.0, 0.3, 300)
    assert rig[vehicle.X] <= 20.0 - CAR.half_width + 1e-6
    assert 1 <= rig[vehicle.CONTACTS] <= 3


@pytest.mark.parametrize("yaw", [math.pi / 2, math.pi / 2 - 0.3, math.pi / 2 + 0.3])
def test_car_with_its_nose_at_a_wall_drives_off_along_it(yaw: float) -> None:
    rig = Rig(wall_x=20.0)
    rig.set(vehicle.X, 20.0 - CAR.half_length)
    rig.set(vehicle.YAW, yaw)
    rig.drive(1.0, 0.0, 0.0, 400)
    assert abs(rig[vehicle.Z]) > 12.0
    assert rig[vehicle.SPEED_LONG] > 5.0


def test_advance_in_one_go_equals_advance_in_small_pieces() -> None:
    rng = np.random.default_rng(5)
    controls = rng.uniform(-1, 1, (40, 3))
    memories = []
    for pieces in (1, 17):
        rig = Rig(wall_x=20.0)
        vehicle.reset_memory(rig.memory, 5.0, 0.0, 0.0, 0.1, 0.004, 2, rig.constants, 0.0, 0.0, 0.0)
        for step, (gas, brake, steer) in enumerate(controls):
            start = step * 0.05
            vehicle.send(rig.memory, start, gas, brake, steer, *rig.world)
            for piece in range(1, pieces + 1):
                vehicle.advance(rig.memory, start + 0.05 * piece / pieces, *rig.world)
        memories.append(rig.memory.copy())
    np.testing.assert_array_equal(memories[0], memories[1])


def test_scaled_car_has_its_factors_and_a_table_of_the_wrong_length_is_refused() -> None:
    car = CAR.scaled(VehicleFactors(acceleration=1.1, grip=0.9, steering_gain=1.2, steering_delay=0.5))
    assert car.acceleration == pytest.approx([1.1 * value for value in CAR.acceleration])
    assert car.brake_per_speed == pytest.approx(0.9 * 0.752)
    assert car.slide_force_free[0] == pytest.approx(0.9 * 86.2)
    assert car.turn_rate[7] == pytest.approx(1.2 * 1.777)
    assert car.yaw_lag_s == pytest.approx(0.5 * 0.145)
    assert CAR.scaled(VehicleFactors()) == CAR
    with pytest.raises(ValueError, match="turn_rate must have 17 values, got 2"):
        replace(CAR, turn_rate=(1.0, 2.0))
