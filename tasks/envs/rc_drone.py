"""``task=RCDrone``: the dummy RC drone of real-time gym's tutorial, in virtual time and in real time.

``DummyRCDrone`` is the device, ``RCDroneInterface`` the task around it. ``tasks.registry`` builds them from an
``RCDroneConfig``, whose values are the tutorial's.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from tasks.config import RCDroneConfig
from tasks.envs.interface import TaskInterface
from tasks.experience.observation import Field, Info, ObservationSpec
from tasks.game.clock import Clock

MAX_SPEED_MPS = 2.0
REACHED_M = 0.01
"""Nearer than this the target is reached [m]."""
TARGET_RANGE_M = 0.5
"""Targets are drawn from U(-this, this) along both axes."""
PICTURE_SIZE = 400
"""Width and height of the picture of the 2 x 2 m world [px]."""
DRONE_COLOUR, TARGET_COLOUR = (0, 0, 255), (255, 0, 0)


class Letter(NamedTuple):
    """A command or a report on its way, or the newest that has arrived. Times are in ns, so that they add exactly."""

    arrives_at: int
    sent_at: int
    x: float
    y: float


class DummyRCDrone:
    """A drone in a square world, flown by velocities that travel to it; reports of its position travel back.

    Every 10 ms it takes the newest command that has arrived, reports where it is, and moves. Each command and each
    report travels U(20 ms, 50 ms); one that was sent before the newest that has arrived is ignored. A position is thus
    20 to 60 ms old and knows of commands that are 40 to 110 ms old. It flies on while nobody looks: what happened since
    the last call is made up for at the next one. May be used from several threads.

    Args:
        clock: Tells the time; virtual or wall.
        rng: Draws the travel times.
    """

    tick_ns = 10_000_000
    travel_ns = (20_000_000, 50_000_000)
    max_speed_mps = MAX_SPEED_MPS
    world_size_m = 1.0
    """The world reaches from minus this to this along both axes."""

    def __init__(self, clock: Clock, rng: np.random.Generator) -> None:
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()
        now = now_ns(self._clock)
        self._next_tick_at = now
        self._commands: list[Letter] = []
        self._reports: list[Letter] = []
        # Older than all that is to come, at this very moment too.
        self._flown = Letter(now, now - 1, 0.0, 0.0)
        self._seen = Letter(now, now - 1, 0.0, 0.0)
        self._x = self._y = 0.0

    def send_control(self, vel_x: float, vel_y: float) -> None:
        """Sends a velocity [m/s]; one faster than ``max_speed_mps`` keeps its direction only."""
        speed = math.hypot(vel_x, vel_y)
        share = self.max_speed_mps / speed if speed > self.max_speed_mps else 1.0
        with self._lock:
            now = now_ns(self._clock)
            self._advance(now)
            self._commands.append(Letter(now + self._travel(), now, float(vel_x) * share, float(vel_y) * share))

    def get_observation(self) -> tuple[float, float]:
        """The newest position that has arrived [m]."""
        with self._lock:
            now = now_ns(self._clock)
            self._advance(now)
            self._seen, self._reports = _newest(self._seen, self._reports, now)
            return self._seen.x, self._seen.y

    def state(self) -> dict[str, Any]:
        """Everything that decides what happens from now on, as plain data; times count from now [ns]."""
        with self._lock:
            now = now_ns(self._clock)
            self._advance(now)

            def shifted(letter: Letter) -> list[float]:
                return [letter.arrives_at - now, letter.sent_at - now, letter.x, letter.y]

            return {
                "position": [self._x, self._y],
                "next_tick": self._next_tick_at - now,
                "flown": shifted(self._flown),
                "seen": shifted(self._seen),
                "commands": [shifted(letter) for letter in self._commands],
                "reports": [shifted(letter) for letter in self._reports],
                "rng": self._rng.bit_generator.state,
            }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` gave."""
        with self._lock:
            now = now_ns(self._clock)

            def shifted(entry: list[float]) -> Letter:
                return Letter(int(entry[0]) + now, int(entry[1]) + now, entry[2], entry[3])

            self._x, self._y = state["position"]
            self._next_tick_at = int(state["next_tick"]) + now
            self._flown, self._seen = shifted(state["flown"]), shifted(state["seen"])
            self._commands = [shifted(entry) for entry in state["commands"]]
            self._reports = [shifted(entry) for entry in state["reports"]]
            self._rng.bit_generator.state = state["rng"]

    def _advance(self, now: int) -> None:
        """Everything that has happened up to now, tick by tick."""
        while self._next_tick_at <= now:
            at = self._next_tick_at
            self._flown, self._commands = _newest(self._flown, self._commands, at)
            self._seen, self._reports = _newest(self._seen, self._reports, at)
            self._reports.append(Letter(at + self._travel(), at, self._x, self._y))
            self._x = self._moved(self._x, self._flown.x)
            self._y = self._moved(self._y, self._flown.y)
            self._next_tick_at += self.tick_ns

    def _moved(self, position: float, velocity: float) -> float:
        return min(max(position + velocity * self.tick_ns * 1e-9, -self.world_size_m), self.world_size_m)

    def _travel(self) -> int:
        low, high = self.travel_ns
        return int(self._rng.integers(low, high, endpoint=True))


