"""--calibrate: fits the simulator's car to recordings, ghosts or replays, and says how much nearer it came.

Called by ``tasks.roles.dispatch``. A part of what is given is held out, and the errors are those on it. Answers with
``runs/calibrated/<date>/vehicle.yaml`` for ``task.vehicle=`` and a picture.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from tasks.fidelity.errors import Windows, chosen, cut_windows, errors
from tasks.fidelity.files import Source, read_sources
from tasks.fidelity.fit import Step, fit
from tasks.fidelity.report import picture, table_text
from tasks.process.atomic_file import write_file
from tasks.sim.open_loop import drive
from tasks.sim.vehicle import VehicleConstants
from tasks.sim.vehicle_files import differences

WINDOW_S = 1.0
"""Duration of the windows that are fitted and compared [s]."""
MIN_WINDOWS = 20
"""Fewer usable seconds are refused."""

_HELD_OUT = 3
"""One file in this many is held out, and of a few files the last of as many parts of each."""


def run(paths: Sequence[str], runs: Path) -> str:
    """Fits until no step helps, or until it is interrupted; returns the answer for people.

    Args:
        paths: Files and folders.
        runs: Folder of all runs.

    Raises:
        ValueError: A file cannot be read, or there is too little to fit; the text names it.
        OSError: The answer cannot be written.
    """
    sources = read_sources(paths)
    windows = cut_windows([recording for source in sources for recording in source.recordings], WINDOW_S)
    if len(windows.stretches) < MIN_WINDOWS:
        raise ValueError(
            f"{' '.join(paths)}: needs {MIN_WINDOWS} usable seconds (flat asphalt, 10 ms inputs), has "
            f"{len(windows.stretches)} in {len(sources)} files"
        )
    held_out, how = _held_out(sources, windows)
    fitted, rest = chosen(windows, ~held_out), chosen(windows, held_out)
    sys.stdout.write(f"{len(fitted.stretches)} windows of 1 s to fit, {len(rest.stretches)} to compare: {how}\n")
    start = VehicleConstants()
    folder = runs / "calibrated" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    step, was_interrupted = _fit(start, fitted, rest, folder / "vehicle.yaml")
    cars = {"before": start.vector(), "after": step.constants.vector()}
    write_file(folder / "fidelity.png", picture(rest, rest, cars))
    return "\n".join(
        [
            "",
            table_text("held out, 1 s", rest, cars),
            "",
            "interrupted: the best car so far" if was_interrupted else "no further step helps",
            _kept(step),
            f"{folder / 'vehicle.yaml'}: task.vehicle={folder / 'vehicle.yaml'} drives it",
            f"{folder / 'fidelity.png'}: real and simulated drives, and how often each error occurs",
        ]
    )


def vehicle_yaml(constants: VehicleConstants) -> str:
    """What differs from the game's car, as ``task.vehicle`` reads it."""
    return yaml.safe_dump(differences(constants), sort_keys=False, width=120)


def _fit(start: VehicleConstants, fitted: Windows, rest: Windows, file: Path) -> tuple[Step, bool]:
    """The best step, which is written whenever there is a better one, and whether the user ended it."""
    step = Step(start, 0.0, [])
    began = time.perf_counter()
    try:
        for number, step in enumerate(fit(start, fitted)):
            write_file(file, vehicle_yaml(step.constants).encode())
            sys.stdout.write(f"step {number}, {time.perf_counter() - began:.0f} s: {_sizes(step, rest)}\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        write_file(file, vehicle_yaml(step.constants).encode())
        return step, True
    return step, False


def _sizes(step: Step, rest: Windows) -> str:
    found = np.abs(np.stack(errors(drive(step.constants.vector(), rest.drives), rest)))
    middle, most = np.percentile(found, (50, 90), axis=1)
    sizes = [f"{a:.2f} ({b:.2f}) {unit}" for a, b, unit in zip(middle, most, ("km/h", "deg", "m"), strict=True)]
    return f"held out {', '.join(sizes)}, median (90 %)"


def _kept(step: Step) -> str:
    if not step.uncertain:
        return "all constants were fitted"
    return "too little data, these keep their value: " + ", ".join(step.uncertain)


def _held_out(sources: Sequence[Source], windows: Windows) -> tuple[NDArray[np.bool_], str]:
    """Which windows are compared and not fitted, and how they were chosen."""
    file_of = np.repeat(np.arange(len(sources)), [len(source.recordings) for source in sources])
    files = file_of[windows.sources]
    used = np.unique(files)
    if len(used) >= _HELD_OUT:
        names = [sources[file].name for file in used[_HELD_OUT - 1 :: _HELD_OUT]]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return np.isin(files, used[_HELD_OUT - 1 :: _HELD_OUT]), f"held out {shown}"
    held_out = np.zeros(len(files), np.bool_)
    for file in used:
        places = np.flatnonzero(files == file)
        held_out[places[len(places) - len(places) // _HELD_OUT :]] = True
    return held_out, "held out the last third of each file"
