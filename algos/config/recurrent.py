"""Recurrent SAC: its own keys, and those of its networks."""

from __future__ import annotations

from dataclasses import dataclass

from algos.config.family import SACConfig
from algos.config.network import NetworkConfig
from tasks.words.refusals import require


@dataclass
class RecurrentNetworkConfig(NetworkConfig):
    """Networks that remember: a GRU behind the encoder, whose state stands beside the encoder's features."""

    gru_size: int = 64
    """Numbers that the policy remembers from row to row, and the width of the GRU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.gru_size >= 1, "network.gru_size", self.gru_size, ">= 1")
        require(
            not self.asymmetric_critic,
            "network.asymmetric_critic",
            self.asymmetric_critic,
            "false with remote_rsac, whose critics remember what the policy saw",
        )

    @property
    def has_encoder(self) -> bool:
        """The GRU is one."""
        return True


@dataclass
class RSACConfig(SACConfig):
    """Recurrent SAC: the replay memory draws sequences."""

    batch_size: int = 32
    """Sequences per update; each has up to ``sequence_length`` transitions."""
    sequence_length: int = 16
    """Consecutive rows of a sequence that are learned from; gradients go back this far in time."""
    burn_in: int = 8
    """Rows before them that bring the stored state up to date with the present weights, without gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sequence_length >= 1, "sequence_length", self.sequence_length, ">= 1")
        require(self.burn_in >= 0, "burn_in", self.burn_in, ">= 0")
