"""Refusals of values and keys of the configuration: their messages name the key, the expected value and the choices.

Used by every dataclass of the configuration and its readers. Standard library only.
"""

from __future__ import annotations

import difflib
import json
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum

from tasks.words.habits import key_here


def require(condition: bool, key: str, got: object, expected: str) -> None:
    """Raises a ValueError that names the key, the expected and the given value, unless the condition is true.

    NaN meets no condition.
    """
    is_nan = isinstance(got, float) and math.isnan(got)
    if not condition or is_nan:
        raise ValueError(f"{key} must be {expected}, got {got!r}")


def as_typed(value: object) -> str:
    """A value as a person types it, an Enum by member name."""
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, str | float) else json.dumps(value)


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for a key that does not exist: our word for another project's, else what is near and beside it."""
    here = key_here(key)
    if here is not None:
        return f"unknown key {key}; here: {here}"
    parent, _, name = key.rpartition(".")
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {'.'.join(filter(None, [parent, close[0]]))}?)" if close else ""
    return f"unknown key {key}{hint}; {parent or 'the configuration'} has: {', '.join(known)}"


def type_name(hint: object) -> str:
    """A type annotation in words; an Enum by its members."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(type_name(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return f"a list of {type_name((*typing.get_args(hint), object)[0])}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(hint.__members__)
    if isinstance(hint, type) and is_dataclass(hint):
        return "a group of " + ", ".join(entry.name for entry in fields(hint))
    words = {int: "an integer", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    return next((word for kind, word in words.items() if kind is hint), getattr(hint, "__name__", str(hint)))
