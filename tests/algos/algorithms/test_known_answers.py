"""Whole learning problems whose solution is known on paper: what each algorithm of the family must find."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from algos.algorithms.sac import SAC
from algos.config import NetworkConfig
from algos.replay.memory import Batch, ReplayMemory
from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.samples import Segment
from tests.algos.algorithms.test_family_invariants import FAMILY, make

SPEC = ObservationSpec((Field("place", (1,)),), action_size=1, act_buf_len=0)


def tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))


def values_of(agent: SAC, place: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Mean of everything that the critics give, for columns of places and actions."""
    with torch.no_grad():
        features = agent.critic.encode(agent.acting.inputs({"place": tensor(place)}))
        q = agent.critic(features, tensor(action))
    return q.reshape(*q.shape[:2], -1).mean((0, 2)).double().numpy()


class SoftRegulator:
    """A linear system with quadratic cost and an entropy bonus: the optimal policy is Gaussian, Q* quadratic.

    s' = A s + B a, r = -(s^2 + R a^2). With V*(s) = -P s^2 + c the soft Bellman equation V = alpha log of the integral
    over a of exp(Q / alpha) gives the Riccati equation for P, the policy N(-K s, sigma^2) with
    sigma^2 = alpha / (2 (R + gamma B^2 P)), and c = gamma c + alpha / 2 log(2 pi sigma^2). |K| + 3 sigma < 1, so that
    the ends of the action range hardly matter.
    """

    A, B, R, GAMMA, ALPHA = 0.7, 0.3, 0.4, 0.7, 0.03

    def __init__(self) -> None:
        a, b, r, gamma = self.A, self.B, self.R, self.GAMMA
        self.p = 1.0
        for _ in range(1000):
            self.p = 1 + gamma * a * a * self.p - (gamma * a * b * self.p) ** 2 / (r + gamma * b * b * self.p)
        self.gain = gamma * a * b * self.p / (r + gamma * b * b * self.p)
        self.std = math.sqrt(self.ALPHA / (2 * (r + gamma * b * b * self.p)))
        self.constant = self.ALPHA / 2 * math.log(2 * math.pi * self.std**2) / (1 - gamma)

    def following(self, place: np.ndarray, action: np.ndarray) -> np.ndarray:
        return self.A * place + self.B * action

    def reward(self, place: np.ndarray, action: np.ndarray) -> np.ndarray:
        return -(place**2) - self.R * action**2

    def q(self, place: np.ndarray, action: np.ndarray) -> np.ndarray:
        value = -self.p * self.following(place, action) ** 2 + self.constant
        return self.reward(place, action) + self.GAMMA * value

    def batch(self, rng: np.random.Generator, size: int = 128) -> Batch:
        place, action = rng.uniform(-1, 1, (2, size, 1))
        return Batch(
            observation={"place": tensor(place)},
            action=tensor(action),
            reward=tensor(self.reward(place, action)[:, 0]),
            discount=torch.full((size,), self.GAMMA),
            next_observation={"place": tensor(self.following(place, action))},
            terminated=torch.zeros(size),
        )


def test_the_regulators_solution_solves_the_soft_bellman_equation() -> None:
    problem = SoftRegulator()
    actions = np.linspace(-4, 4, 80001)
    for place in (-0.7, 0.0, 0.4):
        q = problem.q(np.array(place), actions)
        soft_max = problem.ALPHA * math.log(np.trapezoid(np.exp(q / problem.ALPHA), actions))
        assert soft_max == pytest.approx(-problem.p * place**2 + problem.constant, abs=1e-9)
        assert actions[q.argmax()] == pytest.approx(-problem.gain * place, abs=1e-4)


REGULATOR: dict[str, tuple[float, dict[str, Any]]] = {
    "SAC": (0.02, {"polyak": 0.9}),
    "REDQ": (0.02, {"polyak": 0.9, "redq_n": 5}),
    "DroQ": (0.04, {"polyak": 0.9}),  # dropout in the targets makes the smaller of two critics smaller
    "TQC": (0.02, {"polyak": 0.9}),
    "CrossQ": (0.03, {}),
}
"""Largest error of the critics (root mean square as a share of the range of Q*; relative, of two states), and keys."""


def regulate(name: str, problem: SoftRegulator, seed: int = 0) -> SAC:
    """An algorithm after 1000 updates on transitions from all over the state and action space."""
    updates = 1000
    agent = make(
        name,
        SPEC,
        NetworkConfig(hidden=[32, 32]),
        seed,
        alpha=problem.ALPHA,
        learn_entropy_coef=False,
        gamma=problem.GAMMA,
        lr_actor=5e-3,
        lr_critic=5e-3,
        lr_decay_updates=updates,
        **REGULATOR[name][1],
    )
    rng = np.random.default_rng(seed)
    for _ in range(updates):
        agent.update(problem.batch(rng))
    return agent


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ("DroQ", "TQC"))) for n in FAMILY])
def test_the_critics_find_the_soft_values_of_a_linear_system_and_the_actor_its_policy(name: str) -> None:
    problem = SoftRegulator()
    agent = regulate(name, problem)
    grid = np.linspace(-1, 1, 21)
    place, action = (values.reshape(-1, 1) for values in np.meshgrid(grid, grid))
    expected = problem.q(place, action)[:, 0]
    difference = values_of(agent, place, action) - expected
    assert np.sqrt(np.mean(difference**2)) / np.ptp(expected) < REGULATOR[name][0]
    with torch.no_grad():
        mean, log_std = agent.acting({"place": tensor(grid[:, None])})
    policy = np.tanh(mean[:, 0].double().numpy())
    std = log_std.exp()[:, 0].double().numpy() * (1 - policy**2)  # of the action, to first order
    assert np.sqrt(np.mean((policy + problem.gain * grid) ** 2)) < 0.08
    assert np.mean(std) == pytest.approx(problem.std, rel=0.15)


