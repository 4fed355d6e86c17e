from __future__ import annotations

import math
import threading
from typing import Any

import pytest
import torch

from algos.learning.learner import Learner, LearnerSchedule, episode_metrics
from algos.learning.pace import Pace
from tests.algos.fakes import FakeAlgorithm, FakeListener, FakeMemory, FakeSource, FakeStorage, OnDemandSource


class Parts:
    """A learner and everything around it."""

    def __init__(self, source=None, pace=None, storage=None, **schedule):
        values: dict[str, Any] = {
            "batch_size": 4,
            "max_env_steps": 200,
            "update_model_interval": 20,
            "log_interval": 50,
            "evaluation_interval": 0,
            "evaluation_seeds": (7, 8),
            "checkpoint_interval": 0,
        }
        self.source = source or FakeSource()
        self.memory, self.algorithm, self.listener = FakeMemory(), FakeAlgorithm(), FakeListener()
        self.storage = storage
        self.stop = threading.Event()
        self.learner = Learner(
            self.memory,
            storage,
            self.algorithm,
            pace or Pace(1.0, 1.0, 100),
            LearnerSchedule(**(values | schedule)),
            self.listener,
            self.stop,
            acts_on_demand=self.source.acts_on_demand,
        )
        self.learner.link = self.source


def test_run_ends_at_max_env_steps_with_the_due_updates():
    parts = Parts()
    parts.learner.run()
    assert parts.learner.pace.env_steps == 200
    assert parts.algorithm.updates == 100  # 200 steps, 100 of them before training, ratio 1
    assert parts.listener.checkpoints[-1:] == [False]


@pytest.mark.parametrize("source_type", [FakeSource, OnDemandSource])
def test_run_ends_at_max_updates_when_that_comes_first(source_type):
    parts = Parts(source_type(), max_updates=30, evaluation_interval=1000)
    parts.learner.run()
    assert parts.algorithm.updates == 30
    assert parts.learner.pace.env_steps < 200
    assert parts.listener.checkpoints[-1:] == [False]


def test_run_ends_at_max_env_steps_when_max_updates_is_further_away():
    parts = Parts(max_updates=1000)
    parts.learner.run()
    assert (parts.learner.pace.env_steps, parts.algorithm.updates) == (200, 100)


@pytest.mark.parametrize("source_type", [FakeSource, OnDemandSource])
def test_achieved_ratio_is_within_the_bounds(source_type):
    parts = Parts(source_type(), Pace(0.5, 0.6, 50), max_env_steps=1050)
    parts.learner.run()
    assert 0.5 * 0.95 <= parts.learner.pace.ratio <= 0.6 * 1.05


def test_every_recorded_ratio_is_within_the_bounds_from_the_first_samples_on():
    parts = Parts(FakeSource(rows=32), Pace(1.0, 2.0, 50), max_env_steps=2000, log_interval=40)
    parts.learner.run()
    ratios = [log["time/update_ratio"] for log in parts.listener.logs if "time/update_ratio" in log]
    assert len(ratios) > 20
    assert all(0.95 <= ratio <= 2.1 for ratio in ratios)


def test_a_learner_that_owes_very_many_updates_is_heard_all_the_same():
    parts = Parts(FakeSource(rows=1000), Pace(1.0, 1.0, 0), max_env_steps=1000, log_interval=10)
    parts.learner.run()
    assert [log["time/updates"] for log in parts.listener.logs][:3] == [20, 40, 60]


def test_synchronous_source_acts_only_when_no_update_is_left():
    source = OnDemandSource(rows=1)
    parts = Parts(source, Pace(3.0, 3.0, 10), max_env_steps=1000)
    for _ in range(400):
        parts.learner.turn()
        pace = parts.learner.pace
        assert pace.updates <= 3 * pace.counted_env_steps
        assert pace.updates >= 3 * (pace.counted_env_steps - 1)


def test_samples_are_acknowledged_only_when_durable():
    class LazyStorage(FakeStorage):
        def commit(self):
            super().commit()
            return {"w": max(0, self.appended.get("w", 0) - 1)}

    parts = Parts(storage=LazyStorage())
    parts.learner.run()
    assert parts.source.acknowledged == {"w": 19}
    assert parts.storage.appended == {"w": 20}


def test_without_storage_received_samples_are_acknowledged():
    parts = Parts()
    parts.learner.run()
    assert parts.source.acknowledged == {"w": 20}


def test_repeated_segment_is_neither_stored_nor_counted():
    class Repeating(FakeSource):
        def receive(self, timeout_s, max_segments=None):
            segments = super().receive(timeout_s, max_segments)
            return segments * 2

    parts = Parts(Repeating(), storage=FakeStorage())
    parts.learner.run()
    assert parts.learner.pace.env_steps == 200
    assert parts.listener.logs[-1]["gateway/duplicate_segments"] == 20
    assert len(parts.memory) == 200


def test_workers_wait_while_the_learner_is_behind():
    parts = Parts(pace=Pace(1.0, 2.0, 0), max_env_steps=100)
    parts.learner.turn()  # receives 10 steps, may update only at the next turn
    parts.learner.turn()
    assert parts.learner.pace.env_steps == 10
    assert parts.source.seq == 1


