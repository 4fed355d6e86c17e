"""Shared by the tests of SAC's variants: small agents, their state as plain tensors, their layers as numpy arrays."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from algos.algorithms.sac import SAC
from algos.config import NetworkConfig, OffPolicyConfig
from algos.replay.memory import Batch
from algos.replay.sequences import SequenceBatch
from tasks.experience.observation import ObservationSpec
from tests.algos.algorithms.sac_batches import LIDAR, random_batch, random_observation
from tests.algos.algorithms.sac_by_hand import Layers

CPU = torch.device("cpu")
FIXED: dict[str, Any] = {"alpha": 0.01, "alpha_max": 0.05, "learn_entropy_coef": False}
"""A small temperature that is not learned."""


def snapshot(agent: SAC) -> dict[str, torch.Tensor]:
    """All parameters and buffers, copied."""
    state = agent.state_dict()
    parts = ("acting", "critic", "target_critic", "estimator")
    return {f"{part}.{key}": tensor.clone() for part in parts for key, tensor in state.get(part, {}).items()}


def changed(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    """Names of the entries that differ."""
    return {name for name in before if not torch.equal(before[name], after[name])}


def assert_goes_on_bit_equal(
    kind: type[SAC], config: OffPolicyConfig, network: NetworkConfig, spec: ObservationSpec = LIDAR
) -> None:
    """Asserts that a saved and loaded agent makes the same updates as the original."""
    agent = kind(spec, config, network, CPU, seed=0)
    for seed in range(3):
        agent.update(random_batch(spec, 4, seed))
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    other = kind(spec, config, network, CPU, seed=7)
    other.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 7):
        batch = random_batch(spec, 4, seed)
        one, two = agent.update(batch), other.update(batch)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert not changed(snapshot(agent), snapshot(other))


def random_sequences(spec: ObservationSpec, state_size: int, seed: int = 0) -> SequenceBatch:
    """Two sequences: a burn-in of two rows, a window of four, and the transitions from its first three to the next."""
    rng = np.random.default_rng(seed)
    burn_in, window = random_observation(spec, rng, 4), random_observation(spec, rng, 8)
    transitions = random_batch(spec, 6, seed)
    rows = torch.tensor([0, 1, 2, 4, 5, 6])
    return SequenceBatch(
        burn_in={name: t.unflatten(0, (2, 2)) for name, t in burn_in.items()},
        window={name: t.unflatten(0, (2, 4)) for name, t in window.items()},
        state=torch.from_numpy(rng.normal(size=(2, state_size)).astype(np.float32)),
        burn_in_rows=torch.tensor([2, 1]),
        rows=rows,
        next_rows=rows + 1,
        action=transitions.action,
        reward=transitions.reward,
        discount=transitions.discount,
        terminated=transitions.terminated,
    )


def scaled_lidar(observation: Mapping[str, torch.Tensor]) -> np.ndarray:
    """The vector of LIDAR written out: every field by its own scale and offset, in tuple order."""
    speed = observation["speed"].double().numpy() / 55.6
    lidar = (observation["lidar"].double().numpy() - 10.0) / 383.0
    actions = [observation[name].double().numpy() for name in ("action_0", "action_1")]
    return np.concatenate([speed, lidar.reshape(len(lidar), -1), *actions], axis=1)


def plain_columns(
    batch: Batch,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scaled observation, action, reward, discount, scaled next observation and terminated of a LIDAR batch."""
    action, reward, discount, terminated = (
        t.double().numpy() for t in (batch.action, batch.reward, batch.discount, batch.terminated)
    )
    return scaled_lidar(batch.observation), action, reward, discount, scaled_lidar(batch.next_observation), terminated


def actor_layers(agent: SAC) -> Layers:
    """(weight (in, out), bias) of the actor's two hidden layers and head."""
    state = {name: t.numpy() for name, t in agent.acting.actor.state_dict().items()}
    return [(state[f"{n}.weight"].T.copy(), state[f"{n}.bias"].copy()) for n in ("hidden.0", "hidden.1", "head")]


def stacked_layers(module: torch.nn.Module, names: list[str], index: int) -> Layers:
    """(weight, bias) of one critic's layers in a stacked ensemble: (in, out) and (out,), or (size,) both."""
    state = {name: t.numpy() for name, t in module.state_dict().items()}
    layers = []
    for name in names:
        weight, bias = state[f"{name}.weight"][index], state[f"{name}.bias"][index]
        layers.append((np.squeeze(weight, 0).copy() if "norm" in name else weight.copy(), bias[0].copy()))
    return layers


def assert_close(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Equal to 1e-10, array by array."""
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)
