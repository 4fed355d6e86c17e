"""What every algorithm of the family must keep, whatever its paper changes."""

from __future__ import annotations

import io
import typing
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode

from algos.algorithms.crossq import CrossQ
from algos.algorithms.droq import DroQ
from algos.algorithms.redq import REDQ
from algos.algorithms.sac import SAC
from algos.algorithms.tqc import TQC
from algos.config import (
    CrossQConfig,
    DebugConfig,
    DroQConfig,
    EncoderKind,
    NetworkConfig,
    Normalization,
    OffPolicyConfig,
    Precision,
    REDQConfig,
    SACConfig,
    TQCConfig,
    algorithms,
)
from tasks.experience.observation import ObservationSpec
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch
from tests.algos.algorithms.test_sac import CPU, changed, has_gradient, same, snapshot

FAMILY: dict[str, tuple[type[SAC], type[OffPolicyConfig]]] = {
    "SAC": (SAC, SACConfig),
    "REDQ": (REDQ, REDQConfig),
    "DroQ": (DroQ, DroQConfig),
    "TQC": (TQC, TQCConfig),
    "CrossQ": (CrossQ, CrossQConfig),
}
WITH_OWN_TESTS = {"RSAC", "DAgger"}
"""One learns from sequences, not from single transitions, the other has no critics."""
ALGORITHM_KEYS: dict[str, dict[str, Any]] = {
    "SAC": {},
    "REDQ": {"redq_n": 4, "redq_q_updates_per_policy_update": 2},
    "DroQ": {"policy_delay": 2},
    "TQC": {"num_quantiles": 5, "dropped_quantiles": 1},
    "CrossQ": {"policy_delay": 2},
}
NETWORK_KEYS: dict[str, dict[str, Any]] = {
    "DroQ": {"dropout": 0.01, "layer_norm": True},
    "CrossQ": {"batch_renorm": True},
}
OBSERVATIONS = {
    "lidar": (LIDAR, NetworkConfig(hidden=[16, 12])),
    "images": (image_spec(), NetworkConfig(encoder=EncoderKind.compact_cnn, hidden=[16], feature_size=8)),
    "images, separate encoders": (image_spec(), NetworkConfig(encoder=EncoderKind.tmrl_cnn, hidden=[16])),
}
CASES = [(name, observation) for name in FAMILY for observation in OBSERVATIONS]


