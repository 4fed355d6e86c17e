"""One drive of the game's car: its states every 50 ms and the inputs of every 10 ms tick, from and to an .npz file.

The frame is the game's: y up, z forward at yaw 0, x to the left of it; yaw grows to the right as seen from above.
``tasks.sim.vehicle`` has its x to the right.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.process import atomic_file

TICK_S = 0.01
"""Duration of an input tick [s]."""
SAMPLE_S = 0.05
"""Time between two states [s]."""
SAMPLE_TICKS = 5
"""Ticks between two states."""
COLUMNS = (
    "t_ms", "x", "y", "z", "yaw", "u", "w", "speed", "steer", "gas", "brake", "gear", "rpm",
    "mat0", "mat1", "mat2", "mat3", "turbo",
)  # fmt: skip
"""Columns of the states: time [ms], position [m], heading [rad], speed along and across the heading and in all [m/s],
inputs of the tick that follows, gear, rpm byte, the material under each wheel, turbo (0 or 1)."""
UNKNOWN_MATERIAL = -1.0
"""Material of a recording that does not tell it, such as one of the plugin's telemetry."""
INPUT_COLUMNS = ("steer", "gas", "brake")
MAX_BYTES = 64 * 2**20
"""Largest file, and largest array in it, that is read."""


@dataclass(frozen=True)
class Recording:
    """The drive of one car.

    Attributes:
        states: float32, shape (samples, 18), one row per 50 ms, see ``COLUMNS``.
        inputs: float32, shape (ticks, 3), steer in -1..1 (right is positive), gas and brake 0 or 1; row 5 i acts on the
            car from state i on.
        has_inputs: False: the file holds no inputs; they were held from the states, and braking alone is not in them.
    """

    states: NDArray[np.float32]
    inputs: NDArray[np.float32]
    has_inputs: bool

    def column(self, name: str) -> NDArray[np.float32]:
        """One column of the states, shape (samples,)."""
        return self.states[:, COLUMNS.index(name)]


def load_npz(path: Path) -> Recording:
    """The recording of an .npz file as ``save_npz`` writes it; nothing in the file is run.

    Raises:
        ValueError: The file is none, is damaged or holds something else; the text names it.
    """
    try:
        arrays = _arrays(path)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path}: must be a recording (.npz with rows, columns and inputs_10ms): {error}") from error
    rows, inputs, columns = arrays["rows"], arrays["inputs_10ms"], arrays["columns"]
    if tuple(columns.tolist()) != COLUMNS:
        raise ValueError(f"{path}: columns must be {', '.join(COLUMNS)}, got {', '.join(map(str, columns.tolist()))}")
    if rows.ndim != 2 or rows.shape[1] != len(COLUMNS) or not np.isfinite(rows).all():
        raise ValueError(f"{path}: rows must be finite numbers of shape (samples, {len(COLUMNS)}), got {rows.shape}")
    if inputs.ndim != 2 or inputs.shape[1] != len(INPUT_COLUMNS) or not np.isfinite(inputs).all():
        raise ValueError(f"{path}: inputs_10ms must be finite numbers of shape (ticks, 3), got {inputs.shape}")
    has_inputs = bool(arrays["has_inputs"].all())
    return Recording(rows.astype(np.float32), inputs.astype(np.float32), has_inputs)


def save_npz(path: Path, recording: Recording) -> None:
    """Writes a recording, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        rows=recording.states,
        columns=np.array(COLUMNS),
        inputs_10ms=recording.inputs,
        inputs_columns=np.array(INPUT_COLUMNS),
        has_inputs=np.array(recording.has_inputs),
    )
    atomic_file.write_file(path, buffer.getvalue())


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file whose sizes were checked before anything is unpacked."""
    names = ("rows", "columns", "inputs_10ms", "has_inputs")
    with zipfile.ZipFile(path) as archive:
        for name in names:
            size = archive.getinfo(f"{name}.npy").file_size
            if size > MAX_BYTES:
                raise ValueError(f"{name} must have at most {MAX_BYTES} bytes, got {size}")
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in names}
