"""TQC's update against a derivation by hand, its loss against second methods, and what truncation does."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from algos.algorithms.tqc import TQC, quantile_huber_loss
from algos.config import NetworkConfig, TQCConfig
from tasks.experience.observation import ObservationSpec
from tests.algos.agents import FIXED
from tests.algos.algorithms.redq_by_hand import Temperature
from tests.algos.algorithms.sac_batches import LIDAR, random_batch
from tests.algos.algorithms.sac_by_hand import Adam
from tests.algos.algorithms.test_redq import transitions
from tests.algos.algorithms.test_sac import (
    CPU,
    NETWORKS,
    SMALL,
    actor_by_hand,
    changed,
    compare_layers,
    critics_by_hand,
    same,
    snapshot,
)
from tests.algos.algorithms.tqc_by_hand import HandTQC, quantile_huber


def make_tqc(
    spec: ObservationSpec = LIDAR, network: NetworkConfig = SMALL, dtype: torch.dtype = torch.float32, **config: Any
) -> TQC:
    return TQC(spec, TQCConfig(**({"num_critics": 2} | FIXED | config)), network, CPU, seed=0, dtype=dtype)


GOLDEN: dict[str, dict[str, Any]] = {
    "the paper's": {"num_critics": 3, "num_quantiles": 5, "dropped_quantiles": 2},
    "nothing dropped": {"num_critics": 2, "num_quantiles": 4, "dropped_quantiles": 0},
    "one quantile": {"num_critics": 2, "num_quantiles": 1, "dropped_quantiles": 0},
    "one critic": {"num_critics": 1, "num_quantiles": 3, "dropped_quantiles": 2},
}


@pytest.mark.parametrize("name", GOLDEN)
def test_update_equals_derivation_by_hand(name: str) -> None:
    agent = make_tqc(
        dtype=torch.float64,
        learn_entropy_coef=True,
        alpha=0.04,
        alpha_max=0.0401,
        target_entropy=1.5,
        lr_actor=1e-3,
        lr_critic=2e-3,
        lr_entropy=1e-3,
        polyak=0.9,
        **GOLDEN[name],
    )
    config = agent.config
    hand = HandTQC(
        actor=actor_by_hand(agent),
        critics=critics_by_hand(agent.critic),
        targets=critics_by_hand(agent.target_critic),
        temperature=Temperature(
            np.array(math.log(0.04)), 1.5, Adam(1e-3), (math.log(config.alpha_min), math.log(0.0401))
        ),
        polyak=0.9,
        dropped=config.dropped_quantiles,
        actor_adam=Adam(1e-3),
        critic_adams=[Adam(2e-3) for _ in range(config.num_critics)],
    )
    generator = torch.Generator()
    generator.set_state(agent.state_dict()["generator"])
    for seed in range(5):
        noises = [torch.randn((8, 3), generator=generator, dtype=torch.float64).numpy() for _ in range(2)]
        expected = hand.update(transitions(seed), *noises)
        metrics = agent.update(random_batch(LIDAR, 8, seed))
        assert {key: float(value) for key, value in metrics.items()} == pytest.approx(expected, rel=1e-10, abs=1e-10)
        assert agent.log_alpha.item() == pytest.approx(float(hand.temperature.log_alpha), abs=1e-10)
        compare_layers([actor_by_hand(agent)], [hand.actor])
        compare_layers(critics_by_hand(agent.critic), hand.critics)
        compare_layers(critics_by_hand(agent.target_critic), hand.targets)


def test_loss_and_gradient_equal_the_textbook_formula_near_and_far() -> None:
    rng = np.random.default_rng(0)
    theta, atoms = 2 * rng.normal(size=(2, 3, 6)), 2 * rng.normal(size=(3, 9))
    quantiles = torch.tensor(theta, requires_grad=True)
    loss = quantile_huber_loss(quantiles, torch.tensor(atoms))
    (slope,) = torch.autograd.grad(loss, quantiles)
    by_hand = [[quantile_huber(theta[n, b], atoms[b]) for b in range(3)] for n in range(2)]
    assert loss.item() == pytest.approx(np.mean([value for row in by_hand for value, _ in row]), abs=1e-12)
    gradient = np.array([[g for _, g in row] for row in by_hand]) / 6
    np.testing.assert_allclose(slope.numpy(), gradient, rtol=0, atol=1e-12)
    difference = np.abs(atoms[None, :, None, :] - theta[..., None])
    assert 0.2 < np.mean(difference > 1) < 0.8  # both branches of Huber's function were met


def test_with_one_quantile_the_loss_is_half_of_hubers() -> None:
    """tau = 1/2 weighs both sides alike."""
    q, target = torch.randn(2, 50, 1), 2 * torch.randn(50, 1)
    expected = 0.5 * functional.huber_loss(q, target.expand(2, 50, 1))
    torch.testing.assert_close(quantile_huber_loss(q, target), expected)


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_the_loss_is_smallest_at_the_quantiles_of_the_target(side: float) -> None:
    """Atoms far apart make Huber's function the absolute value, whose minimum is the quantile itself."""
    atoms = 1000.0 * torch.randperm(1000).double()[None]
    quantiles = torch.tensor([125.0, 375.0, 625.0, 875.0], dtype=torch.float64)[None, None] * 1000.0
    beside = (quantiles + side * 2000.0).requires_grad_()
    slope = torch.autograd.grad(quantile_huber_loss(beside, atoms), beside)[0]
    assert torch.equal(slope.sign(), torch.full_like(slope, side))


