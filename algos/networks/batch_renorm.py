"""Batch renormalisation, for one network or N side by side.

Paper: Ioffe, "Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized Models",
https://arxiv.org/abs/1702.03275; constants and warm-up as CrossQ uses it (https://openreview.net/forum?id=PczQtTsTIX).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

MOMENTUM = 0.99
"""Share of the running statistics kept at each batch."""
EPSILON = 1e-3
"""Added to a variance."""
R_MAX = 3.0
"""Largest ratio of the batch's deviation to the running one that is corrected; the smallest is its inverse."""
D_MAX = 5.0
"""Largest difference of the two means that is corrected, in running deviations."""


class BatchRenorm(nn.Module):
    """Normalises each feature over the batch, corrected towards the running statistics; then scales and shifts.

    In training mode it uses the statistics of the batch and then merges them into the running ones. In evaluation mode
    it uses the running statistics and changes nothing. The statistics are buffers: they travel with the weights.

    Args:
        size: Features F.
        warm_up: Batches in training mode before the correction; until then it is batch normalisation.
        num: Networks side by side, N; None: one network.
    """

    mean: Tensor
    variance: Tensor
    num_batches: Tensor

    def __init__(self, size: int, warm_up: int, num: int | None = None) -> None:
        """Starts as the identity after normalising, with running mean 0 and variance 1."""
        super().__init__()
        shape = (1, size) if num is None else (num, 1, size)
        self._warm_up = warm_up
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalises (B, F) or, with N networks, (N, B, F) or (B, F) for all of them; -> (B, F) or (N, B, F)."""
        inputs = inputs.to(self.weight.dtype)  # statistics of rounded products, but not rounded themselves
        if not self.training:
            # One product and one sum: the running statistics are constants.
            gain = self.weight * (self.variance + EPSILON).rsqrt()
            return torch.addcmul(self.bias - self.mean * gain, inputs, gain)
        variance, mean = torch.var_mean(inputs, dim=-2, correction=0, keepdim=True)
        ratio, shift = self._correction(mean.detach(), variance.detach())
        self._merge(mean.detach(), variance.detach())
        normal = (inputs - mean) * (variance + EPSILON).rsqrt()
        return torch.addcmul(self.bias, torch.addcmul(shift, normal, ratio), self.weight)

    def _correction(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """The paper's r and d (algorithm 1), constants for the gradient; 1 and 0 during the warm-up."""
        is_warm = (self.num_batches >= self._warm_up).to(mean.dtype)
        inverse = (self.variance + EPSILON).rsqrt()
        ratio = ((variance + EPSILON).sqrt() * inverse).clamp(1.0 / R_MAX, R_MAX)
        shift = ((mean - self.mean) * inverse).clamp(-D_MAX, D_MAX)
        return 1.0 + is_warm * (ratio - 1.0), is_warm * shift

    @torch.no_grad()
    def _merge(self, mean: Tensor, variance: Tensor) -> None:
        self.mean.lerp_(mean.expand_as(self.mean), 1.0 - MOMENTUM)
        self.variance.lerp_(variance.expand_as(self.variance), 1.0 - MOMENTUM)
        self.num_batches.add_(1)


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in training mode: its ``BatchRenorm`` layers use and merge the statistics of the batch.

    Outside of it, it is in evaluation mode.
    """
    module.train()
    try:
        yield
    finally:
        module.eval()
