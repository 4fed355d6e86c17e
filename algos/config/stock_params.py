"""A train YAML without a ``kind``: rl_games' own ``params``, as in its files, or those of a plugin's algorithm.

They are passed on unchanged. Keys that the run decides itself, such as the environment, must agree with the run or are
refused by name. ``a2c_continuous`` runs as ``remote_ppo``: the same agent, whose checkpoints can be resumed and played.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from algos.config.ppo import PPOLoopConfig
from algos.config.schema import RunConfig, algorithm_name
from algos.config.train_schema import RL_GAMES_ALGORITHMS, PPOTrainConfig
from tasks.words.nested import Plain

logger = logging.getLogger(__name__)

PPO_NAME = "a2c_continuous"
PPO_KEYS = (
    "num_actors",
    "horizon_length",
    "minibatch_size",
    "mini_epochs",
    "gamma",
    "tau",
    "learning_rate",
    "lr_schedule",
    "e_clip",
    "clip_value",
    "critic_coef",
    "grad_norm",
    "entropy_coef",
    "normalize_advantage",
    "normalize_input",
)
"""Keys of ``params.config`` without which rl_games does not build its agent."""
RUN_DECIDES = {
    "env_name": "the environment is the one of task=; leave env_name out. One of your own becomes a task by "
    "gymnasium.register and task=Gym task.id=ID, or by tasks.registry.register (docs/own_environments.md)",
    "device": "leave it out and type device={value}",
    "device_name": "leave it out and type device={value}",
    "train_dir": "leave it out: runs are in runs/<experiment>_<date>; type experiment=NAME",
    "full_experiment_name": "leave it out and type experiment={value}",
    "max_env_steps": "leave it out and type max_env_steps={value}",
    "synchronous": "leave it out and type synchronous={value}",
    "headless": "leave it out and type headless={value}",
    "inference_device": "leave it out and type inference_device={value}",
    "checkpoint_mode": "leave it out and type checkpoint_mode={value}",
    "play": "leave it out and type play.KEY=VALUE",
    "wandb": "leave it out and type wandb.KEY=VALUE",
    "trackio": "leave it out and type trackio.KEY=VALUE",
    "full_config": "leave it out: it is what this run stores",
    "run": "leave it out: it is the configuration of this run",
}
"""Keys of ``params.config`` that the run decides, and what to do instead."""


def check_stock(config: RunConfig, device: str) -> None:
    """Refuses a train YAML without a kind that says what the run decides, or what cannot work with our tasks.

    Args:
        config: The configuration.
        device: Where the run learns.

    Raises:
        ValueError: Naming the key and what to do.
    """
    train = config.train
    name, own = algorithm_name(train), _own_config(train)
    if name == "a2c_discrete":
        raise ValueError(
            "train.params.algo.name=a2c_discrete chooses one of several actions, but the actions of all tasks are "
            "continuous: take a2c_continuous"
        )
    if config.checkpoint is None:  # what is stored was checked when it was typed, perhaps on another machine
        _check_decided(config, own, device)
    if name in RL_GAMES_ALGORITHMS:
        _check_env_config(config, own.get("env_config") or {})
        if "player" in own:
            logger.warning(
                "train.params.config.player is for rl_games' own player; --play goes by play.episodes, play.seed and "
                "play.deterministic"
            )
    needed = (*PPO_KEYS, *(["kl_threshold"] if own.get("lr_schedule") == "adaptive" else []))
    missing = [key for key in needed if key not in own]
    if missing and name == PPO_NAME:
        raise ValueError(f"train.params.config must have {', '.join(missing)} for {PPO_NAME}")


def is_ppo(train: Any) -> bool:
    """Whether a train section learns with PPO: ours, or one of rl_games."""
    return isinstance(train, PPOTrainConfig) or (isinstance(train, Mapping) and algorithm_name(train) == PPO_NAME)


def max_env_steps(train: Plain) -> int | None:
    """Environment steps at which the training ends: the fewest that a YAML says, rl_games' keys included; else None."""
    own = _own_config(train)
    steps_per_epoch = int(own.get("num_actors", 0)) * int(own.get("horizon_length", 0))
    said = (
        train.get("max_env_steps", -1),
        own.get("max_frames", -1),
        own.get("max_epochs", -1) * steps_per_epoch,
    )
    return min((steps for steps in said if isinstance(steps, int) and steps > 0), default=None)


def stock_parts(train: Plain, steps: int) -> dict[str, Any]:
    """``algo``, ``model``, ``network`` and ``config`` of rl_games' params.

    Args:
        train: The train section.
        steps: Environment steps at which the training ends.
    """
    params, name = train["params"], algorithm_name(train)
    config = {"num_actors": 1, "reward_shaper": {}, "torch_compile": False, **_own_config(train)}
    if name in RL_GAMES_ALGORITHMS:
        config["max_frames"] = steps
    if name == PPO_NAME:
        name = "remote_ppo"
        observation = str((config.get("env_config") or {}).get("observation", "flat"))
        left_open = {"bounds_loss_coef": 0.0, "score_to_win": math.inf, "observation": observation}
        config = {**left_open, **config, "max_epochs": -1}
    algo = {"name": name}
    return {
        "algo": algo,
        "model": dict(params.get("model", algo)),
        "network": dict(params.get("network", algo)),
        "config": config,
    }


def ppo_loop(train: Any) -> PPOLoopConfig:
    """The loop around PPO, ours or rl_games', by the keys that its train section has."""
    if isinstance(train, PPOTrainConfig):
        return train.params.config
    known = {entry.name for entry in fields(PPOLoopConfig)}
    return PPOLoopConfig(**{key: value for key, value in _own_config(train).items() if key in known})


def _check_decided(config: RunConfig, own: Plain, device: str) -> None:
    expected = {"env_name": config.task.name, "device": device, "device_name": device}
    for key, advice in RUN_DECIDES.items():
        if key in own and own[key] != expected.get(key):
            raise ValueError(f"train.params.config.{key}={own[key]}: {advice.format(value=own[key])}")
    for key, seed in (("params", config.train["params"]), ("params.config.env_config", own.get("env_config") or {})):
        if seed.get("seed", config.seed) != config.seed:
            raise ValueError(f"train.{key}.seed={seed['seed']}: leave it out and type seed={seed['seed']}")


def _check_env_config(config: RunConfig, env_config: Plain) -> None:
    """rl_games' files have the arguments of their environments there; here tasks have keys for them."""
    for key, value in env_config.items():
        if key not in ("observation", "seed"):
            raise ValueError(
                f"train.params.config.env_config.{key}={value}: leave it out; the settings of {config.task.name} are "
                "the keys task.…, and num_workers=N is an argument"
            )


def _own_config(train: Plain) -> Plain:
    return train["params"].get("config") or {}
