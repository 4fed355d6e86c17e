"""Centre lines for tests, as (x, z) points about every half metre [m]."""

from __future__ import annotations

import math

import numpy as np


def hairpin(gap: float, leg: float) -> np.ndarray:
    """Up along z, half a round to the right, and down again ``gap`` beside it."""
    z = np.arange(0.0, leg, 0.5)
    angle = np.arange(0.0, math.pi, 1.0 / gap)
    up = np.stack([np.zeros_like(z), z], axis=1)
    turn = np.stack([gap / 2 * (1 - np.cos(angle)), leg + gap / 2 * np.sin(angle)], axis=1)
    down = np.stack([np.full_like(z, gap), leg - z], axis=1)
    return np.vstack([up, turn, down])


def spiral(gap: float, turns: float, radius: float = 80.0) -> np.ndarray:
    """Rounds that lie ``gap`` apart, inwards from ``radius``."""
    angle = np.arange(0.0, 2 * math.pi * turns, 0.5 / radius)
    r = radius - gap * angle / (2 * math.pi)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)


def loop(length: float, open_m: float = 5.0) -> np.ndarray:
    """A circle that ends ``open_m`` before its start."""
    radius = length / (2 * math.pi)
    angle = np.arange(0.0, (length - open_m) / radius, 0.5 / radius)
    return np.stack([radius - radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def diagonal(length: float) -> np.ndarray:
    """Straight, at 45 degrees: the largest area for its length."""
    along = np.arange(0.0, length, 0.5) / math.sqrt(2)
    return np.stack([along, along], axis=1)


def into_side(gap: float) -> np.ndarray:
    """Three sides of a square and a fourth that ends ``gap`` before the first one's middle, square to it."""
    side, radius = 200.0, 20.0
    angle = np.arange(0.0, math.pi / 2, 0.5 / radius)
    corner = np.stack([radius * (1 - np.cos(angle)), radius * np.sin(angle)], axis=1)
    points = [np.stack([np.zeros(400), np.arange(400) * 0.5], axis=1)]
    position, heading = np.array([0.0, side]), 0.0
    for length in (100.0, 60.0, 120.0 - gap):
        points.append(position + _turned(corner, heading))
        position, heading = position + _turned(np.array([[radius, radius]]), heading)[0], heading + math.pi / 2
        ahead = np.array([math.sin(heading), math.cos(heading)])
        points.append(position + np.arange(0.0, length, 0.5)[:, None] * ahead)
        position = position + length * ahead
    return np.vstack(points)


def _turned(points: np.ndarray, heading: float) -> np.ndarray:
    """Turned clockwise, as headings grow."""
    right, ahead = points[:, 0], points[:, 1]
    x = right * math.cos(heading) + ahead * math.sin(heading)
    return np.stack([x, ahead * math.cos(heading) - right * math.sin(heading)], axis=1)
