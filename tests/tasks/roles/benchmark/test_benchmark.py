"""The step benchmark: exact figures in virtual time, loose ones on the wall clock, and its files."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tasks import make
from tasks.acting.punctuality import punctual
from tasks.config import ClockKind, TaskConfig
from tasks.envs.realtime import RealTimeEnv, VirtualTimeEnv, make_wall_env
from tasks.game.clock import VirtualClock, WallClock
from tasks.game.errors import GameSetupError
from tasks.game.protocols import Telemetry
from tasks.registry import default_config
from tasks.roles.benchmark import benchmark
from tasks.roles.benchmark.benchmark import ROWS, Durations, StepBenchmark
from tasks.roles.config import BenchmarkConfig
from tasks.trackmania.full import FullInterface
from tests.tasks.fake_game import FakeGame, straight_path, task_config


class Policy:
    """A policy that drives straight on and takes a fixed time."""

    def __init__(self, takes_s: float = 0.0, interrupted_at: int = -1) -> None:
        self.takes_s = takes_s
        self.interrupted_at = interrupted_at
        self.num_actions = 0
        self.num_episodes = 0

    def begin_episode(self) -> None:
        self.num_episodes += 1

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        assert not deterministic, "a worker samples"
        assert "speed" in obs
        self.num_actions += 1
        if self.num_actions == self.interrupted_at:
            raise KeyboardInterrupt
        time.sleep(self.takes_s)
        return np.array([1.0, -1.0, 0.0], np.float32)


class OldGame(FakeGame):
    """A game whose telemetry is always 7 ms old."""

    def telemetry(self) -> tuple[Telemetry, float]:
        return super().telemetry()[0], 0.007


def use(monkeypatch: pytest.MonkeyPatch, config: TaskConfig, game_type: type[FakeGame] = OldGame) -> list[FakeGame]:
    """Makes the benchmark measure a fake game on the clock of the configuration; returns the list of made games."""
    games: list[FakeGame] = []

    def dict_env(_: TaskConfig) -> RealTimeEnv:
        clock = WallClock() if config.clock is ClockKind.wall else VirtualClock()
        games.append(game_type(clock, config))
        interface = FullInterface(games[0], straight_path(), config, clock)
        if isinstance(clock, WallClock):
            env: RealTimeEnv = make_wall_env(interface, config.rtgym)
        else:
            env = VirtualTimeEnv(interface, config.rtgym, clock)
        return env.observe_as("dict")

    monkeypatch.setattr(benchmark, "_dict_env", dict_env)
    return games


def config_of(clock: str, **rtgym: Any) -> TaskConfig:
    config = task_config(**rtgym)
    config.clock = ClockKind[clock]
    return config


def test_durations_equal_those_computed_by_hand() -> None:
    row = Durations.of([0.1, math.nan, 0.3, 0.2])
    assert row is not None
    assert (row.mean, row.p50, row.max, row.num) == (pytest.approx(0.2), pytest.approx(0.2), 0.3, 3)
    assert row.p99 == pytest.approx(0.2 + 0.98 * 0.1)
    assert Durations.of([math.nan]) is None


def test_steps_run_across_episodes_and_the_first_ones_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    config, policy = config_of("virtual", ep_max_length=8), Policy()
    use(monkeypatch, config)
    measured = StepBenchmark(config, policy)
    measured.drive(20)
    measured.close()
    assert (measured.num_steps, measured.num_episodes) == (20, 3)
    assert (policy.num_actions, policy.num_episodes) == (5 + 20, 4)
    assert {name: len(values) for name, values in measured.values.items()} == {
        "step": 7 + 7 + 4,  # between the 8, 8 and 5 actions that were sent
        "inference": 20,
        "send": 8 + 8 + 5,
        "capture": 8 + 8 + 5,  # of the unfinished episode also the one in flight
        "observation_age": 20,
    }
    assert measured.late_steps is None


def test_the_age_of_an_observation_runs_until_the_policy_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("virtual", ep_max_length=8)
    use(monkeypatch, config)
    measured = StepBenchmark(config, Policy())
    measured.drive(16)
    ages = np.array(measured.values["observation_age"])
    # 7 ms old when captured at 40 ms, handed out at 50 ms; the last of an episode is never acted on.
    np.testing.assert_allclose(ages[~np.isnan(ages)], 0.017)
    assert np.flatnonzero(np.isnan(ages)).tolist() == [7, 15]


def test_the_wall_clock_is_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("wall", time_step_duration=0.05, start_obs_capture=0.04, ep_max_length=10)
    use(monkeypatch, config)
    measured = StepBenchmark(config, Policy(takes_s=0.01))
    precedence = measured.drive(24)
    measured.close()
    rows = {name: Durations.of(values) for name, values in measured.values.items()}
    step, inference, age = rows["step"], rows["inference"], rows["observation_age"]
    assert step is not None
    assert inference is not None
    assert age is not None
    assert 0.04 < step.p50 < 0.1
    assert 0.01 <= inference.p50 < 0.05
    assert 0.015 < age.p50 < 0.1
    assert measured.late_steps is not None
    with punctual() as possible:
        assert precedence == possible


def test_it_prints_and_writes_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of("virtual", ep_max_length=8)
    games = use(monkeypatch, config)
    folder = tmp_path / "benchmark_now"
    results = benchmark.run(config, BenchmarkConfig(steps=30), Policy(takes_s=0.002), folder)
    assert games[0].closed == 1
    assert json.loads((folder / "benchmark.json").read_text(encoding="utf-8")) == results
    assert (results["steps"], results["episodes"], results["clock"]) == (30, 4, "virtual")
    assert results["rows"]["inference"]["mean"] > 0.002
    assert tuple(results["rows"]) == tuple(ROWS)
    said = capsys.readouterr().out
    assert "TM20Full on medium, simulator, virtual time: 30 steps of 50 ms in 4 episodes" in said
    inference = next(line for line in said.splitlines() if line.startswith("inference"))
    assert float(inference.split()[1]) == pytest.approx(1e3 * results["rows"]["inference"]["mean"], abs=1e-3)
    assert "late steps" not in said
    assert str(folder) in said
    picture = cv2.imread(str(folder / "benchmark.png"))
    assert picture is not None
    assert picture.shape[1] == 1000
    assert picture.std() > 10


def test_a_task_without_telemetry_has_no_age(tmp_path: Path) -> None:
    results = _results_of(tmp_path, {"observation_age": [math.nan] * 20})
    assert results["rows"]["observation_age"] is None
    assert "how old" not in benchmark.table(results)


def _results_of(tmp_path: Path, values: dict[str, list[float]]) -> dict[str, Any]:
    """Results of made-up measurements, drawn as well."""

    class Measured:
        num_steps, num_episodes, late_steps, timeouts = 20, 1, 3.0, 1.0

    measured: Any = Measured()
    measured.values = {name: [0.05] * 20 for name in ROWS} | values
    benchmark.draw(measured.values, 0.05, "title", tmp_path / "picture.png")
    return benchmark._results(task_config(), measured, "none")


def test_late_steps_are_in_the_table(tmp_path: Path) -> None:
    assert benchmark.table(_results_of(tmp_path, {})).endswith("late steps 3 (1 timed out)")


def test_an_interrupt_keeps_the_measured_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of("virtual")
    games = use(monkeypatch, config)
    results = benchmark.run(config, BenchmarkConfig(steps=1000), Policy(interrupted_at=5 + 31), tmp_path)
    assert results["steps"] == 30
    assert "interrupted" in caplog.text
    assert games[0].closed == 1


def test_an_interrupt_before_anything_is_measured_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("virtual")
    games = use(monkeypatch, config)
    with pytest.raises(KeyboardInterrupt):
        benchmark.run(config, BenchmarkConfig(steps=1000), Policy(interrupted_at=3), tmp_path / "none")
    assert games[0].closed == 1
    assert not (tmp_path / "none").exists()


def test_a_machine_that_cannot_drive_the_game_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoPad(FakeGame):
        def restart(self, seed: int | None, from_start: bool = False) -> None:
            raise GameSetupError("no gamepad: install the driver")

    config = config_of("virtual")
    games = use(monkeypatch, config, NoPad)
    with pytest.raises(ValueError, match="install the driver"):
        benchmark.run(config, BenchmarkConfig(), Policy(), tmp_path / "none")
    assert games[0].closed == 1


def test_the_simulator_is_built_from_the_configuration(tmp_path: Path) -> None:
    config = default_config("TM20Lidar")
    config.track, config.game, config.clock = "short", type(config.game).sim, ClockKind.virtual
    results = benchmark.run(config, BenchmarkConfig(steps=10), Policy(), tmp_path)
    assert results["rows"]["capture"]["num"] >= 10
    # Telemetry comes with the frames, 60 a second; an observation is handed out 7 to 10 ms after its capture.
    assert 0.007 <= results["rows"]["observation_age"]["p50"] <= 0.010 + 1 / 60 + 0.001


def test_the_timing_wrapper_changes_nothing() -> None:
    config = default_config("TM20Lidar")
    config.track, config.game, config.clock = "short", type(config.game).sim, ClockKind.virtual
    measured = StepBenchmark(config, Policy())
    plain = make("TM20Lidar", observation="dict", config=config)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype(np.float32)
    for env in (measured._env, plain):
        env.reset(seed=3)
    for action in actions:
        timed, expected = measured._env.step(action), plain.step(action)
        assert timed[1:4] == expected[1:4]
        for name, value in expected[0].items():
            np.testing.assert_array_equal(timed[0][name], value)
    measured.close()
    plain.close()
