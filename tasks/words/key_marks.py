"""Metadata of a key's field: what the key means for checkpoints and for remote workers.

The metadata of a group applies to its fields without their own. ``tasks.words.key_roles`` has the roles of a key; both
are joined with ``|``. Standard library only.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any


class Decides(Enum):
    """What another value would change of something that was trained."""

    observation = "the shape of the observation"
    history = "how histories begin"
    critic_view = "what the critics see"
    networks = "the shape of the networks"
    critics = "the shape of the critics"
    nothing = ""
    """For a field of a group that decides something."""


class Belongs(Enum):
    """To whom a key belongs, so that a checkpoint does not bring it."""

    command = "command"
    """It belongs to the command, its machine and its user: never taken from the file."""
    learning = "learning"
    """Taken from the file only when it learns on."""


class Workers(Enum):
    """What a remote worker has of the learner's value."""

    same = "same"
    """A worker must have the same value."""
    own = "own"
    """Each machine has its own value."""


@dataclass(frozen=True)
class Trained:
    """What ``decides`` was given."""

    what: Decides
    before: Any
    """What the key stood for in files that are older than it is."""


def decides(what: Decides, before: Any = None) -> dict[str, Any]:
    """Metadata of a field that a checkpoint depends on.

    Args:
        what: What another value would change.
        before: Plain value of the key in files without it; None: null.
    """
    return {Decides.__name__: Trained(what, before)}


def belongs_to(whom: Belongs) -> dict[str, Any]:
    """Metadata of a field of ``RunConfig`` that is not, or not always, taken from a checkpoint."""
    return {Belongs.__name__: whom}


def workers_have(what: Workers) -> dict[str, Any]:
    """Metadata of a field that matters to remote workers."""
    return {Workers.__name__: what}


def marked(config_type: type, kind: type[Enum], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full names of the fields with this kind of metadata, and the metadata; a group before its fields.

    Args:
        config_type: A dataclass.
        kind: Decides (gives ``Trained``), Belongs or Workers.
        prefix: Of the names, with the dot.
    """
    hints = typing.get_type_hints(config_type)
    for entry in fields(config_type):
        key = f"{prefix}{entry.name}"
        if kind.__name__ in entry.metadata:
            yield key, entry.metadata[kind.__name__]
        if is_dataclass(hints[entry.name]):
            yield from marked(typing.cast("type", hints[entry.name]), kind, f"{key}.")
