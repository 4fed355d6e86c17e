"""The lower bound: minimum-time optimal control of a car that is never slower than the simulator's.

Direct collocation (implicit midpoints) over the stations of the centre line, solved by IPOPT through CasADi.
States are the offset from the centre line, the direction relative to it, the speeds along the heading and to its right,
the yaw rate and the steering wheel; time is the integral of 1 / station speed.

What holds for the relaxed car, and why it only makes it faster than the car of ``tasks.sim.vehicle``:

* Controls change at any moment, by any part, without delay: every sequence of 20 Hz actions is one of these. Only the
  first 50 ms are lost, as the environment drives them with the default action whatever the policy does.
* Gas gives the full acceleration of the speed's range, less what the steer costs (as simulated). The ranges end late,
  by more than a tick: an upper envelope. Gas and brake together give less than gas at every speed.
* A pause of the gears still drives as with both pedals pressed, the best that a pause leaves. It is charged only where
  the car must shift: up to the first slow corner after the speed of a shift was first reached; and after a corner
  through which the fastest lap without pauses goes more than 20 % below the speed at which the gear is left. (A lap
  that keeps the gear there would have to be 20 % faster in the corner than the fastest. This is the one step that is
  argued by size.)
* The brake gives its law in any part of it. Rolling costs nothing; in the simulator it costs more than 1 m/s2.
* The yaw rate follows the steer by the simulated law with its time constant, the steer moves at its simulated rate, the
  sideways speed follows what grip gives as simulated.
* A slide, with gas, both pedals or the brake, has the simulated forces and accelerations. It may begin at any moment,
  and hold for any part of the time; in the simulator it needs both pedals in a corner faster than 198 km/h, so that
  here too it is only allowed from where full gas reaches that speed on.
* A slide ends as simulated. Above 2.6 m/s sideways no car of the simulator grips (it ends slides below 1.3 m/s, and no
  grip leads there), so what is not a slide by choice becomes one, with the force of a slide without brake and still
  with the pedals of grip: all of it well above, none of it up to 2.6 m/s. A slide with gas alone ends below 1.3 m/s, so
  its pull fades from 1.2 m/s down; in the simulator it lasts for the rest of a tick, worth some mm/s.
* The tables of a slide are rounded at their corners, so that there is more to choose from: drive and force without the
  brake up (at most 0.2 and 1.0 m/s2), force with it down (at most 0.7 m/s2). A force between both takes some of each,
  and gas alone pulls more than both pedals.
* The whole road: the body reaches to the wall, with the simulated drag of the border, but without its loss of grip.
* The lap begins 2 m behind the start, at the speed and time of full gas straight on, in any place and direction to
  which steering could have brought the car.
* The finish is crossed anywhere and in any direction.

What the bound does not speak of: laps that touch a wall (``search`` refuses them). IPOPT finds a local optimum, from
the line of least curvature on, in two ways of which the faster counts; that no other line is faster is not proven. A
hairpin after 300 m straight on, on a mesh of 6 m, takes 9.36 s in one way and 9.05 s in the other. On ``short`` a mesh
of 4 m gives 6.275 s, one of 2 m 6.304 s. Where slides keep IPOPT from converging in both ways there is no bound.

Both ends of a slide matter to IPOPT as much as to the bound. A slide with gas straight on would be as good as gas
alone, and a hundredth of grip, which pulls within 8 ms, would stop a slide at once; IPOPT shifts such shares back and
forth.
"""

from __future__ import annotations

import itertools
import logging
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.reference_lap.guide import DIRECTION, OFFSET, SIDEWAYS, SPEED, STATE, Guide
from benchmarks.reference_lap.road import road_of
from tasks.sim.reference_lap import STEP_S, stations_m
from tasks.sim.scripted_driver import racing_line
from tasks.sim.speed_profile import speed_profile
from tasks.sim.track import Track
from tasks.sim.vehicle import (
    DRIVE_NODES_MPS,
    FORCE_NODES_BRAKING_MPS,
    FORCE_NODES_FREE_MPS,
    SIDEWAYS_NODES_MPS,
    TICK_S,
    TURN_NODES_KMH,
    FloatArray,
    VehicleConstants,
    acceleration_at,
    turn_rate_at,
)

