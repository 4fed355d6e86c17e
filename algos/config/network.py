"""Shape of the networks (``params.network``), and the names of the encoders, those of plugins included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, NamedTuple, TypeVar

from tasks.config import config_from_dict
from tasks.words.command_line import Role
from tasks.words.key_marks import Decides, decides
from tasks.words.key_needs import needs, not_with, only_with
from tasks.words.key_roles import acts_in
from tasks.words.refusals import require

_UNPLAYED = acts_in(Role.train, Role.worker, Role.benchmark)
"""What decides no shape, so that --play does not even compare it; a worker must agree with its learner on all."""


class EncoderKind(StrEnum):
    """Built-in encoders: how an observation becomes the input of actor and critics."""

    mlp = "mlp"
    """No encoder: every field flat (LIDAR)."""
    tmrl_cnn = "tmrl_cnn"
    """TMRL's VanillaCNN: convolutions 64k8s2, 64k4s2, 128k4s2, 128k4s2, separate in the actor and each critic."""
    shared_cnn = "shared_cnn"
    """TMRL's convolutions once, then Linear, LayerNorm, tanh; trained by the critics, the actor sees it detached."""
    compact_cnn = "compact_cnn"
    """Shared as above with 16k8s4, 32k4s2, 32k3s2: learns on a CPU."""


class EncoderTraits(NamedTuple):
    """What must be known of an encoder before it is built."""

    reads_images: bool
    """Whether it needs an observation with an image; without, one that has none."""
    is_shared: bool = True
    """Whether the critics train one that the actor sees detached, or actor and each critic have their own."""


ENCODERS: dict[str, EncoderTraits] = {
    EncoderKind.mlp.value: EncoderTraits(reads_images=False),
    EncoderKind.tmrl_cnn.value: EncoderTraits(reads_images=True, is_shared=False),
    EncoderKind.shared_cnn.value: EncoderTraits(reads_images=True),
    EncoderKind.compact_cnn.value: EncoderTraits(reads_images=True),
}
"""All encoders by name: the built-in ones, and those that plugins registered in this process."""


class Normalization(Enum):
    """How fields are scaled before the networks see them."""

    fixed = "fixed"
    """(value - offset) / scale of the observation spec."""
    running = "running"
    """Running mean and variance of the batches for all but the images, which stay fixed."""
    tmrl = "tmrl"
    """TMRL's preprocessors: with images speed/1000, gear/10, rpm/10000, image/256; without images nothing."""
    none = "none"
    """Raw values."""


class BodyKind(Enum):
    """Body of the actor, behind its encoder, or of the critics, behind encoder and action."""

    mlp = "mlp"
    """Hidden layers with ReLU."""
    simba = "simba"
    """SimBa: Linear, pre-LayerNorm residual blocks, LayerNorm."""


