"""From a recording to pictures at any rate, to an mp4, and to a small animated picture."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from tasks.film.overlay import HEIGHT, WIDTH, Dials, DrivingOverlay, Overlay, PlainOverlay
from tasks.film.recorder import FilmRecorder, Shot
from tasks.pictures import VideoFile
from tasks.process.atomic_file import write_file

if TYPE_CHECKING:
    from tasks.sim.chase_view import ChaseCar

FPS = 30.0
HOLD_S = 1.5
"""How long the last moment stays [s]."""
ANIMATION_FPS = 10.0
ANIMATION_WIDTH = 640
ANIMATION_BYTES = 2_000_000
"""An animated picture is smaller than this."""
_BACKGROUND = (18, 22, 28)
_CRF = 25
_WEBP_QUALITY = 50


def write_film(film: FilmRecorder, path: str | Path, title: str, gaps_s: np.ndarray | None = None) -> None:
    """Writes an mp4 of 1280 x 720 pixels at 30 pictures a second.

    Args:
        film: The recording, with at least one shot.
        path: File to write; its folder is made.
        title: What is seen, for tasks without a track.
        gaps_s: How far each shot is behind the reference lap [s], shape (T,), NaN where that is unknown; None: none.

    Raises:
        OSError: It cannot be written; there is no file then.
    """
    with VideoFile(path, FPS, crf=_CRF) as video:
        for picture in frames(film, FPS, title, gaps_s):
            video.add(picture)


def write_animation(film: FilmRecorder, path: str | Path, title: str, gaps_s: np.ndarray | None = None) -> None:
    """Writes an animated WebP of less than 2 MB, up to 640 x 360 pixels as far as that allows; see ``write_film``."""
    pictures = [_resized(picture, ANIMATION_WIDTH) for picture in frames(film, ANIMATION_FPS, title, gaps_s)]
    packed = _webp(pictures)
    while len(packed) >= ANIMATION_BYTES:
        width = int(pictures[0].shape[1] * 0.95 * math.sqrt(ANIMATION_BYTES / len(packed)))
        pictures = [_resized(picture, width) for picture in pictures]
        packed = _webp(pictures)
    write_file(Path(path), packed)


def frames(film: FilmRecorder, fps: float, title: str, gaps_s: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Pictures of the episode in its own time, uint8 RGB, shape (720, 1280, 3); the last one stays for a while.

    Between two steps a simulated car is drawn where it was; of all else the newest picture is shown.

    Args:
        film: The recording, with at least one shot.
        fps: Pictures per second.
        title: What is seen.
        gaps_s: See ``write_film``.
    """
    shots = film.shots
    times_s = np.array([shot.time_s for shot in shots])
    overlay = _overlay(film, times_s, title, has_gap=gaps_s is not None)
    end_s = float(times_s[-1])
    shown: tuple[int, np.ndarray] | None = None
    for number in range(math.ceil((end_s - times_s[0] + HOLD_S) * fps)):
        time_s = min(float(times_s[0]) + number / fps, end_s)
        index = int(np.searchsorted(times_s, time_s, side="right")) - 1
        dials = _dials(film, times_s, time_s, index, gaps_s)
        if film.view is not None:
            car = _between(shots, times_s, time_s)
            picture = film.view(car, WIDTH, HEIGHT)
        else:
            if shown is None or shown[0] != index:
                shown = index, _fitted(shots[index])
            picture = shown[1]
        yield overlay.draw(picture, dials)


def _overlay(film: FilmRecorder, times_s: np.ndarray, title: str, *, has_gap: bool) -> Overlay:
    cars = [shot.car for shot in film.shots if shot.car is not None]
    if film.path is None or len(cars) < len(film.shots):
        return PlainOverlay(title, film.shots[0].action.size)
    driven = np.array([(car.x, car.z) for car in cars])
    return DrivingOverlay(film.path, driven, times_s, has_gap=has_gap)


def _dials(film: FilmRecorder, times_s: np.ndarray, time_s: float, index: int, gaps_s: np.ndarray | None) -> Dials:
    shot = film.shots[index]
    is_over = film.lap_time_s is not None and time_s >= film.lap_time_s
    shown_s = film.lap_time_s if is_over and film.lap_time_s is not None else time_s
    if shot.car is None:
        return Dials(time_s, episode_return=shot.episode_return, action=shot.action.tolist(), is_over=is_over)
    car = _between(film.shots, times_s, time_s)
    gap_s = None if gaps_s is None else float(np.interp(time_s, times_s, gaps_s))
    return Dials(shown_s, car.speed_mps, car.gear, car.gas, car.brake, car.steer, car.x, car.z, gap_s, is_over=is_over)


def _between(shots: Sequence[Shot], times_s: np.ndarray, time_s: float) -> ChaseCar:
    """The car at a moment between two shots."""
    after = min(int(np.searchsorted(times_s, time_s, side="right")), len(shots) - 1)
    old, new = shots[max(after - 1, 0)].car, shots[after].car
    assert old is not None
    assert new is not None
    span_s = new.time_s - old.time_s
    share = min(max((time_s - old.time_s) / span_s, 0.0), 1.0) if span_s > 0 else 0.0
    turn = math.remainder(new.yaw - old.yaw, math.tau)  # a heading may pass from pi to -pi
    mixed: Any = [a + share * (b - a) for a, b in zip(old, new, strict=True)]
    return type(old)(*mixed)._replace(yaw=old.yaw + share * turn, gear=(new if share == 1.0 else old).gear)


def _fitted(shot: Shot) -> np.ndarray:
    """The environment's own picture, as large as fits, on a dark ground."""
    assert shot.picture is not None
    bgr = cv2.imdecode(shot.picture, cv2.IMREAD_COLOR)
    assert bgr is not None
    height, width = bgr.shape[:2]
    scale = min(WIDTH / width, HEIGHT / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    rgb = cv2.cvtColor(
        cv2.resize(bgr, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), cv2.COLOR_BGR2RGB
    )
    ground = np.full((HEIGHT, WIDTH, 3), _BACKGROUND, np.uint8)
    top, left = (HEIGHT - size[1]) // 2, (WIDTH - size[0]) // 2
    ground[top : top + size[1], left : left + size[0]] = rgb
    return ground


def _resized(picture: np.ndarray, width: int) -> np.ndarray:
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _webp(pictures: Sequence[np.ndarray]) -> bytes:
    images = [Image.fromarray(picture) for picture in pictures]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / ANIMATION_FPS),
        loop=0,
        quality=_WEBP_QUALITY,
        method=4,
    )
    return buffer.getvalue()
