"""The keys that the typed arguments set, as hydra parses them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from algos.config.errors import UsageError, explain
from tasks.words.nested import leaves, value_at

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


GROUPS = ("task", "train")
"""Config groups: typing one chooses a file."""


_OPTION = re.compile(r"\w[\w.+-]*(?:/\w[\w.+-]*)*")
"""The name of an option of a group."""


def typed_keys(words: Sequence[str]) -> Iterator[str]:
    """Full names of the keys that the words set, groups first; a group typed as it was stored sets nothing."""
    for override in parsed(words):
        if not override.is_delete() and not is_choice(override):
            yield from keys_of(override)


def keys_of(override: Override) -> list[str]:
    """Full names of the keys that one word sets: of a mapping those of its entries."""
    key, value = override.key_or_group, override.value()
    return [name for name, _ in leaves(value, f"{key}.")] if isinstance(value, Mapping) and value else [key]


def is_choice(override: Override) -> bool:
    """Whether a word chooses a file."""
    return override.key_or_group in GROUPS and not isinstance(override.value(), Mapping)


def stored_choice(stored: Mapping[str, object], group: str) -> str | None:
    """Which file of a group the stored configuration was made from; a name and no path to a file elsewhere."""
    choice = value_at(stored, f"choices.{group}")
    return choice if isinstance(choice, str) and _OPTION.fullmatch(choice) else None


def parsed(words: Sequence[str], key: str | None = None) -> list[Override]:
    """The words, or those that set one key, as hydra reads them.

    Raises:
        UsageError: If one cannot be read.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    wanted = [word for word in words if key is None or word.startswith(f"{key}=")]
    try:
        return OverridesParser.create().parse_overrides(wanted)
    except HydraException as error:
        raise UsageError(explain(error)) from error
