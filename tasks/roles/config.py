"""Configuration of the roles for people at the game: the groups ``record``, ``drive``, ``check``, ``benchmark``.

Standard library only; ``algos.config.schema`` puts them into the configuration of a run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from tasks.words.command_line import Role
from tasks.words.key_needs import needs, not_with, only_with
from tasks.words.key_roles import acts_in
from tasks.words.refusals import require

_BY_HAND = (
    only_with("record.driver", "human", roles=(Role.record,)),
    not_with("task.game", "live", roles=(Role.record,)),
)
"""Where there is a window to drive in."""


class Driver(Enum):
    """Who drives while a path is recorded."""

    human = "human"
    """You: in the live game, or in the window of --drive."""
    scripted = "scripted"
    """The simulator's scripted driver; simulator only."""


@dataclass
class RecordConfig:
    """What --record does (``record``)."""

    name: str = "path"
    """What the files are called: runs/recorded/<name>_<date>/path.npy and its pictures."""
    from_file: str | None = field(default=None, metadata=acts_in(Role.record))
    """Typed as record.from=FILE: a .Ghost.Gbx, .Replay.Gbx or .Map.Gbx whose drive becomes the path."""
    driver: Driver = field(default=Driver.human, metadata=acts_in(Role.record))
    """human or scripted (simulator only)."""
    start_speed_mps: float = 1.0
    """Recording starts when the car first moves faster than this [m/s]."""
    stop_key: str = "q"
    """Key that ends the recording before the finish, typed in the terminal (followed by Enter) or in the window."""
    min_length_m: float = 50.0
    """A shorter path is refused [m]."""
    max_minutes: float = 30.0
    """Recording ends by itself after this [min]."""

    def __post_init__(self) -> None:
        require(bool(re.fullmatch(r"[\w.+-]+", self.name)), "record.name", self.name, "a folder name")
        require(len(self.stop_key) == 1, "record.stop_key", self.stop_key, "one character")
        for key in ("start_speed_mps", "min_length_m", "max_minutes"):
            require(getattr(self, key) > 0, f"record.{key}", getattr(self, key), "> 0")


@dataclass
class DriveConfig:
    """What --drive does (``drive``)."""

    width: int = field(default=1280, metadata=acts_in(Role.drive, Role.record) | needs(*_BY_HAND))
    """Width of the window [px]."""
    height: int = field(default=720, metadata=acts_in(Role.drive, Role.record) | needs(*_BY_HAND))
    """Height of the window [px]."""
    record: bool = False
    """Whether the driven line is recorded, as --record does."""
    max_laps: int = 0
    """Laps after which it ends by itself; 0: until the window is closed."""

    def __post_init__(self) -> None:
        require(self.width >= 320, "drive.width", self.width, ">= 320 px")
        require(self.height >= 240, "drive.height", self.height, ">= 240 px")
        require(self.max_laps >= 0, "drive.max_laps", self.max_laps, ">= 0")


@dataclass
class CheckConfig:
    """What --check does (``check``)."""

    seconds: float = 10.0
    """How long --headless looks before it writes its pictures; a window stays until it is closed [s]."""
    pictures: int = 4
    """Number of pictures that --headless writes."""

    def __post_init__(self) -> None:
        require(self.seconds > 0, "check.seconds", self.seconds, "> 0 s")
        require(self.pictures >= 1, "check.pictures", self.pictures, ">= 1")


@dataclass
class BenchmarkConfig:
    """What --benchmark does (``benchmark``)."""

    steps: int = 1000
    """Environment steps, across episodes."""

    def __post_init__(self) -> None:
        require(self.steps >= 10, "benchmark.steps", self.steps, ">= 10")
