"""The fastest lap that is possible on a track, and the fastest that was driven there: reference laps.

    python -m benchmarks.reference_lap task.track=medium [task.track_width_m=20] [task.vehicle=car.yaml]

Needs the extra ``[oracle]``. The track is a shipped one, ``random:SEED`` or a file of points. First computes the lower
bound (``minimum_time`` says what it rests on), then searches the best lap through the 20 Hz interface (``search``),
from the stored lap on where there is one. Every better lap is stored at once (``tasks.sim.reference_lap``), so Ctrl-C
loses nothing and the next call goes on. Prints bound, lap, the gap between them and the scripted driver's lap, and
draws the lap.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.reference_lap.minimum_time import MESH_M, Bound, minimum_time
from benchmarks.reference_lap.road import road_of
from benchmarks.reference_lap.rollouts import Rollouts
from benchmarks.reference_lap.search import Actions, Search, SearchSettings
from tasks import pictures
from tasks.config import MIRRORED_SUFFIX
from tasks.points.files import is_point_file
from tasks.sim.random_tracks import any_track
from tasks.sim.reference_lap import ReferenceLap, load_reference_lap, replay, store_reference_lap
from tasks.sim.scripted_driver import scripted_lap_time_s
from tasks.sim.threads import threads_for
from tasks.sim.track import Track
from tasks.sim.vehicle import VehicleConstants
from tasks.sim.vehicle_files import load_vehicle

SPREADS = (0.25, 0.12, 0.06, 0.03)
"""Of the steer in the first sweeps, and in all later ones; a stored lap is past the first."""
KEYS = {"task.track": "medium", "task.track_width_m": "25.75", "task.vehicle": None}


class Place(NamedTuple):
    """What is driven, and where."""

    name: str
    width_m: float
    track: Track
    car: VehicleConstants


def main() -> int:
    """Finds, stores, prints and draws; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help=", ".join(KEYS))
    parser.add_argument("--sweeps", type=int, default=6, help="of the search; 0: only the bound (default: %(default)s)")
    parser.add_argument("--cars", type=int, default=384, help="samples at each place (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--mesh", type=float, default=MESH_M, help="of the bound [m] (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="do not begin with the stored lap")
    parser.add_argument("--picture", metavar="FILE", help="default: runs/reference_lap/<track>.png")
    line = parser.parse_args()
    console = Console()
    try:
        place = _place(line.words)
        stored = load_reference_lap(place.name, place.width_m, place.car)
        console.print(f"{place.track.name}: lower bound ...", highlight=False)
        bound = minimum_time(place.track, place.car, line.mesh)
    except ValueError as error:
        sys.stderr.write(f"benchmarks.reference_lap: {error}\n")
        return 2
    except KeyboardInterrupt:
        console.print("stopped before the bound was known")
        return 130
    console.print(f"{place.track.name}: lower bound {_seconds(bound.lap_time_s)}", highlight=False)
    first = None if line.fresh or stored is None else stored.actions
    lap = _searched(place, bound, stored, first, line, console)
    picture = line.picture or f"runs/reference_lap/{place.track.name.replace(':', '_')}.png"
    _report(place, bound, lap, Path(picture), console)
    return 0


def _place(words: list[str]) -> Place:
    given = {**KEYS, **dict(word.partition("=")[::2] for word in words)}
    unknown = [key for key in given if key not in KEYS]
    if unknown:
        raise ValueError(f"{unknown[0]} is not read here; the keys are {', '.join(KEYS)}")
    name, width = str(given["task.track"]), str(given["task.track_width_m"])
    if name.endswith(MIRRORED_SUFFIX) and not is_point_file(name):
        raise ValueError(f"{name} has the lap of its twin, mirrored: task.track={name.removesuffix(MIRRORED_SUFFIX)}")
    try:
        width_m = float(width)
    except ValueError as error:
        raise ValueError(f"task.track_width_m must be a number of metres, got {width!r}") from error
    return Place(name, width_m, any_track(name, width_m), load_vehicle(given["task.vehicle"]))


def _searched(
    place: Place,
    bound: Bound,
    stored: ReferenceLap | None,
    first: Actions | None,
    line: argparse.Namespace,
    console: Console,
) -> ReferenceLap | None:
    """The best lap, found or stored; None when there is none."""
    rollouts = Rollouts(place.track, place.car, line.cars, threads_for(line.cars))
    search = Search(road_of(place.track), bound.guide, rollouts, line.seed)
    best = stored
    bound_s = bound.lap_time_s or (stored.lower_bound_s if stored else None)
    plan, plan_s = np.zeros((0, 3), np.float32), math.inf
    if stored is not None and first is not None:
        plan, plan_s = first, stored.lap_time_s
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeElapsedColumn()
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            for sweep in range(line.sweeps):
                spread = SPREADS[min(sweep + (first is not None), len(SPREADS) - 1)]
                bar = progress.add_task(f"sweep {sweep + 1} of {line.sweeps}", total=1.0)
                actions, lap_s = search.sweep(plan, SearchSettings(spread=spread), _shown(progress, bar))
                progress.remove_task(bar)
                progress.console.print(f"sweep {sweep + 1}: {lap_s:.3f} s", highlight=False)
                if lap_s < plan_s:
                    plan, plan_s = actions, lap_s
                if lap_s < (math.inf if best is None else best.lap_time_s):
                    best = ReferenceLap(lap_s, bound_s, actions)
                    store_reference_lap(best, place.name, place.width_m, place.car)
    except KeyboardInterrupt:
        console.print("stopped; the best lap so far is kept")
    if best is not None and best.lower_bound_s != bound_s:
        best = best._replace(lower_bound_s=bound_s)
        store_reference_lap(best, place.name, place.width_m, place.car)
    return best


def _report(place: Place, bound: Bound, lap: ReferenceLap | None, path: Path, console: Console) -> None:
    """Prints the times; draws the lap."""
    rows = [f"T_lb       {_seconds(bound.lap_time_s)}   lower bound"]
    if lap is not None:
        gap = (
            ""
            if bound.lap_time_s is None
            else f", {100 * (lap.lap_time_s / bound.lap_time_s - 1):.2f} % above the bound"
        )
        rows.append(f"T_ref      {_seconds(lap.lap_time_s)}   best lap driven{gap}")
        scripted_s = scripted_lap_time_s(place.track, place.car)
        rows.append(f"scripted   {_seconds(scripted_s)}   {scripted_s / lap.lap_time_s:.3f} of T_ref")
        trace, _ = replay(place.track, lap.actions, place.car)
        driven = np.stack([trace.x, trace.z, trace.speed_mps], axis=1)
        title = f"{place.track.name}: reference lap {lap.lap_time_s:.3f} s"
        pictures.plot_driven_line(place.track.centre_line, place.track.width_m, [driven], path, title=title)
        rows.append(f"picture    {path}")
    console.print("\n".join(rows), highlight=False)


def _shown(progress: Progress, bar: TaskID) -> Callable[[float], None]:
    """Shows a share on a bar."""
    return lambda share: progress.update(bar, completed=share)


def _seconds(time_s: float | None) -> str:
    return "not found " if time_s is None else f"{time_s:8.3f} s"


if __name__ == "__main__":
    sys.exit(main())
