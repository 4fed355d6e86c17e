"""What is written over the pictures of a film: map, lap time, controls, speed. Pictures in, pictures out.

Panels that never change are drawn once with their transparency; text and bars are drawn on each picture. Letters are
those of matplotlib's DejaVu, which is installed with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom [px]."""

WIDTH, HEIGHT = 1280, 720
"""Size of the pictures [px]."""
_MARGIN = 24
_PANEL = (12, 16, 22, 176)
_WHITE: Colour = (245, 247, 250)
_DIM: Colour = (158, 168, 180)
_GREEN: Colour = (84, 210, 120)
_RED: Colour = (240, 88, 76)
_BLUE: Colour = (92, 176, 255)
_ROAD: Colour = (92, 102, 116)
_TROUGH: Colour = (52, 60, 70)
_MAP_BOX = (_MARGIN, _MARGIN, _MARGIN + 250, _MARGIN + 210)
_TIME_BOX = (WIDTH - _MARGIN - 250, _MARGIN, WIDTH - _MARGIN, _MARGIN + 78)
_GAP_BOX = (*_TIME_BOX[:3], _MARGIN + 120)
_CONTROLS_BOX = (_MARGIN, HEIGHT - _MARGIN - 118, _MARGIN + 330, HEIGHT - _MARGIN)
_SPEED_BOX = (WIDTH - _MARGIN - 250, HEIGHT - _MARGIN - 118, WIDTH - _MARGIN, HEIGHT - _MARGIN)


class Dials(NamedTuple):
    """What the panels show of one moment."""

    time_s: float
    speed_mps: float = 0.0
    gear: int = 0
    gas: float = 0.0
    brake: float = 0.0
    steer: float = 0.0
    x: float = 0.0
    z: float = 0.0
    gap_s: float | None = None
    """Behind the reference lap at this place, negative before it [s]; None: there is none."""
    episode_return: float = 0.0
    action: Sequence[float] = ()
    is_over: bool = False


class Overlay(Protocol):
    """Writes over pictures."""

    def draw(self, picture: np.ndarray, dials: Dials) -> np.ndarray:
        """The picture, uint8 RGB, shape (720, 1280, 3), with the panels."""
        ...


