"""The scripted driver: a driver without learning, whose laps are the reference.

Pure pursuit of a minimum-curvature line with a speed profile, through the same 20 Hz interface as a policy: it sees the
car 40 ms into a step, and what it decides acts from the step after the next one on, as with rtgym.
``tasks.acting.evaluation`` and the blind-policy tests read ``scripted_lap_time_s``; shipped tracks store the result of
``tune`` in their data file.

    python -m tasks.sim.scripted_driver            tune all shipped tracks again and store the result
    python -m tasks.sim.scripted_driver medium     only this one
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.config import TaskConfig
from tasks.game.clock import VirtualClock
from tasks.sim.game import CarState, SimulatedGame
from tasks.sim.grids import BORDER_M
from tasks.sim.speed_profile import speed_profile
from tasks.sim.stretches import gaps_to_others, round_m
from tasks.sim.track import Track, load_track, shipped_names, track_file
from tasks.sim.vehicle import TICK_S, VehicleConstants, turn_rate_at

FloatArray = NDArray[np.float64]

logger = logging.getLogger(__name__)

STEP_S = 0.05
CAPTURE_S = 0.04
TUNING_SEEDS = (1_000_001, 1_000_002, 1_000_003)
LAP_SEEDS = tuple(range(2_000_001, 2_000_011))

_BRAKE_FROM_MPS = 1.5
"""A car that is faster than wanted by less rolls."""
_RESPONSE_S = 0.09
"""How quickly the steering brings the yaw rate to what is wanted [s]; less than its lag, more than the delays."""
_LINE_SPACING_M = 2.0
_KNOT_EVERY = 4
_CLEARANCE_M = 1.6
_SEARCH_POINTS = 40
# Work and memory grow with the square of a piece; every shipped track is one.
_PIECE_POINTS, _OVERLAP_POINTS = 1500, 200


@dataclass(frozen=True)
class DriverParameters:
    """What is tuned per track."""

    lookahead_s: float = 0.4
    """Time to the point that is steered at [s]."""
    steer_fraction: float = 1.0
    """Fraction of the full steer that the speed profile uses in corners."""
    brake_fraction: float = 0.8
    """Fraction of the brake that it counts on."""


GRID = {
    "lookahead_s": (0.3, 0.4, 0.5, 0.6),
    "steer_fraction": (0.9, 1.0, 1.1, 1.2),
    "brake_fraction": (0.8, 1.0, 1.2),
}
"""Values that ``tune`` tries, all combinations."""


class ScriptedDriver:
    """Follows a racing line of one track. Holds the place on the line: ``reset`` before each episode."""

    def __init__(
        self, track: Track, parameters: DriverParameters | None = None, constants: VehicleConstants | None = None
    ) -> None:
        """Plans the line and the speed profile.

        Args:
            track: The road.
            parameters: Those stored with the track, or the defaults, when None.
            constants: The car.
        """
        stored = DriverParameters(**track.scripted.parameters) if track.scripted else DriverParameters()
        self.track = track
        self.parameters = parameters or stored
        self._constants = constants or VehicleConstants()
        self.line = racing_line(track)
        fractions = self.parameters.steer_fraction, self.parameters.brake_fraction
        self.speed = speed_profile(self.line, self._constants, *fractions)
        self._spacing = float(np.mean(np.linalg.norm(np.diff(self.line, axis=0), axis=1)))
        self.reset()

    def reset(self) -> None:
        """Goes back to the start of the line."""
        self._index, self._steer_sent = 0, 0.0

    def act(self, state: CarState) -> NDArray[np.float32]:
        """Chooses [gas, brake, steer] from the true state of the car, float32, shape (3,)."""
        x, z, yaw, yaw_rate = self._predict(state)
        self._index = self._nearest(x, z)
        speed = max(state.forward_mps, 1.0)
        self._steer_sent = self._steer(x, z, yaw, yaw_rate, speed)
        wanted = self.speed[min(self._index + round(0.5 * speed * STEP_S / self._spacing), len(self.speed) - 1)]
        excess = state.forward_mps - wanted
        # The pedals are on or off; rolling without them takes a part of what the brake takes.
        return np.array([excess < 0.0, excess > _BRAKE_FROM_MPS, self._steer_sent], np.float32)

    def _predict(self, state: CarState) -> tuple[float, float, float, float]:
        """Position, heading and yaw rate at the time from which on the decision acts."""
        x, z, yaw, yaw_rate, wheel = state.x, state.z, state.yaw, state.yaw_rate, state.steer
        full = turn_rate_at(self._constants, state.forward_mps)
        most = self._constants.steer_slew * TICK_S
        share = 1.0 - math.exp(-TICK_S / self._constants.yaw_lag_s)
        for _ in range(round((STEP_S + STEP_S - CAPTURE_S) / TICK_S)):
            wheel += min(max(self._steer_sent - wheel, -most), most)
            yaw_rate += (wheel * full - yaw_rate) * share
            x += (state.forward_mps * math.sin(yaw) + state.sideways_mps * math.cos(yaw)) * TICK_S
            z += (state.forward_mps * math.cos(yaw) - state.sideways_mps * math.sin(yaw)) * TICK_S
            yaw += yaw_rate * TICK_S
        return x, z, yaw, yaw_rate

    def _nearest(self, x: float, z: float) -> int:
        """The nearest point of the line in a window ahead of the last one."""
        window = self.line[self._index : self._index + _SEARCH_POINTS]
        return self._index + int(np.argmin((window[:, 0] - x) ** 2 + (window[:, 1] - z) ** 2))

    def _steer(self, x: float, z: float, yaw: float, yaw_rate: float, speed: float) -> float:
        """Steers along the arc to a point ahead, and beyond it at first, because the yaw rate lags behind the wheel."""
        ahead = max(4.0, self.parameters.lookahead_s * speed)
        target = self._point_at(self._index + ahead / self._spacing)
        offset_x, offset_z = target[0] - x, target[1] - z
        angle = _wrapped(math.atan2(offset_x, offset_z) - yaw)
        curvature = 2.0 * math.sin(min(max(angle, -1.5), 1.5)) / max(math.hypot(offset_x, offset_z), 1.0)
        lead = self._constants.yaw_lag_s / _RESPONSE_S
        wanted = yaw_rate + (curvature * speed - yaw_rate) * lead
        return min(max(wanted / max(turn_rate_at(self._constants, speed), 1e-3), -1.0), 1.0)

    def _point_at(self, index: float) -> FloatArray:
        """A point of the line, which goes on straight after its end."""
        last = len(self.line) - 1
        if index >= last:
            return self.line[-1] + (self.line[-1] - self.line[-2]) * (index - last)
        low = int(index)
        return self.line[low] + (self.line[low + 1] - self.line[low]) * (index - low)


@dataclass(frozen=True)
class Lap:
    """How an episode of ``drive`` went."""

    finish_time_s: float
    """NaN when not finished."""
    furthest_m: float
    """Distance driven [m]."""
    wall_contacts: int


def drive(
    track: Track,
    act: Callable[[CarState], Sequence[float] | np.ndarray],
    seed: int,
    limit_s: float,
    constants: VehicleConstants | None = None,
) -> Lap:
    """Drives one episode through the 20 Hz interface until the finish or ``limit_s``.

    Args:
        track: The road.
        act: Called once per step with the car 40 ms into it; its action acts from the step after the next one on.
        seed: Of the episode's draws.
        limit_s: Race time at which the episode is given up [s].
        constants: The car.
    """
    clock = VirtualClock()
    game = SimulatedGame(clock, track, TaskConfig(), constants)
    game.restart(seed)
    started = clock.now()
    # The action that runs now, and the one that was decided meanwhile and runs next.
    running: np.ndarray | Sequence[float] = np.zeros(3, np.float32)
    following = running
    for step in range(round(limit_s / STEP_S)):
        clock.sleep_until(started + step * STEP_S)
        game.apply(np.asarray(running))
        clock.sleep_until(started + step * STEP_S + CAPTURE_S)
        state = game.state()
        if not math.isnan(state.finish_time_s):
            break
        running, following = following, act(state)
    facts = game.episode_facts()
    return Lap(facts.finish_time_s, game.state().distance_m, facts.wall_contacts)


def drive_scripted(
    track: Track,
    seeds: Iterable[int],
    parameters: DriverParameters | None = None,
    constants: VehicleConstants | None = None,
) -> list[Lap]:
    """Laps of the scripted driver, one per seed."""
    driver = ScriptedDriver(track, parameters, constants)
    laps = []
    for seed in seeds:
        driver.reset()
        laps.append(drive(track, driver.act, seed, _limit_s(track), constants))
    return laps


def tune(track: Track, constants: VehicleConstants | None = None) -> tuple[DriverParameters, float]:
    """Tries the whole grid; returns the best parameters and their mean lap over ten fresh episodes [s].

    The best touch the walls least, and of those they are the quickest.

    Raises:
        ValueError: No setting finishes every episode.
    """
    best, best_lap, best_rank = None, math.inf, (math.inf, math.inf)
    for values in itertools.product(*GRID.values()):
        parameters = DriverParameters(**dict(zip(GRID, values, strict=True)))
        laps = drive_scripted(track, TUNING_SEEDS, parameters, constants)
        rank = (sum(lap.wall_contacts for lap in laps), _mean_lap(laps))
        if rank < best_rank:
            lap = _mean_lap(drive_scripted(track, LAP_SEEDS, parameters, constants))
            if math.isfinite(rank[1] + lap):
                best, best_lap, best_rank = parameters, lap, rank
    if best is None:
        raise ValueError(f"the scripted driver finishes track {track.name} with none of its settings: widen the road")
    return best, best_lap


def scripted_lap_time_s(track: Track, constants: VehicleConstants | None = None) -> float:
    """Mean lap of the tuned scripted driver [s]: stored for shipped tracks, tuned once per process for other ones.

    NaN, with a warning, for a track that the driver finishes with none of its settings.

    Args:
        track: The road.
        constants: Another car than the game's; nothing is stored for it.
    """
    return _tuned(track, constants)[1]


def scripted_lap(track: Track, constants: VehicleConstants | None = None) -> tuple[Lap, list[CarState], np.ndarray]:
    """One lap of the tuned scripted driver, seeded, with the car every 50 ms and the controls that acted on it.

    Args:
        track: The road.
        constants: Another car than the game's.

    Returns:
        The lap, the states, and [gas, brake, steer] from each of them on, shape (T, 3).
    """
    driver = ScriptedDriver(track, _tuned(track, constants)[0], constants)
    states: list[CarState] = []
    controls = [np.zeros(3, np.float32)]

    def act(state: CarState) -> np.ndarray:
        states.append(state)
        controls.append(driver.act(state))
        return controls[-1]

    lap = drive(track, act, LAP_SEEDS[0], _limit_s(track), constants)
    return lap, states, np.stack(controls[: len(states)])


@lru_cache(maxsize=1)
def racing_line(track: Track) -> FloatArray:
    """Line of least squared curvature between the borders, (x, z) [m] about every 2 m, shape (M, 2)."""
    centre = track.middle(_LINE_SPACING_M)
    tangent = np.gradient(centre, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    right = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    room = _room(track, centre)
    # The car starts in the middle.
    room[0] = 0.0
    line = np.empty_like(centre)
    for first in range(0, len(centre), _PIECE_POINTS):
        # Beyond its ends each piece looks as far as the line there can matter to it.
        begin, last = max(0, first - _OVERLAP_POINTS), first + _PIECE_POINTS
        near = slice(begin, last + _OVERLAP_POINTS)
        line[first:last] = _piece_of_line(centre[near], right[near], room[near])[first - begin : last - begin]
    return line


def main(arguments: Sequence[str]) -> None:
    """Tunes shipped tracks, all or those named, and stores the results in their data files."""
    for name in arguments or shipped_names():
        parameters, lap = tune(load_track(name))
        _store(name, {"parameters": asdict(parameters), "lap_time_s": round(lap, 3)})
        sys.stdout.write(f"{name}: {lap:.3f} s with {parameters}\n")


_TUNED: dict[tuple[str, VehicleConstants], tuple[DriverParameters, float]] = {}


def _tuned(track: Track, constants: VehicleConstants | None) -> tuple[DriverParameters, float]:
    """The best parameters on a track, and their mean lap [s], NaN when none finishes."""
    car = constants or VehicleConstants()
    if track.scripted is not None and car == VehicleConstants():
        return DriverParameters(**track.scripted.parameters), track.scripted.lap_time_s
    key = track.hash(), car
    if key not in _TUNED:
        try:
            _TUNED[key] = tune(track, car)
        except ValueError as error:
            logger.warning("no reference lap: %s", error)
            _TUNED[key] = DriverParameters(), math.nan
    return _TUNED[key]


def _limit_s(track: Track) -> float:
    """Race time at which an episode is given up [s]."""
    return 10.0 + track.length_m / 12.0


def _store(name: str, result: dict[str, Any]) -> None:
    """Writes the result into the track's file, keeping one block per line."""
    path = track_file(name)
    data = json.loads(path.read_text(encoding="utf-8"))
    data.setdefault("scripted", {})[name] = result
    parts = []
    for key, value in data.items():
        rows: list[str] = []
        if key == "blocks":
            rows = [json.dumps(block) for block in value]
        elif key == "scripted":
            rows = [f"{json.dumps(track)}: {json.dumps(value[track])}" for track in sorted(value)]
        brackets = "[]" if key == "blocks" else "{}"
        inner = ",\n".join(f"    {row}" for row in rows)
        text = f"{brackets[0]}\n{inner}\n  {brackets[1]}" if rows else json.dumps(value)
        parts.append(f"  {json.dumps(key)}: {text}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def _mean_lap(laps: Sequence[Lap]) -> float:
    """Infinite unless all finished."""
    times = [lap.finish_time_s for lap in laps]
    return math.inf if any(math.isnan(time) for time in times) else float(np.mean(times))


def _wrapped(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi


def _room(track: Track, centre: FloatArray) -> FloatArray:
    """How far the line may leave each point of the centre [m]; less where a wall stands before the border."""
    spacing = track.length_m / (len(centre) - 1)
    lap_m = round_m(track.centre_line[:, [0, 2]], track.width_m)
    to_wall = gaps_to_others(centre, spacing, lap_m, track.width_m) / 2
    return np.maximum(0.0, np.minimum(track.width_m / 2, to_wall) - BORDER_M - _CLEARANCE_M)


def _piece_of_line(centre: FloatArray, right: FloatArray, room: FloatArray) -> FloatArray:
    """Line of least squared curvature within ``room`` of each point, (x, z) [m], shape (M, 2)."""
    basis = _spline_basis(len(centre))
    # A coefficient acts on the points around its knot; it keeps to the least room that they have.
    limit = np.min(np.where(basis > 0.0, room[:, None], np.inf), axis=0)
    line = centre
    for _ in range(3):
        line = centre + right * (basis @ _least_curvature(centre, right, basis, line, limit))[:, None]
    return line


def _spline_basis(num_points: int) -> FloatArray:
    """Uniform cubic B-splines, a knot every few points, shape (num_points, K); rows sum to 1."""
    num_spans = max(1, math.ceil((num_points - 1) / _KNOT_EVERY))
    basis = np.zeros((num_points, num_spans + 3))
    place = np.arange(num_points) / _KNOT_EVERY
    span = np.minimum(place.astype(int), num_spans - 1)
    t = place - span
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for shift, part in enumerate(parts):
        basis[np.arange(num_points), span + shift] = part / 6
    return basis


def _least_curvature(
    centre: FloatArray, right: FloatArray, basis: FloatArray, line: FloatArray, room: FloatArray
) -> FloatArray:
    """Spline coefficients of the offset, within +-room, that minimise the squared curvature along ``line``."""
    step = np.linalg.norm(np.gradient(line, axis=0), axis=1)[1:-1, None]
    weight = step**-1.5
    bend = [weight * np.diff(right[:, [axis]] * basis, n=2, axis=0) for axis in (0, 1)]
    have = [weight[:, 0] * np.diff(centre[:, axis], n=2) for axis in (0, 1)]
    hessian = sum(matrix.T @ matrix for matrix in bend) + 1e-9 * np.eye(basis.shape[1])
    gradient = sum(matrix.T @ vector for matrix, vector in zip(bend, have, strict=True))
    return _bounded_minimum(np.asarray(hessian), np.asarray(gradient), room)


def _bounded_minimum(hessian: FloatArray, gradient: FloatArray, room: FloatArray) -> FloatArray:
    """Minimises x.H.x / 2 + g.x with |x| <= room: Newton steps on the free coordinates, projected, halved if worse."""

    def value(x: FloatArray) -> float:
        return float(0.5 * x @ hessian @ x + gradient @ x)

    point = np.zeros(len(gradient))
    for _ in range(60):
        slope = hessian @ point + gradient
        is_free = ~(((point >= room) & (slope < 0)) | ((point <= -room) & (slope > 0)))
        step = np.zeros(len(point))
        step[is_free] = -np.linalg.solve(hessian[np.ix_(is_free, is_free)], slope[is_free])
        size = 1.0
        while size > 1e-3 and value(np.clip(point + size * step, -room, room)) > value(point):
            size /= 2
        moved = np.clip(point + size * step, -room, room)
        if np.max(np.abs(moved - point)) < 1e-3:
            return moved
        point = moved
    return point


if __name__ == "__main__":
    main(sys.argv[1:])
