"""Recurrent SAC's update by a second method: one sequence at a time, one row at a time, a GRU written out.

For tests only; imports nothing of the project, so that it can disagree with it. Torch differentiates, in float64; there
are no batches, no padding and no masks. Networks are two hidden ReLU layers behind features (f_t, h_t).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Gru:
    """Weights as Cho et al. have them, gates in the order reset, update, new (torch's)."""

    input_weight: Tensor
    state_weight: Tensor
    input_bias: Tensor
    state_bias: Tensor

    def step(self, f: Tensor, h: Tensor) -> Tensor:
        """h_t from f_t and h_{t-1}."""
        from_input = self.input_weight @ f + self.input_bias
        from_state = self.state_weight @ h + self.state_bias
        (ir, iz, in_), (sr, sz, sn) = from_input.chunk(3), from_state.chunk(3)
        reset, update = torch.sigmoid(ir + sr), torch.sigmoid(iz + sz)
        new = torch.tanh(in_ + reset * sn)
        return (1 - update) * new + update * h

    def parameters(self) -> list[Tensor]:
        """In torch's order."""
        return [self.input_weight, self.state_weight, self.input_bias, self.state_bias]


@dataclass
class Sequence:
    """One sequence as it was driven."""

    state: Tensor
    """What was remembered before the first row."""
    burn_in: list[Tensor]
    """f of the rows before the first transition."""
    rows: list[Tensor]
    """f of all rows that follow: one more than there are transitions with n_step = 1."""
    transitions: list[tuple[int, int, Tensor, float, float, float]]
    """(row of o_t, row of o_{t+k}, action, reward, discount, terminated)."""


Layers = list[tuple[Tensor, Tensor]]


def mlp(layers: Layers, x: Tensor) -> Tensor:
    """Weights are (in, out)."""
    for index, (weight, bias) in enumerate(layers):
        x = x @ weight + bias
        if index < len(layers) - 1:
            x = torch.relu(x)
    return x


def features(
    gru: Gru, sequence: Sequence, burn_in_has_gradient: bool = False, start: Tensor | None = None
) -> list[Tensor]:
    """(f_t, h_t) of every row behind the burn-in."""
    h = sequence.state if start is None else start
    for f in sequence.burn_in:
        h = gru.step(f, h)
    if not burn_in_has_gradient:
        h = h.detach()
    found = []
    for f in sequence.rows:
        h = gru.step(f, h)
        found.append(torch.cat((f, h)))
    return found


def action_and_log_prob(actor: Layers, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A sample of the squashed Gaussian and its log-density, by the textbook formula."""
    mean, log_std = mlp(actor, x).chunk(2)
    log_std = log_std.clamp(-20.0, 2.0)
    u = mean + log_std.exp() * noise
    action = torch.tanh(u)
    normal = torch.distributions.Normal(mean, log_std.exp()).log_prob(u)
    return action, (normal - torch.log(1 - action**2)).sum()


def critic_loss(
    sequences: list[Sequence],
    gru: Gru,
    critics: list[Layers],
    target_gru: Gru,
    targets: list[Layers],
    actor: Layers,
    actor_gru: Gru,
    alpha: float,
    noises: Tensor,
    burn_in_has_gradient: bool = False,
) -> Tensor:
    """Mean over critics and all transitions of the squared error; one GRU for all critics."""
    errors, k = [], 0
    for sequence in sequences:
        seen = features(gru, sequence, burn_in_has_gradient)
        with torch.no_grad():
            acting, slow = features(actor_gru, sequence), features(target_gru, sequence)
        for row, next_row, action, reward, discount, terminated in sequence.transitions:
            with torch.no_grad():
                next_action, log_prob = action_and_log_prob(actor, acting[next_row], noises[k])
                at = torch.cat((slow[next_row], next_action))
                value = min(mlp(target, at)[0] for target in targets) - alpha * log_prob
                y = reward + discount * (1 - terminated) * value
            errors += [(mlp(critic, torch.cat((seen[row], action)))[0] - y) ** 2 for critic in critics]
            k += 1
    return torch.stack(errors).mean()


def actor_loss(
    sequences: list[Sequence], gru: Gru, critics: list[Layers], actor: Layers, alpha: float, noises: Tensor
) -> Tensor:
    """Mean over all transitions of alpha log pi - min Q, on features without gradient."""
    losses, k = [], 0
    for sequence in sequences:
        seen = [x.detach() for x in features(gru, sequence)]
        for row, *_ in sequence.transitions:
            action, log_prob = action_and_log_prob(actor, seen[row], noises[k])
            at = torch.cat((seen[row], action))
            losses.append(alpha * log_prob - min(mlp(critic, at)[0] for critic in critics))
            k += 1
    return torch.stack(losses).mean()
