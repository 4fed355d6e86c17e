"""Thin views of a task environment: the same observations as a tuple, by name, or as one flat vector.

``tasks.registry.make`` applies them. Gymnasium's wrappers forward no attributes, so these views forward the methods
that users call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from tasks.envs.foreign import flag, number
from tasks.envs.interface import TaskInterface
from tasks.envs.realtime import RealTimeEnv, TaskEnv
from tasks.experience.observation import Info, ObservationSpec

OBSERVATIONS = ("tuple", "dict", "flat")


def view(env: TaskEnv, observation: str) -> TaskEnv | TaskView:
    """Returns ``env`` with the chosen form of observations.

    Args:
        env: A task environment.
        observation: ``tuple`` (rtgym's), ``dict`` (the same fields by name) or ``flat`` (scaled float32 vector).
    """
    if observation == "tuple":
        return env
    if observation == "dict":
        return DictView(env)
    if observation == "flat":
        return FlatView(env)
    raise ValueError(f"observation must be one of {', '.join(OBSERVATIONS)}, got {observation!r}")


class TaskView(gymnasium.Wrapper):
    """Forwards everything of a ``TaskEnv`` and converts its observations."""

    env: RealTimeEnv
    """Or a ``TaskEnv`` without a clock, which lacks what is only about time."""

    def __init__(self, env: TaskEnv) -> None:
        super().__init__(env)
        self.observation_spec: ObservationSpec = env.observation_spec
        self._step: Callable[[np.ndarray], Any] = env.step
        self._whose = type(env).__name__

    @property
    def interface(self) -> TaskInterface:
        """The task behind the environment."""
        return self.env.interface

    @property
    def ep_max_length(self) -> float:
        """Steps after which an episode is truncated."""
        return self.env.ep_max_length

    @property
    def is_real_time(self) -> bool:
        """Whether a step takes real time."""
        return self.env.is_real_time

    def convert(self, observation: tuple[np.ndarray, ...]) -> Any:
        """Turns rtgym's tuple into what this view returns."""
        raise NotImplementedError

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        """Starts an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self.convert(observation), info

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, Info]:
        """One real-time step."""
        observation, reward, terminated, truncated, info = self._step(action)
        return (
            self.convert(observation),
            number(reward, "reward", self._whose),
            flag(terminated, "terminated", self._whose),
            flag(truncated, "truncated", self._whose),
            info,
        )

    def watch(self, stop: Callable[[], bool]) -> None:
        """Has what waits for the game raise ``Interrupted`` soon after ``stop()`` becomes true."""
        self.env.watch(stop)

    def replace_interface(self, interface: TaskInterface) -> None:
        """Puts something around the interface that records or measures its calls."""
        self.env.replace_interface(interface)

    def wait(self) -> None:
        """Pauses the environment until the next reset() or step()."""
        self.env.wait()

    def stop(self) -> None:
        """Ends the step in flight."""
        self.env.stop()

    def benchmarks(self) -> dict[str, tuple[float | None, float]]:
        """Durations of the parts of a step [s]."""
        return self.env.benchmarks()

    def timing_statistics(self) -> dict[str, float]:
        """``TIMING_STATISTICS`` of the episode so far; nothing in virtual time."""
        return self.env.timing_statistics()

    def set_default_action(self, default_action: np.ndarray) -> None:
        """Changes what the next reset() sends."""
        self.env.set_default_action(default_action)

    def set_time_step_duration(self, time_step_duration: float, time_step_timeout_factor: float | None = None) -> None:
        """Changes the duration of a step [s] from the next step on."""
        self.env.set_time_step_duration(time_step_duration, time_step_timeout_factor)

    def set_start_obs_capture(self, start_obs_capture: float) -> None:
        """Changes when an observation is captured [s] from the next step on."""
        self.env.set_start_obs_capture(start_obs_capture)

    def set_ep_max_length(self, ep_max_length: float) -> None:
        """Changes after how many steps an episode is truncated."""
        self.env.set_ep_max_length(ep_max_length)


class DictView(TaskView):
    """Observations by name; fields and order as in ``observation_spec``."""

    def __init__(self, env: TaskEnv) -> None:
        super().__init__(env)
        self.observation_space = self.observation_spec.dict_space()
        self._names = self.observation_spec.names

    def convert(self, observation: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
        """Names the entries. No copy."""
        return dict(zip(self._names, observation, strict=True))


class FlatView(TaskView):
    """One float32 vector of the scaled fields."""

    def __init__(self, env: TaskEnv) -> None:
        super().__init__(env)
        self.observation_space = self.observation_spec.flat_space()

    def convert(self, observation: tuple[np.ndarray, ...]) -> np.ndarray:
        """Scales and concatenates the fields."""
        return self.observation_spec.flatten(observation)
