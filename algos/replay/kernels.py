"""Compiles loops over rows to machine code; the only place of the replay memory that names numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code, made at its first call.

    Without numba, on a bare machine with torch and numpy, the function itself: the same loops, interpreted.
    """
    try:
        import numba
    except ImportError:
        return function
    return numba.njit(cache=True, nogil=True, boundscheck=False)(function)
