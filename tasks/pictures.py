"""Pictures for people: the driven line over the track, videos and GIFs.

Called by ``--play``, by the learner's evaluation log and by the documentation. matplotlib, imageio-ffmpeg and Pillow
are imported at use; matplotlib only through its object interface, which needs no display and changes no global state.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.process.atomic_file import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MPS_TO_KMH = 3.6
ROAD_SPACING_M = 1.0
"""Distance between the points of the drawn road [m]."""

_FINISHING_S = 60.0
"""How long FFmpeg may take for the end of a video [s]."""


def plot_driven_line(
    centre_line: np.ndarray,
    width_m: float,
    trajectories: Sequence[np.ndarray],
    path: str | Path | None = None,
    *,
    finished: Sequence[bool] | None = None,
    title: str = "",
    size_px: tuple[int, int] | None = None,
    max_speed_kmh: float | None = None,
    is_x_left: bool = False,
    has_legend: bool = True,
) -> np.ndarray:
    """Draws trajectories over the track from above, coloured by speed.

    Args:
        centre_line: Points of the track from start to finish [m], shape (N, 3) x,y,z or (N, 2) x,z.
        width_m: Width of the road.
        trajectories: Each float32, shape (T, >=3): x [m], z [m], speed [m/s]; NaN rows break the line.
        path: PNG file to write, its folder is made; None: none.
        finished: Per trajectory whether it reached the finish; the end of one that did not is marked.
        title: Text above the plot.
        size_px: Width and height of the picture [px]; None: 700 high and as wide as the track needs.
        max_speed_kmh: Upper end of the colours; None: the highest speed driven.
        is_x_left: Whether x points to the left of z, as in the game.
        has_legend: Whether start and finish are named; placing the legend beside the road is half of the drawing.

    Returns:
        The picture, uint8 RGB, shape (h, w, 3).
    """
    line = _ground_points(centre_line)
    if width_m <= 0:
        raise ValueError(f"plot_driven_line: width_m must be > 0 m, got {width_m}")
    if finished is not None and len(finished) != len(trajectories):
        raise ValueError(f"plot_driven_line: {len(trajectories)} trajectories but {len(finished)} entries in finished")

    from matplotlib.figure import Figure

    size_px = size_px or _fitting_size(line)
    dpi = 100
    figure = Figure(figsize=(size_px[0] / dpi, size_px[1] / dpi), dpi=dpi, layout="constrained")
    axes = figure.add_subplot()
    draw_road(axes, line, width_m, has_legend)
    _draw_speed_lines(figure, axes, trajectories, max_speed_kmh)
    _mark_failures(axes, trajectories, finished)
    axes.set_aspect("equal")
    axes.autoscale_view()
    if is_x_left:
        axes.invert_xaxis()
    axes.set_xlabel("x [m]")
    axes.set_ylabel("z [m]")
    longest = max(map(len, title.splitlines()), default=0)
    axes.set_title(title.replace("$", r"\$"), wrap=True, fontsize=min(12, 12 * 50 / max(1, longest)))
    picture = rasterize(figure)
    if path is not None:
        write_png(picture, path)
    return picture


def draw_road(axes: Axes, line: np.ndarray, width_m: float, has_legend: bool = True) -> None:
    """Draws a road from above.

    Args:
        axes: What it is drawn on.
        line: x, z of the middle of the road from start to finish [m], shape (N, 2).
        width_m: Width of the road [m].
        has_legend: Whether start (green) and finish (red) are named.
    """
    from matplotlib.collections import PolyCollection

    left, right = _road_edges(line, width_m)
    quads = np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)  # (N-1, 4, 2)
    axes.add_collection(PolyCollection(list(quads), facecolors="#e3e3e6", edgecolors="face", linewidths=0.6, zorder=1))
    for edge in (left, right):
        axes.plot(edge[:, 0], edge[:, 1], color="#202020", linewidth=1.0, zorder=2)
    axes.plot(line[:, 0], line[:, 1], color="#9a9aa0", linewidth=0.6, linestyle=(0, (6, 6)), zorder=2)
    for index, colour, name in ((0, "#1a8f3c", "start"), (-1, "#c0281e", "finish")):
        ends = np.stack([left[index], right[index]])
        axes.plot(ends[:, 0], ends[:, 1], color=colour, linewidth=3.0, zorder=3, label=name)
    if has_legend:
        axes.legend(loc="best", fontsize=8, framealpha=0.85)


def rasterize(figure: Figure) -> np.ndarray:
    """The picture of a figure, uint8 RGB, shape (h, w, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def side_by_side(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """One picture of several, row by row; what is left of the last row is white.

    Args:
        pictures: uint8 RGB, all of the same shape (h, w, 3).
        columns: In each row, at most.
    """
    columns = min(columns, len(pictures))
    missing = -len(pictures) % columns
    padded = [*pictures, *[np.full_like(pictures[0], 255)] * missing]
    rows = [np.concatenate(padded[first : first + columns], axis=1) for first in range(0, len(padded), columns)]
    return np.concatenate(rows)


def write_png(picture: np.ndarray, path: str | Path) -> None:
    """Writes a uint8 RGB or grey picture; the folder is made."""
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(picture).save(packed, format="PNG")
    write_file(Path(path), packed.getbuffer())


def encode_gif(frames: np.ndarray | Sequence[np.ndarray], fps: float) -> bytes:
    """An endlessly repeating GIF of uint8 RGB pictures; GIF keeps time in 10 ms, and viewers not under 20 ms."""
    pictures = _checked_frames(frames, fps)
    from PIL import Image

    images = [Image.fromarray(picture) for picture in pictures]
    buffer = io.BytesIO()
    duration_ms = max(20, round(100.0 / fps) * 10)
    images[0].save(
        buffer, format="GIF", save_all=True, append_images=images[1:], duration=duration_ms, loop=0, optimize=False
    )
    return buffer.getvalue()


def add_gif(writer: Any, tag: str, frames: np.ndarray | Sequence[np.ndarray], fps: float, step: int) -> None:
    """Shows a clip in TensorBoard's image tab.

    Args:
        writer: A SummaryWriter of tensorboardX (rl_games' choice) or of torch.
        tag: Name in TensorBoard.
        frames: uint8 RGB, each of shape (h, w, 3).
        fps: Pictures per second.
        step: Step at which it is shown.
    """
    pictures = _checked_frames(frames, fps)
    package = "tensorboardX.proto" if type(writer).__module__.startswith("tensorboardX") else "tensorboard.compat.proto"
    summary_pb2: Any = importlib.import_module(f"{package}.summary_pb2")
    height, width = pictures[0].shape[:2]
    # SummaryWriter.add_video needs moviepy < 2; an image summary may hold a GIF and needs nothing.
    image = summary_pb2.Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=encode_gif(pictures, fps)
    )
    summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, image=image)])
    writer.file_writer.add_summary(summary, step)


