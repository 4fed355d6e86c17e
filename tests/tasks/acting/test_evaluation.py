"""Evaluations: their figures, the choice of the best, and their two formats."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import gymnasium
import numpy as np
import pytest

from tasks.acting.evaluation import ClipRecorder, evaluate, league_score, play_results, write_results
from tasks.envs.interface import Interrupted
from tasks.experience.evaluation_report import EpisodeResult, EvaluationReport


class CountdownEnv(gymnasium.Env):
    """Drives 2 m along x at 40 m/s per step; an even seed finishes after four steps, an odd one fails after two."""

    def __init__(self) -> None:
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
        self.observation_space = gymnasium.spaces.Dict({"speed": gymnasium.spaces.Box(0.0, 100.0, (1,))})
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))
        self.seeds: list[int | None] = []
        self.closed = 0
        self.has_ended = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.step_index = 0
        self.has_ended = False
        return {"speed": np.zeros(1, np.float32)}, {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert not self.has_ended
        assert self.action_space.contains(action)
        self.step_index += 1
        finishes = self.seeds[-1] is not None and self.seeds[-1] % 2 == 0
        terminated = self.step_index == (4 if finishes else 2)
        info: dict[str, Any] = {"x": 2.0 * self.step_index, "z": 5.0, "speed_mps": 40.0}
        info["race_time_s"] = 0.05 * self.step_index
        if terminated:
            self.has_ended = True
            info["episode_statistics"] = {
                "return": 12.5 if finishes else 1.0,
                "length": float(self.step_index),
                "finished": float(finishes),
                "lap_time_s": 8.0 + self.seeds[-1] if finishes and self.seeds[-1] is not None else math.nan,
                "progress": 1.0 if finishes else 0.25,
                "distance_m": 2.0 * self.step_index,
                "max_speed_mps": 41.0,
                "mean_speed_mps": 40.0,
                "wall_contacts": 3.0,
                "wall_impact_mps": 0.0,
            }
        return {"speed": np.full(1, 40.0, np.float32)}, 0.5, terminated, False, info

    def render(self) -> np.ndarray:
        return np.full((48, 96, 3), self.step_index, np.uint8)

    def close(self) -> None:
        self.closed += 1


class FullGasPolicy:
    """A policy that checks how it is called."""

    version = 7

    def __init__(self) -> None:
        self.episodes = 0

    def begin_episode(self) -> None:
        self.episodes += 1

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        assert deterministic, "an evaluation must not explore"
        assert set(obs) == {"speed"}
        return np.array([1.0, -1.0, 0.0], np.float32)


def episode(lap_time_s: float | None, progress: float = 1.0, seed: int = 0) -> EpisodeResult:
    return EpisodeResult(seed, lap_time_s is not None, lap_time_s, 10.0, progress, 100)


def report_of(*laps: float | None, progress: float = 1.0) -> EvaluationReport:
    return EvaluationReport(tuple(episode(lap, progress) for lap in laps))


def test_every_seed_drives_one_episode_and_its_statistics_come_back() -> None:
    env, policy = CountdownEnv(), FullGasPolicy()
    report = evaluate(env, policy, [2, 3, 4])
    assert env.seeds == [2, 3, 4]
    assert policy.episodes == 3
    assert [e.finished for e in report.episodes] == [True, False, True]
    assert [e.lap_time_s for e in report.episodes] == [10.0, None, 12.0]
    assert [e.steps for e in report.episodes] == [4, 2, 4]
    assert report.weights_version == 7
    assert report.finish_rate == pytest.approx(2 / 3)
    assert report.mean_lap_time_s == pytest.approx(11.0)
    assert report.std_lap_time_s == pytest.approx(1.0)
    assert env.closed == 0


def test_every_step_has_its_race_time_and_its_action() -> None:
    (episode,) = evaluate(CountdownEnv(), FullGasPolicy(), [2]).episodes
    assert episode.race_times_s == pytest.approx([0.05, 0.10, 0.15, 0.20])
    assert episode.actions.tolist() == [[1.0, -1.0, 0.0]] * 4
    assert len(episode.trajectory) == 4


class LosingEnv(CountdownEnv):
    """An environment that loses its game after one step, ``losses`` times."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, _, info = super().step(action)
        if self.losses:
            self.losses -= 1
            return observation, 0.0, False, True, {**info, "truncated": True, "game_lost": "window closed"}
        return observation, reward, terminated, False, info


