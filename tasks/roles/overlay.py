"""Pictures of a network's inputs, for people: beams over the screenshot, the image history, numbers as text.

``tasks.roles.check.check`` and ``tasks.roles.drive.drive`` combine them. Arrays in, arrays out: no window, no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.game.lidar_sensor import beam_pixels

Picture = NDArray[np.uint8]
"""RGB, shape (h, w, 3)."""

BACKGROUND = (24, 27, 33)
TEXT_COLOUR = (226, 230, 236)
DIM_COLOUR = (150, 158, 168)
GOOD_COLOUR = (98, 208, 124)
BAD_COLOUR = (255, 110, 92)
BEAM_COLOUR = (255, 64, 48)
OPEN_BEAM_COLOUR = (255, 196, 40)
"""A beam that met no border."""
_OLD_COLOUR = (120, 190, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.45
LINE_PX = 19
"""Height of a line of text [px]."""


def rgb(frame: np.ndarray) -> Picture:
    """A BGRA frame as RGB."""
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGRA2RGB), np.uint8)


def resized(picture: Picture, width: int) -> Picture:
    """The picture at another width, in proportion; an enlarged one keeps its pixels visible."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    method = cv2.INTER_NEAREST if width >= picture.shape[1] else cv2.INTER_AREA
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), np.uint8)


def beams_over(picture: Picture, scans: np.ndarray) -> Picture:
    """LIDAR scans over the screenshot on which they were measured.

    The newest scan is drawn as beams with their ends, orange where a beam ran to the edge of the picture without
    meeting a border; of older scans the ends are dots.

    Args:
        picture: The screenshot.
        scans: Index of the pixel at which each beam ends, shape (H, 19), newest last.

    Returns:
        A copy with the beams.
    """
    drawn = picture.copy()
    height, width = picture.shape[:2]
    beams = _beams(width, height)
    for scan in scans[:-1]:
        for beam, length in zip(beams, scan, strict=True):
            cv2.circle(drawn, _point(beam, length), 2, _OLD_COLOUR, -1, cv2.LINE_AA)
    for beam, length in zip(beams, scans[-1], strict=True):
        colour = OPEN_BEAM_COLOUR if length >= len(beam) - 1 else BEAM_COLOUR
        cv2.line(drawn, _point(beam, 0), _point(beam, length), colour, 1, cv2.LINE_AA)
        cv2.circle(drawn, _point(beam, length), 4, colour, -1, cv2.LINE_AA)
    return drawn


def beam_lengths(width: int, height: int) -> np.ndarray:
    """The value of each beam that meets no border in a picture of this size [px], shape (19,)."""
    return np.array([len(beam) - 1 for beam in _beams(width, height)], np.float32)


def road_from_above(lines: Sequence[np.ndarray], width: int) -> Picture:
    """The road ahead of a car, which stands at the left edge and looks to the right; the first line is the path.

    Args:
        lines: Points (forward, to the right) [m], each of shape (N, 2).
        width: Of the picture [px].
    """
    points = np.concatenate([*lines, np.zeros((1, 2))])
    left_m, right_m = points[:, 1].min(), points[:, 1].max()
    scale = (width - 24) / max(points[:, 0].max(), right_m - left_m, 1.0)
    car = np.array([12.0, 12.0 - scale * left_m])
    picture = np.full((24 + round(scale * (right_m - left_m)), width, 3), BACKGROUND, np.uint8)
    for points, colour in zip(lines, (_OLD_COLOUR, *[OPEN_BEAM_COLOUR] * (len(lines) - 1)), strict=True):
        pixels = np.round(car + scale * points).astype(np.int32)
        cv2.polylines(picture, [pixels], False, colour, 1, cv2.LINE_AA)
        for pixel in pixels.tolist():
            cv2.circle(picture, pixel, 2, colour, -1, cv2.LINE_AA)
    cv2.circle(picture, np.round(car).astype(int).tolist(), 4, BEAM_COLOUR, -1, cv2.LINE_AA)
    return picture


