"""The open-loop error of the simulator's car: it starts in a recorded state, gets recorded inputs, and is compared.

``python -m benchmarks.fidelity`` and ``train.py --calibrate`` print it. Recordings have x to the left, the simulator
to the right; everything here is in the simulator's frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.recordings.recording import SAMPLE_S, SAMPLE_TICKS, Recording
from tasks.recordings.stretches import BAND_KMH, Manoeuvre, Stretch, stretches
from tasks.sim.open_loop import STATE_SIZE, Drives
from tasks.sim.vehicle import NUM_GEARS, FloatArray

LEAD_SAMPLES = 20
"""Samples before the start over which the car finds what recordings do not hold."""


class Windows(NamedTuple):
    """Stretches of recordings, of one duration."""

    stretches: list[Stretch]
    sources: NDArray[np.int64]
    """Which recording each is from, shape (N,)."""
    drives: Drives
    """What the simulator's car is to drive."""
    recorded: FloatArray
    """States as recorded, the start first, shape (N, samples + 1, 5)."""
    gears: FloatArray
    """Gear of each of them, shape (N, samples + 1)."""


class Errors(NamedTuple):
    """Simulated less recorded at the end of each window."""

    speed_kmh: FloatArray
    """Shape (N,)."""
    heading_deg: FloatArray
    """Positive: the simulated car has turned more to the right; shape (N,)."""
    position_m: FloatArray
    """Distance, shape (N,)."""


class Row(NamedTuple):
    """Sizes of the errors of a group of windows: speed [km/h], heading [degrees], position [m]."""

    group: str
    windows: int
    recordings: int
    median: FloatArray
    most: FloatArray
    """What 90 % of the windows stay below."""


def cut_windows(recordings: Sequence[Recording], seconds: float) -> Windows:
    """All usable stretches of this duration, ready to be driven.

    Args:
        recordings: Drives.
        seconds: Duration of each window [s].
    """
    samples = round(seconds / SAMPLE_S)
    found = [(source, s) for source, recording in enumerate(recordings) for s in stretches(recording, seconds)]
    count = len(found)
    known = np.zeros((count, LEAD_SAMPLES + 1, STATE_SIZE))
    inputs = np.zeros((count, (LEAD_SAMPLES + samples) * SAMPLE_TICKS, 3))
    leads, gears = np.zeros(count, np.int64), np.ones(count, np.int64)
    recorded, shown = np.zeros((count, samples + 1, STATE_SIZE)), np.zeros((count, samples + 1))
    for n, (source, stretch) in enumerate(found):
        recording, first = recordings[source], stretch.first
        lead = _lead(recording, first)
        states = _states(recording, first - lead, first + samples + 1)
        known[n, LEAD_SAMPLES - lead :], recorded[n] = states[: lead + 1], states[lead:]
        ticks = slice((first - lead) * SAMPLE_TICKS, (first + samples) * SAMPLE_TICKS)
        inputs[n, (LEAD_SAMPLES - lead) * SAMPLE_TICKS :] = recording.inputs[ticks]
        leads[n] = lead
        shown[n] = recording.column("gear")[first : first + samples + 1]
        gears[n] = np.clip(recording.column("gear")[first - lead], 1, NUM_GEARS)
    sources = np.array([source for source, _ in found], np.int64)
    return Windows([stretch for _, stretch in found], sources, Drives(known, leads, gears, inputs), recorded, shown)


def chosen(windows: Windows, which: NDArray[np.bool_]) -> Windows:
    """A selection of the windows."""
    kept = [stretch for stretch, is_kept in zip(windows.stretches, which, strict=True) if is_kept]
    known, leads, gears, inputs = windows.drives
    drives = Drives(known[which], leads[which], gears[which], inputs[which])
    return Windows(kept, windows.sources[which], drives, windows.recorded[which], windows.gears[which])


def errors(simulated: FloatArray, windows: Windows) -> Errors:
    """Errors at the end of each window.

    Args:
        simulated: What ``tasks.sim.open_loop.drive`` made of the windows' drives.
        windows: N windows.
    """
    ours, real = simulated[:, -1], windows.recorded[:, -1]
    speed = np.hypot(ours[:, 3], ours[:, 4]) - np.hypot(real[:, 3], real[:, 4])
    position = np.hypot(ours[:, 0] - real[:, 0], ours[:, 1] - real[:, 1])
    return Errors(3.6 * speed, np.degrees(ours[:, 2] - real[:, 2]), position)


def rows(windows: Windows, found: Errors) -> list[Row]:
    """One for all windows, then by manoeuvre and by band of speed; groups without a window are left out."""
    made = []
    for name, is_in in _groups(windows):
        if is_in.any():
            sizes = np.abs(np.stack(found))[:, is_in]
            median, most = np.percentile(sizes, (50, 90), axis=1)
            made.append(Row(name, int(is_in.sum()), len(set(windows.sources[is_in])), median, most))
    return made


def _groups(windows: Windows) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    manoeuvres = np.array([stretch.manoeuvre.value for stretch in windows.stretches])
    bands = np.array([stretch.band_kmh for stretch in windows.stretches], np.int64)
    yield "all", np.ones(len(bands), np.bool_)
    for manoeuvre in reversed(Manoeuvre):
        yield manoeuvre.value, manoeuvres == manoeuvre.value
    for band in sorted(set(bands.tolist())):
        yield f"{band}-{band + BAND_KMH} km/h", bands == band


def _states(recording: Recording, first: int, end: int) -> FloatArray:
    """Recorded states in the simulator's frame, shape (end - first, 5)."""
    columns = [recording.column(name)[first:end] for name in ("x", "z", "yaw", "u", "w")]
    states = np.stack(columns, axis=1).astype(np.float64)
    states[:, 0] *= -1.0
    return states


def _lead(recording: Recording, first: int) -> int:
    """How many samples before a state belong to the same drive, at most ``LEAD_SAMPLES``."""
    steps = np.diff(recording.column("t_ms")[max(0, first - LEAD_SAMPLES) : first + 1])
    broken = np.flatnonzero(np.abs(steps - 1000 * SAMPLE_S) > 1.0)
    return len(steps) - (int(broken[-1]) + 1 if len(broken) else 0)
