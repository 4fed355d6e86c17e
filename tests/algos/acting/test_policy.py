"""Acting: the same numbers as the training actor, warm-up before weights, every shape of observation."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from algos.acting.policy import ActingPolicy, make_acting_policy
from algos.algorithms.sac import SAC
from algos.config import EncoderKind, NetworkConfig, Normalization, SACConfig
from tasks.config import config_to_dict
from tasks.experience.observation import ObservationSpec
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch, random_observation

CPU = torch.device("cpu")
SPECS: dict[str, tuple[ObservationSpec, NetworkConfig]] = {
    "lidar": (LIDAR, NetworkConfig(hidden=[16, 16])),
    "no action buffer": (replace(LIDAR, act_buf_len=0), NetworkConfig(hidden=[16])),
    "long action buffer": (replace(LIDAR, act_buf_len=5), NetworkConfig(hidden=[16])),
    "running": (LIDAR, NetworkConfig(hidden=[16], observation_normalization=Normalization.running)),
    "compact": (image_spec(), NetworkConfig(EncoderKind.compact_cnn, hidden=[16])),
    "colour": (image_spec(colours=True), NetworkConfig(EncoderKind.compact_cnn, hidden=[16])),
    "history 1": (image_spec(1), NetworkConfig(EncoderKind.compact_cnn, hidden=[16])),
    "no history": (image_spec(0, 40, 52), NetworkConfig(EncoderKind.compact_cnn, hidden=[16], random_shift=3)),
    "shared": (image_spec(), NetworkConfig(EncoderKind.shared_cnn, hidden=[16])),
    "tmrl": (image_spec(), NetworkConfig(EncoderKind.tmrl_cnn, [16], observation_normalization=Normalization.tmrl)),
}


def make_policy(
    spec: ObservationSpec, network: NetworkConfig, seed: int = 0, warm_up: str = "driving", held_pedals: float = 0.0
) -> ActingPolicy:
    plain = json.loads(json.dumps({"spec": spec.to_json(), "network": config_to_dict(network)}))
    return make_acting_policy(**plain, seed=seed, warm_up=warm_up, held_pedals=held_pedals)


def one_observation(spec: ObservationSpec, seed: int = 0) -> dict[str, np.ndarray]:
    batch = random_observation(spec, np.random.default_rng(seed), 1)
    return {name: tensor[0].numpy() for name, tensor in batch.items()}


@pytest.mark.parametrize("name", SPECS)
def test_deterministic_action_equals_the_training_actor(name: str) -> None:
    spec, network = SPECS[name]
    agent = SAC(spec, SACConfig(), network, CPU, seed=0)
    for seed in range(2):
        agent.update(random_batch(spec, 4, seed))
    policy = make_policy(spec, network)
    policy.load_weights(agent.acting_weights(), 3)
    observations = random_observation(spec, np.random.default_rng(1), 3)
    with torch.no_grad():
        expected = agent.acting(observations)[0].tanh().numpy()
    for row in range(3):
        obs = {key: tensor[row].numpy() for key, tensor in observations.items()}
        action = policy.act(obs, deterministic=True)
        np.testing.assert_allclose(action, expected[row], atol=2e-6)
        assert action.dtype == np.float32
        assert action.shape == (3,)
    assert policy.version == 3


def test_sampled_actions_have_the_mean_and_spread_of_the_actor() -> None:
    spec, network = SPECS["lidar"]
    agent = SAC(spec, SACConfig(), network, CPU, seed=0)
    policy = make_policy(spec, network)
    policy.load_weights(agent.acting_weights(), 1)
    obs = one_observation(spec)
    with torch.no_grad():
        mean, log_std = agent.acting({key: torch.from_numpy(value[None]) for key, value in obs.items()})
    samples = np.arctanh(np.array([policy.act(obs) for _ in range(4000)], np.float64).clip(-1 + 1e-7, 1 - 1e-7))
    np.testing.assert_allclose(samples.mean(0), mean[0], atol=0.1)
    np.testing.assert_allclose(samples.std(0), log_std.exp()[0], rtol=0.05)


@pytest.mark.filterwarnings("error")
def test_read_only_and_reversed_arrays_act_like_plain_ones() -> None:
    spec, network = SPECS["compact"]
    policy = make_policy(spec, network)
    policy.load_weights(SAC(spec, SACConfig(), network, CPU, seed=0).acting_weights(), 1)
    obs = one_observation(spec)
    expected = policy.act(obs, deterministic=True)
    odd = {name: np.flip(np.flip(array, 0).copy(), 0) for name, array in obs.items()}
    for array in odd.values():
        array.flags.writeable = False
    np.testing.assert_array_equal(policy.act(odd, deterministic=True), expected)


def test_loaded_weights_are_a_copy() -> None:
    spec, network = SPECS["lidar"]
    agent = SAC(spec, SACConfig(), network, CPU, seed=0)
    weights = agent.acting_weights()
    before = {name: array.copy() for name, array in weights.items()}
    policy = make_policy(spec, network)
    policy.load_weights(weights, 1)
    action = policy.act(one_observation(spec), deterministic=True)
    agent.update(random_batch(spec, 4))
    assert all(np.array_equal(before[name], array) for name, array in weights.items())
    for array in weights.values():
        array[...] = 0
    np.testing.assert_array_equal(policy.act(one_observation(spec), deterministic=True), action)


def test_acting_weights_contain_no_critic() -> None:
    spec, network = SPECS["compact"]
    agent = SAC(spec, SACConfig(), network, CPU, seed=0)
    parts = {name.split(".")[0] for name in agent.acting_weights()}
    assert parts == {"encoder", "actor"}
    assert all(array.flags["C_CONTIGUOUS"] for array in agent.acting_weights().values())


def test_warm_up_acts_until_the_first_weights_are_loaded() -> None:
    spec, network = SPECS["lidar"]
    policy = make_policy(spec, network)
    obs = one_observation(spec)
    warm_up = np.array([policy.act(obs) for _ in range(400)])
    assert policy.version == 0
    assert warm_up[:, 0].min() >= -0.2
    assert warm_up[:, 1].max() <= 0.3
    assert warm_up.dtype == np.float32
    policy.load_weights(SAC(spec, SACConfig(), network, CPU, seed=0).acting_weights(), 1)
    assert np.array([policy.act(obs) for _ in range(200)])[:, 0].min() < -0.2


def test_same_seed_gives_the_same_actions_and_a_restored_state_continues_them() -> None:
    spec, network = SPECS["lidar"]
    weights = SAC(spec, SACConfig(), network, CPU, seed=0).acting_weights()
    obs = one_observation(spec)
    for version in (0, 1):
        policies = [make_policy(spec, network, seed) for seed in (0, 0, 1)]
        if version:
            for policy in policies:
                policy.load_weights(weights, version)
        runs = [[policy.act(obs) for _ in range(10)] for policy in policies]
        assert np.array_equal(runs[0], runs[1])
        assert not np.array_equal(runs[0], runs[2])
        state = json.loads(json.dumps(policies[0].state()))
        ahead = [policies[0].act(obs) for _ in range(10)]
        policies[2].load_state(state)
        assert np.array_equal([policies[2].act(obs) for _ in range(10)], ahead)


def test_wrong_weights_are_refused_and_leave_the_policy_as_it_was() -> None:
    spec, network = SPECS["lidar"]
    policy = make_policy(spec, network)
    good = SAC(spec, SACConfig(), network, CPU, seed=0).acting_weights()
    policy.load_weights(good, 1)
    action = policy.act(one_observation(spec), deterministic=True)
    wider = SAC(spec, SACConfig(), NetworkConfig(hidden=[17, 16]), CPU, seed=0).acting_weights()
    with pytest.raises(ValueError, match=r"actor\.hidden\.0\.bias must have shape \(16,\), got \(17,\)"):
        policy.load_weights(wider, 2)
    missing = {name: array for name, array in good.items() if name != "actor.head.bias"}
    with pytest.raises(ValueError, match=r"actor\.head\.bias must have shape \(6,\), got None"):
        policy.load_weights(missing, 2)
    with pytest.raises(ValueError, match="version must be >= 1"):
        policy.load_weights(good, 0)
    assert policy.version == 1
    np.testing.assert_array_equal(policy.act(one_observation(spec), deterministic=True), action)


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="warm_up must be one of \\['uniform', 'driving'\\], got 'gas'"):
        make_policy(LIDAR, NetworkConfig(), warm_up="gas")
    plain = config_to_dict(NetworkConfig()) | {"encoder": "cnn"}
    with pytest.raises(ValueError, match="encoder must be one of \\['mlp', 'dense', 'tmrl_cnn'"):
        make_acting_policy(LIDAR.to_json(), plain, seed=0)


def test_building_a_policy_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    make_policy(*SPECS["lidar"])
    assert torch.equal(torch.rand(1), first)


@pytest.mark.parametrize("name", ["lidar", "compact"])
@pytest.mark.parametrize("held_pedals", [0.0, 0.5])
def test_many_environments_are_acted_in_as_each_alone(name: str, held_pedals: float) -> None:
    spec, network = SPECS[name]
    agent = SAC(spec, SACConfig(), network, CPU, seed=0)
    together = make_policy(spec, network, seed=5, held_pedals=held_pedals)
    together.explore_as([5, 6, 7])
    alone = [make_policy(spec, network, seed=seed, held_pedals=held_pedals) for seed in (5, 6, 7)]
    observations = random_observation(spec, np.random.default_rng(1), 3)
    batch = {key: tensor.numpy() for key, tensor in observations.items()}
    rows = [{key: value[row] for key, value in batch.items()} for row in range(3)]

    def assert_equal(deterministic: bool = False) -> None:
        expected = [policy.act(obs, deterministic) for policy, obs in zip(alone, rows, strict=True)]
        np.testing.assert_allclose(together.act_batch(batch, deterministic), expected, atol=2e-6)

    for _ in range(10):
        assert_equal()
    together.begin_episodes([1])
    alone[1].begin_episode()
    assert_equal()
    for policy in (together, *alone):
        policy.load_weights(agent.acting_weights(), 1)
    for deterministic in (False, True, False):
        assert_equal(deterministic)


def test_pedals_are_held_only_while_the_policy_explores_with_weights() -> None:
    spec, network = SPECS["lidar"]
    agent, policy = SAC(spec, SACConfig(), network, CPU, seed=0), make_policy(*SPECS["lidar"], held_pedals=0.9)
    obs = one_observation(spec)

    def share_at_an_end(deterministic: bool = False) -> float:
        return float(np.mean([(np.abs(policy.act(obs, deterministic)[:2]) == 1.0).all() for _ in range(300)]))

    assert share_at_an_end() == 0.0
    policy.load_weights(agent.acting_weights(), 1)
    assert share_at_an_end(deterministic=True) == 0.0
    assert share_at_an_end() > 0.9
    state = json.loads(json.dumps(policy.state()))
    again = make_policy(*SPECS["lidar"], seed=8, held_pedals=0.9)
    again.load_weights(agent.acting_weights(), 1)
    again.load_state(state)
    assert all(np.array_equal(again.act(obs), policy.act(obs)) for _ in range(50))
    policy.load_state({name: value for name, value in state.items() if name != "pedals"})  # of an older run
