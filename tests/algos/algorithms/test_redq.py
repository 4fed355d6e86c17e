"""REDQ's update against a derivation by hand, against SAC, and against the paper's statements on its target."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from algos.algorithms.redq import REDQ
from algos.algorithms.sac import SAC
from algos.config import EncoderKind, NetworkConfig, PolicyValue, REDQConfig, SACConfig
from tasks.experience.observation import ObservationSpec
from tests.algos.agents import FIXED
from tests.algos.algorithms.redq_by_hand import HandREDQ, Temperature, Transitions
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch
from tests.algos.algorithms.sac_by_hand import Adam
from tests.algos.algorithms.test_sac import (
    CPU,
    NETWORKS,
    SMALL,
    actor_by_hand,
    changed,
    compare_layers,
    critics_by_hand,
    same,
    scaled,
    snapshot,
)


def make_redq(
    spec: ObservationSpec = LIDAR, network: NetworkConfig = SMALL, dtype: torch.dtype = torch.float32, **config: Any
) -> REDQ:
    return REDQ(spec, REDQConfig(**(FIXED | config)), network, CPU, seed=0, dtype=dtype)


def transitions(seed: int, batch_size: int = 8) -> Transitions:
    """The batch of this seed as the derivations take it."""
    batch = random_batch(LIDAR, batch_size, seed)
    action, reward, discount, terminated = (
        t.double().numpy() for t in (batch.action, batch.reward, batch.discount, batch.terminated)
    )
    return Transitions(scaled(batch.observation), action, reward, discount, scaled(batch.next_observation), terminated)


GOLDEN: dict[str, dict[str, Any]] = {
    "the paper's reductions": {"redq_n": 5, "redq_m": 2, "redq_q_updates_per_policy_update": 3},
    "one of four, the smallest climbed": {
        "redq_n": 4,
        "redq_m": 1,
        "redq_q_updates_per_policy_update": 2,
        "policy_value": PolicyValue.min,
    },
    "all of three": {"redq_n": 3, "redq_m": 3, "redq_q_updates_per_policy_update": 1},
    "a single critic": {"redq_n": 1, "redq_m": 1, "redq_q_updates_per_policy_update": 1},
}


@pytest.mark.parametrize("name", GOLDEN)
def test_update_equals_derivation_by_hand(name: str) -> None:
    agent = make_redq(
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
    hand = HandREDQ(
        actor=actor_by_hand(agent),
        critics=critics_by_hand(agent.critic),
        targets=critics_by_hand(agent.target_critic),
        temperature=Temperature(
            np.array(math.log(0.04)), 1.5, Adam(1e-3), (math.log(config.alpha_min), math.log(0.0401))
        ),
        polyak=0.9,
        has_mean=config.policy_value is PolicyValue.mean,
        actor_adam=Adam(1e-3),
        critic_adams=[Adam(2e-3) for _ in range(config.redq_n)],
    )
    generator = torch.Generator()
    generator.set_state(agent.state_dict()["generator"])

    def noise() -> np.ndarray:
        return torch.randn((8, 3), generator=generator, dtype=torch.float64).numpy()

    for seed in range(7):
        next_noise = noise()
        subset = list(range(config.redq_n))
        if config.redq_m < config.redq_n:
            subset = torch.randperm(config.redq_n, generator=generator)[: config.redq_m].tolist()
        has_policy_update = seed % config.redq_q_updates_per_policy_update == 0
        expected = hand.update(transitions(seed), subset, next_noise, noise() if has_policy_update else None)
        metrics = agent.update(random_batch(LIDAR, 8, seed))
        assert {key: float(value) for key, value in metrics.items()} == pytest.approx(expected, rel=1e-10, abs=1e-10)
        assert agent.log_alpha.item() == pytest.approx(float(hand.temperature.log_alpha), abs=1e-10)
        compare_layers([actor_by_hand(agent)], [hand.actor])
        compare_layers(critics_by_hand(agent.critic), hand.critics)
        compare_layers(critics_by_hand(agent.target_critic), hand.targets)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("is_learned", [False, True], ids=["fixed temperature", "learned temperature"])
def test_with_two_of_two_critics_and_the_smallest_climbed_it_is_sac_bit_for_bit(name: str, is_learned: bool) -> None:
    spec, network = NETWORKS[name]
    shared: dict[str, Any] = {"learn_entropy_coef": is_learned, "alpha": 0.03}
    sac = SAC(spec, SACConfig(**(FIXED | shared)), network, CPU, seed=0)
    redq = make_redq(
        spec,
        network,
        redq_n=2,
        redq_m=2,
        redq_q_updates_per_policy_update=1,
        policy_value=PolicyValue.min,
        **shared,
    )
    for seed in range(40 if name == "mlp" else 3):
        batch = random_batch(spec, 4, seed)
        expected, metrics = sac.update(batch), redq.update(batch)
        assert metrics.pop("train/q_spread") > 0
        assert metrics.keys() == expected.keys()
        assert all(torch.equal(metrics[key], expected[key]) for key in expected)
    assert same(snapshot(sac), snapshot(redq))
    assert torch.equal(sac.alpha, redq.alpha)
    assert torch.equal(sac.state_dict()["generator"], redq.state_dict()["generator"])


OPTIONS: dict[str, Any] = {
    "redq_m": 3,
    "redq_q_updates_per_policy_update": 3,
    "policy_value": PolicyValue.min,
    "polyak": 0.9,
}


def weights_after(updates: int = 4, **config: Any) -> dict[str, torch.Tensor]:
    agent = make_redq(**({"redq_n": 4, "redq_q_updates_per_policy_update": 1} | config))
    for _ in range(updates):
        agent.update(random_batch(LIDAR))
    return snapshot(agent)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_the_update(option: str) -> None:
    assert same(weights_after(), weights_after())
    assert changed(weights_after(), weights_after(**{option: OPTIONS[option]}))


def test_the_number_of_critics_changes_what_the_policy_climbs() -> None:
    shared: dict[str, Any] = {"redq_q_updates_per_policy_update": 1, "redq_m": 1, "redq_n": 1}
    one, many = make_redq(**shared), make_redq(**(shared | {"redq_n": 7}))
    many.acting.load_state_dict(one.acting.state_dict())
    one.update(random_batch(LIDAR))
    many.update(random_batch(LIDAR))
    assert many.critic.ensemble.head.weight.shape[0] == 7
    assert changed(one.acting.state_dict(), many.acting.state_dict())


def test_every_subset_of_m_critics_is_drawn_equally_often() -> None:
    agent = make_redq(redq_n=5, redq_m=2)
    values = 2.0 ** torch.arange(5)[:, None].expand(5, 3)  # the smallest of a pair names its lower member
    draws = 2000
    counts = Counter(int(math.log2(agent.next_value(values)[0])) for _ in range(draws))
    for lower in range(5):
        share = (4 - lower) / 10  # pairs with this lower member, of 10
        assert abs(counts[lower] - draws * share) <= 5 * math.sqrt(draws * share * (1 - share))


def test_one_draw_serves_the_whole_batch() -> None:
    agent = make_redq(redq_n=6, redq_m=1)
    values = torch.arange(6.0)[:, None].expand(6, 50)
    assert all(agent.next_value(values).unique().numel() == 1 for _ in range(20))


def test_with_m_equal_n_nothing_is_drawn() -> None:
    agent = make_redq(redq_n=4, redq_m=4)
    before = agent.state_dict()["generator"]
    agent.next_value(torch.zeros(4, 2))
    assert torch.equal(before, agent.state_dict()["generator"])


@pytest.mark.parametrize("period", [1, 2, 20])
def test_a_learned_temperature_moves_with_the_policy_and_only_then(period: int) -> None:
    """The reference crashes here for any period above 1."""
    agent = make_redq(redq_n=3, redq_q_updates_per_policy_update=period, learn_entropy_coef=True)
    for seed in range(period + 2):
        before = agent.alpha
        metrics = agent.update(random_batch(LIDAR, 4, seed))
        is_due = seed % period == 0
        assert (agent.alpha != before) == is_due
        assert ("losses/temperature" in metrics) == is_due
        assert ("losses/actor" in metrics) == is_due


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "mlp"])
def test_it_learns_from_images_with_every_encoder(name: str) -> None:
    spec, network = NETWORKS[name]
    agent = make_redq(spec, network, redq_n=4, redq_q_updates_per_policy_update=2, learn_entropy_coef=True)
    before = snapshot(agent)
    for seed in range(2):
        metrics = agent.update(random_batch(spec, 4, seed))
        assert all(torch.isfinite(value) for value in metrics.values())
    assert changed(before, snapshot(agent)) == set(before)
    assert agent.critic.ensemble.head.weight.shape[0] == 4


def test_how_a_critic_learns_does_not_depend_on_how_many_there_are() -> None:
    """The loss is the mean over critics, the authors' N times that; Adam's steps are the same."""
    steps = {}
    for count in (1, 6):
        agent = make_redq(redq_n=count, redq_m=1, dtype=torch.float64)
        with torch.no_grad():
            for parameter in agent.critic.parameters():
                parameter.copy_(torch.linspace(-0.3, 0.3, parameter[0].numel()).view(parameter[:1].shape))
        batch = agent._to_device(random_batch(LIDAR))
        features = agent.critic.encode(agent.acting.inputs(batch.observation))
        loss, _ = agent.critic_loss(features, batch.action, batch.reward)
        agent.descend("critic", loss)
        steps[count] = [parameter[0].detach().clone() for parameter in agent.critic.parameters()]
    for one, other in zip(steps[1], steps[6], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.01 * agent.config.lr_critic)  # Adam's epsilon


def expected_bias(num_drawn: int, num_actions: int) -> float:
    """E max over actions of the min over critics of errors uniform in [-1, 1], by numeric integration.

    The minimum of M exceeds x with probability ((1 - x) / 2)^M; E Z = 1 - integral of P(Z <= x) over [-1, 1].
    """
    x = np.linspace(-1.0, 1.0, 20001)
    below = (1.0 - ((1.0 - x) / 2.0) ** num_drawn) ** num_actions
    return float(1.0 - np.trapezoid(below, x))


@pytest.mark.parametrize("num_critics", [4, 10])
def test_the_bias_of_the_target_falls_with_m_and_does_not_depend_on_n(num_critics: int) -> None:
    """Theorem 1 of the paper: critics err independently, the policy takes the action that looks best."""
    num_actions, trials = 8, 40_000
    generator = torch.Generator().manual_seed(0)
    errors = 2 * torch.rand((num_critics, trials * num_actions), generator=generator, dtype=torch.float64) - 1
    biases = []
    for num_drawn in range(1, 5):
        agent = make_redq(redq_n=num_critics, redq_m=num_drawn)
        best = agent.next_value(errors).view(trials, num_actions).amax(1)
        error_of_mean = best.std().item() / math.sqrt(trials)
        assert abs(best.mean().item() - expected_bias(num_drawn, num_actions)) < 5 * error_of_mean
        biases.append(best.mean().item())
    assert biases == sorted(biases, reverse=True)
    assert biases[0] > 0 > biases[3]  # M = 1 overestimates, large M underestimates


def test_a_small_image_network_shares_its_encoder_among_all_critics() -> None:
    network = NetworkConfig(encoder=EncoderKind.compact_cnn, hidden=[16], feature_size=8)
    agents = [make_redq(image_spec(), network, redq_n=count, redq_m=1) for count in (1, 10)]
    sizes = [sum(p.numel() for p in agent.critic.encoders.parameters()) for agent in agents]
    assert sizes[0] == sizes[1]
