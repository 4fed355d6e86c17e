"""Registers the tasks in rl_games: each under its own name, all with vecenv type ``REMOTE``.

``train.py`` calls ``register_tasks`` once, after plugins have added their tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from rl_games.common import env_configurations, vecenv

from tasks import registry
from tasks.remote.learner.vecenv import env_creator, make_vecenv

VECENV_TYPE = "REMOTE"


def register_tasks(names: Iterable[str] | None = None) -> None:
    """Registers tasks with rl_games; doing it twice is fine.

    Args:
        names: Registered tasks; None: all of them.
    """
    vecenv.register(VECENV_TYPE, make_vecenv)
    for name in registry.names() if names is None else names:
        configuration = {"vecenv_type": VECENV_TYPE, "env_creator": partial(env_creator, name)}
        env_configurations.register(name, configuration)
