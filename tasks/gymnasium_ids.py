"""The tasks as Gymnasium ids: TM20Full-v0, TM20Lidar-v0, TM20LidarProgress-v0, TM20Track-v0.

Importing this module registers them, which is how Gymnasium (1.0 and later, without plugins) finds third-party ids:

    gymnasium.make("tasks.gymnasium_ids:TM20Lidar-v0", game="sim", track="short")

Nothing else is done, and nothing else in this package imports it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.envs.registration import registry

import tasks

_TASKS = ("TM20Full", "TM20Lidar", "TM20LidarProgress", "TM20Track")


def register() -> None:
    """Adds the ids. Calling it twice is fine."""
    for name in _TASKS:
        if f"{name}-v0" not in registry:
            # Gymnasium's own wrappers would hide wait() and observation_spec.
            gymnasium.register(
                id=f"{name}-v0",
                entry_point="tasks.gymnasium_ids:make",
                kwargs={"name": name},
                order_enforce=False,
                disable_env_checker=True,
            )


def make(name: str, render_mode: str | None = None, **kwargs: Any) -> gymnasium.Env:
    """Builds a task for Gymnasium; keyword arguments as of ``tasks.make``."""
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
    return tasks.make(name, **kwargs)


register()
