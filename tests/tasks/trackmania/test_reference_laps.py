"""A driven lap is compared with the stored one, a person's, and where there is neither with the scripted driver's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.experience.evaluation_report import EpisodeResult
from tasks.laps.lap import Lap
from tasks.sim.random_tracks import random_track
from tasks.trackmania.course import course, on_track, scripted_lap_time_s
from tasks.trackmania.reference_laps import compared_laps, driven_reference_lap, reference_laps
from tests.tasks.recordings.ghost_files import drive_along, ghost_file, right_turn

SHORT = {"track": "short", "game": "sim"}


def driven(lap: Lap, seed: int = 7) -> EpisodeResult:
    """An episode that drove a lap."""
    trace = lap.trace
    rows = np.stack([trace.x, trace.z, trace.speed_mps, 0 * trace.x], axis=1).astype(np.float32)
    actions = np.stack([trace.gas, trace.brake, trace.steer], axis=1).astype(np.float32)
    return EpisodeResult(
        seed, True, lap.lap_time_s, 1.0, 1.0, len(rows), trajectory=rows, race_times_s=trace.time_s, actions=actions
    )


def test_a_stored_lap_comes_first_and_drives_to_its_time() -> None:
    (lap,) = reference_laps(SHORT, course(SHORT))
    assert (lap.name, lap.lap_time_s) == ("reference lap", course(SHORT).laps["reference"])
    assert lap.trace.time_s[-1] == pytest.approx(course(SHORT).laps["reference"], abs=0.011)


def test_film_and_comparison_share_one_replay_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = reference_laps(SHORT, course(SHORT))
    monkeypatch.delattr("tasks.trackmania.reference_laps.replay")
    again = driven_reference_lap(SHORT)
    assert again is not None
    assert again.trace is first.trace


def test_a_report_cannot_name_a_file_as_the_track_of_an_episode(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a file"):
        on_track({"track": "random", "game": "sim"}, str(tmp_path / "line.npy"))


@pytest.mark.parametrize(("number", "name"), [(10, "reference lap"), (10**17, "scripted lap")])
def test_an_episode_on_its_own_track_is_compared_on_that_track(number: int, name: str) -> None:
    task = {"track": "random", "game": "sim"}
    assert on_track(task, None) is task
    episodes_task = on_track(task, f"random:{number}")
    road = course(episodes_task)
    (lap,) = reference_laps(episodes_task, road)
    compared = compared_laps(episodes_task, road, driven(lap))
    assert compared is not None
    assert compared.length_m == pytest.approx(random_track(number).length_m)
    np.testing.assert_allclose(compared.road[[0, -1]], random_track(number).centre_line[[0, -1]][:, [0, 2]])
    assert compared.others[0].name == name
    known_s = road.laps.get("reference", scripted_lap_time_s(episodes_task))
    assert compared.others[0].lap_time_s == pytest.approx(known_s, rel=0.05)


def test_the_scripted_driver_is_the_reference_of_a_track_that_nobody_drove(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.trackmania.reference_laps.reference_lap", lambda task: None)
    (lap,) = reference_laps(SHORT, course(SHORT))
    assert lap.name == "scripted lap"
    # Every 50 ms from the first look to the finish, at the end of the road.
    assert lap.lap_time_s is not None
    assert len(lap.trace.time_s) == pytest.approx(lap.lap_time_s / 0.05, abs=2)
    length_m = np.linalg.norm(np.diff(course(SHORT).centre_line, axis=0), axis=1).sum()
    assert lap.trace.station_m[-1] == pytest.approx(length_m, abs=5.0)
    # Away from the start the way along the road is about what the speed says.
    moved = np.diff(lap.trace.station_m)[20:-5]
    assert moved == pytest.approx(0.05 * lap.trace.speed_mps[20:-6], rel=0.35)


def test_an_equal_drive_loses_nothing_and_pedals_are_on_or_off() -> None:
    (lap,) = reference_laps(SHORT, course(SHORT))
    laps = compared_laps(SHORT, course(SHORT), driven(lap))
    assert laps is not None
    assert laps.driven.name == "policy, seed 7"
    assert laps.driven.trace.station_m == pytest.approx(lap.trace.station_m, abs=1e-3)
    assert set(laps.driven.trace.gas) <= {0.0, 1.0}
    assert [other.name for other in laps.others] == ["reference lap"]


def test_a_drive_without_places_or_times_is_not_compared() -> None:
    nowhere = EpisodeResult(1, None, None, 0.0, 0.0, 2, trajectory=np.full((2, 4), np.nan, np.float32))
    assert compared_laps(SHORT, course(SHORT), nowhere) is None


def test_the_lap_of_a_ghost_is_that_of_the_human_on_our_side_of_the_mirror(tmp_path: Path) -> None:
    path = tmp_path / "run.Ghost.Gbx"
    path.write_bytes(ghost_file(drive_along(right_turn(), 25.0)))
    task = {"track": str(path), "game": "sim"}
    (lap,) = reference_laps(task, course(task))
    assert (lap.name, lap.lap_time_s) == ("human lap", course(task).laps["human"])
    # It drove the middle of its own road at 25 m/s, from the start to the end.
    assert lap.trace.station_m == pytest.approx(25.0 * lap.trace.time_s, abs=1.0)
    off = np.abs(course(task).centre_line[:, None, 0] - lap.trace.x[None]).min(axis=0)
    assert off.max() < 0.2
