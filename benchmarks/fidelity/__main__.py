"""How far the simulator's car is from the game's: ``python -m benchmarks.fidelity FOLDER``.

FOLDER holds recordings (.npz of ``tasks.recordings``) or the game's own ghosts and replays. On every usable stretch the
car starts in the recorded state and gets only the recorded 10 ms inputs; the difference to the recording after one and
after three seconds is the error. Prints tables by manoeuvre and speed and writes a picture.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from tasks.fidelity.errors import Errors, Windows, cut_windows, errors
from tasks.fidelity.files import read_sources
from tasks.fidelity.report import picture, table_text
from tasks.process.atomic_file import write_file
from tasks.recordings.stretches import Manoeuvre
from tasks.sim.open_loop import drive
from tasks.sim.vehicle import FloatArray, VehicleConstants

DURATIONS_S = (1.0, 3.0)
BARS = {
    "1 s, median": (0.5, 0.15, 0.15),
    "1 s, 90 %": (1.5, 0.5, 0.5),
    "1 s, drift, median": (3.0, 0.3, 1.0),
    "3 s, median": (1.0, 0.4, 0.8),
}
"""What the errors are to stay below: km/h, degrees, m."""


def main() -> int:
    """Prints the tables and the bars, writes the picture; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", help="folders or files of recordings, ghosts or replays")
    parser.add_argument("--picture", metavar="FILE", default="runs/fidelity.png", help="default: %(default)s")
    line = parser.parse_args()
    car = VehicleConstants()
    try:
        windows = _windows(line.folder)
    except ValueError as error:
        sys.stderr.write(f"benchmarks.fidelity: {error}\n")
        return 2
    cars = {"ours": car.vector()}
    for duration, cut in windows.items():
        sys.stdout.write(table_text(f"{duration:g} s", cut, cars) + "\n\n")
    sys.stdout.write(_bars(car, windows) + "\n")
    write_file(Path(line.picture), picture(windows[max(windows)], windows[DURATIONS_S[0]], cars))
    sys.stdout.write(f"picture: {line.picture}\n")
    return 0


def _windows(paths: list[str]) -> dict[float, Windows]:
    """By duration, where there are any."""
    recordings = [recording for source in read_sources(paths) for recording in source.recordings]
    cut = {duration: cut_windows(recordings, duration) for duration in DURATIONS_S}
    found = {duration: windows for duration, windows in cut.items() if windows.stretches}
    if DURATIONS_S[0] not in found:
        raise ValueError(
            f"{' '.join(paths)}: no usable second in {len(recordings)} drives: needs flat asphalt and 10 ms inputs"
        )
    return found


def _bars(car: VehicleConstants, windows: dict[float, Windows]) -> str:
    found = {duration: errors(drive(car.vector(), cut.drives), cut) for duration, cut in windows.items()}
    short = windows[DURATIONS_S[0]]
    is_drift = np.array([stretch.manoeuvre is Manoeuvre.drift for stretch in short.stretches])
    reached = {"1 s, median": _sizes(found[1.0], 50), "1 s, 90 %": _sizes(found[1.0], 90)}
    if is_drift.any():
        reached["1 s, drift, median"] = _sizes(Errors(*(values[is_drift] for values in found[1.0])), 50)
    if DURATIONS_S[1] in found:
        reached["3 s, median"] = _sizes(found[DURATIONS_S[1]], 50)
    lines = []
    for name, values in reached.items():
        verdict = "reached" if (values <= BARS[name]).all() else "MISSED"
        got, bar = (" / ".join(f"{value:.2f}" for value in row) for row in (values, BARS[name]))
        lines.append(f"{name}: {got} (bar {bar}): {verdict}")
    return "\n".join(lines)


def _sizes(found: Errors, share: int) -> FloatArray:
    """A percentile of the size of each error, shape (3,)."""
    return np.percentile(np.abs(np.stack(found)), share, axis=1)


if __name__ == "__main__":
    sys.exit(main())
