"""The stacked ensemble: the body and head of N critics."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from algos.config import BodyKind, NetworkConfig
from algos.networks.batch_renorm import BatchRenorm
from algos.networks.layers import Dropout, StackedLayerNorm, StackedLinear, in_full
from algos.networks.residual import ResidualBody, orthogonal


def build_ensemble(
    num_critics: int, input_size: int, config: NetworkConfig, num_outputs: int = 1
) -> CriticEnsemble | ResidualEnsemble:
    """The ensemble that the configuration names.

    Args:
        num_critics: Critics, N; every one is initialised on its own.
        input_size: Width of features and action together.
        config: Shape of the networks.
        num_outputs: Outputs of each critic.
    """
    kind = ResidualEnsemble if config.critic is BodyKind.simba else CriticEnsemble
    return kind(num_critics, input_size, config, num_outputs)


class CriticEnsemble(nn.Module):
    """N multilayer perceptrons, as batched matrix products."""

    def __init__(self, num_critics: int, input_size: int, config: NetworkConfig, num_outputs: int = 1) -> None:
        """Builds the stacked layers; every critic is initialised on its own."""
        super().__init__()
        hidden = config.critic_hidden or config.hidden
        widths = [input_size, *hidden]
        self.hidden = nn.ModuleList(StackedLinear(num_critics, a, b) for a, b in pairwise(widths))
        self.dropout = Dropout(config.dropout)
        self.norms = nn.ModuleList(StackedLayerNorm(num_critics, w) for w in hidden if config.layer_norm)
        self.renorms = nn.ModuleList(
            BatchRenorm(w, config.batch_renorm_warm_up, num_critics) for w in widths if config.batch_renorm
        )
        self.head = StackedLinear(num_critics, widths[-1], num_outputs)

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Q values of features (B, F), the same for all, or (N, B, F), and actions (B, A).

        Returns:
            Shape (N, B); with several outputs (N, B, outputs).
        """
        inputs = _side_by_side(features, action)
        hidden = self.renorms[0](inputs) if self.renorms else inputs
        for index, layer in enumerate(self.hidden):
            hidden = self.dropout(layer(hidden))
            if self.norms:
                hidden = self.norms[index](hidden)
            hidden = hidden.relu_()
            if self.renorms:
                hidden = self.renorms[index + 1](hidden)
        return _values(in_full(self.head, hidden))


class ResidualEnsemble(nn.Module):
    """N of SimBa's residual networks, as batched matrix products."""

    def __init__(self, num_critics: int, input_size: int, config: NetworkConfig, num_outputs: int = 1) -> None:
        """Builds the stacked layers; every critic is initialised on its own."""
        super().__init__()
        widths = config.critic_hidden or config.hidden
        linear, norm = partial(StackedLinear, num_critics), partial(StackedLayerNorm, num_critics)
        self.body = ResidualBody(input_size, widths, linear, norm)
        self.head = StackedLinear(num_critics, widths[-1], num_outputs, orthogonal)

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """As that of ``CriticEnsemble``."""
        return _values(in_full(self.head, self.body(_side_by_side(features, action))))


def _side_by_side(features: Tensor, action: Tensor) -> Tensor:
    """(B, F + A), or (N, B, F + A) where every critic has features of its own."""
    if features.dim() > action.dim():
        action = action.expand(features.shape[0], -1, -1)
    return torch.cat((features, action), dim=-1)


def _values(outputs: Tensor) -> Tensor:
    """(N, B, 1) -> (N, B); several outputs stay."""
    return outputs.squeeze(-1) if outputs.shape[-1] == 1 else outputs
