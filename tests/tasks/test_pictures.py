"""Pictures show their data, and files can be played by other programs."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence

from tasks.pictures import VideoFile, add_gif, encode_gif, plot_driven_line


def arc_track() -> np.ndarray:
    """A quarter circle of 100 m radius as x, y, z every 0.1 m."""
    angle = np.arange(0.0, np.pi / 2, 0.001)
    return np.stack([100 - 100 * np.cos(angle), np.full_like(angle, 9.0), 100 * np.sin(angle)], axis=1)


def drive_along(line: np.ndarray, speed: np.ndarray) -> np.ndarray:
    return np.column_stack([line[:, 0], line[:, 2], speed]).astype(np.float32)


def moving_square(count: int, height: int, width: int) -> np.ndarray:
    frames = np.zeros((count, height, width, 3), np.uint8)
    for i in range(count):
        frames[i, 10:20, 5 + 3 * i : 15 + 3 * i] = (255, 40, 40)
    return frames


def num_frames(image: Image.Image) -> int:
    return sum(1 for _ in ImageSequence.Iterator(image))


def share_of(picture: np.ndarray, predicate: Any) -> float:
    red, green, blue = (picture[..., i].astype(int) for i in range(3))
    return float(np.mean(predicate(red, green, blue)))


def is_dark_red(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    return (red > 100) & (red < 180) & (green < 40) & (blue < 40)


def is_dark_blue(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    return (blue > red + 20) & (red < 90) & (green < 60)


def test_driven_line_is_written_as_the_returned_picture(tmp_path: Path) -> None:
    line = arc_track()
    path = tmp_path / "new" / "line.png"
    picture = plot_driven_line(
        line, 25.75, [drive_along(line[::20], np.full(79, 50.0))], path, title="short", size_px=(640, 480)
    )
    assert picture.shape == (480, 640, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)


def test_the_picture_is_as_wide_as_the_track_needs() -> None:
    straight = np.stack([np.zeros(300), np.arange(300.0)], axis=1)
    upright = plot_driven_line(straight, 25.75, [])
    lying = plot_driven_line(straight[:, ::-1], 25.75, [])
    assert upright.shape[0] == lying.shape[0]
    assert upright.shape[1] < upright.shape[0] < lying.shape[1]


def test_colour_follows_speed() -> None:
    line = arc_track()
    driven = drive_along(line[::20], np.full(79, 1.0))
    slow = plot_driven_line(line, 25.75, [driven], max_speed_kmh=300)
    driven[:, 2] = 300 / 3.6
    fast = plot_driven_line(line, 25.75, [driven], max_speed_kmh=300)
    assert share_of(fast, is_dark_red) > share_of(slow, is_dark_red) + 0.001
    assert share_of(slow, is_dark_blue) > share_of(fast, is_dark_blue) + 0.001


def test_a_nan_row_breaks_the_line_instead_of_hiding_it() -> None:
    line = arc_track()
    driven = drive_along(line[::20], np.full(79, 40.0))
    whole = plot_driven_line(line, 25.75, [driven])
    driven[40] = np.nan
    broken = plot_driven_line(line, 25.75, [driven])
    empty = plot_driven_line(line, 25.75, [np.full((3, 4), np.nan, np.float32)], finished=[False])
    assert 0 < np.mean(broken != whole) < np.mean(empty != whole)


def test_an_unfinished_drive_is_marked_at_its_end() -> None:
    line = arc_track()
    driven = drive_along(line[:800:20], np.full(40, 20.0))
    plain = plot_driven_line(line, 25.75, [driven], finished=[True])
    marked = plot_driven_line(line, 25.75, [driven], finished=[False])
    assert np.mean(plain != marked) > 1e-4


def test_flat_points_and_three_dimensional_points_draw_the_same() -> None:
    line = arc_track()
    np.testing.assert_array_equal(plot_driven_line(line, 20.0, []), plot_driven_line(line[:, [0, 2]], 20.0, []))


@pytest.mark.parametrize("shape", [(1, 2), (5,), (5, 4)])
def test_a_misshapen_centre_line_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="centre_line must have shape"):
        plot_driven_line(np.zeros(shape), 20.0, [])


def write_video(frames: np.ndarray, path: Path) -> None:
    with VideoFile(path, 20) as video:
        for frame in frames:
            video.add(frame)


@pytest.mark.parametrize("size", [(64, 96), (63, 97)])
def test_video_of_any_size_keeps_its_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = moving_square(12, *size)
    path = tmp_path / "clips" / "drive.mp4"
    write_video(frames, path)
    video = cv2.VideoCapture(str(path))
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert video.get(cv2.CAP_PROP_FPS) == 20
    assert int(video.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)).to_bytes(4, "little") == b"I420"  # yuv420p
    decoded = []
    while (read := video.read())[0]:
        decoded.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    video.release()
    assert [picture.shape for picture in decoded] == [(*even, 3)] * 12
    error = np.abs(decoded[7][: size[0], : size[1]].astype(int) - frames[7])
    assert error.mean() < 6


def test_gif_keeps_count_size_and_rate() -> None:
    gif = Image.open(io.BytesIO(encode_gif(moving_square(6, 40, 60), fps=20)))
    assert gif.format == "GIF"
    assert (num_frames(gif), gif.size) == (6, (60, 40))
    assert gif.info["duration"] == 50
    assert gif.info["loop"] == 0


@pytest.mark.parametrize("package", ["tensorboardX", "torch.utils.tensorboard"])
def test_tensorboard_reads_the_clip_back(tmp_path: Path, package: str) -> None:
    module = pytest.importorskip(package)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = module.SummaryWriter(str(tmp_path))
    add_gif(writer, "evaluation/clip", moving_square(4, 30, 40), fps=10, step=123)
    writer.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    (event,) = events.Images("evaluation/clip")
    assert (event.step, event.width, event.height) == (123, 40, 30)
    assert num_frames(Image.open(io.BytesIO(event.encoded_image_string))) == 4


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), 20, "at least one frame"),
        (np.zeros((2, 8, 8, 3), np.float32), 20, "frame 0 must be uint8 RGB"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], 20, "frame 1 must be"),
        (np.zeros((2, 8, 8, 3), np.uint8), 0, "fps must be > 0"),
    ],
)
def test_impossible_settings_of_a_clip_are_refused(frames: Any, fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_gif(frames, fps)


def test_a_video_without_pictures_leaves_no_file(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "clip.mp4", 20) as video:
        pass
    video.close()
    assert not (tmp_path / "clip.mp4").exists()


def test_a_video_that_cannot_be_written_raises(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.mkdir()  # FFmpeg cannot open it
    with pytest.raises(OSError, match=r"FFmpeg ended with status \d+: '\S+clip\.mp4'"):
        write_video(np.zeros((3, 40, 60, 3), np.uint8), path)


def test_a_video_is_written_without_a_forked_copy_of_this_process(tmp_path: Path) -> None:
    """The threads of gRPC abort such a copy now and then; and Ctrl-C must not reach what writes the video."""
    forks: list[str] = []
    os.register_at_fork(before=lambda: forks.append("fork"))  # stays for good, and does no harm
    with VideoFile(tmp_path / "clip.mp4", 20) as video:
        video.add(np.zeros((40, 60, 3), np.uint8))
        assert video._encoder is not None
        assert os.getpgid(video._encoder.pid) != os.getpgrp()
    assert forks == []
    assert (tmp_path / "clip.mp4").stat().st_size > 0


def test_a_video_refuses_a_picture_of_another_size(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "clip.mp4", 20) as video:
        video.add(np.zeros((40, 60, 3), np.uint8))
        with pytest.raises(ValueError, match=r"a frame must be uint8 RGB of the first one's shape \(40, 60, 3\)"):
            video.add(np.zeros((40, 62, 3), np.uint8))
