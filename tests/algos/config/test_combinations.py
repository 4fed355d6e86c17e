"""Combinations of switches: each refusal has its reason, and every other combination makes an update."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from algos.algorithms.crossq import CrossQ
from algos.algorithms.droq import DroQ
from algos.algorithms.redq import REDQ
from algos.algorithms.rsac import RSAC
from algos.algorithms.sac import SAC
from algos.algorithms.tqc import TQC
from algos.config import (
    BodyKind,
    CrossQConfig,
    DroQConfig,
    EncoderKind,
    NetworkConfig,
    OffPolicyConfig,
    RecurrentNetworkConfig,
    REDQConfig,
    RSACConfig,
    SACConfig,
    TQCConfig,
    check_combination,
)
from algos.run.stored_config import refuse_shape_changes
from tasks.config import config_to_dict
from tests.algos.agents import CPU, random_sequences
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch

SMALL = NetworkConfig(hidden=[8, 8], feature_size=4)
DROQ = replace(SMALL, dropout=0.1, layer_norm=True)
CROSSQ = replace(SMALL, batch_renorm=True)
ALGORITHMS: dict[str, tuple[type[SAC], OffPolicyConfig, NetworkConfig]] = {
    "SAC": (SAC, SACConfig(), SMALL),
    "REDQ": (REDQ, REDQConfig(redq_n=3, redq_q_updates_per_policy_update=1), SMALL),
    "DroQ": (DroQ, DroQConfig(policy_delay=1), DROQ),
    "TQC": (TQC, TQCConfig(num_quantiles=4), SMALL),
    "CrossQ": (CrossQ, CrossQConfig(policy_delay=1), CROSSQ),
}

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("SAC", {"batch_renorm": True}, "network.batch_renorm must be false without CrossQ, got true: slow targets"),
    ("TQC", {"batch_renorm": True}, "network.batch_renorm must be false without CrossQ"),
    ("DroQ", {"batch_renorm": True}, "network.batch_renorm must be false without CrossQ"),
    ("CrossQ", {"batch_renorm": False}, "network.batch_renorm must be true with CrossQ, got false"),
    ("CrossQ", {"layer_norm": True}, "network.layer_norm must be false with network.batch_renorm=true"),
    ("CrossQ", {"layer_norm_actor": True}, "network.layer_norm_actor must be false with network.batch_renorm=true"),
    ("CrossQ", {"dropout": 0.01}, "network.dropout must be 0 with network.batch_renorm=true, got 0.01"),
    ("CrossQ", {"critic": BodyKind.simba}, "network.critic must be mlp with network.batch_renorm=true, got simba"),
    ("CrossQ", {"actor": BodyKind.simba}, "network.actor must be mlp with network.batch_renorm=true, got simba"),
    (
        "CrossQ",
        {"encoder": "compact_cnn", "target_encoder": False},
        "network.target_encoder must be true with CrossQ, got false",
    ),
    ("DroQ", {"dropout": 0.0}, "network.dropout must be above 0 with DroQ"),
    ("DroQ", {"layer_norm": False}, "network.layer_norm must be true with DroQ, got false"),
    ("DroQ", {"critic": BodyKind.simba}, "network.layer_norm must be false with network.critic=simba"),
    ("SAC", {"critic": BodyKind.simba, "dropout": 0.1}, "network.dropout must be 0 with network.critic=simba"),
    ("SAC", {"critic": BodyKind.simba, "layer_norm": True}, "network.layer_norm must be false with"),
    ("SAC", {"actor": BodyKind.simba, "layer_norm_actor": True}, "network.layer_norm_actor must be false with"),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_switches_that_cannot_work_together_are_refused_with_a_reason(
    name: str, change: dict[str, Any], message: str
) -> None:
    kind, config, network = ALGORITHMS[name]
    network = replace(network, **change)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        check_combination(network, config)
    assert len(str(caught.value).partition(": ")[2]) > 10
    with pytest.raises(ValueError, match="network"):
        kind(LIDAR, config, network, CPU, seed=0)


SWITCHES: dict[str, dict[str, Any]] = {
    "layer_norm": {"layer_norm": True},
    "layer_norm_actor": {"layer_norm_actor": True},
    "dropout": {"dropout": 0.1},
    "simba": {"critic": BodyKind.simba, "actor": BodyKind.simba},
    "critic_hidden": {"critic_hidden": [12, 12]},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "lidar": {},
    "shared": {"encoder": EncoderKind.compact_cnn, "random_shift": 2},
    "heads_only": {"encoder": EncoderKind.compact_cnn, "target_encoder": False},
    "separate": {"encoder": EncoderKind.tmrl_cnn, "random_shift": 2},
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_all_other_combinations_make_an_update(name: str, switch: str, encoder: str) -> None:
    kind, config, network = ALGORITHMS[name]
    network = replace(network, **SWITCHES[switch], **ENCODERS[encoder])
    is_refused = (
        (name == "CrossQ" and (switch != "critic_hidden" or encoder == "heads_only"))
        or (name == "DroQ" and switch == "simba")
    )  # fmt: skip
    spec = LIDAR if encoder == "lidar" else image_spec()
    if is_refused:
        with pytest.raises(ValueError, match=r"network\.\w+ must be"):
            kind(spec, config, network, CPU, seed=0)
        return
    metrics = kind(spec, config, network, CPU, seed=0).update(random_batch(spec, 3))
    assert all(torch.isfinite(value) for value in metrics.values())
    assert "losses/actor" in metrics


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_switches_of_the_networks_work_with_recurrent_sac(switch: str) -> None:
    network = replace(RecurrentNetworkConfig(hidden=[8, 8], gru_size=3), **SWITCHES[switch])
    agent = RSAC(LIDAR, RSACConfig(burn_in=2), network, CPU, seed=0)
    metrics = agent.update(random_sequences(LIDAR, 3))  # type: ignore[arg-type]
    assert all(torch.isfinite(value) for value in metrics.values())
    with pytest.raises(ValueError, match=r"network\.batch_renorm must be false without CrossQ"):
        RSAC(LIDAR, RSACConfig(), replace(network, batch_renorm=True), CPU, seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
        ({"dropout": -0.1}, "dropout must be in [0, 1), got -0.1"),
        ({"critic_hidden": []}, "critic_hidden must be null or a list of at least one width >= 1, got []"),
        ({"batch_renorm_warm_up": -1}, "batch_renorm_warm_up must be >= 0, got -1"),
    ],
)
def test_wrong_values_of_the_switches_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        NetworkConfig(**values)


NEW_KEYS = ("actor", "critic", "critic_hidden", "dropout", "batch_renorm", "batch_renorm_warm_up")


def test_a_checkpoint_older_than_the_switches_fits_a_network_without_them() -> None:
    network = config_to_dict(NetworkConfig())
    old = {name: value for name, value in network.items() if name not in NEW_KEYS}
    resume(old, network)
    with pytest.raises(ValueError, match=r"train\.params\.network\.critic=simba would change the shape"):
        resume(old, network | {"critic": "simba"})


def test_dropout_and_warm_up_may_change_when_a_run_is_resumed_and_layers_may_not() -> None:
    network = config_to_dict(DROQ)
    resume(network, network | {"dropout": 0.02, "batch_renorm_warm_up": 10})
    with pytest.raises(ValueError, match=r"train\.params\.network\.layer_norm=false would change the shape"):
        resume(network, network | {"layer_norm": False})


def resume(stored: dict[str, Any], network: dict[str, Any]) -> None:
    old, new = ({"train": {"params": {"network": keys}}} for keys in (stored, network))
    refuse_shape_changes(old, new, "a.pth", mode="resume")
