"""DroQ's update derived by hand in numpy float64: dropout masks given, LayerNorm and all gradients written out.

For tests only; imports nothing of the project. A critic has two hidden layers Linear -> Dropout -> LayerNorm -> ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.algos.algorithms.sac_by_hand import Adam, Layers, backward, flat, sample

LAYER_NORM_EPSILON = 1e-5


@dataclass
class Critic:
    """Linears and, for each hidden one, weight and bias of its LayerNorm."""

    linears: Layers
    norms: Layers

    def arrays(self) -> list[np.ndarray]:
        """All parameters, in the order of the gradients of ``critic_backward``."""
        return [*flat(self.linears), *flat(self.norms)]


def critic_forward(critic: Critic, x: np.ndarray, masks: list[np.ndarray]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Values (B,) and what the backward pass needs; masks are 0 or 1 / (1 - share), one per hidden layer."""
    kept: list[dict[str, Any]] = []
    for (weight, bias), (gain, shift), mask in zip(critic.linears[:-1], critic.norms, masks, strict=True):
        h = (x @ weight + bias) * mask
        deviation = np.sqrt(h.var(1, keepdims=True) + LAYER_NORM_EPSILON)
        normal = (h - h.mean(1, keepdims=True)) / deviation
        y = normal * gain + shift
        kept.append({"x": x, "mask": mask, "normal": normal, "deviation": deviation, "free": y > 0})
        x = np.maximum(y, 0.0)
    weight, bias = critic.linears[-1]
    kept.append({"x": x})
    return (x @ weight + bias)[:, 0], kept


def critic_backward(critic: Critic, kept: list[dict[str, Any]], g: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Gradients in the order of ``arrays`` and the gradient in the input, for a gradient (B,) in the values."""
    linears: list[np.ndarray] = []
    norms: list[np.ndarray] = []
    d = g[:, None]
    for index in reversed(range(len(critic.linears))):
        if index < len(critic.norms):
            layer, (gain, _) = kept[index], critic.norms[index]
            d = d * layer["free"]
            norms = [(d * layer["normal"]).sum(0), d.sum(0), *norms]
            d = d * gain
            n = layer["normal"]
            d = (d - d.mean(1, keepdims=True) - n * (d * n).mean(1, keepdims=True)) / layer["deviation"]
            d = d * layer["mask"]
        linears = [kept[index]["x"].T @ d, d.sum(0), *linears]
        d = d @ critic.linears[index][0].T
    return [*linears, *norms], d


@dataclass
class HandDroQ:
    """The state of the algorithm and its update."""

    actor: Layers
    critics: list[Critic]
    targets: list[Critic]
    log_alpha: np.ndarray
    target_entropy: float
    polyak: float
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
        target_masks: list[np.ndarray],
        masks: list[np.ndarray],
    ) -> float:
        """Lines 5 to 8 of algorithm 2, all but the targets' average; the loss. Masks are (N, B, width) per layer."""
        next_action, next_log_prob, _ = sample(self.actor, next_x, noise)
        next_input = np.concatenate([next_x, next_action], 1)
        values = [critic_forward(c, next_input, [m[i] for m in target_masks])[0] for i, c in enumerate(self.targets)]
        y = reward + discount * (1 - terminated) * (np.min(values, 0) - np.exp(self.log_alpha) * next_log_prob)
        inputs = np.concatenate([x, action], 1)
        losses, gradients = [], []
        for i, critic in enumerate(self.critics):
            q, kept = critic_forward(critic, inputs, [m[i] for m in masks])
            losses.append(np.mean((q - y) ** 2))
            gradients += critic_backward(critic, kept, 2.0 * (q - y) / (len(self.critics) * len(y)))[0]
        self.critic_adam.step([a for critic in self.critics for a in critic.arrays()], gradients)
        return float(np.mean(losses))

    def update_actor(self, x: np.ndarray, noise: np.ndarray, masks: list[np.ndarray]) -> float:
        """Line 10: the mean of the critics, dropout included; the loss. Then the temperature."""
        alpha = float(np.exp(self.log_alpha))
        action, log_prob, kept = sample(self.actor, x, noise)
        inputs = np.concatenate([x, action], 1)
        batch, count = len(x), len(self.critics)
        total, d_action = np.zeros(batch), np.zeros_like(action)
        for i, critic in enumerate(self.critics):
            q, layers = critic_forward(critic, inputs, [m[i] for m in masks])
            total += q
            d_action += critic_backward(critic, layers, np.full(batch, -1.0 / (batch * count)))[1][:, x.shape[1] :]
        d_u = alpha / batch * 2 * action + d_action * (1 - action**2)
        d_log_std = (d_u * kept["std"] * kept["noise"] - alpha / batch) * kept["free"]
        gradients, _ = backward(self.actor, kept["activations"], np.concatenate([d_u, d_log_std], 1))
        self.actor_adam.step(flat(self.actor), gradients)
        self.alpha_adam.step([self.log_alpha], [np.array(-np.mean(log_prob + self.target_entropy))])
        return float(np.mean(alpha * log_prob - total / count))

    def update_targets(self) -> None:
        """Line 8's average."""
        for target, critic in zip(self.targets, self.critics, strict=True):
            for old, new in zip(target.arrays(), critic.arrays(), strict=True):
                old[...] = self.polyak * old + (1 - self.polyak) * new
