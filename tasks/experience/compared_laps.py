"""Laps to compare with, by who drove them, and what a comparison says.

``tasks.trackmania.course`` finds them; results.json, TensorBoard, the console and the titles of pictures use this.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from tasks.experience.evaluation_report import EpisodeResult, EvaluationReport

REFERENCE = "reference"
"""The best lap that is known of the track."""
HUMAN = "human"
"""The person who drove the line of the track in the game."""
SCRIPTED = "scripted"
"""The scripted driver."""
DRIVERS = (REFERENCE, HUMAN, SCRIPTED)
"""The most telling first."""

Laps = Mapping[str, float]
"""Lap time [s] of each driver of whom one is known, the most telling first."""
LapsOn = Callable[[str | None], Laps]
"""Gives the laps of a track, by its name where an episode has its own (``EpisodeResult.track``); None: the task's."""


def time_key(driver: str) -> str:
    """The name under which a driver's lap is reported."""
    return f"{driver}_lap_time_s"


def ratio_key(driver: str) -> str:
    """The name of a lap divided by a driver's; ``lap_ratio`` alone is the ratio to the reference."""
    return "lap_ratio" if driver == REFERENCE else f"{driver}_lap_ratio"


def lap_ratio(episode: EpisodeResult, laps_on: LapsOn) -> float | None:
    """A lap over the reference lap of its track; None without either."""
    reference_s = None if episode.lap_time_s is None else laps_on(episode.track).get(REFERENCE)
    return None if episode.lap_time_s is None or reference_s is None else episode.lap_time_s / reference_s


def comparison(report: EvaluationReport, laps_on: LapsOn) -> dict[str, float | None]:
    """The laps to compare with and the ratios to them, by their names; a ratio is None without a lap.

    Where each episode has its own track, both are means over those that were finished and have such a lap.
    """
    compared = [e for e in report.episodes if e.track is None or e.finished]
    known = [(e.lap_time_s, laps_on(e.track)) for e in compared]
    found: dict[str, float | None] = {}
    for driver in DRIVERS:
        pairs = [(lap_s, laps[driver]) for lap_s, laps in known if driver in laps]
        if pairs:
            ratios = [lap_s / time_s for lap_s, time_s in pairs if lap_s is not None]
            # Exact for equal values, so that the lap of the only track is the known one.
            found[time_key(driver)] = statistics.mean(time_s for _, time_s in pairs)
            found[ratio_key(driver)] = statistics.mean(ratios) if ratios else None
    return found


def comparison_text(report: EvaluationReport, laps_on: LapsOn) -> str:
    """Reads on behind a lap: ", 1.050 of the human lap 20.00 s"; empty without laps."""
    found = comparison(report, laps_on)
    rows = [(driver, found.get(time_key(driver)), found.get(ratio_key(driver))) for driver in DRIVERS]
    return "".join(
        f", {ratio:.3f} of the {driver} lap {time_s:.2f} s"
        for driver, time_s, ratio in rows
        if time_s is not None and ratio is not None
    )
