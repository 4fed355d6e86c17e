"""DAgger against torch's own divergence, against a teacher that sees more, and what it refuses."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from algos.acting.imitating_policy import make_imitating_policy
from algos.algorithms.dagger import LEAST_LOG_STD, DAgger
from algos.config import DAggerConfig, EncoderKind, NetworkConfig, SACConfig
from algos.faces.teacher import load_teacher
from algos.networks import ActingNetwork
from tasks.config import config_to_dict
from tasks.experience.observation import Field, ObservationSpec
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_batch

CPU = torch.device("cpu")
SMALL = NetworkConfig(hidden=[32, 32])
SPEC = ObservationSpec(
    (Field("seen", (3,), low=-1.0, high=1.0), Field("hidden", (2,), low=-1.0, high=1.0, privileged=True)), action_size=2
)


class Teacher(nn.Module):
    """Acts on what only it sees: the hidden numbers, or where they lack the first seen one."""

    def __init__(self, log_std: float = -1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.log_std = log_std

    def forward(self, observation: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        mean = observation.get("hidden", next(iter(observation.values())).flatten(1)[:, :1]) * self.weight
        return mean, torch.full_like(mean, self.log_std)


def make(spec: ObservationSpec = SPEC, network: NetworkConfig = SMALL, **keys: object) -> DAgger:
    dtype = keys.pop("dtype", torch.float32)
    algorithm = DAgger(spec, DAggerConfig(**keys), network, CPU, 0, dtype)  # type: ignore[arg-type]
    algorithm.follow(Teacher())
    return algorithm


def hidden_batch(seed: int, is_told: bool = True) -> dict[str, Tensor]:
    """The hidden numbers follow from the seen ones, or are independent of them."""
    generator = torch.Generator().manual_seed(seed)
    seen = torch.rand((64, 3), generator=generator) * 2 - 1
    other = torch.rand((64, 2), generator=generator) * 2 - 1
    told = torch.stack([seen[:, 0] * seen[:, 1], seen[:, 2]], dim=1)
    return {"seen": seen, "hidden": told if is_told else other}


def batch_of(observation: dict[str, Tensor]):
    one = random_batch(LIDAR)
    return one._replace(observation={**observation, **{f"action_{i}": torch.zeros(64, 2) for i in range(2)}})


@pytest.mark.parametrize("log_std", [-1.0, -8.0])
@torch.no_grad()
def test_the_loss_is_the_divergence_of_the_gaussians(log_std: float) -> None:
    algorithm = make(dtype=torch.float64)
    observation = algorithm._to_device(batch_of(hidden_batch(1))).observation
    inputs = algorithm.inputs_of(observation)
    teacher_mean, teacher_log_std = Teacher(log_std)(observation)
    loss, metrics = algorithm.imitation_loss(inputs, teacher_mean, teacher_log_std)
    mean, own_log_std = algorithm.acting(observation)
    teacher = Normal(teacher_mean, torch.full_like(teacher_mean, max(log_std, LEAST_LOG_STD)).exp())
    expected = kl_divergence(teacher, Normal(mean, own_log_std.exp())).sum(-1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert float(metrics["train/action_difference"]) == pytest.approx(
        (teacher_mean.tanh() - mean.tanh()).abs().mean().item()
    )


def test_what_the_teacher_alone_sees_is_learned_where_it_can_be_told() -> None:
    differences = {}
    for is_told in (True, False):
        algorithm = make(lr_actor=3e-3)
        for step in range(300):
            metrics = algorithm.update(batch_of(hidden_batch(step, is_told)))
        differences[is_told] = float(metrics["train/action_difference"])
    assert differences[True] < 0.1
    assert differences[False] > 0.3
    # Where it cannot be told, the policy is as unsure as it is wrong.
    _, log_std = algorithm.acting(algorithm._to_device(batch_of(hidden_batch(0, is_told=False))).observation)
    assert log_std.exp().mean().item() == pytest.approx(0.7, abs=0.1)  # sqrt(e^-2 + 1/3): the teacher's and the spread


def test_the_policy_and_nothing_of_the_teacher_is_trained_and_saved() -> None:
    algorithm = make()
    teacher = copy.deepcopy(algorithm._teacher.state_dict())
    before = algorithm.acting_weights()
    algorithm.update(batch_of(hidden_batch(0)))
    assert all((algorithm.acting_weights()[name] != before[name]).any() for name in before)
    assert algorithm._teacher.state_dict() == teacher
    assert set(algorithm.state_dict()) == {"acting", "optimizers", "generator", "num_updates"}


def test_a_restored_one_goes_on_in_the_same_way() -> None:
    one, other = make(lr_decay_updates=5), make(lr_decay_updates=5)
    for step in range(3):
        one.update(batch_of(hidden_batch(step)))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for algorithm in (one, other):
        algorithm.update(batch_of(hidden_batch(7)))
    for name, weights in one.acting_weights().items():
        assert (other.acting_weights()[name] == weights).all(), name


def test_an_encoder_is_trained_with_the_policy() -> None:
    spec = image_spec()
    algorithm = make(spec, NetworkConfig(encoder=EncoderKind.compact_cnn, hidden=[16], feature_size=8))
    before = algorithm.acting_weights()
    algorithm.update(random_batch(spec))
    changed = [name for name, weights in algorithm.acting_weights().items() if (weights != before[name]).any()]
    assert any(name.startswith("encoder.") for name in changed)


@pytest.mark.parametrize("key", [{"dropout": 0.01}, {"layer_norm": True}, {"critic_hidden": [8]}])
def test_keys_of_critics_are_refused(key: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"with DAgger, got .*: it has no critics"):
        make(network=replace(SMALL, **key))  # type: ignore[arg-type]


def test_no_teacher_is_refused_with_what_it_may_be() -> None:
    with pytest.raises(
        ValueError, match=r"teacher must be the checkpoint of a policy to imitate, such as zoo:TM20Track"
    ):
        load_teacher(DAggerConfig(), SPEC)
    with pytest.raises(ValueError, match=r"zoo:Nobody is not in the zoo, which has TM20"):
        load_teacher(DAggerConfig(teacher="zoo:Nobody"), SPEC)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"a\.pth"):
        load_teacher(DAggerConfig(teacher=str(tmp_path / "a.pth")), SPEC)


def test_a_teacher_must_see_only_what_the_task_gives() -> None:
    from tasks import registry

    config = registry.default_config("TM20Lidar")
    lidar = registry.observation_spec("TM20Lidar", config)
    with pytest.raises(
        ValueError, match=r"sees gear, rpm, velocity, .*task\.privileged=true gives what TM20Track sees"
    ):
        load_teacher(DAggerConfig(teacher="zoo:TM20Track"), lidar)
    wide = registry.observation_spec("TM20Lidar", replace(config, privileged=True))  # type: ignore[type-var]
    assert isinstance(load_teacher(DAggerConfig(teacher="zoo:TM20Track"), wide), ActingNetwork)


def test_it_has_no_keys_of_critics() -> None:
    assert not hasattr(DAggerConfig(), "gamma")
    assert hasattr(SACConfig(), "gamma")


def test_every_other_episode_is_driven_by_the_mean() -> None:
    policy = make_imitating_policy(SPEC.visible.to_json(), config_to_dict(SMALL), seed=0, warm_up="uniform")
    policy.explore_as([3, 4])
    policy.load_weights(policy.weights(), 1)
    seen = {field.name: np.zeros((2, *field.shape), np.float32) for field in SPEC.visible.all_fields()}
    mean = policy.act_batch(seen, deterministic=True)
    for is_noisy in ([False, True], [True, False], [False, True]):
        assert (policy.act_batch(seen) != mean).any(axis=1).tolist() == is_noisy
        state = policy.state()
        policy.begin_episodes([0, 1])
    policy.load_state(state)
    assert (policy.act_batch(seen) != mean).any(axis=1).tolist() == [False, False]
