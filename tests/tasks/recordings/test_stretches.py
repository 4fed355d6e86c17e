"""Only flat clean asphalt without turbo, contact or gaps is used, and each stretch gets the name of its manoeuvre."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.recordings.recording import COLUMNS, Recording
from tasks.recordings.stretches import Manoeuvre, stretches, usable
from tasks.sim.vehicle import VehicleConstants
from tests.tasks.fidelity.drives import driven, held

CAR = VehicleConstants()
GAS = (3.0, 0.0, 1.0, 0.0)


def changed(name: str, rows: slice, value: float) -> Recording:
    """Three seconds of gas with one part changed."""
    recording = driven(CAR, held(GAS))
    recording.states[rows, COLUMNS.index(name)] = value
    return recording


def test_every_second_of_a_clean_drive_is_used_once() -> None:
    assert [stretch.first for stretch in stretches(driven(CAR, held(GAS)), 1.0)] == [0, 20, 40]


def test_nothing_is_used_without_known_inputs() -> None:
    assert not usable(replace(driven(CAR, held(GAS)), has_inputs=False)).any()


@pytest.mark.parametrize(
    ("name", "value"), [("turbo", 1.0), ("mat0", 6.0), ("y", 0.5), ("t_ms", 9e3), ("x", 30.0), ("u", 1.0)]
)
def test_only_driving_on_flat_asphalt_is_used(name: str, value: float) -> None:
    is_usable = usable(changed(name, slice(30, 31), value))
    assert is_usable[:30].all()
    assert not is_usable[30]


def test_a_slow_car_with_gas_that_gains_no_speed_pushes_against_something() -> None:
    is_usable = usable(changed("u", slice(22, 28), 16.0))
    assert not is_usable[23:28].any()
    assert is_usable[30:].all()


def test_coasting_slows_down_only_so_much_without_a_contact() -> None:
    recording = driven(CAR, held(GAS, (2.0, 0.0, 0.0, 0.0)))
    assert usable(recording).all()
    recording.states[80:, COLUMNS.index("u")] -= 2.0
    assert np.flatnonzero(~usable(recording)).tolist() == [80]


def test_a_stretch_with_one_wheel_in_the_air_is_used() -> None:
    assert usable(changed("mat2", slice(10, 30), 0.0)).all()


def test_wheels_stay_dirty_for_a_while() -> None:
    is_usable = usable(changed("mat0", slice(10, 11), 6.0))
    assert not is_usable[10:45].any()
    assert is_usable[55:].all()


@pytest.mark.parametrize(
    ("last", "name"),
    [
        ((2.0, 0.0, 1.0, 0.0), Manoeuvre.straight),
        ((2.0, 0.6, 1.0, 0.0), Manoeuvre.steering),
        ((2.0, 0.0, 0.0, 0.0), Manoeuvre.coasting),
        ((2.0, 0.0, 0.0, 1.0), Manoeuvre.braking),
        ((2.0, 1.0, 1.0, 1.0), Manoeuvre.drift),
    ],
)
def test_a_stretch_has_the_name_of_what_is_driven(last: tuple[float, float, float, float], name: Manoeuvre) -> None:
    found = stretches(driven(CAR, held((8.0, 0.0, 1.0, 0.0), last)), 1.0)
    assert found[0].manoeuvre is Manoeuvre.straight
    assert found[8].manoeuvre is name


def test_backwards_is_reverse() -> None:
    found = stretches(driven(CAR, held((2.0, 0.0, 0.0, 1.0))), 1.0)
    assert {stretch.manoeuvre for stretch in found} == {Manoeuvre.reverse}


def test_the_band_is_that_of_the_mean_speed() -> None:
    recording = driven(CAR, held(GAS))
    speed = 3.6 * np.abs(recording.column("u")[20:41]).mean()
    assert stretches(recording, 1.0)[1].band_kmh == 50 * int(speed // 50)
