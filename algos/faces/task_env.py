"""The environment of a run in this process, and its description for rl_games and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from algos.faces.rl_games_parts import env_configurations
from tasks.experience.observation import ObservationSpec


def make_env(env_name: str, env_config: Mapping[str, Any]) -> Any:
    """One environment of a registered task with dict observations, in this process."""
    configuration = env_configurations.configurations.get(env_name)
    if configuration is None:
        raise ValueError(
            f"task {env_name!r} is not registered in rl_games; call tasks.registration.register_tasks() first"
        )
    # Around it is what rl_games' own players step.
    return configuration["env_creator"](**env_config).env


def env_info(env: Any) -> dict[str, Any]:
    """What rl_games wants to know of an environment."""
    return {
        "observation_space": env.observation_space,
        "action_space": env.action_space,
        "agents": 1,
        "value_size": 1,
        "observation_spec": env.get_wrapper_attr("observation_spec").to_json(),
    }


def observation_spec(info: Mapping[str, Any]) -> ObservationSpec:
    """The observation fields that an ``env_info`` names."""
    spec = info["observation_spec"]
    return spec if isinstance(spec, ObservationSpec) else ObservationSpec.from_json(spec)
