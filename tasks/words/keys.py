"""What a key of the configuration means: said beside its field, as the field's metadata, joined by ``|``.

In which roles it acts, which other key makes it act, what of a checkpoint depends on it, to whom it belongs, and what
remote workers have of it. What a group says holds for the fields below it that say nothing themselves; what a group
needs its fields need too. ``tasks.words.limits`` says which values a key takes. Standard library only.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum
from typing import TypeVar

from tasks.words.command_line import ROLES_WITHOUT_CONFIGURATION, Role
from tasks.words.nested import fields_to, value_at
from tasks.words.refusals import as_typed

CONFIGURED = tuple(role for role in Role if role not in ROLES_WITHOUT_CONFIGURATION)
"""Roles that take words of the configuration."""
DRIVING = tuple(role for role in CONFIGURED if role is not Role.server)
"""Those of them that have a task."""

Metadata = dict[type, object]
"""Of a dataclass field, by what kind of thing it says."""
Fact = TypeVar("Fact")


class Decides(Enum):
    """What another value would change of something that was trained."""

    observation = "the shape of the observation"
    history = "how histories begin"
    look_ahead = "where the points of the road ahead lie"
    critic_view = "what the critics see"
    networks = "the shape of the networks"
    critics = "the shape of the critics"
    nothing = ""
    """For a field of a group that decides something."""


class Belongs(Enum):
    """To whom a key belongs, so that a checkpoint does not bring it."""

    command = "command"
    """The command, its machine and who types it: never taken from the file."""
    learning = "learning"
    """Taken from the file only when it learns on."""


class Workers(Enum):
    """What a remote worker has of the learner's value."""

    same = "same"
    """It must have the same."""
    own = "own"
    """Its machine has one of its own."""


@dataclass(frozen=True)
class Trained:
    """What ``decides`` was given."""

    what: Decides
    before: object
    """What the key stood for in files that are older than it is."""


@dataclass(frozen=True)
class KeyRoles:
    """What ``acts_in`` was given."""

    roles: frozenset[Role] = frozenset()
    """Where the key does something."""
    instead: Mapping[Role, str] = field(default_factory=dict)
    """What to type in another role for what was probably meant."""


@dataclass(frozen=True)
class Need:
    """A condition on another key."""

    key: str
    """Full name of the other key; one that begins with a dot stands in the same group."""
    values: tuple[object, ...]
    """Plain values of the other key, an Enum by member name."""
    is_only_with: bool
    """Whether the key acts only with these values, or with all others."""
    roles: tuple[Role, ...]
    """Where it holds; empty: everywhere."""

    def refusal(self, plain: Mapping[str, object], key: str) -> str | None:
        """Why a key does nothing, and what to do; None: it acts, or the configuration has no such other key.

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
        wanted = self.values[0] if self.is_only_with else None
        remedy = "leave it out" if wanted is None else f"give {other}={as_typed(wanted)}, or leave it out"
        return f"does nothing with {other}={as_typed(value)}: {remedy}"


def acts_in(*roles: Role, instead: Mapping[Role, str] | None = None) -> Metadata:
    """The key, or what is below it, does something in these roles only.

    Args:
        roles: The roles.
        instead: By other roles: the key that does there what was probably meant.
    """
    return {KeyRoles: KeyRoles(frozenset(roles), instead or {})}


def needs(*conditions: Need) -> Metadata:
    """All of these must hold for the key, and for what is below it, to do something."""
    return {Need: conditions}


def only_with(key: str, *values: object, roles: tuple[Role, ...] = ()) -> Need:
    """The key acts only where another one has one of these values; messages offer the first."""
    return Need(key, values, True, roles)


def not_with(key: str, *values: object, roles: tuple[Role, ...] = ()) -> Need:
    """The key does nothing where another one has one of these values."""
    return Need(key, values, False, roles)


def decides(what: Decides, before: object = None) -> Metadata:
    """A checkpoint depends on the key.

    Args:
        what: What another value would change.
        before: Plain value that the key stands for in files without it; None: null.
    """
    return {Trained: Trained(what, before)}


def belongs_to(whom: Belongs) -> Metadata:
    """The key, one of ``RunConfig``, is not, or not always, taken from a checkpoint."""
    return {Belongs: whom}


def workers_have(what: Workers) -> Metadata:
    """The key matters to remote workers."""
    return {Workers: what}


def key_roles(config: object, key: str) -> KeyRoles:
    """In which roles a key acts: as its field says, or the nearest group above it.

    Args:
        config: The whole configuration, a dataclass.
        key: Full name of the key; a part of it may lie in plain data, such as a mapping.
    """
    said = [entry.metadata[KeyRoles] for _, entry, _ in fields_to(config, key) if KeyRoles in entry.metadata]
    return said[-1] if said else KeyRoles()


def key_needs(config: object, key: str, role: Role) -> Iterator[tuple[str, Need]]:
    """What a key needs in a role, each with the key that says it: its field, or a group above it."""
    for name, entry, _ in fields_to(config, key):
        yield from ((name, need) for need in entry.metadata.get(Need, ()) if not need.roles or role in need.roles)


def has_default(config: object, key: str) -> bool:
    """Whether a key of the whole configuration, a dataclass, has the default of its field."""
    for name, entry, value in fields_to(config, key):
        if name == key:
            default = entry.default if entry.default_factory is MISSING else entry.default_factory()
            return bool(value == default)
    return False


def marked(config_type: type, kind: type[Fact], prefix: str = "") -> Iterator[tuple[str, Fact]]:
    """Full names of the fields that say something of a kind, with what they say; a group before what is below it.

    Args:
        config_type: A dataclass.
        kind: Trained, Belongs or Workers.
        prefix: Of the names, with the dot.
    """
    hints = typing.get_type_hints(config_type)
    for entry in fields(config_type):
        key = f"{prefix}{entry.name}"
        if kind in entry.metadata:
            yield key, entry.metadata[kind]
        if is_dataclass(hints[entry.name]):
            yield from marked(hints[entry.name], kind, f"{key}.")
