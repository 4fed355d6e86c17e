"""Threads of the kernels that step many cars: how many there are, and that they sleep while they wait."""

from __future__ import annotations

import os

import numba
from numba.np.ufunc.parallel import get_thread_count

_LEAST_CARS = 4
"""Cars for which a thread pays."""


def threads_for(num_cars: int) -> int:
    """Threads for so many cars, at most numba's number: all cores, or NUMBA_NUM_THREADS."""
    return max(1, min(int(get_thread_count()), num_cars // _LEAST_CARS))


def use_threads(count: int) -> None:
    """Has the kernels that this thread calls from now on run on ``count`` threads, at most numba's number.

    OpenMP's threads would otherwise spin while they wait for each other, which takes the core from whoever has work on
    it: beside other programs a step then takes 20 times as long. They ask for it once, when numba starts them.
    """
    count = min(count, int(get_thread_count()))
    if "OMP_WAIT_POLICY" in os.environ:
        numba.set_num_threads(count)
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        numba.set_num_threads(count)
    finally:
        del os.environ["OMP_WAIT_POLICY"]
