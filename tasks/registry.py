"""The tasks by name: builds their environments, and describes their observations without building anything.

``tasks.make``, the workers, the players and the Gymnasium ids use it. A task is registered by the name of its class,
which is imported when the task is first used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from gymnasium import spaces

from tasks.config import (
    AnyTaskConfig,
    ClockKind,
    GameKind,
    GymConfig,
    RCDroneConfig,
    RealTimeTaskConfig,
    TaskConfig,
    config_from_dict,
    config_to_dict,
)
from tasks.envs import rtgym_interface
from tasks.envs.batch import BatchSimulator
from tasks.envs.realtime import OBSERVATIONS, TaskEnv, VirtualTimeEnv, make_wall_env
from tasks.experience.observation import ObservationSpec
from tasks.game.clock import VirtualClock, WallClock
from tasks.words.nested import Plain
from tasks.words.references import resolve, split_reference

PROBE_TIMEOUT_S = 1.0
"""How long ``game=auto`` waits for plausible telemetry [s]."""
RESET_MARGIN_S = 60.0
"""What a reset of the live game may take beside waiting for the game [s]."""

_LOCAL_KEYS = ("clock", "sleep_time_at_reset", "save_replays", "live")
_LOCAL_RTGYM_KEYS = ("benchmark", "benchmark_polyak", "wait_on_done")

AnyConfig = TypeVar("AnyConfig", bound=AnyTaskConfig)

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TaskEntry:
    """What is registered under a name."""

    interface: str
    """``module:Class`` of a ``TaskInterface``, or of a ``TaskEnv`` with ``spec_for`` and ``from_config``."""
    config_type: type[AnyTaskConfig]
    defaults: Plain
    """What differs from the defaults of ``config_type``."""
    batch: str | None = None
    """``module:Class`` of a ``tasks.envs.batch.BatchSimulator`` of the same task; not used in real time."""


def make(
    name: str,
    *,
    observation: str = "tuple",
    config: AnyTaskConfig | Plain | None = None,
    **overrides: Any,
) -> TaskEnv:
    """Builds the environment of a task.

    Args:
        name: Registered task.
        observation: ``tuple`` (rtgym's), ``dict`` (the same fields by name) or ``flat`` (one scaled float32 vector).
        config: The task's configuration, or plain data of one; None: the task's defaults.
        overrides: Fields of the configuration, groups as dicts: ``track="short", rtgym={"act_buf_len": 3}``.

    Returns:
        An environment with ``wait()``, ``observation_spec`` and ``interface``.
    """
    if observation not in OBSERVATIONS:
        raise ValueError(f"observation must be one of {', '.join(OBSERVATIONS)}, got {observation!r}")
    resolved = resolve_game(_merged(name, config, overrides))
    return _build(name, resolved).observe_as(observation)


def register(
    name: str,
    interface: str,
    config_type: type[AnyTaskConfig] = TaskConfig,
    defaults: Plain | None = None,
    batch: str | None = None,
) -> None:
    """Adds a task.

    Args:
        name: What ``make`` and ``task=`` take.
        interface: ``module:Class`` of a ``TaskInterface``, for a task in real time (or of an interface written for
            rtgym), or of a ``TaskEnv`` that waits for its actions, such as a simulator; that needs the class methods
            ``spec_for(config)``, an ``ObservationSpec``, and ``from_config(config)``, the environment.
        config_type: Its configuration: ``TaskConfig`` (TrackMania's), a subclass, or one of your own, derived from
            ``RealTimeTaskConfig`` or, for a ``TaskEnv``, from ``AnyTaskConfig``.
        defaults: What differs from the defaults of ``config_type``, as plain data.
        batch: ``module:Class`` of a ``tasks.envs.batch.BatchSimulator`` that steps many at once in the learner's
        process,
            for algorithms in lock step (PPO); None: environments in worker processes.
    """
    for what, place in (("interface", interface), ("batch", batch)):
        if place is not None:
            split_reference(place, f"the {what} of task {name!r}")
    entry = TaskEntry(interface, config_type, dict(defaults or {}), batch)
    if _TASKS.get(name, entry) != entry:
        raise ValueError(f"task {name!r} is already registered as {_TASKS[name].interface}; choose another name")
    _TASKS[name] = entry


def batch_class(config: AnyTaskConfig) -> type[BatchSimulator] | None:
    """The class that steps many environments of a task at once; None: there is none, or they are driven in real time.

    Args:
        config: The task; its game is decided.
    """
    place = None if config.is_real_time else _entry(config.name).batch
    return None if place is None else cast("type[BatchSimulator]", resolve(place, f"the batch of task {config.name!r}"))


def names() -> tuple[str, ...]:
    """All registered tasks."""
    return tuple(_TASKS)


def default_config(name: str) -> Any:
    """The default configuration of a task, of the type with which the task is registered."""
    entry = _entry(name)
    return config_from_dict(entry.config_type, {**entry.defaults, "name": name}, "task")


def observation_spec(name: str, config: AnyTaskConfig | None = None) -> ObservationSpec:
    """The observation of a task, without touching a game."""
    return _task_class(name).spec_for(config if config is not None else default_config(name))


def action_space(name: str, config: AnyTaskConfig | None = None) -> spaces.Box:
    """The action space of a task, without touching a game."""
    return spaces.Box(-1.0, 1.0, (observation_spec(name, config).action_size,))


def action_meaning(name: str) -> tuple[str, ...]:
    """What each entry of a task's action does, for people; empty where the task does not say."""
    said: tuple[str, ...] = getattr(_task_class(name), "action_meaning", ())
    return said


def fingerprint(name: str, config: AnyTaskConfig) -> str:
    """What a worker and its learner must agree on: observation, timing, reward, track (files by their content).

    Left out is what may differ from machine to machine, such as the clock.
    """
    data = without_local_keys(config_to_dict(config))
    data["name"] = name
    if isinstance(config, TaskConfig):
        data["track"] = _content(data["track"])
        data["vehicle"] = _vehicle_text(data["vehicle"])
        data["reward"]["path"] = _content(data["reward"]["path"])
        del data["privileged"]  # as the observation says
    data["observation"] = observation_spec(name, config).to_json()
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def without_local_keys(task: Plain) -> dict[str, Any]:
    """A task's configuration as plain data, without what may differ from machine to machine, such as the clock."""
    data = {key: value for key, value in task.items() if key not in _LOCAL_KEYS}
    if "rtgym" in data:
        data["rtgym"] = {key: value for key, value in data["rtgym"].items() if key not in _LOCAL_RTGYM_KEYS}
    return data


def resolve_game(config: AnyConfig, *, timeout_s: float = PROBE_TIMEOUT_S) -> AnyConfig:
    """Decides which game is driven, and by which clock, where a task has them.

    Args:
        config: The task. ``game=auto`` becomes live when plausible telemetry arrives on ``live.port`` and the game's
            window is open, else sim; ``clock=auto`` becomes wall with the live game, else virtual.
        timeout_s: How long telemetry is waited for [s].

    Returns:
        The task with neither game nor clock ``auto``.
    """
    decided: AnyTaskConfig = config
    if isinstance(decided, TaskConfig) and decided.game is GameKind.auto:
        game, reason = _choose_game(decided, timeout_s)
        _logger.warning("task.game=auto: driving %s (%s)", _GAME_NAMES[game], reason)
        decided = dataclasses.replace(decided, game=game)
    if isinstance(decided, RealTimeTaskConfig) and decided.clock is ClockKind.auto:
        clock = ClockKind.wall if decided.is_live else ClockKind.virtual
        decided = dataclasses.replace(decided, clock=clock)
    return cast("AnyConfig", decided)


def keep_vehicle(config: AnyConfig) -> AnyConfig:
    """The task with the values of its vehicle file in place of the file's name, so that it needs the file no more.

    Raises:
        ValueError: The file cannot be read or holds something else.
    """
    if not isinstance(config, TaskConfig) or config.vehicle is None:
        return config
    return cast("AnyConfig", dataclasses.replace(config, vehicle=_vehicle_text(config.vehicle)))


def _vehicle_text(source: str | None) -> str | None:
    from tasks.sim.vehicle_files import vehicle_text

    return None if source is None else vehicle_text(source)


_GAME_NAMES = {GameKind.sim: "the embedded simulator", GameKind.live: "the live game"}

_TRAINING = {"randomization": {"rolling_starts": 0.5}, "reward": {"wall_penalty": 0.04}}
_LIDAR = {"window_width": 958, "window_height": 488, **_TRAINING}
_TASKS: dict[str, TaskEntry] = {
    "TM20Full": TaskEntry(
        "tasks.trackmania.full:FullInterface", TaskConfig, _TRAINING, batch="tasks.trackmania.fleet:FullFleet"
    ),
    "TM20Lidar": TaskEntry(
        "tasks.trackmania.lidar:LidarInterface", TaskConfig, _LIDAR, batch="tasks.trackmania.fleet:LidarFleet"
    ),
    "TM20LidarProgress": TaskEntry(
        "tasks.trackmania.lidar_progress:LidarProgressInterface",
        TaskConfig,
        _LIDAR,
        batch="tasks.trackmania.fleet:LidarProgressFleet",
    ),
    "TM20Track": TaskEntry(
        "tasks.trackmania.track:TrackInterface",
        TaskConfig,
        _TRAINING,
        batch="tasks.trackmania.fleet:TrackFleet",
    ),
    "RCDrone": TaskEntry("tasks.envs.rc_drone:RCDroneInterface", RCDroneConfig, {}),
    "Gym": TaskEntry("tasks.envs.gym_task:GymTaskEnv", GymConfig, {}),
}


def _build(name: str, config: AnyTaskConfig) -> TaskEnv:
    task_class = _task_class(name)
    if issubclass(task_class, TaskEnv):
        return task_class.from_config(config)
    if not isinstance(config, RealTimeTaskConfig):
        raise TypeError(f"task {name!r}: the configuration of a TaskInterface must be a RealTimeTaskConfig")
    if config.clock is ClockKind.wall:
        interface = task_class.from_config(config, WallClock())
        if not config.is_live:
            return make_wall_env(interface, config.rtgym)
        return make_wall_env(interface, config.rtgym, reset_timeout_s=config.longest_wait_s + RESET_MARGIN_S)
    clock = VirtualClock()
    interface = task_class.from_config(config, clock)
    return VirtualTimeEnv(interface, config.rtgym, clock, capture_jitter_s=config.capture_jitter_s)


def _entry(name: str) -> TaskEntry:
    if not isinstance(name, str) or name not in _TASKS:
        raise ValueError(f"unknown task {name!r}; registered: {', '.join(_TASKS)}")
    return _TASKS[name]


def _task_class(name: str) -> type[Any]:
    """The registered subclass of ``TaskInterface`` or ``TaskEnv``; around an interface written for rtgym, one of it."""
    registered = cast("type[Any]", resolve(_entry(name).interface, f"the interface of task {name!r}"))
    return registered if hasattr(registered, "spec_for") else rtgym_interface.task_class(registered)


def _merged(name: str, config: AnyTaskConfig | Plain | None, overrides: Plain) -> AnyTaskConfig:
    """One configuration from the task's own, the given one and single fields, later ones first."""
    entry = _entry(name)
    if config is not None and not isinstance(config, Mapping):
        base = config_to_dict(config)
    else:
        base = _deep_merge(config_to_dict(default_config(name)), config or {})
    return config_from_dict(entry.config_type, {**_deep_merge(base, overrides), "name": name}, "task")


def _deep_merge(base: Plain, changes: Plain) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        is_group = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _deep_merge(merged[key], value) if is_group else value
    return merged


def _content(path: str | None) -> str | None:
    """A name stays a name; a file is identified by its content, since its place differs between machines."""
    if path is None or not Path(path).expanduser().is_file():
        return path
    return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()


def _choose_game(config: TaskConfig, timeout_s: float) -> tuple[GameKind, str]:
    """The game for ``game=auto``, and why."""
    if config.clock is ClockKind.virtual:
        return GameKind.sim, "task.clock=virtual: the live game runs in real time"
    from tasks.game.errors import GameError
    from tasks.live.telemetry.openplanet import telemetry_arrives
    from tasks.live.window.finder import open_window

    live = config.live
    place = f"127.0.0.1:{live.port}"
    if not telemetry_arrives(live.port, timeout_s, live.record):
        return GameKind.sim, f"no telemetry arrives on {place}"
    # Another program's bytes may look like a car's; the plugins' protocol does not identify the sender.
    try:
        open_window(live.window_title, live.display).close()
    except GameError as error:
        found = f"telemetry arrives on {place}, but not from the game: {error}"
        return GameKind.sim, f"{found}; task.game=live drives it nevertheless"
    return GameKind.live, f"telemetry arrives on {place}, and the window {live.window_title!r} is open"
