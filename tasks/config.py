"""Task configuration: one dataclass per group of ``cfg/task/*.yaml``. Standard library only.

The rtgym and reward groups keep the names of TMRL's ``config.json``; everything else is lower_snake with its unit.
Hydra reads these classes as schemas, so a misspelt key or a wrong type fails by its full name.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Annotated, Any, TypeVar

from tasks.words.command_line import Role
from tasks.words.keys import Decides, Workers, acts_in, decides, needs, not_with, only_with, workers_have
from tasks.words.limits import Amount, Checked, Count, Limit, NotNegative, Positive, Share, above, at_least, between
from tasks.words.refusals import require, type_name, unknown_key

SHIPPED_TRACKS = ("short", "medium", "long")
"""Tracks that come with the simulator."""
MIRRORED_SUFFIX = "_mirrored"
"""Behind the name of a shipped track: left and right swapped."""
RANDOM_TRACK = "random"
"""As a track: another one each episode; with :SEED behind it one of them."""
ROAD_WIDTH_M = 25.75
"""Of the roads that come with the simulator [m]."""
EVALUATION_SEED = 500_000
"""Seed of the first episode of training's evaluations; the others follow it."""
PLAY_SEED = 1_000_000
"""Seed of the first episode of --play, unless said otherwise; the others follow it."""

_RANDOM_STARTS = (Role.train, Role.play, Role.worker, Role.check, Role.benchmark)
"""Roles in which a simulated episode draws its start; to drive and to record it is the middle of the road."""
_CAPTURING = (Role.train, Role.worker, Role.check, Role.benchmark)
"""Roles that can capture what only critics see."""
_LIVE = only_with("task.game", "live", "auto")
_SIMULATOR = only_with("task.game", "sim", "auto")
_IMAGE = not_with("task.name", "TM20Lidar", "TM20LidarProgress", "TM20Track")
_FRAMES = not_with("task.name", "TM20Track")
_SHIPPED_NAMES = (*SHIPPED_TRACKS, *(name + MIRRORED_SUFFIX for name in SHIPPED_TRACKS))
_OWN_TRACK = not_with("task.track", *_SHIPPED_NAMES, RANDOM_TRACK, roles=_RANDOM_STARTS)

Percent = Annotated[float, between(0, 90, "%")]
"""How far a constant of the car may be from its value."""
Port = Annotated[int, between(1, 65535)]
"""Of TCP."""
TickRange = Annotated[
    list[int],
    Limit("[low, high] with 0 <= low <= high <= 20", lambda x: len(x) == 2 and 0 <= x[0] <= x[1] <= 20),
]
"""A range of delays, in 10 ms ticks."""
StepLimit = Annotated[
    int | float | str,
    Limit("'auto', inf or an integer >= 1", lambda x: x in ("auto", math.inf) or (isinstance(x, int) and x >= 1)),
]
"""Steps of an episode."""

Config = TypeVar("Config")


