"""The path along which progress is rewarded: points 0.1 m apart, from a track or from a recorded file.

Reads .npy files and TMRL's ``reward.pkl`` (through an unpickler that knows nothing but numpy arrays).
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np

from tasks.config import TaskConfig

POINT_SPACING_M = 0.1
"""Distance between neighbouring points [m]: one point is 0.01 of reward."""
_MAX_GAP_M = 50.0
"""A longer gap between neighbouring points of a file is a recording error, not a straight [m]."""
_PICKLE_NAMES = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


def load_reference_path(path: str | Path) -> np.ndarray:
    """Reads a reference path.

    Args:
        path: .npy of points x,y,z [m] at any spacing, or TMRL's reward.pkl.

    Returns:
        Points [m] every 0.1 m, float64, shape (N, 3).
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"reference path {file} does not exist; record one or set task.reward.path to null")
    if file.suffix == ".npy":
        points = _read_npy(file)
    elif file.suffix in (".pkl", ".pickle"):
        points = _read_pickle(file)
    else:
        raise ValueError(f"reference path {file} must be a .npy or .pkl file, got {file.suffix or 'no suffix'!r}")
    return resample(_checked(points, str(file)))


def path_of_task(config: TaskConfig) -> np.ndarray:
    """The reference path along which a live game is driven: ``task.reward.path``, else ``task.track``.

    A recorded .npy is taken as it is: what only a simulator could not drive, such as curves under 5 m, is fine.

    Args:
        config: The task; its track is a file or the name of a shipped track.

    Returns:
        Points [m] every 0.1 m, float64, shape (N, 3).
    """
    if config.reward.path is not None:
        return load_reference_path(config.reward.path)
    if Path(config.track).suffix.lower() in (".npy", ".pkl", ".pickle"):
        return load_reference_path(config.track)
    from tasks.sim.track import load_track

    return resample(load_track(config.track, config.track_width_m).centre_line)


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


class _ArrayUnpickler(pickle.Unpickler):
    """Loads numpy arrays and refuses everything else, so that a file cannot run code."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _PICKLE_NAMES:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, only numpy arrays are allowed")
        return super().find_class(module, name)


def _read_npy(file: Path) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"reference path {file} is not a readable .npy file: {error}") from error


def _read_pickle(file: Path) -> np.ndarray:
    try:
        loaded = _ArrayUnpickler(io.BytesIO(file.read_bytes())).load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise ValueError(f"reference path {file} is not a readable reward.pkl: {error}") from error
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"reference path {file} must hold a numpy array, got {type(loaded).__name__}")
    return loaded


def _checked(points: np.ndarray, where: str) -> np.ndarray:
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < 2 or points.dtype.kind not in "fiu":
        raise ValueError(
            f"reference path {where} must be numbers of shape (N >= 2, 3), got {points.dtype} {points.shape}"
        )
    points = points.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise ValueError(f"reference path {where} has a value that is not finite at point {bad[0]}")
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    if steps.max() > _MAX_GAP_M:
        worst = int(steps.argmax())
        raise ValueError(f"reference path {where} jumps by {steps[worst]:.1f} m after point {worst}; record it again")
    if steps.sum() < POINT_SPACING_M:
        raise ValueError(f"reference path {where} must be at least {POINT_SPACING_M} m long, got {steps.sum():.3f} m")
    return points
