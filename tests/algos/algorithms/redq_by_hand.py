"""REDQ's update derived by hand in numpy float64, critic by critic, on the pieces of ``sac_by_hand``.

For tests only; imports nothing of the project outside this folder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.algos.algorithms.sac_by_hand import Adam, Layers, backward, flat, forward, sample


@dataclass
class Transitions:
    """A batch of scaled observations and what followed."""

    x: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    next_x: np.ndarray
    terminated: np.ndarray


@dataclass
class Temperature:
    """log alpha, learned."""

    log_alpha: np.ndarray
    target_entropy: float
    adam: Adam
    bounds: tuple[float, float]

    @property
    def alpha(self) -> float:
        """The temperature itself."""
        return float(np.exp(self.log_alpha))

    def update(self, log_prob: np.ndarray) -> float:
        """A step towards the target entropy; the loss."""
        loss = -float(np.mean(self.log_alpha * (log_prob + self.target_entropy)))
        self.adam.step([self.log_alpha], [np.array(-np.mean(log_prob + self.target_entropy))])
        self.log_alpha[...] = np.clip(self.log_alpha, *self.bounds)
        return loss


def climb(
    actor: Layers, adam: Adam, critics: list[Layers], x: np.ndarray, noise: np.ndarray, alpha: float, has_mean: bool
) -> tuple[float, np.ndarray]:
    """The actor's step up the mean of all outputs of all critics, or up the smallest critic; loss and log-density."""
    action, log_prob, kept = sample(actor, x, noise)
    inputs = np.concatenate([x, action], 1)
    activations = [forward(critic, inputs) for critic in critics]
    outputs = np.stack([a[-1] for a in activations])  # (N, B, outputs)
    batch = len(x)
    if has_mean:
        value = outputs.mean((0, 2))
        slopes = np.full(outputs.shape, 1.0 / (len(critics) * outputs.shape[2]))
    else:
        value = outputs[:, :, 0].min(0)
        slopes = (np.arange(len(critics))[:, None] == outputs[:, :, 0].argmin(0))[:, :, None].astype(float)
    d_action = np.zeros_like(action)
    for critic, kept_activations, slope in zip(critics, activations, slopes, strict=True):
        d_action += backward(critic, kept_activations, -slope / batch)[1][:, x.shape[1] :]
    d_u = alpha / batch * 2 * action + d_action * (1 - action**2)
    d_log_std = (d_u * kept["std"] * kept["noise"] - alpha / batch) * kept["free"]
    gradients, _ = backward(actor, kept["activations"], np.concatenate([d_u, d_log_std], 1))
    adam.step(flat(actor), gradients)
    return float(np.mean(alpha * log_prob - value)), log_prob


def average(targets: list[Layers], critics: list[Layers], polyak: float) -> None:
    """Polyak's average, in place."""
    for target, critic in zip(targets, critics, strict=True):
        for old, new in zip(flat(target), flat(critic), strict=True):
            old[...] = polyak * old + (1 - polyak) * new


@dataclass
class HandREDQ:
    """The state of the algorithm and its update; every critic has an Adam of its own, as in the authors' code."""

    actor: Layers
    critics: list[Layers]
    targets: list[Layers]
    temperature: Temperature
    polyak: float
    has_mean: bool
    actor_adam: Adam
    critic_adams: list[Adam]

    def update(
        self, batch: Transitions, subset: list[int], next_noise: np.ndarray, noise: np.ndarray | None
    ) -> dict[str, float]:
        """One update; the actor's part where it has a noise."""
        alpha = self.temperature.alpha
        next_action, next_log_prob, _ = sample(self.actor, batch.next_x, next_noise)
        next_input = np.concatenate([batch.next_x, next_action], 1)
        drawn = [forward(self.targets[index], next_input)[-1][:, 0] for index in subset]
        value = np.min(drawn, axis=0) - alpha * next_log_prob
        y = batch.reward + batch.discount * (1 - batch.terminated) * value

        inputs = np.concatenate([batch.x, batch.action], 1)
        losses, q = [], []
        for critic, adam in zip(self.critics, self.critic_adams, strict=True):
            activations = forward(critic, inputs)
            error = activations[-1][:, 0] - y
            losses.append(np.mean(error**2))
            q.append(activations[-1][:, 0])
            mean_over_all = 2.0 / (len(self.critics) * len(y))
            adam.step(flat(critic), backward(critic, activations, mean_over_all * error[:, None])[0])
        spread = np.sqrt(np.mean((np.array(q) - np.mean(q, axis=0)) ** 2, axis=0))
        metrics = {
            "losses/critic": float(np.mean(losses)),
            "train/q_mean": float(np.mean(q)),
            "train/q_spread": float(np.mean(spread)),
        }
        if noise is not None:
            loss, log_prob = climb(
                self.actor, self.actor_adam, self.critics, batch.x, noise, alpha, has_mean=self.has_mean
            )
            metrics |= {"losses/actor": loss, "train/entropy": -float(np.mean(log_prob)), "train/alpha": alpha}
            metrics["losses/temperature"] = self.temperature.update(log_prob)
        average(self.targets, self.critics, self.polyak)
        return metrics
