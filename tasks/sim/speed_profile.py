"""How fast a car can follow a line: limited by its steering in corners, by its brake before them, by its engine behind.

The scripted driver aims at this speed on its racing line; rolling starts draw theirs around that of the middle.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tasks.sim.vehicle import VehicleConstants, acceleration_at, turn_rate_at

FloatArray = NDArray[np.float64]

_TOP_SPEED_MPS = 600.0 / 3.6


def speed_profile(
    line: FloatArray, constants: VehicleConstants, steer_fraction: float = 1.0, brake_fraction: float = 0.8
) -> FloatArray:
    """Highest speed at each point of a line that steering, brake and engine allow [m/s], shape (M,).

    Args:
        line: (x, z) [m], about every 2 m, shape (M, 2). The car starts from rest at the first point.
        constants: The car.
        steer_fraction: Fraction of the full steer that is used in corners.
        brake_fraction: Fraction of the brake that is counted on.
    """
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    curvature = np.convolve(np.pad(_curvature(line), 2, mode="edge"), np.full(5, 0.2), mode="valid")
    speed = _corner_speed(np.abs(curvature) / steer_fraction, constants)
    for i in range(len(speed) - 2, -1, -1):
        brake = brake_fraction * max(constants.brake_slow, constants.brake_per_speed * speed[i + 1])
        speed[i] = min(speed[i], math.sqrt(speed[i + 1] ** 2 + 2 * brake * steps[i]))
    speed[0] = min(speed[0], max(5.0, math.sqrt(2 * constants.acceleration[0] * steps[0])))
    for i in range(1, len(speed)):
        gain = 2 * acceleration_at(constants, float(speed[i - 1])) * steps[i - 1]
        # A little faster than possible, so that the driver keeps full gas where the engine is the limit.
        speed[i] = min(speed[i], math.sqrt(speed[i - 1] ** 2 + gain) + 0.5)
    return speed


def _corner_speed(curvature: FloatArray, constants: VehicleConstants) -> FloatArray:
    """Speed at which full steer follows each curvature [m/s]: the faster the car, the wider its tightest turn."""
    speeds = np.linspace(1.0, _TOP_SPEED_MPS, 400)
    radii = np.maximum.accumulate([speed / turn_rate_at(constants, speed) for speed in speeds])
    return np.interp(1.0 / np.maximum(curvature, 1e-4), radii, speeds)


def _curvature(line: FloatArray) -> FloatArray:
    first = np.gradient(line, axis=0)
    second = np.gradient(first, axis=0)
    return (first[:, 1] * second[:, 0] - first[:, 0] * second[:, 1]) / np.linalg.norm(first, axis=1) ** 3
