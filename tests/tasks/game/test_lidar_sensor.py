"""TMRL's LIDAR on drawn pictures."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.game.lidar_sensor import LidarSensor, beam_pixels

# Measured with TMRL 0.7.1 at 958x488; the last of the 19 is one longer than the first by rounding.
LENGTHS = [458, 466, 489, 532, 604, 551, 485, 446, 424, 418, 424, 446, 485, 551, 604, 532, 489, 466, 459]


def white(width: int = 958, height: int = 488, channels: int = 4) -> np.ndarray:
    return np.full((height, width, channels), 255, np.uint8)


def test_beams_have_tmrls_lengths() -> None:
    assert [len(beam) for beam in beam_pixels(958, 488)] == LENGTHS


def test_beams_start_20_pixels_from_the_road_point() -> None:
    beams = beam_pixels(958, 488)
    # The road point is row 44 * 488 // 49 = 438, column 479; 90 degrees is to the right, 270 to the left.
    assert beams[0][0].tolist() == [438, 499]
    assert beams[9][0].tolist() == [418, 479]
    assert beams[18][0].tolist() == [438, 459]


def test_a_beam_without_black_saturates_at_its_last_pixel() -> None:
    np.testing.assert_array_equal(LidarSensor()(white()), np.array(LENGTHS, np.float32) - 1)


def test_a_beam_ends_at_the_first_black_pixel() -> None:
    frame = white()
    frame[300:310] = 0
    # Straight ahead the beam starts at row 418 and meets row 309 after 109 pixels.
    assert LidarSensor()(frame)[9] == 109.0


@pytest.mark.parametrize(("pixel", "length"), [((54, 54, 54), 109.0), ((55, 0, 0), 417.0), ((0, 0, 55), 417.0)])
def test_black_is_below_55_in_all_three_channels(pixel: tuple[int, int, int], length: float) -> None:
    frame = white()
    frame[300:310, :, :3] = pixel
    assert LidarSensor()(frame)[9] == length


def test_pictures_with_and_without_alpha_are_the_same() -> None:
    frame = np.random.default_rng(0).integers(40, 256, (488, 958, 4), np.uint8)
    sensor = LidarSensor()
    np.testing.assert_array_equal(sensor(frame), sensor(np.ascontiguousarray(frame[:, :, :3])))
    np.testing.assert_array_equal(sensor(frame), _slow_lidar(frame))


def test_another_size_rebuilds_the_beams() -> None:
    sensor = LidarSensor()
    assert sensor(white(640, 480))[9] == (44 * 480 // 49) - 20 - 1
    with pytest.raises(ValueError, match="large enough"):
        LidarSensor(30, 30)


def _slow_lidar(frame: np.ndarray) -> np.ndarray:
    """The definition, beam by beam."""
    lengths = []
    for beam in beam_pixels(frame.shape[1], frame.shape[0]):
        is_black = (frame[beam[:, 0], beam[:, 1], :3] < 55).all(axis=1)
        lengths.append(int(is_black.argmax()) if is_black.any() else len(beam) - 1)
    return np.array(lengths, np.float32)
