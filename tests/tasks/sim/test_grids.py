"""Grids: memory grows with the road, and a wall stands wherever two stretches of it meet."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tasks.config import TaskConfig
from tasks.game.clock import VirtualClock
from tasks.sim import vehicle
from tasks.sim.camera import FrontCamera
from tasks.sim.game import SimulatedGame
from tasks.sim.grids import TrackGrids, build_grids, memory_bytes
from tasks.sim.scripted_driver import DriverParameters, drive_scripted
from tasks.sim.track import Track, load_track
from tests.tasks.sim import lines
from tests.tasks.sim.test_camera import walked_lidar

WIDTH = 25.75


def _track(tmp_path: Path, points: np.ndarray, width: float = WIDTH) -> Track:
    path = tmp_path / "line.npy"
    np.save(path, points)
    return load_track(str(path), width)


def _distance(grids: TrackGrids, x: float, z: float) -> float:
    return float(vehicle.sample_field(grids.index, grids.field, grids.place, x, z)[0])


def test_field_holds_the_distance_to_the_centre_line() -> None:
    track = load_track("medium")
    points = track.centre_line[:, [0, 2]]
    rng = np.random.default_rng(0)
    for k in rng.integers(0, len(points), 300):
        here = points[k] + rng.uniform(-9, 9, 2)
        exact = np.linalg.norm(points - here, axis=1).min()
        if k > 100 and k < len(points) - 100 and exact > 1.0:
            assert _distance(track.grids, *here) == pytest.approx(exact, abs=0.06)


def test_far_from_the_road_the_field_says_far_and_the_land_has_its_pattern() -> None:
    grids = load_track("medium").grids
    assert _distance(grids, grids.place[vehicle.FIELD_X], grids.place[vehicle.FIELD_Z]) == vehicle.FAR_FROM_ROAD_M
    land = grids.texture[len(grids.clearance) :]
    assert land.min() == 32
    assert land.max() == 61


@pytest.mark.parametrize("shape", [lines.loop, lines.diagonal])
def test_memory_grows_with_the_length_and_not_with_the_land(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: object
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert callable(shape)
    short, long = (_track(tmp_path, shape(length)).grids.nbytes for length in (3000.0, 21000.0))
    per_metre = (long - short) / 18000.0
    assert per_metre < 3500
    assert long < 80e6
    # Without the pattern of the land, which all tracks have, seven times the length takes seven times the memory.
    pattern = 16 * 512 * 512
    assert (long - pattern) / (short - pattern) == pytest.approx(7.0, rel=0.15)
    assert memory_bytes(21000.0, WIDTH) == pytest.approx(long, rel=0.4)


def test_equal_tracks_of_a_process_share_their_grids(tmp_path: Path) -> None:
    first, second = (_track(tmp_path, lines.hairpin(60.0, 80.0)) for _ in range(2))
    assert first is not second
    assert first.grids is second.grids


@pytest.mark.parametrize("gap", [10.5, 12.0, 23.45])
def test_wall_stands_between_stretches_nearer_than_the_road_is_wide(tmp_path: Path, gap: float) -> None:
    track = _track(tmp_path, lines.hairpin(gap, 120.0))
    grids = track.grids
    for z in np.arange(5.0, 60.0, 0.3):
        across = [_distance(grids, x, z) for x in np.arange(0.0, gap, 0.1)]
        assert max(across) > grids.place[vehicle.WALL_AT] + 0.3
        assert np.argmax(across) * 0.1 == pytest.approx(gap / 2, abs=0.4)


@pytest.mark.parametrize("gap", [12.0, 23.45])
def test_car_cannot_cross_to_the_other_stretch(tmp_path: Path, gap: float) -> None:
    track = _track(tmp_path, lines.hairpin(gap, 120.0))
    clock = VirtualClock()
    game = SimulatedGame(clock, track, TaskConfig(track="line.npy", window_width=958, window_height=488))
    contacts = 0
    for steer in (0.05, 0.1, 0.2, 0.4, 0.7, 1.0):
        game.restart(0)
        while game.state().z < 90.0 and game.state().time_s < 10.0:
            # Straight on at first, so that the car is fast when it turns to the wall.
            game.apply(np.array([1.0, 0.0, steer if game.state().z > 40.0 else 0.0]))
            clock.sleep_until(clock.now() + 0.05)
            assert game.state().x < gap / 2
        contacts += game.episode_facts().wall_contacts
    assert contacts > 0


def test_lidar_sees_the_wall_between_close_stretches_and_equals_the_pixel_walk(tmp_path: Path) -> None:
    grids = _track(tmp_path, lines.hairpin(23.45, 120.0)).grids
    front = FrontCamera((958, 488), (64, 64), True)
    for z in (20.0, 40.0, 95.0, 110.0, 120.0):
        for yaw in (0.0, 0.4, math.pi / 2, 2.5):
            for x in (0.0, 6.0, 17.0, 23.45):
                pose = np.array([x, z, yaw])
                np.testing.assert_array_equal(front.lidar(pose, grids), walked_lidar(front.frame(pose, grids)))
    towards_wall = front.lidar(np.array([0.0, 40.0, math.pi / 2]), grids)[9]
    towards_border = front.lidar(np.array([0.0, 40.0, -math.pi / 2]), grids)[9]
    assert towards_wall == pytest.approx(towards_border, abs=25)


@pytest.mark.parametrize(
    "points",
    [
        lines.spiral(9.0, 3.0),
        lines.spiral(23.45, 3.0),
        lines.loop(400.0),
        lines.loop(400.0, 30.0),
        lines.loop(400.0, 0.0),
        lines.hairpin(11.0, 60.0),
        lines.into_side(8.0),
        lines.into_side(14.0),
        lines.into_side(30.0),
    ],
)
def test_the_middle_of_the_road_is_always_free(tmp_path: Path, points: np.ndarray) -> None:
    track = _track(tmp_path, points)
    # With its side to the wall the car needs half its width, nose first half its length.
    free = track.grids.place[vehicle.WALL_AT] - 0.95
    line = track.centre_line[::5, [0, 2]]
    distances = [_distance(track.grids, x, z) for x, z in line]
    assert max(distances) < free
    gaps = np.linalg.norm(line - line[-1], axis=1)
    before_end = np.array(distances)[gaps > WIDTH]
    assert max(before_end) < free


def test_closed_road_goes_on_from_its_finish_to_its_start(tmp_path: Path) -> None:
    track = _track(tmp_path, lines.loop(400.0, 20.0))
    radius = 400.0 / (2 * math.pi)
    for angle in np.linspace(-0.4, 0.2, 50):
        here = radius - radius * math.cos(angle), radius * math.sin(angle)
        assert _distance(track.grids, *here) < 1.0
    # No run-in and no run-out leads out of the round.
    assert _distance(track.grids, -20.0, -40.0) > track.width_m / 2


def test_scripted_driver_finishes_between_walls_without_touching_them(tmp_path: Path) -> None:
    track = _track(tmp_path, lines.hairpin(18.0, 120.0))
    lap = drive_scripted(track, (1,), DriverParameters(steer_fraction=0.7))[0]
    assert not math.isnan(lap.finish_time_s)
    assert lap.wall_contacts == 0


def test_building_twice_gives_equal_grids() -> None:
    from tasks.sim.track import road_of

    road = road_of(load_track("short"))
    first, second = build_grids(road), build_grids(road)
    for name in ("place", "index", "texture", "clearance", "field"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert not getattr(first, name).flags.writeable
