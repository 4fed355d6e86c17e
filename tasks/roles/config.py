"""Configuration of the roles for people at the game: the groups ``record``, ``drive``, ``check``, ``benchmark``.

Standard library only; ``algos.config.schema`` puts them into the configuration of a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

from tasks.words.command_line import Role
from tasks.words.keys import acts_in, needs, not_with, only_with
from tasks.words.limits import Amount, Checked, Count, FolderName, Positive, at_least, matching

Width = Annotated[int, at_least(320, "px")]
Height = Annotated[int, at_least(240, "px")]
"""Of a window that shows enough to drive by."""

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
class RecordConfig(Checked):
    """What --record does (``record``)."""

    name: FolderName = "path"
    """What the files are called: runs/recorded/<name>_<date>/path.npy and its pictures."""
    from_file: str | None = field(default=None, metadata=acts_in(Role.record))
    """Typed as record.from=FILE: a .Ghost.Gbx, .Replay.Gbx or .Map.Gbx whose drive becomes the path."""
    driver: Driver = field(default=Driver.human, metadata=acts_in(Role.record))
    """human or scripted (simulator only)."""
    start_speed_mps: Positive = 1.0
    """Recording starts when the car first moves faster than this [m/s]."""
    stop_key: Annotated[str, matching(".", "one character")] = "q"
    """Key that ends the recording before the finish, typed in the terminal (followed by Enter) or in the window."""
    min_length_m: Positive = 50.0
    """A shorter path is refused [m]."""
    max_minutes: Positive = 30.0
    """Recording ends by itself after this [min]."""


@dataclass
class DriveConfig(Checked):
    """What --drive does (``drive``)."""

    width: Width = field(default=1280, metadata=acts_in(Role.drive, Role.record) | needs(*_BY_HAND))
    """Width of the window [px]."""
    height: Height = field(default=720, metadata=acts_in(Role.drive, Role.record) | needs(*_BY_HAND))
    """Height of the window [px]."""
    record: bool = False
    """Whether the driven line is recorded, as --record does."""
    max_laps: Amount = 0
    """Laps after which it ends by itself; 0: until the window is closed."""


@dataclass
class CheckConfig(Checked):
    """What --check does (``check``)."""

    seconds: Positive = 10.0
    """How long --headless looks before it writes its pictures; a window stays until it is closed [s]."""
    pictures: Count = 4
    """Number of pictures that --headless writes."""


@dataclass
class BenchmarkConfig(Checked):
    """What --benchmark does (``benchmark``)."""

    steps: Annotated[int, at_least(10)] = 1000
    """Environment steps, across episodes."""
