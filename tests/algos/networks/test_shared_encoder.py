"""``network.shared_encoder``: one encoder that the critics train, or one for the actor and one for each critic."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from algos.algorithms.sac import SAC
from algos.config import EncoderKind, NetworkConfig, SACConfig
from tests.algos.agents import CPU, assert_goes_on_bit_equal, changed, snapshot
from tests.algos.algorithms.sac_batches import image_spec, random_batch

KINDS = (EncoderKind.compact_cnn, EncoderKind.shared_cnn, EncoderKind.tmrl_cnn)
SPEC = image_spec()


def network(kind: EncoderKind, is_shared: bool | None) -> NetworkConfig:
    return NetworkConfig(encoder=kind, hidden=[16], feature_size=8, shared_encoder=is_shared)


def make(kind: EncoderKind, is_shared: bool | None, **config: int) -> SAC:
    return SAC(SPEC, SACConfig(num_critics=3, **config), network(kind, is_shared), CPU, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_shared_the_critics_train_the_one_encoder(kind: EncoderKind) -> None:
    agent = make(kind, True, policy_delay=2)
    assert list(agent.critic.encoders) == [agent.acting.encoder]
    agent.num_updates = 1  # this update is the critics' alone
    before = snapshot(agent)
    agent.update(random_batch(SPEC, 4))
    moved = changed(before, snapshot(agent))
    assert {name for name in before if name.startswith("acting.encoder.")} <= moved
    assert not {name for name in moved if name.startswith("acting.actor.")}


@pytest.mark.parametrize("kind", KINDS)
def test_with_separate_encoders_each_network_trains_its_own(kind: EncoderKind) -> None:
    agent = make(kind, False, policy_delay=2)
    encoders = [agent.acting.encoder, *agent.critic.encoders]
    assert len({id(encoder) for encoder in encoders}) == 4
    first = [encoder.convolutions[0].weight for encoder in encoders]
    assert not any(torch.equal(one, other) for i, one in enumerate(first) for other in first[:i])
    agent.num_updates = 1
    before = snapshot(agent)
    agent.update(random_batch(SPEC, 4))
    assert changed(before, snapshot(agent)) == {name for name in before if not name.startswith("acting.")}
    before = snapshot(agent)
    agent.update(random_batch(SPEC, 4))
    assert changed(before, snapshot(agent)) == set(before)


@pytest.mark.parametrize(("kind", "is_shared"), [(KINDS[0], True), (KINDS[1], True), (KINDS[2], False)])
def test_null_means_the_default_of_the_encoder(kind: EncoderKind, is_shared: bool) -> None:
    metrics = [make(kind, choice).update(random_batch(SPEC, 4)) for choice in (None, is_shared, not is_shared)]
    assert metrics[0] == metrics[1]
    assert metrics[0]["losses/critic"] != metrics[2]["losses/critic"]


@pytest.mark.parametrize("is_shared", [True, False])
def test_the_losses_of_separate_critics_are_those_of_the_same_encoder_applied_alone(is_shared: bool) -> None:
    """Features of critic i are those of encoder i; a shared one gives every critic the same."""
    agent = make(EncoderKind.compact_cnn, is_shared)
    batch = random_batch(SPEC, 4)
    inputs = agent.acting.inputs(batch.observation)
    features = agent.critic.encode(inputs)
    q = agent.critic(features, batch.action)
    encoders = agent.critic.encoders if not is_shared else [agent.acting.encoder] * 3
    for index, encoder in enumerate(encoders):
        alone = agent.critic.ensemble(encoder(inputs).expand(3, -1, -1), batch.action)[index]
        assert torch.allclose(q[index], alone, atol=1e-6)


@pytest.mark.parametrize(("kind", "is_shared"), [(EncoderKind.compact_cnn, False), (EncoderKind.tmrl_cnn, True)])
def test_saved_and_loaded_it_goes_on_bit_equal(kind: EncoderKind, is_shared: bool) -> None:
    assert_goes_on_bit_equal(SAC, SACConfig(learn_entropy_coef=True), network(kind, is_shared), SPEC)


def test_the_targets_may_have_no_slow_copy_of_a_shared_encoder() -> None:
    assert not replace(network(EncoderKind.tmrl_cnn, True), target_encoder=False).target_encoder
    with pytest.raises(
        ValueError, match=r"target_encoder must be true with the encoder compact_cnn, which is not shared"
    ):
        replace(network(EncoderKind.compact_cnn, False), target_encoder=False)


@pytest.mark.parametrize("is_shared", [True, False])
def test_without_an_encoder_there_is_nothing_to_share(is_shared: bool) -> None:
    with pytest.raises(ValueError, match=r"shared_encoder must be null with the encoder mlp, .* nothing to share"):
        NetworkConfig(shared_encoder=is_shared)
