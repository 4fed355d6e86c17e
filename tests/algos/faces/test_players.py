from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from algos.config.schema import PlayConfig, Rules
from algos.faces import players
from algos.run.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from tasks.acting.evaluation import evaluate
from tasks.experience.evaluation_report import EvaluationReport
from tasks.process.write_trouble import NotSavedError
from tasks.trackmania import course
from tests.algos.runs import make_params, make_runner

pytestmark = pytest.mark.timeout(120)
FIELDS = {"task", "track", "game", "checkpoint", "episodes", "finish_rate", "mean_lap_time_s", "std_lap_time_s"}
FIELDS |= {"scripted_lap_time_s", "scripted_lap_ratio", "reference_lap_time_s", "lap_ratio"}
FIELDS |= {"mean_return", "std_return"}


@pytest.fixture(autouse=True)
def toy_course(monkeypatch):
    line = np.stack([np.linspace(-5, 5, 101), np.zeros(101), np.zeros(101)], axis=1)
    monkeypatch.setattr(course, "course", lambda task: course.Course("toy", line, 4.0))
    monkeypatch.setattr(course, "scripted_lap_time_s", lambda task: 0.5)
    monkeypatch.setattr(course, "laps_to_compare", lambda task: {"reference": 0.4})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    make_runner(make_params(runs, "trained", max_env_steps=60)).run({"train": True})
    return runs / "trained" / "nn" / "last.pth"


def play(train_dir, checkpoint, **settings):
    params = make_params(train_dir, "unused", play=PlayConfig(**({"episodes": 3} | settings)))
    make_runner(params).run({"train": False, "play": True, "checkpoint": str(checkpoint)})


def results_of(folder):
    (time,) = (folder / "play").iterdir()
    return time, json.loads((time / "results.json").read_text())


def always_full_gas(monkeypatch):
    """A policy that finishes in 8 to 10 steps, so that laps are known by hand."""
    monkeypatch.setattr(
        "algos.acting.policy.ActingPolicy.act", lambda self, obs, deterministic=False: np.ones(3, np.float32)
    )


def test_play_writes_results_video_and_plot_beside_the_run(trained, monkeypatch, capsys):
    always_full_gas(monkeypatch)
    play(trained.parents[2], trained)
    folder, results = results_of(trained.parents[1])
    assert set(results) == FIELDS
    assert results["checkpoint"] == str(trained)
    assert (results["task"], results["track"], results["game"]) == ("Toy", "short", "sim")
    assert [episode["seed"] for episode in results["episodes"]] == [1_000_000, 1_000_001, 1_000_002]
    keys = {"seed", "finished", "lap_time_s", "lap_ratio", "return", "progress", "steps"}
    assert set(results["episodes"][0]) == keys
    # 5 m less U(0, 1) at 0.5 m a step are 9 or 10 steps of 0.05 s
    laps = [episode["lap_time_s"] for episode in results["episodes"]]
    assert all(
        lap == pytest.approx(0.05 * episode["steps"]) for lap, episode in zip(laps, results["episodes"], strict=True)
    )
    assert all(episode["steps"] in (9, 10) for episode in results["episodes"])
    assert results["lap_ratio"] == pytest.approx(np.mean(laps) / 0.4)
    assert results["scripted_lap_ratio"] == pytest.approx(np.mean(laps) / 0.5)
    assert (folder / "episode.mp4").stat().st_size > 0
    assert (folder / "driven_line.png").stat().st_size > 0
    printed = capsys.readouterr().out
    assert printed.count("lap 0.") >= 3
    assert "finished             3 of 3" in printed
    assert printed.count(" of the reference lap ") == 3


