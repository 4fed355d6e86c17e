"""Adapts interfaces that were written for rtgym alone, for real time, virtual time and train.py.

``tasks.envs.realtime`` wraps the interface given to ``make_wall_env`` or ``VirtualTimeEnv``, ``tasks.registry`` a
registered class.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any, ClassVar, Self

import numpy as np
from gymnasium import spaces
from rtgym import RealTimeGymInterface

from tasks.config import RealTimeTaskConfig, RtgymConfig
from tasks.envs.foreign import as_field, fields_of, flag, leaves, number, within
from tasks.envs.interface import TaskInterface, options_of_others
from tasks.experience.observation import Info, ObservationSpec
from tasks.game.clock import Clock, WallClock

_logger = logging.getLogger(__name__)


def as_task_interface(interface: TaskInterface | RealTimeGymInterface, config: RtgymConfig) -> TaskInterface:
    """The interface itself where it is ours already, else a wrapper around it."""
    return interface if isinstance(interface, TaskInterface) else RtgymInterface(interface, config)


def task_class(interface_class: type[Any]) -> type[RtgymTask]:
    """The class of a task whose interface was written for rtgym, called with no argument, or with ``clock``."""
    return type(interface_class.__name__, (RtgymTask,), {"interface_class": interface_class})


class RtgymInterface(TaskInterface):
    """An interface with rtgym's six methods: actions and observations stay in its own units and shapes.

    Fields are called ``observation_0``, ``observation_1``, ... Statistics are return and length. Where the
    interface has no ``wait`` of its own, the default action is sent, as rtgym's tutorial says.
    """

    moves_channels: ClassVar[bool] = False
    """Whether images get their channels last."""

    def __init__(self, interface: RealTimeGymInterface, config: RtgymConfig) -> None:
        """Reads only the spaces of the interface.

        Args:
            interface: What it wraps.
            config: The elastic clock.

        Raises:
            ValueError: Its spaces cannot be used.
        """
        self._inner = interface
        self._whose = type(interface).__name__
        self._space = interface.get_observation_space()
        fields = fields_of(self._space, self._whose, moves_channels=self.moves_channels)
        self._actions = _vector(interface.get_action_space(), self._whose)
        act_buf_len = config.act_buf_len if config.act_in_obs else 0
        self.observation_spec = ObservationSpec(fields, self._actions.shape[0], act_buf_len, config.reset_act_buf)
        self._return, self._length = 0.0, 0

    @classmethod
    def spec_for(cls, config: Any) -> ObservationSpec:
        """Of a registered class (``RtgymTask``)."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: Any, clock: Clock) -> Self:
        """Of a registered class (``RtgymTask``)."""
        raise NotImplementedError

    def send_control(self, control: np.ndarray | None) -> None:
        """Applies an action."""
        self._inner.send_control(control)

    def reset(self, seed: int | None = None, options: Info | None = None) -> tuple[list[np.ndarray], Info]:
        """Starts an episode."""
        observation, info = self._inner.reset(seed=seed, options=options_of_others(options))
        self._return, self._length = 0.0, 0
        return self._fields(observation), dict(info)

    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, Info]:
        """Captures what the action led to."""
        observation, any_reward, any_terminated, info = self._inner.get_obs_rew_terminated_info()
        reward = number(any_reward, "reward", self._whose)
        terminated = flag(any_terminated, "terminated", self._whose)
        self._return += reward
        self._length += 1
        return self._fields(observation), reward, terminated, dict(info)

    def episode_statistics(self) -> dict[str, float]:
        """Return and length."""
        return {"return": self._return, "length": float(self._length)}

    def wait(self) -> None:
        """Rests as the interface does; by default with the default action."""
        if getattr(type(self._inner), "wait", RealTimeGymInterface.wait) is RealTimeGymInterface.wait:
            super().wait()
        else:
            self._inner.wait()

    def get_action_space(self) -> spaces.Box:
        """The interface's own."""
        return self._actions

    def get_default_action(self) -> np.ndarray:
        """The interface's own, float32."""
        return np.array(self._inner.get_default_action(), np.float32).reshape(self._actions.shape)

    def render(self) -> np.ndarray | None:
        """A picture, where the interface returns one."""
        try:
            picture = self._inner.render() if hasattr(self._inner, "render") else None
        except Exception as error:  # no display, or no device yet; a picture must not end a training
            _logger.warning("%s draws no picture: %s", self._whose, error)
            return None
        return picture if isinstance(picture, np.ndarray) else None

    def close(self) -> None:
        """Closes what can be closed."""
        if hasattr(self._inner, "close"):
            self._inner.close()

    def _fields(self, observation: Any) -> list[np.ndarray]:
        values = dict(leaves(self._space, observation, self._whose))
        return [as_field(values[field.name], field, self._whose) for field in self.observation_spec.fields]


class RtgymTask(RtgymInterface):
    """The same for policies of train.py: each action is mapped from [-1, 1] to its bounds, channels come last."""

    moves_channels = True
    interface_class: ClassVar[type[Any]]

    def __init__(self, interface: RealTimeGymInterface, config: RtgymConfig) -> None:
        """As ``RtgymInterface``; the actions must have bounds."""
        super().__init__(interface, config)
        if not self._actions.is_bounded("both"):
            raise ValueError(
                f"{self._whose}: its actions have no bounds ({self._actions}), so that [-1, 1] cannot be mapped to "
                "them: give the Box of get_action_space() bounds"
            )
        self._low, self._high = self._actions.low.astype(np.float64), self._actions.high.astype(np.float64)

    @classmethod
    def spec_for(cls, config: RealTimeTaskConfig) -> ObservationSpec:
        """Asks an interface, which should touch no device before its first reset."""
        interface = cls.from_config(config, WallClock())
        interface.close()
        return interface.observation_spec

    @classmethod
    def from_config(cls, config: RealTimeTaskConfig, clock: Clock) -> Self:
        """Builds the interface, on ``clock`` if it takes one."""
        takes_clock = "clock" in inspect.signature(cls.interface_class).parameters
        try:
            interface = cls.interface_class(**({"clock": clock} if takes_clock else {}))
        except TypeError as error:
            raise ValueError(
                f"{cls.__name__}: a registered interface is called with no argument, or with clock: {error}"
            ) from error
        return cls(interface, config.rtgym)

    def send_control(self, control: np.ndarray | None) -> None:
        """Applies an action, in the interface's units."""
        if control is not None:
            control = within(self._low, self._high, control).astype(self._actions.dtype)
        super().send_control(control)

    def get_action_space(self) -> spaces.Box:
        """One float32 vector in [-1, 1]."""
        return TaskInterface.get_action_space(self)

    def get_default_action(self) -> np.ndarray:
        """The interface's own, mapped to [-1, 1]."""
        share = (super().get_default_action() - self._low) / (self._high - self._low)
        return np.asarray(2.0 * share - 1.0, np.float32)


def _vector(space: spaces.Space, whose: str) -> spaces.Box:
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(f"{whose}: its actions must be a Box of floats with one axis, got {space}")
    return space
