"""Fits the constants of a car to recordings: damped least squares on the open-loop errors of many windows.

``train.py --calibrate`` uses it. Steps are relative to the size of a constant, and a weak penalty keeps it near its
first value, so constants with little data hardly change. Constants without data are not fitted at all.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.fidelity.errors import Windows
from tasks.sim.open_loop import drive
from tasks.sim.vehicle import ANY_SIGN, NUM_GEARS, FloatArray, VehicleConstants, layout

NOT_OF_THE_DRIVE = ("rpm_", "off_road_", "half_", "wall_", "contact_gap_s")
"""Beginnings of the names of constants that do not act on open asphalt."""

_UNITS = (0.5 / 3.6, 0.5 / 3.6, np.radians(0.15), 0.15, 0.15)
"""An error of one, of: speed along and across, heading, position x and z."""
_SAMPLES_APART = 5
_SPRING = 0.25
"""How far off a constant may be expected to be, as a share of its size."""
_UNCERTAIN = 0.12
"""A constant that the windows leave more uncertain than this share of its size keeps its value."""
_UP, _DOWN = layout()["upshift_kmh"], layout()["downshift_kmh"]
"""A gear is left at a share of the speed at which it is reached: few drives tell that share, most tell the speed."""
_WIDTH = 0.06
"""Change from which slopes are told: so wide that a shift at another speed is seen in some windows."""
_JUMPS = ("acceleration_until_kmh", "upshift_kmh", "downshift_kmh", "shift_pause_s", "slide_from_", "slide_until_")
"""Beginnings of the names of constants of which errors jump: something happens a tick later, or in another window."""
_WIDE = 0.04 * np.arange(-7, 10)
"""Changes from the first value that are tried of each of these ..."""
_FINE = (-0.02, -0.01, -0.005, 0.0, 0.005, 0.01, 0.02)
"""... and from the best of those."""
_PAUSES = (-0.25, -0.12, 0.0, 0.12, 0.25)
"""The same of the pause of a gear, with each speed of its shift ..."""
_FINE_PAUSES = (-0.06, 0.0, 0.06)
_MIN_SHIFTS = 2
"""So many shifts are needed to read their speed off the gears."""
_MAX_STEPS = 30
_DAMPINGS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_SETTLED = 0.003
"""The fit ends when a step brings less than this share."""
_SLOW = 0.03
"""Jumps are looked at again when a step brings less than this share."""


class Step(NamedTuple):
    """How far a fit has come."""

    constants: VehicleConstants
    cost: float
    uncertain: list[str]
    """Constants, or entries of tables, that kept their value for too little data."""


def fit(start: VehicleConstants, windows: Windows) -> Iterator[Step]:
    """Steps of a fit, each better than the one before; the first changes only the speeds of shifts, which are read off.

    Args:
        start: Where it begins.
        windows: What the car shall drive.
    """
    names, places = _free()
    is_smooth = np.array([not name.startswith(_JUMPS) for name in names])
    with _Drivers(start, places, windows) as drivers:
        x = _begun(drivers, names, shift_speeds(windows))
        is_read = x != 0.0
        is_known = is_read.copy()
        for _ in range(_MAX_STEPS):
            residuals = drivers.residuals([x])[0]
            slopes = drivers.slopes(x, residuals)
            is_known |= _uncertainty(slopes, residuals) < _UNCERTAIN
            scale = _scale(residuals)
            before = _cost(residuals, x, scale)
            uncertain = [name for name, known in zip(names, is_known, strict=True) if not known]
            yield Step(constants_of(drivers.car(x)), before, uncertain)
            is_moved = is_known & is_smooth
            tries = [x, *(x + is_moved * move for move in _moves(slopes * is_moved, residuals, x))]
            x, cost = drivers.best(tries, scale)
            if cost > before * (1.0 - _SLOW):
                is_tried = is_known & ~is_smooth & ~is_read
                x, cost = _jumped(drivers, x, {names[at]: int(at) for at in np.flatnonzero(is_tried)}, scale)
            if cost > before * (1.0 - _SETTLED):
                return


def shift_speeds(windows: Windows) -> dict[str, float]:
    """Speeds of the shifts that the recorded gears show, by the name of the constant [km/h].

    A car does not speed up in the pause of a shift, so the state after it has the speed of the shift.
    """
    kmh, gears = 3.6 * windows.recorded[:, :, 3], windows.gears
    found = {}
    for gear in range(1, NUM_GEARS):
        is_up = (gears[:, :-1] == gear) & (gears[:, 1:] == gear + 1)
        if is_up.sum() >= _MIN_SHIFTS:
            found[f"upshift_kmh[{gear - 1}]"] = float(np.median(kmh[:, 1:][is_up]))
    speeds = list(found.values())
    return found if speeds == sorted(speeds) else {}


def constants_of(vector: FloatArray) -> VehicleConstants:
    """The constants of a vector, as ``VehicleConstants.vector`` lays them out."""
    values: dict[str, float | tuple[float, ...]] = {}
    for name, part in layout().items():
        rounded = tuple(float(f"{value:.5g}") for value in vector[part])
        values[name] = rounded if isinstance(getattr(VehicleConstants, name), tuple) else rounded[0]
    return VehicleConstants(**values)  # type: ignore[arg-type]


def _begun(drivers: _Drivers, names: list[str], values: Mapping[str, float]) -> FloatArray:
    """The first car with some of its constants replaced; without them where no car can have these."""
    x = np.zeros(len(names))
    for name, value in values.items():
        at = names.index(name)
        x[at] = value / drivers.first[at] - 1.0
    return x if _is_possible(drivers.car(x)) else np.zeros(len(names))


class _Drivers:
    """Drives cars over the same windows, one on each core; a car is said by its changes in units of their size."""

    def __init__(self, start: VehicleConstants, places: NDArray[np.int64], windows: Windows) -> None:
        self._start, self._places = start.vector(), places
        self._sizes = _sizes(start)[places]
        self._least = _least(start)
        self._windows = windows
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1)

    def __enter__(self) -> _Drivers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def first(self) -> FloatArray:
        """The constants of the first car that are fitted."""
        return self._start[self._places]

    def car(self, x: FloatArray) -> FloatArray:
        """The vector of a car."""
        vector = self._start.copy()
        vector[self._places] += x * self._sizes
        vector[_DOWN] *= vector[_UP] / self._start[_UP]
        return np.maximum(vector, self._least)

    def residuals(self, cars: list[FloatArray]) -> list[FloatArray]:
        """Errors of each car in units of ``_UNITS``, all in one row."""
        return list(self._pool.map(self._residuals, cars))

    def slopes(self, x: FloatArray, residuals: FloatArray) -> FloatArray:
        """Change of each error with each constant, shape (errors, constants)."""
        moved = self.residuals([x + _WIDTH * unit for unit in np.eye(len(x))])
        return np.stack([(one - residuals) / _WIDTH for one in moved], axis=1)

    def best(self, cars: list[FloatArray], scale: float) -> tuple[FloatArray, float]:
        """The car that costs least, and what it costs; the first of equals."""

        def cost(x: FloatArray) -> float:
            return _cost(self._residuals(x), x, scale) if _is_possible(self.car(x)) else math.inf

        costs = list(self._pool.map(cost, cars))
        least = int(np.argmin(costs))
        return cars[least], costs[least]

    def _residuals(self, x: FloatArray) -> FloatArray:
        states = drive(self.car(x), self._windows.drives)
        off = (states - self._windows.recorded)[:, _SAMPLES_APART::_SAMPLES_APART, [3, 4, 2, 0, 1]]
        # A car that is lost altogether says nothing more than one that is far off.
        return np.clip(np.nan_to_num(off / _UNITS, nan=1e3), -1e3, 1e3).ravel()


def _jumped(drivers: _Drivers, x: FloatArray, jumps: Mapping[str, int], scale: float) -> tuple[FloatArray, float]:
    """A car that is at least as good, and its cost: constants of which errors jump are tried one by one.

    Args:
        drivers: What drives.
        x: The car.
        jumps: Where in it these constants are, by name.
        scale: Of the cost.
    """
    pairs = {name: jumps.get(name.replace("upshift_kmh", "shift_pause_s")) for name in jumps if "upshift" in name}
    for name, at in jumps.items():
        if at not in pairs.values():
            other = pairs.get(name)
            x, _ = drivers.best([x, *_changed(x, at, _WIDE - x[at], other, _PAUSES)], scale)
            x, _ = drivers.best([x, *_changed(x, at, _FINE, other, _FINE_PAUSES)], scale)
    return drivers.best([x], scale)


def _changed(
    x: FloatArray, at: int, changes: Sequence[float] | FloatArray, other: int | None, others: Sequence[float]
) -> Iterator[FloatArray]:
    """A value changed by each of ``changes``, together with another one, if there is one, by each of ``others``."""
    for change, with_it in itertools.product(changes, others if other is not None else (0.0,)):
        moved = x.copy()
        moved[at] += change
        if other is not None:
            moved[other] += with_it
        yield moved


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


def _least(start: VehicleConstants) -> FloatArray:
    """The least value of each of the vector: a step must not make a constant negative that no car has negative."""
    least = 0.01 * start.vector()
    for name in ANY_SIGN:
        least[layout()[name]] = -math.inf
    return least


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
