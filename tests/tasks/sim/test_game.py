"""The game between two calls: frames, delays, draws, facts."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

from tasks.config import RandomizationConfig, TaskConfig, VehicleRandomizationConfig
from tasks.game.clock import VirtualClock
from tasks.sim import vehicle
from tasks.sim.game import SimulatedGame
from tasks.sim.track import load_track

STILL = RandomizationConfig(frame_phase=False, input_delay_ticks=[0, 0], start_offset_m=0.0, start_yaw_deg=0.0)
GAS = np.array([1.0, -1.0, 0.0], np.float32)


def _game(randomization: RandomizationConfig = STILL, track: str = "short") -> tuple[SimulatedGame, VirtualClock]:
    clock = VirtualClock()
    clock.sleep_until(17.3)
    config = TaskConfig(randomization=randomization, window_width=128, window_height=96)
    return SimulatedGame(clock, load_track(track), config), clock


def _wait(clock: VirtualClock, seconds: float) -> None:
    clock.sleep_until(clock.now() + seconds)


def test_car_stands_at_the_start_after_restart() -> None:
    game, clock = _game()
    game.apply(GAS)
    _wait(clock, 2.0)
    assert game.telemetry()[0].speed > 10
    game.restart(0)
    record, age = game.telemetry()
    assert (record.speed, record.distance, record.x, record.y, record.z) == (0, 0, 0, 10.0, 0)
    assert (record.gear, record.finished) == (1, 0)
    assert 0 <= age <= 1 / 60
    _wait(clock, 1.0)
    assert game.telemetry()[0].speed == 0.0, "controls of the last episode must not act"


def test_telemetry_is_that_of_the_newest_frame_boundary() -> None:
    game, clock = _game()
    game.restart(0)
    game.apply(GAS)
    _wait(clock, 0.049)
    record, age = game.telemetry()
    # Frames at 0, 16.67, 33.33 ms; the newest one holds the tick at 30 ms.
    assert age == pytest.approx(0.049 - 2 / 60, abs=1e-9)
    assert record.speed == pytest.approx(3 * 0.01 * 15.8, rel=0.02)
    _wait(clock, 0.0015)
    record, age = game.telemetry()
    assert age == pytest.approx(0.0005, abs=1e-9)
    assert record.speed == pytest.approx(5 * 0.01 * 15.8, rel=0.02)


def test_telemetry_reports_the_controls_that_act() -> None:
    game, clock = _game()
    game.restart(0)
    game.apply(np.array([0.25, 0.5, -0.75]))
    _wait(clock, 0.1)
    record = game.telemetry()[0]
    assert (record.gas, record.is_braking, record.steer) == (1.0, 1.0, -0.75)
    game.apply(np.array([-1.0, -1.0, 3.0]))
    game.apply(None)
    _wait(clock, 0.1)
    record = game.telemetry()[0]
    assert (record.gas, record.is_braking, record.steer) == (0.0, 0.0, 1.0)


def test_screen_shows_the_frame_before_the_newest() -> None:
    game, clock = _game()
    game.restart(0)
    game.apply(GAS)
    _wait(clock, 1.0)
    poses = {}
    for frame in range(3):
        clock.sleep_until(17.3 + 1.0 + (frame + 0.5) / 60)
        record = game.telemetry()[0]
        shown = game.frame()
        np.testing.assert_array_equal(shown, game._camera.frame(game._screen_pose, game._grids))
        poses[frame] = (record.z, float(game._screen_pose[1]))
    assert poses[1][1] == poses[0][0]
    assert poses[2][1] == poses[1][0]


@pytest.mark.parametrize("delay", [0, 1, 2, 5])
def test_controls_act_after_the_input_delay(delay: int) -> None:
    game, clock = _game(
        RandomizationConfig(frame_phase=False, input_delay_ticks=[delay, delay], start_offset_m=0.0, start_yaw_deg=0.0)
    )
    game.restart(0)
    game.apply(GAS)
    for tick in range(1, 8):
        clock.sleep_until(17.3 + 0.01 * tick)
        assert (game.state().forward_mps > 0) == (tick > delay)


def test_one_late_reading_equals_many_early_ones() -> None:
    records = []
    for readings in (1, 7, 50):
        game, clock = _game(RandomizationConfig())
        game.restart(3)
        rng = np.random.default_rng(0)
        begin = clock.now()
        for step in range(60):
            game.apply(rng.uniform(-1, 1, 3) + np.array([0.6, -0.6, 0.0]))
            for i in range(1, readings + 1):
                clock.sleep_until(begin + 0.05 * (step + i / readings))
                record = game.telemetry()
        records.append((record[0], game.state(), game.image().tobytes(), game.episode_facts().wall_impact_mps))
    assert records[0][0] == records[1][0] == records[2][0]
    assert repr(records[0][1:]) == repr(records[1][1:]) == repr(records[2][1:])


def test_same_seed_same_episode_bit_for_bit_and_another_seed_another() -> None:
    def run(seed: int) -> bytes:
        game, clock = _game(RandomizationConfig())
        game.restart(11)
        game.restart(seed)
        rng = np.random.default_rng(0)
        data = b""
        for _ in range(100):
            game.apply(rng.uniform(-1, 1, 3) + np.array([0.7, -0.7, 0.0]))
            _wait(clock, 0.05)
            data += np.array(game.telemetry()[0]).tobytes() + game.image().tobytes()
        return data

    assert run(0) == run(0)
    assert run(0) != run(1)


def test_draws_fill_their_ranges() -> None:
    game, _ = _game(RandomizationConfig())
    draws = []
    for seed in range(300):
        game.restart(seed)
        draws.append(game.draw)
    columns = np.array([draw[:5] for draw in draws]).T
    for values, low, high in zip(
        columns, (0, 0, -1, -1, -math.radians(5)), (1 / 60, 2, 1, 1, math.radians(5)), strict=True
    ):
        assert low <= values.min() <= low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) <= values.max() <= high
    assert set(columns[1]) == {0, 1, 2}


DIFFERENT_CARS = VehicleRandomizationConfig(
    acceleration_percent=10.0, grip_percent=20.0, steering_gain_percent=5.0, steering_delay_percent=15.0
)


def test_cars_of_episodes_fill_their_ranges_and_leave_the_other_draws_alone() -> None:
    game, _ = _game(RandomizationConfig())
    other, _ = _game(RandomizationConfig(vehicle=DIFFERENT_CARS))
    factors = []
    for seed in range(300):
        game.restart(seed)
        other.restart(seed)
        assert other.draw[:5] == game.draw[:5]
        assert game.draw.vehicle == (1.0, 1.0, 1.0, 1.0)
        factors.append(other.draw.vehicle)
    for values, share in zip(np.array(factors).T, (0.1, 0.2, 0.05, 0.15), strict=True):
        assert 1.0 - share <= values.min() <= 1.0 - 0.9 * share
        assert 1.0 + 0.9 * share <= values.max() <= 1.0 + share


def test_the_drawn_car_is_driven_until_the_next_restart() -> None:
    only_engine = VehicleRandomizationConfig(acceleration_percent=30.0)
    still = dataclasses.replace(STILL, vehicle=only_engine)
    game, clock = _game(still)
    for seed in (1, 2):
        game.restart(seed)
        game.apply(GAS)
        _wait(clock, 0.5)
        assert game.state().forward_mps == pytest.approx(0.5 * 15.8 * game.draw.vehicle.acceleration, rel=0.021)


def test_a_car_is_drawn_around_that_of_the_task() -> None:
    clock = VirtualClock()
    config = TaskConfig(randomization=STILL, vehicle="{acceleration: [5, 5, 5, 5]}")
    game = SimulatedGame(clock, load_track("short"), config)
    game.restart(0)
    game.apply(GAS)
    _wait(clock, 1.0)
    assert game.state().forward_mps == pytest.approx(5.0)


def test_restart_without_a_seed_goes_on_drawing() -> None:
    game, _ = _game(RandomizationConfig())
    game.restart(None)
    first = game.draw
    game.restart(None)
    assert game.draw != first


def test_finish_time_is_interpolated_within_the_tick() -> None:
    game, clock = _game(track="short")
    game.restart(0)
    x, z = game.track.finish_position
    yaw = game.track.finish_yaw
    memory = game._memory
    speed, before = 33.0, 0.1
    memory[vehicle.X], memory[vehicle.Z] = x - before * math.sin(yaw), z - before * math.cos(yaw)
    memory[vehicle.YAW], memory[vehicle.SPEED_LONG] = yaw, speed
    memory[vehicle.DISTANCE] = 200.0
    assert math.isnan(game.episode_facts().finish_time_s)
    _wait(clock, 0.05)
    assert game.episode_facts().finish_time_s == pytest.approx(before / speed, rel=0.01)
    assert game.telemetry()[0].finished == 1.0


def test_finish_line_does_not_count_right_after_the_start_or_backwards() -> None:
    game, clock = _game(track="short")
    for distance, turn in ((10.0, 0.0), (200.0, math.pi)):
        game.restart(0)
        x, z = game.track.finish_position
        yaw = game.track.finish_yaw + turn
        memory = game._memory
        memory[vehicle.X], memory[vehicle.Z] = x - 0.5 * math.sin(yaw), z - 0.5 * math.cos(yaw)
        memory[vehicle.YAW], memory[vehicle.SPEED_LONG], memory[vehicle.DISTANCE] = yaw, 30.0, distance
        _wait(clock, 0.1)
        assert math.isnan(game.episode_facts().finish_time_s)


def test_wall_contacts_and_impact_are_counted() -> None:
    game, clock = _game(track="short")
    game.restart(0)
    game.apply(GAS)
    _wait(clock, 6.0)
    facts = game.episode_facts()
    assert facts.wall_contacts >= 1
    assert facts.wall_impact_mps > 10.0
    assert abs(facts.yaw) > 0.1
    assert game.state().distance_m < 250


def test_image_equals_cv2_of_frame_at_any_moment() -> None:
    game, clock = _game(RandomizationConfig())
    game.restart(5)
    game.apply(GAS)
    for _ in range(10):
        _wait(clock, 0.3)
        expected = cv2.cvtColor(cv2.resize(game.frame(), (64, 64)), cv2.COLOR_BGRA2GRAY)
        assert np.abs(game.image().astype(int) - expected).max() <= 1


def test_chase_view_is_rgb_of_the_asked_size() -> None:
    game, _ = _game()
    assert game.render_chase(320, 180).shape == (180, 320, 3)


def test_control_that_is_not_finite_is_refused() -> None:
    game, _ = _game()
    with pytest.raises(ValueError, match="three finite numbers"):
        game.apply(np.array([np.nan, 0, 0]))


def test_closing_twice_is_fine() -> None:
    game, _ = _game()
    game.close()
    game.close()
