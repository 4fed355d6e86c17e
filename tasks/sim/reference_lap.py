"""Reference laps: the best lap that is known of a track, as the actions that drive it, stored beside the track.

``python -m benchmarks.reference_lap`` finds and stores them; results, logs and pictures compare laps with them
(``tasks.trackmania.course``). A file holds what a policy would do at 20 Hz in an environment without randomization:
``actions[k]`` is its k-th action, which acts from (k + 1) x 50 ms on, as every first step is driven by the default
action. It is JSON: pedals as a text of 0 and 1, the steer in thousandths.

A lap counts only for the road and the car with which it was driven; both are in the file.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.config import MIRRORED_SUFFIX, ROAD_WIDTH_M, TaskConfig
from tasks.game.clock import VirtualClock
from tasks.laps.lap import LapTrace
from tasks.points.files import POINT_SPACING_M, is_point_file
from tasks.process.atomic_file import write_file
from tasks.sim.game import CarState, SimulatedGame
from tasks.sim.random_tracks import any_track
from tasks.sim.track import TRACKS_FOLDER, Track
from tasks.sim.vehicle import TICK_S, VehicleConstants
from tasks.sim.vehicle_files import differences

FloatArray = NDArray[np.float64]

STEP_S = 0.05
"""Duration of a step [s]; every action holds for one."""
STEER_STEPS = 1000
"""The steer is stored in steps of 1 / this."""
MAX_BYTES = 2**20
"""A larger file is refused; it would be a lap of hours."""
_SUFFIX = ".reference.json"
_SEARCH_POINTS = 400

logger = logging.getLogger(__name__)


class ReferenceLap(NamedTuple):
    """The best lap that is known of a track."""

    lap_time_s: float
    """[s]"""
    lower_bound_s: float | None
    """No lap without walls is shorter [s]; None: not computed."""
    actions: NDArray[np.float32]
    """[gas, brake, steer] of each step, shape (N, 3)."""


def load_reference_lap(
    name_or_path: str, width_m: float = ROAD_WIDTH_M, car: VehicleConstants | None = None
) -> ReferenceLap | None:
    """The stored lap of a track; None where there is none for this road and this car.

    Args:
        name_or_path: As for ``any_track``; random, another track each episode, has none.
        width_m: Drivable width of a track given as a file [m].
        car: The game's when None.
    """
    path = reference_file(name_or_path)
    if not path.is_file():
        return None
    twin = name_or_path if is_point_file(name_or_path) else name_or_path.removesuffix(MIRRORED_SUFFIX)
    track = any_track(twin, width_m)
    try:
        data = _read(path)
        lap = _lap(data)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        logger.warning("%s is no reference lap (%s); python -m benchmarks.reference_lap writes one", path, error)
        return None
    if data.get("track") != track.hash() or data.get("vehicle") != _car_text(car):
        return None
    if twin != name_or_path:
        lap = lap._replace(actions=lap.actions * np.array([1, 1, -1], np.float32))
    return lap


def store_reference_lap(
    lap: ReferenceLap, name_or_path: str, width_m: float = ROAD_WIDTH_M, car: VehicleConstants | None = None
) -> Path:
    """Writes the lap beside its track, and returns the file.

    Args:
        lap: Its actions must be such as ``rounded_actions`` gives.
        name_or_path: The track, not a mirrored one: that shares its twin's lap.
        width_m: As for ``load_reference_lap``.
        car: The game's when None.
    """
    gas, brake, steer = lap.actions[:, 0], lap.actions[:, 1], lap.actions[:, 2]
    data = {
        "lap_time_s": lap.lap_time_s,
        "lower_bound_s": lap.lower_bound_s,
        "track": any_track(name_or_path, width_m).hash(),
        "vehicle": _car_text(car),
        "gas": "".join("01"[int(value)] for value in gas.tolist()),
        "brake": "".join("01"[int(value)] for value in brake.tolist()),
        "steer": np.rint(steer * STEER_STEPS).astype(int).tolist(),
    }
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in data.items())
    path = reference_file(name_or_path)
    write_file(path, f"{{\n{rows}\n}}\n".encode())
    return path


def reference_file(name_or_path: str) -> Path:
    """Where the lap of a track is stored: with the shipped tracks, or beside the user's file of points."""
    if is_point_file(name_or_path):
        path = Path(name_or_path).expanduser()
        return path.with_name(path.name + _SUFFIX)
    return TRACKS_FOLDER / (name_or_path.removesuffix(MIRRORED_SUFFIX).replace(":", "_") + _SUFFIX)