if TYPE_CHECKING:
    import casadi

logger = logging.getLogger(__name__)

MESH_M = 4.0
"""Distance of the mesh points [m]."""
_BEGIN_M = 2.0
_CORNER_MARGIN = 0.2
_STEP_WIDTH_MPS, _PAUSE_WIDTH_MPS = 0.15, 0.08
_CONTROLS = ("steer_rate", "border", "gas", "brake", "slide_gas", "slide_both", "slide_brake")
_STEER_RATE, _BORDER, _GAS, _BRAKE, _SLIDE_GAS, _SLIDE_BOTH, _SLIDE_BRAKE = range(len(_CONTROLS))
_PEDALS = slice(_GAS, _SLIDE_BRAKE + 1)
"""Shares of the time in each way to drive; what is left rolls."""
_SLIDES = slice(_SLIDE_GAS, _SLIDE_BRAKE + 1)
_CALM_S = 3e-6
"""Weight of steering and pressing about: it decides between ways to drive that are equally fast [s]."""
_BARRIERS = ("monotone", "adaptive")
"""Slides begin and end anywhere, which makes local optima; each way finds another, mostly within 0.2 %."""
_GUIDE_DEFECT = 0.05
"""What IPOPT may leave of the defects of a lap that only guides the search [m, rad, m/s, rad/s]."""
_SIDE_MPS = 0.5
"""Sideways speed over which the force of a slide changes its side."""
_ROUNDING_MPS = 0.3
"""Sideways speed over which the tables of a slide change their slope; IPOPT would go back and forth about a corner."""


class Bound(NamedTuple):
    """The fastest lap of the relaxed car."""

    lap_time_s: float | None
    """None: not found; the guide is then the fastest lap without slides and pauses, which bounds nothing."""
    guide: Guide


class OptimalControlError(ValueError):
    """Raised when no lap could be computed; the message says why."""


def minimum_time(track: Track, car: VehicleConstants, mesh_m: float = MESH_M) -> Bound:
    """Solves without slides and pauses, then in two ways with slides and the inevitable pauses: the faster counts.

    Raises:
        OptimalControlError: No CasADi, a corner too tight for the coordinates of the centre line, or not even near a
            lap without slides.
    """
    try:
        import casadi  # noqa: F401 (a missing one is told here, before anything is computed)
    except ImportError as error:
        raise OptimalControlError("the lower bound needs CasADi: pip install 'tm20-rl[oracle]'") from error
    problem = _Problem(track, car, mesh_m)
    no_pauses = np.zeros((len(car.upshift_kmh), problem.num_intervals))
    grips = problem.solve(problem.first_guess(), no_pauses, may_slide=False)
    charged = _inevitable_shifts(car, grips.state[:, SPEED])
    slides = []
    for barrier in _BARRIERS:
        try:
            slides.append(problem.solve(grips, charged, may_slide=True, barrier=barrier))
        except OptimalControlError as error:
            logger.warning("slides are too hard with the %s barrier: %s", barrier, error)
    if not slides:
        return problem.bound(grips)._replace(lap_time_s=None)
    return problem.bound(min(slides, key=lambda found: float(found.time_s[-1])))


class _Solution(NamedTuple):
    state: FloatArray
    """At the mesh points, shape (M, 6)."""
    control: FloatArray
    """Of each interval, shape (M - 1, 7)."""
    costate: FloatArray
    """Shape (M, 6)."""
    time_s: FloatArray
    """Race time at the mesh points [s], shape (M,)."""


