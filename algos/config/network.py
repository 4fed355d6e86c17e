"""Shape of the networks (``params.network``), and the names of the encoders, those of plugins included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import NamedTuple, TypeVar

from tasks.config import config_from_dict
from tasks.words.command_line import Role
from tasks.words.keys import Decides, acts_in, decides, needs, not_with, only_with
from tasks.words.limits import Amount, Checked, Count, Fraction, Widths
from tasks.words.refusals import require

_UNPLAYED = acts_in(Role.train, Role.worker, Role.benchmark)
"""What decides no shape, so that --play does not even compare it; a worker must agree with its learner on all."""


class EncoderKind(StrEnum):
    """Built-in encoders: how an observation becomes the input of actor and critics."""

    mlp = "mlp"
    """No encoder: every field flat."""
    dense = "dense"
    """Beside the flat fields, two layers over them: 256 with ReLU, then Linear, LayerNorm, tanh; shared (LIDAR)."""
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
    EncoderKind.dense.value: EncoderTraits(reads_images=False),
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
class NetworkConfig(Checked):
    """Shape of the networks (``params.network``)."""

    encoder: str = "mlp"
    """mlp, dense, tmrl_cnn, shared_cnn, compact_cnn, or a name that a plugin gave to ``algos.networks.add_encoder``."""
    hidden: Widths = field(default_factory=lambda: [256, 256])
    """Widths of the hidden layers of actor and critics. With simba: one residual block each, all of one width."""
    actor: BodyKind = field(default=BodyKind.mlp, metadata=decides(Decides.networks, before="mlp"))
    """mlp or simba."""
    critic: BodyKind = field(default=BodyKind.mlp, metadata=decides(Decides.networks, before="mlp"))
    """mlp or simba."""
    critic_hidden: Widths | None = None
    """The same for the critics; null: those of ``hidden``."""
    dropout: Fraction = field(default=0.0, metadata=_UNPLAYED | decides(Decides.nothing))
    """Share of the critics' hidden units that is dropped in training and targets (DroQ: 0.01)."""
    batch_renorm: bool = field(default=False, metadata=decides(Decides.networks, before=False))
    """Batch renormalisation in actor and critics (CrossQ)."""
    batch_renorm_warm_up: Amount = field(
        default=100_000, metadata=_UNPLAYED | decides(Decides.nothing) | needs(only_with(".batch_renorm", True))
    )
    """Batches for which it is plain batch normalisation, before it corrects towards the running statistics."""
    layer_norm: bool = False
    """LayerNorm after each hidden Linear of the critics; pays at two or more updates per step."""
    layer_norm_actor: bool = False
    """The same in the actor."""
    feature_size: Count = field(default=64, metadata=needs(not_with(".encoder", "mlp", "tmrl_cnn")))
    """Width of the last layer of dense, shared_cnn and compact_cnn."""
    shared_encoder: bool | None = None
    """Whether the critics train one encoder that the actor sees detached (true), or actor and each critic train one of
    their own (false); null: the encoder's own way."""
    asymmetric_critic: bool = field(default=False, metadata=_UNPLAYED | decides(Decides.critics, before=False))
    """Whether the critics see the privileged fields of the task (task.privileged) and all others but the image, without
    an encoder, while the actor sees what a player sees, through an encoder that learns to estimate those fields."""
    target_encoder: bool = True
    """Whether the targets have their own slow copy of a shared encoder; false: heads only (DrQ-v2), one pass less."""
    random_shift: Amount = field(
        default=0, metadata=_UNPLAYED | decides(Decides.nothing) | needs(not_with(".encoder", "mlp", "dense"))
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
        super().__post_init__()
        critic = "critic_hidden" if self.critic_hidden else "hidden"
        for name, body in (("hidden", self.actor), (critic, self.critic)):
            is_one_width = body is BodyKind.mlp or len(set(getattr(self, name))) == 1
            require(is_one_width, name, getattr(self, name), "one width, repeated for each block, with simba")
        known = f"one of {list(ENCODERS)} or registered by a file of plugins=[...]"
        require(self.encoder in ENCODERS, "encoder", self.encoder, known)
        has_choice = self.has_encoder or self.shared_encoder is None
        expected = f"null with the encoder {self.encoder}, which has nothing to share"
        require(has_choice, "shared_encoder", self.shared_encoder, expected)
        has_choice = not self.asymmetric_critic or self.shared_encoder is None
        expected = "null with network.asymmetric_critic, whose critics have no encoder"
        require(has_choice, "shared_encoder", self.shared_encoder, expected)
        is_possible = self.target_encoder or (self.has_encoder and self.shares_encoder)
        expected = f"true with the encoder {self.encoder}, which is not shared"
        if self.asymmetric_critic:
            expected = "true with network.asymmetric_critic, whose critics have no encoder"
        require(is_possible, "target_encoder", self.target_encoder, expected)


@dataclass
class RecurrentNetworkConfig(NetworkConfig):
    """Recurrent networks: a GRU behind the encoder, whose state is added to the encoder's features."""

    gru_size: Count = 64
    """Numbers that the policy remembers from row to row, and the width of the GRU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.asymmetric_critic,
            "asymmetric_critic",
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


def network_from_plain(data: Mapping[str, object], network_type: type[Network] = NetworkConfig) -> Network:  # type: ignore[assignment]
    """Builds a NetworkConfig from plain data (enums by member name), as sent to a worker or stored in a checkpoint.

    Args:
        data: The keys that are given.
        network_type: NetworkConfig, or what a plugin derived from it.
    """
    return config_from_dict(network_type, data, "network")