def test_an_episode_whose_game_was_lost_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    env = LosingEnv(losses=2)
    report = evaluate(env, FullGasPolicy(), [2, 4], clip=ClipRecorder(every=1))
    assert env.seeds == [2, 2, 2, 4]
    assert [(e.finished, e.steps) for e in report.episodes] == [(True, 4), (True, 4)]
    assert report.clip is not None
    assert report.clip[:, 0, 0, 0].tolist() == [0, 1, 2, 3]  # none of the lost attempts
    assert [record.getMessage() for record in caplog.records] == [
        "the episode of seed 2 is repeated: window closed"
    ] * 2


def test_a_game_that_is_lost_again_and_again_counts_in_the_end() -> None:
    env = LosingEnv(losses=4)
    report = evaluate(env, FullGasPolicy(), [2, 4])
    assert env.seeds == [2, 2, 2, 4, 4]
    assert [(e.finished, e.steps) for e in report.episodes] == [(None, 1), (True, 4)]


def test_a_stop_request_ends_the_wait_for_a_game() -> None:
    class WaitingEnv(CountdownEnv):
        """An environment that waits for its game at the second reset until it is stopped."""

        def watch(self, stop: Any) -> None:
            self.is_stopped = stop

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            if self.seeds:
                stopped.append(True)
                assert self.is_stopped()
                raise Interrupted("stopped while waiting for the game")
            return super().reset(seed=seed, options=options)

    stopped: list[bool] = []
    report = evaluate(WaitingEnv(), FullGasPolicy(), [2, 4, 6], stop=lambda: bool(stopped))
    assert [e.seed for e in report.episodes] == [2]


def test_trajectory_holds_position_speed_and_reward_of_each_step() -> None:
    report = evaluate(CountdownEnv(), FullGasPolicy(), [1])
    expected = np.array([[2.0, 5.0, 40.0, 0.5], [4.0, 5.0, 40.0, 0.5]], np.float32)
    np.testing.assert_array_equal(report.episodes[0].trajectory, expected)


def test_an_environment_without_task_statistics_is_still_evaluated() -> None:
    class PlainEnv(CountdownEnv):
        def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            observation, reward, terminated, truncated, _ = super().step(action)
            return observation, reward, terminated, truncated, {}

    result = evaluate(PlainEnv(), FullGasPolicy(), [2]).episodes[0]
    assert (result.finished, result.lap_time_s, result.steps) == (None, None, 4)
    assert result.episode_return == pytest.approx(2.0)
    assert np.isnan(result.trajectory[:, :3]).all()


def test_an_environment_made_for_the_evaluation_is_closed_even_when_the_policy_fails() -> None:
    env = CountdownEnv()

    class BrokenPolicy(FullGasPolicy):
        def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        evaluate(lambda: env, BrokenPolicy(), [0])
    assert env.closed == 1


def test_stop_abandons_the_running_episode_and_keeps_the_finished_ones() -> None:
    env = CountdownEnv()
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 5

    seen: list[EpisodeResult] = []
    report = evaluate(env, FullGasPolicy(), [2, 4, 6], stop=stop, on_episode=seen.append)
    assert [e.seed for e in report.episodes] == [2]
    assert [e.seed for e in seen] == [2]


def test_the_clip_shows_only_the_first_episode_in_small_frames() -> None:
    report = evaluate(CountdownEnv(), FullGasPolicy(), [2, 4], clip=ClipRecorder(every=2, max_width=48))
    assert report.clip is not None
    assert report.clip.shape == (2, 24, 48, 3)
    assert report.clip[:, 0, 0, 0].tolist() == [0, 2]
    assert report.clip_fps == 10.0


def test_the_clip_has_a_limited_length() -> None:
    report = evaluate(CountdownEnv(), FullGasPolicy(), [2], clip=ClipRecorder(every=1, max_frames=3))
    assert report.clip is not None
    assert len(report.clip) == 3


