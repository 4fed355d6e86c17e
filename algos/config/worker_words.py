"""The words with which a worker elsewhere gets the configuration of this learner: what differs from the files of cfg.

``train.py`` asks for them where workers may join, and the learner shows them as part of a command. What was typed would
not do: a run that goes on from a checkpoint has its configuration from there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.words.path_words import quote

SHARED_KEYS = (
    "task",
    "plugins",
    "link.segment_rows",
    "train.params.network",
    "train.params.config.warm_up",
)
"""Keys, with all below them, that a worker must have as the learner has them."""
OWN_KEYS = ("task.live", "task.save_replays")
"""Keys below them that belong to a machine."""

_PLAIN = re.compile(r"[\w./@:+-]+")


def worker_words(config: Mapping[str, Any], files: Mapping[str, Any]) -> list[str]:
    """Words of hydra, the chosen files first.

    Args:
        config: The learner's whole configuration, plain data, the game decided.
        files: The same as the chosen files of cfg say it, nothing typed.
    """
    choices = config["choices"]
    words = [f"{group}={written(choices[group])}" for group in ("task", "train")]
    for key, value in leaves(config):
        is_shared = any(_is_below(key, shared) for shared in SHARED_KEYS)
        is_own = any(_is_below(key, own) for own in OWN_KEYS) or _is_implied_clock(config, key)
        if is_shared and not is_own and value != _get(files, key):
            words.append(f"{key if _PLAIN.fullmatch(key) else _quoted(key)}={written(value)}")
    return words


def written(value: Any) -> str:
    """A value in hydra's grammar, quoted for a shell where it must be."""
    text = _written(value)
    return text if _PLAIN.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    """For a shell."""
    return '"' + re.sub(r'(["\\$`])', r"\\\1", text) + '"'


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{','.join(_written(entry) for entry in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(entry)}" for key, entry in value.items()) + "}"
    text = str(value)
    is_plain = bool(_PLAIN.fullmatch(text)) and re.fullmatch(r"null|true|false|[+-]?[\d.].*", text) is None
    return text if is_plain and ":" not in text else quote(text)


def _is_implied_clock(config: Mapping[str, Any], key: str) -> bool:
    """Whether this is the clock that goes with the game, which a worker chooses by itself."""
    return key == "task.clock" and _get(config, key) == ("wall" if _get(config, "task.game") == "live" else "virtual")


def leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full names of all keys below a section, with their values; an empty mapping is a value."""
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_below(key: str, parent: str) -> bool:
    return key == parent or key.startswith(f"{parent}.")


def _get(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config