class _Problem:
    """The nonlinear program of one track and car."""

    def __init__(self, track: Track, car: VehicleConstants, mesh_m: float) -> None:
        self._track, self._car, self._road = track, car, road_of(track)
        count = max(2, round((self._road.length_m - _BEGIN_M) / mesh_m))
        self._stations = np.linspace(_BEGIN_M, self._road.length_m, count + 1)
        self._interval_m = float(self._stations[1] - self._stations[0])
        self._curvature = np.diff(self._road.heading_at(self._stations)) / self._interval_m
        self._reach_m = self._road.wall_at_m - car.half_width
        tightest = float(np.abs(self._curvature).max())
        if tightest * self._reach_m >= 0.98:
            raise OptimalControlError(
                f"track {track.name} has a corner of radius {1 / tightest:.1f} m, the bound needs more than "
                f"{self._reach_m:.1f} m: the road there folds over its own middle"
            )
        self._begin_mps = math.sqrt(2 * car.acceleration[0] * _BEGIN_M)
        self._begin_s = STEP_S + self._begin_mps / car.acceleration[0]
        longest_m = np.cumsum(1.0 + self._reach_m * np.abs(self._curvature)) * self._interval_m
        self._slides_from = int(np.searchsorted(longest_m, _run_up_m(car)))

    @property
    def num_intervals(self) -> int:
        """Intervals of the mesh."""
        return len(self._curvature)

    def first_guess(self) -> _Solution:
        """The line of least curvature, at the scripted driver's speeds."""
        line = racing_line(self._track)
        station = stations_m(self._track.centre_line, line)
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
        step = np.gradient(line, axis=0)
        heading = np.unwrap(np.arctan2(step[:, 0], step[:, 1]))
        index = np.round(station / 0.1).astype(int)
        away, middle = line - self._road.points[index], self._road.heading[index]
        offset = away[:, 0] * np.cos(middle) - away[:, 1] * np.sin(middle)
        speed = speed_profile(line, self._car, steer_fraction=0.9)
        yaw_rate = np.gradient(heading, along) * speed
        full = np.array([turn_rate_at(self._car, value) for value in speed])
        rows = (offset, heading - middle, speed, 0.0 * speed, yaw_rate, np.clip(yaw_rate / full, -1.0, 1.0))
        state = np.stack([np.interp(self._stations, station, row) for row in rows], axis=1)
        state[:, SPEED] = np.maximum(state[:, SPEED], self._begin_mps)
        control = np.tile([0.0, 0.0, 0.5, 0.1, 0.0, 0.0, 0.0], (self.num_intervals, 1))
        return _Solution(state, control, np.zeros_like(state), np.zeros(len(state)))

    def solve(
        self, guess: _Solution, charged: FloatArray, *, may_slide: bool, barrier: str = _BARRIERS[0]
    ) -> _Solution:
        """The fastest lap near a guess; without slides, one that comes near it guides the search as well.

        Args:
            guess: Where to begin.
            charged: 1 where a shift to gear 2, 3, ... costs its pause, shape (gears - 1, intervals).
            may_slide: Whether slides are allowed where the car can be fast enough to begin one.
            barrier: How IPOPT comes nearer to the limits.
        """
        import casadi

        count, width = self.num_intervals, self._interval_m
        state = casadi.MX.sym("state", len(STATE), count + 1)
        control = casadi.MX.sym("control", len(_CONTROLS), count)
        law = self._law().map(count)
        given = (control, self._curvature[None], charged)
        slope, slowness = law((state[:, :-1] + state[:, 1:]) / 2, state[SIDEWAYS, 1:], *given)
        defects = state[:, 1:] - state[:, :-1] - width * slope
        times = width * slowness
        reach = self._reach().map(count)
        limits = [reach(state[:, :-1], control), reach(state[:, 1:], control), casadi.sum1(control[_PEDALS, :])]
        unknowns = casadi.veccat(state, control)
        calm = _CALM_S * (
            casadi.sumsqr(control[_STEER_RATE, :] / self._car.steer_slew) + casadi.sumsqr(control[_PEDALS, :])
        )
        program: Any = {"x": unknowns, "f": casadi.sum2(times) + calm, "g": casadi.veccat(defects, *limits)}
        quiet: Any = {"ipopt.print_level": 0, "print_time": 0, "ipopt.sb": "yes", "ipopt.tol": 1e-6}
        quiet |= {"ipopt.max_iter": 1000, "ipopt.acceptable_tol": 1e-4, "ipopt.acceptable_iter": 5}
        quiet |= {"ipopt.mu_strategy": barrier}
        solver = casadi.nlpsol("lap", "ipopt", program, quiet)
        found = solver(x0=np.concatenate([guess.state.ravel(), guess.control.ravel()]), **self._limits(may_slide))
        stats = solver.stats()
        if not stats["success"] and (may_slide or stats["iterations"]["inf_pr"][-1] > _GUIDE_DEFECT):
            raise OptimalControlError(f"no fastest lap of track {self._track.name}: {stats['return_status']}")
        values = np.array(found["x"]).ravel()
        states = values[: (count + 1) * len(STATE)].reshape(-1, len(STATE))
        controls = values[states.size :].reshape(-1, len(_CONTROLS))
        slopes = -np.array(found["lam_g"]).ravel()[: count * len(STATE)].reshape(-1, len(STATE))
        passed = np.array(casadi.Function("times", [unknowns], [times])(values)).ravel()
        time_s = self._begin_s + np.concatenate([[0.0], np.cumsum(passed)])
        return _Solution(states, controls, np.concatenate([slopes[:1], slopes]), time_s)

    def bound(self, found: _Solution) -> Bound:
        """The result, with the start of the lap before the mesh."""
        control = np.concatenate([found.control, found.control[-1:]])
        gas = control[:, [_GAS, _SLIDE_GAS, _SLIDE_BOTH]].sum(axis=1)
        brake = control[:, [_BRAKE, _SLIDE_BOTH, _SLIDE_BRAKE]].sum(axis=1)
        rows = (self._stations, found.time_s, found.state, found.costate, gas, brake)
        first = np.zeros(len(STATE))
        heads = (0.0, STEP_S, first, found.costate[0], 1.0, 0.0)
        guide = Guide(*(np.concatenate([np.asarray(head)[None], row]) for head, row in zip(heads, rows, strict=True)))
        return Bound(float(found.time_s[-1]), guide)

    def _law(self) -> casadi.Function:
        """Slopes of the state over the station, and the time per metre, from the state in the middle of an interval.

        The sideways speed settles within a part of an interval: what pulls it is taken from its value at the end.
        """
        import casadi

        car = self._car
        state, control = casadi.SX.sym("x", len(STATE)), casadi.SX.sym("c", len(_CONTROLS))
        settling = casadi.SX.sym("w")
        curvature, charged = casadi.SX.sym("k"), casadi.SX.sym("p", len(car.upshift_kmh))
        offset, direction, speed, sideways, yaw_rate, steer = casadi.vertsplit(state)
        steer_rate, border, gas, brake, slide_gas, slide_both, slide_brake = casadi.vertsplit(control)
        per_steer = _table(SIDEWAYS_NODES_MPS, car.sideways_per_steer, speed) + car.sideways_braking * brake
        gripping = per_steer * steer - _table(SIDEWAYS_NODES_MPS, car.sideways_per_turn, speed) * yaw_rate
        aside = casadi.sqrt(sideways**2 + _SIDE_MPS**2)
        free = _rounded(FORCE_NODES_FREE_MPS, car.slide_force_free, aside)
        braked = -_rounded(FORCE_NODES_BRAKING_MPS, tuple(-force for force in car.slide_force_braking), aside)
        braking = slide_both + slide_brake
        # Faster sideways than grip breaks at, what does not slide on purpose slides all the same, more and more.
        over = casadi.fmax(0, (sideways / car.slide_from_sideways) ** 2 - 1) ** 2
        sliding = slide_gas + braking + (1 - slide_gas - braking) * over / (1 + over)
        force = ((sliding - braking) * free + braking * braked) * sideways / aside
        pushed = (1 - sliding) * (gripping - settling) / car.sideways_lag_s - force - sliding * speed * yaw_rate
        lost = casadi.fmax(car.steer_loss, car.steer_loss_slow - car.steer_loss_fade * speed) * steer**2
        none = casadi.DM.zeros(len(car.upshift_kmh))
        pull = gas * (_full_gas(car, speed, charged) - lost)
        drive = _rounded(DRIVE_NODES_MPS, car.slide_drive, aside)
        # A slide that is not braked ends below a sideways speed: it pulls less and less there.
        ended = casadi.fmax(0, 1 - (aside / car.slide_until_sideways) ** 2) ** 2
        pull += slide_gas * (_full_gas(car, speed, none) + drive) * (1 - ended)
        pull += slide_both * (car.both_pedals - car.both_pedals_per_speed * speed)
        hold = brake * casadi.fmax(car.brake_slow, car.brake_per_speed * speed)
        hold += slide_brake * car.brake_sliding_per_speed * speed
        turn = steer * _table(TURN_NODES_KMH, car.turn_rate, 3.6 * speed)
        along = (speed * casadi.cos(direction) - sideways * casadi.sin(direction)) / (1 - offset * curvature)
        change = casadi.vertcat(
            speed * casadi.sin(direction) + sideways * casadi.cos(direction),
            yaw_rate - curvature * along,
            pull - hold - car.off_road_drag * border * speed + yaw_rate * sideways,
            pushed,
            (turn - yaw_rate) / car.yaw_lag_s,
            steer_rate,
        )
        return casadi.Function("law", [state, settling, control, curvature, charged], [change / along, 1 / along])

    def _reach(self) -> casadi.Function:
        """How far the body reaches over what its part of the border allows, at its four corners."""
        import casadi

        state, control = casadi.SX.sym("x", len(STATE)), casadi.SX.sym("c", len(_CONTROLS))
        length, width = self._car.half_length, self._car.half_width
        room = (self._road.wall_at_m - self._road.border_at_m) * control[_BORDER]
        ahead, aside = length * casadi.sin(state[DIRECTION]), width * casadi.cos(state[DIRECTION])
        corners = [side * state[OFFSET] + end * ahead + aside - room for side in (1, -1) for end in (1, -1)]
        return casadi.Function("reach", [state, control], [casadi.vertcat(*corners)])

    def _limits(self, may_slide: bool) -> dict[str, FloatArray]:
        """Of all unknowns and constraints; where no law of the car stands behind one, it is wider than any lap."""
        count, slew = self.num_intervals, self._car.steer_slew
        low = np.tile([-self._reach_m, -1.3, 3.0, -40.0, -2.5, -1.0], (count + 1, 1))
        high = np.tile([self._reach_m, 1.3, 170.0, 40.0, 2.5, 1.0], (count + 1, 1))
        speed = self._begin_mps
        low[0], high[0] = [-0.15, -0.2, speed, -1.0, -1.0, -1.0], [0.15, 0.2, speed, 1.0, 1.0, 1.0]
        low_controls = np.tile([-slew, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], (count, 1))
        high_controls = np.tile([slew, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], (count, 1))
        high_controls[: self._slides_from if may_slide else count, _SLIDES] = 0.0
        defects = np.zeros(len(STATE) * count)
        corners, pedals = np.full(8 * count, self._road.border_at_m), np.ones(count)
        return {
            "lbx": np.concatenate([low.ravel(), low_controls.ravel()]),
            "ubx": np.concatenate([high.ravel(), high_controls.ravel()]),
            "lbg": np.concatenate([defects, np.full(8 * count, -np.inf), 0 * pedals]),
            "ubg": np.concatenate([defects, corners, pedals]),
        }


