"""Metadata of a key's field: the roles in which the key has an effect.

The metadata of a group applies to its fields without their own. The dataclasses of the configuration use ``acts_in``;
``algos.config.role_keys`` refuses a typed key that has no effect in the chosen role. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.words.command_line import ROLES_WITHOUT_CONFIGURATION, Role
from tasks.words.nested import fields_to

CONFIGURED = tuple(role for role in Role if role not in ROLES_WITHOUT_CONFIGURATION)
"""Roles that take words of the configuration."""
DRIVING = tuple(role for role in CONFIGURED if role is not Role.server)
"""Those of them that have a task."""

_METADATA = "roles"


@dataclass(frozen=True)
class KeyRoles:
    """Roles of a key, and the keys to use in others."""

    roles: frozenset[Role] = frozenset()
    """Roles in which the key has an effect."""
    instead: Mapping[Role, str] = field(default_factory=dict)
    """What to type in another role for what was probably meant."""


def acts_in(*roles: Role, instead: Mapping[Role, str] | None = None) -> dict[str, KeyRoles]:
    """Metadata of a dataclass field.

    Args:
        roles: Where the key, or what is below it, does something.
        instead: By other roles: the key that does there what was probably meant.
    """
    return {_METADATA: KeyRoles(frozenset(roles), instead or {})}


def key_roles(config: Any, key: str) -> KeyRoles:
    """The metadata of a key's field, or of the nearest group above it.

    Args:
        config: The whole configuration, a dataclass.
        key: Full name of the key; a part of it may lie in plain data, such as a mapping.
    """
    found = KeyRoles()
    for _, entry, _ in fields_to(config, key):
        found = entry.metadata.get(_METADATA, found)
    return found