class VideoFile:
    """An H.264 mp4 that browsers play (yuv420p), written picture by picture.

    Odd sizes are padded by one repeated row or column. The file appears with the first picture.

    Args:
        path: File to write; the folder is made.
        fps: Pictures per second.
        crf: H.264's constant rate factor: smaller is larger and better.
    """

    def __init__(self, path: str | Path, fps: float, crf: int = 20) -> None:
        if not fps > 0:
            raise ValueError(f"fps must be > 0, got {fps}")
        self._path = Path(path)
        self._fps = fps
        self._crf = crf
        self._shape: tuple[int, ...] = ()
        self._encoder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except OSError:
            if kind is None or issubclass(kind, OSError):  # a pipe that broke says less
                raise

    def add(self, picture: np.ndarray) -> None:
        """Appends a uint8 RGB picture, shape (h, w, 3), the same for all."""
        if self._encoder is None:
            self._shape = picture.shape
        _check_frame(picture, self._shape)
        if self._encoder is None:
            self._encoder = self._started_encoder()
        assert self._encoder.stdin is not None
        height, width = self._shape[:2]
        padding = ((0, height % 2), (0, width % 2), (0, 0))
        self._encoder.stdin.write(np.pad(picture, padding, mode="edge").tobytes())

    def close(self) -> None:
        """Finishes the file. Calling it twice is fine.

        Raises:
            OSError: FFmpeg could not write it; the incomplete file is removed.
        """
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        assert encoder.stdin is not None
        with contextlib.suppress(OSError):  # it has already ended and printed the reason
            encoder.stdin.close()
        try:
            encoder.wait(_FINISHING_S)
        except subprocess.TimeoutExpired:
            encoder.kill()
            encoder.wait()
        if encoder.returncode:
            with contextlib.suppress(OSError):
                self._path.unlink()
            raise OSError(errno.EIO, f"FFmpeg ended with status {encoder.returncode}", str(self._path))

    def _started_encoder(self) -> subprocess.Popen[bytes]:
        """FFmpeg out of the reach of Ctrl-C, so that it finishes the file.

        imageio-ffmpeg's own writer sees to that in a forked copy of this process, which gRPC's threads abort now and
        then.
        """
        from imageio_ffmpeg import get_ffmpeg_exe

        self._path.parent.mkdir(parents=True, exist_ok=True)
        height, width = self._shape[:2]
        size = f"{width + width % 2}x{height + height % 2}"
        pictures = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(self._fps), "-i", "-"]
        encoding = ["-vcodec", "libx264", "-pix_fmt", "yuv420p", "-crf", str(self._crf), "-preset", "veryfast"]
        return subprocess.Popen(
            [get_ffmpeg_exe(), "-y", "-v", "error", *pictures, *encoding, "-movflags", "+faststart", str(self._path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )


def _ground_points(centre_line: np.ndarray) -> np.ndarray:
    """Ground coordinates x, z of the centre line, about every metre, shape (N, 2)."""
    points = np.asarray(centre_line, np.float64)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or len(points) < 2:
        raise ValueError(f"plot_driven_line: centre_line must have shape (N, 2) or (N, 3), N >= 2, got {points.shape}")
    points = points[:, [0, -1]]
    spacing = float(np.median(np.hypot(*np.diff(points, axis=0).T)))
    stride = max(1, round(ROAD_SPACING_M / spacing)) if spacing > 0 else 1
    kept = points[::stride]
    return kept if (len(points) - 1) % stride == 0 else np.vstack([kept, points[-1]])


def _fitting_size(line: np.ndarray) -> tuple[int, int]:
    width, height = np.ptp(line, axis=0) + 40.0
    return int(np.clip(600 * width / height + 190, 480, 1400)), 700


def _road_edges(line: np.ndarray, width_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Left and right edge of the road, each shape (N, 2)."""
    tangent = np.gradient(line, axis=0)
    tangent /= np.maximum(np.hypot(tangent[:, 0], tangent[:, 1]), 1e-9)[:, None]
    to_left = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    return line + to_left * width_m / 2, line - to_left * width_m / 2


def _draw_speed_lines(
    figure: Figure, axes: Axes, trajectories: Sequence[np.ndarray], max_speed_kmh: float | None
) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    pieces = [_segments(trajectory) for trajectory in trajectories]
    segments = np.concatenate([piece[0] for piece in pieces]) if pieces else np.zeros((0, 2, 2))
    speeds = np.concatenate([piece[1] for piece in pieces]) if pieces else np.zeros(0)
    if not len(segments):
        return
    top = max(float(speeds.max()), 1.0) if max_speed_kmh is None else max_speed_kmh
    width = 2.4 if len(trajectories) == 1 else 1.3
    lines = LineCollection(
        list(segments), cmap="turbo", norm=Normalize(0.0, top), linewidths=width, capstyle="round", zorder=4
    )
    lines.set_array(speeds)
    axes.add_collection(lines)
    figure.colorbar(lines, ax=axes, label="speed [km/h]", shrink=0.8)


def _segments(trajectory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pieces between neighbouring points, shape (K, 2, 2), and their mean speed [km/h], shape (K,)."""
    rows = np.asarray(trajectory, np.float64)
    if rows.ndim != 2 or rows.shape[1] < 3:
        raise ValueError(f"plot_driven_line: a trajectory must have shape (T, >=3): x, z, speed, got {rows.shape}")
    pairs = np.stack([rows[:-1, :3], rows[1:, :3]], axis=1)  # (T-1, 2, 3)
    pairs = pairs[np.isfinite(pairs).all(axis=(1, 2))]
    return pairs[:, :, :2], pairs[:, :, 2].mean(axis=1) * MPS_TO_KMH


def _mark_failures(axes: Axes, trajectories: Sequence[np.ndarray], finished: Sequence[bool] | None) -> None:
    if finished is None:
        return
    for trajectory, has_finished in zip(trajectories, finished, strict=True):
        known = np.asarray(trajectory)[np.isfinite(np.asarray(trajectory)[:, :2]).all(axis=1)]
        if not has_finished and len(known):
            axes.plot(known[-1, 0], known[-1, 1], marker="X", color="#c0281e", markersize=9, zorder=5)


def _checked_frames(frames: np.ndarray | Sequence[np.ndarray], fps: float) -> list[np.ndarray]:
    if not len(frames):
        raise ValueError("a clip needs at least one frame, got none")
    if not fps > 0:
        raise ValueError(f"fps must be > 0, got {fps}")
    for index, frame in enumerate(frames):
        _check_frame(frame, frames[0].shape, index)
    return list(frames)


def _check_frame(frame: np.ndarray, shape: tuple[int, ...], index: int | None = None) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
        name = "a frame" if index is None else f"frame {index}"
        raise ValueError(f"{name} must be uint8 RGB of the first one's shape {shape}, got {frame.dtype} {frame.shape}")