def test_the_largest_quantiles_of_the_pool_are_dropped_whichever_critic_gave_them() -> None:
    agent = make_tqc(num_critics=2, num_quantiles=3, dropped_quantiles=1)
    q = torch.tensor([[[5.0, 9.0, 8.0]], [[1.0, 2.0, 7.0]]])  # (N=2, B=1, K=3): the first critic loses both
    assert agent.next_value(q)[:, 0].tolist() == [1.0, 2.0, 5.0, 7.0]
    assert agent.policy_value(q).tolist() == pytest.approx([32 / 6])


def test_targets_fall_as_more_quantiles_are_dropped() -> None:
    means = []
    for dropped in range(5):
        agent = make_tqc(num_quantiles=5, dropped_quantiles=dropped)
        batch = random_batch(LIDAR)._replace(terminated=torch.zeros(8))
        target = agent.target(batch, agent.acting.inputs(batch.next_observation))
        assert target.shape == (2 * (5 - dropped), 8)
        means.append(target.mean(0))
    assert all((more < less).all() for less, more in pairwise(means))


def test_a_terminal_target_is_the_reward_in_every_atom() -> None:
    agent = make_tqc()
    batch = random_batch(LIDAR)._replace(terminated=torch.ones(8))
    target = agent.target(batch, agent.acting.inputs(batch.next_observation))
    assert torch.equal(target, batch.reward.expand(46, 8))


OPTIONS: dict[str, Any] = {"num_quantiles": 7, "dropped_quantiles": 0, "num_critics": 3, "polyak": 0.9, "alpha": 0.05}


def weights_after(**config: Any) -> dict[str, torch.Tensor]:
    agent = make_tqc(**({"num_quantiles": 6} | config))
    for _ in range(3):
        agent.update(random_batch(LIDAR))
    return snapshot(agent)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_the_update(option: str) -> None:
    assert same(weights_after(), weights_after())
    one, other = weights_after(), weights_after(**{option: OPTIONS[option]})
    assert any(name.startswith("acting.") for name in changed(one, other)), "the policy that comes out is the same"


@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns_with_every_encoder(name: str) -> None:
    spec, network = NETWORKS[name]
    agent = make_tqc(spec, network, learn_entropy_coef=True, num_quantiles=4, dropped_quantiles=1)
    before = snapshot(agent)
    for seed in range(2):
        metrics = agent.update(random_batch(spec, 4, seed))
        assert all(torch.isfinite(value) for value in metrics.values())
    assert changed(before, snapshot(agent)) == set(before)
    assert agent.critic.ensemble.head.weight.shape[::2] == (2, 4)


def test_its_critics_learn_the_distribution_of_a_random_reward() -> None:
    """Every step ends the episode with a reward of 0 or 4, so that the minimum of the loss is known.

    At a quantile q < 1 of level tau < 1/2 its slope is (1 - tau) q - tau, that is 0 at q = tau / (1 - tau).
    """
    agent = make_tqc(num_quantiles=4, dropped_quantiles=1, lr_critic=3e-3, alpha=0.0)
    batch = random_batch(LIDAR, 64)
    ones = torch.ones(64)
    rng = np.random.default_rng(0)
    for _ in range(600):
        reward = torch.from_numpy(4.0 * rng.integers(0, 2, 64).astype(np.float32))
        agent.update(batch._replace(reward=reward, terminated=ones))
    with torch.no_grad():
        features = agent.critic.encode(agent.acting.inputs(agent._to_device(batch).observation))
        quantiles = agent.critic(features, batch.action).mean((0, 1))
    assert quantiles.tolist() == pytest.approx([1 / 7, 3 / 5, 4 - 3 / 5, 4 - 1 / 7], abs=0.15)