def test_where_each_episode_has_its_own_track_laps_and_ratios_are_means_over_the_finished_ones(
    trained, tmp_path, monkeypatch
):
    scripted_s = {"random:10": 0.4, "random:11": 100.0, "random:12": 0.8}
    tracks = [*scripted_s, "random:20"]  # of the last no scripted lap is stored, and none is tuned

    def evaluated(*arguments, **options):
        episodes = evaluate(*arguments, **options).episodes
        on_tracks = [replace(e, track=name) for e, name in zip(episodes, tracks, strict=True)]
        on_tracks[1] = replace(on_tracks[1], finished=False, lap_time_s=None)
        return EvaluationReport(tuple(on_tracks))

    always_full_gas(monkeypatch)
    monkeypatch.setattr("algos.faces.players.evaluate", evaluated)
    monkeypatch.setattr(course, "scripted_lap_time_s", lambda task: scripted_s[task["track"]])
    references = {name: {"reference": lap_s / 2} for name, lap_s in scripted_s.items()}
    monkeypatch.setattr(course, "laps_to_compare", lambda task: references.get(task["track"], {}))
    play(tmp_path, trained, video=False, episodes=4)
    (folder,) = (tmp_path / "play").iterdir()
    results = json.loads((folder / "results.json").read_text())
    assert results["scripted_lap_time_s"] == pytest.approx(0.6)
    laps = [results["episodes"][index]["lap_time_s"] for index in (0, 2)]
    ratio = np.mean([laps[0] / 0.4, laps[1] / 0.8])
    assert results["scripted_lap_ratio"] == pytest.approx(ratio)
    assert results["lap_ratio"] == pytest.approx(2 * ratio)
    assert results["episodes"][1]["lap_ratio"] is None
    assert [episode["track"] for episode in results["episodes"]] == tracks
    assert (folder / "driven_line.png").stat().st_size > 0


def test_files_that_cannot_be_written_are_named_and_the_others_written(trained, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    checkpoint = tmp_path / "lidar.pth"
    save_checkpoint(checkpoint, load_checkpoint(trained))
    monkeypatch.setattr(players, "write_results", full)
    with pytest.raises(NotSavedError, match=r"^not saved: \S+results\.json \(No space left on device\)$"):
        play(tmp_path / "runs", checkpoint)
    (folder,) = (tmp_path / "runs" / "play").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["driven_line.png", "episode.mp4"]
    assert "mean return" in capsys.readouterr().out


def test_a_checkpoint_outside_a_run_folder_writes_below_the_train_dir(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(course, "scripted_lap_time_s", lambda task: math.nan)  # it does not finish there
    elsewhere = tmp_path / "shipped" / "lidar.pth"
    save_checkpoint(elsewhere, load_checkpoint(trained))
    play(tmp_path / "runs", elsewhere, video=False, plot=False)
    folder, results = results_of(tmp_path / "runs")
    assert results["finish_rate"] == 0.0
    assert results["mean_lap_time_s"] is None
    assert results["lap_ratio"] is None
    assert "scripted_lap_time_s" not in results
    assert [path.name for path in folder.iterdir()] == ["results.json"]
    assert not (tmp_path / "runs" / "unused").exists()


def test_league_drives_ten_runs_and_adds_penalties(trained, tmp_path, monkeypatch, capsys):
    always_full_gas(monkeypatch)
    elsewhere = tmp_path / "lidar.pth"
    save_checkpoint(elsewhere, load_checkpoint(trained))
    play(tmp_path / "runs", elsewhere, rules=Rules.league, episodes=10, video=False, plot=False)
    _, results = results_of(tmp_path / "runs")
    assert len(results["episodes"]) == 10
    assert "league" in capsys.readouterr().out


def test_same_seeds_give_the_same_laps(trained, tmp_path):
    elsewhere = tmp_path / "lidar.pth"
    save_checkpoint(elsewhere, load_checkpoint(trained))
    for name in ("a", "b"):
        play(tmp_path / name, elsewhere, video=False, plot=False)
    returns = [[e["return"] for e in results_of(tmp_path / name)[1]["episodes"]] for name in ("a", "b")]
    assert returns[0] == returns[1]
    assert not any(math.isnan(value) for value in returns[0])


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.pth does not exist"):
        play(tmp_path, tmp_path / "gone.pth")


def test_play_without_a_checkpoint_says_what_to_add(tmp_path):
    with pytest.raises(ValueError, match="add --checkpoint"):
        make_runner(make_params(tmp_path, "unused", play=PlayConfig(episodes=1))).run({"train": False, "play": True})


def test_two_plays_in_one_second_get_two_folders(tmp_path):
    checkpoint = tmp_path / "runs" / "r" / "nn" / "best.pth"
    first = players.play_directory(str(checkpoint), tmp_path / "runs")
    first.mkdir(parents=True)
    second = players.play_directory(str(checkpoint), tmp_path / "runs")
    assert first.parent == second.parent == tmp_path / "runs" / "r" / "play"
    assert first != second
