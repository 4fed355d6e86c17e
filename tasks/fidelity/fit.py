"""Fits the constants of a car to recordings: damped least squares on the open-loop errors of many windows.

``train.py --calibrate`` uses it. Steps are relative to the size of a constant, and a weak penalty keeps it near its
first value, so constants with little data hardly change. Constants without data are not fitted at all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.fidelity.errors import Windows
from tasks.sim.open_loop import drive
from tasks.sim.vehicle import FloatArray, VehicleConstants, layout

Car = Callable[[FloatArray], FloatArray]
"""From changes of the constants, in units of their size, to the vector of the car."""
NOT_OF_THE_DRIVE = ("rpm_", "off_road_", "half_", "wall_", "contact_gap_s")
"""Beginnings of the names of constants that do not act on open asphalt."""

_UNITS = (0.5 / 3.6, 0.5 / 3.6, np.radians(0.15), 0.15, 0.15)
"""An error of one, of: speed along and across, heading, position x and z."""
_SAMPLES_APART = 5
_SPRING = 0.25
"""How far off a constant may be expected to be, as a share of its size."""
_UNCERTAIN = 0.12
"""A constant that the windows leave more uncertain than this share of its size keeps its value."""
_STEP = 0.06
"""So wide that a pause of the gearbox changes by a tick, and the speed of a shift by some."""
_MAX_STEPS = 25
_DAMPINGS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_SETTLED = 0.003
"""The fit ends when a step brings less than this share."""


class Step(NamedTuple):
    """How far a fit has come."""

    constants: VehicleConstants
    cost: float
    uncertain: list[str]
    """Constants, or entries of tables, that kept their value for too little data."""


def fit(start: VehicleConstants, windows: Windows) -> Iterator[Step]:
    """Steps of a fit, each better than the one before; the first changes nothing.

    Args:
        start: Where it begins.
        windows: What the car shall drive.
    """
    names, places = _free()
    first = start.vector()
    sizes = _sizes(start)[places]

    def car(x: FloatArray) -> FloatArray:
        vector = first.copy()
        vector[places] += x * sizes
        return vector

    x = np.zeros(len(places))
    with _Drivers(windows) as drivers:
        residuals = drivers.residuals([car(x)])[0]
        is_known = np.zeros(len(places), np.bool_)
        for _ in range(_MAX_STEPS):
            slopes = drivers.slopes(car, x, residuals)
            is_known |= _uncertainty(slopes, residuals) < _UNCERTAIN
            uncertain = [name for name, known in zip(names, is_known, strict=True) if not known]
            scale = _scale(residuals)
            before = _cost(residuals, x, scale)
            yield Step(constants_of(car(x)), before, uncertain)
            tries = [x + is_known * move for move in _moves(slopes * is_known, residuals, x)]
            reached = drivers.residuals([car(one) for one in tries])
            costs = [
                _cost(one, at, scale) if _is_possible(car(at)) else math.inf
                for one, at in zip(reached, tries, strict=True)
            ]
            best = int(np.argmin(costs))
            if not costs[best] < before * (1.0 - _SETTLED):
                return
            x, residuals = tries[best], reached[best]


def constants_of(vector: FloatArray) -> VehicleConstants:
    """The constants of a vector, as ``VehicleConstants.vector`` lays them out."""
    values: dict[str, float | tuple[float, ...]] = {}
    for name, part in layout().items():
        rounded = tuple(float(f"{value:.5g}") for value in vector[part])
        values[name] = rounded if isinstance(getattr(VehicleConstants, name), tuple) else rounded[0]
    return VehicleConstants(**values)  # type: ignore[arg-type]


class _Drivers:
    """Drives several cars over the same windows, one on each core."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1)

    def __enter__(self) -> _Drivers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def residuals(self, cars: list[FloatArray]) -> list[FloatArray]:
        """Errors of each car in units of ``_UNITS``, all in one row."""
        return list(self._pool.map(self._residuals, cars))

    def slopes(self, car: Car, x: FloatArray, residuals: FloatArray) -> FloatArray:
        """Change of each error with each constant, shape (errors, constants)."""
        moved = [car(x + _STEP * unit) for unit in np.eye(len(x))]
        return np.stack([(one - residuals) / _STEP for one in self.residuals(moved)], axis=1)

    def _residuals(self, car: FloatArray) -> FloatArray:
        states = drive(car, self._windows.drives)
        off = (states - self._windows.recorded)[:, _SAMPLES_APART::_SAMPLES_APART, [3, 4, 2, 0, 1]]
        # A car that is lost altogether says nothing more than one that is far off.
        return np.clip(np.nan_to_num(off / _UNITS, nan=1e3), -1e3, 1e3).ravel()


def _free() -> tuple[list[str], NDArray[np.int64]]:
    """Names and places in the vector of the constants that are fitted."""
    names: list[str] = []
    places: list[int] = []
    for name, part in layout().items():
        if not name.startswith(NOT_OF_THE_DRIVE):
            is_table = isinstance(getattr(VehicleConstants, name), tuple)
            names += [f"{name}[{i}]" for i in range(part.stop - part.start)] if is_table else [name]
            places += range(part.start, part.stop)
    return names, np.array(places, np.int64)


def _sizes(start: VehicleConstants) -> FloatArray:
    """The size of each value of the vector; in a table none is less than a tenth of the largest."""
    sizes = np.abs(start.vector())
    for part in layout().values():
        sizes[part] = np.maximum(sizes[part], 0.1 * sizes[part].max())
    return sizes


def _is_possible(vector: FloatArray) -> bool:
    """Whether a car can have these constants."""
    try:
        constants_of(vector)
    except ValueError:
        return False
    return True


def _scale(residuals: FloatArray) -> float:
    """Errors beyond this count less: the recording has something there that no car of ours does."""
    return max(1.0, 3.0 * float(np.median(np.abs(residuals))))


def _cost(residuals: FloatArray, x: FloatArray, scale: float) -> float:
    return float((2 * scale**2 * (np.sqrt(1 + (residuals / scale) ** 2) - 1)).sum() + ((x / _SPRING) ** 2).sum())


def _weights(residuals: FloatArray) -> FloatArray:
    return np.asarray(1.0 / np.sqrt(1.0 + (residuals / _scale(residuals)) ** 2))


def _uncertainty(slopes: FloatArray, residuals: FloatArray) -> FloatArray:
    """What the windows leave open of each constant, as a share of its size, shape (constants,)."""
    information = slopes.T @ (_weights(residuals)[:, None] * slopes)
    return np.asarray(np.sqrt(np.diag(np.linalg.inv(information + np.eye(len(information)) / _SPRING**2))))


def _moves(slopes: FloatArray, residuals: FloatArray, x: FloatArray) -> Iterator[FloatArray]:
    """Steps from little to much damping, each constant by at most a tenth of its size."""
    weights = _weights(residuals)
    spring = np.eye(len(x)) / _SPRING**2
    information = slopes.T @ (weights[:, None] * slopes) + spring
    downhill = -(slopes.T @ (weights * residuals) + x / _SPRING**2)
    for damping in _DAMPINGS:
        damped = information + damping * np.diag(np.diag(information))
        yield np.clip(np.linalg.solve(damped, downhill), -0.1, 0.1)
