"""SAC's update derived by hand in numpy float64: forward passes, gradients, Adam and Polyak written out.

For tests only; imports nothing of the project, so that it can disagree with it. Networks are two hidden ReLU layers.
A network is a list of (weight (in, out), bias (out,)).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Layers = list[tuple[np.ndarray, np.ndarray]]


@dataclass
class Adam:
    """Adam, algorithm 1 of Kingma and Ba, on a flat list of arrays that it changes in place."""

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    steps: int = 0
    first: list[np.ndarray] = field(default_factory=list)
    second: list[np.ndarray] = field(default_factory=list)

    def step(self, parameters: list[np.ndarray], gradients: list[np.ndarray]) -> None:
        """One step against the gradients."""
        if not self.first:
            self.first = [np.zeros_like(p) for p in parameters]
            self.second = [np.zeros_like(p) for p in parameters]
        self.steps += 1
        for p, g, m, v in zip(parameters, gradients, self.first, self.second, strict=True):
            m[...] = self.beta1 * m + (1 - self.beta1) * g
            v[...] = self.beta2 * v + (1 - self.beta2) * g * g
            m_hat = m / (1 - self.beta1**self.steps)
            v_hat = v / (1 - self.beta2**self.steps)
            p -= self.learning_rate * m_hat / (np.sqrt(v_hat) + self.epsilon)


def forward(layers: Layers, x: np.ndarray) -> list[np.ndarray]:
    """Activations: the input, each hidden layer after its ReLU, the output."""
    activations = [x]
    for index, (weight, bias) in enumerate(layers):
        x = x @ weight + bias
        if index < len(layers) - 1:
            x = np.maximum(x, 0.0)
        activations.append(x)
    return activations


def backward(layers: Layers, activations: list[np.ndarray], g: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Gradients [dW0, db0, dW1, ...] and the gradient in the input, for a gradient in the output."""
    gradients: list[np.ndarray] = []
    for index in reversed(range(len(layers))):
        weight, _ = layers[index]
        gradients = [activations[index].T @ g, g.sum(0), *gradients]
        g = g @ weight.T
        if index > 0:
            g = g * (activations[index] > 0)
    return gradients, g


def flat(layers: Layers) -> list[np.ndarray]:
    """The arrays of a network, in the order of ``backward``."""
    return [array for layer in layers for array in layer]


def sample(actor: Layers, x: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Action, log-density by the textbook formula, and what the backward pass needs."""
    activations = forward(actor, x)
    mean, raw_log_std = np.split(activations[-1], 2, axis=1)
    log_std = np.clip(raw_log_std, -20.0, 2.0)
    std = np.exp(log_std)
    u = mean + std * noise
    action = np.tanh(u)
    normal = -0.5 * ((u - mean) / std) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    log_prob = (normal - np.log(1 - action**2)).sum(1)
    is_free = (raw_log_std >= -20.0) & (raw_log_std <= 2.0)
    return action, log_prob, {"activations": activations, "std": std, "noise": noise, "free": is_free}


@dataclass
class HandSAC:
    """The state of the algorithm and its update."""

    actor: Layers
    critics: list[Layers]
    targets: list[Layers]
    log_alpha: np.ndarray
    target_entropy: float
    polyak: float
    actor_adam: Adam
    critic_adam: Adam
    alpha_adam: Adam
    log_alpha_bounds: tuple[float, float]

    def update(
        self,
        x: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        discount: np.ndarray,
        next_x: np.ndarray,
        terminated: np.ndarray,
        noises: tuple[np.ndarray, np.ndarray],
    ) -> dict[str, float]:
        """One update on scaled observations; the noises are those of the next and of the present action."""
        alpha = float(np.exp(self.log_alpha))
        next_action, next_log_prob, _ = sample(self.actor, next_x, noises[0])
        next_input = np.concatenate([next_x, next_action], 1)
        next_q = np.min([forward(critic, next_input)[-1][:, 0] for critic in self.targets], axis=0)
        y = reward + discount * (1 - terminated) * (next_q - alpha * next_log_prob)

        inputs = np.concatenate([x, action], 1)
        losses, means, gradients = [], [], []
        for critic in self.critics:
            activations = forward(critic, inputs)
            error = activations[-1][:, 0] - y
            losses.append(np.mean(error**2))
            means.append(np.mean(activations[-1]))
            scale = 2.0 / (len(self.critics) * len(y))
            gradients += backward(critic, activations, scale * error[:, None])[0]
        self.critic_adam.step([a for critic in self.critics for a in flat(critic)], gradients)

        actor_loss, log_prob = self._update_actor(x, noises[1], alpha)
        alpha_loss = -float(np.mean(self.log_alpha * (log_prob + self.target_entropy)))
        self.alpha_adam.step([self.log_alpha], [np.array(-np.mean(log_prob + self.target_entropy))])
        self.log_alpha[...] = np.clip(self.log_alpha, *self.log_alpha_bounds)

        for target, critic in zip(self.targets, self.critics, strict=True):
            for old, new in zip(flat(target), flat(critic), strict=True):
                old[...] = self.polyak * old + (1 - self.polyak) * new
        return {
            "losses/critic": float(np.mean(losses)),
            "losses/actor": actor_loss,
            "losses/temperature": alpha_loss,
            "train/q_mean": float(np.mean(means)),
            "train/entropy": -float(np.mean(log_prob)),
            "train/alpha": alpha,
        }

    def _update_actor(self, x: np.ndarray, noise: np.ndarray, alpha: float) -> tuple[float, np.ndarray]:
        action, log_prob, kept = sample(self.actor, x, noise)
        inputs = np.concatenate([x, action], 1)
        all_activations = [forward(critic, inputs) for critic in self.critics]
        q = np.array([activations[-1][:, 0] for activations in all_activations])
        smallest = q.argmin(0)
        batch = len(x)
        d_action = np.zeros_like(action)
        for index, critic in enumerate(self.critics):
            g = np.where(smallest == index, -1.0 / batch, 0.0)[:, None]
            d_action += backward(critic, all_activations[index], g)[1][:, x.shape[1] :]
        d_u = alpha / batch * 2 * action + d_action * (1 - action**2)
        d_log_std = (d_u * kept["std"] * kept["noise"] - alpha / batch) * kept["free"]
        gradients, _ = backward(self.actor, kept["activations"], np.concatenate([d_u, d_log_std], 1))
        self.actor_adam.step(flat(self.actor), gradients)
        return float(np.mean(alpha * log_prob - q.min(0))), log_prob