def test_weights_are_published_every_interval_and_age_is_in_updates():
    parts = Parts(log_interval=1000)
    parts.learner.run()
    assert parts.source.published == [20, 40, 60, 80, 100]
    ages = parts.listener.logs[-1]["rollout/weights_age_updates"]
    assert 0 <= ages <= 20


def test_publishes_first_makes_a_trained_agent_act_at_once():
    parts = Parts()
    parts.learner.publishes_first = True
    parts.learner.run()
    assert parts.source.published[0] == 0


def test_losses_are_averaged_between_records():
    parts = Parts()
    parts.learner.run()
    with_losses = [log for log in parts.listener.logs if "losses/critic" in log]
    # mean of 1..50 and of 51..100
    assert [log["losses/critic"] for log in with_losses] == [25.5, 75.5]
    assert with_losses[0]["losses/q"] == 1.0
    assert with_losses[-1]["time/update_ratio"] == 1.0


def test_metric_that_comes_only_sometimes_is_averaged_over_its_updates(monkeypatch):
    parts = Parts()
    original = parts.algorithm.update

    def update(batch):
        metrics = original(batch)
        if parts.algorithm.updates % 2:
            metrics["losses/actor"] = torch.tensor(4.0)
        return metrics

    monkeypatch.setattr(parts.algorithm, "update", update)
    parts.learner.run()
    assert parts.listener.logs[-2]["losses/actor"] == 4.0


def test_loss_that_is_not_finite_ends_the_run_without_a_checkpoint(monkeypatch):
    parts = Parts()
    monkeypatch.setattr(parts.algorithm, "update", lambda batch: {"losses/critic": torch.tensor(math.nan)})
    with pytest.raises(FloatingPointError, match="losses/critic must be finite, got nan"):
        parts.learner.run()
    assert parts.listener.checkpoints == []


@pytest.mark.parametrize(
    "schedule",
    [{"checkpoint_interval": 10}, {"save_period_s": 0.0}, {"evaluation_interval": 10}, {"max_env_steps": 130}],
)
def test_networks_are_neither_saved_nor_evaluated_after_a_loss_that_is_not_finite(monkeypatch, schedule):
    """Also where no loss is recorded between that update and the checkpoint."""
    parts = Parts(**({"log_interval": 1000} | schedule))
    kept: list[int] = []
    original = parts.algorithm.update

    def update(batch):
        metrics = original(batch)
        return metrics | {"losses/critic": torch.tensor(math.nan)} if parts.algorithm.updates >= 25 else metrics

    monkeypatch.setattr(parts.algorithm, "update", update)
    monkeypatch.setattr(parts.listener, "on_checkpoint", lambda is_periodic: kept.append(parts.algorithm.updates))
    monkeypatch.setattr(parts.listener, "on_evaluation_request", lambda: kept.append(parts.algorithm.updates))
    with pytest.raises(FloatingPointError, match=r"losses/critic must be finite, got nan .* is from before"):
        parts.learner.run()
    assert max(kept, default=0) < 25
    assert bool(kept) == ("max_env_steps" not in schedule)


def test_a_checkpoint_right_after_a_record_of_the_losses_is_written():
    parts = Parts(checkpoint_interval=50, save_period_s=0.0, log_interval=1)
    parts.learner.run()
    assert len(parts.listener.logs) > 50
    assert parts.listener.checkpoints.count(False) > 50


def test_evaluations_follow_the_interval_and_the_end():
    parts = Parts(evaluation_interval=40)
    parts.learner.run()
    # at 120, 160 and 200 steps (no update before 100), the last at the end of training
    assert [request[1] for request in parts.source.requests] == [(7, 8)] * len(parts.source.requests)
    assert parts.listener.requests == len(parts.listener.reports) == len(parts.source.requests)
    assert parts.source.requests[-1][0] == parts.algorithm.updates == 100


def test_only_the_end_of_a_run_waits_for_a_slow_evaluation():
    parts = Parts(FakeSource(polls=12), evaluation_interval=10)
    parts.learner.run()
    assert parts.listener.requests == len(parts.listener.reports)
    assert len(parts.listener.reports) < 10
    assert parts.source.requests[-1][0] == 100


def test_periodic_checkpoints_follow_the_interval():
    parts = Parts(checkpoint_interval=50)
    parts.learner.run()
    assert parts.listener.checkpoints == [True, True, True, True, False]


def test_stop_saves_and_leaves_out_the_last_evaluation():
    parts = Parts(evaluation_interval=1000, storage=FakeStorage())
    parts.learner.turn()
    parts.stop.set()
    parts.learner.run()
    assert parts.learner.pace.env_steps == 10
    assert parts.listener.checkpoints == [False]
    assert parts.source.acknowledged == {"w": 1}
    assert parts.source.requests == []


