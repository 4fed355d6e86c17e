"""The recurrent policy computes what the learner computes, resets its state at each episode, and can be restored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from algos.acting.recurrent_policy import RecurrentPolicy, make_recurrent_policy
from algos.algorithms.rsac import RSAC
from algos.config import RecurrentNetworkConfig, RSACConfig
from algos.replay.sequences import SequenceMemory
from tasks.acting.rollout import Rollout
from tasks.config import config_to_dict
from tasks.experience.observation import ObservationSpec
from tests.algos.algorithms.sac_batches import image_spec, random_observation
from tests.algos.fakes import SPEC, ToyEnv

CPU = torch.device("cpu")
NETWORK = RecurrentNetworkConfig(hidden=[16, 16], gru_size=6)


def make_policy(
    spec: ObservationSpec = SPEC, network: RecurrentNetworkConfig = NETWORK, seed: int = 0
) -> RecurrentPolicy:
    plain = json.loads(json.dumps({"spec": spec.to_json(), "network": config_to_dict(network)}))
    policy = make_recurrent_policy(**plain, seed=seed)
    assert isinstance(policy, RecurrentPolicy)
    return policy


def make_rsac(spec: ObservationSpec = SPEC, network: RecurrentNetworkConfig = NETWORK) -> RSAC:
    return RSAC(spec, RSACConfig(learn_entropy_coef=True), network, CPU, seed=0)


def observations(num: int, spec: ObservationSpec = SPEC) -> list[dict[str, np.ndarray]]:
    batch = random_observation(spec, np.random.default_rng(0), num)
    return [{name: values[t].numpy() for name, values in batch.items()} for t in range(num)]


def deterministic_actions(policy: RecurrentPolicy, rows: list[dict[str, np.ndarray]]) -> np.ndarray:
    return np.array([policy.act(row, deterministic=True) for row in rows])


@pytest.mark.parametrize("burn_in", [0, 3])
def test_the_learner_computes_the_same_features_as_the_policy(burn_in: int) -> None:
    """The same weights on the same rows, from the stored state: the same states, means and deviations."""
    algorithm, policy = make_rsac(), make_policy()
    policy.load_weights(algorithm.acting_weights(), 1)
    memory = SequenceMemory(SPEC, 500, 2, 0.9, 0, NETWORK.gru_size, burn_in, sequence_length=5)
    rollout = Rollout(ToyEnv(), policy, "w", 0, 0)
    for seq in range(1, 20):
        memory.append(replace(rollout.run(7), seq=seq))

    batch = memory.sample(40)
    transitions, inputs, _ = algorithm.prepare(batch)
    with torch.no_grad():
        features = algorithm.acting.encoder(inputs)
        mean, log_std = algorithm.acting.actor(features)
    # The state stored with the next row is the encoder's state now: replay the policy by hand to find it.
    replayed = make_policy()
    replayed.load_weights(algorithm.acting_weights(), 1)
    width = batch.window["speed"].shape[1]
    assert len(batch.rows) > 100
    for k in range(0, len(batch.rows), 5):
        b, t = divmod(int(batch.rows[k]), width)
        replayed.load_state({**replayed.state(), "recurrent_state": batch.state[b].tolist()})
        count = int(batch.burn_in_rows[b])
        rows = [{name: v[b, i].numpy() for name, v in batch.burn_in.items()} for i in range(count)]
        rows += [{name: v[b, i].numpy() for name, v in batch.window.items()} for i in range(t + 1)]
        action = deterministic_actions(replayed, rows)[-1]
        np.testing.assert_allclose(mean[k].tanh().numpy(), action, atol=1e-5)
        np.testing.assert_allclose(features[k, -NETWORK.gru_size :].numpy(), replayed.recurrent_state, atol=1e-5)
    # The learner's Gaussian explains the action: noise within 5 standard deviations.
    noise = (transitions.action.clamp(-0.999999, 0.999999).atanh() - mean) / log_std.exp()
    assert noise.abs().max() < 5


def test_the_state_depends_on_all_rows_before() -> None:
    policy = make_policy()
    policy.load_weights(make_rsac().acting_weights(), 1)
    rows = observations(4)
    policy.begin_episode()
    action = deterministic_actions(policy, rows)[-1]
    policy.begin_episode()
    assert not np.array_equal(deterministic_actions(policy, [rows[1], *rows[1:]])[-1], action)


def test_a_new_episode_resets_the_state() -> None:
    policy = make_policy()
    policy.load_weights(make_rsac().acting_weights(), 1)
    rows = observations(3)
    policy.begin_episode()
    first = deterministic_actions(policy, rows)
    assert policy.recurrent_state.any()
    policy.begin_episode()
    assert not policy.recurrent_state.any()
    np.testing.assert_array_equal(deterministic_actions(policy, rows), first)


def test_the_warm_up_has_no_state_and_new_weights_keep_it() -> None:
    policy, rows = make_policy(), observations(3)
    policy.begin_episode()
    policy.act(rows[0])
    assert not policy.recurrent_state.any()
    policy.load_weights(make_rsac().acting_weights(), 1)
    policy.act(rows[1])
    state = policy.recurrent_state.copy()
    assert state.any()
    policy.load_weights(make_rsac().acting_weights(), 2)
    np.testing.assert_array_equal(policy.recurrent_state, state)


def test_a_returned_state_does_not_change_when_acting_continues() -> None:
    policy, rows = make_policy(), observations(2)
    policy.load_weights(make_rsac().acting_weights(), 1)
    policy.act(rows[0])
    given = policy.recurrent_state
    kept = given.copy()
    policy.act(rows[1])
    np.testing.assert_array_equal(given, kept)


def test_a_restored_policy_continues_bit_for_bit() -> None:
    weights, rows = make_rsac().acting_weights(), observations(6)
    policy, restored = make_policy(), make_policy(seed=9)
    for each in (policy, restored):
        each.load_weights(weights, 1)
    for row in rows[:3]:
        policy.act(row)
    restored.load_state(json.loads(json.dumps(policy.state())))
    for row in rows[3:]:
        np.testing.assert_array_equal(policy.act(row), restored.act(row))


def test_a_rollout_continues_bit_for_bit_with_its_states() -> None:
    def make() -> Rollout:
        policy = make_policy()
        policy.load_weights(make_rsac().acting_weights(), 1)
        return Rollout(ToyEnv(), policy, "w", 0, 0)

    whole, first, second = make(), make(), make()
    expected = whole.run(25)
    first.run(11)
    second.load_state(json.loads(json.dumps(first.state())))
    got = second.run(14)
    assert expected.states is not None
    assert got.states is not None
    np.testing.assert_array_equal(got.states, expected.states[11:])
    np.testing.assert_array_equal(got.action, expected.action[11:])


def test_the_state_depends_on_images_too() -> None:
    spec, network = image_spec(history=1), RecurrentNetworkConfig("compact_cnn", hidden=[16], gru_size=6)
    policy = make_policy(spec, network)
    policy.load_weights(make_rsac(spec, network).acting_weights(), 1)
    assert policy.act(observations(1, spec)[0]).shape == (3,)
    assert policy.recurrent_state.any()


def test_an_unknown_warm_up_is_refused() -> None:
    with pytest.raises(ValueError, match="warm_up must be one of"):
        make_recurrent_policy(SPEC.to_json(), config_to_dict(NETWORK), seed=0, warm_up="parking")


def test_each_of_many_environments_has_a_memory_of_its_own() -> None:
    weights = make_rsac().acting_weights()
    together, alone = make_policy(), [make_policy() for _ in range(3)]
    together.explore_as([0, 1, 2])
    for policy in (together, *alone):
        policy.load_weights(weights, 1)
    rows = observations(12)
    for step in range(4):
        seen = rows[3 * step : 3 * step + 3]
        batch = {name: np.stack([row[name] for row in seen]) for name in seen[0]}
        expected = [policy.act(row, deterministic=True) for policy, row in zip(alone, seen, strict=True)]
        np.testing.assert_allclose(together.act_batch(batch, deterministic=True), expected, atol=1e-5)
        if step == 1:
            together.begin_episodes([2])
            alone[2].begin_episode()
        states = [policy.recurrent_state for policy in alone]
        np.testing.assert_allclose(together.recurrent_states, states, atol=1e-5)
