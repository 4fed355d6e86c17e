"""The picture of ``--check``: the network's inputs over the screenshot that they were made of, and the findings.

``tasks.roles.check.task_check`` draws it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tasks.experience.observation import Field, ObservationSpec
from tasks.pictures import MPS_TO_KMH
from tasks.roles import overlay
from tasks.roles.check.findings import Finding
from tasks.roles.check.watched_game import Seen
from tasks.roles.overlay import Picture

SCREENSHOT_WIDTH = 768
PANEL_WIDTH = 420

_Line = tuple[str, tuple[int, int, int]]


class CheckView(NamedTuple):
    """Everything the picture shows."""

    title: str
    spec: ObservationSpec
    observation: Mapping[str, np.ndarray]
    """By name, as the environment returned it."""
    seen: Seen | None
    """What it was made of; None: nothing yet."""
    reward: float
    episode_return: float
    progress: float
    rate_hz: float
    """Records of telemetry per second; NaN when unknown."""
    findings: Sequence[Finding]


def check_picture(view: CheckView) -> Picture:
    """Draws it, RGB."""
    left = _pictures(view)
    right = overlay.text_block(_lines(view), PANEL_WIDTH)
    upper = overlay.beside(left, right)
    return overlay.below(upper, overlay.text_block(_verdict(view.findings), upper.shape[1]))


def input_lines(spec: ObservationSpec, observation: Mapping[str, np.ndarray]) -> list[str]:
    """A line per field: its value as the environment returns it, and as the network sees it after scaling."""
    return [_input_line(field, observation[field.name]) for field in spec.all_fields()]


def _pictures(view: CheckView) -> Picture:
    if view.seen is None:
        return np.full((SCREENSHOT_WIDTH // 2, SCREENSHOT_WIDTH, 3), 40, np.uint8)
    screenshot = overlay.rgb(view.seen.frame)
    if "lidar" in view.observation:
        screenshot = overlay.beams_over(screenshot, view.observation["lidar"])
    parts = [overlay.resized(screenshot, SCREENSHOT_WIDTH)]
    if "path_ahead" in view.observation:
        lines = [view.observation[name] for name in ("path_ahead", "left_border_ahead", "right_border_ahead")]
        parts.append(overlay.road_from_above(lines, SCREENSHOT_WIDTH))
    parts += [
        overlay.history_row(view.observation[field.name], SCREENSHOT_WIDTH)
        for field in view.spec.fields
        if field.history and field.dtype == "uint8"
    ]
    return overlay.below(*parts)


def _lines(view: CheckView) -> list[_Line]:
    lines: list[_Line] = [(view.title, overlay.TEXT_COLOUR), ("", overlay.TEXT_COLOUR)]
    lines.append(("network inputs, in order: value (as scaled)", overlay.DIM_COLOUR))
    if view.observation:
        lines += [(line, overlay.TEXT_COLOUR) for line in input_lines(view.spec, view.observation)]
    lines += [("", overlay.TEXT_COLOUR), ("telemetry", overlay.DIM_COLOUR)]
    lines += [(line, overlay.TEXT_COLOUR) for line in _telemetry_lines(view)]
    lines += [("", overlay.TEXT_COLOUR), ("reward", overlay.DIM_COLOUR)]
    lines.append((f"step {view.reward:+.3f}   return {view.episode_return:+.2f}", overlay.TEXT_COLOUR))
    lines.append((f"progress {view.progress:.1%} of the reference path", overlay.TEXT_COLOUR))
    return lines


def _telemetry_lines(view: CheckView) -> list[str]:
    if view.seen is None:
        return ["none"]
    record, age_ms = view.seen.telemetry, 1000 * view.seen.age_s
    rate = "" if np.isnan(view.rate_hz) else f", {view.rate_hz:.0f} records/s"
    return [
        f"speed {record.speed:.2f} m/s = {MPS_TO_KMH * record.speed:.0f} km/h",
        f"position {record.x:.1f}, {record.y:.1f}, {record.z:.1f} m",
        f"gear {record.gear:.0f}   {record.rpm:.0f} rpm   driven {record.distance:.0f} m",
        f"steer {record.steer:+.2f}   gas {record.gas:.2f}   brake {record.is_braking:.0f}",
        f"finish screen {'shows' if record.finished else 'no'}",
        f"age {age_ms:.0f} ms{rate}",
    ]


def _verdict(findings: Sequence[Finding]) -> list[_Line]:
    if not findings:
        return [("nothing looks wrong", overlay.GOOD_COLOUR)]
    return [(f"! {finding.message}", overlay.BAD_COLOUR) for finding in findings]


def _input_line(field: Field, value: np.ndarray) -> str:
    scaled = (value.astype(np.float32) - field.offset) / field.scale
    shape = "x".join(map(str, value.shape))
    if value.size <= 4:
        values = " ".join(f"{x:.2f}" for x in value.ravel())
        return f"{field.name}: {values} ({' '.join(f'{x:.2f}' for x in scaled.ravel())})"
    newest = value[-1] if field.history else value
    newest_scaled = scaled[-1] if field.history else scaled
    return (
        f"{field.name} {shape} {field.dtype}: newest {newest.min():.0f} to {newest.max():.0f} "
        f"({newest_scaled.min():.2f} to {newest_scaled.max():.2f})"
    )
