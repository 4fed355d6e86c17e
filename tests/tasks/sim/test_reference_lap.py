"""The stored reference laps drive what they say, and count only for their own road and car."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tasks
from tasks.config import GameKind, RandomizationConfig, TaskConfig
from tasks.sim.random_tracks import HELD_IN_SEEDS, HELD_OUT_SEEDS, random_track
from tasks.sim.reference_lap import (
    ReferenceLap,
    load_reference_lap,
    reference_file,
    replay,
    rounded_actions,
    stations_m,
    store_reference_lap,
)
from tasks.sim.track import TRACKS_FOLDER, load_track
from tasks.sim.vehicle import VehicleConstants

LAPS = {name: lap for name in ("short", "medium", "long") if (lap := load_reference_lap(name)) is not None}
RANDOM_SEEDS = [int(path.name.split(".")[0].removeprefix("random_")) for path in TRACKS_FOLDER.glob("random_*")]


def _straight(folder: Path) -> str:
    """A straight road of 130 m."""
    z = np.arange(0.0, 131.0)
    np.save(folder / "line.npy", np.stack([0 * z, z], axis=1))
    return str(folder / "line.npy")


def _full_gas(steps: int = 120) -> ReferenceLap:
    return ReferenceLap(5.0, None, rounded_actions(np.tile([1.0, 0.0, 0.1234], (steps, 1))))


@pytest.mark.parametrize("name", LAPS)
def test_the_actions_drive_the_stored_lap_and_its_mirror_image(name: str) -> None:
    lap = LAPS[name]
    trace, car = replay(load_track(name), lap.actions)
    assert car.finish_time_s == lap.lap_time_s
    assert trace.station_m[-1] == pytest.approx(load_track(name).length_m, abs=1.0)
    assert not (np.diff(trace.station_m) < 0.0).any()
    if lap.lower_bound_s is not None:
        assert lap.lower_bound_s < lap.lap_time_s < 1.03 * lap.lower_bound_s
    mirrored = load_reference_lap(f"{name}_mirrored")
    assert mirrored is not None
    _, car = replay(load_track(f"{name}_mirrored"), mirrored.actions)
    assert car.finish_time_s == pytest.approx(lap.lap_time_s, abs=0.01)


@pytest.mark.parametrize("seed", sorted({*HELD_IN_SEEDS, *HELD_OUT_SEEDS, *RANDOM_SEEDS}))
def test_a_random_track_has_a_lap_that_its_actions_drive_on_it_as_it_is_drawn_now(seed: int) -> None:
    lap, track = load_reference_lap(f"random:{seed}"), random_track(seed)
    assert lap is not None
    assert replay(track, lap.actions)[1].finish_time_s == lap.lap_time_s
    assert track.scripted is None or lap.lap_time_s < track.scripted.lap_time_s
    assert lap.lower_bound_s is None or lap.lower_bound_s < lap.lap_time_s


def test_tracks_that_differ_each_episode_have_no_lap_in_common() -> None:
    assert load_reference_lap("random") is None


def test_a_policy_with_these_actions_has_this_lap_without_touching_a_wall() -> None:
    still = RandomizationConfig(
        frame_phase=False, capture_jitter_s=0.0, input_delay_ticks=[0, 0], start_offset_m=0.0, start_yaw_deg=0.0
    )
    config = TaskConfig(name="TM20Lidar", game=GameKind.sim, track="short", randomization=still)
    config.window_width, config.window_height = 958, 488
    env = tasks.make("TM20Lidar", config=config)
    env.reset(seed=3)
    done, actions = False, iter(LAPS["short"].actions)
    while not done:
        *_, terminated, truncated, info = env.step(next(actions, np.zeros(3, np.float32)))
        done = terminated or truncated
    env.close()
    assert info["episode_statistics"]["lap_time_s"] == LAPS["short"].lap_time_s
    assert info["episode_statistics"]["wall_contacts"] == 0.0


def test_a_lap_is_stored_beside_the_users_track_and_counts_for_its_road_and_car_only(tmp_path: Path) -> None:
    track, lap = _straight(tmp_path), _full_gas()
    slow = VehicleConstants(yaw_lag_s=0.2)
    assert load_reference_lap(track) is None
    assert store_reference_lap(lap, track) == tmp_path / "line.npy.reference.json"
    found = load_reference_lap(track)
    assert found is not None
    assert found[:2] == lap[:2]
    np.testing.assert_array_equal(found.actions, lap.actions)
    assert load_reference_lap(track, 20.0) is None
    assert load_reference_lap(track, car=slow) is None
    store_reference_lap(lap, track, car=slow)
    assert load_reference_lap(track, car=slow) is not None
    assert load_reference_lap(track) is None


@pytest.mark.parametrize(
    "change",
    [{"steer": [0.1]}, {"gas": "12"}, {"steer": [2000] * 120}, {"lap_time_s": "fast"}, {"lap_time_s": -1.0}, None],
)
def test_a_damaged_file_is_told_and_ignored(
    change: dict[str, object] | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    track = _straight(tmp_path)
    path = store_reference_lap(_full_gas(), track)
    path.write_text("[" * 100_000 if change is None else json.dumps(json.loads(path.read_text()) | change))
    assert load_reference_lap(track) is None
    assert "is no reference lap" in caplog.text


def test_a_track_without_a_stored_lap_has_none() -> None:
    assert not reference_file("line.csv").exists()
    assert load_reference_lap("line.csv") is None


def test_places_beside_the_line_have_its_stations() -> None:
    line = np.stack([np.zeros(500), np.zeros(500), 0.1 * np.arange(500)], axis=1)
    places = np.array([[1.0, 0.0], [-2.0, 10.04], [0.0, 9.0], [3.0, 49.9]])
    np.testing.assert_allclose(stations_m(line, places), [0.0, 10.0, 10.0, 49.9], atol=1e-9)