@dataclass
class NetworkConfig:
    """Shape of the networks (``params.network``)."""

    encoder: str = "mlp"
    """mlp, tmrl_cnn, shared_cnn, compact_cnn, or a name that a plugin gave to ``algos.networks.add_encoder``."""
    hidden: list[int] = field(default_factory=lambda: [256, 256])
    """Widths of the hidden layers of actor and critics. With simba: one residual block each, all of one width."""
    actor: BodyKind = field(default=BodyKind.mlp, metadata=decides(Decides.networks, before="mlp"))
    """mlp or simba."""
    critic: BodyKind = field(default=BodyKind.mlp, metadata=decides(Decides.networks, before="mlp"))
    """mlp or simba."""
    critic_hidden: list[int] | None = None
    """The same for the critics; null: those of ``hidden``."""
    dropout: float = field(default=0.0, metadata=_UNPLAYED | decides(Decides.nothing))
    """Share of the critics' hidden units that is dropped in training and targets (DroQ: 0.01)."""
    batch_renorm: bool = field(default=False, metadata=decides(Decides.networks, before=False))
    """Batch renormalisation in actor and critics (CrossQ)."""
    batch_renorm_warm_up: int = field(
        default=100_000, metadata=_UNPLAYED | decides(Decides.nothing) | needs(only_with(".batch_renorm", True))
    )
    """Batches for which it is plain batch normalisation, before it corrects towards the running statistics."""
    layer_norm: bool = False
    """LayerNorm after each hidden Linear of the critics; pays at two or more updates per step."""
    layer_norm_actor: bool = False
    """The same in the actor."""
    feature_size: int = field(default=64, metadata=needs(not_with(".encoder", "mlp", "tmrl_cnn")))
    """Width of the trunk behind the convolutions of shared_cnn and compact_cnn."""
    shared_encoder: bool | None = None
    """Whether the critics train one encoder that the actor sees detached (true), or actor and each critic train one of
    their own (false); null: the encoder's own way."""
    asymmetric_critic: bool = field(default=False, metadata=decides(Decides.networks, before=False))
    """Whether the critics see the privileged fields of the task (task.privileged) and all others but the image, without
    an encoder, while the actor sees what a player sees and trains its own encoder."""
    target_encoder: bool = True
    """Whether the targets have their own slow copy of a shared encoder; false: heads only (DrQ-v2), one pass less."""
    random_shift: int = field(
        default=0, metadata=_UNPLAYED | decides(Decides.nothing) | needs(not_with(".encoder", "mlp"))
    )
    """Augmentation: images shift by up to this many pixels, edge pixels repeated; 0: off."""
    observation_normalization: Normalization = Normalization.fixed
    """fixed, running, tmrl or none."""

    @property
    def has_encoder(self) -> bool:
        """Whether something is trained between the fields and the hidden layers."""
        return self.encoder != EncoderKind.mlp

    @property
    def shares_encoder(self) -> bool:
        """Whether the critics train the encoder of the actor, which sees it detached."""
        is_shared = ENCODERS[self.encoder].is_shared if self.shared_encoder is None else self.shared_encoder
        return is_shared and not self.asymmetric_critic

    def __post_init__(self) -> None:
        _check_widths("network.hidden", self.hidden, is_residual=self.actor is BodyKind.simba)
        critic = "network.hidden" if self.critic_hidden is None else "network.critic_hidden"
        widths = self.hidden if self.critic_hidden is None else self.critic_hidden
        _check_widths(critic, widths, is_residual=self.critic is BodyKind.simba)
        require(0 <= self.dropout < 1, "network.dropout", self.dropout, "in [0, 1)")
        require(self.batch_renorm_warm_up >= 0, "network.batch_renorm_warm_up", self.batch_renorm_warm_up, ">= 0")
        known = list(ENCODERS)
        require(
            self.encoder in known,
            "network.encoder",
            self.encoder,
            f"one of {known} or registered by a file of plugins=[...]",
        )
        self._check_sharing()
        require(self.feature_size >= 1, "network.feature_size", self.feature_size, ">= 1")
        require(self.random_shift >= 0, "network.random_shift", self.random_shift, ">= 0 px")

    def _check_sharing(self) -> None:
        require(
            self.has_encoder or self.shared_encoder is None,
            "network.shared_encoder",
            self.shared_encoder,
            f"null with the encoder {self.encoder}, which has nothing to share",
        )
        require(
            not (self.asymmetric_critic and self.shared_encoder),
            "network.shared_encoder",
            self.shared_encoder,
            "null or false with network.asymmetric_critic, whose critics have no encoder",
        )
        require(
            self.target_encoder or (self.has_encoder and self.shares_encoder),
            "network.target_encoder",
            self.target_encoder,
            f"true with the encoder {self.encoder}, which is not shared",
        )


@dataclass
class RecurrentNetworkConfig(NetworkConfig):
    """Recurrent networks: a GRU behind the encoder, whose state is added to the encoder's features."""

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
        """Always true: the GRU counts as one."""
        return True


def register_encoder_name(name: str, traits: EncoderTraits) -> None:
    """Makes a name known to ``NetworkConfig``; called by ``algos.networks.add_encoder``, which has the builder.

    Raises:
        ValueError: If the name is taken or cannot be typed.
    """
    require(name.isidentifier(), "the name of an encoder", name, "letters, digits and _, not beginning with a digit")
    if ENCODERS.get(name, traits) != traits or name in EncoderKind.__members__:
        raise ValueError(f"the encoder name {name!r} is taken; choose another one")
    ENCODERS[name] = traits


Network = TypeVar("Network", bound=NetworkConfig)


def network_from_plain(data: Mapping[str, Any], network_type: type[Network] = NetworkConfig) -> Network:  # type: ignore[assignment]
    """Builds a NetworkConfig from plain data (enums by member name), as sent to a worker or stored in a checkpoint.

    Args:
        data: The keys that are given.
        network_type: NetworkConfig, or what a plugin derived from it.
    """
    return config_from_dict(network_type, data, "network")


def _check_widths(name: str, widths: list[int], *, is_residual: bool) -> None:
    require(len(widths) >= 1 and all(width >= 1 for width in widths), name, widths, "a list of at least one width >= 1")
    require(not is_residual or len(set(widths)) == 1, name, widths, "one width, repeated for each block, with simba")
