"""Laps to compare with, by who drove them, and what a comparison says.

``tasks.trackmania.course`` finds them; results.json, TensorBoard, the console and the titles of pictures use this.
"""

from __future__ import annotations

from collections.abc import Mapping

REFERENCE = "reference"
"""The best lap that is known of the track."""
HUMAN = "human"
"""The person who drove the line of the track in the game."""
SCRIPTED = "scripted"
"""The scripted driver."""

Laps = Mapping[str, float]
"""Lap time [s] of each driver of whom one is known, the most telling first."""


def time_key(driver: str) -> str:
    """The name under which a driver's lap is reported."""
    return f"{driver}_lap_time_s"


def ratio_key(driver: str) -> str:
    """The name of a lap divided by a driver's; ``lap_ratio`` alone is the ratio to the reference."""
    return "lap_ratio" if driver == REFERENCE else f"{driver}_lap_ratio"


def comparison(lap_time_s: float | None, laps: Laps) -> dict[str, float | None]:
    """The laps to compare with and the ratios to them, by their names; a ratio is None without a lap."""
    found: dict[str, float | None] = {}
    for driver, time_s in laps.items():
        found |= {time_key(driver): time_s, ratio_key(driver): None if lap_time_s is None else lap_time_s / time_s}
    return found


def comparison_text(lap_time_s: float, laps: Laps) -> str:
    """Reads on behind a lap: ", 1.050 of the human lap 20.00 s"; empty without laps."""
    return "".join(f", {lap_time_s / time_s:.3f} of the {driver} lap {time_s:.2f} s" for driver, time_s in laps.items())
