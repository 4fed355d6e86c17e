"""Your own real-time task: rtgym's tutorial drone, in virtual time, in real time, and as a task of train.py.

python docs/examples/own_interface.py      one episode on each clock

``docs/real_time.md`` explains it. Replace ``DummyRCDrone`` by your device; everything else can stay.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np

import tasks
from tasks import registry
from tasks.config import RtgymConfig, TaskConfig
from tasks.envs.interface import TaskInterface
from tasks.envs.rc_drone import DummyRCDrone
from tasks.envs.realtime import RealTimeEnv, TaskEnv, VirtualTimeEnv, make_wall_env
from tasks.experience.observation import Field, ObservationSpec
from tasks.game.clock import Clock, VirtualClock, WallClock

Policy = Callable[[tuple[np.ndarray, ...]], np.ndarray]
MAX_SPEED_MPS = 2.0
TIMING: dict[str, Any] = {
    "time_step_duration": 0.05,
    "start_obs_capture": 0.05,
    "act_buf_len": 4,  # 1 + ceil((50 ms to the drone + 60 ms age of a report) / 50 ms)
    "ep_max_length": 100,
    "reset_act_buf": False,  # a reset moves the target and nothing else: the drone still feels the last actions
    "wait_on_done": False,
}


class DroneInterface(TaskInterface):
    """Fly to a target. Action: velocity along x and y, each in [-1, 1] of 2 m/s; reward: minus the distance [m]."""

    def __init__(self, config: RtgymConfig, clock: Clock) -> None:
        """Touches no device: environments are often built just to read their spaces."""
        self.observation_spec = self.spec_for(config)
        self._clock = clock
        self._drone: DummyRCDrone | None = None
        self._target = np.zeros(2)
        self._start_distance = 1.0
        self._distances: list[float] = []

    @classmethod
    def spec_for(cls, config: RtgymConfig | TaskConfig) -> ObservationSpec:
        """The fields in order; rtgym's action buffer is appended to them."""
        rtgym = config.rtgym if isinstance(config, TaskConfig) else config
        fields = (Field("position", (2,), low=-1.0, high=1.0), Field("target", (2,), low=-0.5, high=0.5))
        return ObservationSpec(fields, 2, rtgym.act_buf_len, rtgym.reset_act_buf)

    @classmethod
    def from_config(cls, config: TaskConfig, clock: Clock) -> Self:
        """Called by ``tasks.make`` and train.py."""
        return cls(config.rtgym, clock)

    def send_control(self, control: np.ndarray | None) -> None:
        """Called at the start of every step; must return at once."""
        if control is not None and self._drone is not None:
            self._drone.send_control(*(MAX_SPEED_MPS * np.asarray(control, np.float64)))

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[list[np.ndarray], dict]:
        """A new target; the first call connects to the drone."""
        rng = np.random.default_rng(seed)
        if self._drone is None:
            self._drone = DummyRCDrone(self._clock, rng)
        self._target = rng.uniform(-0.5, 0.5, 2)
        position = np.array(self._drone.get_observation())
        self._start_distance = max(float(np.linalg.norm(self._target - position)), 1e-6)
        self._distances = []
        return self._fields(position), {"progress": 0.0}

    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, dict[str, Any]]:
        """Called once a step, ``start_obs_capture`` after its beginning."""
        assert self._drone is not None
        position = np.array(self._drone.get_observation())
        distance = float(np.linalg.norm(self._target - position))
        self._distances.append(distance)
        return self._fields(position), -distance, distance < 0.01, {"progress": self._progress()}

    def wait(self) -> None:
        """Called when the environment is paused: the drone hovers."""
        self.send_control(self.get_default_action())

    def episode_statistics(self) -> dict[str, float]:
        """Statistics of the episode, for the console, TensorBoard and the choice of best.pth."""
        has_arrived = self._distances[-1] < 0.01
        return {
            "return": -sum(self._distances),
            "length": float(len(self._distances)),
            "finished": float(has_arrived),
            "lap_time_s": len(self._distances) * TIMING["time_step_duration"] if has_arrived else math.nan,
            "progress": self._progress(),
        }

    def close(self) -> None:
        """Releases the device."""
        self._drone = None

    def _fields(self, position: np.ndarray) -> list[np.ndarray]:
        return [position.astype(np.float32), self._target.astype(np.float32)]

    def _progress(self) -> float:
        return min(max(1.0 - self._distances[-1] / self._start_distance, 0.0), 1.0)


def fly_blindly(observation: tuple[np.ndarray, ...]) -> np.ndarray:
    """A policy that treats the old observation as the present: it corrects errors that are already corrected."""
    position, target, *_ = observation
    return np.clip((target - position) * 5.0, -1.0, 1.0)


def fly_ahead(observation: tuple[np.ndarray, ...]) -> np.ndarray:
    """A policy that aims from the place where the drone will be when the sent actions have acted."""
    position, target, *sent = observation
    remaining = [0.0, 0.5, 1.0, 1.0]  # steps that each of them still has to act, on average, oldest first
    steps = sum(share * action for share, action in zip(remaining, sent, strict=True))
    arrives_at = position + MAX_SPEED_MPS * TIMING["time_step_duration"] * steps
    return np.clip((target - arrives_at) * 5.0, -1.0, 1.0)


def virtual_env() -> RealTimeEnv:
    """As fast as the processor allows, and the same for the same seed."""
    clock = VirtualClock()
    config = RtgymConfig(**TIMING)
    return VirtualTimeEnv(DroneInterface(config, clock), config, clock)


def wall_env() -> RealTimeEnv:
    """In real time, through rtgym."""
    config = RtgymConfig(**TIMING)
    return make_wall_env(DroneInterface(config, WallClock()), config)


def fly(env: TaskEnv, policy: Policy, episodes: int) -> tuple[int, float]:
    """Flies and returns how many episodes ended at the target, and the mean number of steps of all."""
    arrived = num_steps = 0
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        terminated = truncated = False
        while not (terminated or truncated):
            observation, _, terminated, truncated, _ = env.step(policy(observation))
            num_steps += 1
        arrived += terminated
    return arrived, num_steps / episodes


# Only tasks.make("Drone") and train.py need this line, to find the class by name.
registry.register("Drone", f"{__name__}:DroneInterface", defaults={"game": "sim", "rtgym": TIMING})


def main() -> None:
    """Flies with each environment and policy."""
    flights = (
        ("virtual time", virtual_env(), fly_ahead, 20),
        ("virtual time, blind to the sent actions", virtual_env(), fly_blindly, 20),
        ("real time", wall_env(), fly_ahead, 3),
        ("by name", tasks.make("Drone", clock="virtual"), fly_ahead, 20),
    )
    for name, env, policy, episodes in flights:
        with contextlib.closing(env):
            arrived, mean_steps = fly(env, policy, episodes)
        print(f"{name}: {arrived} of {episodes} arrived, {mean_steps:.1f} steps on average")


if __name__ == "__main__":
    main()
