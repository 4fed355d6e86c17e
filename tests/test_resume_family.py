"""A resumed synchronous run equals an uninterrupted one, bit for bit: SAC and its variants, through train.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from algos.config.algorithms import TRAIN_SCHEMAS
from algos.config.options import base_name
from algos.config.train_schema import OffPolicyTrainConfig
from algos.run.checkpoint import load_checkpoint

KINDS = [kind for kind, schema in TRAIN_SCHEMAS.items() if issubclass(schema, OffPolicyTrainConfig)]
SMALL = [
    "--headless",
    "task=TM20Lidar",
    "task.game=sim",
    "task.track=short",
    "task.rtgym.ep_max_length=70",
    "synchronous=true",
    "seed=0",
    "train.params.network.hidden=[16,16]",
    "train.params.config.batch_size=8",
    "train.params.config.env_steps_before_training=50",
    "train.params.config.min_updates_per_env_step=0.5",
    "train.params.config.max_updates_per_env_step=0.5",
    "train.params.config.lr_decay_updates=100",  # the same for half a run and a whole one
    "train.params.config.evaluation_interval=0",
    "train.params.config.checkpoint_interval=0",
]
LEARNED = "train.params.config.learn_entropy_coef=true"
OWN = {
    "rsac": [LEARNED, "train.params.config.sequence_length=6", "train.params.config.burn_in=3"],
    "dagger": [],
}
"""What an algorithm needs beside or in place of the learned temperature."""


def run(kind: str, name: str, *words: str) -> Path:
    """Trains below runs/<name>_<date> and returns the checkpoint that it ends with."""
    small = [*SMALL, *OWN.get(kind, [LEARNED])]
    assert train.main([*small, f"train=TM20Lidar{base_name(kind)}", f"experiment={name}", *words]) == 0
    (folder,) = Path("runs").glob(f"{name}_*")
    return folder / "nn" / "last.pth"


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from leaves(entry, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from leaves(entry, f"{name}.{index}")
    else:
        yield name, value


def differing(one: Path, other: Path) -> list[str]:
    """Names of the entries that differ between two checkpoints, among those that decide how a run continues.

    Python's global generator is left out: nothing of ours draws from it, but the first import of a library may.
    """
    found = []
    first, second = load_checkpoint(one), load_checkpoint(other)
    for part in ("algorithm_state", "policy", "rollout", "replay"):
        ours, theirs = dict(leaves(getattr(first, part), part)), dict(leaves(getattr(second, part), part))
        found += sorted(ours.keys() ^ theirs.keys())
        for name in ours.keys() & theirs.keys():
            a, b = ours[name], theirs[name]
            equal = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
            found += [] if equal else [name]
    counts = ("env_steps", "updates", "episodes")
    return found + [name for name in counts if first.counters[name] != second.counters[name]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [100, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_a_resumed_run_equals_an_uninterrupted_one(
    kind: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = run(kind, "whole", f"max_env_steps={2 * steps}")
    half = run(kind, "half", f"max_env_steps={steps}")
    assert load_checkpoint(half).counters["updates"] > 0
    assert differing(half, whole)
    resumed = run(kind, "resumed", f"max_env_steps={2 * steps}", "--checkpoint", str(half))
    assert not differing(resumed, whole)
