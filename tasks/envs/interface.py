"""The interface of a real-time task: an rtgym interface that also has observation fields and statistics.

``tasks.registry`` builds it and passes it to the virtual-time environment or to rtgym. It owns its game.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from gymnasium import spaces
from rtgym import RealTimeGymInterface

from tasks.envs.foreign import flag, number
from tasks.experience.observation import Info, ObservationSpec
from tasks.game.clock import Clock

TRUNCATED_KEY = "truncated"
"""An info that holds True under this key ends the episode as truncated, e.g. when the game was lost."""
FROM_START_OPTION = "from_start"
"""Option of reset(): true where an episode is evaluated, which no task begins on the way."""


def options_of_others(options: Info | None) -> Info | None:
    """The options of reset() without ours, which a third-party environment does not know; None: there are no others."""
    return {name: value for name, value in (options or {}).items() if name != FROM_START_OPTION} or None


class Interrupted(RuntimeError):  # noqa: N818 (what happened to the caller, not an error of anybody)
    """Raised by an environment that was waiting for its game when the program was asked to stop."""


class TaskInterface(RealTimeGymInterface, ABC):
    """An rtgym interface with named observation fields.

    A subclass implements ``spec_for``, ``from_config``, ``send_control``, ``reset``, ``get_obs_rew_terminated_info``
    and ``episode_statistics``. Arrays it returns must not change afterwards. Every step info holds ``progress``, the
    covered fraction of the task in [0, 1]; with ``truncated: True`` it ends the episode as truncated. On the wall clock
    the calls come from a thread of the environment, one at a time, except ``interrupt``, ``render`` and ``close``.
    """

    observation_spec: ObservationSpec
    """Fields in the order of the lists that reset() and get_obs_rew_terminated_info() return, then the actions."""
    action_meaning: tuple[str, ...] = ()
    """What each entry of an action does, for people; may be empty."""
    is_waiting: bool = False
    """Whether a call waits for the game on purpose and has logged it; this does not count as hanging."""

    @classmethod
    @abstractmethod
    def spec_for(cls, config: Any) -> ObservationSpec:
        """The observation that ``config`` leads to, without touching any game."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Any, clock: Clock) -> TaskInterface:
        """Builds the task and its game on ``clock``."""

    @abstractmethod
    def send_control(self, control: np.ndarray | None) -> None:
        """Applies an action; None touches nothing."""

    @abstractmethod
    def reset(self, seed: int | None = None, options: Info | None = None) -> tuple[list[np.ndarray], Info]:
        """Starts an episode and returns its first observation (without actions) and info."""

    @abstractmethod
    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, Info]:
        """Captures what the action led to: observation (without actions), reward, terminated, info."""

    @abstractmethod
    def episode_statistics(self) -> dict[str, float]:
        """Statistics of the episode that just ended; keys of ``tasks.experience.samples.EPISODE_STATISTICS``."""

    def start(self) -> dict[str, Any] | None:
        """Where the next reset finds what no reset puts back, as plain data; None: it begins afresh.

        ``reset(options={"start": ...})`` begins there again, so that a run can go on bit-identically.
        """
        return None

    def default_episode_steps(self, time_step_s: float) -> int:
        """Steps after which an episode is truncated when ``ep_max_length`` is ``auto``."""
        del time_step_s
        return 1000

    def get_observation_space(self) -> spaces.Tuple:
        """Space of the fields, without the action buffer."""
        return spaces.Tuple([field.space() for field in self.observation_spec.fields])

    def get_action_space(self) -> spaces.Box:
        """One float32 vector in [-1, 1]."""
        return spaces.Box(-1.0, 1.0, (self.observation_spec.action_size,), np.float32)

    def get_default_action(self) -> np.ndarray:
        """What is applied at the start of an episode."""
        return np.zeros(self.observation_spec.action_size, np.float32)

    def wait(self) -> None:
        """Called in a pause; sends the default action. Override it for another behaviour."""
        self.send_control(self.get_default_action())

    def render(self) -> np.ndarray | None:
        """A picture for people, uint8 RGB, shape (h, w, 3); None when the task has none."""
        return None

    def interrupt(self) -> None:
        """Ends a call that waits for the game, with any exception. Called from another thread, before ``close``."""

    def close(self) -> None:
        """Releases the game. Calling it twice is fine."""


def capture(interface: TaskInterface) -> tuple[list[np.ndarray], float, bool, Info]:
    """``get_obs_rew_terminated_info`` with a checked reward and end.

    Raises:
        WrongValueError: One of them is not one number or truth value.
    """
    fields, reward, terminated, info = interface.get_obs_rew_terminated_info()
    whose = type(interface).__name__
    return fields, number(reward, "reward", whose), flag(terminated, "terminated", whose), info