def _run_up_m(car: VehicleConstants) -> float:
    """Way at full gas, from rest and without pauses, after which the car can be fast enough for a slide [m]."""
    speeds = np.linspace(0.0, car.slide_from_mps, 1000)
    steered = np.interp(speeds, SIDEWAYS_NODES_MPS, car.sideways_per_steer)
    turned = np.interp(speeds, SIDEWAYS_NODES_MPS, car.sideways_per_turn)
    most = np.abs(steered) + np.abs(turned) * np.array([turn_rate_at(car, speed) for speed in speeds])
    if (most > car.slide_from_sideways).any():
        return 0.0  # this car's grip is broken by steering
    middle = (speeds[1:] + speeds[:-1]) / 2
    return float(sum(speed * (speeds[1] - speeds[0]) / acceleration_at(car, speed) for speed in middle))


def _inevitable_shifts(car: VehicleConstants, speed: FloatArray) -> FloatArray:
    """Where each shift up costs its pause, 1 or 0, shape (gears - 1, M - 1); from the speeds of a lap without them."""
    slow = [i for i in range(1, len(speed) - 1) if speed[i] <= speed[i - 1] and speed[i] < speed[i + 1]]
    ends = [0, *slow, len(speed) - 1]
    charged = np.zeros((len(car.upshift_kmh), len(speed) - 1))
    for gear, (up, down) in enumerate(zip(car.upshift_kmh, car.downshift_kmh, strict=True)):
        is_low = True
        for begin, end in itertools.pairwise(ends):
            is_low |= 3.6 * speed[begin] < (1.0 - _CORNER_MARGIN) * down
            charged[gear, begin:end] = is_low
            # Within the margin of the speed of the shift it stays open whether the car has shifted.
            is_low &= bool(3.6 * speed[begin : end + 1].max() < (1.0 - _CORNER_MARGIN) * up)
    return charged


