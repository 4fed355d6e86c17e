"""Recurrent SAC against a second method, against SAC, and what its memory must and must not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algos.algorithms.rsac import RSAC
from algos.algorithms.sac import SAC
from algos.config import NetworkConfig, Normalization, RecurrentNetworkConfig, RSACConfig, SACConfig
from algos.networks import RecurrentEncoder
from algos.replay.memory import Batch
from algos.replay.sequences import SequenceBatch
from algos.run.checkpoint import snapshot
from tasks.experience.observation import ObservationSpec
from tests.algos.algorithms.rsac_by_hand import Gru, Layers, Sequence, actor_loss, critic_loss
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch, random_observation
from tests.algos.algorithms.sac_by_hand import Adam

CPU = torch.device("cpu")
P, LENGTH, N, SIZE = 3, 4, 2, 5
WIDTH = LENGTH + N


def config(**changes: Any) -> RSACConfig:
    values: dict[str, Any] = {"learn_entropy_coef": True, "burn_in": P, "sequence_length": LENGTH, "n_step": N}
    return RSACConfig(**(values | changes))


def network(**changes: Any) -> RecurrentNetworkConfig:
    values: dict[str, Any] = {"hidden": [8, 6], "gru_size": SIZE}
    return RecurrentNetworkConfig(**(values | changes))


def rsac(spec: ObservationSpec = LIDAR, dtype: torch.dtype = torch.float64, **changes: Any) -> RSAC:
    keys = {key: changes.pop(key) for key in list(changes) if hasattr(RecurrentNetworkConfig(), key)}
    return RSAC(spec, config(**changes), network(**keys), CPU, 0, dtype)


def sequence_batch(spec: ObservationSpec = LIDAR, seed: int = 0, num: int = 4) -> Any:
    """Sequences with burn-ins of 0, 1, ... rows and fewer and fewer transitions; the rest is noise nobody may read."""
    rng = np.random.default_rng(seed)
    burn_in, window = (
        {name: v.unflatten(0, (num, r)) for name, v in random_observation(spec, rng, num * r).items()}
        for r in (P, WIDTH)
    )
    rows, next_rows = [], []
    for b in range(num):
        for t in range(max(1, LENGTH - b)):
            rows.append(b * WIDTH + t)
            next_rows.append(b * WIDTH + min(t + N, LENGTH - b + 1 if b else WIDTH - 1))
    k = len(rows)
    return SequenceBatch(
        burn_in=burn_in,
        window=window,
        state=torch.from_numpy(rng.normal(size=(num, SIZE)).astype(np.float32)),
        burn_in_rows=torch.arange(num) % (P + 1),
        rows=torch.tensor(rows),
        next_rows=torch.tensor(next_rows),
        action=torch.from_numpy(rng.uniform(-1, 1, (k, spec.action_size)).astype(np.float32)),
        reward=torch.from_numpy(rng.normal(size=k).astype(np.float32)),
        discount=torch.full((k,), 0.9),
        terminated=torch.from_numpy((rng.random(k) < 0.3).astype(np.float32)),
    )


# --- a second method ---


def gru_of(encoder: Any) -> Gru:
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return Gru(*[getattr(encoder.memory, name).detach().clone().requires_grad_() for name in names])


def critics_of(critic: Any) -> list[Layers]:
    layers = [*critic.ensemble.hidden, critic.ensemble.head]
    return [
        [
            (w.weight[i].detach().clone().requires_grad_(), w.bias[i, 0].detach().clone().requires_grad_())
            for w in layers
        ]
        for i in range(2)
    ]


def actor_of(algorithm: RSAC) -> Layers:
    actor: Any = algorithm.acting.actor
    layers = [*actor.hidden, actor.head]
    return [(w.weight.detach().clone().T.requires_grad_(), w.bias.detach().clone().requires_grad_()) for w in layers]


def sequences_of(algorithm: RSAC, batch: SequenceBatch) -> list[Sequence]:
    """The same sequences without anything that fills them up; f is the scaled vector."""

    def seen(fields: dict[str, Tensor], b: int, t: int) -> Tensor:
        return algorithm.acting.inputs({name: values[b, t][None].double() for name, values in fields.items()}).vector[0]

    sequences = []
    for b in range(len(batch.state)):
        places = [k for k, row in enumerate(batch.rows.tolist()) if row // WIDTH == b]
        transitions = [
            (
                int(batch.rows[k]) % WIDTH,
                int(batch.next_rows[k]) % WIDTH,
                batch.action[k].double(),
                batch.reward[k].double().item(),
                batch.discount[k].double().item(),
                batch.terminated[k].item(),
            )
            for k in places
        ]
        count = 1 + max(max(entry[:2]) for entry in transitions)
        burn_in = [seen(batch.burn_in, b, t) for t in range(int(batch.burn_in_rows[b]))]
        rows = [seen(batch.window, b, t) for t in range(count)]
        sequences.append(Sequence(batch.state[b].double(), burn_in, rows, transitions))
    return sequences


def flat(gru: Gru, critics: list[Layers]) -> list[Tensor]:
    return [*gru.parameters(), *[tensor for critic in critics for layer in critic for tensor in layer]]


def stepped(parameters: list[Tensor], gradients: list[Tensor], learning_rate: float) -> list[np.ndarray]:
    values = [p.detach().numpy().copy() for p in parameters]
    Adam(learning_rate).step(values, [g.numpy() for g in gradients])
    return values


def test_an_update_equals_one_row_at_a_time_by_hand() -> None:
    algorithm, batch = rsac(polyak=0.9), sequence_batch()
    noises = torch.Generator(CPU).manual_seed(0)
    shape = (len(batch.rows), 3)
    drawn = [torch.randn(shape, generator=noises, dtype=torch.float64) for _ in range(2)]
    gru, critics, actor = gru_of(algorithm.acting.encoder), critics_of(algorithm.critic), actor_of(algorithm)
    sequences = sequences_of(algorithm, batch)
    alpha = algorithm.alpha.item()
    loss = critic_loss(sequences, gru, critics, gru, critics, actor, gru, alpha, drawn[0])
    gradients = torch.autograd.grad(loss, flat(gru, critics))
    new = stepped(flat(gru, critics), list(gradients), 3e-4)

    metrics = algorithm.update(batch)

    assert metrics["losses/critic"].item() == pytest.approx(loss.item(), abs=1e-12)
    got = flat(gru_of(algorithm.acting.encoder), critics_of(algorithm.critic))
    for index, (expected, actual) in enumerate(zip(new, got, strict=True)):
        np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=1e-10, err_msg=str(index))
    old = flat(gru, critics)
    slow = flat(gru_of(algorithm.target_critic.encoders[0]), critics_of(algorithm.target_critic))
    for before, after, target in zip(old, new, slow, strict=True):
        expected = 0.9 * before.detach().numpy() + 0.1 * after
        np.testing.assert_allclose(target.detach().numpy(), expected, rtol=0, atol=1e-10)

    # The actor climbs the new heads on the features that the critics saw.
    policy_loss = actor_loss(sequences, gru, critics_of(algorithm.critic), actor, alpha, drawn[1])
    assert metrics["losses/actor"].item() == pytest.approx(policy_loss.item(), abs=1e-10)
    parameters = [tensor for layer in actor for tensor in layer]
    new = stepped(parameters, list(torch.autograd.grad(policy_loss, parameters)), 3e-4)
    for expected, actual in zip(new, [t for layer in actor_of(algorithm) for t in layer], strict=True):
        np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=1e-10)


def test_the_burn_in_has_no_gradient() -> None:
    algorithm, batch = rsac(), sequence_batch()
    drawn = torch.randn((len(batch.rows), 3), generator=torch.Generator(CPU).manual_seed(0), dtype=torch.float64)
    gru, critics, actor = gru_of(algorithm.acting.encoder), critics_of(algorithm.critic), actor_of(algorithm)
    prepared, inputs, next_inputs = algorithm.prepare(batch)
    loss, _, _ = algorithm.policy_evaluation(prepared, inputs, next_inputs)
    encoder: Any = algorithm.acting.encoder
    got = torch.autograd.grad(loss, encoder.memory.weight_hh_l0)[0]
    for has_gradient in (False, True):
        by_hand = critic_loss(
            *(sequences_of(algorithm, batch), gru, critics, gru, critics, actor, gru, algorithm.alpha.item(), drawn),
            burn_in_has_gradient=has_gradient,
        )
        expected = torch.autograd.grad(by_hand, gru.state_weight)[0]
        assert torch.allclose(got, expected, rtol=0, atol=1e-12) is not has_gradient


def without_memory(algorithm: RSAC, sac: SAC) -> None:
    """Gives recurrent SAC the weights of SAC, and a GRU of zeros that nobody listens to."""
    size = sac.acting.inputs.vector_size
    with torch.no_grad():
        for encoder in (algorithm.acting.encoder, algorithm.target_critic.encoders[0]):
            assert isinstance(encoder, RecurrentEncoder)
            for parameter in encoder.memory.parameters():
                parameter.zero_()
        own = algorithm.acting.actor.state_dict()
        for name, tensor in sac.acting.actor.state_dict().items():
            if own[name].shape == tensor.shape:
                own[name].copy_(tensor)
            else:  # (out, F) in (out, F + S)
                own[name].zero_()[:, :size] = tensor
        for mine, theirs in ((algorithm.critic, sac.critic), (algorithm.target_critic, sac.target_critic)):
            own = mine.ensemble.state_dict()
            for name, tensor in theirs.ensemble.state_dict().items():
                if own[name].shape == tensor.shape:
                    own[name].copy_(tensor)
                else:  # (N, F + A, out) in (N, F + S + A, out)
                    own[name].zero_()[:, :size] = tensor[:, :size]
                    own[name][:, size + SIZE :] = tensor[:, size:]


def as_sequences(batch: Batch) -> Any:
    """Transitions as sequences of one row without a burn-in."""
    num = len(batch.reward)
    window = {name: torch.stack((v, batch.next_observation[name]), dim=1) for name, v in batch.observation.items()}
    return SequenceBatch(
        burn_in={name: values[:, :0] for name, values in window.items()},
        window=window,
        state=torch.zeros(num, SIZE),
        burn_in_rows=torch.zeros(num, dtype=torch.int64),
        rows=2 * torch.arange(num),
        next_rows=2 * torch.arange(num) + 1,
        action=batch.action,
        reward=batch.reward,
        discount=batch.discount,
        terminated=batch.terminated,
    )


def test_sequences_of_one_row_without_memory_are_sac() -> None:
    keys: dict[str, Any] = {"learn_entropy_coef": True, "n_step": 1}
    algorithm = RSAC(LIDAR, config(**keys, burn_in=0, sequence_length=1), network(), CPU, 0, torch.float64)
    sac = SAC(LIDAR, SACConfig(**keys), network_without_memory(), CPU, 0, torch.float64)
    without_memory(algorithm, sac)
    for seed in range(20):
        batch = random_batch(LIDAR, 16, seed)
        expected, got = sac.update(batch), algorithm.update(as_sequences(batch))
        assert expected.keys() == got.keys()
        for name, value in expected.items():
            assert got[name].item() == pytest.approx(value.item(), abs=1e-10), (seed, name)


def network_without_memory() -> NetworkConfig:
    return NetworkConfig(hidden=[8, 6])


# --- what is read and what is not ---


def loss_of(algorithm: RSAC, batch: SequenceBatch) -> float:
    algorithm._generator.manual_seed(1)
    return algorithm.policy_evaluation(*algorithm.prepare(batch))[0].item()


def policy_of(algorithm: RSAC, batch: SequenceBatch) -> np.ndarray:
    _, inputs, _ = algorithm.prepare(batch)
    return algorithm.acting.actor(algorithm.acting.encoder(inputs))[0].detach().numpy()


def test_rows_that_fill_up_a_sequence_are_not_read() -> None:
    algorithm, batch = rsac(), sequence_batch()
    used = set(batch.rows.tolist()) | set(batch.next_rows.tolist())
    assert len(used) < 4 * WIDTH

    def with_noise(fields: dict[str, Tensor], is_used: Any) -> dict[str, Tensor]:
        changed = {name: values.clone() for name, values in fields.items()}
        for values in changed.values():
            for b in range(values.shape[0]):
                for t in range(values.shape[1]):
                    if not is_used(b, t):
                        values[b, t] = 100.0
        return changed

    last = {b: max(row for row in used if row // WIDTH == b) % WIDTH for b in range(4)}
    other = batch._replace(
        burn_in=with_noise(batch.burn_in, lambda b, t: t < int(batch.burn_in_rows[b])),
        window=with_noise(batch.window, lambda b, t: t <= last[b]),
    )
    assert loss_of(algorithm, other) == loss_of(algorithm, batch)
    assert loss_of(algorithm, batch._replace(window=with_noise(batch.window, lambda b, t: t > 0))) != loss_of(
        algorithm, batch
    )


@pytest.mark.parametrize("part", ["state", "burn_in", "burn_in_rows"])
def test_what_came_before_a_sequence_changes_the_loss(part: str) -> None:
    algorithm, batch = rsac(), sequence_batch()
    changes: dict[str, Any] = {
        "state": batch.state + 0.5,
        "burn_in": {name: values + 0.5 for name, values in batch.burn_in.items()},
        "burn_in_rows": torch.zeros_like(batch.burn_in_rows),
    }
    assert loss_of(algorithm, batch._replace(**{part: changes[part]})) != loss_of(algorithm, batch)


def test_separate_critics_begin_their_burn_in_with_zeros_and_the_actor_with_its_state() -> None:
    algorithm, batch = rsac(shared_encoder=False), sequence_batch()
    other = batch._replace(state=batch.state + 0.5, terminated=torch.ones_like(batch.terminated))
    batch = batch._replace(terminated=torch.ones_like(batch.terminated))
    assert loss_of(algorithm, other) == loss_of(algorithm, batch)
    assert not np.array_equal(policy_of(algorithm, other), policy_of(algorithm, batch))


def test_a_termination_cuts_the_bootstrap_and_a_truncation_does_not() -> None:
    algorithm, batch = rsac(), sequence_batch()
    for terminated in (0.0, 1.0):
        batch = batch._replace(terminated=torch.full_like(batch.terminated, terminated))
        prepared, _, next_inputs = algorithm.prepare(batch)
        target = algorithm.target(prepared, next_inputs)
        assert torch.equal(target, batch.reward.double()) is (terminated == 1.0)


# --- whose gradient goes where ---


@pytest.mark.parametrize("is_shared", [True, False])
def test_the_gru_of_the_actor_learns_from_its_owner(is_shared: bool) -> None:
    algorithm, batch = rsac(shared_encoder=is_shared), sequence_batch()
    own = {id(p) for p in algorithm.acting.encoder.parameters()}
    assert any(id(p) in own for p in algorithm._parameters["critic"]) is is_shared
    assert any(id(p) in own for p in algorithm._parameters["actor"]) is not is_shared
    encoders = list(algorithm.critic.encoders)
    assert len(encoders) == (1 if is_shared else 2)
    before = [p.detach().clone() for encoder in (*encoders, algorithm.acting.encoder) for p in encoder.parameters()]
    algorithm.update(batch)
    after = [p for encoder in (*encoders, algorithm.acting.encoder) for p in encoder.parameters()]
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("key", ["sequence_length", "burn_in"])
def test_lengths_of_nothing_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        config(**{key: -1})


def test_a_network_without_a_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="gru_size"):
        RSAC(LIDAR, config(), network_without_memory(), CPU, 0)
    with pytest.raises(ValueError, match=r"gru_size must be >= 1, got 0"):
        network(gru_size=0)
    with pytest.raises(ValueError, match=r"asymmetric_critic must be false"):
        network(asymmetric_critic=True)


# --- state ---


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_restored_run_continues_bit_for_bit(is_shared: bool) -> None:
    straight, resumed = (rsac(dtype=torch.float32, shared_encoder=is_shared) for _ in range(2))
    for seed in range(3):
        straight.update(sequence_batch(seed=seed))
    resumed.load_state_dict(snapshot(straight.state_dict()))
    for seed in range(3, 6):
        expected, got = straight.update(sequence_batch(seed=seed)), resumed.update(sequence_batch(seed=seed))
        assert {name: value.item() for name, value in expected.items()} == {n: v.item() for n, v in got.items()}
    for name, values in straight.acting_weights().items():
        np.testing.assert_array_equal(values, resumed.acting_weights()[name], err_msg=name)


@pytest.mark.parametrize(
    "changes", [{}, {"random_shift": 4}, {"observation_normalization": Normalization.running}], ids=str
)
def test_images_with_a_memory_learn(changes: dict[str, Any]) -> None:
    spec = image_spec(history=1)
    algorithm = rsac(spec, torch.float32, encoder="compact_cnn", **changes)
    assert isinstance(algorithm.acting.encoder, RecurrentEncoder)
    before = algorithm.acting_weights()
    metrics = algorithm.update(sequence_batch(spec))
    assert all(torch.isfinite(value) for value in metrics.values())
    changed = {name for name, values in algorithm.acting_weights().items() if not np.array_equal(values, before[name])}
    assert {"encoder.memory.weight_hh_l0", "encoder.frames.convolutions.0.weight"} <= changed