def test_best_is_finish_rate_then_lap_time_then_progress() -> None:
    assert report_of(30.0, 30.0).score() > report_of(10.0, None).score()
    assert report_of(29.0, 30.0).score() > report_of(30.0, 30.0).score()
    assert report_of(None, progress=0.6).score() > report_of(None, progress=0.5).score()
    assert report_of(50.0, None).score() > report_of(None, None, progress=0.99).score()
    assert EvaluationReport(()).score() < report_of(None, progress=0.01).score()


def test_statistics_leave_out_the_lap_when_nobody_finished() -> None:
    assert "lap_time_s" not in report_of(None).statistics()
    statistics = report_of(10.0, 14.0).statistics()
    assert statistics["lap_time_s"] == pytest.approx(12.0)
    assert statistics["best_lap_time_s"] == pytest.approx(10.0)
    assert not any(math.isnan(value) for value in statistics.values())


def test_report_survives_the_link() -> None:
    sent = evaluate(CountdownEnv(), FullGasPolicy(), [2, 3], clip=ClipRecorder())
    data = json.loads(json.dumps(sent.to_json(), allow_nan=False))
    received = EvaluationReport.from_parts(data, sent.arrays())
    assert received.score() == sent.score()
    assert received.to_json() == sent.to_json()
    np.testing.assert_array_equal(received.episodes[1].trajectory, sent.episodes[1].trajectory)
    assert received.clip is not None
    np.testing.assert_array_equal(received.clip, sent.clip)


def test_a_report_with_a_missing_or_misshapen_part_is_refused() -> None:
    sent = evaluate(CountdownEnv(), FullGasPolicy(), [2])
    with pytest.raises(ValueError, match="trajectory_0"):
        EvaluationReport.from_parts(sent.to_json(), {})
    with pytest.raises(ValueError, match="clip"):
        EvaluationReport.from_parts(sent.to_json(), {**sent.arrays(), "clip": np.zeros((2, 3), np.uint8)})


def test_league_adds_ten_seconds_per_crash_to_the_next_completed_run() -> None:
    laps = [40.0, None, 40.0, 40.0, 40.0, 40.0, 40.0, 40.0, 40.0, 40.0]
    score = league_score(report_of(*laps))
    assert (score.eliminated, score.crashes) == (False, 1)
    assert score.times_s == (40.0, 50.0, *[40.0] * 7)
    assert score.mean_s == pytest.approx((9 * 40 + 10) / 9)


def test_league_counts_a_crash_in_the_last_run_too() -> None:
    score = league_score(report_of(*[40.0] * 8, None, None))
    assert score.mean_s == pytest.approx((8 * 40 + 20) / 8)


def test_league_eliminates_at_the_third_crash() -> None:
    score = league_score(report_of(None, 40.0, None, 40.0, None, *[40.0] * 5))
    assert (score.eliminated, score.crashes, score.mean_s) == (True, 3, None)


def test_league_needs_ten_runs() -> None:
    with pytest.raises(ValueError, match=r"exactly 10 runs, got 2.*play\.episodes=10"):
        league_score(report_of(40.0, 41.0))


def test_results_json_has_the_documented_fields_and_no_nan(tmp_path: Any) -> None:
    report = evaluate(CountdownEnv(), FullGasPolicy(), [2, 3])
    results = play_results(
        report,
        place={"task": "TM20Lidar", "track": "short", "game": "sim"},
        checkpoint="best.pth",
        laps_on=lambda _: {"reference": 7.0, "scripted": 8.0},
    )
    write_results(tmp_path / "results.json", results)
    read = json.loads((tmp_path / "results.json").read_text())
    assert list(read) == [
        "task", "track", "game", "checkpoint", "episodes", "mean_return", "std_return", "finish_rate",
        "mean_lap_time_s", "std_lap_time_s", "reference_lap_time_s", "lap_ratio", "scripted_lap_time_s",
        "scripted_lap_ratio",
    ]  # fmt: skip
    assert read["episodes"][0] == {
        "seed": 2, "finished": True, "lap_time_s": 10.0, "lap_ratio": 10.0 / 7.0, "return": 12.5, "progress": 1.0,
        "steps": 4,
    }  # fmt: skip
    assert read["episodes"][1]["lap_time_s"] is read["episodes"][1]["lap_ratio"] is None
    assert read["lap_ratio"] == pytest.approx(10.0 / 7.0)
    assert read["scripted_lap_ratio"] == pytest.approx(1.25)
    assert (read["mean_return"], read["std_return"]) == (pytest.approx(6.75), pytest.approx(5.75))


