"""Recordings: their start, end and path, and refusals with their reasons."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.roles.config import RecordConfig
from tasks.roles.recording import (
    RecordedPath,
    Recorder,
    RecordingRefused,
    RecordingState,
    Refusal,
    Sample,
    path_of,
)
from tasks.trackmania.reference_path import resample
from tests.tasks.roles.record.drives import FRAME_S, DriveMaker, telemetry_of

START = (100.0, 10.0, 200.0)
CONFIG = RecordConfig()


def lap(maker: DriveMaker | None = None) -> DriveMaker:
    """80 m ahead, 60 m to the side, finish."""
    return (maker or DriveMaker()).stand().drive((100.0, 10.0, 280.0), (160.0, 10.0, 280.0)).finish()


def recorded(maker: DriveMaker, config: RecordConfig = CONFIG) -> RecordedPath:
    return path_of(maker.samples, config)


def refusal_of(maker: DriveMaker, config: RecordConfig = CONFIG) -> RecordingRefused:
    with pytest.raises(RecordingRefused) as caught:
        recorded(maker, config)
    return caught.value


def test_a_lap_becomes_points_of_a_tenth_of_a_metre_from_where_the_car_stood() -> None:
    path = recorded(lap())
    assert path.has_finished
    np.testing.assert_allclose(path.points[0], START)
    # 80 m + 60 m, and the first record of the finish screen, one frame at 20 m/s later.
    assert path.length_m == pytest.approx(140.0 + 20.0 * FRAME_S, abs=0.1)
    gaps = np.linalg.norm(np.diff(path.points, axis=0), axis=1)
    # Shorter where the line cuts the corner, and at the end.
    assert np.sort(gaps)[2:].min() == pytest.approx(0.1, abs=1e-9)
    assert gaps.max() <= 0.1 + 1e-9
    corner = np.linalg.norm(path.points - [100.0, 10.0, 280.0], axis=1)
    assert corner.min() < 0.2


def test_the_recording_is_a_reference_path_that_loading_keeps_as_it_is() -> None:
    path = recorded(lap())
    np.testing.assert_array_equal(resample(path.points), path.points)


def test_the_time_runs_from_driving_off_to_the_finish() -> None:
    maker = DriveMaker().stand(3.0).drive((100.0, 10.0, 300.0), speed_mps=50.0).finish(speed_mps=50.0)
    # 100 m at 50 m/s, and one frame until the finish screen.
    assert recorded(maker).duration_s == pytest.approx(2.0 + FRAME_S, abs=1e-6)


def test_the_time_runs_to_a_finish_that_shows_while_the_car_stands() -> None:
    maker = DriveMaker().stand().drive((100.0, 10.0, 300.0), speed_mps=50.0).stand(1.0)
    maker.shows_finish = True
    assert recorded(maker.stand(1.0)).duration_s == pytest.approx(2.0 + 1.0 + FRAME_S, abs=1e-6)


def test_what_follows_the_finish_is_left_out() -> None:
    short, long = lap(), lap()
    long.drive((500.0, 10.0, 500.0), speed_mps=30.0)
    np.testing.assert_array_equal(recorded(short).points, recorded(long).points)


def test_the_trajectory_keeps_the_speeds() -> None:
    path = recorded(lap())
    np.testing.assert_allclose(path.trajectory[0], [100.0, 200.0, 0.0])
    np.testing.assert_allclose(path.trajectory[1:, 2], 20.0)
    np.testing.assert_allclose(path.trajectory[-1, :2], path.points[-1, [0, 2]], atol=1e-4)


def test_a_rolling_car_is_waited_for_until_it_has_stood() -> None:
    maker = DriveMaker((100.0, 10.0, 100.0)).drive((100.0, 10.0, 200.0))
    path = recorded(lap(maker))
    np.testing.assert_allclose(path.points[0], START)


def test_the_finish_screen_of_the_run_before_is_no_finish() -> None:
    maker = DriveMaker()
    maker.shows_finish = True
    maker.stand(1.0).drive((100.0, 10.0, 203.0))
    maker.shows_finish = False
    maker.jump(START)
    path = recorded(lap(maker))
    assert path.has_finished
    assert path.length_m == pytest.approx(140.3, abs=0.2)


def test_a_car_that_is_put_back_to_the_start_begins_a_new_recording() -> None:
    maker = DriveMaker().stand().drive((100.0, 10.0, 260.0), (150.0, 10.0, 260.0)).jump(START)
    recorder = Recorder(CONFIG)
    for sample in lap(maker).samples:
        recorder.add(sample)
    assert recorder.num_restarts == 1
    np.testing.assert_array_equal(recorder.path().points, recorded(lap()).points)


def test_a_restart_right_after_the_start_begins_a_new_recording() -> None:
    # 4 m are no jump: a restart shows only by standing again.
    maker = DriveMaker().stand().drive((100.0, 10.0, 204.0)).jump(START)
    np.testing.assert_array_equal(recorded(lap(maker)).points, recorded(lap()).points)


def test_standing_during_the_drive_adds_nothing() -> None:
    maker = DriveMaker().stand().drive((100.0, 10.0, 260.0)).stand(20.0)
    for i, sample in enumerate(maker.samples[-600:]):  # the springs of a standing car tremble
        maker.samples[-600 + i] = sample._replace(position=(100.0 + 0.01 * (-1) ** i, 10.0, 260.0))
    path = recorded(maker.drive((100.0, 10.0, 300.0)).finish())
    assert path.length_m == pytest.approx(100.0 + 20.0 * FRAME_S, abs=0.15)
    np.testing.assert_allclose(path.points[:, 0], 100.0, atol=0.011)


def test_a_recording_that_is_stopped_by_hand_is_a_path_without_a_finish() -> None:
    path = recorded(DriveMaker().stand().drive((100.0, 10.0, 280.0)))
    assert not path.has_finished
    assert path.length_m == pytest.approx(80.0)


def test_the_time_limit_ends_a_recording() -> None:
    config = RecordConfig(max_minutes=0.1)
    maker = DriveMaker().stand().drive((100.0, 10.0, 500.0), speed_mps=20.0)
    recorder = Recorder(config)
    assert [recorder.add(sample) for sample in maker.samples][-1] is RecordingState.stopped
    assert recorder.path().length_m == pytest.approx(6.0 * 20.0, abs=1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_record_with_nan_is_left_out(bad: float) -> None:
    maker = lap()
    broken = [sample._replace(position=(bad, 10.0, 200.0)) for sample in maker.samples[60:63]]
    maker.samples[60:60] = broken
    np.testing.assert_array_equal(recorded(maker).points, recorded(lap()).points)


def test_a_recording_without_movement_is_refused() -> None:
    refusal = refusal_of(DriveMaker().stand(5.0, speed_mps=0.4))
    assert refusal.reason is Refusal.nothing_moved
    assert "highest speed was 0.4 m/s" in str(refusal)
    assert "record.start_speed_mps is 1" in str(refusal)


def test_a_recording_without_telemetry_is_refused() -> None:
    assert refusal_of(DriveMaker()).reason is Refusal.no_telemetry


def test_a_standing_position_with_a_high_speed_is_refused_at_once() -> None:
    maker = DriveMaker().stand()
    recorder = Recorder(CONFIG)
    for sample in maker.stand(5.0, speed_mps=30.0).samples:
        recorder.add(sample)
    assert recorder.state is RecordingState.refused
    refusal = refusal_of(maker)
    assert refusal.reason is Refusal.standing_still
    assert "30.0 m/s" in str(refusal)
    assert "task.live.record" in str(refusal)


def test_a_creeping_car_is_too_short_and_not_standing_still() -> None:
    refusal = refusal_of(DriveMaker().stand().drive((100.0, 10.0, 201.5), speed_mps=1.2))
    assert refusal.reason is Refusal.too_short


def test_a_short_recording_is_refused() -> None:
    refusal = refusal_of(DriveMaker().stand().drive((100.0, 10.0, 230.0)).finish())
    assert refusal.reason is Refusal.too_short
    assert "drove 30." in str(refusal)
    assert "record.min_length_m is 50" in str(refusal)


@pytest.mark.parametrize("place", [(100.0, 10.0, 320.0), (400.0, 10.0, 200.0), (100.0, 60.0, 260.0)])
def test_a_jump_is_refused_at_once_and_says_where(place: tuple[float, float, float]) -> None:
    maker = DriveMaker().stand().drive((100.0, 10.0, 260.0)).jump(place, speed_mps=20.0)
    recorder = Recorder(CONFIG)
    assert [recorder.add(sample) for sample in maker.samples][-1] is RecordingState.refused
    refusal = refusal_of(maker)
    assert refusal.reason is Refusal.teleported
    assert f"{math.dist(place, (100.0, 10.0, 260.0)):.1f} m after 60 m, at x=100.0 z=260.0" in str(refusal)
    assert "respawn" in str(refusal)


def test_a_respawn_elsewhere_is_refused_although_the_car_stands() -> None:
    maker = DriveMaker().stand().drive((100.0, 10.0, 300.0)).jump((100.0, 10.0, 240.0), speed_mps=0.0)
    assert refusal_of(maker.drive((100.0, 10.0, 400.0)).finish()).reason is Refusal.teleported


@pytest.mark.parametrize("speed_mps", [20.0, 100.0, 270.0])
def test_fast_driving_and_lost_frames_are_no_jump(speed_mps: float) -> None:
    maker = DriveMaker().stand().drive((100.0, 10.0, 1200.0), speed_mps=speed_mps).finish(speed_mps=speed_mps)
    driven = [sample for i, sample in enumerate(maker.samples) if i < 40 or i % 3 == 0 or sample.finished]
    assert path_of(driven, CONFIG).has_finished


def test_a_gap_that_may_hide_a_corner_is_refused() -> None:
    maker = DriveMaker().stand().drive((100.0, 10.0, 260.0), speed_mps=40.0).pause(1.0)
    maker.place = (100.0, 10.0, 300.0)
    refusal = refusal_of(maker.drive((100.0, 10.0, 400.0), speed_mps=40.0).finish())
    assert refusal.reason is Refusal.interrupted
    assert "1.0 s no telemetry" in str(refusal)


def test_a_pause_in_which_the_car_waits_is_fine() -> None:
    maker = DriveMaker().stand().drive((100.0, 10.0, 260.0)).pause(60.0)
    assert recorded(maker.drive((100.0, 10.0, 300.0)).finish()).length_m == pytest.approx(100.0, abs=0.5)


def test_a_running_recording_has_no_path_yet() -> None:
    recorder = Recorder(CONFIG)
    for sample in DriveMaker().stand().drive((100.0, 10.0, 280.0)).samples:
        recorder.add(sample)
    assert recorder.state is RecordingState.recording
    with pytest.raises(RuntimeError, match="not over"):
        recorder.path()


def test_a_sample_takes_the_size_of_the_speed_and_the_level_of_the_flag() -> None:
    record = telemetry_of(Sample(0.0, START, 7.0, True))._replace(speed=-7.0)
    assert Sample.from_telemetry(3.0, record) == Sample(3.0, START, 7.0, True)
