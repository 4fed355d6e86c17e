"""The tasks by name: builds their environments, and says what they observe without building anything.

``tasks.make``, the workers, the players and the Gymnasium ids come through here. A task is registered by the name of
its class, which is imported when the task is first used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import logging
import math
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gymnasium import spaces

from tasks.clock import VirtualClock, WallClock
from tasks.config import ClockKind, GameKind, TaskConfig, config_from_dict, config_to_dict
from tasks.game_io.protocols import Telemetry
from tasks.interface import TaskInterface
from tasks.observation import ObservationSpec
from tasks.realtime import TaskEnv, VirtualTimeEnv, make_wall_env
from tasks.views import OBSERVATIONS, TaskView, view

TELEMETRY_PORT = 9000
"""Port of the OpenPlanet plugin on this machine."""
PROBE_TIMEOUT_S = 1.0
"""How long ``game=auto`` waits for plausible telemetry [s]."""

_RECORD = struct.Struct("<11f")
_LOCAL_KEYS = ("clock", "sleep_time_at_reset", "save_replays")
_LOCAL_RTGYM_KEYS = ("benchmark", "benchmark_polyak", "wait_on_done")

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TaskEntry:
    """What is registered under a name."""

    interface: str
    """``module:Class`` of a ``TaskInterface``."""
    config_type: type[TaskConfig]
    defaults: Mapping[str, Any]
    """What differs from the defaults of ``config_type``."""


def make(
    name: str,
    *,
    observation: str = "tuple",
    config: TaskConfig | Mapping[str, Any] | None = None,
    **overrides: Any,
) -> TaskEnv | TaskView:
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
    return view(_build(name, resolved), observation)


def register(
    name: str,
    interface: str,
    config_type: type[TaskConfig] = TaskConfig,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Adds a task.

    Args:
        name: What ``make`` and ``task=`` take.
        interface: ``module:Class`` of a ``TaskInterface``.
        config_type: Its configuration: ``TaskConfig`` or a subclass.
        defaults: What differs from the defaults of ``config_type``, as plain data.
    """
    module, _, class_name = interface.partition(":")
    if not module or not class_name:
        raise ValueError(f"the interface of task {name!r} must be 'module:Class', got {interface!r}")
    entry = TaskEntry(interface, config_type, dict(defaults or {}))
    if _TASKS.get(name, entry) != entry:
        raise ValueError(f"task {name!r} is already registered as {_TASKS[name].interface}; choose another name")
    _TASKS[name] = entry


def names() -> tuple[str, ...]:
    """All registered tasks."""
    return tuple(_TASKS)


def default_config(name: str) -> TaskConfig:
    """The configuration of a task when nothing is said."""
    entry = _entry(name)
    return config_from_dict(entry.config_type, {**entry.defaults, "name": name}, "task")


def observation_spec(name: str, config: TaskConfig | None = None) -> ObservationSpec:
    """The observation of a task, without touching a game."""
    return _interface_class(name).spec_for(config if config is not None else default_config(name))


def action_space(name: str, config: TaskConfig | None = None) -> spaces.Box:
    """The action space of a task, without touching a game."""
    return spaces.Box(-1.0, 1.0, (observation_spec(name, config).action_size,))


