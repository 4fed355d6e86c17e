"""Memory: a GRU behind an encoder, over the rows of a sequence when learning and over one row when acting.

Built by ``build_encoder`` for a ``RecurrentNetworkConfig``. Nothing outside of ``algos.algorithms.rsac`` and
``algos.acting.recurrent_policy`` knows that features remember: actor and critics see them as any others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from algos.networks.inputs import Inputs


class SequenceInputs(NamedTuple):
    """What a recurrent encoder sees of B sequences, and which of their rows are asked for.

    A sequence is a burn-in of up to P rows and a window of C rows that follows it. Both are filled up with rows
    that nothing reads.
    """

    burn_in: Inputs | None
    """Rows of the burn-in, oldest first, B x P of them in one axis; None when P is 0."""
    window: Inputs
    """Rows of the window, B x C of them in one axis."""
    state: Tensor
    """What the acting policy remembered before the first row of each sequence, shape (B, S)."""
    burn_in_rows: Tensor
    """How many rows each burn-in has, shape (B,), 0 to P."""
    rows: Tensor
    """Which rows of the window are asked for, as places in its one axis, shape (K,)."""


class RecurrentEncoder(nn.Module):
    """An encoder of single rows, and beside its features what a GRU makes of them and of all rows before.

    h_t = GRU(f_t, h_{t-1}); the features are (f_t, h_t).
    """

    def __init__(self, encoder: nn.Module, frame_size: int, state_size: int) -> None:
        """Takes the encoder of single rows, the width of its features, and that of the state."""
        super().__init__()
        self.frames = encoder
        self.memory = nn.GRU(frame_size, state_size, batch_first=True)
        self.state_size = state_size
        self.size = frame_size + state_size
        self.reads_stored_state = True
        """False for a memory that did not make the stored states: it begins each burn-in with zeros."""

    def forward(self, inputs: SequenceInputs) -> Tensor:
        """Features of the rows asked for, shape (K, size); the burn-in has no gradient (R2D2, section 3)."""
        batch_size = len(inputs.burn_in_rows)
        state = self._burnt_in(inputs)
        frames = self.frames(inputs.window)  # (B * C, F)
        outputs, _ = self.memory(frames.unflatten(0, (batch_size, -1)), state[None])
        return torch.cat((frames, outputs.flatten(0, 1)), dim=1)[inputs.rows]

    def step(self, inputs: Inputs, state: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, size) of one row each, and the state after it, from the state (B, S) before it."""
        frames = self.frames(inputs)
        _, after = self.memory(frames[:, None], state[None])
        return torch.cat((frames, after[0]), dim=1), after[0]

    @torch.no_grad()
    def _burnt_in(self, inputs: SequenceInputs) -> Tensor:
        """State before the first row of the window, (B, S)."""
        start = inputs.state if self.reads_stored_state else torch.zeros_like(inputs.state)
        if inputs.burn_in is None:
            return start
        batch_size = len(start)
        frames = self.frames(inputs.burn_in).unflatten(0, (batch_size, -1))  # (B * P, F) -> (B, P, F)
        outputs, _ = self.memory(frames, start[None])
        states = torch.cat((start[:, None], outputs), dim=1)  # (B, 1 + P, S)
        return states[torch.arange(batch_size, device=start.device), inputs.burn_in_rows]
