"""SimBa's networks against plain layers, their initial weights, and their place in every algorithm."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from algos.acting.policy import ActingPolicy
from algos.algorithms.sac import SAC
from algos.algorithms.tqc import TQC
from algos.config import BodyKind, EncoderKind, NetworkConfig, Normalization, SACConfig, TQCConfig, WarmUp
from algos.networks import ResidualActor, ResidualEnsemble, build_networks
from tests.algos.agents import CPU, assert_goes_on_bit_equal, changed, snapshot
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch

SIMBA = NetworkConfig(actor=BodyKind.simba, critic=BodyKind.simba, hidden=[8], critic_hidden=[16, 16])


def plain_body(inputs: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """Section 4 of the paper with torch.nn.functional; weights as of ``nn.Linear``."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = weights[f"{name}.weight"].flatten(), weights[f"{name}.bias"].flatten()
        return functional.layer_norm(x, weight.shape, weight, bias)

    x = linear("body.embedding", inputs)
    blocks = {name.split(".")[2] for name in weights if name.startswith("body.blocks.")}
    for index in sorted(blocks):
        block = f"body.blocks.{index}"
        x = x + linear(f"{block}.narrow", functional.relu(linear(f"{block}.widen", norm(f"{block}.norm", x))))
    return linear("head", norm("body.norm", x))


def critic_weights(module: nn.Module, index: int) -> dict[str, torch.Tensor]:
    """One critic of the stack, in ``nn.Linear``'s layout."""
    weights = {}
    for name, tensor in module.state_dict().items():
        one = tensor[index]
        is_matrix = name.endswith("weight") and "norm" not in name
        weights[name] = one.T if is_matrix else one.flatten()
    return weights


def randomise(module: nn.Module) -> None:
    """Weights and biases that no wrong layer maps alike."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.3)


@pytest.mark.parametrize("num_outputs", [1, 5])
def test_critics_equal_plain_layers(num_outputs: int) -> None:
    critic = build_networks(LIDAR, SIMBA, 3, 0, torch.float64, num_outputs).critic
    randomise(critic)
    inputs = torch.randn(4, 86, dtype=torch.float64)
    got = critic.ensemble(inputs[:, :83], inputs[:, 83:])
    for index in range(3):
        expected = plain_body(inputs, critic_weights(critic.ensemble, index))
        assert torch.allclose(got[index].reshape(4, -1), expected, rtol=0, atol=1e-10)
    assert got.shape == ((3, 4) if num_outputs == 1 else (3, 4, 5))


def test_actor_equals_plain_layers() -> None:
    acting = build_networks(LIDAR, SIMBA, 2, 0, torch.float64).acting
    randomise(acting.actor)
    features = torch.randn(4, 83, dtype=torch.float64)
    mean, log_std = plain_body(features, dict(acting.actor.state_dict())).split(3, dim=1)
    got = acting.actor(features)
    assert torch.allclose(got[0], mean, rtol=0, atol=1e-10)
    assert torch.allclose(got[1], log_std.clamp(-20, 2), rtol=0, atol=1e-10)


def test_sizes_are_those_of_the_paper() -> None:
    """Critic: two blocks of 512; actor: one block of 128."""
    network = NetworkConfig(actor=BodyKind.simba, critic=BodyKind.simba, hidden=[128], critic_hidden=[512, 512])
    acting, critic = build_networks(LIDAR, network, 2, 0)
    norm, block = 2 * 512, 2 * 512 + (512 * 2048 + 2048) + (2048 * 512 + 512)
    one = (86 * 512 + 512) + 2 * block + norm + (512 + 1)
    assert sum(p.numel() for p in critic.parameters()) == 2 * one
    block = 2 * 128 + (128 * 512 + 512) + (512 * 128 + 128)
    actor = (83 * 128 + 128) + block + 2 * 128 + (128 * 6 + 6)
    assert sum(p.numel() for p in acting.actor.parameters()) == actor


def test_initial_weights_are_orthogonal_and_he_normal_each_critic_its_own() -> None:
    network = replace(SIMBA, critic_hidden=[64, 64])
    ensemble = build_networks(LIDAR, network, 2, 0).critic.ensemble
    assert isinstance(ensemble, ResidualEnsemble)
    for index in range(2):
        weights = critic_weights(ensemble, index)
        embedding = weights["body.embedding.weight"]  # (64, 86): orthonormal rows
        assert torch.allclose(embedding @ embedding.T, torch.eye(64), atol=1e-5)
        assert weights["head.weight"].norm().item() == pytest.approx(1.0, abs=1e-5)
        # 64 x 256 draws: their standard deviation is known to 0.6 %
        for name, inputs in (("widen", 64), ("narrow", 256)):
            deviation = weights[f"body.blocks.1.{name}.weight"].std().item()
            assert deviation == pytest.approx((2 / inputs) ** 0.5, rel=0.03)
        assert all((t == 0).all() for name, t in weights.items() if name.endswith("bias"))
    assert not torch.equal(critic_weights(ensemble, 0)["head.weight"], critic_weights(ensemble, 1)["head.weight"])


@pytest.mark.parametrize("encoder", [EncoderKind.mlp, EncoderKind.compact_cnn, EncoderKind.tmrl_cnn])
@pytest.mark.parametrize("kind", [SAC, TQC])
def test_update_trains_every_parameter(kind: type[SAC], encoder: EncoderKind) -> None:
    spec = LIDAR if encoder is EncoderKind.mlp else image_spec()
    config = SACConfig() if kind is SAC else TQCConfig(num_quantiles=5)
    agent = kind(spec, config, replace(SIMBA, encoder=encoder, feature_size=8), CPU, seed=0)
    before = snapshot(agent)
    agent.update(random_batch(spec, 4))
    agent.update(random_batch(spec, 4, 1))  # the first cannot move what lies behind biases of zero
    assert changed(before, snapshot(agent)) == set(before)


def test_saved_and_loaded_agent_goes_on_bit_equal() -> None:
    network = replace(SIMBA, observation_normalization=Normalization.running)
    assert_goes_on_bit_equal(SAC, SACConfig(learn_entropy_coef=True), network)


def test_workers_act_with_the_residual_actor() -> None:
    agent = SAC(LIDAR, SACConfig(), SIMBA, CPU, seed=0)
    assert isinstance(agent.acting.actor, ResidualActor)
    policy = ActingPolicy(LIDAR, SIMBA, seed=0, warm_up=WarmUp.uniform, device=CPU)
    policy.load_weights(agent.acting_weights(), 1)
    observation = random_batch(LIDAR).observation
    action = policy.act({name: t[0].numpy() for name, t in observation.items()}, deterministic=True)
    with torch.no_grad():
        expected = agent.acting(observation)[0][0].tanh()
    assert torch.allclose(torch.from_numpy(action), expected, atol=1e-6)


@pytest.mark.parametrize("change", [{"critic_hidden": [16, 8]}, {"hidden": [16, 8], "critic_hidden": [16]}], ids=str)
def test_blocks_must_have_one_width(change: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match=r"hidden must be one width, repeated for each block, with simba"):
        replace(SIMBA, **change)  # type: ignore[arg-type]
