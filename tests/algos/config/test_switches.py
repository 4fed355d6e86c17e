"""Every key of the networks and of the algorithms has an effect: it changes updates, or is read outside of them.

The keys come from the dataclasses, so a new key without a case here fails.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import algos
from algos.algorithms.base import ReplayAlgorithm
from algos.algorithms.crossq import CrossQ
from algos.algorithms.dagger import DAgger
from algos.algorithms.droq import DroQ
from algos.algorithms.redq import REDQ
from algos.algorithms.rsac import RSAC
from algos.algorithms.sac import SAC
from algos.algorithms.tqc import TQC
from algos.config import (
    BodyKind,
    CrossQConfig,
    DAggerConfig,
    DebugConfig,
    DroQConfig,
    EncoderKind,
    NetworkConfig,
    Normalization,
    OffPolicyConfig,
    OptimizerKind,
    PolicyValue,
    Precision,
    RecurrentNetworkConfig,
    REDQConfig,
    ReplayDevice,
    ReplayLearnerConfig,
    RSACConfig,
    SACConfig,
    TQCConfig,
    UpdateMode,
    WarmUp,
)
from algos.config.algorithms import TRAIN_SCHEMAS
from algos.config.train_schema import OffPolicyTrainConfig
from algos.run.stored_config import refuse_shape_changes
from tasks.experience.observation import Field, ObservationSpec
from tests.algos.agents import CPU, changed, random_sequences
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch
from tests.algos.runs import section_types

Keys = dict[str, Any]

PRIVILEGED = ObservationSpec((*LIDAR.fields, Field("progress", (1,), privileged=True)), act_buf_len=2)
SMALL: Keys = {"hidden": [8, 8], "feature_size": 4}
ALGORITHMS: dict[type[ReplayLearnerConfig], tuple[type[ReplayAlgorithm], Keys, Keys]] = {
    SACConfig: (SAC, {}, {}),
    REDQConfig: (REDQ, {"redq_n": 4, "redq_q_updates_per_policy_update": 1}, {}),
    DroQConfig: (DroQ, {"policy_delay": 1}, {"dropout": 0.1, "layer_norm": True}),
    TQCConfig: (TQC, {"num_quantiles": 4, "dropped_quantiles": 1}, {}),
    CrossQConfig: (CrossQ, {"policy_delay": 1}, {"batch_renorm": True}),
    RSACConfig: (RSAC, {"burn_in": 2}, {"gru_size": 3}),
    DAggerConfig: (DAgger, {}, {}),
}
"""Class, keys of the configuration and keys of the network, by the class of the configuration."""

FALLING: Keys = {"learn_entropy_coef": True, "lr_entropy": 0.3, "target_entropy": -50.0, "alpha": 0.02}
RISING: Keys = FALLING | {"target_entropy": 50.0}
ALGORITHM_CASES: dict[str, tuple[Keys, Any]] = {
    "alpha": ({}, 0.04),
    "learn_entropy_coef": ({}, False),
    "alpha_min": (FALLING, 0.019),
    "alpha_max": (RISING, 0.021),
    "target_entropy": ({"learn_entropy_coef": True}, -50.0),
    "lr_actor": ({}, 1e-2),
    "lr_critic": ({}, 1e-2),
    "lr_entropy": ({"learn_entropy_coef": True}, 1e-2),
    "lr_decay_updates": ({}, 2),
    "precision": ({}, Precision.bfloat16),
    "optimizer_actor": ({"betas_actor": None}, OptimizerKind.sgd),
    "optimizer_critic": ({"betas_critic": None}, OptimizerKind.sgd),
    "betas_actor": ({}, [0.8, 0.9]),
    "betas_critic": ({}, [0.8, 0.9]),
    "betas_entropy": ({"learn_entropy_coef": True, "lr_entropy": 0.1, "alpha_max": 1.0}, [0.5, 0.6]),
    "l2_actor": ({}, 0.5),
    "l2_critic": ({}, 0.5),
    "num_critics": ({}, 3),
    "polyak": ({}, 0.5),
    "policy_delay": ({}, 2),
    "redq_n": ({}, 5),
    "redq_m": ({}, 3),
    "redq_q_updates_per_policy_update": ({}, 2),
    "policy_value": ({}, PolicyValue.min),
    "num_quantiles": ({}, 5),
    "dropped_quantiles": ({}, 2),
}
"""Key: what else is set, and the value that must change the updates."""

OUTSIDE: dict[str, Any] = {
    "batch_size": 3,
    "memory_size": 100,
    "gamma": 0.5,
    "n_step": 3,
    "update_mode": UpdateMode.eager,
    "replay_device": ReplayDevice.cpu,
    "env_steps_before_training": 1,
    "warm_up": WarmUp.driving,
    "held_pedals": 0.1,
    "min_updates_per_env_step": 0.1,
    "max_updates_per_env_step": 9.0,
    "update_model_interval": 2,
    "log_interval": 2,
    "evaluation_interval": 2,
    "evaluation_episodes": 2,
    "checkpoint_interval": 2,
    "save_replay": False,
    "replay_transforms": ["mirror"],
    "debug": DebugConfig(extra_metrics=True),
    "sequence_length": 2,
    "burn_in": 0,
    "teacher": "zoo:TM20Track",
}
"""Keys of memory, pace and log: they decide which batches are sampled and what is logged, not the updates."""

OUTSIDE_OF: dict[str, type[ReplayLearnerConfig]] = {
    "sequence_length": RSACConfig,
    "burn_in": RSACConfig,
    "teacher": DAggerConfig,
}
"""Whose keys they are, where SAC lacks them."""

IMAGES: Keys = {"encoder": EncoderKind.compact_cnn.value}
NETWORK_CASES: dict[str, tuple[type[OffPolicyConfig], ObservationSpec, Keys, Any]] = {
    "encoder": (SACConfig, image_spec(), IMAGES, EncoderKind.shared_cnn.value),
    "hidden": (SACConfig, LIDAR, {"critic_hidden": [8, 8]}, [8, 9]),
    "actor": (SACConfig, LIDAR, {}, BodyKind.simba),
    "critic": (SACConfig, LIDAR, {}, BodyKind.simba),
    "critic_hidden": (SACConfig, LIDAR, {}, [8, 9]),
    "dropout": (SACConfig, LIDAR, {}, 0.1),
    "batch_renorm": (CrossQConfig, LIDAR, {"batch_renorm": False}, True),
    "batch_renorm_warm_up": (CrossQConfig, LIDAR, {}, 0),
    "layer_norm": (SACConfig, LIDAR, {}, True),
    "layer_norm_actor": (SACConfig, LIDAR, {}, True),
    "feature_size": (SACConfig, image_spec(), IMAGES, 5),
    "shared_encoder": (SACConfig, image_spec(), IMAGES, False),
    "asymmetric_critic": (SACConfig, PRIVILEGED, {}, True),
    "target_encoder": (SACConfig, image_spec(), IMAGES, False),
    "random_shift": (SACConfig, image_spec(), IMAGES, 3),
    "observation_normalization": (SACConfig, LIDAR, {}, Normalization.running),
    "gru_size": (RSACConfig, LIDAR, {}, 4),
}
"""Key: an algorithm, what it observes, what else is set, and the value that must change the updates."""


def train_schemas() -> dict[type, type]:
    """Class of the network by class of the configuration, for each of our algorithms with a replay memory."""
    schemas = [schema for schema in TRAIN_SCHEMAS.values() if issubclass(schema, OffPolicyTrainConfig)]
    ours = [section_types(schema) for schema in schemas if schema.__module__.startswith("algos.")]
    return {types["config"]: types["network"] for types in ours}


def names(config_type: type) -> list[str]:
    return [field.name for field in fields(config_type)]


def make(config_type: type[ReplayLearnerConfig], spec: ObservationSpec, config: Keys, network: Keys) -> Any:
    kind, own_config, own_network = ALGORITHMS[config_type]
    network_type = RecurrentNetworkConfig if kind is RSAC else NetworkConfig
    agent = kind(
        spec, config_type(**(own_config | config)), network_type(**(SMALL | own_network | network)), CPU, seed=0
    )
    if isinstance(agent, DAgger):
        agent.follow(DAgger(spec, DAggerConfig(), NetworkConfig(hidden=[8]), CPU, seed=1).acting)
    return agent


def updates(agent: ReplayAlgorithm, spec: ObservationSpec) -> list[dict[str, float]]:
    """The metrics of four updates on fixed batches."""
    history = []
    for seed in range(4):
        network = agent.network
        if isinstance(network, RecurrentNetworkConfig):
            batch: Any = random_sequences(spec, network.gru_size, seed)
        else:
            batch = random_batch(spec, 6, seed)
        history.append({name: value.item() for name, value in agent.update(batch).items()})
    return history


@pytest.fixture(autouse=True)
def _bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every processor can multiply bfloat16, if slowly."""
    monkeypatch.setattr("algos.networks.matmul.multiplies_bfloat16", lambda device: True)


