"""The keys that the typed arguments set, as hydra parses them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from algos.config.errors import UsageError, explain
from tasks.words.nested import leaves, value_at

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


GROUPS = ("task", "train")
"""Config groups: typing one chooses a file."""


_OPTION = re.compile(r"\w[\w.+-]*(?:/\w[\w.+-]*)*")
"""The name of an option of a group."""


def typed_keys(overrides: Sequence[str], stored: Mapping[str, Any]) -> Iterator[str]:
    """Full names of the keys that the words set, groups first; a group typed as it was stored sets nothing."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        if override.is_delete():
            raise ValueError(f"{override.input_line} removes a key, which is not possible with a checkpoint")
    for override in sorted(parsed, key=lambda entry: entry.key_or_group not in GROUPS):
        key, value = override.key_or_group, override.value()
        if key in GROUPS and not isinstance(value, Mapping):
            if str(value) != stored_choice(stored, key):
                yield key
        elif isinstance(value, Mapping):
            yield from (name for name, _ in leaves(value, f"{key}."))
        else:
            yield key


def stored_choice(stored: Mapping[str, Any], group: str) -> str | None:
    """Which file of a group the stored configuration was made from; a name and no path to a file elsewhere."""
    choice = value_at(stored, f"choices.{group}")
    return choice if isinstance(choice, str) and _OPTION.fullmatch(choice) else None


def parsed(words: Sequence[str], key: str) -> list[Override]:
    """The words that set a key, as hydra reads them.

    Raises:
        UsageError: If one cannot be read.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides([word for word in words if word.startswith(f"{key}=")])
    except HydraException as error:
        raise UsageError(explain(error)) from error