def make(
    name: str,
    spec: ObservationSpec = LIDAR,
    network: NetworkConfig = OBSERVATIONS["lidar"][1],
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> SAC:
    """An algorithm of the family with small networks, as its agent would build it."""
    algorithm_type, config_type = FAMILY[name]
    network = replace(network, **NETWORK_KEYS.get(name, {}))
    keys = ALGORITHM_KEYS[name] | config
    return algorithm_type(spec, config_type(**keys), network, CPU, seed=seed, dtype=dtype)


def make_case(name: str, observation: str, **config: Any) -> SAC:
    spec, network = OBSERVATIONS[observation]
    return make(name, spec, network, **config)


def test_every_algorithm_of_the_family_is_here() -> None:
    built_in = {
        entry.algorithm.partition(":")[2]
        for entry in algorithms._OFF_POLICY.values()
        if entry.algorithm.startswith("algos.")
    }
    assert built_in - WITH_OWN_TESTS == set(FAMILY)


@pytest.mark.parametrize(("name", "observation"), CASES)
def test_each_loss_reaches_only_its_own_networks(name: str, observation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_case(name, observation, learn_entropy_coef=True)
    reached: dict[str, list[Tensor]] = {}

    def descend(part: str, loss: Tensor) -> None:
        """Computes every gradient, steps nothing."""
        clear(agent)
        loss.backward()
        reached[part] = [p for p in all_parameters(agent) if p.grad is not None and bool(p.grad.abs().sum() > 0)]

    monkeypatch.setattr(agent, "descend", descend)
    agent.update(random_batch(OBSERVATIONS[observation][0], 6))
    assert set(reached) == {"critic", "actor"}
    assert ids(reached["critic"]) <= ids(agent._parameters["critic"])
    assert ids(agent._parameters["actor"]) <= ids(reached["actor"])
    assert id(agent.log_alpha) not in ids(reached["critic"]) | ids(reached["actor"])
    without_gradient = [p for p in agent._parameters["critic"] if id(p) not in ids(reached["critic"])]
    assert not without_gradient, [tuple(p.shape) for p in without_gradient]
    actors = ids(agent.acting.actor.parameters())
    assert not actors & ids(agent._parameters["critic"])
    assert not ids(agent._parameters["actor"]) & ids(agent._parameters["critic"])


def all_parameters(agent: SAC) -> list[Tensor]:
    modules = (agent.acting, agent.critic, agent.target_critic)
    return [agent.log_alpha, *(p for module in modules for p in module.parameters())]


def clear(agent: SAC) -> None:
    for parameter in all_parameters(agent):
        parameter.grad = None


def ids(parameters: typing.Iterable[Tensor]) -> set[int]:
    return {id(parameter) for parameter in parameters}


@pytest.mark.parametrize(("name", "observation"), CASES)
def test_an_update_steps_a_network_along_its_own_loss_only(
    name: str, observation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actor's step leaves the critics alone, and the other way round; that of the temperature leaves both."""
    spec, _ = OBSERVATIONS[observation]
    agent = make_case(name, observation, learn_entropy_coef=True)
    seen: dict[str, set[int]] = {}
    descend, adapt_temperature = agent.descend, agent.adapt_temperature

    def watched(part: str, step: Callable[[], Any]) -> Any:
        before = {id(p): p.detach().clone() for p in all_parameters(agent)}
        result = step()
        seen[part] = {id(p) for p in all_parameters(agent) if not torch.equal(before[id(p)], p)}
        return result

    monkeypatch.setattr(agent, "descend", lambda part, loss: watched(part, lambda: descend(part, loss)))
    monkeypatch.setattr(agent, "adapt_temperature", lambda log: watched("temperature", lambda: adapt_temperature(log)))
    agent.update(random_batch(spec, 6))
    assert seen.pop("temperature") == {id(agent.log_alpha)}
    assert set(seen) == {"critic", "actor"}
    for part, moved in seen.items():
        assert moved
        assert moved <= ids(agent._parameters[part])


@pytest.mark.parametrize(("name", "observation"), [case for case in CASES if case[1] != "images, separate encoders"])
def test_a_saved_and_loaded_algorithm_continues_bit_for_bit(name: str, observation: str) -> None:
    spec, network = OBSERVATIONS[observation]
    network = replace(network, observation_normalization=Normalization.running)
    if observation != "lidar":
        network = replace(network, random_shift=2)
    agent = make(name, spec, network, learn_entropy_coef=True, seed=0)
    for seed in range(3):
        agent.update(random_batch(spec, 6, seed))
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    other = make(name, spec, network, learn_entropy_coef=True, seed=7)
    other.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 6):
        batch = random_batch(spec, 6, seed)
        one, two = agent.update(batch), other.update(batch)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert not changed(snapshot(agent), snapshot(other))
    assert torch.equal(agent.alpha, other.alpha)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(("target_entropy", "bound"), [(100.0, 0.02), (-100.0, 0.005)])
def test_a_learned_temperature_stops_at_its_bounds(name: str, target_entropy: float, bound: float) -> None:
    agent = make(
        name, learn_entropy_coef=True, alpha=0.01, alpha_min=0.005, alpha_max=0.02, lr_entropy=0.3,
        target_entropy=target_entropy,
    )  # fmt: skip
    for seed in range(8):
        agent.update(random_batch(LIDAR, 4, seed))
        assert 0.005 - 1e-9 <= agent.alpha.item() <= 0.02 + 1e-9
    assert agent.alpha.item() == pytest.approx(bound, rel=1e-6)


@pytest.mark.parametrize("name", FAMILY)
def test_terminated_leaves_the_reward_alone_as_target(name: str) -> None:
    """Two batches that differ only in what follows a terminal step lead to the same critics."""
    agents = [make(name), make(name)]
    batch = random_batch(LIDAR)._replace(terminated=torch.ones(8))
    twice = batch._replace(discount=2 * batch.discount)
    for agent, one in zip(agents, (batch, twice), strict=True):
        agent.update(one)
    assert same(snapshot(agents[0]), snapshot(agents[1]))
    going_on = make(name)
    going_on.update(batch._replace(terminated=torch.zeros(8)))
    assert changed(snapshot(agents[0]), snapshot(going_on))


@pytest.mark.parametrize("name", FAMILY)
def test_an_update_never_waits_for_the_device(name: str) -> None:
    class NoHostReads(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert "_local_scalar_dense" not in str(func), "a tensor was read on the host"
            return func(*args, **(kwargs or {}))

    agent = make_case(name, "images", learn_entropy_coef=True, debug=DebugConfig(extra_metrics=True))
    for seed in range(4):
        with NoHostReads():
            metrics = agent.update(random_batch(image_spec(), 4, seed))
        assert all(isinstance(value, Tensor) and value.dim() == 0 for value in metrics.values())
        assert not any(value.requires_grad for value in metrics.values())


@pytest.mark.parametrize(("name", "observation"), CASES)
def test_an_update_touches_no_other_device_than_its_own(
    name: str, observation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's meta device has no numbers: reading one, or a product with a tensor that stayed on the CPU, raises."""
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device: generator())
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    for module in ("base", "off_policy"):
        monkeypatch.setattr(
            f"algos.algorithms.{module}.make_optimizer", lambda kind, parameters, rate, *rest: SGD(parameters, rate)
        )
    spec, network = OBSERVATIONS[observation]
    network = replace(
        network,
        observation_normalization=Normalization.running,
        random_shift=0 if observation == "lidar" else 2,
        **NETWORK_KEYS.get(name, {}),
    )
    algorithm_type, config_type = FAMILY[name]
    keys = ALGORITHM_KEYS[name] | {"lr_decay_updates": 4, "debug": DebugConfig(extra_metrics=True)}
    agent = algorithm_type(spec, config_type(**keys), network, torch.device("meta"), seed=0)
    for seed in range(2):
        metrics = agent.update(random_batch(spec, 4, seed))
        assert {value.device.type for value in metrics.values()} == {"meta"}


@pytest.mark.parametrize(("name", "observation"), CASES)
def test_in_bfloat16_an_update_is_nearly_that_in_float32(
    name: str, observation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, losses and optimisers stay float32; the first steps of Adam go the same way but for rounding."""
    monkeypatch.setattr("algos.networks.matmul.multiplies_bfloat16", lambda device: True)
    spec, _ = OBSERVATIONS[observation]
    exact, rounded = (
        make_case(name, observation, precision=precision) for precision in (Precision.float32, Precision.bfloat16)
    )
    before = torch.cat([p.detach().flatten().clone() for p in all_parameters(exact)])
    for seed in range(2):
        expected, got = (agent.update(random_batch(spec, 32, seed)) for agent in (exact, rounded))
        assert {metric.dtype for metric in got.values()} == {torch.float32}
        assert {k: v.item() for k, v in got.items()} == pytest.approx(
            {k: v.item() for k, v in expected.items()}, rel=0.05, abs=0.02
        )
    steps = [torch.cat([p.detach().flatten() for p in all_parameters(agent)]) - before for agent in (exact, rounded)]
    assert torch.cosine_similarity(steps[0], steps[1], dim=0) > 0.9
    assert not torch.equal(steps[0], steps[1])
    assert {p.dtype for p in all_parameters(rounded)} == {torch.float32}


def test_bfloat16_is_refused_where_the_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    message = r"train\.params\.config\.precision must be auto or float32 on cpu, got bfloat16: .*neither AVX512_BF16"
    with pytest.raises(ValueError, match=message):
        make("SAC", precision=Precision.bfloat16)
    assert make("SAC").precision is Precision.float32
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True})
    assert make("SAC", precision=Precision.bfloat16).precision is Precision.bfloat16
    assert make("SAC").precision is Precision.float32


@pytest.mark.parametrize("name", FAMILY)
def test_seeds_decide_everything_and_the_global_generator_is_left_alone(name: str) -> None:
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = make(name), make(name), make(name, seed=1)
    for agent in (one, two, other):
        for seed in range(2):
            agent.update(random_batch(LIDAR, 8, seed))
    assert torch.equal(torch.rand(1), first)
    assert same(snapshot(one), snapshot(two))
    assert changed(snapshot(one), snapshot(other))


@pytest.mark.parametrize("name", FAMILY)
def test_targets_have_no_gradient_and_follow_the_critics(name: str) -> None:
    agent = make(name)
    agent.update(random_batch(LIDAR))
    if agent.config.target_polyak is None:
        assert agent.target_critic is agent.critic
        return
    assert has_gradient(agent.target_critic) == {False}
    assert not any(p.requires_grad for p in agent.target_critic.parameters())
    assert changed(agent.critic.state_dict(), agent.target_critic.state_dict())


@pytest.mark.parametrize("name", ["SAC", "REDQ", "TQC"])  # dropout and batch renormalisation have tests of their own
def test_a_stacked_ensemble_equals_looped_critics(name: str) -> None:
    """Each critic alone, its layers written out with plain products, gives what the stack gives."""
    keys: dict[str, Any] = {} if name == "REDQ" else {"num_critics": 3}
    agent = make(name, dtype=torch.float64, **keys)
    batch = agent._to_device(random_batch(LIDAR))
    features = agent.critic.encode(agent.acting.inputs(batch.observation))
    q = agent.critic(features, batch.action)
    state = agent.critic.ensemble.state_dict()
    for index in range(q.shape[0]):
        x = torch.cat([features, batch.action], 1)
        for layer in range(2):
            x = (x @ state[f"hidden.{layer}.weight"][index] + state[f"hidden.{layer}.bias"][index, 0]).clamp(min=0.0)
        output = x @ state["head.weight"][index] + state["head.bias"][index, 0]
        torch.testing.assert_close(q[index].reshape(output.shape), output, rtol=0, atol=1e-12)
