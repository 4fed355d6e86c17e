from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.config import TelemetryRecord
from tasks.game.protocols import Telemetry
from tasks.live.telemetry.layouts import LAYOUTS, implausible_reason, record_of_size
from tests.tasks.live import telemetry_bytes

COUNTING = bytes.fromhex("".join(telemetry_bytes.NUMBERS[1:]))
"""The floats 1, 2, 3, ... 33: each value is its position."""


def test_every_record_of_the_configuration_has_a_layout() -> None:
    assert set(LAYOUTS) == set(TelemetryRecord)


@pytest.mark.parametrize(
    ("record", "size"),
    [("floats8", 32), ("floats11", 44), ("floats14", 56), ("floats16", 64), ("floats20", 80), ("floats33", 132)],
)
def test_size_in_bytes(record: str, size: int) -> None:
    assert LAYOUTS[TelemetryRecord[record]].size == size
    assert record_of_size(size) is TelemetryRecord[record]


def test_unknown_size_is_no_record() -> None:
    assert record_of_size(48) is None


def test_tmrl_record_is_decoded_in_its_order() -> None:
    decoded = LAYOUTS[TelemetryRecord.floats11].decode(telemetry_bytes.DRIVING)
    np.testing.assert_array_equal(decoded, Telemetry(
        speed=12.5, distance=100.25, x=512.0, y=10.0, z=-3.5, steer=-0.25, gas=1.0, is_braking=0.0, finished=0.0,
        gear=3.0, rpm=7000.0,
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("floats8", Telemetry(1, 2, 3, 4, 5, 6, 7, 8, finished=0, gear=0, rpm=0)),
        ("floats11", Telemetry(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)),
        ("floats14", Telemetry(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, velocity_x=12, velocity_z=13, yaw=14)),
        (
            "floats20",
            Telemetry(3, 0, x=4, y=5, z=6, steer=7, gas=8, is_braking=9, finished=10, gear=20, rpm=0),
        ),
        (
            "floats33",
            Telemetry(17, 0, x=5, y=6, z=7, steer=31, gas=32, is_braking=33, finished=3, gear=19, rpm=18),
        ),
    ],
)
def test_each_field_comes_from_its_float(record: str, expected: Telemetry) -> None:
    np.testing.assert_array_equal(LAYOUTS[TelemetryRecord[record]].decode(COUNTING), expected)


def test_front_and_side_speed_make_one_speed() -> None:
    # 3 m/s ahead and 4 m/s aside are 5 m/s.
    record = telemetry_bytes.with_float(telemetry_bytes.with_float(COUNTING, 0, "00004040"), 1, "00008040")
    decoded = LAYOUTS[TelemetryRecord.floats16].decode(record)
    expected = Telemetry(5, 3, x=4, y=5, z=6, steer=7, gas=8, is_braking=9, finished=10, gear=11, rpm=12)
    np.testing.assert_array_equal(decoded, expected)


def test_what_a_record_lacks_is_named() -> None:
    assert LAYOUTS[TelemetryRecord.floats8].missing == ("finished", "gear", "rpm")
    assert LAYOUTS[TelemetryRecord.floats11].missing == ()
    assert LAYOUTS[TelemetryRecord.floats14].missing == ()
    assert LAYOUTS[TelemetryRecord.floats16].missing == ()
    assert LAYOUTS[TelemetryRecord.floats20].missing == ("distance", "rpm")
    assert LAYOUTS[TelemetryRecord.floats33].missing == ("distance",)


def test_offset_reaches_a_later_record() -> None:
    data = telemetry_bytes.STANDING + telemetry_bytes.FINISHED
    assert LAYOUTS[TelemetryRecord.floats11].decode(data, 44).speed == 20.0


def test_too_few_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 44 bytes, got 43"):
        LAYOUTS[TelemetryRecord.floats11].decode(telemetry_bytes.DRIVING, 1)


@pytest.mark.parametrize("record", [telemetry_bytes.STANDING, telemetry_bytes.DRIVING, telemetry_bytes.FINISHED])
def test_records_of_a_car_are_plausible(record: bytes) -> None:
    assert implausible_reason(LAYOUTS[TelemetryRecord.floats11].decode(record)) is None


def test_car_that_rolls_backwards_is_plausible() -> None:
    record = LAYOUTS[TelemetryRecord.floats11].decode(telemetry_bytes.STANDING)
    assert implausible_reason(record._replace(speed=-8.0, gear=-1.0)) is None


@pytest.mark.parametrize("index", range(11))
@pytest.mark.parametrize("value", [telemetry_bytes.NAN, telemetry_bytes.INFINITY])
def test_nan_and_infinity_are_implausible_in_every_field(index: int, value: str) -> None:
    record = telemetry_bytes.with_float(telemetry_bytes.DRIVING, index, value)
    reason = implausible_reason(LAYOUTS[TelemetryRecord.floats11].decode(record))
    assert reason is not None
    assert reason.startswith(f"{Telemetry._fields[index]} is {'nan' if value == telemetry_bytes.NAN else 'inf'}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("speed", 401.0),
        ("x", 1.1e5),
        ("y", -1.1e5),
        ("steer", 1.01),
        ("gas", -0.01),
        ("is_braking", 2.0),
        ("finished", 0.5 + math.pi),
        ("gear", 11.0),
        ("rpm", 20001.0),
        ("velocity_x", math.inf),
        ("yaw", 11.0),
    ],
)
def test_value_out_of_its_range_is_implausible(field: str, value: float) -> None:
    record = LAYOUTS[TelemetryRecord.floats11].decode(telemetry_bytes.DRIVING)._replace(**{field: value})
    assert str(implausible_reason(record)).startswith(f"{field} is")