class RCDroneInterface(TaskInterface):
    """Fly to a target as fast as possible.

    Action: velocity along x and y, each in [-1, 1] of 2 m/s; the speed is at most 2 m/s.

    Observation: ``pos_x``, ``pos_y``, the newest position that has arrived [m], in [-1, 1]; ``tar_x``, ``tar_y``, the
    target [m], in [-0.5, 0.5]; each of shape (1,), then the action buffer.

    Reward: minus the distance to the target [m]. An episode is terminated when a position nearer than 1 cm arrives, and
    truncated after 100 steps. A reset only draws another target: the drone continues to fly.

    Args:
        config: The task.
        clock: Tells the time; virtual or wall.
    """

    action_meaning = ("velocity along x, of 2 m/s", "velocity along y, of 2 m/s")

    def __init__(self, config: RCDroneConfig, clock: Clock) -> None:
        self.observation_spec = self.spec_for(config)
        self._clock = clock
        self._drone: DummyRCDrone | None = None
        self._target = np.zeros(2, np.float32)
        self._position = np.zeros(2, np.float32)
        self._started_at_ns = 0
        self._time_s = 0.0
        self._start_distance = 1.0
        self._distance = 1.0
        self._episode_return = 0.0
        self._num_steps = 0

    @classmethod
    def spec_for(cls, config: RCDroneConfig) -> ObservationSpec:
        """Position and target, each number a field as in the tutorial."""
        fields = [Field(f"pos_{axis}", (1,), low=-1.0, high=1.0, unit="m") for axis in "xy"]
        fields += [Field(f"tar_{axis}", (1,), low=-TARGET_RANGE_M, high=TARGET_RANGE_M, unit="m") for axis in "xy"]
        rtgym = config.rtgym
        return ObservationSpec(tuple(fields), 2, rtgym.act_buf_len if rtgym.act_in_obs else 0, rtgym.reset_act_buf)

    @classmethod
    def from_config(cls, config: RCDroneConfig, clock: Clock) -> Self:
        """Builds the task; the drone starts at the first reset."""
        return cls(config, clock)

    def send_control(self, control: np.ndarray | None) -> None:
        """Sends a velocity; None touches nothing."""
        if control is not None and self._drone is not None:
            self._drone.send_control(MAX_SPEED_MPS * float(control[0]), MAX_SPEED_MPS * float(control[1]))

    def reset(self, seed: int | None = None, options: Info | None = None) -> tuple[list[np.ndarray], Info]:
        """Draws a target; the first call also starts the drone, whose travel times are drawn by a generator of its own.

        Args:
            seed: Of the target, and of the drone that the first call starts.
            options: ``start``: what ``start`` gave, for a drone that goes on from there.
        """
        rng = np.random.default_rng(seed)
        if self._drone is None:
            self._drone = DummyRCDrone(self._clock, np.random.default_rng([_DRONE_STREAM, seed or 0]))
        if options is not None and options.get("start") is not None:
            self._drone.load_state(options["start"]["drone"])
        self._target = rng.uniform(-TARGET_RANGE_M, TARGET_RANGE_M, 2).astype(np.float32)
        self._look()
        self._start_distance = max(self._distance, REACHED_M)
        self._started_at_ns = now_ns(self._clock)
        self._time_s = self._episode_return = 0.0
        self._num_steps = 0
        return self._fields(), {"progress": 0.0}

    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, Info]:
        """Looks where the drone was last reported."""
        self._look()
        self._time_s = (now_ns(self._clock) - self._started_at_ns) * 1e-9
        self._num_steps += 1
        reward = -self._distance
        self._episode_return += reward
        return self._fields(), reward, self._has_arrived, {"progress": self._progress}

    def start(self) -> dict[str, Any] | None:
        """The drone as it flies now; None before the first reset, which starts it."""
        return None if self._drone is None else {"drone": self._drone.state()}

    def wait(self) -> None:
        """Hovers."""
        self.send_control(self.get_default_action())

    def episode_statistics(self) -> dict[str, float]:
        """The time to the target [s] is reported as ``lap_time_s``."""
        return {
            "return": self._episode_return,
            "length": float(self._num_steps),
            "finished": float(self._has_arrived),
            "lap_time_s": self._time_s if self._has_arrived else math.nan,
            "progress": self._progress,
        }

    def render(self) -> np.ndarray:
        """The world from above: the drone as a ring, the target as a dot."""
        import cv2

        picture = np.full((PICTURE_SIZE, PICTURE_SIZE, 3), 255, np.uint8)
        position = self._drone.get_observation() if self._drone is not None else (0.0, 0.0)
        cv2.circle(picture, _pixel(*position), 10, DRONE_COLOUR, 1)
        cv2.circle(picture, _pixel(*self._target.tolist()), 5, TARGET_COLOUR, -1)
        return picture

    def close(self) -> None:
        """Releases the drone."""
        self._drone = None

    @property
    def _has_arrived(self) -> bool:
        return self._distance < REACHED_M

    @property
    def _progress(self) -> float:
        """Covered part of the distance to the target; 1 when reached."""
        return 1.0 if self._has_arrived else min(max(1.0 - self._distance / self._start_distance, 0.0), 1.0)

    def _look(self) -> None:
        assert self._drone is not None
        self._position = np.array(self._drone.get_observation(), np.float32)
        self._distance = float(np.linalg.norm(self._position - self._target))

    def _fields(self) -> list[np.ndarray]:
        return [np.array([value], np.float32) for value in (*self._position, *self._target)]


def now_ns(clock: Clock) -> int:
    """Current time [ns]: whole numbers, which add without rounding."""
    return round(clock.now() * 1e9)


_DRONE_STREAM = 2
"""Separates the drone's draws from those of its targets, which use the plain episode seed."""


def _newest(known: Letter, on_the_way: list[Letter], now: int) -> tuple[Letter, list[Letter]]:
    """What was sent last of all that has arrived by now, and what has not arrived yet."""
    if not any(letter.arrives_at <= now for letter in on_the_way):
        return known, on_the_way
    for letter in on_the_way:
        if letter.arrives_at <= now and letter.sent_at > known.sent_at:
            known = letter
    return known, [letter for letter in on_the_way if letter.arrives_at > now]


def _pixel(x: float, y: float) -> tuple[int, int]:
    half = PICTURE_SIZE // 2
    return int(x * half) + half, int(y * half) + half
