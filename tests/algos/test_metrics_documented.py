"""Every metric that a run writes has its line in docs/sac.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from algos.config import DebugConfig
from algos.learner import episode_metrics
from tasks.remote.credentials import load_client, make_credentials
from tasks.remote.gateway import Gateway
from tasks.remote.link_group import LinkGroup
from tasks.remote.relay_link import RelayLink
from tasks.samples import TIMING_STATISTICS
from tests.algos import test_ppo
from tests.algos.fakes import SPEC, make_report
from tests.algos.runs import make_params, make_runner
from tests.algos.test_agent import read_scalars

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),  # rl_games' normaliser
]
DOCUMENTED = set(
    re.findall(r"`([a-z_]+/[a-z0-9_.]+)`", (Path(__file__).parents[2] / "docs" / "sac.md").read_text(encoding="utf-8"))
)


def undocumented(tags: list[str]) -> list[str]:
    groups = {tag.partition("/")[0] for tag in DOCUMENTED if tag.endswith("/...")}
    tags = [tag.removeprefix("image:") for tag in tags]
    return [tag for tag in tags if tag not in DOCUMENTED and tag.partition("/")[0] not in groups]


def test_what_a_sac_run_writes(tmp_path):
    params = make_params(
        tmp_path,
        evaluation_interval=60,
        checkpoint_interval=50,
        learn_entropy_coef=True,
        debug=DebugConfig(extra_metrics=True),
    )
    make_runner(params).run({"train": True})
    tags = list(read_scalars(tmp_path / "run"))
    assert {"losses/temperature", "train/q_std", "time/checkpoint", "image:evaluation/clip"} <= set(tags)
    assert undocumented(tags) == []


def test_what_a_ppo_run_writes(tmp_path):
    make_runner(test_ppo.make_params(tmp_path, evaluation_interval=128)).run({"train": True})
    tags = list(read_scalars(tmp_path / "run"))
    assert "losses/a_loss" in tags
    assert undocumented(tags) == []


def test_what_workers_and_laps_add(tmp_path):
    make_credentials(tmp_path)
    learner = load_client(tmp_path / "learner")
    with Gateway(SPEC, "fingerprint") as gateway, RelayLink("127.0.0.1:1", learner, SPEC, "fingerprint") as relay:
        tags = list(LinkGroup([gateway, relay], has_evaluator=True).statistics())
    tags += ["gateway/restarts", *(f"evaluation/{name}" for name in make_report(True, 3.0).statistics())]
    assert undocumented(tags) == []


def test_what_the_wall_clock_adds():
    tags = list(episode_metrics([dict.fromkeys(TIMING_STATISTICS, 0.1)]))
    assert len(tags) == len(TIMING_STATISTICS)
    assert undocumented(tags) == []


def test_a_tag_without_a_line_is_noticed():
    assert undocumented(["rollout/luck", "info/kl"]) == ["rollout/luck"]
