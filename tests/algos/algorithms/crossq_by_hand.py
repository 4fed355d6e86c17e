"""CrossQ's update derived by hand in numpy float64: batch renormalisation and all gradients written out.

For tests only; imports nothing of the project. Actor and critics are: renorm, then twice Linear -> ReLU -> renorm, then
a Linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.algos.algorithms.sac_by_hand import Adam, Layers

EPSILON = 1e-3
MOMENTUM = 0.99


@dataclass
class Renorm:
    """Batch renormalisation of one network's features (algorithm 1 of Ioffe's paper)."""

    gain: np.ndarray
    shift: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    warm_up: int
    batches: int = 0

    def train(self, x: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Normalises by the batch, corrected after the warm-up; then moves the running statistics."""
        mu, variance = x.mean(0), x.var(0)
        sigma, running = np.sqrt(variance + EPSILON), np.sqrt(self.variance + EPSILON)
        r, d = np.ones_like(mu), np.zeros_like(mu)
        if self.batches >= self.warm_up:
            r = np.clip(sigma / running, 1 / 3, 3)
            d = np.clip((mu - self.mean) / running, -5, 5)
        normal = (x - mu) / sigma
        self.mean = MOMENTUM * self.mean + (1 - MOMENTUM) * mu
        self.variance = MOMENTUM * self.variance + (1 - MOMENTUM) * variance
        self.batches += 1
        return (normal * r + d) * self.gain + self.shift, {"normal": normal, "sigma": sigma, "r": r, "d": d}

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Normalises by the running statistics."""
        return (x - self.mean) / np.sqrt(self.variance + EPSILON) * self.gain + self.shift

    def backward_train(self, kept: dict[str, Any], g: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Gradients of gain and shift, and in the input; r and d are constants, mean and variance are not."""
        n = kept["normal"]
        own = [(g * (n * kept["r"] + kept["d"])).sum(0), g.sum(0)]
        g = g * self.gain * kept["r"]
        return own, (g - g.mean(0) - n * (g * n).mean(0)) / kept["sigma"]

    def backward_evaluate(self, g: np.ndarray) -> np.ndarray:
        """Gradient in the input."""
        return g * self.gain / np.sqrt(self.variance + EPSILON)


@dataclass
class Network:
    """Renorms 0, 1, 2 and Linears 0, 1, 2 (the last is the head)."""

    renorms: list[Renorm]
    linears: Layers

    def arrays(self) -> list[np.ndarray]:
        """All parameters, in the order of the gradients of ``backward_train``."""
        return [a for layer in self.linears for a in layer] + [a for n in self.renorms for a in (n.gain, n.shift)]

    def statistics(self) -> list[np.ndarray]:
        """All running statistics."""
        return [a for n in self.renorms for a in (n.mean, n.variance, np.array(n.batches))]

    def train(self, x: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Output with batch statistics, and what the backward pass needs."""
        kept = []
        for index, (weight, bias) in enumerate(self.linears):
            is_free = x > 0
            x, layer = self.renorms[index].train(x)
            kept.append({**layer, "x": x, "free": is_free})
            x = x @ weight + bias
            x = np.maximum(x, 0.0) if index < 2 else x
        return x, kept

    def evaluate(self, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Output with running statistics, and where the hidden units are above 0."""
        free = []
        for index, (weight, bias) in enumerate(self.linears):
            free.append(x > 0)
            x = self.renorms[index].evaluate(x) @ weight + bias
            x = np.maximum(x, 0.0) if index < 2 else x
        return x, free

    def backward_train(self, kept: list[dict[str, Any]], g: np.ndarray) -> list[np.ndarray]:
        """Gradients in the order of ``arrays``."""
        linears: list[np.ndarray] = []
        norms: list[np.ndarray] = []
        for index in (2, 1, 0):
            linears = [kept[index]["x"].T @ g, g.sum(0), *linears]
            own, g = self.renorms[index].backward_train(kept[index], g @ self.linears[index][0].T)
            norms = [*own, *norms]
            g = g * kept[index]["free"]
        return [*linears, *norms]

    def input_gradient(self, free: list[np.ndarray], g: np.ndarray) -> np.ndarray:
        """Gradient in the input, with running statistics."""
        for index in (2, 1, 0):
            g = self.renorms[index].backward_evaluate(g @ self.linears[index][0].T)
            g = g * free[index] if index > 0 else g
        return g


def squash(outputs: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Action, log-density by the textbook formula, and the standard deviation; no log-std is at its bounds here."""
    mean, log_std = np.split(outputs, 2, axis=1)
    assert (np.abs(log_std) < 2).all()
    action = np.tanh(mean + np.exp(log_std) * noise)
    normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    return action, (normal - np.log(1 - action**2)).sum(1), np.exp(log_std)


@dataclass
class HandCrossQ:
    """The state of the algorithm and its update."""

    actor: Network
    critics: list[Network]
    log_alpha: np.ndarray
    target_entropy: float
    actor_adam: Adam
    critic_adam: Adam
    alpha_adam: Adam

    def update_critics(
        self,
        x: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        discount: np.ndarray,
        next_x: np.ndarray,
        terminated: np.ndarray,
        noise: np.ndarray,
    ) -> float:
        """One pass of each critic over both halves; only the first half has a loss. Returns the loss."""
        next_action, next_log_prob, _ = squash(self.actor.evaluate(next_x)[0], noise)
        both = np.concatenate([np.concatenate([x, action], 1), np.concatenate([next_x, next_action], 1)])
        passes = [critic.train(both) for critic in self.critics]
        batch, count = len(x), len(self.critics)
        next_q = np.min([q[batch:, 0] for q, _ in passes], axis=0)
        y = reward + discount * (1 - terminated) * (next_q - np.exp(self.log_alpha) * next_log_prob)
        losses, gradients = [], []
        for critic, (q, kept) in zip(self.critics, passes, strict=True):
            error = q[:batch, 0] - y
            losses.append(np.mean(error**2))
            g = np.concatenate([2.0 * error / (count * batch), np.zeros(batch)])[:, None]
            gradients += critic.backward_train(kept, g)
        self.critic_adam.step([a for critic in self.critics for a in critic.arrays()], gradients)
        return float(np.mean(losses))

    def update_actor(self, x: np.ndarray, noise: np.ndarray) -> float:
        """The actor on the statistics of its batch, the critics on their running ones. Returns the loss."""
        alpha = float(np.exp(self.log_alpha))
        outputs, kept = self.actor.train(x)
        action, log_prob, std = squash(outputs, noise)
        passes = [critic.evaluate(np.concatenate([x, action], 1)) for critic in self.critics]
        q = np.array([values[:, 0] for values, _ in passes])
        d_action = np.zeros_like(action)
        for index, (critic, (_, free)) in enumerate(zip(self.critics, passes, strict=True)):
            g = np.where(q.argmin(0) == index, -1.0 / len(x), 0.0)[:, None]
            d_action += critic.input_gradient(free, g)[:, x.shape[1] :]
        d_u = alpha / len(x) * 2 * action + d_action * (1 - action**2)
        d_log_std = d_u * std * noise - alpha / len(x)
        gradients = self.actor.backward_train(kept, np.concatenate([d_u, d_log_std], 1))
        self.actor_adam.step(self.actor.arrays(), gradients)
        self.alpha_adam.step([self.log_alpha], [np.array(-np.mean(log_prob + self.target_entropy))])
        return float(np.mean(alpha * log_prob - q.min(0)))
