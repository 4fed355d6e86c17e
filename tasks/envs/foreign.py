"""Converts what third-party environments and interfaces return: named fields, checked numbers and flags.

``tasks.envs.gym_task`` and ``tasks.envs.rtgym_interface`` call it. A value that cannot be used raises a
``WrongValueError`` that names the environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from tasks.experience.observation import Field

OBSERVATION = "observation"
"""Name of the field of an observation that is one Box."""
MAX_CHANNELS = 16
"""A first axis of at most this size, shorter than the last one, holds the channels of an image."""


class WrongValueError(ValueError):
    """Raised when an environment or interface returns a value that cannot be used; the message names it."""


def number(value: object, what: str, whose: str) -> float:
    """The one number in a value: a Python or NumPy scalar, or an array of size 1.

    Args:
        value: What was returned.
        what: What it is called in a message.
        whose: Who returned it.

    Raises:
        WrongValueError: It is not one number.
    """
    if isinstance(value, float):
        return float(value)
    return float(_single(value, "biuf", f"{what} must be one number", whose))


def flag(value: object, what: str, whose: str) -> bool:
    """The one truth value in a value; as ``number``."""
    if isinstance(value, bool):
        return value
    return bool(_single(value, "biu", f"{what} must be true or false", whose))


def within(low: np.ndarray, high: np.ndarray, action: np.ndarray) -> np.ndarray:
    """An action in [-1, 1] between two bounds, float64, of their shape; both ends are met exactly."""
    share = (np.clip(action, -1.0, 1.0).reshape(low.shape).astype(np.float64) + 1.0) / 2.0
    return low * (1.0 - share) + high * share


def fields_of(space: spaces.Space, whose: str, *, moves_channels: bool) -> tuple[Field, ...]:
    """A field for every Box of an observation space.

    Args:
        space: A Box, or a Dict or Tuple of them.
        whose: Who observes it.
        moves_channels: Whether images get their channels last.

    Raises:
        ValueError: There is something else in it, or nothing.
    """
    fields = tuple(_field(name, box, whose, moves_channels) for name, box in _boxes(space, whose))
    if not fields:
        raise ValueError(f"{whose}: its observation is empty: {space}")
    return fields


def leaves(space: spaces.Space, observation: Any, whose: str, name: str = "") -> Iterator[tuple[str, object]]:
    """Every value of an observation with the name of its field.

    Raises:
        WrongValueError: It has not the parts that the space has.
    """
    if isinstance(space, spaces.Box):
        yield name or OBSERVATION, observation
        return
    assert isinstance(space, spaces.Dict | spaces.Tuple)
    try:
        entries = [observation[key] for key in space.spaces] if isinstance(space, spaces.Dict) else list(observation)
    except (KeyError, TypeError, IndexError) as error:
        raise WrongValueError(_wrong(observation, f"observation must have the parts of {space}", whose)) from error
    members = _members(space, name)
    if len(entries) != len(members):
        raise WrongValueError(f"{whose}: observation must have {len(members)} parts, got {len(entries)}")
    for (inner_name, inner), entry in zip(members, entries, strict=True):
        yield from leaves(inner, entry, whose, inner_name)


def as_field(value: object, field: Field, whose: str) -> np.ndarray:
    """A copy with shape and type of the field, since environments may reuse their arrays.

    Raises:
        WrongValueError: The value has another size, or cannot be had in that type.
    """
    array = _array(value)
    dtype = np.dtype(field.dtype)
    if array is None or array.size != field.size or not _fits(array, dtype):
        kind = "whole numbers from 0 to 255" if dtype == np.uint8 else "numbers"
        expected = f"observation {field.name!r} must be {kind} of shape {list(field.shape)}"
        raise WrongValueError(_wrong(value, expected, whose))
    if array.shape != field.shape and dtype == np.uint8 and _has_channels_first(array.shape):
        array = np.moveaxis(array, 0, -1)
    return np.array(array, dtype, order="C").reshape(field.shape)


def _single(value: object, kinds: str, expected: str, whose: str) -> np.generic:
    array = _array(value)
    if array is None or array.size != 1 or array.dtype.kind not in kinds:
        raise WrongValueError(_wrong(value, expected, whose))
    return array.item()


def _array(value: object) -> np.ndarray | None:
    """None where it is no array, as a ragged list."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError):
        return None


def _fits(array: np.ndarray, dtype: np.dtype) -> bool:
    if dtype != np.uint8:
        return array.dtype.kind in "biuf"
    if array.dtype == np.uint8:
        return True
    return array.dtype.kind in "biu" and bool(((array >= 0) & (array <= 255)).all())


def _wrong(value: object, expected: str, whose: str) -> str:
    array = _array(value)
    shown = " ".join(repr(value).split())
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    shape = "" if array is None else f" (shape {list(array.shape)}, {array.dtype})"
    return f"{whose}: {expected}, got {shown}{shape}"


def _boxes(space: spaces.Space, whose: str, name: str = "") -> Iterator[tuple[str, spaces.Box]]:
    """Every Box of an observation with the name of its field."""
    if isinstance(space, spaces.Box):
        yield name or OBSERVATION, space
        return
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        where = f"its observation {name!r}" if name else "its observation"
        raise ValueError(
            f"{whose}: {where} is {space}; expected a Box, or a Dict or Tuple of them: register an "
            "environment of your own around it (plugins=[my_file.py]), e.g. with gymnasium.wrappers.FlattenObservation"
        )
    for inner_name, inner in _members(space, name):
        yield from _boxes(inner, whose, inner_name)


def _members(space: spaces.Dict | spaces.Tuple, name: str) -> list[tuple[str, spaces.Space]]:
    if isinstance(space, spaces.Dict):
        return [(f"{name}.{key}" if name else str(key), inner) for key, inner in space.spaces.items()]
    return [(f"{name or OBSERVATION}_{index}", inner) for index, inner in enumerate(space.spaces)]


def _field(name: str, space: spaces.Box, whose: str, moves_channels: bool) -> Field:
    if 0 in space.shape:
        raise ValueError(f"{whose}: its observation {name!r} is empty: shape {space.shape}")
    if space.dtype == np.uint8:
        shape = space.shape
        if moves_channels and _has_channels_first(shape):
            shape = (*shape[1:], shape[0])
        return Field(name, shape or (1,), "uint8", 0.0, 255.0, scale=255.0)
    low, high = float(np.min(space.low)), float(np.max(space.high))
    return Field(name, space.shape or (1,), "float32", low, high)


def _has_channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] <= MAX_CHANNELS and shape[0] < shape[-1]
