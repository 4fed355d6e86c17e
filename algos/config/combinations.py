"""Which keys of the network work together, and with which algorithm: each rule has one reason.

Called by every algorithm and, before anything starts, by ``algos.faces.runner_params``. Every combination
that is not refused here works: LayerNorm, dropout and SimBa with every algorithm but CrossQ, other keys with all.
"""

from __future__ import annotations

from collections.abc import Iterator

from algos.config.family import CrossQConfig, DAggerConfig, DroQConfig
from algos.config.network import BodyKind, NetworkConfig
from algos.config.off_policy import ReplayLearnerConfig
from tasks.words.refusals import as_typed


def check_combination(network: NetworkConfig, config: ReplayLearnerConfig) -> None:
    """Refuses what cannot work together.

    Args:
        network: Shape of the networks.
        config: The algorithm.

    Raises:
        ValueError: Naming the key, what was expected, what was given, and the reason.
    """
    rules = [_rules_of_bodies(network)]
    if network.batch_renorm or isinstance(config, CrossQConfig):
        rules.append(_rules_of_batch_renorm(network, config))
    if isinstance(config, DroQConfig):
        rules.append(_rules_of_droq(network))
    if isinstance(config, DAggerConfig):
        rules.append(_rules_of_dagger(network))
    for key, expected, reason in (rule for group in rules for rule in group):
        got = getattr(network, key)
        raise ValueError(f"network.{key} must be {expected}, got {as_typed(got)}: {reason}")


_OF_CRITICS = (
    "critic",
    "critic_hidden",
    "dropout",
    "layer_norm",
    "shared_encoder",
    "asymmetric_critic",
    "target_encoder",
)
Refusal = tuple[str, str, str]
"""Key of the network, what was expected, the reason."""


def _rules_of_bodies(network: NetworkConfig) -> Iterator[Refusal]:
    if network.critic is BodyKind.simba and network.layer_norm:
        yield "layer_norm", "false with network.critic=simba", "its blocks have LayerNorms of their own"
    if network.critic is BodyKind.simba and network.dropout > 0:
        yield "dropout", "0 with network.critic=simba", "no paper says where it belongs in a residual block"
    if network.actor is BodyKind.simba and network.layer_norm_actor:
        yield "layer_norm_actor", "false with network.actor=simba", "its blocks have LayerNorms of their own"


def _rules_of_batch_renorm(network: NetworkConfig, config: ReplayLearnerConfig) -> Iterator[Refusal]:
    if not isinstance(config, CrossQConfig):
        reason = "slow targets would see other statistics than the critics do; take CrossQ, which has no targets"
        yield "batch_renorm", "false without CrossQ", reason
    if not network.batch_renorm:
        yield "batch_renorm", "true with CrossQ", "without target networks it is what keeps the critics stable"
    for key in ("layer_norm", "layer_norm_actor"):
        if getattr(network, key):
            yield key, "false with network.batch_renorm=true", "a layer is normalised once"
    if network.dropout > 0:
        reason = "statistics of the batches with dropout differ from those that act; take DroQ for dropout"
        yield "dropout", "0 with network.batch_renorm=true", reason
    for key in ("critic", "actor"):
        if getattr(network, key) is BodyKind.simba:
            yield key, "mlp with network.batch_renorm=true", "SimBa normalises by LayerNorm"
    if not network.target_encoder:
        yield "target_encoder", "true with CrossQ", "it has no target networks to leave an encoder out of"


def _rules_of_droq(network: NetworkConfig) -> Iterator[Refusal]:
    if network.dropout == 0:
        yield "dropout", "above 0 with DroQ (such as 0.01)", "without it take SAC or REDQ"
    if not network.layer_norm:
        yield "layer_norm", "true with DroQ", "the paper's dropout learns only together with LayerNorm"


def _rules_of_dagger(network: NetworkConfig) -> Iterator[Refusal]:
    plain = NetworkConfig(encoder=network.encoder, hidden=network.hidden)
    for key in _OF_CRITICS:
        if getattr(network, key) != getattr(plain, key):
            yield key, f"{as_typed(getattr(plain, key))} with DAgger", "it has no critics"
