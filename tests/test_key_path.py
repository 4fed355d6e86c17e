"""One value from a file of ``cfg/train`` to the target that it acts in, by the list of docs/architecture.md."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from algos.algorithms.sac import SAC
from algos.replay.memory import Batch
from tasks.words.command_line import Role

PAGE = Path(__file__).resolve().parents[1] / "docs" / "architecture.md"
WORDS = [
    "task=Gym",
    "train=Discounted",
    "synchronous=true",
    "max_env_steps=60",
    "train.params.network.hidden=[8,8]",
    "train.params.config.env_steps_before_training=40",
    "train.params.config.batch_size=4",
]


def hops() -> list[tuple[str, str]]:
    """File and function of each hop."""
    text = PAGE.read_text(encoding="utf-8")
    section = text.partition("## From a key to where it acts")[2].partition("\n## ")[0]
    return re.findall(r"^\d\. `([\w/]+)\.py`: `([\w.]+)`", section, flags=re.MULTILINE)


def test_the_hops_are_few_and_exist() -> None:
    assert 1 < len(hops()) <= 6
    for file, function in hops():
        module: Any = importlib.import_module(file.replace("/", "."))
        assert callable(reduce(getattr, function.split("."), module))


def test_gamma_of_a_file_acts_in_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "Discounted.yaml").write_text("defaults: [SAC, _self_]\nparams: {config: {gamma: 0.123}}\n")
    monkeypatch.chdir(tmp_path)
    given: list[Any] = []
    targets: list[bool] = []
    original = SAC.bootstrap

    def bootstrap(self: SAC, batch: Batch, next_q: torch.Tensor, next_log_prob: torch.Tensor) -> torch.Tensor:
        target = original(self, batch, next_q, next_log_prob)
        value = next_q.amin(0) - self.alpha * next_log_prob
        expected = batch.reward + 0.123 * (1.0 - batch.terminated) * value
        targets.append(torch.allclose(target, expected, atol=1e-5))
        return target

    prepare = train.prepare

    def prepared(composed: Any, role: Role, words: list[str]) -> dict[str, Any]:
        given.append(prepare(composed, role, words))
        return given[-1]

    monkeypatch.setattr(SAC, "bootstrap", bootstrap)
    monkeypatch.setattr(train, "prepare", prepared)
    assert train.main(["--headless", f"--config-dir={tmp_path}", *WORDS]) == 0
    assert given[0]["config"]["run"].train.params.config.gamma == 0.123
    assert targets
    assert all(targets)
