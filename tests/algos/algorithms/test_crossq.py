"""CrossQ's update against a derivation by hand, and which pass uses which statistics."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from algos.acting.policy import ActingPolicy
from algos.algorithms.crossq import CrossQ
from algos.config import CrossQConfig, EncoderKind, NetworkConfig, WarmUp
from algos.networks import BatchRenorm
from tasks.experience.observation import Field, ObservationSpec
from tasks.remote.wire import link
from tests.algos.agents import (
    CPU,
    FIXED,
    assert_close,
    assert_goes_on_bit_equal,
    changed,
    plain_columns,
    scaled_lidar,
    snapshot,
)
from tests.algos.algorithms.crossq_by_hand import HandCrossQ, Network, Renorm
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch, random_observation
from tests.algos.algorithms.sac_by_hand import Adam

NETWORK = NetworkConfig(hidden=[16, 12], batch_renorm=True, batch_renorm_warm_up=3)
IMAGES = replace(NETWORK, encoder=EncoderKind.compact_cnn, hidden=[16], feature_size=8)


def make_crossq(
    spec: ObservationSpec = LIDAR, network: NetworkConfig = NETWORK, dtype: torch.dtype = torch.float32, **config: Any
) -> CrossQ:
    return CrossQ(spec, CrossQConfig(**(FIXED | config)), network, CPU, seed=0, dtype=dtype)


def network_by_hand(module: torch.nn.Module, index: int | None = None) -> Network:
    """The actor, or one critic of the stacked ensemble."""
    state = {name: t.numpy().copy() for name, t in module.state_dict().items()}

    def vector(name: str) -> np.ndarray:
        return state[name][0] if index is None else state[name][index, 0]

    renorms = [
        Renorm(
            vector(f"renorms.{i}.weight"),
            vector(f"renorms.{i}.bias"),
            vector(f"renorms.{i}.mean"),
            vector(f"renorms.{i}.variance"),
            warm_up=3,
            batches=int(state[f"renorms.{i}.num_batches"]),
        )
        for i in range(3)
    ]
    names = ("hidden.0", "hidden.1", "head")
    if index is None:
        return Network(renorms, [(state[f"{n}.weight"].T.copy(), state[f"{n}.bias"]) for n in names])
    return Network(renorms, [(state[f"{n}.weight"][index], state[f"{n}.bias"][index, 0]) for n in names])


def critics_by_hand(agent: CrossQ) -> list[Network]:
    return [network_by_hand(agent.critic.ensemble, index) for index in range(agent.config.num_critics)]


def test_update_equals_derivation_by_hand() -> None:
    """Eight updates: the warm-up of three batches ends within them, for the actor too."""
    agent = make_crossq(
        dtype=torch.float64,
        policy_delay=2,
        learn_entropy_coef=True,
        alpha=0.04,
        target_entropy=1.5,
        lr_actor=1e-3,
        lr_critic=2e-3,
        lr_entropy=1e-3,
        betas_critic=[0.5, 0.99],
    )
    hand = HandCrossQ(
        actor=network_by_hand(agent.acting.actor),
        critics=critics_by_hand(agent),
        log_alpha=np.array(math.log(0.04)),
        target_entropy=1.5,
        actor_adam=Adam(1e-3, 0.5, 0.999),
        critic_adam=Adam(2e-3, 0.5, 0.99),
        alpha_adam=Adam(1e-3),
    )
    generator = torch.Generator()
    generator.set_state(agent.state_dict()["generator"])

    def noise() -> np.ndarray:
        return torch.randn((8, 3), generator=generator, dtype=torch.float64).numpy()

    for index in range(10):
        batch = random_batch(LIDAR, 8, index)
        critic_loss = hand.update_critics(*plain_columns(batch), noise())
        metrics = agent.update(batch)
        assert metrics["losses/critic"].item() == pytest.approx(critic_loss, abs=1e-10)
        assert ("losses/actor" in metrics) == (index % 2 == 0)
        if index % 2 == 0:
            actor_loss = hand.update_actor(scaled_lidar(batch.observation), noise())
            assert metrics["losses/actor"].item() == pytest.approx(actor_loss, abs=1e-10)
        assert agent.log_alpha.item() == pytest.approx(float(hand.log_alpha), abs=1e-10)
        got = [network_by_hand(agent.acting.actor), *critics_by_hand(agent)]
        for one, other in zip(got, [hand.actor, *hand.critics], strict=True):
            assert_close(one.arrays(), other.arrays())
            assert_close(one.statistics(), other.statistics())
    assert got[0].renorms[0].batches == 5
    assert got[1].renorms[0].batches == 10


def test_there_are_no_target_networks() -> None:
    agent = make_crossq()
    assert agent.target_critic is agent.critic
    before = snapshot(agent)
    agent.update(random_batch(LIDAR))
    after = snapshot(agent)
    pairs = [name for name in after if name.startswith("critic.")]
    assert all(torch.equal(after[name], after[f"target_{name}"]) for name in pairs)
    assert changed(before, after) == set(before)


def test_joint_pass_gives_one_set_of_statistics_for_both_kinds_of_actions() -> None:
    """The running mean of the inputs moves to the mean over (s, a) and (s', a') together, not to that of one."""
    agent = make_crossq()
    batch = random_batch(LIDAR)
    batch = batch._replace(action=torch.full_like(batch.action, 0.9))
    agent.update(batch)
    renorms: Any = agent.critic.ensemble.renorms
    renorm = renorms[0]
    rows = np.concatenate([scaled_lidar(batch.observation), scaled_lidar(batch.next_observation)])
    np.testing.assert_allclose(renorm.mean[0, 0, :83].numpy(), 0.01 * rows.mean(0), atol=1e-6)
    joint_actions = renorm.mean[0, 0, 83:] / 0.01
    assert (joint_actions < 0.9).all()
    assert renorm.num_batches.item() == 1


def test_only_the_joint_pass_and_the_actors_own_pass_change_statistics() -> None:
    agent = make_crossq(policy_delay=2)
    counts = []
    for seed in range(4):
        agent.update(random_batch(LIDAR, 8, seed))
        actor: Any = agent.acting.actor.renorms
        critics: Any = agent.critic.ensemble.renorms
        counts.append((actor[0].num_batches.item(), critics[0].num_batches.item()))
    assert counts == [(1, 1), (1, 2), (2, 3), (2, 4)]
    before = snapshot(agent)
    batch = random_batch(LIDAR, 8, 9)
    inputs = agent.acting.inputs(agent._to_device(batch).observation)
    agent.sample_action(agent.acting.encoder(inputs))
    agent.critic(agent.critic.encode(inputs), batch.action)
    assert not changed(before, snapshot(agent))


def test_acting_uses_the_running_statistics_that_came_with_the_weights() -> None:
    agent = make_crossq()
    for seed in range(5):
        agent.update(random_batch(LIDAR, 8, seed))
    message = link.encode_weights(agent.acting_weights(), version=1)
    policy = ActingPolicy(LIDAR, NETWORK, seed=0, warm_up=WarmUp.uniform, device=CPU)
    policy.load_weights(link.decode_weights(message).arrays, 1)
    rows = random_observation(LIDAR, np.random.default_rng(3), 6)
    with torch.no_grad():
        expected = agent.acting(rows)[0].tanh().numpy()
    for index in range(6):
        action = policy.act({name: t[index].numpy() for name, t in rows.items()}, deterministic=True)
        np.testing.assert_allclose(action, expected[index], atol=1e-6)
    assert not np.allclose(expected[0], expected[1])


@pytest.mark.parametrize("name", ["mlp", "compact_cnn", "tmrl_cnn"])
def test_saved_and_loaded_agent_goes_on_bit_equal(name: str) -> None:
    spec = LIDAR if name == "mlp" else image_spec()
    network = replace(IMAGES, encoder=EncoderKind[name])
    assert_goes_on_bit_equal(CrossQ, CrossQConfig(policy_delay=2, learn_entropy_coef=True), network, spec)


@pytest.mark.parametrize("name", ["mlp", "compact_cnn", "tmrl_cnn"])
def test_update_trains_every_parameter(name: str) -> None:
    spec = LIDAR if name == "mlp" else image_spec()
    agent = make_crossq(spec, replace(IMAGES, encoder=EncoderKind[name]))
    before = snapshot(agent)
    agent.update(random_batch(spec, 4))
    assert changed(before, snapshot(agent)) == set(before)


def test_gradients_of_the_next_values_are_cut() -> None:
    """With gamma at 0 in the batch, next values cannot matter; with 1 the target must be a constant all the same."""
    agent = make_crossq(alpha=0.0)
    batch = agent._to_device(random_batch(LIDAR)._replace(terminated=torch.zeros(8)))
    inputs, next_inputs = agent.acting.inputs(batch.observation), agent.acting.inputs(batch.next_observation)
    state = agent._generator.get_state()
    loss, _, _ = agent.policy_evaluation(batch, inputs, next_inputs)
    gradients = torch.autograd.grad(loss, agent._parameters["critic"])

    other = make_crossq(alpha=0.0)
    other._generator.set_state(state)
    with torch.no_grad():
        action, _ = other.sample_action(next_inputs.vector)
    other.critic.ensemble.train()
    both = other.critic(torch.cat((inputs.vector, next_inputs.vector)), torch.cat((batch.action, action)))
    target = batch.reward + batch.discount * both[:, 8:].amin(0)
    cut = torch.autograd.grad((both[:, :8] - target.detach()).square().mean(), other._parameters["critic"])
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(gradients, cut, strict=True))


def test_the_encoder_learns_from_both_halves_of_the_joint_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The values of (s', a') are constants, but its features decide the statistics that those of (s, a) are seen by."""
    agent = make_crossq(image_spec(), IMAGES)
    features: list[torch.Tensor] = []
    encode = agent.critic.encode

    def kept(inputs: Any) -> torch.Tensor:
        features.append(encode(inputs))
        return features[-1]

    monkeypatch.setattr(agent.critic, "encode", kept)
    loss, _, _ = agent.policy_evaluation(*agent.prepare(random_batch(image_spec())))
    of_now, of_next = torch.autograd.grad(loss, features)
    assert of_now.abs().max() > 0
    assert of_next.abs().max() > 0


def test_update_never_waits_for_the_device() -> None:
    class NoHostReads(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert "_local_scalar_dense" not in str(func), "a tensor was read on the host"
            return func(*args, **(kwargs or {}))

    agent = make_crossq(learn_entropy_coef=True, policy_delay=1)
    agent.update(random_batch(LIDAR, 4))
    with NoHostReads():
        agent.update(random_batch(LIDAR, 4))


def test_update_learns_the_value_of_a_constant_reward() -> None:
    """Reward 1, gamma 0.5, no entropy bonus: Q = 1 / (1 - 0.5) = 2 everywhere, without a slow target."""
    spec = ObservationSpec((Field("position", (2,)),), action_size=1, act_buf_len=0)
    agent = make_crossq(spec, NetworkConfig(hidden=[32, 32], batch_renorm=True), alpha=0.0, lr_critic=1e-2)
    ones = torch.ones(64)
    for seed in range(300):
        batch = random_batch(spec, 64, seed)
        metrics = agent.update(batch._replace(reward=ones, discount=0.5 * ones, terminated=0 * ones))
    assert metrics["train/q_mean"].item() == pytest.approx(2.0, abs=0.05)
    assert any(isinstance(module, BatchRenorm) for module in agent.critic.modules())
