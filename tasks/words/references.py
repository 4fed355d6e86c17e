"""References of the form "module:Class" or "module:function" in configurations and registrations.

Only this module parses and imports them. Standard library only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def split_reference(reference: str, what: str) -> tuple[str, str]:
    """Module and name of a "module:Class"; imports nothing.

    Args:
        reference: What was given.
        what: What it is for, for the message.

    Raises:
        ValueError: If it is not written so.
    """
    module, _, name = reference.partition(":") if isinstance(reference, str) else ("", "", "")
    if not module or not name:
        raise ValueError(f"{what} must be 'module:Class' or 'module:function', got {reference!r}")
    return module, name


def resolve(reference: str, what: str) -> Callable[..., Any]:
    """The class or function called "module:Class".

    Args:
        reference: Its name.
        what: What it is for, for the message.

    Raises:
        ValueError: If it is not written so, or there is no such class or function.
    """
    module, name = split_reference(reference, what)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"{what}: {reference!r} cannot be found: {error}") from error
    if not callable(found):
        raise ValueError(f"{what}: {reference!r} cannot be found: {module} has no class or function {name!r}")
    return found
