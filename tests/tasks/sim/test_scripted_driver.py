"""The reference lap, and that nobody gets near it without looking at the road."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.sim import scripted_driver
from tasks.sim.game import CarState
from tasks.sim.scripted_driver import drive, drive_scripted, racing_line, scripted_lap_time_s
from tasks.sim.speed_profile import speed_profile
from tasks.sim.track import load_track, shipped_names
from tasks.sim.vehicle import VehicleConstants

Policy = Callable[[CarState], np.ndarray]


def _steady(gas: float, steer: float) -> Policy:
    action = np.array([gas, -1.0, steer])
    return lambda _: action


def _tapped(part: int) -> Policy:
    """Gas in ``part`` of four steps, straight on."""
    steps = itertools.count()
    return lambda _: np.array([1.0 if next(steps) % 4 < part else -1.0, -1.0, 0.0])


def _random(seed: int, low: tuple[float, float, float], high: tuple[float, float, float], hold: int) -> Policy:
    """Uniform actions, each held for some steps."""
    rng = np.random.default_rng(seed)
    held: list[np.ndarray] = []

    def act(_: CarState) -> np.ndarray:
        held.append(rng.uniform(low, high) if len(held) % hold == 0 else held[-1])
        return held[-1]

    return act


def _blind_policies() -> dict[str, Policy]:
    steers = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0)
    policies = {f"full gas, steer {s}": _steady(1.0, s) for s in sorted({*steers, *(-s for s in steers)})}
    policies |= {f"gas in {part} of 4 steps": _tapped(part) for part in (1, 2, 3)}
    for seed in range(3):
        policies[f"uniform random {seed}"] = _random(seed, (-1, -1, -1), (1, 1, 1), 1)
        policies[f"gas-biased random {seed}"] = _random(seed, (-0.2, -1, -1), (1, 0.3, 1), 6)
    return policies


@pytest.mark.parametrize("name", shipped_names())
def test_blind_policies_need_more_than_three_scripted_laps(name: str) -> None:
    track = load_track(name)
    limit = 3.0 * scripted_lap_time_s(track)
    finished = {}
    for policy, act in _blind_policies().items():
        lap = drive(track, act, seed=7, limit_s=limit)
        if not math.isnan(lap.finish_time_s) and lap.finish_time_s <= limit:
            finished[policy] = lap.finish_time_s
    assert finished == {}


@pytest.mark.parametrize("name", shipped_names())
def test_stored_lap_is_what_the_scripted_driver_drives(name: str) -> None:
    track = load_track(name)
    assert track.scripted is not None
    laps = drive_scripted(track, scripted_driver.LAP_SEEDS)
    assert np.mean([lap.finish_time_s for lap in laps]) == pytest.approx(track.scripted.lap_time_s, abs=0.02)
    assert scripted_lap_time_s(track) == track.scripted.lap_time_s


def test_racing_line_stays_on_the_road_and_is_straighter_than_its_middle() -> None:
    track = load_track("medium")
    line = racing_line(track)
    points = track.centre_line[:, [0, 2]]
    offset = np.array([np.linalg.norm(points - point, axis=1).min() for point in line])
    assert offset.max() <= track.inner_half_width_m - 1.5
    length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
    assert length < 0.97 * track.length_m


def test_speed_profile_keeps_to_the_turning_circle_and_the_brake() -> None:
    track = load_track("medium")
    line = racing_line(track)
    speed = speed_profile(line, VehicleConstants(), steer_fraction=0.9, brake_fraction=0.8)
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    slowing = (speed[:-1] ** 2 - speed[1:] ** 2) / (2 * steps)
    assert np.all(slowing <= 0.8 * np.maximum(17.4, 0.752 * speed[1:]) + 1e-6)
    # The tightest place, with the curvature of the circle through three points: v k = 0.9 x the yaw rate at full steer.
    a, b, c = line[:-20], line[10:-10], line[20:]
    sides = [np.linalg.norm(p - q, axis=1) for p, q in ((a, b), (b, c), (a, c))]
    area = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    curvature = 4 * area / np.prod(sides, axis=0)
    tightest = int(np.argmax(curvature))
    kmh = 3.6 * speed[10 + tightest]
    full = np.interp(kmh, [85, 100, 130, 160], [1.777, 1.761, 1.547, 1.370])
    assert 85 < kmh < 160
    assert kmh / 3.6 * curvature[tightest] == pytest.approx(0.9 * full, rel=0.15)


def test_speed_profile_is_flat_out_in_part_and_slows_down_in_part() -> None:
    for name in ("medium", "long"):
        speed = speed_profile(racing_line(load_track(name)), VehicleConstants())
        gains = np.mean(np.diff(speed) > 0.0)
        assert 0.4 < gains < 0.9
        assert speed.max() > 260 / 3.6


def test_track_from_a_file_gets_a_lap_by_tuning_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        scripted_driver, "GRID", {"lookahead_s": (0.4,), "steer_fraction": (0.9,), "brake_fraction": (0.8,)}
    )
    angles = np.linspace(0, 2.5, 400)
    np.save(tmp_path / "arc.npy", np.stack([70 - 70 * np.cos(angles), 70 * np.sin(angles)], axis=1))
    track = load_track(str(tmp_path / "arc.npy"))
    lap = scripted_lap_time_s(track)
    assert 3.0 < lap < 8.0
    monkeypatch.setattr(scripted_driver, "tune", lambda *_: pytest.fail("tuned twice"))
    assert scripted_lap_time_s(track) == lap


def test_another_car_on_a_shipped_track_gets_its_own_lap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        scripted_driver, "GRID", {"lookahead_s": (0.4,), "steer_fraction": (1.0,), "brake_fraction": (1.0,)}
    )
    track = load_track("short")
    assert track.scripted is not None
    slower = VehicleConstants(acceleration=(8.0, 6.0, 4.0, 3.0))
    assert 1.2 * track.scripted.lap_time_s < scripted_lap_time_s(track, slower) < 2.0 * track.scripted.lap_time_s


def test_track_that_the_driver_cannot_finish_has_no_lap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("cannot")

    z = np.arange(0.0, 130.0)
    np.save(tmp_path / "line.npy", np.stack([0 * z, z], axis=1))
    monkeypatch.setattr(scripted_driver, "tune", fail)
    assert math.isnan(scripted_lap_time_s(load_track(str(tmp_path / "line.npy"), 15.0)))
