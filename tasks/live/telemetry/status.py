"""The status of the telemetry: its figures, and messages that say what was found and what to do."""

from __future__ import annotations

from typing import NamedTuple

from tasks.game.errors import TelemetryState
from tasks.live.telemetry.layouts import RecordLayout, record_of_size


class TelemetryStatus(NamedTuple):
    """A snapshot of the connection to the plugin."""

    state: TelemetryState
    rate_hz: float
    """Records per second, over the last seconds; NaN when unknown. It follows the frame rate of the game."""
    age_s: float | None
    """Age of the newest record [s]; None when there is none."""
    num_records: int
    """Complete records since the start, dropped ones included."""
    num_reconnects: int
    """Connections made after the first one."""
    message: str


def waiting(address: str) -> str:
    """Message while the state is not known yet."""
    return f"waiting for telemetry from {address}"


def receiving(rate_hz: float) -> str:
    """Message while records arrive."""
    return f"telemetry arrives at {rate_hz:.0f} records/s"


def not_running(address: str, is_certain: bool) -> str:
    """Nothing listens; whether the game runs is known or not."""
    found = "and TrackMania has no window" if is_certain else "so the game or its plugin does not run"
    return (
        f"no telemetry: nothing listens on {address}, {found}. Start TrackMania with Openplanet, load a map and wait "
        "for the car; without the game, set task.game=sim"
    )


def plugin_not_loaded(address: str) -> str:
    """The game is there, its plugin is not."""
    return (
        f"no telemetry: TrackMania runs, but its plugin is not loaded: nothing listens on {address}. In the game press "
        "F3 and load TMRL Grab Data in Openplanet's plugin manager (or ours: train.py --install-plugin, signature mode "
        "Developer); if the plugin listens on another port, set task.live.port"
    )


def in_menu(address: str, silent_s: float) -> str:
    """Message for a silent connection."""
    return (
        f"no telemetry for {silent_s:.1f} s: the plugin on {address} is connected, but silent, as it is in a menu and "
        "while loading. Load a map so that a car stands on the track; if one does, reload the plugin in Openplanet (F3)"
    )


def port_taken(address: str, silent_s: float, holder: str) -> str:
    """Connected and silent, and another program is connected too."""
    return (
        f"no telemetry for {silent_s:.1f} s: {holder} is connected to the plugin on {address} as well, and the plugin "
        "serves only one program at a time. End the other one (another train.py, TMRL?), or wait until it ends"
    )


def lost(address: str, cause: str) -> str:
    """Message for a broken connection."""
    return (
        f"the telemetry connection to {address} broke ({cause}); connecting again. If this lasts, see whether the game "
        "and its plugin still run"
    )


def implausible(address: str, reason: str, layout: RecordLayout, piece_size: int | None) -> str:
    """Records arrive that no car can send.

    Args:
        address: Of the plugin.
        reason: What is wrong with them.
        layout: How they were read.
        piece_size: How many bytes arrive at a time; a known other record is named. None: not to be mentioned.
    """
    other = None if piece_size is None or piece_size == layout.size else record_of_size(piece_size)
    if other is not None:
        advice = f"it sends {piece_size} bytes at a time: set task.live.record={other.name}"
    else:
        advice = "set task.live.record to the record of your plugin, and see that nothing but the plugin uses that port"
    return (
        f"the telemetry from {address} makes no sense: {reason}. Read as {layout.num_floats} float32 ({layout.name}); "
        f"{advice}"
    )


def wrong_motion(address: str, reason: str) -> str:
    """Each record could be right, but the speeds do not fit the positions."""
    return f"the telemetry from {address} makes no sense: {reason}. Use a plugin that sends m/s, such as TMRL's or ours"