def config_from_dict(cls: type[Config], data: Mapping[str, object] | Config, prefix: str) -> Config:
    """Builds a config dataclass from plain data (JSON, YAML), strictly.

    Args:
        cls: The dataclass; its fields may be dataclasses, Enums (by member name), lists, unions and plain types.
        data: Plain data; keys that are absent keep their defaults. An instance is returned as it is.
        prefix: Full name of the whole, such as ``task``, for messages; empty at the top.

    Raises:
        ValueError: For an unknown key or a value of the wrong type, by its full name.
    """
    if isinstance(data, cls):
        return data
    dot = prefix and f"{prefix}."
    if not isinstance(data, Mapping):
        raise ValueError(f"{prefix} must be a mapping of the fields of {cls.__name__}, got {data!r}")
    known = {entry.name: entry for entry in fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise ValueError(unknown_key(f"{dot}{key}", known))
    for name, entry in known.items():
        if name not in data and entry.default is MISSING and entry.default_factory is MISSING:
            raise ValueError(f"{dot}{name} is required and has no default")
    hints = typing.get_type_hints(cls)
    values = {key: _convert(hints[key], value, f"{dot}{key}") for key, value in data.items()}
    try:
        return cls(**values)
    except ValueError as error:  # a dataclass knows the names of its fields only
        message = str(error).removeprefix(f"{prefix.rpartition('.')[2]}.")
        raise ValueError(dot + message if re.split(r"\W", message)[0] in known else str(error)) from error


def config_to_dict(config: Any) -> dict[str, Any]:
    """The inverse of ``config_from_dict``: plain data that JSON can hold, Enums by member name."""
    return {entry.name: _plain(getattr(config, entry.name)) for entry in fields(config)}


def random_track_seed(track: str) -> int | None:
    """SEED of the track random:SEED; None for any other track.

    Raises:
        ValueError: SEED is no whole number >= 0.
    """
    word, colon, seed = track.partition(":")
    if word != RANDOM_TRACK or not colon:
        return None
    is_number = seed.isascii() and seed.isdigit() and len(seed) <= 18
    require(is_number, "task.track", track, "random:SEED with a whole number SEED >= 0, of at most 18 digits")
    return int(seed)


class GameKind(Enum):
    """Which game is driven."""

    auto = "auto"
    """The live game when plausible telemetry arrives within one second and its window is open, else the simulator."""
    sim = "sim"
    live = "live"


class ClockKind(Enum):
    """Which clock paces the environment."""

    auto = "auto"
    """Wall with the live game, else virtual."""
    virtual = "virtual"
    """Simulated time: as fast as the processor allows, same timing semantics."""
    wall = "wall"
    """Real time, through rtgym."""


class ControlKind(Enum):
    """How actions reach the game."""

    gamepad = "gamepad"
    keyboard = "keyboard"
    """Binary arrows with TMRL's thresholds: gas > 0, brake > 0, steer beyond +-0.5."""


class RewardCompat(Enum):
    """Whose reward is computed."""

    ours = "ours"
    """Best-so-far progress: driving back and forth earns nothing and a creeping car ends its episode."""
    tmrl = "tmrl"
    """TMRL's numbers exactly, defects included, for comparison."""


@dataclass
class RtgymConfig(Checked):
    """The elastic real-time clock; names and meaning as in rtgym."""

    time_step_duration: Positive = 0.05
    """Duration of a step [s]."""
    start_obs_capture: float = 0.04
    """When the observation is captured, after the start of the step [s]."""
    time_step_timeout_factor: Annotated[float, at_least(0)] = 1.0
    """How late a step may be, in steps, before the clock is re-based."""
    act_buf_len: Count = field(default=2, metadata=decides(Decides.observation))
    """Number of past actions in the observation; at least the total delay in steps."""
    act_in_obs: bool = field(default=True, metadata=decides(Decides.observation))
    """Whether the action buffer is part of the observation."""
    reset_act_buf: bool = field(default=True, metadata=decides(Decides.history))
    """Whether reset() fills the action buffer with the default action."""
    last_act_on_reset: bool = field(default=False, metadata=needs(only_with(".reset_act_buf", False)))
    """Whether reset() applies the last action of the previous episode instead of the default action."""
    wait_on_done: bool = True
    """Whether the environment pauses by itself at the end of an episode."""
    ep_max_length: StepLimit = "auto"
    """Steps after which an episode is truncated; inf: never; auto: max(1000, path length / (8 m/s x time step))."""
    benchmark: bool = False
    """Whether durations of the parts of a step are measured."""
    benchmark_polyak: Share = field(default=0.1, metadata=needs(only_with(".benchmark", True)))
    """Averaging factor of these measurements."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.start_obs_capture <= self.time_step_duration,
            "start_obs_capture",
            self.start_obs_capture,
            f"between 0 and time_step_duration ({self.time_step_duration} s)",
        )


@dataclass
class RewardConfig(Checked):
    """Progress along the reference path; names as in TMRL's REWARD_CONFIG."""

    compat: RewardCompat = RewardCompat.ours
    """``ours`` or ``tmrl``."""
    path: str | None = None
    """Reference path: a file of points x,y,z [m] (.csv, .npy, TMRL's reward.pkl); null: the middle of the track."""
    END_OF_TRACK: float = 10.0
    """Reward for reaching the finish. TMRL has 100; 10 (100 m of track) learns faster."""
    CONSTANT_PENALTY: float = 0.0
    """Constant added to the reward of every step."""
    CHECK_FORWARD: Count = 500
    """Length of the forward search window [points of 0.1 m]: the longest cut that still counts."""
    CHECK_BACKWARD: Amount = 10
    """Length of the backward search window [points]."""
    FAILURE_COUNTDOWN: Count = 10
    """Steps without progress, after MIN_STEPS, that end the episode."""
    MIN_STEPS: Amount = 70
    """Steps before the countdown may begin."""
    MAX_STRAY: Annotated[float, above(0, "m")] = 100.0
    """Distance to the nearest path point in the search window beyond which the episode ends [m]."""
    min_speed: NotNegative = field(default=2.0, metadata=needs(only_with(".compat", "ours")))
    """Progress slower than this over the countdown counts as standing still [m/s]; ``ours`` only."""
    wall_penalty: NotNegative = field(default=0.0, metadata=needs(only_with(".compat", "ours"), _SIMULATOR))
    """Subtracted per m/s of speed lost into a wall within the step; simulator only, ``ours`` only."""


@dataclass
class VehicleRandomizationConfig(Checked):
    """How far each simulated episode's car may be from the task's: a factor 1 + U(-this, this) / 100 for each."""

    acceleration_percent: Percent = 0.0
    """Of the acceleration at full gas [%]."""
    grip_percent: Percent = 0.0
    """Of the brake and of the sideways force of a slide [%]."""
    steering_gain_percent: Percent = 0.0
    """Of the yaw rate at full steer [%]."""
    steering_delay_percent: Percent = 0.0
    """Of the time constant with which the yaw rate follows the wheel [%]."""


@dataclass
class RandomizationConfig(Checked):
    """What each simulated episode draws from its own seed."""

    frame_phase: bool = True
    """Whether the phase of the 60 Hz frames against the steps is drawn."""
    capture_jitter_s: NotNegative = field(default=0.003, metadata=needs(only_with("task.clock", "virtual", "auto")))
    """The capture is late by U(0, this) [s]."""
    input_delay_ticks: TickRange = field(default_factory=lambda: [0, 2])
    """Range of the delay of the controls, in 10 ms ticks, both ends included; one draw per episode."""
    start_offset_m: NotNegative = 1.0
    """Start position: U(-this, this) along and across the road [m]."""
    start_yaw_deg: NotNegative = 5.0
    """Start heading: U(-this, this) [degrees]."""
    rolling_starts: Annotated[float, between(0, 1)] = field(default=0.0, metadata=acts_in(Role.train, Role.worker))
    """Fraction of training's episodes that begin anywhere on the road, in motion (``tasks.sim.rolling_start``);
    evaluations, and every role but --worker, begin at the start line."""
    vehicle: VehicleRandomizationConfig = field(default_factory=VehicleRandomizationConfig)
    """The car; all zero: every episode drives the task's."""


class TelemetryRecord(Enum):
    """Which plugin's record arrives: its number of float32 (``tasks.live.telemetry.layouts`` has their fields)."""

    floats8 = "floats8"
    """The first public script: no finish flag, gear or rpm."""
    floats11 = "floats11"
    """TMRL's plugin, and ours."""
    floats14 = "floats14"
    """Ours, set to send heading and velocity too."""
    floats16 = "floats16"
    """Front and side speed, direction and time."""
    floats20 = "floats20"
    """Checkpoint, lap, acceleration, slip."""
    floats33 = "floats33"
    """Checkpoint, race time, velocity, slip and material of each wheel."""


@dataclass
class LiveConfig(Checked):
    """Where the live game is and how patient we are with it; differs from machine to machine."""

    record: TelemetryRecord = TelemetryRecord.floats11
    """Record that the plugin sends."""
    port: Port = 9000
    """Port of the plugin on this machine."""
    ghost_port: Port = field(default=10000, metadata=needs(only_with("task.save_replays", True)))
    """Port of the plugin that saves a ghost (task.save_replays)."""
    window_title: Annotated[str, Limit("the title of a window", bool)] = "Trackmania"
    """Exact title of the game's window."""
    display: str | None = None
    """X display of the game, such as :1; null: $DISPLAY. Not used on Windows."""
    place_window: bool = True
    """Whether the window is moved to the corner and given its size; false: it must have that size already."""
    max_telemetry_age_s: Annotated[float, above(0, "s")] = 1.0
    """Older telemetry in mid-episode means that the game is lost [s]."""
    wait_for_game_s: Annotated[float, above(0, "s")] = 600.0
    """How long a lost game is waited for before an error ends the program [s]."""


@dataclass
class AnyTaskConfig(Checked):
    """What every task has, whatever it is about. The properties are what the rest of the program asks of a task."""

    name: str = field(default="???", metadata=decides(Decides.observation))
    """Registered task."""

    @property
    def is_real_time(self) -> bool:
        """Whether its steps take their time and must never wait."""
        return False

    @property
    def is_live(self) -> bool:
        """Whether it drives the live game: in real time, and there only once."""
        return False

    @property
    def is_undecided(self) -> bool:
        """Whether it is yet to be found out what is driven (``tasks.registry.resolve_game``)."""
        return False

    @property
    def longest_wait_s(self) -> float:
        """How long a call may wait for what is driven [s]."""
        return 0.0


@dataclass
class RealTimeTaskConfig(AnyTaskConfig):
    """A task on rtgym's elastic clock."""

    clock: ClockKind = ClockKind.auto
    """auto, virtual or wall; auto is wall with the live game, else virtual."""
    rtgym: RtgymConfig = field(default_factory=RtgymConfig)
    """The clock."""

    @property
    def is_real_time(self) -> bool:
        """Whether its steps take their time and must never wait."""
        return self.is_live or self.clock is ClockKind.wall

    @property
    def capture_jitter_s(self) -> float:
        """In virtual time a capture is late by U(0, this) [s]."""
        return 0.0


@dataclass
class TaskConfig(RealTimeTaskConfig):
    """A TrackMania task: what is driven, observed and rewarded."""

    name: str = field(default="TM20Full", metadata=decides(Decides.observation))
    """Registered task: TM20Full, TM20Lidar, TM20LidarProgress or TM20Track."""
    game: GameKind = GameKind.auto
    """auto, sim or live."""
    control: ControlKind = ControlKind.gamepad
    """gamepad (analog) or keyboard (binary arrows)."""
    track: str = "medium"
    """Shipped track (short, medium, long, each also with _mirrored); random: another one each episode (simulator only);
    random:SEED: one of them, SEED >= 0; or a file of points x,z or x,y,z [m]: .csv, .npy, TMRL's reward.pkl."""
    track_width_m: Annotated[float, above(2, "m")] = field(default=ROAD_WIDTH_M, metadata=needs(_OWN_TRACK))
    """Drivable width of a track given as a file [m]."""
    vehicle: str | None = None
    """The simulator's car: a YAML file of the constants that differ from the game's car (``tasks.sim.vehicle``), or the
    same in braces, such as {yaw_lag_s: 0.2}; null: the game's car."""
    window_width: Count = 256
    """Width of the game window [px]; LIDAR needs 958."""
    window_height: Count = 128
    """Height of the game window [px]; LIDAR needs 488."""
    img_width: Count = field(default=64, metadata=decides(Decides.observation) | needs(_IMAGE))
    """Width of the observed image [px]."""
    img_height: Count = field(default=64, metadata=decides(Decides.observation) | needs(_IMAGE))
    """Height of the observed image [px]."""
    img_grayscale: bool = field(default=True, metadata=decides(Decides.observation) | needs(_IMAGE))
    """Grey images, or RGB."""
    img_hist_len: Count = field(default=4, metadata=decides(Decides.observation) | needs(_FRAMES))
    """Number of images or LIDAR scans in the observation, newest last."""
    privileged: bool | None = field(
        default=None,
        metadata=decides(Decides.critic_view, before=False)
        | needs(_FRAMES, not_with("train.kind", "ppo"))
        | acts_in(*_CAPTURING),
    )
    """Whether what TM20Track sees is captured too, for a critic that sees more than the actor
    (train.params.network.asymmetric_critic), or for DAgger's teacher; null: where training uses it."""
    look_ahead_exponent: Annotated[float, between(1, 10)] = field(
        default=1.0,
        metadata=decides(Decides.look_ahead, before=1.0)
        | needs(only_with("train.params.config.teacher", None, roles=(Role.train,))),
    )
    """Where the 20 points lie that TM20Track sees of the road ahead, and privileged critics: the k-th is
    (k / 19) ** this of the way to the last. 1: at equal distances; larger: closer together near the car. DAgger takes
    its teacher's."""
    sleep_time_at_reset: NotNegative = field(default=1.5, metadata=needs(_LIVE))
    """Pause after a restart of the live game [s]."""
    save_replays: bool = field(default=False, metadata=workers_have(Workers.own) | needs(_LIVE))
    """Whether the live game saves a ghost of each run, finished or not."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """The reward."""
    randomization: RandomizationConfig = field(
        default_factory=RandomizationConfig, metadata=needs(_SIMULATOR) | acts_in(*_RANDOM_STARTS)
    )
    """What differs from one simulated episode to the next."""
    live: LiveConfig = field(default_factory=LiveConfig, metadata=workers_have(Workers.own) | needs(_LIVE))
    """Connection to the live game."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.clock is not ClockKind.virtual or self.game is not GameKind.live,
            "task.clock",
            self.clock.name,
            "'auto' or 'wall' when task.game is 'live': the game runs in real time",
        )
        require(
            random_track_seed(self.track) is None or self.track_width_m == ROAD_WIDTH_M,
            "task.track_width_m",
            self.track_width_m,
            f"left out with task.track={self.track}: only the width of a track given as a file can be chosen",
        )
        if self.track != RANDOM_TRACK:
            return
        require(
            not self.is_live,
            "task.track",
            self.track,
            "a path on the map that is open in the game when task.game is 'live' (train.py --record writes one): "
            "random tracks exist in the simulator only, task.game=sim",
        )
        require(
            self.reward.path is None,
            "task.reward.path",
            self.reward.path,
            f"null with task.track={RANDOM_TRACK}: each episode is rewarded along its own track",
        )

    @property
    def is_live(self) -> bool:
        """Whether it drives the live game: in real time, and there only once."""
        return self.game is GameKind.live

    @property
    def is_undecided(self) -> bool:
        """Whether it is yet to be found out what is driven (``tasks.registry.resolve_game``)."""
        return self.game is GameKind.auto

    @property
    def longest_wait_s(self) -> float:
        """How long a call may wait for what is driven [s]."""
        return self.live.wait_for_game_s if self.is_live else 0.0

    @property
    def capture_jitter_s(self) -> float:
        """In virtual time a capture is late by U(0, this) [s]."""
        return self.randomization.capture_jitter_s


