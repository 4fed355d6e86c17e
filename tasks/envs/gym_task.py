"""``task=Gym``: any registered Gymnasium environment whose actions are continuous, as a task.

The environment keeps its registered rewards, ends and time limit. Only the form changes: actions are one vector in
[-1, 1], observations are named fields. ``tasks.registry`` builds it from a ``GymConfig``.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from rtgym.envs.real_time_env import RealTimeEnv, RealTimeEnvTS

from tasks.config import GymConfig
from tasks.envs.foreign import as_field, fields_of, flag, leaves, number, within
from tasks.envs.interface import options_of_others
from tasks.envs.realtime import TaskEnv
from tasks.experience.observation import Info, ObservationSpec

MEANT_FOR_TASKS = ("x", "z", "speed_mps", "race_time_s", "truncated", "game_lost", "episode_statistics")
"""Infos that mean something else in an evaluation; an environment's own ones of these names are left out."""

_logger = logging.getLogger(__name__)


class GymTaskEnv(TaskEnv):
    """A Gymnasium environment as a task.

    Action: the Box of the environment, flattened, each dimension mapped affinely from [-1, 1] to its bounds.

    Observation:

    | space of the environment | fields |
    |---|---|
    | Box | ``observation`` |
    | Dict | one per key, those of a Dict inside as ``outer.inner`` |
    | Tuple | ``observation_0``, ``observation_1``, ... |

    A Box of bytes (uint8) with two axes or more is an image, channels last, and stays as it is; all else becomes
    float32. Reward, terminated, truncated and the time limit are the environment's. Statistics are the return
    and length alone: there is no finish and no lap.
    """

    def __init__(self, env: gymnasium.Env, env_id: str, *, is_real_time: bool = False) -> None:
        """Takes over an environment and closes it in the end.

        Args:
            env: Its spaces must suit.
            env_id: What it is called in messages.
            is_real_time: Whether its time continues between two steps.

        Raises:
            ValueError: Its actions or observations cannot be used.
        """
        super().__init__(_spec_of(env, env_id))
        self.env = env
        self.is_real_time = is_real_time
        self._whose = f"task.id={env_id}"
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": env.metadata.get("render_fps") or 30}
        self.ep_max_length = (env.spec.max_episode_steps if env.spec is not None else None) or 0
        assert isinstance(env.action_space, spaces.Box)
        self._low = env.action_space.low.astype(np.float64)
        self._high = env.action_space.high.astype(np.float64)
        self._action_dtype = env.action_space.dtype
        self._has_pictures = env.render_mode == "rgb_array"
        self._episode_return = 0.0
        self._num_steps = 0
        self._running = False

    @classmethod
    def spec_for(cls, config: GymConfig) -> ObservationSpec:
        """The observation of the environment, which is made for a moment.

        Raises:
            ValueError: It cannot be made or used.
        """
        with contextlib.closing(_make(config)) as env:
            _require_real_time(env, config)
            return _spec_of(env, config.id)

    @classmethod
    def from_config(cls, config: GymConfig) -> GymTaskEnv:
        """Makes the environment.

        Raises:
            ValueError: It cannot be made or used.
        """
        env = _make(config)
        try:
            _require_real_time(env, config)
            return cls(env, config.id, is_real_time=config.real_time)
        except ValueError:
            env.close()
            raise

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        """Starts an episode."""
        episode_seed = self._episode_seed(seed)
        observation, info = self.env.reset(seed=episode_seed, options=options_of_others(options))
        self._episode_return, self._num_steps, self._running = 0.0, 0, True
        return self._observed(self._fields(observation)), {**_forwarded(info), "seed": episode_seed}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, Info]:
        """Acts, and returns what that led to."""
        if not self._running:
            raise RuntimeError("The episode is terminated or truncated: call reset() before step().")
        action = self._checked_action(action)
        bounded = within(self._low, self._high, action).astype(self._action_dtype)
        observation, any_reward, any_terminated, any_truncated, info = self.env.step(bounded)
        reward = number(any_reward, "reward", self._whose)
        terminated = flag(any_terminated, "terminated", self._whose)
        truncated = flag(any_truncated, "truncated", self._whose)
        self._episode_return += reward
        self._num_steps += 1
        told = _forwarded(info)
        if terminated or truncated:
            self._running = False
            told["episode_statistics"] = {"return": self._episode_return, "length": float(self._num_steps)}
        # An end for good cuts the bootstrap, so it goes before the time limit of the same step.
        return self._observed(self._fields(observation)), reward, terminated, truncated and not terminated, told

    def wait(self) -> None:
        """Pauses an environment in real time that can be paused, as rtgym's can."""
        pause = getattr(self.env.unwrapped, "wait", None)
        if self.is_real_time and pause is not None:
            pause()

    def render(self) -> np.ndarray | None:
        """A picture, uint8 RGB, shape (h, w, 3); None where the environment or this machine draws none."""
        if not self._has_pictures:
            return None
        try:
            picture = self.env.render()
        except Exception as error:  # a missing package or display; a picture must not end a training
            self._has_pictures = False
            _logger.warning("no pictures of this environment: %s", error)
            return None
        return np.asarray(picture) if isinstance(picture, np.ndarray) else None

    def _release(self) -> None:
        self.env.close()

    def _fields(self, observation: Any) -> tuple[np.ndarray, ...]:
        values = dict(leaves(self.env.observation_space, observation, self._whose))
        return tuple(as_field(values[field.name], field, self._whose) for field in self.observation_spec.fields)


