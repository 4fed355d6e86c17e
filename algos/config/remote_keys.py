"""Checks the keys of ``remote``, ``worker``, ``ray`` and ``launcher`` against each other and the rest.

The roles of each key are in its field's metadata (``tasks.words.keys``). Called by ``train.py`` and
``runner_params`` before anything starts.
"""

from __future__ import annotations

import importlib.util

from algos.config.schema import RunConfig
from algos.config.stock_params import is_ppo
from tasks.config import config_to_dict
from tasks.remote.config import Launcher
from tasks.words.keys import has_default
from tasks.words.nested import leaves
from tasks.words.refusals import as_typed

_TRAIN, _WORKER, _SERVER = "train", "worker", "server"
_LISTENING = ("remote.listen", "remote.max_workers", "remote.max_message_mb")


def check_remote(config: RunConfig, role: str) -> None:
    """Refuses keys of remote training that miss or contradict each other in this role.

    Args:
        config: The configuration; its game may still be ``auto``.
        role: train, play, worker, server, ...: the name of ``tasks.words.command_line.Role``.

    Raises:
        ValueError: Naming the key, its value and what to do.
    """
    if role == _TRAIN:
        _check_training(config)
    elif role == _WORKER and config.remote.address is None:
        raise ValueError("--worker needs remote.address, the host:port of the learner or relay to join, got null")
    elif role == _SERVER and config.remote.listen is None:
        raise ValueError("--server needs remote.listen, such as remote.listen=0.0.0.0:55555, got null")


def _check_training(config: RunConfig) -> None:
    remote = config.remote
    is_remote = remote.listen is not None or remote.relay is not None
    for key, value in leaves(config_to_dict(remote), "remote."):
        if has_default(config, key):
            continue
        if not is_remote:
            raise ValueError(
                f"{key}={as_typed(value)} does nothing without remote.listen or remote.relay; give one or leave it out"
            )
        if key in _LISTENING and remote.listen is None:
            raise ValueError(f"{key}={as_typed(value)} does nothing without remote.listen; give it or leave it out")
    if is_remote:
        _check_remote(config)
    elif not config.num_workers:
        raise ValueError(
            "num_workers must be >= 1 without remote.listen and remote.relay, from which others join, got 0"
        )
    _check_envs(config)
    if config.launcher is Launcher.ray:
        _check_ray(config)


def _check_remote(config: RunConfig) -> None:
    """What remote workers need of the learner."""
    key = "remote.listen" if config.remote.listen is not None else "remote.relay"
    if config.synchronous:
        raise ValueError(
            f"synchronous must be false with {key}, got true: a synchronous run acts in its own process only"
        )
    if is_ppo(config.train):
        raise ValueError(
            f"{key} does not fit train={config.choices.train}: PPO steps its environments in lock step, so that every "
            "step would wait for the network; take a SAC file of cfg/train, or leave it out"
        )
    if not config.num_workers and config.task.is_undecided:
        raise ValueError(
            "task.game must be sim or live with num_workers=0, got auto: no game is driven on this machine, so name "
            "the one that the workers drive"
        )


def _check_envs(config: RunConfig) -> None:
    """Where each worker process shall hold several environments."""
    count = config.worker.envs_per_worker
    if count in (1, "auto"):
        return
    reason = None
    if is_ppo(config.train):
        reason = "PPO spreads train.params.config.num_actors over num_workers processes"
    elif config.synchronous:
        reason = "a synchronous run has one environment"
    elif not config.num_workers:
        reason = "num_workers is 0, and --worker has a key of its own"
    elif config.task.is_live:
        reason = "there is one live game on this machine"
    elif config.task.is_real_time:
        reason = "environments in real time cannot wait for each other; num_workers gives each a process"
    if reason is not None:
        raise ValueError(f"worker.envs_per_worker must be 1 here, got {count}: {reason}")


def _check_ray(config: RunConfig) -> None:
    if config.synchronous:
        raise ValueError("synchronous must be false with launcher=ray, got true: a synchronous run has no workers")
    if not config.num_workers:
        raise ValueError("num_workers must be >= 1 with launcher=ray, which starts them, got 0")
    if importlib.util.find_spec("ray") is None:
        raise ValueError("launcher=ray needs the package ray: pip install -e '.[cluster]'")
