"""Configuration: refused values, their messages, and conversion to and from plain data."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from algos.config import (
    DebugConfig,
    EncoderKind,
    NetworkConfig,
    Normalization,
    OptimizerKind,
    SACConfig,
    WarmUp,
    network_from_plain,
)
from tasks.config import config_from_dict, config_to_dict


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"gamma": 1.5}, r"gamma must be in \(0, 1\], got 1.5"),
        ({"gamma": math.nan}, "gamma must be"),
        ({"polyak": 1.0}, "polyak must be in"),
        ({"lr_actor": 0.0}, "lr_actor must be > 0"),
        ({"lr_critic": math.inf}, "lr_critic must be > 0"),
        ({"l2_critic": -1.0}, "l2_critic must be >= 0"),
        ({"memory_size": 3, "n_step": 3}, r"memory_size must be > n_step \(3\)"),
        ({"min_updates_per_env_step": 8.0}, r"max_updates_per_env_step must be .* >= min_updates_per_env_step \(8.0\)"),
        ({"alpha": 20.0}, "alpha must be between alpha_min .* got 20.0"),
        ({"alpha_min": 20.0}, "alpha_max must be >= alpha_min"),
        ({"alpha": -0.1}, "alpha must be >= 0"),
        ({"betas_actor": [0.9, 0.9], "optimizer_actor": OptimizerKind.sgd}, "betas_actor must be null .* sgd"),
        ({"betas_critic": [0.9]}, "betas_critic must be two numbers"),
        ({"betas_entropy": [0.9, 1.0]}, "betas_entropy must be two numbers"),
        ({"policy_delay": 0}, "policy_delay must be >= 1"),
        ({"evaluation_interval": -1}, "evaluation_interval must be >= 0"),
        ({"lr_decay_updates": -1}, "lr_decay_updates must be 'auto' or an integer >= 0, got -1"),
        ({"lr_decay_updates": True}, "lr_decay_updates must be 'auto' or an integer >= 0, got True"),
        ({"lr_decay_updates": "later"}, "lr_decay_updates must be 'auto' or an integer >= 0, got 'later'"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SACConfig(**values)


@pytest.mark.parametrize(("typed", "used"), [("auto", 25), (7, 7), (0, 0)])
def test_learning_rates_fall_over_the_whole_training_unless_a_number_is_typed(typed: int | str, used: int) -> None:
    config = SACConfig(lr_decay_updates=typed, min_updates_per_env_step=0.25)
    assert config.over(100) == replace(config, lr_decay_updates=used)


def test_wrong_networks_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"hidden must be a list of at least one width >= 1, got \[\]"):
        NetworkConfig(hidden=[])
    with pytest.raises(ValueError, match=r"random_shift must be >= 0"):
        NetworkConfig(random_shift=-1)
    with pytest.raises(ValueError, match=r"target_encoder must be true with the encoder mlp"):
        NetworkConfig(target_encoder=False)


def test_a_fixed_temperature_may_lie_outside_the_bounds_of_a_learned_one() -> None:
    assert SACConfig(alpha=20.0, learn_entropy_coef=False).alpha == 20.0


def test_plain_data_goes_through_json_and_back() -> None:
    network = NetworkConfig(
        EncoderKind.shared_cnn, [64], layer_norm=True, observation_normalization=Normalization.running
    )
    assert network_from_plain(json.loads(json.dumps(config_to_dict(network)))) == network
    config = SACConfig(
        optimizer_actor=OptimizerKind.adamw, betas_actor=[0.9, 0.99], warm_up=WarmUp.uniform, target_entropy=-1.5,
        debug=DebugConfig(check_samples=True),
    )  # fmt: skip
    plain = json.loads(json.dumps(config_to_dict(config)))
    assert plain["optimizer_actor"] == "adamw"
    assert config_from_dict(SACConfig, plain, "config") == config


def test_unknown_keys_and_members_are_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"unknown key config\.gama \(did you mean config\.gamma\?\)"):
        config_from_dict(SACConfig, {"gama": 0.9}, "config")
    with pytest.raises(ValueError, match=r"config\.optimizer_actor must be one of adam, adamw, sgd, rmsprop"):
        config_from_dict(SACConfig, {"optimizer_actor": "Adam"}, "config")