def _make(config: GymConfig) -> gymnasium.Env:
    """Makes the environment, with pictures where it has them.

    Raises:
        ValueError: It cannot be made.
    """
    if ":" in config.id:
        module, _, name = config.id.partition(":")
        raise ValueError(
            f"task.id must be a registered id, got {config.id!r}, which would import a module: put 'import {module}' "
            f"into a file of yours and give plugins=[my_file.py] task.id={name}"
        )
    try:
        spec = gymnasium.spec(config.id)
        kwargs = {**_pictures(spec), **config.kwargs}
        # The checker's warnings are for authors of environments, and it costs time at each step.
        return gymnasium.make(spec, config.max_episode_steps, disable_env_checker=True, **kwargs)
    except gymnasium.error.NameNotFound as error:
        advice = "your own id needs plugins=[my_file.py], also with a checkpoint and with --play"
        raise ValueError(f"task.id={config.id} is not registered: {error} ({advice})") from error
    except (gymnasium.error.Error, ImportError, TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"task.id={config.id} with task.kwargs={config.kwargs} cannot be made: {error}") from error


def _pictures(spec: Any) -> dict[str, str]:
    """The argument that has the environment draw pictures, where its class says that it can."""
    entry = spec.entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    modes = getattr(creator, "metadata", {}).get("render_modes") or ()
    return {"render_mode": "rgb_array"} if "rgb_array" in modes else {}


def _spec_of(env: gymnasium.Env, env_id: str) -> ObservationSpec:
    """The fields of an environment, without an action buffer: it does not act late."""
    size = _action_size(env.action_space, env_id)
    fields = fields_of(env.observation_space, f"task.id={env_id}", moves_channels=True)
    return ObservationSpec(fields, action_size=size, act_buf_len=0)


def _require_real_time(env: gymnasium.Env, config: GymConfig) -> None:
    """Refuses an environment of rtgym unless it is configured as one in real time."""
    if isinstance(env.unwrapped, RealTimeEnv | RealTimeEnvTS) and not config.real_time:
        raise ValueError(
            f"task.id={config.id} is an environment of rtgym, whose time does not stop: set task.real_time=true"
        )


def _action_size(space: spaces.Space, env_id: str) -> int:
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"task.id={env_id}: its actions are {space}, but all algorithms here choose continuous actions (a Box): "
            f"take an environment with those, such as {_continuous_kin(env_id)}, or register one of your own around it "
            "that turns numbers into choices (plugins=[my_file.py])"
        )
    if not np.issubdtype(space.dtype, np.floating):
        raise ValueError(f"task.id={env_id}: its actions are whole numbers ({space.dtype}), expected floats")
    if not space.is_bounded("both"):
        raise ValueError(
            f"task.id={env_id}: its actions have no bounds ({space}), so that [-1, 1] cannot be mapped to them: "
            "register it with gymnasium.wrappers.RescaleAction or a Box with bounds"
        )
    if not space.shape or 0 in space.shape:
        raise ValueError(f"task.id={env_id}: its actions must be a vector, got shape {space.shape}")
    return math.prod(space.shape)


def _continuous_kin(env_id: str) -> str:
    """A registered environment with continuous actions that can replace one without."""
    name = env_id.partition("-")[0]
    related = {"MountainCar": "MountainCarContinuous-v0", "CartPole": "InvertedPendulum-v5"}
    if name == "LunarLander":
        return f"{env_id} with task.kwargs.continuous=true"
    return related.get(name, "Pendulum-v1")


def _forwarded(info: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in info.items() if key not in MEANT_FOR_TASKS}
