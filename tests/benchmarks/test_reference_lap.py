"""The lower bound is below what is driven, the search comes near it; on a straight road, where full gas is known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reference_lap.guide import SIDEWAYS
from benchmarks.reference_lap.road import road_of
from benchmarks.reference_lap.rollouts import Rollouts, finish_time_s
from tasks.sim.reference_lap import load_reference_lap, replay, rounded_actions
from tasks.sim.scripted_driver import scripted_lap_time_s
from tasks.sim.track import Track, load_track
from tasks.sim.vehicle import FORCE_NODES_FREE_MPS, VehicleConstants

FULL_GAS = np.array([1.0, 0.0, 0.0], np.float32)


@pytest.fixture
def straight(tmp_path: Path) -> str:
    z = np.arange(0.0, 131.0)
    np.save(tmp_path / "line.npy", np.stack([0 * z, z], axis=1))
    return str(tmp_path / "line.npy")


def _full_gas_s(track: Track) -> float:
    return replay(track, np.tile(FULL_GAS, (200, 1)))[1].finish_time_s


def test_a_batch_of_cars_drives_as_one_car_does(straight: str) -> None:
    track = load_track(straight)
    rollouts = Rollouts(track, VehicleConstants(), 2)
    actions = np.tile(FULL_GAS, (2, 120, 1))
    actions[1, :40, 2] = 0.01
    actions[1, 50:60, :2] = (0.0, 1.0)
    half = rollouts.drive(rollouts.start(), 0, actions[:, :60])[1].copy()
    laps = [replay(track, one)[1].finish_time_s for one in actions]
    assert finish_time_s(rollouts.drive(half, 60, actions[:, 60:]))[1] == laps[1] > laps[0]


def test_places_are_found_on_the_road_again() -> None:
    road = road_of(load_track("short"))
    at = np.array([60.0, 70.0, 85.0])
    sin, cos = np.sin(road.heading_at(at)), np.cos(road.heading_at(at))
    index = np.round(at / 0.1).astype(int)
    x, z = road.points[index, 0] + 4.0 * cos, road.points[index, 1] - 4.0 * sin
    station, offset = road.project(x, z, 72.0)
    np.testing.assert_allclose(station, at, atol=0.02)
    np.testing.assert_allclose(offset, 4.0, atol=0.02)


def test_the_bound_is_below_full_gas_and_near_it_and_the_search_between_them(straight: str) -> None:
    from benchmarks.reference_lap.minimum_time import minimum_time
    from benchmarks.reference_lap.search import Search, SearchSettings

    track, car = load_track(straight), VehicleConstants()
    full_gas_s, bound = _full_gas_s(track), minimum_time(track, car)
    assert bound.lap_time_s is not None
    assert 0.97 * full_gas_s < bound.lap_time_s < full_gas_s
    search = Search(road_of(track), bound.guide, Rollouts(track, car, 48))
    actions, lap_s = search.sweep(np.zeros((0, 3), np.float32), SearchSettings(rounds=6, elites=8))
    assert bound.lap_time_s < lap_s < full_gas_s + 0.05
    assert replay(track, rounded_actions(actions))[1].finish_time_s == lap_s


@pytest.mark.slow
def test_the_bound_of_a_hairpin_slides_and_is_below_the_scripted_drivers_lap(tmp_path: Path) -> None:
    from benchmarks.reference_lap.minimum_time import minimum_time

    heading = np.concatenate([np.zeros(300), np.linspace(0.0, np.pi, 80), np.full(60, np.pi)])
    np.save(tmp_path / "hairpin.npy", np.cumsum(np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0))
    track, car = load_track(str(tmp_path / "hairpin.npy")), VehicleConstants()
    bound, scripted_s = minimum_time(track, car, mesh_m=6.0), scripted_lap_time_s(track, car)
    assert bound.lap_time_s is not None
    assert 0.8 * scripted_s < bound.lap_time_s < scripted_s
    assert np.abs(bound.guide.state[:, SIDEWAYS]).max() > 2 * car.slide_from_sideways


def test_rounded_tables_are_smooth_and_nowhere_below_the_simulators() -> None:
    from benchmarks.reference_lap.minimum_time import _rounded

    at = np.linspace(0.5, 40.0, 3951)
    nodes, values = FORCE_NODES_FREE_MPS, VehicleConstants().slide_force_free
    found = np.array([float(_rounded(nodes, values, float(sideways))) for sideways in at])
    over = found - np.interp(at, nodes, values)
    assert 0.0 <= over.min() < over.max() < 0.015 * values[0]
    assert np.abs(np.diff(found, 2)).max() < 2e-3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task.track=medium_mirrored"], "task.track=medium"),
        (["task.name=TM20Full"], "the keys are task.track"),
        (["task.track=nowhere"], "task.track must be one of"),
        (["task.track=random"], "such as task.track=random:10"),
        (["task.track=random:ten"], "random:SEED with a whole number"),
    ],
)
def test_a_command_that_cannot_be_followed_is_refused(words: list[str], said: str, monkeypatch, capsys) -> None:
    from benchmarks.reference_lap import __main__ as command

    monkeypatch.setattr(sys, "argv", ["reference_lap", *words])
    assert command.main() == 2
    assert said in capsys.readouterr().err


def test_without_casadi_the_command_says_what_to_install(straight: str, monkeypatch, capsys) -> None:
    from benchmarks.reference_lap import __main__ as command

    monkeypatch.setitem(sys.modules, "casadi", None)
    monkeypatch.setattr(sys, "argv", ["reference_lap", f"task.track={straight}"])
    assert command.main() == 2
    assert "tm20-rl[oracle]" in capsys.readouterr().err
    assert load_reference_lap(straight) is None
