"""An evaluation is compared with the laps that are known of the track: the reference lap, a human's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from algos.run.log import RunLog, summary
from tasks.experience.evaluation_report import EpisodeResult, EvaluationReport
from tasks.sim.reference_lap import load_reference_lap
from tests.tasks.recordings.ghost_files import drive_along, ghost_file, right_turn


class Scalars:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.values[name] = value

    def add_image(self, *args: object, **kwargs: object) -> None: ...

    def close(self) -> None: ...


def _logged(tmp_path: Path, track: str, *own_tracks: str) -> dict[str, float]:
    episode = EpisodeResult(1, True, 20.0, 30.0, 1.0, 400, 0.0)
    report = EvaluationReport(tuple(replace(episode, track=name) for name in own_tracks) or (episode,))
    writer = Scalars()
    task = {"name": "TM20Lidar", "track": track, "game": "sim"}
    log = RunLog(writer, tmp_path, "run", 100, task, {}, is_headless=True)
    try:
        log.evaluation(report, 50)
    finally:
        log.close()
    return writer.values


def test_the_log_has_the_humans_lap_and_the_ratio_to_it(tmp_path: Path) -> None:
    drive = drive_along(right_turn(), 25.0)
    path = tmp_path / "run.Ghost.Gbx"
    path.write_bytes(ghost_file(drive))
    human_s = drive.race_time_ms / 1000
    logged = _logged(tmp_path, str(path))
    assert logged["evaluation/human_lap_time_s"] == pytest.approx(human_s)
    assert logged["evaluation/human_lap_ratio"] == pytest.approx(20.0 / human_s)


def test_the_log_has_the_reference_lap_of_a_shipped_track_and_the_ratio_to_it(tmp_path: Path) -> None:
    lap = load_reference_lap("short")
    assert lap is not None
    logged = _logged(tmp_path, "short")
    assert logged["evaluation/reference_lap_time_s"] == lap.lap_time_s
    assert logged["evaluation/lap_ratio"] == pytest.approx(20.0 / lap.lap_time_s)
    assert "evaluation/human_lap_time_s" not in logged


def test_where_each_episode_has_its_own_track_the_log_has_the_mean_of_the_ratios(tmp_path: Path) -> None:
    laps_s = [lap.lap_time_s for name in ("random:10", "random:11") if (lap := load_reference_lap(name)) is not None]
    without = f"random:{10**17}", "random:x", "x" * 5000, "line.csv"  # a worker may send anything
    logged = _logged(tmp_path, "random", "random:10", "random:11", *without)
    assert logged["evaluation/reference_lap_time_s"] == pytest.approx(np.mean(laps_s))
    assert logged["evaluation/lap_ratio"] == pytest.approx(np.mean([20.0 / lap_s for lap_s in laps_s]))
    assert len(laps_s) == 2


def test_a_track_of_which_no_lap_is_known_has_no_comparison(tmp_path: Path) -> None:
    z = np.arange(0.0, 131.0)
    np.save(tmp_path / "line.npy", np.stack([0 * z, z], axis=1))
    assert not [name for name in _logged(tmp_path, str(tmp_path / "line.npy")) if "ratio" in name]


def test_the_line_of_an_evaluation_has_the_ratios() -> None:
    report = EvaluationReport((EpisodeResult(1, True, 21.0, 30.0, 1.0, 400, 0.0),))
    assert summary(report, lambda _: {"human": 20.0}) == "1/1 finished, lap 21.00 s, 1.050 of the human lap 20.00 s"
    both = summary(report, lambda _: {"reference": 20.5, "human": 20.0})
    assert both == "1/1 finished, lap 21.00 s, 1.024 of the reference lap 20.50 s, 1.050 of the human lap 20.00 s"
    assert summary(report, lambda _: {}) == "1/1 finished, lap 21.00 s"