def _full_gas(car: VehicleConstants, speed: Any, charged: Any) -> Any:
    """Upper envelope of the acceleration of full gas [m/s2], with the pauses that are charged."""
    pull = car.acceleration[0]
    for until_kmh, low, high in zip(
        car.acceleration_until_kmh, car.acceleration[:-1], car.acceleration[1:], strict=True
    ):
        late_mps = low * TICK_S + 1.5 * _STEP_WIDTH_MPS
        pull += (high - low) * _risen(speed, until_kmh / 3.6 + late_mps, _STEP_WIDTH_MPS)
    steps = pull
    for gear, (up_kmh, pause_s) in enumerate(zip(car.upshift_kmh, car.shift_pause_s, strict=True)):
        up_mps, width = up_kmh / 3.6, _PAUSE_WIDTH_MPS
        left = max(0.0, car.both_pedals - car.both_pedals_per_speed * up_mps)
        gained = left * pause_s
        if gained > 4 * width:
            inside = _risen(speed, up_mps + width, width) * (1 - _risen(speed, up_mps + gained - width, width))
            pull -= charged[gear] * inside * (steps - left)
    return pull


def _risen(value: Any, at: float, width: float) -> Any:
    """0 below, 1 above, smooth over some widths."""
    import casadi

    return 0.5 * (1 + casadi.tanh((value - at) / width))


def _table(nodes: tuple[float, ...], values: tuple[float, ...], at: Any) -> Any:
    """Linear between the nodes and constant beyond them, as the simulator's tables."""
    import casadi

    found = values[0]
    for low, high, first, last in zip(nodes[:-1], nodes[1:], values[:-1], values[1:], strict=True):
        found += (last - first) / (high - low) * (casadi.fmin(casadi.fmax(at, low), high) - low)
    return found


def _rounded(nodes: tuple[float, ...], values: tuple[float, ...], at: Any) -> Any:
    """Smooth upper envelope of ``_table``: its corners are rounded over ``_ROUNDING_MPS``."""
    import casadi

    slopes = np.concatenate([[0.0], np.diff(values) / np.diff(nodes), [0.0]])
    found = values[0]
    for node, change in zip(nodes, np.diff(slopes).tolist(), strict=True):
        above = 0.5 * (at - node + casadi.sqrt((at - node) ** 2 + _ROUNDING_MPS**2))
        found += change * (above if change > 0 else above - 0.5 * _ROUNDING_MPS)
    return found
