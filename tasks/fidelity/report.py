"""Reports of errors: a table as text, and a picture of real and simulated drives with histograms of the errors."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.fidelity.errors import Windows, errors, rows
from tasks.recordings.recording import SAMPLE_S
from tasks.sim.open_loop import drive
from tasks.sim.vehicle import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNITS = ("speed [km/h]", "heading [deg]", "position [m]")

_NUM_PATHS = 4
_COLOURS = ("#c0281e", "#1a5fb4", "#1a8f3c")


def table_text(title: str, windows: Windows, cars: Mapping[str, FloatArray]) -> str:
    """Median (and 90 %) of each error by manoeuvre and band of speed, as a Markdown table.

    Args:
        title: Of the first column.
        windows: Where the cars are compared.
        cars: ``VehicleConstants.vector()`` by name, one column each.
    """
    columns = {name: rows(windows, errors(drive(car, windows.drives), windows)) for name, car in cars.items()}
    names = " | ".join(f"{name}: km/h / deg / m, median (90 %)" for name in cars)
    lines = [f"| {title} | windows / drives | {names} |", "|---|---|" + "---|" * len(cars)]
    for same in zip(*columns.values(), strict=True):
        cells = [
            " / ".join(f"{middle:.2f} ({most:.2f})" for middle, most in zip(row.median, row.most, strict=True))
            for row in same
        ]
        lines.append(f"| {same[0].group} | {same[0].windows} / {same[0].recordings} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(paths: Windows, ends: Windows, cars: Mapping[str, FloatArray]) -> bytes:
    """A PNG: some stretches from above, and how often each error occurs.

    Args:
        paths: Windows of which some are drawn.
        ends: Windows whose errors are counted.
        cars: ``VehicleConstants.vector()`` by name.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 12)
    driven = {name: drive(car, paths.drives) for name, car in cars.items()}
    for column, n in enumerate(_examples(paths)):
        axes = figure.add_subplot(grid[0, 3 * column : 3 * column + 3])
        _draw_paths(axes, paths, {name: states[n] for name, states in driven.items()}, n)
    found = {name: errors(drive(car, ends.drives), ends) for name, car in cars.items()}
    for column, unit in enumerate(UNITS):
        axes = figure.add_subplot(grid[1, 4 * column : 4 * column + 4])
        _draw_counts(axes, unit, {name: error[column] for name, error in found.items()})
    packed = io.BytesIO()
    figure.savefig(packed, format="png")
    return packed.getvalue()


def _examples(windows: Windows) -> list[int]:
    """Windows of different manoeuvres: of each the one that covers most ground."""
    longest: dict[str, int] = {}
    moved = np.abs(np.diff(windows.recorded[:, :, :2], axis=1)).sum(axis=(1, 2))
    turned = np.abs(windows.recorded[:, -1, 2] - windows.recorded[:, 0, 2])
    for n in np.argsort(-moved * (0.1 + turned)):
        longest.setdefault(windows.stretches[n].manoeuvre.value, int(n))
    return list(longest.values())[:_NUM_PATHS]


def _draw_paths(axes: Axes, windows: Windows, driven: Mapping[str, FloatArray], n: int) -> None:
    real = windows.recorded[n]
    axes.plot(*_from_start(real, real), color="#202020", linewidth=3.5, label="real")
    for colour, (name, states) in zip(_COLOURS, driven.items(), strict=False):
        axes.plot(*_from_start(states, real), color=colour, linewidth=1.4, marker=".", markersize=3, label=name)
    seconds = (len(real) - 1) * SAMPLE_S
    axes.set_title(f"{windows.stretches[n].manoeuvre.value}, {3.6 * real[0, 3]:.0f} km/h, {seconds:g} s", fontsize=9)
    axes.set_aspect("equal", adjustable="datalim")
    axes.tick_params(labelsize=7)
    axes.set_xlabel("m", fontsize=7)
    axes.legend(fontsize=7)


def _from_start(states: FloatArray, real: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ahead of the start and to the right of it [m]; a path begins to the right of the picture."""
    x, z = states[:, 0] - real[0, 0], states[:, 1] - real[0, 1]
    sin, cos = np.sin(real[0, 2]), np.cos(real[0, 2])
    return x * sin + z * cos, -(x * cos - z * sin)


def _draw_counts(axes: Axes, unit: str, found: Mapping[str, FloatArray]) -> None:
    sizes: Sequence[FloatArray] = [np.abs(values) for values in found.values()]
    top = max(1e-6, *(float(np.percentile(size, 95)) for size in sizes))
    for colour, name, size in zip(_COLOURS, found, sizes, strict=False):
        label = f"{name}: {np.median(size):.2f} ({np.percentile(size, 90):.2f})"
        axes.hist(np.minimum(size, top), bins=30, range=(0.0, top), histtype="stepfilled", color=colour, alpha=0.5)
        axes.plot([], [], color=colour, linewidth=5, alpha=0.5, label=label)
    axes.set_xlabel(f"error of {unit}; the last bar holds all above", fontsize=8)
    axes.set_ylabel("windows", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=8, title="median (90 %)", title_fontsize=8)
