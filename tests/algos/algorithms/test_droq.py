"""DroQ's update against a derivation by hand with the masks of its dropout, and what must hold around it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from algos.algorithms.droq import DroQ
from algos.config import DroQConfig, EncoderKind, NetworkConfig
from algos.networks import Dropout
from tests.algos.agents import (
    CPU,
    FIXED,
    actor_layers,
    assert_close,
    assert_goes_on_bit_equal,
    changed,
    plain_columns,
    scaled_lidar,
    snapshot,
    stacked_layers,
)
from tests.algos.algorithms.droq_by_hand import Critic, HandDroQ
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch
from tests.algos.algorithms.sac_by_hand import Adam, flat

SHARE = 0.25
WIDTHS = [16, 12]
NETWORK = NetworkConfig(hidden=WIDTHS, dropout=SHARE, layer_norm=True)


def make_droq(network: NetworkConfig = NETWORK, dtype: torch.dtype = torch.float32, **config: Any) -> DroQ:
    return DroQ(LIDAR, DroQConfig(**(FIXED | config)), network, CPU, seed=0, dtype=dtype)


def critics_by_hand(module: torch.nn.Module) -> list[Critic]:
    linears = ["ensemble.hidden.0", "ensemble.hidden.1", "ensemble.head"]
    norms = ["ensemble.norms.0", "ensemble.norms.1"]
    count = module.state_dict()["ensemble.head.weight"].shape[0]
    return [Critic(stacked_layers(module, linears, i), stacked_layers(module, norms, i)) for i in range(count)]


def arrays(critics: list[Critic]) -> list[np.ndarray]:
    return [array for critic in critics for array in critic.arrays()]


class Draws:
    """The noise and the masks that an agent will draw, in float64."""

    def __init__(self, agent: DroQ, batch_size: int = 8, num_critics: int = 2) -> None:
        self._generator = torch.Generator()
        self._generator.set_state(agent.state_dict()["generator"])
        self._batch, self._critics = batch_size, num_critics

    def noise(self) -> np.ndarray:
        return torch.randn((self._batch, 3), generator=self._generator, dtype=torch.float64).numpy()

    def masks(self) -> list[np.ndarray]:
        masks = []
        for width in WIDTHS:
            kept = torch.empty(self._critics, self._batch, width, dtype=torch.float64)
            masks.append(kept.bernoulli_(1 - SHARE, generator=self._generator).numpy() / (1 - SHARE))
        return masks


def test_update_equals_derivation_by_hand() -> None:
    agent = make_droq(
        dtype=torch.float64,
        policy_delay=2,
        learn_entropy_coef=True,
        alpha=0.04,
        target_entropy=1.5,
        lr_actor=1e-3,
        lr_critic=2e-3,
        lr_entropy=1e-3,
        polyak=0.9,
    )
    hand = HandDroQ(
        actor=actor_layers(agent),
        critics=critics_by_hand(agent.critic),
        targets=critics_by_hand(agent.target_critic),
        log_alpha=np.array(math.log(0.04)),
        target_entropy=1.5,
        polyak=0.9,
        actor_adam=Adam(1e-3),
        critic_adam=Adam(2e-3),
        alpha_adam=Adam(1e-3),
    )
    draws = Draws(agent)
    for index in range(5):
        batch = random_batch(LIDAR, 8, index)
        noise, target_masks, masks = draws.noise(), draws.masks(), draws.masks()
        critic_loss = hand.update_critics(*plain_columns(batch), noise, target_masks, masks)
        metrics = agent.update(batch)
        assert metrics["losses/critic"].item() == pytest.approx(critic_loss, abs=1e-10)
        assert ("losses/actor" in metrics) == (index % 2 == 0)
        if index % 2 == 0:
            actor_loss = hand.update_actor(scaled_lidar(batch.observation), draws.noise(), draws.masks())
            assert metrics["losses/actor"].item() == pytest.approx(actor_loss, abs=1e-10)
        hand.update_targets()
        assert agent.log_alpha.item() == pytest.approx(float(hand.log_alpha), abs=1e-10)
        assert_close(flat(actor_layers(agent)), flat(hand.actor))
        assert_close(arrays(critics_by_hand(agent.critic)), arrays(hand.critics))
        assert_close(arrays(critics_by_hand(agent.target_critic)), arrays(hand.targets))


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    layer = Dropout(0.2)
    layer.generator = torch.Generator().manual_seed(0)
    outputs = layer(torch.ones(200, 500))
    assert set(outputs.unique().tolist()) == {0.0, 1.25}
    # 100,000 draws: the share of zeros has a standard deviation of 0.0013
    assert (outputs == 0).double().mean().item() == pytest.approx(0.2, abs=0.007)


def test_dropout_of_zero_draws_nothing() -> None:
    layer = Dropout(0.0)
    layer.generator = torch.Generator().manual_seed(0)
    before = layer.generator.get_state()
    inputs = torch.ones(3)
    assert layer(inputs) is inputs
    assert torch.equal(layer.generator.get_state(), before)


def test_dropout_acts_in_critics_and_targets_and_not_in_the_actor() -> None:
    agent = make_droq()
    features, action = torch.randn(8, 83), torch.zeros(8, 3)
    for critic in (agent.critic, agent.target_critic):
        assert not torch.equal(critic(features, action), critic(features, action))
    for one, two in zip(agent.acting.actor(features), agent.acting.actor(features), strict=True):
        assert torch.equal(one, two)


def test_masks_come_from_the_generator_of_the_algorithm() -> None:
    agents = make_droq(), make_droq()
    batch = random_batch(LIDAR)
    for seed, agent in enumerate(agents):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        agent.update(batch)
        assert torch.equal(torch.get_rng_state(), before), "the global generator was drawn from"
    assert not changed(snapshot(agents[0]), snapshot(agents[1]))


@pytest.mark.parametrize("encoder", [EncoderKind.mlp, EncoderKind.compact_cnn, EncoderKind.tmrl_cnn])
def test_saved_and_loaded_agent_goes_on_bit_equal(encoder: EncoderKind) -> None:
    spec = LIDAR if encoder is EncoderKind.mlp else image_spec()
    network = replace(NETWORK, hidden=[16], encoder=encoder)
    assert_goes_on_bit_equal(DroQ, DroQConfig(policy_delay=2, learn_entropy_coef=True), network, spec)


def test_actor_climbs_the_mean_of_the_critics() -> None:
    q = torch.tensor([[1.0, 4.0], [3.0, -2.0]])
    assert make_droq().policy_value(q).tolist() == [2.0, 1.0]
    assert make_droq().next_value(q).tolist() == [1.0, -2.0]
