"""Pictures: the observed ones equal cv2's on the full frame, the LIDAR equals a pixel walk over it."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from tasks.game.lidar_sensor import BLACK_THRESHOLD
from tasks.sim import camera
from tasks.sim.camera import FrontCamera
from tasks.sim.chase_view import ChaseCar, render_chase
from tasks.sim.track import Track, load_track


def _poses(track: Track, count: int, seed: int) -> list[np.ndarray]:
    """Poses all over the road, heading roughly along it, some of them at the border and athwart."""
    rng = np.random.default_rng(seed)
    poses = []
    for i in range(count):
        k = int(rng.integers(0, len(track.centre_line) - 20))
        x, _, z = track.centre_line[k]
        dx, _, dz = track.centre_line[k + 10] - track.centre_line[k]
        spread = 0.3 if i % 2 else 3.0
        yaw = math.atan2(dx, dz) + rng.normal() * spread
        poses.append(np.array([x + rng.uniform(-8, 8), z + rng.uniform(-8, 8), yaw]))
    return poses


def walked_lidar(frame: np.ndarray) -> np.ndarray:
    """TMRL's 19 beams by walking pixels, written from its description."""
    height, width = frame.shape[:2]
    beams = []
    for degrees in range(90, 271, 10):
        step_row, step_column = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        dark: list[bool] = []
        distance = 20
        while True:
            row = int(44 * height // 49 + distance * step_row)
            column = int(width // 2 + distance * step_column)
            if row <= 0 or column <= 0 or column >= width - 1:
                break
            dark.append(bool((frame[row, column, :3] < 55).all()))
            distance += 1
        beams.append(dark.index(True) if True in dark else len(dark) - 1)
    return np.array(beams, np.float32)


@pytest.mark.parametrize("name", ["short", "medium_mirrored", "long"])
def test_lidar_is_bit_identical_to_the_pixel_walk_on_the_frame(name: str) -> None:
    track = load_track(name)
    front = FrontCamera((958, 488), (64, 64), True)
    lengths = set()
    for pose in _poses(track, 60, 1):
        expected = walked_lidar(front.frame(pose, track.grids))
        measured = front.lidar(pose, track.grids)
        np.testing.assert_array_equal(measured, expected)
        assert measured.dtype == np.float32
        lengths.update(measured.tolist())
    assert len(lengths) > 200


def test_beams_have_tmrls_lengths() -> None:
    table = camera.beam_table(958, 488)
    lengths = table.spans[:, 2] - table.spans[:, 0]
    assert lengths[:10].tolist() == [458, 466, 489, 532, 604, 551, 485, 446, 424, 418]
    assert lengths[10] == 424
    assert lengths[18] == 459


@pytest.mark.parametrize("window", [(256, 128), (958, 488), (640, 480), (64, 64), (50, 40), (128, 128)])
@pytest.mark.parametrize("image", [(64, 64), (84, 48)])
@pytest.mark.parametrize("grayscale", [True, False])
def test_observed_image_equals_cv2_on_the_frame(
    window: tuple[int, int], image: tuple[int, int], grayscale: bool
) -> None:
    track = load_track("medium")
    front = FrontCamera(window, image, grayscale)
    differences = []
    for pose in _poses(track, 6, 2):
        small = cv2.resize(front.frame(pose, track.grids), image)
        expected = cv2.cvtColor(small, cv2.COLOR_BGRA2GRAY if grayscale else cv2.COLOR_BGRA2RGB)
        observed = front.image(pose, track.grids)
        assert observed.shape == expected.shape
        assert observed.dtype == np.uint8
        differences.append(np.abs(observed.astype(int) - expected))
    assert np.mean(np.array(differences) <= 1) >= 0.999


def test_frame_is_opaque_bgra_of_the_window() -> None:
    track = load_track("short")
    frame = FrontCamera((256, 128), (64, 64), True).frame(np.array([0.0, 5.0, 0.0]), track.grids)
    assert frame.shape == (128, 256, 4)
    assert frame.dtype == np.uint8
    assert (frame[..., 3] == 255).all()


def test_only_the_border_is_black_to_the_lidar() -> None:
    colours = camera.palette()
    dark = np.flatnonzero((colours < BLACK_THRESHOLD).all(axis=1))
    assert set(dark) == set(range(32))
    track = load_track("medium")
    assert set(np.unique(track.grids.texture[track.grids.texture < 32])) == {0}


def test_front_view_has_sky_above_road_below_and_borders_on_both_sides() -> None:
    track = load_track("short")
    frame = FrontCamera((958, 488), (64, 64), True).frame(np.array([0.0, 5.0, 0.0]), track.grids)[..., :3].astype(int)
    assert frame[20, 479, 0] > frame[20, 479, 2] + 40, "the sky is blue"
    assert np.ptp(frame[470, 479]) < 25, "the road is grey"
    row = (frame[250] < 55).all(axis=1)
    assert row[:400].any()
    assert row[560:].any()
    assert not row[440:520].any()


def test_speed_is_visible() -> None:
    track = load_track("medium")
    front = FrontCamera((256, 128), (64, 64), True)
    images = [front.image(np.array([0.0, 10.0 + z, 0.0]), track.grids).astype(int) for z in (0.0, 1.0)]
    assert np.abs(images[1] - images[0])[32:].mean() > 2.0


def test_nose_in_car_still_sees_the_border() -> None:
    track = load_track("short")
    reach = track.inner_half_width_m + 0.45 - 2.0
    beams = FrontCamera((958, 488), (64, 64), True).lidar(np.array([reach, 20.0, math.pi / 2]), track.grids)
    assert beams[9] < 60


def test_lidar_of_a_tiny_window_is_refused() -> None:
    front = FrontCamera((20, 16), (64, 64), True)
    with pytest.raises(ValueError, match="window must be large enough"):
        front.lidar(np.zeros(3), load_track("short").grids)


@pytest.mark.parametrize("size", [(640, 360), (320, 240)])
def test_chase_view_shows_the_car_before_road_and_sky(size: tuple[int, int]) -> None:
    track = load_track("medium")
    car = ChaseCar(0.0, 20.0, 0.0, 0.5, 0.3, 1.0, 0.0, 40.0, 3, 2.0)
    picture = render_chase(car, track.grids, *size)
    assert picture.shape == (size[1], size[0], 3)
    assert picture.dtype == np.uint8
    middle = picture[size[1] // 2 : 4 * size[1] // 5, size[0] // 3 : 2 * size[0] // 3].astype(int)
    is_red = (middle[..., 0] > 130) & (middle[..., 1] < 90)
    assert is_red.mean() > 0.02, "a red car"
    assert picture[5, size[0] // 2, 2] > picture[5, size[0] // 2, 0], "a blue sky"


def test_tiny_chase_view_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 x 16"):
        render_chase(ChaseCar(0, 0, 0, 0, 0, 0, 0, 0, 1, 0), load_track("short").grids, 4, 4)
