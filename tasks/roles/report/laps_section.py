"""What a report shows of laps: lines over the track, traces over the distance, time lost in each sector.

``page.py`` puts it into the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from tasks.laps.files import ComparedLaps
from tasks.laps.lap import NUM_SECTORS, Lap, sectors, time_lost
from tasks.pictures import MPS_TO_KMH
from tasks.roles.report.charts import WIDE, Series, line_chart, sector_chart, track_map
from tasks.roles.report.run_facts import RunFacts

STYLES = ("a", "b")
"""Class of each run in the page's style."""

_SAME_ROAD_M = 0.5


def maps(runs: Sequence[RunFacts]) -> list[dict[str, Any]]:
    """The driven line of each run over the track, with one scale of colours."""
    found = [(run, laps) for run in runs if (laps := _laps_of(run)) is not None]
    speeds = [float(laps.driven.trace.speed_mps.max()) * MPS_TO_KMH for _, laps in found]
    top = 10.0 * np.ceil(max(speeds, default=10.0) / 10.0)
    drawn = []
    for run, laps in found:
        references = list(zip(laps.others, _reference_styles(laps.others), strict=True))
        drawn.append(
            {
                "title": _legend(_named(laps.driven, run, len(runs))),
                "svg": track_map(laps, references, top),
                "max_speed": f"{top:.0f}",
                "legend": [(lap.name, style) for lap, style in references],
            }
        )
    return drawn


def comparisons(runs: Sequence[RunFacts]) -> list[dict[str, Any]]:
    """Traces and sectors: of runs on the same road together, else of each by itself.

    Args:
        runs: One run, or two.
    """
    found = [
        (run, style, laps) for run, style in zip(runs, STYLES, strict=False) if (laps := _laps_of(run)) is not None
    ]
    if len(found) == 2 and not _is_same_road(found[0][2], found[1][2]):
        return [_comparison([one], f"Traces and sectors of {one[0].name}") for one in found]
    return [_comparison(found, "Traces and sectors")] if found else []


def _comparison(found: Sequence[tuple[RunFacts, str, ComparedLaps]], title: str) -> dict[str, Any]:
    road_m = found[0][2].length_m
    others = found[0][2].others
    references = list(zip(others, _reference_styles(others), strict=True))
    driven = [(_named(laps.driven, run, len(found)), style) for run, style, laps in found]
    everybody = [*references, *driven]
    marks = np.linspace(0.0, road_m, NUM_SECTORS + 1)[1:-1].tolist()
    charts = [_trace_chart(everybody, what, road_m, marks) for what in _TRACES]
    groups, columns = [], []
    for lap, style in driven:
        for reference, reference_style in references:
            mark = style if reference is references[0][0] else reference_style
            who = f"{lap.name} to {reference.name}"
            groups.append((who, mark, sectors(lap, reference, road_m)))
            columns.append(f"{lap.name} lost to {reference.name} [s]")
    if references:
        lost = [Series(f"{lap.name} to {reference.name}", *time_lost(lap, reference, road_m),
                       style if reference is references[0][0] else f"{style} dashed")
                for lap, style in driven for reference, _ in references]  # fmt: skip
        charts.append(line_chart(lost, _ALONG, "time lost so far [s]", size=(WIDE[0], 190), x_range=(0.0, road_m),
                                 marks=marks, zero=True))  # fmt: skip
        charts.append(sector_chart(groups, road_m))
    return {
        "title": title,
        "legend": [(_legend(lap), style) for lap, style in (*driven, *references)],
        "charts": charts,
        "columns": columns,
        "rows": _sector_rows(groups),
    }


class _Trace(NamedTuple):
    """A chart of one quantity over the road."""

    field: str
    label: str
    factor: float = 1.0
    range: tuple[float, float] | None = None
    is_stepped: bool = False
    height: int = 120


_ALONG = "distance along the middle of the road [m]"
_TRACES = (
    _Trace("speed_mps", "speed [km/h]", MPS_TO_KMH, height=230),
    _Trace("gas", "gas", range=(-0.1, 1.1), is_stepped=True, height=95),
    _Trace("brake", "brake", range=(-0.1, 1.1), is_stepped=True, height=95),
    _Trace("steer", "steer, right +", range=(-1.1, 1.1), height=150),
)


def _trace_chart(laps: Sequence[tuple[Lap, str]], what: _Trace, road_m: float, marks: Sequence[float]) -> Markup:
    series = [
        Series(lap.name, lap.trace.station_m, values * what.factor, style, what.is_stepped)
        for lap, style in laps
        for values in (getattr(lap.trace, what.field),)
    ]
    return line_chart(
        series, "", what.label, size=(WIDE[0], what.height), x_range=(0.0, road_m), y_range=what.range,
        marks=marks, zero=what.field == "steer",
    )  # fmt: skip


def _sector_rows(groups: Sequence[tuple[str, str, Sequence[Any]]]) -> list[dict[str, Any]]:
    rows = []
    for index, first in enumerate(groups[0][2] if groups else ()):
        cells = []
        for _, _, parts in groups:
            lost = parts[index].lost_s
            style = "" if lost is None or abs(lost) < 0.005 else "lost" if lost > 0.0 else "won"
            cells.append({"text": "-" if lost is None else f"{lost:+.3f}", "style": style})
        rows.append({"number": index + 1, "from_m": f"{first.from_m:.0f}", "to_m": f"{first.to_m:.0f}", "cells": cells})
    return rows


def _named(lap: Lap, run: RunFacts, count: int) -> Lap:
    """A driven lap with the name of its run, where there are several."""
    return lap if count == 1 else lap._replace(name=f"{run.name}, {lap.name}")


def _legend(lap: Lap) -> str:
    return f"{lap.name} ({'not finished' if lap.lap_time_s is None else f'{lap.lap_time_s:.3f} s'})"


def _reference_styles(others: Sequence[Lap]) -> list[str]:
    return ["ref" if index == 0 else "human" for index in range(len(others))]


def _is_same_road(first: ComparedLaps, second: ComparedLaps) -> bool:
    is_as_long = abs(first.length_m - second.length_m) < _SAME_ROAD_M and len(first.road) == len(second.road)
    return is_as_long and float(np.abs(first.road - second.road).max()) < _SAME_ROAD_M


def _laps_of(run: RunFacts) -> ComparedLaps | None:
    return run.play.laps if run.play is not None else None
