"""The parts of an entry: the small checkpoint, the command that trained it, the results of its episodes."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

import train
from algos.config.hydra_entry import compose_and_call
from algos.config.implied import is_implied
from algos.config.schema import RunConfig, marked_keys, nearest, typed
from algos.config.worker_words import word
from algos.faces.runner_params import resolve
from algos.run.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from tasks import registry
from tasks.config import config_to_dict
from tasks.words.command_line import Role
from tasks.words.keys import Belongs, key_roles
from tasks.words.nested import Plain, leaves, value_at

MAX_BYTES = 1_000_000
"""An entry's policy is smaller than this, so that a clone stays small."""
_SHAPES_THE_EXPERIENCE = "worker.envs_per_worker"
"""A key of the command, not of the file, that a repeated training needs all the same."""
_NEVER_TYPED = ("experiment", "task.name", "train.max_env_steps")
"""What a name and other keys say: max_env_steps is always a number in a checkpoint, and stands for the last one."""


def policy_only(checkpoint: Checkpoint) -> Checkpoint:
    """What acts of a checkpoint, without the keys that belong to the machine and the person that trained it."""
    owners = marked_keys(Belongs)
    config = {key: value for key, value in checkpoint.config.items() if owners.get(key) is not Belongs.command}
    counters = {key: value for key, value in checkpoint.counters.items() if key in ("env_steps", "updates")}
    return replace(
        checkpoint, config=config, algorithm_state={}, counters=counters, replay={}, rollout={}, rng={}, best={}
    )


def save_policy(path: Path, checkpoint: Checkpoint) -> None:
    """Writes what acts of a checkpoint; matrices in half precision where the file would be too large.

    Raises:
        CheckpointError: It is too large even so.
        OSError: It could not be written.
    """
    small = policy_only(checkpoint)
    save_checkpoint(path, small)
    if path.stat().st_size >= MAX_BYTES:
        weights = {name: _halved(tensor) for name, tensor in small.policy["weights"].items()}
        save_checkpoint(path, replace(small, policy={**small.policy, "weights": weights}))
    size = path.stat().st_size
    if size >= MAX_BYTES:
        path.unlink()
        raise CheckpointError(
            f"the policy of {checkpoint.task} takes {size:,} bytes in half precision, an entry of the zoo fewer than "
            f"{MAX_BYTES:,}: train smaller networks (train.params.network.hidden)"
        )


def training_command(config: Plain) -> str:
    """The command that trains a run again: the values that differ from the files of cfg.

    Args:
        config: The whole configuration of the run, as its checkpoint holds it.

    Raises:
        ValueError: It began with the weights or the replay of another run, so one command does not say it.
    """
    start = config.get("checkpoint")
    if start and config.get("checkpoint_mode") != "resume":
        raise ValueError(f"the run began with {config['checkpoint_mode']} of {start}: give --command, all of it")
    choices = config["choices"]
    words = [f"{group}={choices[group]}" for group in ("task", "train")]
    files, owners = _files(words), marked_keys(Belongs)
    for key, value in leaves(config):
        is_own = nearest(owners, key) is Belongs.command and key != _SHAPES_THE_EXPERIENCE
        is_of_training = Role.train in key_roles(files, key).roles and key not in _NEVER_TYPED
        if is_own or not is_of_training or is_implied(config, key):
            continue
        if key == "seed" or value != value_at(config_to_dict(files), key):
            words.append(word(key, value))
    return f"python train.py {' '.join(words)}"


def driven_results(name: str, policy: Path, words: Sequence[str] = ()) -> dict[str, Any]:
    """What ``--play`` finds in ten seeded episodes of a checkpoint.

    Args:
        name: What ``results.json`` calls it.
        policy: The file.
        words: More words for ``--play``.

    Raises:
        ValueError: It could not be played.
    """
    words = ["--play", "--headless", "--checkpoint", str(policy.resolve()), *words]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if train.main([*words, "play.video=false", "play.plot=false"]):
            raise ValueError(f"{policy} cannot be played")
        (file,) = Path(folder).glob("runs/play/*/results.json")
        results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {**results, "checkpoint": name}


def _files(words: Sequence[str]) -> RunConfig:
    """The configuration as the files of cfg say it, with numbers where they say auto."""
    found: list[Mapping[str, Any]] = []

    def job(composed: DictConfig, _: list[str]) -> None:
        plain: Any = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
        found.append(plain)

    train.register_options([train.CONFIG_DIR])
    compose_and_call(words, train.CONFIG_DIR, job)
    (plain,) = found
    return resolve(typed(plain, type(registry.default_config(plain["task"]["name"]))))


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    is_matrix = tensor.dim() >= 2 and tensor.dtype == torch.float32
    return tensor.half() if is_matrix else tensor
