"""The asymmetric critic: what it sees, what it learns from it, and that nothing of it reaches what acts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from algos.acting.policy import ActingPolicy
from algos.algorithms.crossq import CrossQ
from algos.algorithms.droq import DroQ
from algos.algorithms.redq import REDQ
from algos.algorithms.sac import SAC
from algos.algorithms.tqc import TQC
from algos.config import (
    BodyKind,
    CrossQConfig,
    DroQConfig,
    EncoderKind,
    NetworkConfig,
    Normalization,
    OffPolicyConfig,
    Precision,
    REDQConfig,
    SACConfig,
    TQCConfig,
    WarmUp,
    network_from_plain,
)
from algos.networks import ActingNetwork, PrivilegedLayer, build_networks
from algos.replay.memory import Batch
from tasks.config import config_to_dict
from tasks.experience.observation import Field, ObservationSpec
from tests.algos.agents import (
    CPU,
    FIXED,
    actor_layers,
    assert_close,
    assert_goes_on_bit_equal,
    changed,
    scaled_lidar,
    snapshot,
)
from tests.algos.agents import stacked_layers as layers_of
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch, random_observation
from tests.algos.algorithms.sac_by_hand import Adam, HandSAC, flat

PLACE = Field("place", (2,), low=-10.0, high=10.0, scale=4.0, offset=1.0, privileged=True)
BEND = Field("bend", (1,), low=-1.0, high=1.0, scale=0.1, privileged=True)
LAYERS = ["ensemble.hidden.0", "ensemble.hidden.1", "ensemble.head"]


def widened(spec: ObservationSpec) -> ObservationSpec:
    return replace(spec, fields=(*spec.fields, PLACE, BEND))


SMALL = NetworkConfig(hidden=[16, 12], asymmetric_critic=True)
ENCODERS = (EncoderKind.compact_cnn, EncoderKind.shared_cnn, EncoderKind.tmrl_cnn)
IMAGES = {kind: NetworkConfig(encoder=kind, hidden=[16], feature_size=8, asymmetric_critic=True) for kind in ENCODERS}
CASES: dict[str, tuple[ObservationSpec, NetworkConfig]] = {
    "mlp": (widened(LIDAR), SMALL),
    "dense": (widened(LIDAR), replace(SMALL, encoder=EncoderKind.dense, feature_size=8)),
    **{kind.name: (widened(image_spec()), network) for kind, network in IMAGES.items()},
}


def make(case: str = "mlp", dtype: torch.dtype = torch.float32, **config: Any) -> SAC:
    spec, network = CASES[case]
    return SAC(spec, SACConfig(**(FIXED | config)), network, CPU, seed=0, dtype=dtype)


def with_other_truth(observation: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**observation, "place": observation["place"] + 3.0, "bend": -observation["bend"]}


@pytest.mark.parametrize("case", CASES)
def test_the_critic_sees_the_privileged_fields_and_the_actor_does_not(case: str) -> None:
    agent = make(case)
    batch = random_batch(CASES[case][0], 4)
    one, other = agent._inputs(batch.observation), agent._inputs(with_other_truth(batch.observation))
    assert not torch.equal(
        agent.critic(agent.critic.encode(one), batch.action), agent.critic(agent.critic.encode(other), batch.action)
    )
    for got, expected in zip(
        agent.acting(with_other_truth(batch.observation)), agent.acting(batch.observation), strict=True
    ):
        assert torch.equal(got, expected)
    assert torch.equal(agent.acting.encoder(one), agent.acting.encoder(other))


@pytest.mark.parametrize("case", CASES)
def test_the_critic_sees_every_field_but_the_image_in_order_and_scaled(case: str) -> None:
    spec, _ = CASES[case]
    agent = make(case, torch.float64)
    observation = agent._to_device(random_batch(spec, 4)).observation
    features = agent.critic.encode(agent._inputs(observation))
    seen = [*(f for f in spec.visible.all_fields() if f.name != "images"), PLACE, BEND]
    expected = torch.cat([(observation[f.name].flatten(1) - f.offset) / f.scale for f in seen], 1)
    assert torch.allclose(features, expected, rtol=0, atol=1e-12)
    beside = {name.partition(".")[0] for name, _ in agent.critic.named_parameters()} - {"ensemble"}
    assert beside == set()
    assert (agent.estimator is None) == (case == "mlp")


@pytest.mark.parametrize("kind", [Normalization.running, Normalization.tmrl, Normalization.none])
def test_privileged_fields_are_scaled_by_their_own_scale_whatever_the_others_are(kind: Normalization) -> None:
    spec = widened(LIDAR)
    agent = SAC(spec, SACConfig(), replace(SMALL, observation_normalization=kind), CPU, seed=0)
    batch = random_batch(spec, 16)
    agent.update(batch)
    inputs = agent._inputs(batch.observation)
    assert inputs.privileged is not None
    assert torch.allclose(inputs.privileged[:, :2], (batch.observation["place"] - 1.0) / 4.0)
    assert torch.allclose(inputs.privileged[:, 2:], batch.observation["bend"] / 0.1)
    assert torch.equal(agent.critic.encode(inputs)[:, :-3], inputs.vector)


def test_update_equals_derivation_by_hand() -> None:
    """The derivation of SAC, whose actor has weights of zero for what it does not see."""
    agent = make(dtype=torch.float64, learn_entropy_coef=True, alpha=0.04, alpha_max=0.05, polyak=0.9, lr_actor=1e-3)
    hand = hand_agent(agent)
    generator = torch.Generator()
    generator.set_state(agent.state_dict()["generator"])
    for seed in range(5):
        batch = random_batch(widened(LIDAR), 8, seed)
        noises = [torch.randn((8, 3), generator=generator, dtype=torch.float64).numpy() for _ in range(2)]
        expected = hand.update(
            seen_by_critic(batch.observation),
            batch.action.double().numpy(),
            batch.reward.double().numpy(),
            batch.discount.double().numpy(),
            seen_by_critic(batch.next_observation),
            batch.terminated.double().numpy(),
            (noises[0], noises[1]),
        )
        hand.actor[0][0][-3:] = 0.0
        metrics = agent.update(batch)
        assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected, rel=1e-10, abs=1e-10)
        assert_close(flat(actor_layers(agent)), [hand.actor[0][0][:-3], *flat(hand.actor)[1:]])
        for index in range(2):
            assert_close(flat(layers_of(agent.critic, LAYERS, index)), flat(hand.critics[index]))
            assert_close(flat(layers_of(agent.target_critic, LAYERS, index)), flat(hand.targets[index]))


def hand_agent(agent: SAC) -> HandSAC:
    actor = actor_layers(agent)
    weight, bias = actor[0]
    return HandSAC(
        actor=[(np.concatenate([weight, np.zeros((3, weight.shape[1]))]), bias), *actor[1:]],
        critics=[layers_of(agent.critic, LAYERS, index) for index in range(2)],
        targets=[layers_of(agent.target_critic, LAYERS, index) for index in range(2)],
        log_alpha=np.array(math.log(0.04)),
        target_entropy=-3.0,
        polyak=0.9,
        actor_adam=Adam(1e-3),
        critic_adam=Adam(3e-4),
        alpha_adam=Adam(3e-4),
        log_alpha_bounds=(math.log(1e-4), math.log(0.05)),
    )


def seen_by_critic(observation: dict[str, torch.Tensor]) -> np.ndarray:
    place, bend = (observation[name].double().numpy() for name in ("place", "bend"))
    return np.concatenate([scaled_lidar(observation), (place - 1.0) / 4.0, bend / 0.1], axis=1)


@pytest.mark.parametrize("case", list(CASES)[1:])
def test_the_encoder_learns_in_the_critics_step_and_the_actors_step_leaves_it(case: str) -> None:
    agent = make(case, policy_delay=2)
    agent.num_updates = 1  # this update is the critics' alone
    before = snapshot(agent)
    agent.update(random_batch(CASES[case][0], 4))
    moved = changed(before, snapshot(agent))
    assert moved == {name for name in before if not name.startswith("acting.actor.")}
    encoder = {id(parameter) for parameter in agent.acting.encoder.parameters()}
    assert encoder
    assert not encoder & {id(parameter) for parameter in agent._parameters["actor"]}
    agent.update(random_batch(CASES[case][0], 4))
    assert set(changed(before, snapshot(agent))) == set(before)


def test_the_loss_of_the_estimate_is_that_of_a_gaussian_with_the_batchs_own_variance() -> None:
    agent = make("compact_cnn", torch.float64)
    observation = agent._to_device(random_batch(CASES["compact_cnn"][0], 5)).observation
    inputs = agent._inputs(observation)
    assert agent.estimator is not None
    loss, features = agent.estimation_loss(inputs)
    assert torch.equal(features, agent.acting.encoder(inputs))
    weight, bias = (tensor.detach().numpy() for tensor in agent.estimator.parameters())
    truth = np.concatenate([(observation["place"].numpy() - 1.0) / 4.0, observation["bend"].numpy() / 0.1], axis=1)
    error = np.square(features.detach().numpy() @ weight.T + bias - truth).mean(0)
    expected = 0.5 * np.log(error + 1e-6).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_in_bfloat16_the_estimate_is_nearly_that_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("algos.networks.matmul.multiplies_bfloat16", lambda device: True)
    spec, _ = CASES["compact_cnn"]
    exact, rounded = (make("compact_cnn", precision=precision) for precision in (Precision.float32, Precision.bfloat16))
    for seed in range(3):
        expected, got = (agent.update(random_batch(spec, 32, seed))["losses/estimation"] for agent in (exact, rounded))
        assert got.dtype == torch.float32
        assert got != expected
        assert got.item() == pytest.approx(expected.item(), rel=0.05)


@pytest.mark.parametrize("name", ["SAC", "CrossQ"])
def test_the_encoder_comes_to_show_what_the_image_shows_of_the_privileged_fields(name: str) -> None:
    """The bend makes the image bright; nothing shows the place, whose error, the larger one, does not matter."""
    spec, network = CASES["compact_cnn"]
    kind, config, keys = SIBLINGS[name]
    config = replace(config, lr_critic=3e-3)
    agent = kind(spec, config, replace(network, **keys), CPU, seed=0)
    for seed in range(150):
        metrics = agent.update(bright_batch(spec, seed))
    assert metrics["losses/estimation"] < 0.0
    observation = agent._to_device(bright_batch(spec, 1000)).observation
    inputs = agent._inputs(observation)
    assert agent.estimator is not None
    assert inputs.privileged is not None
    with torch.no_grad():
        error = (agent.estimator(agent.acting.encoder(inputs)) - inputs.privileged).square().mean(0)
    assert error[2] < 0.2 * inputs.privileged[:, 2].var()
    assert (error[:2] > 0.5 * inputs.privileged[:, :2].var(0)).all()


def bright_batch(spec: ObservationSpec, seed: int) -> Batch:
    batch = random_batch(spec, 64, seed)
    light = (128 + 300 * batch.observation["bend"]).clamp(0, 255).to(torch.uint8)
    images = light[:, :, None, None].expand_as(batch.observation["images"]).contiguous()
    return batch._replace(observation={**batch.observation, "images": images})


@pytest.mark.parametrize("case", CASES)
def test_saved_and_loaded_it_goes_on_bit_equal(case: str) -> None:
    spec, network = CASES[case]
    network = replace(network, observation_normalization=Normalization.running)
    assert_goes_on_bit_equal(SAC, SACConfig(learn_entropy_coef=True), network, spec)


def test_a_reward_that_only_the_privileged_fields_explain_is_learned() -> None:
    """Every step ends its episode with the bend as reward: the critic that sees it knows it, the other one cannot."""
    spec = widened(LIDAR)
    errors = {}
    for is_asymmetric in (True, False):
        network = NetworkConfig(hidden=[32, 32], asymmetric_critic=is_asymmetric)
        agent = SAC(
            spec,
            SACConfig(lr_critic=5e-3, alpha=0.0, learn_entropy_coef=False, policy_delay=10_000),
            network,
            CPU,
            seed=0,
        )
        for seed in range(200):
            agent.update(foretold_batch(spec, seed))
        errors[is_asymmetric] = float(agent.update(foretold_batch(spec, 1000))["losses/critic"])
    assert errors[True] < 0.05
    assert errors[False] > 0.5


def foretold_batch(spec: ObservationSpec, seed: int) -> Batch:
    batch = random_batch(spec, 64, seed)
    return batch._replace(reward=batch.observation["bend"][:, 0] / 0.1, terminated=torch.ones(64))


@pytest.mark.parametrize("case", CASES)
def test_a_policy_is_the_same_without_them_and_takes_the_learners_weights(case: str) -> None:
    spec, network = CASES[case]
    weights = make(case).acting_weights()
    assert not [name for name in weights if "privileged" in name]
    rng = np.random.default_rng(0)
    rows = random_observation(spec, rng, 3)
    policies = [ActingPolicy(one, network, 0, WarmUp.driving, CPU) for one in (spec, spec.visible)]
    for policy in policies:
        policy.load_weights(weights, 1)
    for index in range(3):
        row = {name: rows[name][index].numpy() for name in rows}
        seen = {name: row[name] for name in spec.visible.names}
        assert np.array_equal(policies[0].act(row, deterministic=True), policies[1].act(seen, deterministic=True))
        assert np.array_equal(policies[0].act(seen), policies[1].act(row))


SIBLINGS: dict[str, tuple[type[SAC], OffPolicyConfig, dict[str, Any]]] = {
    "REDQ": (REDQ, REDQConfig(redq_n=4, redq_q_updates_per_policy_update=1), {}),
    "DroQ": (DroQ, DroQConfig(policy_delay=1), {"dropout": 0.1, "layer_norm": True}),
    "TQC": (TQC, TQCConfig(num_quantiles=5), {}),
    "CrossQ": (CrossQ, CrossQConfig(policy_delay=1), {"batch_renorm": True}),
    "SimBa": (SAC, SACConfig(), {"critic": BodyKind.simba}),
    "SAC": (SAC, SACConfig(), {}),
}


@pytest.mark.parametrize("case", ["mlp", "compact_cnn"])
@pytest.mark.parametrize("name", SIBLINGS)
def test_it_works_with_every_variant_of_sac(name: str, case: str) -> None:
    kind, config, keys = SIBLINGS[name]
    spec, network = CASES[case]
    batch = random_batch(spec, 4)
    other = batch._replace(observation=with_other_truth(batch.observation))
    losses = []
    for one in (batch, other):
        agent = kind(spec, config, replace(network, hidden=[16], **keys), CPU, seed=0)
        before = snapshot(agent)
        losses.append(agent.update(one)["losses/critic"])
        assert {name for name in before if name.startswith("acting.encoder.")} <= changed(before, snapshot(agent))
    assert losses[0] != losses[1]


def test_equal_seeds_give_the_actor_that_a_plain_critic_would_have() -> None:
    spec, network = CASES["compact_cnn"]
    one = build_networks(spec, network, 2, seed=3).acting.state_dict()
    other = ActingNetwork(spec.visible, replace(network, asymmetric_critic=False)).state_dict()
    assert {name: tensor.shape for name, tensor in one.items()} == {name: t.shape for name, t in other.items()}
    plain = build_networks(spec.visible, replace(network, asymmetric_critic=False), 2, seed=3).acting.state_dict()
    assert all(torch.equal(one[name], plain[name]) for name in one)


def test_a_critic_that_is_not_asymmetric_does_not_see_them() -> None:
    spec = widened(LIDAR)
    agents = [SAC(one, SACConfig(), NetworkConfig(hidden=[8]), CPU, seed=0) for one in (spec, spec.visible)]
    batch = random_batch(spec, 4)
    one, other = (agent.update(batch) for agent in agents)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_observation_without_privileged_fields_is_refused() -> None:
    with pytest.raises(ValueError, match=r"asymmetric_critic must be false .* task\.privileged=true"):
        PrivilegedLayer(LIDAR)
    with pytest.raises(ValueError, match="asymmetric_critic must be false"):
        SAC(LIDAR, SACConfig(), SMALL, CPU, seed=0)


def test_combinations_without_a_meaning_are_refused() -> None:
    for is_shared in (True, False):
        with pytest.raises(ValueError, match=r"shared_encoder must be null with network\.asymmetric_critic"):
            NetworkConfig(encoder="compact_cnn", asymmetric_critic=True, shared_encoder=is_shared)
    with pytest.raises(ValueError, match=r"target_encoder must be true with network\.asymmetric_critic"):
        NetworkConfig(encoder="compact_cnn", asymmetric_critic=True, target_encoder=False)


def test_plain_data_of_older_networks_is_read() -> None:
    plain = config_to_dict(NetworkConfig())
    del plain["asymmetric_critic"], plain["shared_encoder"]
    assert network_from_plain(plain) == NetworkConfig()
