"""Which values a key of the configuration takes: said beside its field, in the annotation of its type.

    gamma: Annotated[float, between(0, 1)] = 0.99

The dataclasses of the configuration derive from ``Checked``, which refuses other values when an instance is made.
``tasks.config.config_from_dict`` puts the full name of the group before the name of the field. Standard library only.
"""

from __future__ import annotations

import functools
import math
import re
import typing
from collections.abc import Callable
from typing import Annotated, NamedTuple

from tasks.words.refusals import require


class Limit(NamedTuple):
    """A condition on one value."""

    expected: str
    """In words, behind "must be"."""
    holds: Callable[[typing.Any], bool]
    """Whether a value, never None, is as expected."""


class Checked:
    """A group of the configuration whose annotations say which values it takes; None meets every limit."""

    def __post_init__(self) -> None:
        owner: type = type(self)
        for name, limit in _limits(owner):
            value = getattr(self, name)
            require(value is None or limit.holds(value), name, value, limit.expected)


def at_least(low: float, unit: str = "") -> Limit:
    """``low`` or more, infinity included."""
    return Limit(f">= {low} {unit}".strip(), lambda value: value >= low)


def above(low: float, unit: str = "") -> Limit:
    """More than ``low``, infinity included."""
    return Limit(f"> {low} {unit}".strip(), lambda value: value > low)


def between(low: float, high: float, unit: str = "") -> Limit:
    """From ``low`` to ``high``, both included."""
    return Limit(f"between {low} and {high} {unit}".strip(), lambda value: low <= value <= high)


def one_of(*values: object) -> Limit:
    """One of these."""
    return Limit(f"one of {', '.join(map(str, values))}", lambda value: value in values)


def matching(pattern: str, expected: str) -> Limit:
    """A text that a regular expression matches as a whole."""
    return Limit(expected, lambda value: re.fullmatch(pattern, value) is not None)


def _or_auto(low: int) -> Limit:
    return Limit(
        f"'auto' or an integer >= {low}",
        lambda value: value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= low),
    )


Count = Annotated[int, at_least(1)]
"""At least one."""
Amount = Annotated[int, at_least(0)]
"""None or more."""
CountOrAuto = Annotated[int | str, _or_auto(1)]
"""A count, or auto: decided by the program."""
AmountOrAuto = Annotated[int | str, _or_auto(0)]
"""An amount, or auto: decided by the program."""
Share = Annotated[float, Limit("in (0, 1]", lambda value: 0 < value <= 1)]
"""A part of the whole, such as a discount."""
Fraction = Annotated[float, Limit("in [0, 1)", lambda value: 0 <= value < 1)]
"""A part that is not the whole."""
Positive = Annotated[float, Limit("> 0", lambda value: 0 < value < math.inf)]
"""More than 0, and finite."""
NotNegative = Annotated[float, Limit(">= 0", lambda value: 0 <= value < math.inf)]
"""0 or more, and finite."""
Widths = Annotated[
    list[int],
    Limit("a list of at least one width >= 1", lambda value: len(value) >= 1 and all(width >= 1 for width in value)),
]
"""Of the hidden layers of a network."""
FolderName = Annotated[str, matching(r"[\w.+-]+", "a folder name")]
"""What a folder can be called everywhere."""


@functools.cache
def _limits(config_type: type) -> tuple[tuple[str, Limit], ...]:
    """Names of the fields that have limits, with each limit."""
    found: dict[tuple[str, Limit], None] = {}
    # Of a field with a new default also those of the class that has the old one.
    for owner in reversed(config_type.__mro__):
        for name, hint in typing.get_type_hints(owner, include_extras=True).items():
            for part in (hint, *typing.get_args(hint)):
                for entry in getattr(part, "__metadata__", ()):
                    if isinstance(entry, Limit):
                        or_null = "" if part is hint else "null or "
                        found[name, entry._replace(expected=or_null + entry.expected)] = None
    return tuple(found)
