"""The table (Markdown) and the plot of a study."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from benchmarks.learning.outcome import Outcome
from benchmarks.learning.studies import Study

GRID = 200
"""Points along the axes between which evaluations are interpolated."""
FIGURE_INCHES = (10.0, 4.0)


def table(outcomes: Sequence[Outcome]) -> str:
    """One row per training, and one with the medians per arm."""
    has_laps = any(outcome.results.get("mean_lap_time_s") is not None for outcome in outcomes)
    last = "lap [s] (std) | ratio" if has_laps else "mean return (std)"
    lines = [f"| arm | seed | goal at | minutes | best.pth at | whole run | finished | {last} |"]
    if not has_laps:
        lines = [f"| arm | seed | goal at | minutes | best.pth at | whole run | {last} |"]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    for arm, group in groupby(sorted(outcomes, key=_order(outcomes)), key=lambda outcome: outcome.training.arm):
        rows = list(group)
        lines += [_row(arm, str(row.training.seed), [row], has_laps) for row in rows]
        if len(rows) > 1:
            lines.append(_row(f"**{arm}**", "median", rows, has_laps))
    return "\n".join(lines)


def draw(study: Study, outcomes: Sequence[Outcome], path: Path) -> None:
    """Median and spread (least to greatest seed) of the curve, over steps and over minutes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=FIGURE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for arm in study.arms:
        rows = [outcome for outcome in outcomes if outcome.training.arm == arm]
        if not rows:
            continue
        for axis, along in zip(axes, ("steps", "minutes"), strict=True):
            grid, values = _resampled([(getattr(row, along), row.values) for row in rows])
            line = axis.plot(grid, _reduced(np.median, values), label=arm)[0]
            spread = (_reduced(reduce, values) for reduce in (np.min, np.max))
            axis.fill_between(grid, *spread, color=line.get_color(), alpha=0.15)
    axes[0].set(xlabel="environment steps", ylabel=study.curve.rpartition("/")[2])
    axes[1].set(xlabel="minutes of training")
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _order(outcomes: Sequence[Outcome]):
    arms = list(dict.fromkeys(outcome.training.arm for outcome in outcomes))
    return lambda outcome: (arms.index(outcome.training.arm), outcome.training.seed)


def _row(arm: str, seed: str, rows: Sequence[Outcome], has_laps: bool) -> str:
    reached = [row.goal for row in rows if row.goal is not None]
    steps, minutes = "not reached", ""
    if len(reached) * 2 > len(rows):
        goals = [row.goal or (np.inf, np.inf) for row in rows]
        steps, minutes = (
            f"{value:,.{digits}f}" for value, digits in zip(np.median(goals, axis=0), (0, 1), strict=True)
        )
    total = np.median([row.total for row in rows], axis=0)
    cells = [arm, seed, steps, minutes, f"{np.median([row.best_at for row in rows]):,.0f}"]
    cells.append(f"{total[0]:,.0f} steps, {total[1]:,.0f} updates, {total[2]:.1f} min")
    cells += _laps(rows) if has_laps else _returns(rows)
    return "| " + " | ".join(cells) + " |"


def _laps(rows: Sequence[Outcome]) -> list[str]:
    finished = [sum(episode["finished"] for episode in row.results["episodes"]) for row in rows]
    laps = [row.results["mean_lap_time_s"] or np.inf for row in rows]
    ratios = [lap / row.results["scripted_lap_time_s"] for lap, row in zip(laps, rows, strict=True)]
    std = f" ({rows[0].results['std_lap_time_s'] or 0:.2f})" if len(rows) == 1 else ""
    return [f"{np.median(finished):.0f}/10", f"{np.median(laps):.2f}{std}", f"{np.median(ratios):.3f}"]


def _returns(rows: Sequence[Outcome]) -> list[str]:
    returns = [[episode["return"] for episode in row.results["episodes"]] for row in rows]
    std = f" ({np.std(returns[0]):.1f})" if len(rows) == 1 else ""
    return [f"{np.median(np.mean(returns, axis=1)):.1f}{std}"]


def _resampled(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The curves on one grid, as far as each reaches: (GRID,), (curves, GRID)."""
    grid = np.linspace(0.0, max(float(along[-1]) for along, _ in curves), GRID)
    rows = []
    for along, values in curves:
        known = ~np.isnan(values)
        if not known.any():
            rows.append(np.full(GRID, np.nan))
            continue
        rows.append(np.interp(grid, along[known], values[known], left=np.nan, right=np.nan))
    return grid, np.array(rows)


def _reduced(function, values: np.ndarray) -> np.ndarray:
    """Over the curves that reach a point; NaN where less than half of them do."""
    out = np.full(values.shape[1], np.nan)
    for index, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        if 2 * len(known) > len(column):
            out[index] = function(known)
    return out
