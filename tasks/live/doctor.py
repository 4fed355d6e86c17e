"""One line on the state of the live game: telemetry, window, pictures and controls.

It helps first when something is wrong. ``tasks.live.live_game`` logs it when driving begins; ``--check`` shows it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from tasks.config import LiveConfig
from tasks.game.errors import GameError
from tasks.live.parts import LiveParts

CAPTURES = 5
"""Pictures whose capture is timed."""


def doctor_line(parts: LiveParts, live: LiveConfig) -> str:
    """Window, pictures, telemetry, plugin record and controls of the live game, each with what is wrong with it.

    Args:
        parts: The opened game.
        live: Its configuration.
    """
    said = [
        _or_fault("window", lambda: _window(parts, live.window_title)),
        _or_fault("pictures", lambda: _pictures(parts)),
        _or_fault("telemetry", lambda: _telemetry(parts)),
        f"record {live.record.name} on port {live.port}",
        f"controls {_controls(parts)}",
    ]
    return "live game: " + ", ".join(said)


def _window(parts: LiveParts, title: str) -> str:
    area = parts.window.geometry()
    focus = "focused" if parts.window.is_focused() else "without the focus"
    covered = parts.window.covered_fraction()
    cover = f", {covered:.0%} covered by other windows" if covered > 0.0 else ""
    return f"window {title!r} {area.width}x{area.height} at ({area.left}, {area.top}), {focus}{cover}"


def _pictures(parts: LiveParts) -> str:
    times = []
    for _ in range(CAPTURES):
        started = time.perf_counter()
        parts.frames.grab()
        times.append(time.perf_counter() - started)
    return f"pictures in {1e3 * min(times):.1f} ms"


def _telemetry(parts: LiveParts) -> str:
    _, age_s = parts.telemetry.newest()
    status = getattr(parts.telemetry, "status", None)
    rate_hz = status().rate_hz if status is not None else math.nan
    rate = "" if math.isnan(rate_hz) else f"{rate_hz:.0f} records/s (one a frame), "
    return f"telemetry {rate}{1e3 * age_s:.0f} ms old"


def _controls(parts: LiveParts) -> str:
    """Class name without its suffix: gamepad, keyboard, no."""
    name = type(parts.controls).__name__.removesuffix("Controls").lower()
    return "none" if name == "no" else name


def _or_fault(what: str, say: Callable[[], str]) -> str:
    try:
        return say()
    except GameError as error:
        return f"{what}: {error}"
