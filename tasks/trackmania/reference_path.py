"""The path along which progress is rewarded: points 0.1 m apart, from a track or from a recorded file.

``tasks.points.files`` reads the files; this module checks and resamples them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.config import GameKind, TaskConfig
from tasks.points.files import POINT_SPACING_M, is_point_file, read_points

_MAX_GAP_M = 50.0
"""A longer gap between neighbouring points of a file is a recording error, not a straight [m]."""

_MIRROR_X = np.array([-1.0, 1.0, 1.0])


def load_reference_path(path: str | Path, *, is_in_game: bool = False) -> np.ndarray:
    """Reads a reference path.

    Args:
        path: A file of points x,y,z [m] at any spacing (``tasks.points.files``), such as TMRL's reward.pkl.
        is_in_game: Whether the game is driven, whose frame a file is in that does not tell it.

    Returns:
        Points [m] every 0.1 m with x to the right of z, float64, shape (N, 3).
    """
    file = read_points(path)
    if not file.has_heights:
        raise ValueError(
            f"reference path {path} must have rows of x,y,z, got no heights: add the column y, or record a path with "
            "train.py --record"
        )
    points = _checked(file.points, str(path))
    return resample(points * _MIRROR_X if file.is_x_left(is_in_game) else points)


def path_of_task(config: TaskConfig) -> np.ndarray:
    """The reference path along which a live game is driven: ``task.reward.path``, else ``task.track``.

    Any line is accepted, also one that only the simulator cannot drive, such as curves under 5 m and hills.

    Args:
        config: The task; its track is a file or the name of a shipped track.

    Returns:
        Points [m] every 0.1 m with x to the right of z, float64, shape (N, 3).
    """
    if config.reward.path is not None:
        return load_reference_path(config.reward.path, is_in_game=True)
    if is_point_file(config.track):
        return load_reference_path(config.track, is_in_game=True)
    from tasks.sim.random_tracks import any_track

    return resample(any_track(config.track).centre_line)


def path_on_track(centre_line: np.ndarray, config: TaskConfig) -> np.ndarray:
    """The reference path of a simulated task [m], shape (N, 3): ``task.reward.path``, else the middle of the track."""
    return centre_line if config.reward.path is None else load_reference_path(config.reward.path)


def road_of_task(config: TaskConfig) -> tuple[np.ndarray, float]:
    """The road that ``task.track`` names: its middle [m] every 0.1 m, shape (N, 3), and its width [m]."""
    if config.game is GameKind.live and is_point_file(config.track):
        return load_reference_path(config.track, is_in_game=True), config.track_width_m
    from tasks.sim.random_tracks import tracks_of_episodes

    track = tracks_of_episodes(config).first
    return track.centre_line, track.width_m


def resample(points: np.ndarray) -> np.ndarray:
    """Points every 0.1 m along the polyline; the last one is its end. A path already spaced so is kept as it is.

    Args:
        points: Polyline [m], shape (N, 3).
    """
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    is_spaced = abs(float(np.median(steps)) - POINT_SPACING_M) < 1e-3 and float(steps.max()) < 1.5 * POINT_SPACING_M
    if is_spaced:
        return np.ascontiguousarray(points, np.float64)
    keep = np.concatenate([[True], steps > 0.0])
    corners, along = points[keep], np.concatenate([[0.0], np.cumsum(steps[steps > 0.0])])
    count = int(np.ceil(along[-1] / POINT_SPACING_M - 1e-9))
    wanted = np.minimum(np.arange(count + 1) * POINT_SPACING_M, along[-1])
    return np.stack([np.interp(wanted, along, corners[:, axis]) for axis in range(3)], axis=1)


def path_length_m(path: np.ndarray) -> float:
    """Length of a path whose points are 0.1 m apart [m]."""
    return (len(path) - 1) * POINT_SPACING_M


def _checked(points: np.ndarray, where: str) -> np.ndarray:
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    if steps.max() > _MAX_GAP_M:
        worst = int(steps.argmax())
        raise ValueError(f"reference path {where} jumps by {steps[worst]:.1f} m after point {worst}; record it again")
    if steps.sum() < POINT_SPACING_M:
        raise ValueError(f"reference path {where} must be at least {POINT_SPACING_M} m long, got {steps.sum():.3f} m")
    return points
