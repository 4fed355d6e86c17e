"""The options of the stand-in game. ``__main__`` parses them, the game reads them."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.config import LiveConfig
from tasks.stand_in.faults import FaultRequest, request_from_dict

DEFAULT_TITLE = "Trackmania"


@dataclass(frozen=True)
class Options:
    """A stand-in game before it is started."""

    track: str = "medium"
    """Shipped track, or a file with the points of one."""
    vehicle: str | None = None
    """Another car, as ``task.vehicle`` takes it; None: the game's."""
    width: int = 958
    """Of the window's client area [px]."""
    height: int = 488
    """Of the window's client area [px]."""
    left: int = 60
    """Place of the window on the screen [px]."""
    top: int = 40
    """Place of the window on the screen [px]."""
    title: str = DEFAULT_TITLE
    display: str | None = None
    """X display; None: $DISPLAY."""
    port: int = LiveConfig.port
    """Telemetry; 0: a free port."""
    num_floats: int = 11
    """Length of a record: 11, TMRL's, or 14 with velocity and heading."""
    ghost_port: int = LiveConfig.ghost_port
    """Ghost saver; 0: a free port."""
    pad_port: int | None = None
    """Analog controls for tests; 0: a free port; None: not offered."""
    fps: float = 60.0
    """Frames per second."""
    faults: tuple[FaultRequest, ...] = field(default=())
    """Faults that are there from the start."""
    ends_with_stdin: bool = False
    """Whether the game ends when its standard input is closed, as when the program that started it has died."""


def parse_options(arguments: Sequence[str]) -> Options:
    """Reads the command line; a wrong one ends the program with a message."""
    parser = _parser()
    values = vars(parser.parse_args(arguments))
    values["width"], values["height"] = values.pop("size")
    values["left"], values["top"] = values.pop("position")
    values["faults"] = tuple(values["faults"])
    return Options(**values)


def _parser() -> argparse.ArgumentParser:
    default = Options()
    parser = argparse.ArgumentParser(
        prog="python -m tasks.stand_in",
        description="A stand-in for TrackMania: drive it with the arrow keys or W, A, S, D; Delete restarts.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--track",
        default=default.track,
        help="short, medium, long, each also with _mirrored; a file of points; a ghost",
    )
    add("--vehicle", metavar="FILE", help="another car: a YAML file of constants, as task.vehicle= takes it")
    add("--size", type=_size, default=(default.width, default.height), metavar="WxH", help="of the window [px]")
    add("--position", type=_position, default=(default.left, default.top), metavar="X,Y", help="of the window [px]")
    add("--title", default=default.title, help="of the window")
    add("--display", help="X display, such as :1; without it $DISPLAY")
    add("--port", type=_port, default=default.port, help="telemetry port; 0: a free one")
    add("--floats", type=int, choices=(11, 14), default=default.num_floats, dest="num_floats", help="in a record")
    add("--ghost-port", type=_port, default=default.ghost_port, help="port of the ghost saver; 0: a free one")
    add("--pad-port", type=_port, help="port for analog controls of tests; 0: a free one")
    add("--fps", type=_rate, default=default.fps, help="frames per second")
    add("--fault", type=_fault, action="append", default=[], dest="faults", help="a name, or JSON; may be repeated")
    add("--end-with-stdin", action="store_true", dest="ends_with_stdin", help="end when standard input is closed")
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or min(int(side) for side in match.groups()) < 16:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, at least 16x16 px, such as 958x488, got {text!r}")
    return int(match[1]), int(match[2])


def _position(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(-?\d+),(-?\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected X,Y in pixels, such as 60,40, got {text!r}")
    return int(match[1]), int(match[2])


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.1 <= rate <= 1000.0:
        raise argparse.ArgumentTypeError(f"expected frames per second from 0.1 to 1000, got {text!r}")
    return rate


def _fault(text: str) -> FaultRequest:
    try:
        return request_from_dict(json.loads(text) if text.startswith("{") else {"fault": text})
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
