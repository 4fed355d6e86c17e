"""Other cars: YAML files of vehicle constants, or the same as text in braces, and their checks.

``task.vehicle`` takes both. ``tasks.registry.keep_vehicle`` puts the text in place of the file's name when a command
starts, so that the configuration of a run and its checkpoints hold the values themselves.
"""

from __future__ import annotations

import difflib
import json
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from tasks.sim.vehicle import VehicleConstants, layout

MAX_BYTES = 64 * 1024
"""Largest file that is read."""

Value = float | tuple[float, ...]


def load_vehicle(source: str | None) -> VehicleConstants:
    """The car of ``task.vehicle``.

    Args:
        source: A YAML file of the constants that differ from ``VehicleConstants``, or that as text in braces; None: the
            game's car.

    Raises:
        ValueError: Unreadable, an unknown name, a wrong type or an impossible value; the message names it.
    """
    if source is None:
        return VehicleConstants()
    name = f"task.vehicle={source}" if _is_text(source) else f"vehicle file {source}"
    try:
        return _from_data(_parsed(source if _is_text(source) else _read(source)))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def differences(car: VehicleConstants) -> dict[str, float | list[float]]:
    """The constants in which a car differs from the game's, as plain data that ``load_vehicle`` reads."""
    usual = VehicleConstants()
    values = {name: getattr(car, name) for name in layout() if getattr(car, name) != getattr(usual, name)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def vehicle_text(source: str | None) -> str | None:
    """What differs in the car of ``task.vehicle``, as text in braces; None where nothing does."""
    values = differences(load_vehicle(source))
    return json.dumps(values) if values else None


def _is_text(source: str) -> bool:
    return source.lstrip().startswith("{")


def _read(path: str) -> str:
    file = Path(path).expanduser()
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"must have at most {MAX_BYTES} bytes, got {file.stat().st_size}")
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ValueError("does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read as text: {error}") from error


def _parsed(text: str) -> Mapping[str, object]:
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"must be YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(data, Mapping):
        raise ValueError(f"must be a mapping of constants, such as yaw_lag_s: 0.15, got {reprlib.repr(data)}")
    return data


def _from_data(data: Mapping[str, object]) -> VehicleConstants:
    usual = {field.name: field.default for field in fields(VehicleConstants)}
    for name in data:
        if name not in usual:
            close = difflib.get_close_matches(str(name), usual, n=1)
            hint = f"; did you mean {close[0]}" if close else ""
            raise ValueError(f"unknown constant {reprlib.repr(name)}{hint}; known: {', '.join(usual)}")
    values: dict[str, Any] = {name: _value(name, value, usual[name]) for name, value in data.items()}
    return VehicleConstants(**values)


def _value(name: str, value: object, usual: object) -> Value:
    """A number, or a table of as many as ``usual`` has."""
    if not isinstance(usual, tuple):
        return _number(name, value)
    if not isinstance(value, list) or len(value) != len(usual):
        raise ValueError(f"{name} must be a list of {len(usual)} numbers, got {reprlib.repr(value)}")
    return tuple(_number(f"{name}[{i}]", entry) for i, entry in enumerate(value))


def _number(name: str, value: object) -> float:
    if isinstance(value, str):
        # YAML takes 1e-5, without a point, for a text.
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, got {reprlib.repr(value)}")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be a finite number, got {reprlib.repr(value)}") from error