def fingerprint(name: str, config: TaskConfig) -> str:
    """What a worker and its learner must agree on: observation, timing, reward, track (files by their content).

    Left out is what may differ from machine to machine, such as the clock.
    """
    data = config_to_dict(config)
    for key in _LOCAL_KEYS:
        data.pop(key, None)
    for key in _LOCAL_RTGYM_KEYS:
        data["rtgym"].pop(key, None)
    data["name"] = name
    data["track"] = _content(data["track"])
    data["reward"]["path"] = _content(data["reward"]["path"])
    data["observation"] = observation_spec(name, config).to_json()
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def resolve_game(config: TaskConfig, *, port: int = TELEMETRY_PORT, timeout_s: float = PROBE_TIMEOUT_S) -> TaskConfig:
    """Decides which game is driven.

    Args:
        config: The task; ``game=auto`` becomes live when plausible telemetry arrives, else sim.
        port: Where the plugin of the live game listens on this machine.
        timeout_s: How long telemetry is waited for [s].

    Raises:
        ValueError: For the live game, which is not built yet.
    """
    game = config.game
    if game is GameKind.auto:
        game = GameKind.live if _telemetry_arrives(port, timeout_s) else GameKind.sim
        reason = "plausible telemetry arrives" if game is GameKind.live else "no telemetry arrives"
        _logger.warning("task.game=auto: driving %s (%s on 127.0.0.1:%d)", _GAME_NAMES[game], reason, port)
    if game is GameKind.live:
        raise ValueError("task.game=live is not built yet: TrackMania cannot be driven; set task.game=sim")
    return dataclasses.replace(config, game=game)


_GAME_NAMES = {GameKind.sim: "the embedded simulator", GameKind.live: "the live game"}

_LIDAR_WINDOW = {"window_width": 958, "window_height": 488}
_TASKS: dict[str, TaskEntry] = {
    "TM20Full": TaskEntry("tasks.trackmania.full:FullInterface", TaskConfig, {}),
    "TM20Lidar": TaskEntry("tasks.trackmania.lidar:LidarInterface", TaskConfig, _LIDAR_WINDOW),
    "TM20LidarProgress": TaskEntry("tasks.trackmania.lidar_progress:LidarProgressInterface", TaskConfig, _LIDAR_WINDOW),
}


def _build(name: str, config: TaskConfig) -> TaskEnv:
    interface_class = _interface_class(name)
    if config.clock is ClockKind.wall:
        return make_wall_env(interface_class.from_config(config, WallClock()), config.rtgym)
    clock = VirtualClock()
    interface = interface_class.from_config(config, clock)
    return VirtualTimeEnv(interface, config.rtgym, clock, capture_jitter_s=config.randomization.capture_jitter_s)


def _entry(name: str) -> TaskEntry:
    if name not in _TASKS:
        raise ValueError(f"unknown task {name!r}; registered: {', '.join(_TASKS)}")
    return _TASKS[name]


def _interface_class(name: str) -> type[TaskInterface]:
    module, _, class_name = _entry(name).interface.partition(":")
    return getattr(importlib.import_module(module), class_name)


def _merged(name: str, config: TaskConfig | Mapping[str, Any] | None, overrides: Mapping[str, Any]) -> TaskConfig:
    """One configuration from the task's own, the given one and single fields, later ones first."""
    entry = _entry(name)
    if config is not None and not isinstance(config, Mapping):
        base = config_to_dict(config)
    else:
        base = _deep_merge(config_to_dict(default_config(name)), config or {})
    return config_from_dict(entry.config_type, {**_deep_merge(base, overrides), "name": name}, "task")


def _deep_merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        is_group = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _deep_merge(merged[key], value) if is_group else value
    return merged


def _content(path: str | None) -> str | None:
    """A name stays a name; a file is told by its content, since its place differs between machines."""
    if path is None or not Path(path).expanduser().is_file():
        return path
    return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()


def _telemetry_arrives(port: int, timeout_s: float) -> bool:
    """Whether something on this machine sends records that look like the plugin's."""
    deadline = time.monotonic() + timeout_s
    data = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            while len(data) < _RECORD.size:
                connection.settimeout(max(deadline - time.monotonic(), 1e-3))
                received = connection.recv(4096)
                if not received or time.monotonic() > deadline:
                    return False
                data += received
    except OSError:
        return False
    return _is_plausible(Telemetry(*_RECORD.unpack(data[: _RECORD.size])))


def _is_plausible(record: Telemetry) -> bool:
    in_range = 0.0 <= record.speed <= 400.0 and 0.0 <= record.gear <= 6.0 and 0.0 <= record.rpm <= 20000.0
    return in_range and all(math.isfinite(value) for value in record)