CHAIN = ObservationSpec((Field("place", (4,)),), action_size=1, act_buf_len=0)
CHAIN_GAMMA = 0.5
PLACES = np.eye(4, dtype=np.float32)
"""First and second state of the chain that terminates, and of the one that is truncated."""


def episode(seq: int, is_terminated: bool, rng: np.random.Generator) -> Segment:
    """Two steps of random actions: first state, reward 1, second state, reward 2, back in the first state: the end."""
    first = 0 if is_terminated else 2
    is_last = np.array([False, False, True])
    return Segment(
        worker="w",
        stream=0,
        seq=seq,
        frames={"place": PLACES[[first, first + 1, first]]},
        action=rng.uniform(-1, 1, (3, 1)).astype(np.float32),
        reward=np.array([0.0, 1.0, 2.0], np.float32),
        terminated=is_last & is_terminated,
        truncated=is_last & (not is_terminated),
        is_first=np.array([True, False, False]),
    )


@pytest.mark.parametrize(("name", "n_step"), [*((name, 1) for name in FAMILY), ("SAC", 2), ("SAC", 3), ("TQC", 3)])
def test_two_states_have_their_known_values_after_termination_and_truncation(name: str, n_step: int) -> None:
    """Terminated: Q2 = 2, Q1 = 1 + gamma Q2. Truncated in the first state: Q2 = 2 + gamma Q1 instead.

    Neither depends on the number of steps summed, which never reach over the end of an episode.
    """
    memory = ReplayMemory(CHAIN, 1000, n_step, CHAIN_GAMMA, seed=0)
    rng = np.random.default_rng(0)
    for seq in range(1, 201):
        memory.append(episode(seq, seq % 2 == 0, rng))
    keys = REGULATOR[name][1] | ({"polyak": 0.8} if "polyak" in REGULATOR[name][1] else {})
    updates = 600 if name == "CrossQ" else 300  # its running statistics follow slowly
    agent = make(
        name,
        CHAIN,
        NetworkConfig(hidden=[32, 32]),
        alpha=0.0,
        learn_entropy_coef=False,
        gamma=CHAIN_GAMMA,
        n_step=n_step,
        lr_critic=1e-2,
        lr_decay_updates=updates,
        **keys,
    )
    for _ in range(updates):
        agent.update(memory.sample(64))
    found = np.mean([values_of(agent, PLACES, np.full((4, 1), action)) for action in (-0.7, 0.0, 0.7)], axis=0)
    ring = (1 + CHAIN_GAMMA * 2) / (1 - CHAIN_GAMMA**2)
    expected = np.array([1 + CHAIN_GAMMA * 2, 2, ring, 2 + CHAIN_GAMMA * ring])
    np.testing.assert_allclose(found, expected, rtol=REGULATOR[name][0])


def mean_target(num_drawn: int) -> float:
    """What REDQ's targets are on average where every reward is noise of mean 0."""
    rng = np.random.default_rng(0)
    agent = make(
        "REDQ",
        SPEC,
        NetworkConfig(hidden=[32, 32]),
        redq_n=5,
        redq_m=num_drawn,
        redq_q_updates_per_policy_update=1,
        alpha=0.0,
        learn_entropy_coef=False,
        gamma=0.9,
        polyak=0.9,
        lr_actor=3e-3,
        lr_critic=3e-3,
    )
    targets = []
    for _ in range(200):
        places, actions, following = rng.uniform(-1, 1, (3, 16, 1))
        noise = rng.normal(scale=3.0, size=16)
        reward, going_on = tensor(noise - noise.mean()), torch.full((16,), 0.9)
        batch = Batch(
            {"place": tensor(places)}, tensor(actions), reward, going_on, {"place": tensor(following)}, torch.zeros(16)
        )
        agent.update(batch)
        target = agent.target(batch, agent.acting.inputs(batch.next_observation)) - reward
        targets.append(target.mean().item())
    return float(np.mean(targets[100:]))


def test_what_redq_learns_is_worth_less_the_more_critics_its_target_takes_the_smallest_of() -> None:
    """Rewards are noise, the policy climbs what the critics mistake for value. Theorem 1 exactly: ``test_redq``."""
    found = [mean_target(num_drawn) for num_drawn in (1, 2, 5)]
    assert found[0] - found[1] > 0.03
    assert found[1] - found[2] > 0.03
