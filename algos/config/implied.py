"""Values of a configuration that each process chooses by itself, so that nobody types them or passes them on."""

from __future__ import annotations

from tasks.words.nested import Plain, value_at

PRIVILEGED = "task.privileged"


def is_implied(config: Plain, key: str) -> bool:
    """Whether a value is such a one: the clock that goes with the game, the fields that training uses.

    Args:
        config: A whole configuration.
        key: Full name of the value.
    """
    if key == PRIVILEGED:
        return value_at(config, key) is True and uses_more(config)
    is_live = value_at(config, "task.game") == "live"
    return key == "task.clock" and value_at(config, key) == ("wall" if is_live else "virtual")


def uses_more(config: Plain) -> bool:
    """Whether something in training sees more than the policy does: its critics, or DAgger's teacher."""
    is_asymmetric = value_at(config, "train.params.network.asymmetric_critic")
    return bool(is_asymmetric) or value_at(config, "train.params.config.teacher") is not None
