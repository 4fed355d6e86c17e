"""Everything that produces or transports experience: games, tasks, real-time environments, workers and the link.

This package never imports ``algos``. The short way to an environment is ``tasks.make``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.envs.realtime import TaskEnv

__all__ = ["make"]


def make(name: str, **kwargs: Any) -> TaskEnv:
    """Builds the environment of a registered task; see ``tasks.registry.make`` for the arguments."""
    from tasks.registry import make as make_task

    return make_task(name, **kwargs)