@dataclass
class RCDroneConfig(RealTimeTaskConfig):
    """The dummy RC drone of real-time gym's tutorial; every value is the tutorial's."""

    name: str = field(default="RCDrone", metadata=decides(Decides.observation))
    """Registered task."""
    rtgym: RtgymConfig = field(
        default_factory=lambda: RtgymConfig(
            start_obs_capture=0.05, act_buf_len=4, reset_act_buf=False, ep_max_length=100, wait_on_done=False
        )
    )
    """The clock. reset_act_buf is false: a reset moves the target and nothing else."""


@dataclass
class GymConfig(AnyTaskConfig):
    """Any registered Gymnasium environment with continuous actions."""

    name: str = field(default="Gym", metadata=decides(Decides.observation))
    """Registered task."""
    id: Annotated[str, Limit("the id of a Gymnasium environment, such as Pendulum-v1", bool)] = "Pendulum-v1"
    """Id of the environment, as for ``gymnasium.make``."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the environment, such as ``{g: 9.81}``."""
    max_episode_steps: Count | None = None
    """Steps after which an episode is truncated; null: what the environment is registered with."""
    real_time: bool = False
    """Whether its time continues between two steps, as in rtgym's environments, so that its worker must never wait."""

    @property
    def is_real_time(self) -> bool:
        """Whether its steps take their time and must never wait."""
        return self.real_time


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return config_to_dict(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def _convert(hint: object, value: object, key: str) -> object:
    """Checks ``value`` against a type annotation and turns plain data into what it names."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(hint, value, key)
    if origin in (list, tuple):
        return _convert_sequence(origin, arguments, value, key)
    if hint is dict or origin is dict:
        return _convert_mapping(arguments, value, key)
    if is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else config_from_dict(hint, value, key)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _convert_enum(hint, value, key)
    return _convert_scalar(hint, value, key)


def _convert_union(hint: object, value: object, key: str) -> object:
    options = typing.get_args(hint)
    if value is None and type(None) in options:
        return None
    errors = []
    # An exact type first, so that 3 stays an int where a field is ``float | int``.
    for option in sorted(options, key=lambda entry: entry is not type(value)):
        if option is type(None):
            continue
        try:
            return _convert(option, value, key)
        except ValueError as error:
            errors.append(str(error))
    if len(errors) == 1:
        raise ValueError(errors[0])
    raise ValueError(f"{key} must be {type_name(hint)}, got {value!r}")


def _convert_sequence(origin: type, arguments: tuple[object, ...], value: object, key: str) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key} must be a list, got {value!r}")
    is_fixed = origin is tuple and Ellipsis not in arguments and bool(arguments)
    if is_fixed and len(value) != len(arguments):
        raise ValueError(f"{key} must have {len(arguments)} entries, got {value!r}")
    hints = arguments if is_fixed else (arguments[0] if arguments else Any,) * len(value)
    pairs = enumerate(zip(hints, value, strict=True))
    return origin(_convert(hint, entry, f"{key}[{i}]") for i, (hint, entry) in pairs)


def _convert_mapping(arguments: tuple[object, ...], value: object, key: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} must be a mapping, got {value!r}")
    hint = arguments[1] if arguments else Any
    return {str(name): _convert(hint, entry, f"{key}.{name}") for name, entry in value.items()}


def _convert_enum(hint: type[Enum], value: object, key: str) -> Enum:
    if isinstance(value, hint):
        return value
    if isinstance(value, str) and value in hint.__members__:
        return hint[value]
    raise ValueError(f"{key} must be one of {', '.join(hint.__members__)}, got {value!r}")


def _convert_scalar(hint: object, value: object, key: str) -> object:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    is_bool_for_int = hint is int and isinstance(value, bool)
    if isinstance(hint, type) and isinstance(value, hint) and not is_bool_for_int:
        return value
    raise ValueError(f"{key} must be {type_name(hint)}, got {value!r}")
