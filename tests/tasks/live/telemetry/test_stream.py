from __future__ import annotations

import pytest

from tasks.config import TelemetryRecord
from tasks.game.protocols import Telemetry
from tasks.live.telemetry.layouts import LAYOUTS
from tasks.live.telemetry.stream import RecordStream, SpeedCheck
from tests.tasks.live.telemetry_bytes import DRIVING, FINISHED, NAN, NUMBERS, STANDING, moving, with_float


def confirmed_stream() -> RecordStream:
    """A stream that is trusted."""
    stream = RecordStream(LAYOUTS[TelemetryRecord.floats11])
    assert len(stream.feed(5 * STANDING, 0.0)) == 1
    return stream


@pytest.mark.parametrize("cuts", [[44], [4] * 11, [17, 27], [1] * 44, [43, 1]])
def test_record_arrives_in_pieces_of_any_size(cuts: list[int]) -> None:
    stream = confirmed_stream()
    data, believed = DRIVING, []
    for size in cuts:
        believed.append(stream.feed(data[:size], 1.0))
        data = data[size:]
    assert [len(records) for records in believed] == [0] * (len(cuts) - 1) + [1]
    assert believed[-1][0].speed == 12.5


def test_pieces_that_span_records_keep_their_rest() -> None:
    stream = confirmed_stream()
    data = DRIVING + FINISHED + STANDING
    speeds = [[record.speed for record in stream.feed(data[i : i + 50], 1.0)] for i in range(0, len(data), 50)]
    assert speeds == [[12.5], [20.0], [0.0]]


def test_burst_is_handed_out_in_order() -> None:
    stream = confirmed_stream()
    burst = stream.feed(19 * DRIVING + FINISHED, 1.0)
    assert [record.speed for record in burst] == [12.5] * 19 + [20.0]
    assert stream.num_records == 25


def test_connection_is_believed_from_the_fifth_plausible_record_on() -> None:
    stream = RecordStream(LAYOUTS[TelemetryRecord.floats11])
    assert stream.feed(4 * DRIVING, 0.0) == []
    assert stream.feed(with_float(DRIVING, 0, NAN), 0.1) == []
    assert stream.feed(4 * DRIVING, 0.2) == []
    assert len(stream.feed(DRIVING, 0.3)) == 1


def test_one_bad_record_is_dropped_alone() -> None:
    stream = confirmed_stream()
    believed = stream.feed(DRIVING + with_float(DRIVING, 10, NAN) + FINISHED, 1.0)
    assert [record.speed for record in believed] == [12.5, 20.0]
    assert not stream.is_hopeless


def test_reason_of_the_latest_drop_is_kept() -> None:
    stream = confirmed_stream()
    assert stream.trouble is None
    stream.feed(with_float(DRIVING, 0, NAN), 1.0)
    assert stream.trouble == "speed is nan, expected -400 to 400"
    stream.feed(with_float(DRIVING, 9, NUMBERS[33]) + DRIVING, 1.1)
    assert stream.trouble == "gear is 33, expected -1 to 10"


def test_stream_is_hopeless_from_the_fourth_bad_record_on() -> None:
    stream = confirmed_stream()
    stream.feed(3 * with_float(DRIVING, 0, NAN), 1.0)
    assert not stream.is_hopeless
    stream.feed(with_float(DRIVING, 0, NAN), 1.1)
    assert stream.is_hopeless


def test_stream_that_is_out_of_step_is_hopeless() -> None:
    # Four bytes too many in front: z stands where steer should.
    stream = RecordStream(LAYOUTS[TelemetryRecord.floats11])
    assert stream.feed(bytes(4) + 20 * DRIVING, 0.0) == []
    assert stream.is_hopeless


@pytest.mark.parametrize("num_floats", [8, 16, 20, 33])
def test_records_of_another_plugin_are_never_believed(num_floats: int) -> None:
    # A car that stands: every float is 0 but the position (20, 10, 30) where that plugin has it.
    other = LAYOUTS[TelemetryRecord[f"floats{num_floats}"]]
    record = bytes(other.size)
    for name, value in (("x", NUMBERS[20]), ("y", NUMBERS[10]), ("z", NUMBERS[30])):
        record = with_float(record, other.columns[name], value)
    stream = RecordStream(LAYOUTS[TelemetryRecord.floats11])
    believed = [stream.feed(record, 0.02 * i) for i in range(100)]
    assert not any(believed)
    assert stream.is_hopeless
    assert stream.trouble is not None


