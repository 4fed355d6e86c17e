"""SimBa's body: an embedding, residual blocks with LayerNorm before them, and a LayerNorm behind.

Paper: Lee et al., "SimBa: Simplicity Bias for Scaling Up Parameters in Deep Reinforcement Learning", ICLR 2025,
https://arxiv.org/abs/2410.09754, section 4. docs/algorithms/simba.md says what is the paper's and what is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

EXPANSION = 4
"""Width inside a block, in widths of the body."""

Initialiser = Callable[[nn.Linear], None]
LinearFactory = Callable[[int, int, Initialiser], nn.Module]
"""(input size, output size, initialiser) -> a Linear, or N side by side."""
NormFactory = Callable[[int], nn.Module]
"""size -> a LayerNorm, or N side by side."""


def orthogonal(layer: nn.Linear) -> None:
    """Orthogonal weights of gain 1, no bias: embedding and head."""
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)


def he_normal(layer: nn.Linear) -> None:
    """Normal weights of variance 2 / inputs, no bias: inside the blocks."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)


def plain_linear(input_size: int, output_size: int, initialise: Initialiser) -> nn.Linear:
    """The Linear of a single network."""
    layer = nn.Linear(input_size, output_size)
    initialise(layer)
    return layer


class ResidualBody(nn.Module):
    """Linear, one residual block per width, LayerNorm.

    Args:
        input_size: Width of what comes in.
        widths: Width of each block; all the same.
        linear: Makes the Linears.
        norm: Makes the LayerNorms.
    """

    def __init__(self, input_size: int, widths: Sequence[int], linear: LinearFactory, norm: NormFactory) -> None:
        """Builds embedding, blocks and last norm."""
        super().__init__()
        self.embedding = linear(input_size, widths[0], orthogonal)
        self.blocks = nn.ModuleList(ResidualBlock(width, linear, norm) for width in widths)
        self.norm = norm(widths[-1])

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps (..., input_size) to (..., width)."""
        hidden = self.embedding(inputs)
        for block in self.blocks:
            hidden = block(hidden)
        normal: Tensor = self.norm(hidden)
        return normal


class ResidualBlock(nn.Module):
    """x + W2 relu(W1 LayerNorm(x)), four times wider inside."""

    def __init__(self, width: int, linear: LinearFactory, norm: NormFactory) -> None:
        """Builds the norm and the two Linears."""
        super().__init__()
        self.norm = norm(width)
        self.widen = linear(width, EXPANSION * width, he_normal)
        self.narrow = linear(EXPANSION * width, width, he_normal)

    def forward(self, inputs: Tensor) -> Tensor:
        """Keeps the shape (..., width)."""
        change: Tensor = self.narrow(self.widen(self.norm(inputs)).relu_())
        return inputs + change
