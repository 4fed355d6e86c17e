"""Access to a nested configuration by full names, such as ``task.reward.path``. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

Plain = Mapping[str, Any]
"""Plain data by name: what YAML, JSON and checkpoints hold."""


def value_at(config: object, key: str) -> Any:
    """The value of a full name in plain data; the whole for an empty one, None where there is none."""
    for name in key.split(".") if key else ():
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def leaves(section: Plain, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full names of all keys below a section of plain data, with their values; an empty mapping is a value."""
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def fields_to(config: object, key: str) -> Iterator[tuple[str, Field[object], object]]:
    """The fields from the top of a dataclass to a key, each with its full name and its value.

    It ends where plain data begins, such as a mapping.
    """
    name = ""
    for part in key.split("."):
        known = {entry.name: entry for entry in fields(config)} if is_dataclass(config) else {}
        if part not in known:
            return
        name, config = f"{name}.{part}" if name else part, getattr(config, part)
        yield name, known[part], config