def test_distance_is_integrated_for_a_plugin_that_sends_none() -> None:
    stream = RecordStream(LAYOUTS[TelemetryRecord.floats20])
    distances = []
    for i in range(8):
        record = with_float(bytes(80), 3, NUMBERS[2 * i])
        distances += [round(believed.distance, 6) for believed in stream.feed(record, 0.1 * i)]
    # Trusted from x = 8 on: 0, 2, 4, 6 m from there.
    assert distances == [0.0, 2.0, 4.0, 6.0]


class Car:
    """Sends 60 records a second of a drive along x."""

    def __init__(self) -> None:
        self.check = SpeedCheck()
        self.now_s = 0.0
        self.x = 1000.0

    def drive(self, reported: float, moved: float, seconds: float) -> str | None:
        """Moves at ``moved`` m/s and reports another speed; returns what is wrong with that."""
        for _ in range(round(60 * seconds)):
            self.now_s += 1 / 60
            self.x += moved / 60
            self.check.add(telemetry(reported, self.x), self.now_s)
        return self.check.reason(self.now_s)


def telemetry(speed: float, x: float, y: float = 0.0, z: float = 0.0) -> Telemetry:
    return Telemetry(speed, 0.0, x, y, z, 0.0, 0.0, 0.0, 0.0, 1.0, 1000.0)


@pytest.mark.parametrize(("reported", "moved"), [(30.0, 30.0), (30.0, 33.0), (-6.0, -6.0), (0.0, 0.0), (60.0, 45.0)])
def test_speed_that_fits_the_motion_is_fine(reported: float, moved: float) -> None:
    assert Car().drive(reported, moved, 5.0) is None


def test_speed_in_kmh_is_recognised_after_two_windows() -> None:
    car = Car()
    assert car.drive(36.0, 10.0, 1.5) is None
    reason = car.drive(36.0, 10.0, 1.0)
    assert reason is not None
    assert "given as 36.0" in reason
    assert "10.0 m/s" in reason
    assert "km/h" in reason


def test_speed_of_a_car_whose_position_stands_still_is_wrong() -> None:
    reason = Car().drive(25.0, 0.0, 3.0)
    assert reason is not None
    assert "is the game paused?" in reason
    assert "km/h" not in reason


def test_no_speed_while_the_car_moves_fast_is_wrong() -> None:
    reason = Car().drive(0.0, 40.0, 3.0)
    assert reason is not None
    assert "given as 0.0" in reason
    assert "40.0 m/s" in reason


def test_falling_car_may_report_no_forward_speed() -> None:
    check = SpeedCheck()
    for i in range(240):
        check.add(telemetry(0.0, 0.0, y=1000.0 - i / 60 * 40.0), i / 60)
    assert check.reason(4.0) is None


def test_respawn_is_no_fault_and_no_way_driven() -> None:
    car = Car()
    car.drive(20.0, 20.0, 2.0)
    driven = car.check.driven_m
    # Between 120 records are 119 steps of 1/3 m.
    assert driven == pytest.approx(119 / 3)
    car.x = 0.0
    assert car.drive(0.0, 0.0, 4.0) is None
    assert car.check.driven_m == driven


def test_short_respawn_is_no_fault() -> None:
    car = Car()
    car.drive(20.0, 20.0, 2.0)
    car.x -= 25.0
    assert car.drive(0.0, 0.0, 4.0) is None


def test_records_after_a_silence_are_not_compared_with_those_before() -> None:
    # Every 0.6 s the car is 15 m farther, with nothing in between: too far apart to say how fast that was.
    check = SpeedCheck()
    for i in range(20):
        check.add(telemetry(100.0, 15.0 * i), 0.6 * i)
    assert check.reason(12.0) is None


def test_wrong_speed_is_forgiven_at_the_first_good_window() -> None:
    car = Car()
    assert car.drive(36.0, 10.0, 3.0) is not None
    assert car.drive(30.0, 30.0, 2.5) is None


def test_wrong_speed_is_forgotten_while_the_car_stands() -> None:
    car = Car()
    assert car.drive(36.0, 10.0, 3.0) is not None
    assert car.drive(0.0, 0.0, 4.0) is not None
    assert car.drive(0.0, 0.0, 2.0) is None


def test_speed_is_compared_by_the_last_record_of_a_burst() -> None:
    stream = confirmed_stream()
    # 10 m/s in ten bursts a second, each of six records that arrive at the same time.
    for i in range(34):
        stream.feed(6 * moving(NUMBERS[10], NUMBERS[i]), 0.1 * i)
    assert stream.motion_trouble(3.3) is None
    # And 36 where it moves at 10.
    stream = confirmed_stream()
    for i in range(34):
        stream.feed(6 * moving("00001042", NUMBERS[i]), 0.1 * i)
    assert "km/h" in str(stream.motion_trouble(3.3))