def test_the_lap_is_compared_with_a_known_humans_lap() -> None:
    report = EvaluationReport((EpisodeResult(2, True, 10.0, 12.5, 1.0, 4, 0.0),))
    place = {"task": "TM20Lidar", "track": "run.Ghost.Gbx", "game": "live"}
    results = play_results(report, place=place, checkpoint="b", laps_on=lambda _: {"human": 8.0})
    assert (results["human_lap_time_s"], results["human_lap_ratio"]) == (8.0, 1.25)
    assert not {"scripted_lap_time_s", "lap_ratio"} & set(results)


def returns_of(*returns: float) -> EvaluationReport:
    return EvaluationReport(tuple(EpisodeResult(0, None, None, value, math.nan, 100, math.nan) for value in returns))


def test_a_task_without_a_finish_is_scored_by_its_return_without_laps() -> None:
    report = returns_of(-100.0, -300.0)
    assert report.score() == (-200.0, 0.0, 0.0)
    assert returns_of(-150.0).score() > report.score() > returns_of(-201.0).score()
    assert report.statistics() == {"return": -200.0, "episode_length": 100.0}
    sent = EvaluationReport.from_parts(json.loads(json.dumps(report.to_json())), report.arrays())
    assert sent.score() == report.score()
    results = play_results(report, place={"task": "Gym"}, checkpoint="best.pth", laps_on=lambda _: {})
    assert list(results) == ["task", "checkpoint", "episodes", "mean_return", "std_return"]
    assert results["episodes"][0] == {"seed": 0, "return": -100.0, "steps": 100}
    assert (results["mean_return"], results["std_return"]) == (-200.0, 100.0)


def test_a_finish_without_a_track_has_no_scripted_lap() -> None:
    results = play_results(report_of(2.0), place={"task": "RCDrone"}, checkpoint="best.pth", laps_on=lambda _: {})
    assert results["mean_lap_time_s"] == 2.0
    assert not {"scripted_lap_time_s", "lap_ratio"} & set(results)


@pytest.mark.parametrize("name", ["every", "max_frames", "max_width"])
def test_impossible_settings_of_a_clip_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        ClipRecorder(**cast("dict[str, Any]", {name: 0}))


def test_where_each_episode_has_its_own_track_its_name_reaches_the_learner_and_the_results() -> None:
    episodes = (episode(12.0, seed=1), episode(None, 0.5, seed=2), episode(20.0, seed=3), episode(8.0, seed=4))
    reference = {"random:1": 10.0, "random:2": 5.0, "random:3": 20.0}
    report = EvaluationReport(tuple(replace(entry, track=f"random:{entry.seed}") for entry in episodes))
    received = EvaluationReport.from_parts(json.loads(json.dumps(report.to_json())), report.arrays())
    assert received.tracks == ["random:1", "random:2", "random:3", "random:4"]
    place = {"task": "TM20Lidar", "track": "random", "game": "sim"}

    def laps_on(track: str | None) -> dict[str, float]:
        return {"scripted": 10.0} | ({"reference": reference[str(track)]} if track in reference else {})

    results = play_results(received, place=place, checkpoint="best.pth", laps_on=laps_on)
    assert [entry["track"] for entry in results["episodes"]] == received.tracks
    assert [entry["lap_ratio"] for entry in results["episodes"]] == [1.2, None, 1.0, None]
    # Means over the tracks that were finished and have such a lap.
    assert (results["reference_lap_time_s"], results["lap_ratio"]) == (15.0, pytest.approx(1.1))
    assert (results["scripted_lap_time_s"], results["scripted_lap_ratio"]) == (10.0, pytest.approx(4.0 / 3.0))
    on_one_track = play_results(EvaluationReport(episodes), place=place, checkpoint="best.pth", laps_on=lambda _: {})
    assert not {"track", "lap_ratio"} & set(on_one_track["episodes"][0])