def rounded_actions(actions: FloatArray | NDArray[np.float32]) -> NDArray[np.float32]:
    """The actions that a file would give back: pedals 0 or 1, the steer on its steps."""
    rounded = (np.asarray(actions, np.float64) > 0.0).astype(np.float32)
    steer = np.rint(np.clip(np.asarray(actions, np.float64)[..., 2], -1.0, 1.0) * STEER_STEPS)
    rounded[..., 2] = (steer / STEER_STEPS).astype(np.float32)
    return rounded


def replay(
    track: Track, actions: NDArray[np.float32], car: VehicleConstants | None = None
) -> tuple[LapTrace, CarState]:
    """Drives the actions in the simulator.

    Args:
        track: The road.
        actions: Shape (N, 3).
        car: The game's when None.

    Returns:
        The drive to its finish, or to the end of the actions, every 10 ms; and the car there, which tells the lap time.
    """
    clock = VirtualClock()
    game = SimulatedGame(clock, track, TaskConfig(), car or VehicleConstants())
    states, controls = [game.state()], [np.zeros(3, np.float32)]
    for step, action in enumerate(np.concatenate([np.zeros((1, 3), np.float32), actions])):
        game.apply(action)
        for tick in range(round(STEP_S / TICK_S)):
            clock.sleep_until(step * STEP_S + (tick + 1) * TICK_S)
            states.append(game.state())
            controls.append(action)
            if not math.isnan(states[-1].finish_time_s):
                return _trace(track, states, controls), states[-1]
    return _trace(track, states, controls), states[-1]


def stations_m(centre_line: FloatArray, places: FloatArray) -> FloatArray:
    """How far along a centre line each place of a drive is [m], never falling, shape (T,).

    Args:
        centre_line: (x, y, z) every 0.1 m, shape (N, 3).
        places: (x, z) of the car, in driving order, at most some metres apart, shape (T, 2).
    """
    points = centre_line[:, [0, 2]]
    found, index = np.empty(len(places)), 0
    for i, place in enumerate(places):
        window = points[index : index + _SEARCH_POINTS] - place
        index += int(np.argmin(np.einsum("ij,ij->i", window, window)))
        found[i] = index * POINT_SPACING_M
    return found


def _trace(track: Track, states: list[CarState], controls: list[NDArray[np.float32]]) -> LapTrace:
    rows = np.array([(s.time_s, s.x, s.z, math.hypot(s.forward_mps, s.sideways_mps)) for s in states])
    gas, brake, steer = np.array(controls, np.float64).T
    station = stations_m(track.centre_line, rows[:, 1:3])
    return LapTrace(rows[:, 0], station, rows[:, 1], rows[:, 2], rows[:, 3], gas, brake, steer)


def _car_text(car: VehicleConstants | None) -> Mapping[str, Any]:
    """What makes the car another than the game's."""
    return json.loads(json.dumps(differences(car or VehicleConstants())))  # type: ignore[no-any-return]


def _read(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it must have at most {MAX_BYTES} bytes, got {path.stat().st_size}")
    data = json.loads(path.read_bytes())
    if not isinstance(data, dict):
        raise ValueError("it must hold a mapping")
    return data


def _lap(data: Mapping[str, Any]) -> ReferenceLap:
    """The lap of a file's data, checked."""
    gas, brake = (np.frombuffer(str(data[name]).encode(), np.uint8) - ord("0") for name in ("gas", "brake"))
    steer = np.array(data["steer"], np.float64) / STEER_STEPS
    if steer.ndim != 1 or not len(gas) == len(brake) == len(steer):
        raise ValueError("gas, brake and steer must be equally long")
    if not len(steer) or max(gas.max(), brake.max()) > 1 or not (np.abs(steer) <= 1.0).all():
        raise ValueError("pedals must be 0 or 1, the steer within its range")
    lap_time_s, bound = data["lap_time_s"], data["lower_bound_s"]
    for value in (lap_time_s, 1.0 if bound is None else bound):
        if not isinstance(value, float) or not 0.0 < value < math.inf:
            raise ValueError(f"times must be positive, got {value!r}")
    return ReferenceLap(lap_time_s, bound, np.stack([gas, brake, steer], axis=1).astype(np.float32))
