"""The errors of the simulator's car: none on its own drives, the expected ones on another car's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.fidelity.errors import Errors, cut_windows, errors, rows
from tasks.recordings.stretches import Manoeuvre
from tasks.sim.open_loop import drive
from tasks.sim.vehicle import VehicleConstants
from tests.tasks.fidelity.drives import drawn, driven, held

CAR = VehicleConstants()


def found(car: VehicleConstants, real: VehicleConstants, inputs: np.ndarray) -> Errors:
    windows = cut_windows([driven(real, inputs)], 1.0)
    assert len(windows.stretches) >= 3
    return errors(drive(car.vector(), windows.drives), windows)


def test_the_car_follows_its_own_drive() -> None:
    off = found(CAR, CAR, held((2, 0, 1, 0), (2, 1, 1, 0), (2, -0.5, 0, 0)))
    # Recordings keep single precision, and their gears are those of a car that never shifts.
    assert np.median(np.abs(off.speed_kmh)) < 0.01
    assert np.median(np.abs(off.heading_deg)) < 0.01
    assert np.median(off.position_m) < 0.01


def test_a_car_with_more_acceleration_is_too_fast() -> None:
    faster = replace(CAR, acceleration=tuple(1.1 * value for value in CAR.acceleration))
    off = found(faster, CAR, held((1.6, 0, 1, 0), (2, 0, 1, 0)))
    assert off.speed_kmh[0] == pytest.approx(0.1 * 15.8 * 3.6, rel=0.05)


@pytest.mark.parametrize("steer", [-1.0, 1.0])
def test_a_car_that_turns_more_is_turned_to_the_side_of_the_steer(steer: float) -> None:
    sharper = replace(CAR, turn_rate=tuple(1.1 * value for value in CAR.turn_rate))
    off = found(sharper, CAR, held((1.5, 0, 1, 0), (4, steer, 1, 0)))
    assert (off.heading_deg[2:] * steer > 2.0).all()


def test_errors_do_not_depend_on_place_and_direction() -> None:
    inputs = held((2, 0, 1, 0), (3, 1, 1, 0))
    windows = cut_windows([driven(CAR, inputs, (300.0, -50.0, 2.0))], 1.0)
    off = errors(drive(replace(CAR, steer_loss=1.0).vector(), windows.drives), windows)
    same = found(replace(CAR, steer_loss=1.0), CAR, inputs)
    np.testing.assert_allclose(off.position_m, same.position_m, atol=1e-3)


def test_rows_are_by_manoeuvre_and_speed() -> None:
    windows = cut_windows([driven(CAR, drawn(0, 40.0))], 1.0)
    off = errors(drive(CAR.vector(), windows.drives), windows)
    table = {row.group: row for row in rows(windows, off)}
    assert table["all"].windows == len(windows.stretches)
    by_manoeuvre = [table[one.value].windows for one in Manoeuvre if one.value in table]
    assert sum(by_manoeuvre) == sum(row.windows for name, row in table.items() if "km/h" in name) == len(off.position_m)
