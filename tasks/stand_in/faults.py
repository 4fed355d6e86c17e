"""The faults of the stand-in game: their list, requests for them, and which are active.

``game.py`` carries them out; the command line and the console request them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tasks.config import config_from_dict

RECORD_BYTES = 44


class Fault(Enum):
    """A fault, by the name under which it is asked for."""

    # Telemetry
    split = "split"
    """Each record is written in ``pieces``, a moment apart."""
    burst = "burst"
    """Records are held back and written ``count`` at a time."""
    silence = "silence"
    """Connected, and nothing is sent: a menu."""
    nan = "nan"
    """Speed and position are no numbers."""
    kmh = "kmh"
    """The speed is sent in km/h."""
    skip = "skip"
    """Once: ``count`` bytes are left out, so that all later records are read at the wrong place."""
    close = "close"
    """Once: the connection is closed in good order."""
    rst = "rst"
    """Once: the connection is reset."""
    other_client = "other_client"
    """Another program is connected to the plugin, which serves only one: the next waits in the backlog, unserved."""
    unload = "unload"
    """The plugin is unloaded: its port is closed."""
    no_ghost = "no_ghost"
    """The ghost saver's port is closed."""
    # Picture
    frozen = "frozen"
    """The picture stands still while the car drives on."""
    black = "black"
    """The picture is black."""
    slow = "slow"
    """The game runs at ``fps``."""
    # Window
    move = "move"
    """Once: the window goes to (x, y)."""
    resize = "resize"
    """Once: the window's client area becomes ``width`` x ``height``."""
    minimise = "minimise"
    """The window is not on the screen."""
    no_window = "no_window"
    """The window is closed; afterwards a new one is opened."""
    unfocus = "unfocus"
    """Once: the window loses the keyboard."""
    # Program
    stall = "stall"
    """Once: the whole game hangs for ``seconds``."""
    quit = "quit"
    """Once: the game ends."""


MOMENTARY = frozenset(
    {Fault.skip, Fault.close, Fault.rst, Fault.move, Fault.resize, Fault.unfocus, Fault.stall, Fault.quit}
)
"""Faults that happen once; the others last for their ``seconds`` or until they are cleared."""


@dataclass
class FaultRequest:
    """A fault and its particulars; those of other faults are not read."""

    fault: Fault
    seconds: float | None = None
    """How long it lasts [s]; None: until it is cleared."""
    pieces: list[int] = field(default_factory=lambda: [4] * 11)
    """split: sizes of the writes [bytes]."""
    count: int = 20
    """burst: records per write; skip: bytes that are left out."""
    fps: float = 5.0
    """slow: frames per second."""
    x: int = 0
    """move: left edge [px]."""
    y: int = 0
    """move: upper edge [px]."""
    width: int = 640
    """resize: [px]."""
    height: int = 360
    """resize: [px]."""

    def __post_init__(self) -> None:
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"fault.seconds must be > 0 s, or absent, got {self.seconds}")
        if self.fault is Fault.stall and self.seconds is None:
            raise ValueError("fault.seconds must say for how long the game shall stall, got nothing")
        if sum(self.pieces) != RECORD_BYTES or min(self.pieces) < 1:
            raise ValueError(f"fault.pieces must be sizes that add up to {RECORD_BYTES} bytes, got {self.pieces}")
        for name in ("count", "width", "height"):
            if getattr(self, name) < 1:
                raise ValueError(f"fault.{name} must be >= 1, got {getattr(self, name)}")
        if not 0.1 <= self.fps <= 1000.0:
            raise ValueError(f"fault.fps must be 0.1 to 1000 frames per second, got {self.fps}")


def request_from_dict(data: Mapping[str, Any]) -> FaultRequest:
    """Reads a request, such as ``{"fault": "nan", "seconds": 2}``.

    Raises:
        ValueError: It has an unknown name or value, by its full name.
    """
    return config_from_dict(FaultRequest, data, "fault")


class FaultBoard:
    """Which lasting faults are on, and until when."""

    def __init__(self) -> None:
        self._active: dict[Fault, tuple[FaultRequest, float]] = {}

    def begin(self, request: FaultRequest, now_s: float) -> None:
        """Switches a lasting fault on, or renews it."""
        ends = math.inf if request.seconds is None else now_s + request.seconds
        self._active[request.fault] = (request, ends)

    def get(self, fault: Fault) -> FaultRequest | None:
        """The request of a fault that is on, else None."""
        entry = self._active.get(fault)
        return None if entry is None else entry[0]

    def has(self, fault: Fault) -> bool:
        """Whether a fault is on."""
        return fault in self._active

    def names(self) -> list[str]:
        """What is on, for the console."""
        return sorted(fault.name for fault in self._active)

    def clear(self, fault: Fault | None = None) -> list[Fault]:
        """Switches one fault off, or all; returns those that were on."""
        ended = [entry for entry in self._active if fault is None or entry is fault]
        for entry in ended:
            del self._active[entry]
        return ended

    def expire(self, now_s: float) -> list[Fault]:
        """Switches off and returns those whose time is over."""
        ended = [fault for fault, (_, ends) in self._active.items() if now_s >= ends]
        for fault in ended:
            del self._active[fault]
        return ended