class DrivingOverlay:
    """Map with the car, lap time and gap, controls, speed and gear.

    Args:
        path: The reference path [m], shape (N, 3).
        driven: Where the car was in each shot, x and z [m], shape (T, 2).
        times_s: When, shape (T,).
        has_gap: Whether there is a reference lap.
    """

    def __init__(self, path: np.ndarray, driven: np.ndarray, times_s: np.ndarray, *, has_gap: bool) -> None:
        self._onto_map = _Projection(path[:, [0, 2]], _MAP_BOX)
        self._driven = [tuple(point) for point in self._onto_map(driven).tolist()]
        self._times_s = times_s
        layer, pen = _layer()
        boxes = (_MAP_BOX, _GAP_BOX if has_gap else _TIME_BOX, _CONTROLS_BOX, _SPEED_BOX)
        for box in boxes:
            pen.rounded_rectangle(box, 12, _PANEL)
        road = [tuple(point) for point in self._onto_map(path[:: max(1, len(path) // 600), [0, 2]]).tolist()]
        pen.line(road, _ROAD, 7, joint="curve")
        start = road[0]
        pen.ellipse((start[0] - 5, start[1] - 5, start[0] + 5, start[1] + 5), _WHITE)
        for row, name in enumerate(("steer", "gas", "brake")):
            _text(pen, (_CONTROLS_BOX[0] + 16, _bar_top(row) + 7), name, 17, _DIM, "lm")
        _text(pen, (_SPEED_BOX[2] - 16, _SPEED_BOX[3] - 22), "km/h", 20, _DIM, "rm")
        self._panels = _Panels(layer, boxes)

    def draw(self, picture: np.ndarray, dials: Dials) -> np.ndarray:
        """The picture with the panels."""
        image, pen = self._panels.over(picture)
        self._draw_map(pen, dials)
        _draw_time(pen, dials)
        _draw_controls(pen, dials)
        right, bottom = _SPEED_BOX[2] - 16, _SPEED_BOX[3]
        _text(pen, (right - 62, bottom - 50), f"{3.6 * dials.speed_mps:.0f}", 62, _WHITE, "rm", is_bold=True)
        gear = "R" if dials.gear == 0 else str(dials.gear)
        _text(pen, (right - 22, bottom - 80), gear, 40, _BLUE, "mm", is_bold=True)
        return np.asarray(image)

    def _draw_map(self, pen: ImageDraw.ImageDraw, dials: Dials) -> None:
        x, y = self._onto_map(np.array([[dials.x, dials.z]]))[0].tolist()
        past = self._driven[: int(np.searchsorted(self._times_s, dials.time_s, side="right"))]
        if past:
            pen.line([*past, (x, y)], _BLUE, 3, joint="curve")
        pen.ellipse((x - 7, y - 7, x + 7, y + 7), _RED, _WHITE, 2)


class PlainOverlay:
    """Title, time and return, and a bar for each number of the action.

    Args:
        title: What is seen.
        num_actions: Numbers of an action; the first eight are shown.
    """

    def __init__(self, title: str, num_actions: int) -> None:
        layer, pen = _layer()
        self._num_bars = min(num_actions, 8)
        self._bars_box = (_MARGIN, HEIGHT - _MARGIN - 20 - 30 * self._num_bars, _MARGIN + 240, HEIGHT - _MARGIN)
        title_box = (_MARGIN, _MARGIN, _MARGIN + 240, _MARGIN + 130)
        for box in (title_box, self._bars_box):
            pen.rounded_rectangle(box, 12, _PANEL)
        _text(pen, (_MARGIN + 16, _MARGIN + 28), title[:22], 18, _WHITE, "lm", is_bold=True)
        _text(pen, (_MARGIN + 16, _MARGIN + 66), "time", 17, _DIM, "lm")
        _text(pen, (_MARGIN + 16, _MARGIN + 100), "return", 17, _DIM, "lm")
        self._panels = _Panels(layer, (title_box, self._bars_box))

    def draw(self, picture: np.ndarray, dials: Dials) -> np.ndarray:
        """The picture with the panels."""
        image, pen = self._panels.over(picture)
        right = _MARGIN + 224
        _text(pen, (right, _MARGIN + 66), f"{dials.time_s:.2f} s", 22, _WHITE, "rm", is_bold=True)
        _text(pen, (right, _MARGIN + 100), f"{dials.episode_return:.1f}", 22, _WHITE, "rm", is_bold=True)
        for row, value in enumerate(dials.action[: self._num_bars]):
            top = self._bars_box[1] + 18 + 30 * row
            _centred_bar(pen, (_MARGIN + 16, top, right, top + 14), float(value))
        return np.asarray(image)


class _Projection:
    """From the ground to a box of the picture, x to the right and z up."""

    def __init__(self, points: np.ndarray, box: Box) -> None:
        low, high = points.min(axis=0), points.max(axis=0)
        size = np.array([box[2] - box[0], box[3] - box[1]]) - 44.0
        self._scale = float((size / np.maximum(high - low, 1.0)).min())
        self._middle = (low + high) / 2
        self._centre = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Pixels of points x, z [m], shape (N, 2)."""
        return self._centre + (points - self._middle) * self._scale * np.array([1.0, -1.0])


class _Panels:
    """What never changes, blended into each picture where it is."""

    def __init__(self, layer: Image.Image, boxes: Sequence[Box]) -> None:
        pixels = np.asarray(layer).astype(np.uint16)
        self._parts: list[tuple[tuple[slice, slice], np.ndarray, np.ndarray]] = []
        for left, top, right, bottom in boxes:
            place = (slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1))
            alpha = pixels[place][..., 3:]
            self._parts.append((place, 255 - alpha, pixels[place][..., :3] * alpha))

    def over(self, picture: np.ndarray) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """An image of the picture with the panels, and a pen for it."""
        blended = picture.copy()
        for place, rest, colour in self._parts:
            blended[place] = (blended[place] * rest + colour) // 255
        image = Image.fromarray(blended)
        return image, ImageDraw.Draw(image)


def _draw_time(pen: ImageDraw.ImageDraw, dials: Dials) -> None:
    right, top = _TIME_BOX[2] - 16, _TIME_BOX[1]
    minutes, seconds = divmod(max(dials.time_s, 0.0), 60.0)
    colour = _GREEN if dials.is_over else _WHITE
    _text(pen, (right, top + 40), f"{minutes:.0f}:{seconds:05.2f}", 46, colour, "rm", is_bold=True)
    if dials.gap_s is not None and not math.isnan(dials.gap_s):
        _text(
            pen, (right, top + 92), f"{dials.gap_s:+.2f}", 30, _RED if dials.gap_s > 0 else _GREEN, "rm", is_bold=True
        )


def _draw_controls(pen: ImageDraw.ImageDraw, dials: Dials) -> None:
    left, right = _CONTROLS_BOX[0] + 84, _CONTROLS_BOX[2] - 16
    _centred_bar(pen, (left, _bar_top(0), right, _bar_top(0) + 14), dials.steer)
    for row, (value, colour) in enumerate(((dials.gas, _GREEN), (dials.brake, _RED)), start=1):
        top = _bar_top(row)
        pen.rectangle((left, top, right, top + 14), _TROUGH)
        if value > 0.0:
            pen.rectangle((left, top, left + min(value, 1.0) * (right - left), top + 14), colour)


def _centred_bar(pen: ImageDraw.ImageDraw, box: Box, value: float) -> None:
    """A bar from the middle, for -1 to 1."""
    left, top, right, bottom = box
    middle = (left + right) / 2
    end = middle + min(max(value, -1.0), 1.0) * (right - left) / 2
    pen.rectangle(box, _TROUGH)
    pen.rectangle((min(middle, end), top, max(middle, end), bottom), _BLUE)
    pen.line((middle, top - 3, middle, bottom + 3), _WHITE, 2)


def _bar_top(row: int) -> float:
    return _CONTROLS_BOX[1] + 18 + 34 * row


def _layer() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    layer = Image.new("RGBA", (WIDTH, HEIGHT))
    return layer, ImageDraw.Draw(layer)


def _text(
    pen: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: Colour,
    anchor: str,
    *,
    is_bold: bool = False,
) -> None:
    pen.text(at, text, colour, _font(size, is_bold), anchor)


@lru_cache(maxsize=32)
def _font(size: int, is_bold: bool) -> ImageFont.FreeTypeFont:
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