def test_restored_counters_continue_with_the_same_next_action():
    parts = Parts(OnDemandSource(rows=3), Pace(1.0, 1.0, 10), update_model_interval=7)
    for _ in range(53):
        parts.learner.turn()
    other = Parts(OnDemandSource(rows=3), Pace(1.0, 1.0, 10), update_model_interval=7)
    other.learner.load_counters(parts.learner.counters())
    other.memory.num_transitions = parts.memory.num_transitions
    other.algorithm.updates = parts.algorithm.updates
    other.source._version = parts.source._version
    other.source.seq = parts.source.seq
    for _ in range(40):
        parts.learner.turn()
        other.learner.turn()
        assert parts.learner.pace.state_dict() == other.learner.pace.state_dict()
    assert parts.source.published[-3:] == other.source.published[-3:]


@pytest.mark.parametrize(
    ("before", "now", "at"),
    [(1000, 50, [150, 200]), (50, 50, [150, 200]), (0, 50, [150, 200]), (150, 1000, [150]), (50, 0, [])],
)
def test_another_interval_holds_from_the_resume_on(before, now, at):
    """At 120 of 210 steps; what was due at a step that the file names stays due there."""
    first = Parts(max_env_steps=120, evaluation_interval=before, checkpoint_interval=before)
    first.learner.run()
    again = Parts(max_env_steps=210, evaluation_interval=now, checkpoint_interval=now)
    again.learner.load_counters(first.learner.counters())
    again.learner._memory, again.source.seq, again.source._version = first.memory, 12, first.source._version
    evaluated, saved = [], []
    while not again.learner.is_finished:
        num_evaluated, num_saved = again.listener.requests, len(again.listener.checkpoints)
        again.learner.turn()
        steps = again.learner.pace.env_steps
        evaluated += [steps] * (again.listener.requests - num_evaluated)
        saved += [steps] * (len(again.listener.checkpoints) - num_saved)
    assert (evaluated, saved) == (at, at)


def test_wall_time_is_divided_among_its_parts():
    parts = Parts()
    parts.learner.run()
    log = next(log for log in parts.listener.logs if "time/update_ms" in log)
    shares = [log[f"time/{part}"] for part in ("receive", "append", "sample", "update", "publish")]
    assert all(0 <= share <= 1 for share in shares)
    assert sum(shares) <= 1.0


def test_lap_time_is_averaged_over_finished_episodes_only():
    episodes = [
        {"return": 1.0, "finished": 1.0, "lap_time_s": 20.0, "progress": 1.0},
        {"return": 3.0, "finished": 0.0, "lap_time_s": math.nan, "progress": 0.5},
    ]
    metrics = episode_metrics(episodes)
    assert metrics["rollout/lap_time_s"] == 20.0
    assert metrics["rollout/finish_rate"] == 0.5
    assert metrics["rollout/return"] == 2.0
    assert "rollout/wall_contacts" not in metrics
    assert episode_metrics([]) == {}


def test_an_episode_that_began_on_the_way_has_no_part_in_the_return_of_a_whole_one():
    whole = {"return": 4.0, "progress": 0.5, "length": 90.0, "finished": 0.0, "wall_contacts": 2.0, "started_at_m": 0.0}
    later = {
        "return": 1.0,
        "progress": 1.0,
        "length": 10.0,
        "finished": 1.0,
        "wall_contacts": 0.0,
        "started_at_m": 80.0,
    }
    metrics = episode_metrics([whole, later])
    assert (metrics["rollout/return"], metrics["rollout/progress"], metrics["rollout/episode_length"]) == (
        4.0,
        0.5,
        90.0,
    )
    assert (metrics["rollout/finish_rate"], metrics["rollout/wall_contacts"]) == (0.0, 1.0)
    assert "rollout/return" not in episode_metrics([later])


def test_timing_statistics_are_logged_where_they_exist():
    timed = {"return": 1.0, "late_steps": 3.0, "timeouts": 1.0, "step_p50_s": 0.05, "step_p99_s": 0.08}
    single_step = {"return": 1.0, "late_steps": 0.0, "timeouts": 0.0, "step_p50_s": math.nan, "step_p99_s": math.nan}
    metrics = episode_metrics([timed, single_step])
    assert (metrics["rollout/late_steps"], metrics["rollout/timeouts"]) == (1.5, 0.5)
    assert (metrics["rollout/step_p50_s"], metrics["rollout/step_p99_s"]) == (0.05, 0.08)
    assert "rollout/late_steps" not in episode_metrics([{"return": 1.0}])


def test_workers_at_the_end_of_their_window_are_acknowledged_while_the_learner_goes_on_updating():
    class Windowed(FakeSource):
        def receive(self, timeout_s, max_segments=None):
            waiting = self.seq - self.acknowledged.get("w", 0)
            return super().receive(timeout_s, max_segments) if waiting < 4 else []

    source = Windowed()
    parts = Parts(source, Pace(0.0, 1e9, 0), max_env_steps=10_000)
    clock = iter(range(1_000_000))
    parts.learner._now = lambda: 0.001 * next(clock)  # type: ignore[method-assign]
    for _ in range(2000):
        parts.learner.turn()
    assert source.seq > 20
