"""The car against closed forms: numbers come from the constants by hand, not from the kernels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tasks.sim import vehicle
from tasks.sim.vehicle import TICK_S, VehicleConstants

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
        vehicle.reset_memory(self.memory, 0.0, 0.0, 0.0, 0.0, 0.0, 0, self.constants)

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


def _ramp_time(low: float, high: float) -> float:
    """Time from 100 * low to 100 * high km/h at an acceleration that is linear in speed (integral of dv / a)."""
    a, b = (getattr(CAR, f"acceleration_{100 * node}") for node in (int(low), int(high)))
    return (high - low) * 100 / 3.6 * math.log(b / a) / (b - a)


@pytest.mark.parametrize(("speed_kmh", "num_shifts"), [(100, 0), (200, 2), (300, 3)])
def test_time_to_speed_is_the_integral_of_the_acceleration_table_plus_shift_pauses(
    speed_kmh: int, num_shifts: int
) -> None:
    rig, ticks = Rig(), 0
    while rig[vehicle.SPEED_LONG] < speed_kmh / 3.6:
        rig.drive(1.0, 0.0, 0.0)
        ticks += 1
    expected = sum(_ramp_time(i, i + 1) for i in range(speed_kmh // 100)) + num_shifts * CAR.shift_pause
    assert ticks * TICK_S == pytest.approx(expected, abs=0.012 + 0.01 * expected)


@pytest.mark.parametrize("speed_kmh", [100.0, 200.0, 300.0])
def test_braking_distance_is_speed_squared_over_twice_the_deceleration(speed_kmh: float) -> None:
    rig = Rig()
    speed = speed_kmh / 3.6
    rig.set(vehicle.SPEED_LONG, speed)
    while rig[vehicle.SPEED_LONG] > 0.0:
        rig.drive(0.0, 1.0, 0.0)
        if rig[vehicle.SPEED_LONG] <= 0.0:
            break
    assert rig[vehicle.Z] == pytest.approx(speed**2 / (2 * 40.0), rel=0.02)


@pytest.mark.parametrize("speed", [30.0, 45.0, 60.0])
def test_full_lock_corners_at_the_speed_that_grip_times_radius_allows(speed: float) -> None:
    rig = Rig()
    rig.set(vehicle.SPEED_LONG, speed)
    hold = CAR.coast / (CAR.coast + vehicle.acceleration_at(CAR, speed))
    rig.drive(hold, 0.0, 1.0, 100)
    x, z, yaw = rig[vehicle.X], rig[vehicle.Z], rig[vehicle.YAW]
    turned = 0.0
    length = 0.0
    while turned < math.pi:
        before = rig[vehicle.X], rig[vehicle.Z]
        rig.drive(hold, 0.0, 1.0)
        length += math.dist(before, (rig[vehicle.X], rig[vehicle.Z]))
        turned = rig[vehicle.YAW] - yaw
    # Half a circle: the chord is the diameter.
    radius = math.dist((x, z), (rig[vehicle.X], rig[vehicle.Z])) / 2
    assert length / turned == pytest.approx(radius, rel=0.02)
    driven = math.hypot(rig[vehicle.SPEED_LONG], rig[vehicle.SPEED_LAT])
    assert driven == pytest.approx(math.sqrt((70.0 + 0.1 * driven) * radius), rel=0.02)


def test_slow_car_turns_at_its_smallest_radius() -> None:
    rig = Rig()
    rig.set(vehicle.SPEED_LONG, 8.0)
    rig.drive(CAR.coast / (CAR.coast + vehicle.acceleration_at(CAR, 8.0)), 0.0, 1.0, 200)
    assert rig[vehicle.SPEED_LONG] / rig[vehicle.YAW_RATE] == pytest.approx(8.0, rel=0.01)


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
    rig.drive(0.0, 0.0, 1.0, 14)
    assert rig[vehicle.STEER] == pytest.approx(14 * TICK_S / 0.15)
    rig.drive(0.0, 0.0, 1.0, 1)
    assert rig[vehicle.STEER] == pytest.approx(1.0)


def test_up_shifts_happen_at_the_games_speeds_and_pause_the_drive() -> None:
    rig, shifts, paused = Rig(), [], []
    for _ in range(2600):
        gear, speed = rig[vehicle.GEAR], rig[vehicle.SPEED_LONG]
        rig.drive(1.0, 0.0, 0.0)
        if rig[vehicle.GEAR] > gear:
            shifts.append(3.6 * speed)
        if rig[vehicle.SPEED_LONG] == speed:
            paused.append(rig[vehicle.GEAR])
    assert shifts == pytest.approx([102, 162, 235, 342], abs=0.8)
    assert [paused.count(gear) for gear in (2, 3, 4, 5)] == [12, 12, 12, 12]
    assert rig[vehicle.GEAR] == 5


def test_gears_go_down_again_and_rpm_stays_in_range() -> None:
    rig = Rig()
    rig.drive(1.0, 0.0, 0.0, 800)
    gears = set()
    while rig[vehicle.SPEED_LONG] > 1.0:
        rig.drive(0.0, 1.0, 0.0)
        gears.add(int(rig[vehicle.GEAR]))
        assert 800.0 <= rig[vehicle.RPM] <= 11000.0
    assert gears == {1, 2, 3, 4}


def test_brake_at_standstill_reverses_and_gas_drives_off_again() -> None:
    rig = Rig()
    rig.drive(0.0, 1.0, 0.0, 300)
    assert rig[vehicle.SPEED_LONG] == -CAR.reverse_speed
    assert rig[vehicle.GEAR] == 0
    rig.drive(1.0, 0.0, 0.0, 200)
    assert rig[vehicle.SPEED_LONG] > 10.0
    assert rig[vehicle.GEAR] >= 1


def test_gas_and_brake_together_do_not_reverse() -> None:
    rig = Rig()
    rig.drive(1.0, 1.0, 0.0, 200)
    assert rig[vehicle.SPEED_LONG] == 0.0


@pytest.mark.parametrize(("speed_kmh", "drifts"), [(250.0, True), (170.0, False)])
def test_braking_in_a_corner_starts_a_drift_only_above_its_speed(speed_kmh: float, drifts: bool) -> None:
    rig = Rig()
    rig.set(vehicle.SPEED_LONG, speed_kmh / 3.6)
    rig.drive(0.5, 0.0, 1.0, 20)
    calm = abs(rig[vehicle.SPEED_LAT])
    rig.drive(0.0, 1.0, 1.0, 25)
    slide = abs(rig[vehicle.SPEED_LAT])
    assert (slide > calm + 2.0) == drifts


def test_slide_ends_after_the_brake_is_released() -> None:
    rig = Rig()
    rig.set(vehicle.SPEED_LONG, 80.0)
    rig.drive(0.0, 1.0, 1.0, 40)
    assert abs(rig[vehicle.SPEED_LAT]) > 2.0
    rig.drive(0.5, 0.0, 0.0, 120)
    assert abs(rig[vehicle.SPEED_LAT]) < 0.1


def test_wheels_over_the_border_are_dragged_by_their_share() -> None:
    rig = Rig(wall_x=20.0)
    half_over = 20.0 - 0.45 / 2 - CAR.half_width
    rig.set(vehicle.X, half_over)
    rig.set(vehicle.SPEED_LONG, 40.0)
    rig.drive(0.0, 0.0, 0.0)
    assert rig[vehicle.OFF_ROAD] == pytest.approx(0.5, abs=1e-5)
    before = rig[vehicle.SPEED_LONG]
    rig.drive(0.0, 0.0, 0.0)
    expected = (CAR.coast + before * CAR.off_road_drag / 2) * TICK_S
    assert before - rig[vehicle.SPEED_LONG] == pytest.approx(expected, rel=1e-4)


def test_wall_takes_speed_by_the_speed_into_it() -> None:
    rig = Rig(wall_x=20.0, constants=replace(CAR, off_road_drag=0.0))
    angle = math.radians(20.0)
    reach = CAR.half_length * math.sin(angle) + CAR.half_width * math.cos(angle)
    rig.set(vehicle.YAW, angle)
    rig.set(vehicle.X, 20.0 - reach - 0.05)
    rig.set(vehicle.SPEED_LONG, 50.0)
    rig.drive(0.0, 0.0, 0.0)
    coasted = 50.0 - CAR.coast * TICK_S
    into, along = coasted * math.sin(angle), coasted * math.cos(angle)
    expected = math.hypot(0.1 * into, along - 0.8 * into - 18.0 * TICK_S)
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
        vehicle.reset_memory(rig.memory, 5.0, 0.0, 0.0, 0.1, 0.004, 2, rig.constants)
        for step, (gas, brake, steer) in enumerate(controls):
            start = step * 0.05
            vehicle.send(rig.memory, start, gas, brake, steer, *rig.world)
            for piece in range(1, pieces + 1):
                vehicle.advance(rig.memory, start + 0.05 * piece / pieces, *rig.world)
        memories.append(rig.memory.copy())
    np.testing.assert_array_equal(memories[0], memories[1])