def test_every_algorithm_and_every_key_has_a_case() -> None:
    schemas = train_schemas()
    assert set(schemas) == set(ALGORITHMS)
    keys = {name for config_type in schemas for name in names(config_type)}
    assert keys == set(ALGORITHM_CASES) | set(OUTSIDE)
    assert not set(ALGORITHM_CASES) & set(OUTSIDE)
    assert {name for network_type in schemas.values() for name in names(network_type)} == set(NETWORK_CASES)


@pytest.mark.parametrize(
    ("config_type", "key"),
    [(c, key) for c in ALGORITHMS for key in names(c) if key in ALGORITHM_CASES],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_key_of_an_algorithm_changes_its_updates(config_type: type[OffPolicyConfig], key: str) -> None:
    others, value = ALGORITHM_CASES[key]
    without = updates(make(config_type, LIDAR, others, {}), LIDAR)
    assert without == updates(make(config_type, LIDAR, others, {}), LIDAR)
    assert without != updates(make(config_type, LIDAR, others | {key: value}, {}), LIDAR)


@pytest.mark.parametrize(
    ("config_type", "key"),
    [(c, key) for c in ALGORITHMS for key in names(c) if key in ALGORITHM_CASES and c is not DAggerConfig],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_key_of_an_algorithm_that_changes_shapes_is_refused_with_a_checkpoint(
    config_type: type[OffPolicyConfig], key: str
) -> None:
    others, value = ALGORITHM_CASES[key]
    agents = [make(config_type, LIDAR, config, {}) for config in (others, others | {key: value})]
    one, other = ([weight.shape for weight in agent.critic.state_dict().values()] for agent in agents)
    old, new = ({"train": {"params": {"config": {key: entry}}}} for entry in ("old", "new"))
    if one == other:
        refuse_shape_changes(old, new, "a.pth", mode="resume")
        return
    with pytest.raises(ValueError, match=rf"train\.params\.config\.{key}=new would change the shape of the critics"):
        refuse_shape_changes(old, new, "a.pth", mode="resume")
    refuse_shape_changes(old, new, "a.pth", mode="replay")
    refuse_shape_changes(old, new, "a.pth", mode=None)


@pytest.mark.parametrize("key", NETWORK_CASES)
def test_key_of_the_networks_changes_the_updates(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config_type, spec, others, value = NETWORK_CASES[key]
    if key == "batch_renorm":  # no algorithm goes with both of its values
        monkeypatch.setattr("algos.algorithms.base.check_combination", lambda network, config: None)
    without = updates(make(config_type, spec, {}, others), spec)
    assert without == updates(make(config_type, spec, {}, others), spec)
    assert without != updates(make(config_type, spec, {}, others | {key: value}), spec)


@pytest.mark.parametrize("key", OUTSIDE)
def test_key_outside_of_the_update_leaves_it_alone_and_is_read_elsewhere(key: str) -> None:
    config_type = OUTSIDE_OF.get(key, SACConfig)
    agents = [make(config_type, LIDAR, config, {}) for config in ({}, {key: OUTSIDE[key]})]
    assert agents[0].config != agents[1].config
    for agent in agents:
        updates(agent, LIDAR)
    assert not changed(*(agent.acting.state_dict() for agent in agents))
    assert re.search(rf"\.{key}\b", outside_of_the_configuration()), f"nothing reads {key}"


def outside_of_the_configuration() -> str:
    """The source of all modules in algos except the dataclasses."""
    root = Path(str(algos.__file__)).parent
    files = [path for path in sorted(root.rglob("*.py")) if path.parent.name != "config"]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def test_a_switch_that_is_off_changes_nothing() -> None:
    """Switches that are null or zero by default draw no random numbers and add no layers."""
    plain = make(SACConfig, LIDAR, {}, {})
    written_out: Mapping[str, Any] = {"critic_hidden": [8, 8], "dropout": 0.0, "shared_encoder": None}
    same = SAC(LIDAR, SACConfig(), replace(plain.network, **written_out), CPU, seed=0)
    assert updates(plain, LIDAR) == updates(same, LIDAR)
