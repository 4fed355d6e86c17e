"""TQC's update derived by hand in numpy float64: atoms pooled, sorted and dropped one sample at a time.

For tests only; imports nothing of the project outside this folder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.algos.algorithms.redq_by_hand import Temperature, Transitions, average, climb
from tests.algos.algorithms.sac_by_hand import Adam, Layers, backward, flat, forward, sample


def quantile_huber(theta: np.ndarray, atoms: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss of one critic on one sample, mean over quantiles and atoms, and its gradient in the quantiles (K,)."""
    loss, gradient = 0.0, np.zeros(len(theta))
    for m, quantile in enumerate(theta):
        tau = (2 * m + 1) / (2 * len(theta))
        for atom in atoms:
            u = atom - quantile
            is_near = abs(u) <= 1.0
            huber = 0.5 * u * u if is_near else abs(u) - 0.5
            slope = u if is_near else np.sign(u)
            weight = abs(tau - (1.0 if u < 0 else 0.0))
            loss += weight * huber
            gradient[m] -= weight * slope
    count = len(theta) * len(atoms)
    return loss / count, gradient / count


@dataclass
class HandTQC:
    """The state of the algorithm and its update; critics have K outputs."""

    actor: Layers
    critics: list[Layers]
    targets: list[Layers]
    temperature: Temperature
    polyak: float
    dropped: int
    actor_adam: Adam
    critic_adams: list[Adam]

    def update(self, batch: Transitions, next_noise: np.ndarray, noise: np.ndarray) -> dict[str, float]:
        """One update of everything."""
        alpha = self.temperature.alpha
        atoms = self._target(batch, next_noise, alpha)
        inputs = np.concatenate([batch.x, batch.action], 1)
        losses, all_quantiles = [], []
        for critic, adam in zip(self.critics, self.critic_adams, strict=True):
            activations = forward(critic, inputs)
            theta = activations[-1]
            pairs = [quantile_huber(row, y) for row, y in zip(theta, atoms, strict=True)]
            losses += [loss for loss, _ in pairs]
            all_quantiles.append(theta)
            gradient = np.array([g for _, g in pairs]) / (len(self.critics) * len(theta))
            adam.step(flat(critic), backward(critic, activations, gradient)[0])
        metrics = {"losses/critic": float(np.mean(losses))} | _spreads(np.array(all_quantiles))
        loss, log_prob = climb(self.actor, self.actor_adam, self.critics, batch.x, noise, alpha, has_mean=True)
        metrics |= {"losses/actor": loss, "train/entropy": -float(np.mean(log_prob)), "train/alpha": alpha}
        metrics["losses/temperature"] = self.temperature.update(log_prob)
        average(self.targets, self.critics, self.polyak)
        return metrics

    def _target(self, batch: Transitions, noise: np.ndarray, alpha: float) -> list[np.ndarray]:
        """Atoms of the target of each sample, ascending."""
        action, log_prob, _ = sample(self.actor, batch.next_x, noise)
        next_input = np.concatenate([batch.next_x, action], 1)
        quantiles = [forward(critic, next_input)[-1] for critic in self.targets]
        result = []
        for index in range(len(batch.reward)):
            pooled = sorted(value for critic in quantiles for value in critic[index])
            kept = pooled[: len(pooled) - self.dropped * len(self.targets)]
            bootstrap = batch.discount[index] * (1 - batch.terminated[index])
            result.append(batch.reward[index] + bootstrap * (np.array(kept) - alpha * log_prob[index]))
        return result


def _spreads(quantiles: np.ndarray) -> dict[str, float]:
    """Metrics of the critics' outputs (N, B, K)."""
    return {
        "train/q_mean": float(np.mean(quantiles)),
        "train/q_spread": float(np.mean(np.std(np.mean(quantiles, 2), 0))),
        "train/quantile_spread": float(np.mean(np.std(quantiles, 2))),
    }
