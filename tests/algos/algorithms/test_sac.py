"""SAC's update against a derivation by hand, and the properties that every variant must keep."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from algos.algorithms.optimizers import make_optimizer
from algos.algorithms.sac import SAC
from algos.config import DebugConfig, EncoderKind, NetworkConfig, Normalization, OptimizerKind, SACConfig
from tasks.experience.observation import Field, ObservationSpec
from tests.algos.agents import FIXED
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch
from tests.algos.algorithms.sac_by_hand import Adam, HandSAC, Layers

CPU = torch.device("cpu")
SMALL = NetworkConfig(hidden=[16, 12])


def make_sac(
    spec: ObservationSpec = LIDAR, network: NetworkConfig = SMALL, dtype: torch.dtype = torch.float32, **config: Any
) -> SAC:
    return SAC(spec, SACConfig(**(FIXED | config)), network, CPU, seed=0, dtype=dtype)


def snapshot(agent: SAC) -> dict[str, torch.Tensor]:
    state = agent.state_dict()
    modules = ("acting", "critic", "target_critic")
    return {f"{name}.{key}": t.clone() for name in modules for key, t in state[name].items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def actor_by_hand(agent: SAC) -> Layers:
    state = {name: t.numpy() for name, t in agent.acting.actor.state_dict().items()}
    names = ["hidden.0", "hidden.1", "head"]
    return [(state[f"{n}.weight"].T.copy(), state[f"{n}.bias"].copy()) for n in names]


def critics_by_hand(module: torch.nn.Module) -> list[Layers]:
    state = {name: t.numpy() for name, t in module.state_dict().items()}
    names = ["ensemble.hidden.0", "ensemble.hidden.1", "ensemble.head"]
    count = state["ensemble.head.weight"].shape[0]
    return [[(state[f"{n}.weight"][i].copy(), state[f"{n}.bias"][i, 0].copy()) for n in names] for i in range(count)]


def scaled(observation: dict[str, torch.Tensor]) -> np.ndarray:
    """The vector of LIDAR written out: every field by its own scale and offset, in tuple order."""
    speed = observation["speed"].double().numpy() / 55.6
    lidar = (observation["lidar"].double().numpy() - 10.0) / 383.0
    actions = [observation[name].double().numpy() for name in ("action_0", "action_1")]
    return np.concatenate([speed, lidar.reshape(len(lidar), -1), *actions], axis=1)


@pytest.mark.parametrize("num_critics", [2, 3])
def test_update_equals_derivation_by_hand(num_critics: int) -> None:
    agent = make_sac(
        dtype=torch.float64,
        num_critics=num_critics,
        learn_entropy_coef=True,
        alpha=0.04,
        alpha_max=0.0401,
        target_entropy=1.5,
        lr_actor=1e-3,
        lr_critic=2e-3,
        lr_entropy=1e-3,
        betas_critic=[0.8, 0.99],
        polyak=0.9,
    )
    hand = HandSAC(
        actor=actor_by_hand(agent),
        critics=critics_by_hand(agent.critic),
        targets=critics_by_hand(agent.target_critic),
        log_alpha=np.array(math.log(0.04)),
        target_entropy=1.5,
        polyak=0.9,
        actor_adam=Adam(1e-3),
        critic_adam=Adam(2e-3, 0.8, 0.99),
        alpha_adam=Adam(1e-3),
        log_alpha_bounds=(math.log(1e-4), math.log(0.0401)),
    )
    generator = torch.Generator()
    generator.set_state(agent.state_dict()["generator"])
    for seed in range(5):
        batch = random_batch(LIDAR, 8, seed)
        shape = (8, 3)
        noises = [torch.randn(shape, generator=generator, dtype=torch.float64).numpy() for _ in range(2)]
        expected = hand.update(
            scaled(batch.observation),
            batch.action.double().numpy(),
            batch.reward.double().numpy(),
            batch.discount.double().numpy(),
            scaled(batch.next_observation),
            batch.terminated.double().numpy(),
            (noises[0], noises[1]),
        )
        metrics = agent.update(batch)
        assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected, rel=1e-10, abs=1e-10)
        assert agent.log_alpha.item() == pytest.approx(float(hand.log_alpha), abs=1e-10)
        compare_layers([actor_by_hand(agent)], [hand.actor])
        compare_layers(critics_by_hand(agent.critic), hand.critics)
        compare_layers(critics_by_hand(agent.target_critic), hand.targets)


def compare_layers(got: list[Layers], expected: list[Layers]) -> None:
    for one, other in zip(got, expected, strict=True):
        for (weight, bias), (hand_weight, hand_bias) in zip(one, other, strict=True):
            np.testing.assert_allclose(weight, hand_weight, rtol=0, atol=1e-10)
            np.testing.assert_allclose(bias, hand_bias, rtol=0, atol=1e-10)


def test_terminated_cuts_the_bootstrap_and_truncated_does_not() -> None:
    agent = make_sac()
    ended = random_batch(LIDAR)._replace(terminated=torch.ones(8))
    going_on = ended._replace(terminated=torch.zeros(8))
    targets = []
    for batch in (ended, going_on):
        agent._generator.manual_seed(1)
        targets.append(agent.target(batch, agent.acting.inputs(batch.next_observation)))
    assert torch.equal(targets[0], ended.reward)
    bootstrap = (targets[1] - ended.reward) / ended.discount
    agent._generator.manual_seed(1)
    doubled = going_on._replace(discount=2 * going_on.discount)
    twice = agent.target(doubled, agent.acting.inputs(doubled.next_observation))
    assert torch.allclose(twice, ended.reward + 2 * ended.discount * bootstrap, atol=1e-6)
    assert bootstrap.abs().min() > 0


NETWORKS = {
    "mlp": (LIDAR, SMALL),
    "compact_cnn": (image_spec(), NetworkConfig(encoder=EncoderKind.compact_cnn, hidden=[16], feature_size=8)),
    "shared_cnn": (image_spec(), NetworkConfig(encoder=EncoderKind.shared_cnn, hidden=[16], feature_size=8)),
    "tmrl_cnn": (image_spec(), NetworkConfig(encoder=EncoderKind.tmrl_cnn, hidden=[16, 8])),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_loss_reaches_only_its_own_networks(name: str) -> None:
    spec, network = NETWORKS[name]
    agent = make_sac(spec, network, learn_entropy_coef=True)
    batch = agent._to_device(random_batch(spec, 4))
    inputs = agent.acting.inputs(batch.observation)
    features = agent.critic.encode(inputs)

    loss, _ = agent.critic_loss(features, batch.action, agent.target(batch, agent.acting.inputs(batch.observation)))
    loss.backward()
    is_shared = name in ("compact_cnn", "shared_cnn")
    assert has_gradient(agent.critic) == {True}
    assert has_gradient(agent.acting.actor) == {False}
    assert has_gradient(agent.target_critic) == {False}
    if name == "tmrl_cnn":
        assert has_gradient(agent.acting.encoder) == {False}

    before = {name: parameter.grad for name, parameter in agent.critic.named_parameters()}
    agent.policy_improvement(inputs, features.detach(), features.detach())
    assert has_gradient(agent.acting.actor) == {True}
    assert all(parameter.grad is before[name] for name, parameter in agent.critic.named_parameters())
    if is_shared:
        assert agent.acting.encoder is agent.critic.encoders[0]
        shared = {id(p) for p in agent.acting.encoder.parameters()}
        assert not shared & {id(p) for p in agent._parameters["actor"]}
    if name == "tmrl_cnn":
        assert has_gradient(agent.acting.encoder) == {True}


def has_gradient(module: torch.nn.Module) -> set[bool]:
    return {p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters()}


@pytest.mark.parametrize("name", NETWORKS)
def test_update_moves_every_network_and_pulls_targets_along(name: str) -> None:
    spec, network = NETWORKS[name]
    agent = make_sac(spec, network, polyak=0.5)
    before = snapshot(agent)
    agent.update(random_batch(spec, 4))
    after = snapshot(agent)
    assert changed(before, after) == set(before)
    for key in (name for name in before if name.startswith("target_critic.")):
        critic = after[key.removeprefix("target_")]
        assert torch.allclose(after[key], 0.5 * (before[key] + critic), atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_and_loaded_agent_goes_on_bit_equal(name: str) -> None:
    spec, network = NETWORKS[name]
    network = replace(network, random_shift=2, observation_normalization=Normalization.running)
    agent = make_sac(spec, network, learn_entropy_coef=True, policy_delay=2)
    for seed in range(3):
        agent.update(random_batch(spec, 4, seed))
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    other = SAC(spec, agent.config, network, CPU, seed=7)
    other.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 7):
        batch = random_batch(spec, 4, seed)
        one, two = agent.update(batch), other.update(batch)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert not changed(snapshot(agent), snapshot(other))
    assert torch.equal(agent.alpha, other.alpha)


def test_loaded_agent_keeps_the_hyper_parameters_of_its_configuration() -> None:
    agent = make_sac(lr_actor=1e-3, alpha=0.02)
    agent.update(random_batch(LIDAR))
    other = make_sac(lr_actor=5e-4, alpha=0.03, l2_critic=0.1)
    other.load_state_dict(agent.state_dict())
    assert other._optimizers["actor"].param_groups[0]["lr"] == 5e-4
    assert other._optimizers["critic"].param_groups[0]["weight_decay"] == 0.1
    assert other.alpha.item() == pytest.approx(0.03)
    assert not changed(snapshot(agent), snapshot(other))


def test_another_optimiser_goes_on_without_the_running_averages_of_the_old_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = make_sac()
    agent.update(random_batch(LIDAR))
    other = make_sac(optimizer_critic=OptimizerKind.rmsprop)
    other.load_state_dict(agent.state_dict())
    (message,) = caplog.messages
    assert message.startswith("train.params.config.optimizer_critic differs from the checkpoint: ")
    assert not changed(snapshot(agent), snapshot(other))
    before = snapshot(other)
    metrics = other.update(random_batch(LIDAR))
    assert all(torch.isfinite(value) for value in metrics.values())
    assert changed(before, snapshot(other))


def weights_after(
    updates: int = 3, spec: ObservationSpec = LIDAR, network: NetworkConfig = SMALL, **config: Any
) -> dict[str, torch.Tensor]:
    agent = make_sac(spec, network, **config)
    for seed in range(updates):
        agent.update(random_batch(spec, 4, seed))
    return snapshot(agent)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and not changed(one, other)


OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer_actor": OptimizerKind.adamw, "l2_actor": 0.1},
    "sgd": {"optimizer_actor": OptimizerKind.sgd},
    "rmsprop": {"optimizer_actor": OptimizerKind.rmsprop},
    "critic_adamw": {"optimizer_critic": OptimizerKind.adamw, "l2_critic": 0.1},
    "critic_sgd": {"optimizer_critic": OptimizerKind.sgd},
    "critic_rmsprop": {"optimizer_critic": OptimizerKind.rmsprop},
    "betas_actor": {"betas_actor": [0.997, 0.997]},
    "betas_critic": {"betas_critic": [0.997, 0.997]},
    "l2_actor": {"l2_actor": 0.1},
    "l2_critic": {"l2_critic": 0.1},
    "lr_actor": {"lr_actor": 1e-3},
    "lr_critic": {"lr_critic": 1e-3},
    "polyak": {"polyak": 0.9},
    "alpha": {"alpha": 0.05},
    "learned": {"learn_entropy_coef": True},
    "policy_delay": {"policy_delay": 2},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_the_update(option: str) -> None:
    assert same(weights_after(), weights_after())
    assert not same(weights_after(), weights_after(**OPTIONS[option]))


@pytest.mark.parametrize(
    "option", ["betas_entropy", "lr_entropy", "target_entropy"], ids=["betas", "learning rate", "target"]
)
def test_every_temperature_option_changes_the_update(option: str) -> None:
    value: Any = {"betas_entropy": [0.5, 0.9], "lr_entropy": 1e-2, "target_entropy": -50.0}[option]
    changes: dict[str, Any] = {option: value}
    base = weights_after(6, learn_entropy_coef=True)
    assert not same(base, weights_after(6, learn_entropy_coef=True, **changes))


@pytest.mark.parametrize(
    "change",
    [
        {"layer_norm": True},
        {"layer_norm_actor": True},
        {"observation_normalization": Normalization.running},
        {"observation_normalization": Normalization.none},
        {"observation_normalization": Normalization.tmrl},
        {"hidden": [16, 11]},
    ],
    ids=str,
)
def test_every_network_option_changes_the_update(change: dict[str, Any]) -> None:
    assert not same(weights_after(), weights_after(network=replace(SMALL, **change)))


def test_random_shift_and_image_scales_change_the_update() -> None:
    spec, network = NETWORKS["compact_cnn"]
    results = [weights_after(2, spec, network)]
    results += [weights_after(2, spec, replace(network, random_shift=2))]
    results += [weights_after(2, spec, replace(network, observation_normalization=kind)) for kind in Normalization]
    distinct = [a for i, a in enumerate(results) if not any(same(a, b) for b in results[:i])]
    assert len(distinct) == 5  # fixed is the default and appears twice


def test_targets_without_their_own_encoder_see_the_features_of_the_critics() -> None:
    spec, network = NETWORKS["compact_cnn"]
    targets = {}
    for has_own in (True, False):
        agent = make_sac(spec, replace(network, target_encoder=has_own), alpha=0.0)
        with torch.no_grad():
            for parameter in agent.target_critic.encoders.parameters():
                parameter.zero_()
        batch = random_batch(spec, 4)
        targets[has_own] = agent.target(batch, agent.acting.inputs(batch.next_observation))
    inputs = agent.acting.inputs(batch.next_observation)
    agent._generator.manual_seed(0)
    features = agent.acting.encoder(inputs)
    action, _ = agent.sample_action(features)
    q = agent.target_critic(features, action).amin(0)
    expected = batch.reward + batch.discount * (1 - batch.terminated) * q
    assert torch.allclose(targets[False], expected, atol=1e-6)
    assert not torch.allclose(targets[True], expected, atol=1e-3)


def test_adam_weight_decay_adds_to_the_gradient_and_adamw_does_not() -> None:
    start = torch.tensor([2.0], dtype=torch.float64)
    results = {}
    for kind in (OptimizerKind.adam, OptimizerKind.adamw, OptimizerKind.sgd, OptimizerKind.rmsprop):
        parameter = start.clone().requires_grad_()
        optimizer = make_optimizer(kind, [parameter], 0.1, None, 0.5)
        parameter.grad = torch.tensor([3.0], dtype=torch.float64)
        optimizer.step()
        results[kind.name] = parameter.item()
    assert results["sgd"] == pytest.approx(2 - 0.1 * (3 + 0.5 * 2))
    assert results["adam"] == pytest.approx(2 - 0.1)  # the first step of Adam has length lr
    assert results["adamw"] == pytest.approx(2 - 0.1 * 0.5 * 2 - 0.1)
    assert results["rmsprop"] == pytest.approx(2 - 0.1 / math.sqrt(0.01), rel=1e-6)


def test_betas_are_applied_as_configured() -> None:
    agent = make_sac(
        betas_actor=[0.997, 0.998],
        betas_critic=[0.8, 0.9],
        betas_entropy=[0.7, 0.75],
        learn_entropy_coef=True,
        optimizer_actor=OptimizerKind.adamw,
    )
    betas = {name: optimizer.param_groups[0]["betas"] for name, optimizer in agent._optimizers.items()}
    assert betas == {"actor": (0.997, 0.998), "critic": (0.8, 0.9), "temperature": (0.7, 0.75)}
    assert isinstance(agent._optimizers["actor"], torch.optim.AdamW)


@pytest.mark.parametrize(("target_entropy", "bound"), [(100.0, 0.02), (-100.0, 0.005)])
def test_learned_temperature_stops_at_its_bounds(target_entropy: float, bound: float) -> None:
    agent = make_sac(
        learn_entropy_coef=True, alpha=0.01, alpha_min=0.005, alpha_max=0.02, lr_entropy=0.3,
        target_entropy=target_entropy,
    )  # fmt: skip
    for seed in range(5):
        agent.update(random_batch(LIDAR, 4, seed))
    assert agent.alpha.item() == pytest.approx(bound, rel=1e-6)


def test_fixed_temperature_of_zero_leaves_the_entropy_out() -> None:
    agent = make_sac(alpha=0.0)
    metrics = agent.update(random_batch(LIDAR))
    assert metrics["train/alpha"].item() == 0.0
    assert all(torch.isfinite(value) for value in metrics.values())
    assert "losses/temperature" not in metrics


def test_policy_delay_updates_the_actor_every_second_time() -> None:
    agent = make_sac(policy_delay=2)
    keys = []
    for seed in range(4):
        before = snapshot(agent)
        metrics = agent.update(random_batch(LIDAR, 4, seed))
        moved = changed(before, snapshot(agent))
        has_actor = any(name.startswith("acting.actor") for name in moved)
        assert has_actor == ("losses/actor" in metrics)
        assert any(name.startswith("critic.") for name in moved)
        keys.append(has_actor)
    assert keys == [True, False, True, False]


def test_update_never_waits_for_the_device() -> None:
    class NoHostReads(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert "_local_scalar_dense" not in str(func), "a tensor was read on the host"
            return func(*args, **(kwargs or {}))

    network = replace(NETWORKS["compact_cnn"][1], random_shift=2, observation_normalization=Normalization.running)
    agent = make_sac(image_spec(), network, learn_entropy_coef=True, debug=DebugConfig(extra_metrics=True))
    agent.update(random_batch(image_spec(), 4))
    with NoHostReads():
        metrics = agent.update(random_batch(image_spec(), 4))
    assert all(isinstance(value, torch.Tensor) and value.dim() == 0 for value in metrics.values())
    assert not any(value.requires_grad for value in metrics.values())


def test_debug_metrics_are_added_only_when_asked_for() -> None:
    plain = make_sac().update(random_batch(LIDAR))
    extra = make_sac(debug=DebugConfig(extra_metrics=True)).update(random_batch(LIDAR))
    assert set(plain) == {"losses/critic", "losses/actor", "train/q_mean", "train/entropy", "train/alpha"}
    assert {"train/q_max", "train/target_std", "train/action_min"} <= set(extra) - set(plain)
    assert all(torch.equal(plain[key], extra[key]) for key in plain)


def test_seed_decides_weights_and_noise_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    one, two = make_sac(), make_sac()
    assert torch.equal(torch.rand(1), first)
    other = SAC(LIDAR, SACConfig(), SMALL, CPU, seed=1)
    assert same(snapshot(one), snapshot(two))
    assert not same(snapshot(one), snapshot(other))
    assert not torch.equal(one.sample_action(torch.zeros(4, 83))[0], other.sample_action(torch.zeros(4, 83))[0])


def test_update_learns_the_value_of_a_constant_reward() -> None:
    """Reward 1, gamma 0.5, no entropy bonus: Q = 1 / (1 - 0.5) = 2 everywhere."""
    spec = ObservationSpec((Field("position", (2,)),), action_size=1, act_buf_len=0)
    agent = make_sac(spec, NetworkConfig(hidden=[32, 32]), alpha=0.0, lr_critic=1e-2, polyak=0.8)
    ones = torch.ones(64)
    for seed in range(300):
        batch = random_batch(spec, 64, seed)
        metrics = agent.update(batch._replace(reward=ones, discount=0.5 * ones, terminated=0 * ones))
    assert metrics["train/q_mean"].item() == pytest.approx(2.0, abs=0.02)


def test_fine_tuning_starts_from_the_policy_with_fresh_critics() -> None:
    spec, network = NETWORKS["compact_cnn"]
    trained = make_sac(spec, network)
    trained.update(random_batch(spec, 4))
    agent = SAC(spec, SACConfig(), network, CPU, seed=3)
    heads = agent.critic.ensemble.head.weight.clone()
    agent.load_acting_weights(trained.acting_weights())
    for name, array in agent.acting_weights().items():
        np.testing.assert_array_equal(array, trained.acting_weights()[name])
    assert torch.equal(agent.critic.ensemble.head.weight, heads)
    assert same(agent.critic.state_dict(), agent.target_critic.state_dict())
    narrow = SAC(spec, SACConfig(), replace(network, hidden=[8]), CPU, seed=3)
    with pytest.raises(ValueError, match="weights do not fit this network"):
        agent.load_acting_weights(narrow.acting_weights())


def test_learning_rates_fall_linearly_to_a_tenth_and_a_resumed_run_goes_on_there() -> None:
    rates: dict[str, Any] = {"lr_actor": 1e-3, "lr_critic": 2e-3, "lr_decay_updates": 4}
    agent = make_sac(**rates)
    seen = []
    for seed in range(6):
        agent.update(random_batch(LIDAR, seed=seed))
        seen.append(learning_rate(agent, "critic"))
    assert seen == pytest.approx([2e-3, 1.55e-3, 1.1e-3, 0.65e-3, 0.2e-3, 0.2e-3])
    assert learning_rate(agent, "actor") == pytest.approx(1e-4)
    resumed = make_sac(**rates)
    resumed.load_state_dict(agent.state_dict())
    resumed.update(random_batch(LIDAR))
    assert learning_rate(resumed, "critic") == pytest.approx(0.2e-3)


def learning_rate(agent: SAC, name: str) -> float:
    return agent._optimizers[name].param_groups[0]["lr"]
