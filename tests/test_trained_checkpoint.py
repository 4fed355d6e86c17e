"""The repository's checkpoint drives with today's code: a change of observations fails here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tasks
from algos.acting.policy import make_acting_policy
from algos.run.checkpoint import load_checkpoint
from tasks.acting.evaluation import evaluate
from tasks.experience.observation import ObservationSpec
from tasks.sim.scripted_driver import scripted_lap_time_s
from tasks.sim.track import load_track

SHIPPED = Path(__file__).parent.parent / "runs" / "TM20LidarSAC_trained" / "nn" / "best.pth"


@pytest.mark.timeout(120)
def test_shipped_policy_finishes_medium_within_1_35_of_the_scripted_lap() -> None:
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(SHIPPED)
    policy = make_acting_policy(**checkpoint.policy["kwargs"], seed=0)
    policy.load_weights(checkpoint.acting_weights(), int(checkpoint.policy["version"]))
    env = tasks.make(checkpoint.task, observation="dict", config=checkpoint.config["task"])
    assert env.observation_spec == ObservationSpec.from_json(checkpoint.observation_spec)

    report = evaluate(env, policy, range(3))

    env.close()
    assert report.finish_rate == 1.0
    assert report.mean_lap_time_s is not None
    assert report.mean_lap_time_s < 1.35 * scripted_lap_time_s(load_track("medium"))
