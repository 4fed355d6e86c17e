"""Every metric that a run writes has a line in docs/algorithms, and everything that these pages name exists."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from algos.algorithms.off_policy import OffPolicyAlgorithm
from algos.config import DebugConfig, OffPolicyConfig
from algos.learning.learner import episode_metrics
from tasks.experience.samples import TIMING_STATISTICS
from tasks.remote.access.credentials import load_client, make_credentials
from tasks.remote.learner.gateway import Gateway
from tasks.remote.learner.link_group import LinkGroup
from tasks.remote.learner.relay_link import RelayLink
from tests.algos.algorithms.sac_batches import LIDAR, random_batch
from tests.algos.algorithms.test_family_invariants import FAMILY, make
from tests.algos.faces import test_ppo
from tests.algos.faces.test_agent import read_scalars
from tests.algos.fakes import SPEC, make_report
from tests.algos.runs import make_params, make_runner

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),  # rl_games' normaliser
]
FOLDER = Path(__file__).parents[2] / "docs" / "algorithms"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}


def tags_of(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+/[a-z0-9_.]+)`", text))


DOCUMENTED = tags_of(PAGES["sac"])
"""Metrics of every run; each algorithm's page has its own."""


def undocumented(tags: list[str]) -> list[str]:
    groups = {tag.partition("/")[0] for tag in DOCUMENTED if tag.endswith("/...")}
    tags = [tag.removeprefix("image:") for tag in tags]
    return [tag for tag in tags if tag not in DOCUMENTED and tag.partition("/")[0] not in groups]


def test_metrics_of_a_sac_run_are_documented(tmp_path):
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


def test_metrics_of_a_ppo_run_are_documented(tmp_path):
    make_runner(test_ppo.make_params(tmp_path, evaluation_interval=128)).run({"train": True})
    tags = list(read_scalars(tmp_path / "run"))
    assert "losses/a_loss" in tags
    assert undocumented(tags) == []


def test_metrics_of_workers_and_laps_are_documented(tmp_path):
    make_credentials(tmp_path)
    learner = load_client(tmp_path / "learner")
    with Gateway(SPEC, "fingerprint") as gateway, RelayLink("127.0.0.1:1", learner, SPEC, "fingerprint") as relay:
        tags = list(LinkGroup([gateway, relay], has_evaluator=True).statistics())
    tags += ["gateway/restarts", *(f"evaluation/{name}" for name in make_report(True, 3.0).statistics())]
    assert undocumented(tags) == []


def test_metrics_of_the_wall_clock_are_documented():
    tags = list(episode_metrics([dict.fromkeys(TIMING_STATISTICS, 0.1)]))
    assert len(tags) == len(TIMING_STATISTICS)
    assert undocumented(tags) == []


@pytest.mark.parametrize("name", FAMILY)
def test_metrics_of_an_algorithm_are_on_its_own_page(name):
    agent = make(name, learn_entropy_coef=True, debug=DebugConfig(extra_metrics=True))
    added = undocumented(list(agent.update(random_batch(LIDAR))))
    assert set(added) <= tags_of(PAGES[name.lower()])


@pytest.mark.parametrize("name", FAMILY)
def test_the_page_of_an_algorithm_has_its_keys_and_names_only_methods_that_exist(name):
    page = PAGES[name.lower()]
    own = {field.name for field in fields(FAMILY[name][1])} - {field.name for field in fields(OffPolicyConfig)}
    assert [key for key in sorted(own) if not re.search(rf"\b{key}\b", page)] == []
    classes: dict[str, type] = {"OffPolicyAlgorithm": OffPolicyAlgorithm}
    classes |= {name: algorithm for name, (algorithm, _) in FAMILY.items()}
    named = re.findall(r"`(\w+)\.(\w+)(?:\([^`]*\))?`", page)
    methods = [(owner, method) for owner, method in named if owner in classes]
    assert methods
    assert [f"{owner}.{method}" for owner, method in methods if not hasattr(classes[owner], method)] == []


def test_an_undocumented_metric_is_noticed():
    assert undocumented(["rollout/luck", "info/kl"]) == ["rollout/luck"]
