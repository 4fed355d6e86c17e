"""The source of a run's environments, as plain data: a registered task, or a function by name.

From the same data the learner gets spaces and fingerprint, and workers get environments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from gymnasium import spaces

from tasks import registry
from tasks.config import AnyTaskConfig, config_from_dict, config_to_dict
from tasks.envs.batch import BatchSimulator
from tasks.experience.observation import ObservationSpec
from tasks.words.references import resolve

SINGLE_GAME = "single_game"
"""An environment that comes from a function and has this true in its ``metadata`` drives a game that is there only
once, in real time: it gets one worker, and no evaluator beside it."""


@dataclass(frozen=True)
class EnvSource:
    """Makes the environments of one task.

    Args:
        task: The task's configuration as plain data; what is left out has the task's default.
        function: "module:function" that makes a dict-observation environment instead of the registry; None: registry.
        kwargs: Its keyword arguments, plain data.
    """

    task: Mapping[str, Any]
    function: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> gymnasium.Env:
        """A new environment with dict observations and an ``observation_spec``."""
        if self.function is not None:
            return resolve(self.function, "env.function")(**self.kwargs)
        config = self.config()
        return registry.make(config.name, observation="dict", config=config)

    def make_batch(self, count: int, seed: int = 0) -> BatchSimulator | None:
        """So many environments that step together; None: the task has no batch, or is driven in real time."""
        if self.function is not None:
            return None
        config = self.config()
        batch = registry.batch_class(config)
        return None if batch is None else batch(config, count, seed)

    def resolved(self) -> EnvSource:
        """The same with a complete configuration in which the game is decided."""
        if self.function is not None:
            return self
        return EnvSource(config_to_dict(registry.resolve_game(self.config())))

    def config(self) -> AnyTaskConfig:
        """The configuration of the registered task."""
        if "name" not in self.task:
            raise ValueError(f"env_config.task must name the task: 'name', one of {', '.join(registry.names())}")
        default = registry.default_config(str(self.task["name"]))
        data = config_to_dict(default)
        for key, value in self.task.items():
            is_group = isinstance(value, Mapping) and isinstance(data.get(key), Mapping)
            data[key] = {**data[key], **value} if is_group else value
        return config_from_dict(type(default), data, "task")

    def describe(self) -> EnvDescription:
        """Spaces and identity; a game is only touched for an environment that comes from a function."""
        if self.function is not None:
            return self._describe_made()
        config = self.config()
        return EnvDescription(
            registry.observation_spec(config.name, config),
            registry.action_space(config.name, config),
            registry.fingerprint(config.name, config),
            is_wall_clock=config.is_real_time,
            is_single_game=config.is_live,
            longest_wait_s=config.longest_wait_s,
        )

    def _describe_made(self) -> EnvDescription:
        with contextlib.closing(self.make()) as env:
            spec = env.get_wrapper_attr("observation_spec")
            is_single = bool(env.metadata.get(SINGLE_GAME, False))
            return EnvDescription(
                spec, env.action_space, f"{self.function} {spec.fingerprint()}", is_single, is_single_game=is_single
            )


@dataclass(frozen=True)
class EnvDescription:
    """What is known of an environment without acting in it."""

    spec: ObservationSpec
    action_space: spaces.Space
    fingerprint: str
    is_wall_clock: bool
    """Whether it runs in real time and must never wait."""
    is_single_game: bool = False
    """Whether its game is there only once, so that no second environment may exist beside it."""
    longest_wait_s: float = 0.0
    """How long it may wait for its game [s]."""
