"""Metadata of a key's field: the values of other keys without which the key has no effect.

The needs of a group apply to all its fields. ``algos.config.role_keys`` refuses a typed key that has no effect because
of another key's value. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any

from tasks.words.command_line import Role
from tasks.words.nested import fields_to, value_at

_METADATA = "needs"


@dataclass(frozen=True)
class Need:
    """A condition on another key."""

    key: str
    """Full name of the other key; a leading dot: a key of the same group."""
    values: tuple[object, ...]
    """Plain values of the other key, an Enum by member name."""
    is_only_with: bool
    """Whether the key acts only with these values, or with all others."""
    roles: frozenset[Role]
    """Roles in which the need applies; empty: all."""

    def refusal(self, plain: Mapping[str, Any], key: str) -> str | None:
        """Why a key has no effect, and what to do; None: it has one, or the configuration has no such other key.

        Args:
            plain: The whole configuration as plain data.
            key: Full name of the key that has this need.
        """
        other = key.rpartition(".")[0] + self.key if self.key.startswith(".") else self.key
        group, _, name = other.rpartition(".")
        section = value_at(plain, group)
        if not isinstance(section, Mapping) or name not in section:
            return None
        value = section[name]
        if (value in self.values) is self.is_only_with:
            return None
        remedy = f"give {other}={as_typed(self.values[0])}, or leave it out" if self.is_only_with else "leave it out"
        return f"does nothing with {other}={as_typed(value)}: {remedy}"


def only_with(key: str, *values: object, roles: tuple[Role, ...] = ()) -> Need:
    """The key acts only where another one has one of these values; messages offer the first."""
    return Need(key, values, True, frozenset(roles))


def not_with(key: str, *values: object, roles: tuple[Role, ...] = ()) -> Need:
    """The key does nothing where another one has one of these values."""
    return Need(key, values, False, frozenset(roles))


def needs(*conditions: Need) -> dict[str, tuple[Need, ...]]:
    """Metadata of a dataclass field: all of these must hold, for it and for what is below it."""
    return {_METADATA: conditions}


def key_needs(config: Any, key: str, role: Role) -> list[tuple[str, Need]]:
    """What a key needs in a role, each with the key that says it: its field, or a group above it.

    Args:
        config: The whole configuration, a dataclass.
        key: Full name of the key; a part of it may lie in plain data, such as a mapping.
        role: What this process does.
    """
    found: list[tuple[str, Need]] = []
    for name, entry, _ in fields_to(config, key):
        found += [(name, need) for need in entry.metadata.get(_METADATA, ()) if not need.roles or role in need.roles]
    return found


def has_default(config: Any, key: str) -> bool:
    """Whether a key has the default of its field.

    Args:
        config: The whole configuration, a dataclass.
        key: Full name of the key.
    """
    for name, entry, value in fields_to(config, key):
        if name == key:
            default = entry.default if entry.default_factory is MISSING else entry.default_factory()
            return bool(value == default)
    return False


def as_typed(value: object) -> str:
    """A plain value as a person types it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
