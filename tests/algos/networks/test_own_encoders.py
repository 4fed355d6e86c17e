"""Encoders that a user registers: what they are given, who trains them, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from algos.acting.policy import make_acting_policy
from algos.algorithms.sac import SAC
from algos.config import NetworkConfig, Normalization, SACConfig, network_from_plain
from algos.networks import ActingNetwork, add_encoder
from tasks.config import config_to_dict
from tasks.experience.observation import ObservationSpec
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch, random_observation
from tests.algos.encoders import LinearEncoder, PooledEncoder, forget

CASES: dict[str, tuple[ObservationSpec, str]] = {
    "image": (image_spec(2, 20, 24), "pooled"),
    "image, separate": (image_spec(2, 20, 24), "pooled_each"),
    "vector": (LIDAR, "linear"),
    "vector, separate": (LIDAR, "linear_each"),
}


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    add_encoder("pooled", PooledEncoder, reads_images=True)
    add_encoder("pooled_each", PooledEncoder, reads_images=True, is_shared=False)
    add_encoder("linear", LinearEncoder, reads_images=False)
    add_encoder("linear_each", LinearEncoder, reads_images=False, is_shared=False)
    yield
    forget("pooled", "pooled_each", "linear", "linear_each", "broken", "mine")


def make_sac(spec: ObservationSpec, encoder: str, **network: Any) -> SAC:
    config = NetworkConfig(encoder=encoder, hidden=[8], **network)
    return SAC(spec, SACConfig(polyak=0.5), config, torch.device("cpu"), seed=0)


@pytest.mark.parametrize(
    ("kind", "scale", "offset"),
    [(Normalization.fixed, 255, 102), (Normalization.tmrl, 256, 0), (Normalization.none, 1, 0)],
)
def test_an_image_arrives_as_scaled_pixels(kind: Normalization, scale: float, offset: float) -> None:
    spec = image_spec(2, 20, 24, colours=True)
    acting = ActingNetwork(spec, NetworkConfig("pooled", [8], observation_normalization=kind))
    observation = random_observation(spec, np.random.default_rng(0), 3)
    acting(observation)
    assert isinstance(acting.encoder, PooledEncoder)
    seen = acting.encoder.seen
    assert seen is not None
    assert seen.image is not None
    pixels = (
        observation["images"].permute(0, 1, 4, 2, 3).reshape(3, 6, 20, 24).float()
    )  # (B, H, y, x, C) -> (B, C, y, x)
    assert torch.allclose(seen.image, (pixels - offset) / scale, atol=1e-5)
    assert seen.vector.shape == (3, acting.inputs.vector_size)


@pytest.mark.parametrize("case", CASES)
def test_an_update_moves_every_network(case: str) -> None:
    agent = make_sac(*CASES[case])
    before = {key: t.clone() for name in ("acting", "critic") for key, t in agent.state_dict()[name].items()}
    agent.update(random_batch(CASES[case][0], 4))
    after = {key: t for name in ("acting", "critic") for key, t in agent.state_dict()[name].items()}
    assert not [key for key in before if torch.equal(before[key], after[key])]


@pytest.mark.parametrize("case", CASES)
def test_the_critics_train_a_shared_encoder_and_the_actor_its_own_if_it_has_one(case: str) -> None:
    agent = make_sac(*CASES[case])
    actors, critics = ({id(p) for p in agent._parameters[name]} for name in ("actor", "critic"))
    own = {id(p) for p in agent.acting.encoder.parameters()}
    is_separate = case.endswith("separate")
    assert len(agent.critic.encoders) == (2 if is_separate else 1)
    assert own <= (actors if is_separate else critics)
    assert not own & (critics if is_separate else actors)


def test_a_shared_encoder_works_without_a_slow_copy_and_with_shifted_images() -> None:
    agent = make_sac(CASES["image"][0], "pooled", target_encoder=False, random_shift=2)
    assert torch.isfinite(agent.update(random_batch(CASES["image"][0], 4))["losses/critic"])
    with pytest.raises(ValueError, match=r"target_encoder must be true with the encoder pooled_each"):
        NetworkConfig("pooled_each", target_encoder=False)


def test_a_policy_acts_as_the_network_that_was_trained() -> None:
    spec, name = CASES["image"]
    agent = make_sac(spec, name)
    policy = make_acting_policy(spec.to_json(), config_to_dict(agent.network), seed=0)
    policy.load_weights(agent.acting_weights(), 1)
    observation = random_observation(spec, np.random.default_rng(0), 1)
    mean, _ = agent.acting(observation)
    action = policy.act({name: tensor[0].numpy() for name, tensor in observation.items()}, deterministic=True)
    np.testing.assert_allclose(action, mean[0].detach().tanh().numpy(), atol=1e-6)


def test_plain_data_names_it() -> None:
    network = NetworkConfig("pooled")
    assert config_to_dict(network)["encoder"] == "pooled"
    assert network_from_plain(config_to_dict(network)) == network


def test_an_unknown_name_is_refused_with_all_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"encoder must be one of .*'mlp'.*'compact_cnn', 'pooled'.*got 'poold'"):
        NetworkConfig("poold")


def test_a_name_belongs_to_one_encoder() -> None:
    add_encoder("pooled", PooledEncoder, reads_images=True)  # the same again
    for name, builder in (("pooled", LinearEncoder), ("mlp", LinearEncoder), ("tmrl_cnn", PooledEncoder)):
        with pytest.raises(ValueError, match=f"the encoder name '{name}' is taken"):
            add_encoder(name, builder, reads_images=True)
    with pytest.raises(ValueError, match="is taken"):
        add_encoder("mlp", LinearEncoder, reads_images=False)
    with pytest.raises(ValueError, match="name of an encoder must be letters"):
        add_encoder("my encoder", LinearEncoder, reads_images=False)
    NetworkConfig("mlp")


def test_a_module_without_a_size_is_refused() -> None:
    add_encoder("broken", lambda inputs, config: nn.Flatten(), reads_images=False)
    with pytest.raises(
        ValueError, match=r"encoder broken must give an nn\.Module whose size is .* got Flatten with size None"
    ):
        ActingNetwork(LIDAR, NetworkConfig("broken"))


def test_one_that_reads_images_needs_exactly_one() -> None:
    with pytest.raises(ValueError, match=r"encoder pooled needs an observation with exactly one image, got \[\]"):
        ActingNetwork(LIDAR, NetworkConfig("pooled"))
