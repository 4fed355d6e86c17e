"""Compiles loops over rows to machine code; the only place of the replay memory that names numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import numba
except ImportError:  # a bare machine with torch and numpy: the same loops, interpreted
    numba = None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code, made at its first call; the function itself where numba is not installed."""
    if numba is None:
        return function
    return numba.njit(cache=True, nogil=True, boundscheck=False)(function)
