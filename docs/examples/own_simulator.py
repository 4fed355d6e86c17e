"""A simulator without a gym interface, as a task: one at a time in workers, or hundreds at once for PPO.

python train.py task=Boat 'plugins=[docs/examples/own_simulator.py]'
python train.py task=Boat train=PPO 'plugins=[docs/examples/own_simulator.py]' train.params.config.num_actors=256

``docs/own_environments.md`` explains it. ``Boats`` stands for your simulator, which you would import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tasks import registry
from tasks.config import AnyTaskConfig
from tasks.envs.batch import BatchStep
from tasks.envs.realtime import TaskEnv
from tasks.experience.observation import Field, ObservationSpec

SPEC = ObservationSpec(
    fields=(
        Field("buoy", (2,), low=-200.0, high=200.0, scale=20.0),  # ahead and to the left of the bow [m]
        Field("speed", (1,), low=-10.0, high=10.0, scale=4.0),  # [m/s]
    ),
    action_size=2,  # engine, rudder
    act_buf_len=0,  # the simulator waits for the action, so nothing is on its way
)


class Boats:
    """The simulator: N boats on still water, each with a buoy at the origin as its target."""

    tick_s = 0.5

    def __init__(self, count: int) -> None:
        self.position = np.zeros((count, 2))
        self.heading = np.zeros(count)
        self.speed = np.zeros(count)

    def place(self, chosen: np.ndarray, position: np.ndarray, heading: np.ndarray) -> None:
        """Puts some boats at these positions, at rest."""
        self.position[chosen], self.heading[chosen], self.speed[chosen] = position, heading, 0.0

    def advance(self, engine: np.ndarray, rudder: np.ndarray) -> None:
        """Simulates half a second."""
        self.speed += self.tick_s * (2.0 * engine - 0.5 * self.speed)
        self.heading += self.tick_s * 0.25 * rudder * self.speed
        self.position += self.tick_s * self.speed[:, None] * self._bow()

    def distance(self) -> np.ndarray:
        """Distances to the buoy [m]."""
        return np.linalg.norm(self.position, axis=1)

    def bearing(self) -> np.ndarray:
        """Position of the buoy relative to the bow, ahead and to the left [m], shape (N, 2)."""
        bow = self._bow()
        left = np.stack((-bow[:, 1], bow[:, 0]), axis=1)
        return -np.stack(((self.position * bow).sum(1), (self.position * left).sum(1)), axis=1)

    def _bow(self) -> np.ndarray:
        return np.stack((np.cos(self.heading), np.sin(self.heading)), axis=1)


@dataclass
class BoatConfig(AnyTaskConfig):
    """Your keys of ``task.…``."""

    name: str = "Boat"
    """Registered task."""
    start_distance_m: float = 20.0
    """How far from the buoy an episode begins [m]."""
    ep_max_length: int = 100
    """Steps after which an episode is truncated."""

    def __post_init__(self) -> None:
        if self.start_distance_m <= 2.0:
            raise ValueError(f"task.start_distance_m must be > 2 m, got {self.start_distance_m}")


class BoatFleet:
    """Many boats at once (``tasks.envs.batch.BatchSimulator``). Reward: metres by which the buoy came nearer."""

    observation_spec = SPEC

    def __init__(self, config: BoatConfig, num_envs: int, seed: int) -> None:
        self._config = config
        self._boats = Boats(num_envs)
        self.rng = np.random.default_rng(seed)
        self._steps = np.zeros(num_envs, np.int64)
        self._returns = np.zeros(num_envs)

    def reset(self) -> Mapping[str, np.ndarray]:
        """Starts an episode of every boat."""
        self._begin(np.arange(len(self._steps)))
        return self.observe()

    def step(self, actions: np.ndarray) -> BatchStep:
        """One tick for all boats; those that arrived or ran out of time begin a new episode."""
        before = self._boats.distance()
        self._boats.advance(*np.clip(actions, -1.0, 1.0).astype(np.float64).T)
        reward = before - self._boats.distance()
        self._steps += 1
        self._returns += reward
        terminated = self._boats.distance() < 2.0
        truncated = (self._steps >= self._config.ep_max_length) & ~terminated
        last = self.observe()
        ended = np.flatnonzero(terminated | truncated)
        episodes = [(index, self._statistics(index, bool(terminated[index]))) for index in ended.tolist()]
        self.last_observation = last
        self._begin(ended)
        return BatchStep(self.observe(), reward, terminated, truncated, episodes)

    def observe(self) -> Mapping[str, np.ndarray]:
        """The fields of all boats."""
        return {
            "buoy": self._boats.bearing().astype(np.float32),
            "speed": self._boats.speed[:, None].astype(np.float32),
        }

    def close(self) -> None:
        """Nothing to release."""

    def _begin(self, chosen: np.ndarray) -> None:
        angle = self.rng.uniform(-np.pi, np.pi, (2, len(chosen)))
        position = self._config.start_distance_m * np.stack((np.cos(angle[0]), np.sin(angle[0])), axis=1)
        self._boats.place(chosen, position, angle[1])
        self._steps[chosen], self._returns[chosen] = 0, 0.0

    def _statistics(self, index: int, has_arrived: bool) -> dict[str, float]:
        length = float(self._steps[index])
        progress = max(0.0, 1.0 - float(self._boats.distance()[index]) / self._config.start_distance_m)
        return {"return": float(self._returns[index]), "length": length, "finished": has_arrived, "progress": progress}


class BoatEnv(TaskEnv):
    """One boat: what workers, evaluations and --play drive."""

    def __init__(self, config: BoatConfig) -> None:
        super().__init__(SPEC)
        self.ep_max_length = config.ep_max_length
        self._fleet = BoatFleet(config, 1, seed=0)

    @classmethod
    def spec_for(cls, config: BoatConfig) -> ObservationSpec:
        """The fields, without starting a simulator."""
        return SPEC

    @classmethod
    def from_config(cls, config: BoatConfig) -> Self:
        """What ``task=Boat`` makes."""
        return cls(config)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Puts the boat in a new place; the same seed gives the same place."""
        self._fleet.rng = np.random.default_rng(self._episode_seed(seed))
        return self._first(self._fleet.reset()), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One tick."""
        done = self._fleet.step(self._checked_action(action)[None])
        info: dict[str, Any] = {}
        if done.episodes:
            info["episode_statistics"] = done.episodes[0][1]
        observation = self._first(self._fleet.last_observation)
        return observation, float(done.reward[0]), bool(done.terminated[0]), bool(done.truncated[0]), info

    def _first(self, observation: Mapping[str, np.ndarray]) -> Any:
        fields = {name: values[0] for name, values in observation.items()}
        return self._observed(self.observation_spec.to_tuple(fields))  # in the form that was asked for


registry.register("Boat", f"{__name__}:BoatEnv", BoatConfig, batch=f"{__name__}:BoatFleet")