def history_row(images: np.ndarray, width: int) -> Picture:
    """An image history side by side, oldest left, each with its age in steps.

    Args:
        images: uint8, shape (H, h, w) grey or (H, h, w, 3) RGB, newest last.
        width: Of the whole row [px].
    """
    tile_width = width // len(images)
    tiles = []
    for age, image in zip(range(len(images) - 1, -1, -1), images, strict=True):
        coloured = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
        tile = resized(np.ascontiguousarray(coloured), tile_width - 2)
        tile = np.pad(tile, ((1, 1), (1, 1), (0, 0)))
        _write(tile, f"t-{age}" if age else "t", (6, 16), OPEN_BEAM_COLOUR)
        tiles.append(tile)
    return _padded(np.hstack(tiles), width)


def text_block(lines: Sequence[tuple[str, tuple[int, int, int]]], width: int, height: int | None = None) -> Picture:
    """Lines of text, each with its colour; long lines are wrapped, what does not fit into ``height`` is cut off.

    Args:
        lines: Text and RGB colour. Letters beyond ASCII are shown as question marks.
        width: Of the picture [px].
        height: Of the picture [px]; None: as high as the text.
    """
    wrapped = [(part, colour) for text, colour in lines for part in _wrapped(text, width - 16)]
    picture = np.full((height or LINE_PX * len(wrapped) + 12, width, 3), BACKGROUND, np.uint8)
    for row, (text, colour) in enumerate(wrapped):
        _write(picture, text, (8, 6 + LINE_PX * row + 13), colour, outlined=False)
    return picture


def beside(left: Picture, right: Picture) -> Picture:
    """Two pictures side by side, the lower one filled up."""
    height = max(left.shape[0], right.shape[0])
    return np.hstack([_filled(left, height), _filled(right, height)])


def below(*pictures: Picture) -> Picture:
    """Pictures one below the other, the narrower ones filled up."""
    width = max(picture.shape[1] for picture in pictures)
    return np.vstack([_padded(picture, width) for picture in pictures])


def inset(picture: Picture, small: Picture, margin: int = 10) -> None:
    """Puts a picture into the upper right corner of another, which is changed."""
    height, width = (
        min(small.shape[0], picture.shape[0] - 2 * margin),
        min(small.shape[1], picture.shape[1] - 2 * margin),
    )
    if height > 0 and width > 0:
        picture[margin : margin + height, -margin - width : -margin] = small[:height, :width]


@lru_cache(maxsize=4)
def _beams(width: int, height: int) -> tuple[np.ndarray, ...]:
    return tuple(beam_pixels(width, height))


def _point(beam: np.ndarray, length: float) -> tuple[int, int]:
    """(column, row) of the pixel of a beam."""
    row, column = beam[min(max(int(length), 0), len(beam) - 1)].tolist()
    return column, row


def _wrapped(text: str, width: int) -> list[str]:
    """Pieces of a text that fit into ``width`` [px]."""
    text = text.encode("ascii", "replace").decode()
    pieces, current = [], ""
    for word in text.split(" "):
        longer = f"{current} {word}" if current else word
        if current and _text_width(longer) > width:
            pieces.append(current)
            current = f"  {word}"
        else:
            current = longer
    return [*pieces, current]


def _text_width(text: str) -> int:
    return int(cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0])


def _write(
    picture: Picture, text: str, at: tuple[int, int], colour: tuple[int, int, int], *, outlined: bool = True
) -> None:
    if outlined:
        cv2.putText(picture, text, at, _FONT, _FONT_SCALE, (16, 16, 16), 3, cv2.LINE_AA)
    cv2.putText(picture, text, at, _FONT, _FONT_SCALE, colour, 1, cv2.LINE_AA)


def _padded(picture: Picture, width: int) -> Picture:
    return _extended(picture, picture.shape[0], width)


def _filled(picture: Picture, height: int) -> Picture:
    return _extended(picture, height, picture.shape[1])


def _extended(picture: Picture, height: int, width: int) -> Picture:
    larger = np.full((height, width, 3), BACKGROUND, np.uint8)
    larger[: picture.shape[0], : picture.shape[1]] = picture
    return larger
