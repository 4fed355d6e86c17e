"""Pictures for people show the observation in the right place, order and colour."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.game.lidar_sensor import LidarSensor, beam_pixels
from tasks.roles import overlay

WIDTH, HEIGHT = 958, 488


def road(border_row: int) -> np.ndarray:
    """A bright BGRA picture with a black border across it."""
    frame = np.full((HEIGHT, WIDTH, 4), 200, np.uint8)
    frame[border_row : border_row + 6, :, :3] = 0
    return frame


def nearest_colour(picture: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    return tuple(picture[row, column].tolist())


def test_beams_end_on_the_border_that_the_sensor_found() -> None:
    frame = road(100)
    scan = LidarSensor()(frame)
    drawn = overlay.beams_over(overlay.rgb(frame), scan[None])
    row, column = beam_pixels(WIDTH, HEIGHT)[9][int(scan[9])].tolist()  # straight ahead
    assert row == 105  # the border's lower edge
    assert nearest_colour(drawn, row, column) == overlay.BEAM_COLOUR
    assert nearest_colour(drawn, (row + 438) // 2, column) == pytest.approx(overlay.BEAM_COLOUR, abs=20)
    assert nearest_colour(drawn, row - 20, column) == (200, 200, 200)


def test_a_beam_that_meets_no_border_has_another_colour() -> None:
    frame = road(100)
    scan = LidarSensor()(frame)
    drawn = overlay.beams_over(overlay.rgb(frame), scan[None])
    assert scan[0] == overlay.beam_lengths(WIDTH, HEIGHT)[0]  # to the left, along the road
    row, column = beam_pixels(WIDTH, HEIGHT)[0][-1].tolist()
    assert nearest_colour(drawn, row, column) == overlay.OPEN_BEAM_COLOUR


def test_older_scans_are_dots_and_the_screenshot_stays_as_it_was() -> None:
    picture = overlay.rgb(road(100))
    before = picture.copy()
    newest, older = np.full(19, 300.0, np.float32), np.full(19, 100.0, np.float32)
    drawn = overlay.beams_over(picture, np.stack([older, newest]))
    row, column = beam_pixels(WIDTH, HEIGHT)[4][100].tolist()
    differs = (drawn[row - 2 : row + 3, column - 2 : column + 3] != 200).any()
    assert differs
    np.testing.assert_array_equal(picture, before)


def test_the_road_ahead_runs_from_the_car_to_the_right() -> None:
    along = np.linspace(0.0, 99.0, 20)
    lines = [np.stack([along, np.full(20, aside)], axis=1) for aside in (0.0, -10.0, 10.0)]
    drawn = overlay.road_from_above(lines, 816)  # 8 px a metre
    middle = 12 + 80
    assert nearest_colour(drawn, middle, 12) == overlay.BEAM_COLOUR
    for row in (middle - 80, middle + 80):
        assert nearest_colour(drawn, row, 12) == nearest_colour(drawn, row, 804) == overlay.OPEN_BEAM_COLOUR


def test_beam_lengths_equal_those_of_the_sensor_without_a_border() -> None:
    bright = np.full((HEIGHT, WIDTH, 4), 200, np.uint8)
    np.testing.assert_array_equal(overlay.beam_lengths(WIDTH, HEIGHT), LidarSensor()(bright))


def test_rgb_swaps_the_channels() -> None:
    frame = np.zeros((2, 2, 4), np.uint8)
    frame[..., :3] = (1, 2, 3)
    np.testing.assert_array_equal(overlay.rgb(frame), np.full((2, 2, 3), (3, 2, 1)))


def test_the_oldest_frame_of_a_history_is_left() -> None:
    images = np.stack([np.full((8, 8), value, np.uint8) for value in (10, 80, 160, 240)])
    row = overlay.history_row(images, 400)
    assert row.shape == (100, 400, 3)
    assert row[80, [50, 150, 250, 350], 0].tolist() == [10, 80, 160, 240]


def test_colour_histories_keep_their_colours() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[1] = (250, 20, 30)
    row = overlay.history_row(images, 200)
    assert row[80, 150].tolist() == [250, 20, 30]
    assert row[80, 50].tolist() == [0, 0, 0]


def test_text_is_written_in_its_colour_and_long_lines_are_wrapped() -> None:
    short = overlay.text_block([("one line", overlay.BAD_COLOUR)], 300)
    long = overlay.text_block([("many words " * 30, overlay.BAD_COLOUR)], 300)
    assert (short == overlay.BAD_COLOUR).all(axis=2).sum() > 20
    assert long.shape[0] > short.shape[0] + 3 * overlay.LINE_PX
    assert (long[:, -4:] == overlay.BACKGROUND).all(), "nothing runs over the edge"


def test_missing_letters_of_the_font_do_not_stop_the_picture() -> None:
    assert overlay.text_block([("Fenêtre „Trackmania“", overlay.TEXT_COLOUR)], 300).shape[1] == 300


def test_pictures_are_filled_up_to_stand_together() -> None:
    small, large = np.full((10, 20, 3), 255, np.uint8), np.full((30, 40, 3), 255, np.uint8)
    assert overlay.beside(small, large).shape == (30, 60, 3)
    assert overlay.below(small, large, small).shape == (50, 40, 3)
    assert overlay.beside(small, large)[20, 5].tolist() == list(overlay.BACKGROUND)


@pytest.mark.parametrize("size", [(50, 60), (200, 300), (5, 5)])
def test_an_inset_never_leaves_the_picture(size: tuple[int, int]) -> None:
    picture = np.zeros((100, 120, 3), np.uint8)
    overlay.inset(picture, np.full((*size, 3), 255, np.uint8))
    assert picture[10:15, 109].all()
    assert not picture[:10].any()
    assert not picture[:, -10:].any()
