"""One picture of two laps: their lines, speed and inputs over the road, and where time is gained and lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.laps.files import ComparedLaps
from tasks.laps.lap import Lap, sectors, time_lost
from tasks.pictures import MPS_TO_KMH, draw_road, rasterize, write_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRIVEN, REFERENCE = "#0b6bcb", "#e07b00"
LOST, GAINED = "#c0392b", "#1e8449"
_SIZE_PX, _DPI = (1600, 1000), 100


def draw_comparison(laps: ComparedLaps, title: str, path: Path | None = None) -> np.ndarray:
    """Draws the driven lap against the first of the others.

    Args:
        laps: The laps, with at least one to compare with.
        title: Text above the picture.
        path: PNG file to write; None: none.

    Returns:
        The picture, uint8 RGB, shape (h, w, 3).
    """
    from matplotlib.figure import Figure

    reference = laps.others[0]
    figure = Figure(figsize=(_SIZE_PX[0] / _DPI, _SIZE_PX[1] / _DPI), dpi=_DPI, layout="constrained")
    figure.suptitle(title.replace("$", r"\$"), fontsize=13, wrap=True)
    grid = figure.add_gridspec(6, 2, width_ratios=(1.0, 1.25), height_ratios=(2.2, 0.6, 0.6, 1.0, 1.5, 1.3))
    _draw_lines(figure.add_subplot(grid[:, 0]), laps, reference)
    first = figure.add_subplot(grid[0, 1])
    rest = [figure.add_subplot(grid[row, 1], sharex=first) for row in range(1, 6)]
    _draw_traces([first, *rest[:3]], laps.driven, reference)
    _draw_difference(rest[3], laps, reference)
    _draw_sectors(rest[4], laps, reference)
    for axes in (first, *rest):
        axes.grid(True, color="#e6e6ea", linewidth=0.8)
        axes.set_axisbelow(True)
        for end_m in np.linspace(0.0, laps.length_m, len(sectors(laps.driven, reference, laps.length_m)) + 1)[1:-1]:
            axes.axvline(end_m, color="#c8c8d0", linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
        axes.tick_params(labelbottom=axes is rest[-1])
    first.set_xlim(0.0, laps.length_m)
    rest[-1].set_xlabel("distance along the middle of the road [m]")
    picture = rasterize(figure)
    if path is not None:
        write_png(picture, path)
    return picture


def legend_name(lap: Lap) -> str:
    """Who drove and how long it took."""
    return f"{lap.name} ({'not finished' if lap.lap_time_s is None else f'{lap.lap_time_s:.3f} s'})"


def _draw_lines(axes: Axes, laps: ComparedLaps, reference: Lap) -> None:
    draw_road(axes, laps.road, laps.width_m)
    for lap, colour, width in ((reference, REFERENCE, 3.2), (laps.driven, DRIVEN, 1.5)):
        axes.plot(lap.trace.x, lap.trace.z, color=colour, linewidth=width, zorder=4, label=_escaped(legend_name(lap)))
    _number_sectors(axes, laps, reference)
    axes.set_aspect("equal")
    axes.set_xlabel("x [m]")
    axes.set_ylabel("z [m]")
    axes.legend(loc="best", fontsize=9, framealpha=0.9)


def _number_sectors(axes: Axes, laps: ComparedLaps, reference: Lap) -> None:
    """The number of each sector beside the road, in the colour of what was gained or lost there."""
    along = np.linspace(0.0, laps.length_m, len(laps.road))
    for number, sector in enumerate(sectors(laps.driven, reference, laps.length_m), 1):
        middle = int(np.searchsorted(along, (sector.from_m + sector.to_m) / 2))
        ahead = laps.road[min(middle + 1, len(laps.road) - 1)] - laps.road[max(middle - 1, 0)]
        side = np.array([-ahead[1], ahead[0]]) / max(float(np.hypot(*ahead)), 1e-9)
        x, z = laps.road[middle] + side * (laps.width_m * 0.5 + 0.02 * float(np.ptp(laps.road, axis=0).max()))
        box = {"boxstyle": "round,pad=0.25", "facecolor": _colour(sector.lost_s), "edgecolor": "none"}
        axes.text(x, z, str(number), color="white", fontsize=8, ha="center", va="center", bbox=box, zorder=6)


def _draw_traces(panels: list[Axes], driven: Lap, reference: Lap) -> None:
    names = ("speed [km/h]", "gas", "brake", "steer, right +")
    for lap, colour, width, order in ((reference, REFERENCE, 2.2, 3), (driven, DRIVEN, 1.3, 4)):
        trace = lap.trace
        values = (trace.speed_mps * MPS_TO_KMH, trace.gas, trace.brake, trace.steer)
        for axes, name, rows in zip(panels, names, values, strict=True):
            style = "steps-post" if name in ("gas", "brake") else "default"
            label = _escaped(legend_name(lap)) if name == names[0] else None
            axes.plot(trace.station_m, rows, color=colour, linewidth=width, drawstyle=style, zorder=order, label=label)
            axes.set_ylabel(name, fontsize=9)
    panels[0].legend(loc="lower right", fontsize=9, ncols=2, framealpha=0.9)
    for axes in panels[1:3]:
        axes.set_ylim(-0.15, 1.15)
        axes.set_yticks([0, 1], ["off", "on"])
    panels[3].set_ylim(-1.1, 1.1)


def _draw_difference(axes: Axes, laps: ComparedLaps, reference: Lap) -> None:
    places, lost = time_lost(laps.driven, reference, laps.length_m)
    axes.plot(places, lost, color="#303036", linewidth=1.4, zorder=4)
    for is_part, colour in ((lost >= 0.0, LOST), (lost <= 0.0, GAINED)):
        axes.fill_between(places, 0.0, lost, where=list(is_part), color=colour, alpha=0.25, linewidth=0, zorder=2)
    axes.axhline(0.0, color="#303036", linewidth=0.8)
    axes.set_ylabel("time lost so far [s]", fontsize=9)


def _draw_sectors(axes: Axes, laps: ComparedLaps, reference: Lap) -> None:
    parts = sectors(laps.driven, reference, laps.length_m)
    lost = np.array([np.nan if part.lost_s is None else part.lost_s for part in parts])
    middles = np.array([(part.from_m + part.to_m) / 2 for part in parts])
    bars = axes.bar(
        middles, lost, width=0.8 * laps.length_m / len(parts), color=[_colour(part.lost_s) for part in parts], zorder=3
    )
    texts = ["" if np.isnan(value) else f"{value:+.2f}" for value in lost]
    axes.bar_label(bars, labels=texts, fontsize=8, padding=2)
    reach = max(float(np.nanmax(np.abs(lost))) if np.isfinite(lost).any() else 0.0, 0.02)
    axes.set_ylim(-1.45 * reach if (lost < 0.0).any() else -0.2 * reach, 1.45 * reach)
    axes.axhline(0.0, color="#303036", linewidth=0.8, zorder=4)
    axes.set_ylabel("lost by sector [s]", fontsize=9)


def _colour(lost_s: float | None) -> str:
    return "#808088" if lost_s is None else LOST if lost_s > 0.0 else GAINED


def _escaped(text: str) -> str:
    """Without matplotlib's formulas."""
    return text.replace("$", r"\$")
