"""Tracks: the shipped ones are as documented, files become tracks, undrivable lines are refused by place."""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from tasks.sim.track import blocks_to_line, check_line, load_track, narrows_note, shipped_names
from tests.tasks.sim import lines

WIDTH = 25.75


def _corners(points: np.ndarray) -> list[tuple[float, float]]:
    """(angle in degrees, mean radius in m) of each run of one-sided curvature of at least 15 degrees."""
    steps = np.diff(points[::10], axis=0)
    heading = np.unwrap(np.arctan2(steps[:, 0], steps[:, 1]))
    turn = np.diff(heading)
    sign = np.where(np.abs(turn) > 0.005, np.sign(turn), 0)
    corners, begin = [], 0
    for i in range(1, len(sign) + 1):
        if i == len(sign) or sign[i] != sign[begin]:
            angle = abs(turn[begin:i].sum())
            if sign[begin] != 0 and angle > math.radians(15):
                corners.append((math.degrees(angle), (i - begin) / angle))
            begin = i
    return corners


def test_names_of_shipped_tracks() -> None:
    assert shipped_names() == ("short", "medium", "long", "short_mirrored", "medium_mirrored", "long_mirrored")


@pytest.mark.parametrize(
    ("name", "low", "high", "corners", "hairpins"),
    [("short", 200, 300, (2, 3), 0), ("medium", 900, 977, (12, 12), 2), ("long", 2400, 2650, (31, 36), 5)],
)
def test_shipped_tracks_have_the_documented_length_and_corners(
    name: str, low: float, high: float, corners: tuple[int, int], hairpins: int
) -> None:
    track = load_track(name)
    assert low <= track.length_m <= high
    found = _corners(track.centre_line[:, [0, 2]])
    tight = [radius for angle, radius in found if angle > 130]
    assert len(tight) == hairpins
    assert all(17 < radius < 24 for radius in tight)
    # A bend that leads into another one to the same side counts once here, hence a little room.
    assert corners[0] - hairpins <= len(found) <= corners[1]


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_tracks_are_drivable_and_do_not_overlap(name: str) -> None:
    points = load_track(name).centre_line[:, [0, 2]]
    check_line(points, WIDTH, name)
    coarse = points[::10]
    gap = np.linalg.norm(coarse[:, None] - coarse[None], axis=2)
    apart = np.abs(np.arange(len(coarse))[:, None] - np.arange(len(coarse))[None]) > 80
    assert gap[apart].min() > WIDTH + 2


@pytest.mark.parametrize("name", shipped_names())
def test_centre_line_has_a_point_every_ten_centimetres(name: str) -> None:
    line = load_track(name).centre_line
    assert line.shape[1] == 3
    assert np.ptp(line[:, 1]) == 0.0
    np.testing.assert_allclose(np.linalg.norm(np.diff(line, axis=0), axis=1), 0.1, atol=2e-4)


def test_mirrored_track_is_the_mirror_image() -> None:
    plain, mirrored = load_track("medium"), load_track("medium_mirrored")
    np.testing.assert_array_equal(plain.centre_line * [-1, 1, 1], mirrored.centre_line)
    assert plain.hash() != mirrored.hash()


def test_blocks_keep_to_the_grid() -> None:
    for blocks, end in [
        ([["straight", 3]], (0, 96)),
        ([["corner", "right", 2, 30]], (48, 48)),
        ([["corner", "left", 3, 55]], (-80, 80)),
        ([["shift", "right", 2, 28]], (32, 64)),
        ([["shift", "left", 3, 45]], (-32, 96)),
        ([["hairpin", "right", 40, 20]], (64, 0)),
    ]:
        points = blocks_to_line(blocks, [0, 0, 0])
        assert math.dist(points[-1], end) < 0.11, blocks


def test_corner_block_has_its_radius() -> None:
    points = blocks_to_line([["corner", "right", 2, 30]], [0, 0, 0])
    middle = points[len(points) // 2]
    # The centre of the arc lies one radius beside the end of the 18 m lead.
    assert math.dist(middle, (30.0, 18.0)) == pytest.approx(30.0, abs=1e-6)


def test_start_and_finish_lie_on_the_line() -> None:
    track = load_track("short")
    assert track.start_position == (0.0, 0.0)
    assert track.start_yaw == pytest.approx(0.0, abs=1e-9)
    assert track.finish_position == pytest.approx((144.0, 144.0), abs=0.11) or track.length_m > 0
    left, right = track.edges()
    np.testing.assert_allclose(left[0], [-WIDTH / 2, 0], atol=1e-6)
    np.testing.assert_allclose(right[0], [WIDTH / 2, 0], atol=1e-6)


def _arc(radius: float, degrees: float, spacing: float) -> np.ndarray:
    angles = np.arange(0, math.radians(degrees), spacing / radius)
    return np.stack([radius - radius * np.cos(angles), radius * np.sin(angles)], axis=1)


@pytest.mark.parametrize("suffix", [".csv", ".npy"])
@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("spacing", [0.1, 1.0, 8.0])
def test_file_of_points_becomes_a_track(tmp_path: Path, suffix: str, columns: int, spacing: float) -> None:
    points = _arc(60.0, 170, spacing)
    if columns == 3:
        points = np.insert(points, 1, 8.5, axis=1)
    path = tmp_path / f"arc{suffix}"
    if suffix == ".csv":
        np.savetxt(path, points, delimiter=",", header="x,y,z"[: 2 * columns - 1], comments="")
    else:
        np.save(path, points)
    track = load_track(str(path), 20.0)
    assert track.name == "arc"
    assert track.width_m == 20.0
    assert track.length_m == pytest.approx(60.0 * math.radians(170), abs=spacing + 0.2)
    assert track.height_m == (8.5 if columns == 3 else 10.0)
    distance = np.linalg.norm(track.centre_line[:, [0, 2]] - [60.0, 0.0], axis=1)
    np.testing.assert_allclose(distance, 60.0, atol=0.15)
    assert track.grids.texture.size > 0


def test_lap_that_ends_beside_its_start_is_a_track(tmp_path: Path) -> None:
    np.save(tmp_path / "lap.npy", _arc(60.0, 355, 0.5))
    track = load_track(str(tmp_path / "lap.npy"))
    assert track.length_m == pytest.approx(60 * math.radians(355), abs=1)
    assert track.grids.texture.size > 0


def _save(tmp_path: Path, points: object) -> str:
    path = tmp_path / "line.npy"
    np.save(path, np.asarray(points))
    return str(path)


def _straight(metres: float, spacing: float = 0.5) -> np.ndarray:
    z = np.arange(0, metres, spacing)
    return np.stack([np.zeros_like(z), z], axis=1)


def test_crossing_line_is_refused_with_both_places(tmp_path: Path) -> None:
    back = np.stack([30.0 - np.arange(80), np.full(80, 30.0)], axis=1)
    loop = np.vstack([_straight(60), _arc(30.0, 270, 0.5) + np.array([0.0, 60.0]), back])
    places = r"crosses itself: (29|30)\.0 m \(x 0\.0, z (29|30)\.0\) and 231\.0 m \(x 0\.4, z 30"
    with pytest.raises(ValueError, match=places):
        load_track(_save(tmp_path, loop))


def test_line_over_its_own_beginning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crosses itself"):
        load_track(_save(tmp_path, _arc(40.0, 400, 0.5)))


def test_line_too_near_to_itself_for_a_wall_is_refused_with_both_places(tmp_path: Path) -> None:
    places = r"within 6\.\d m of itself: \d+\.\d m \(x .*\) and \d+\.\d m \(x .*at least 7\.5 m apart: cut the line"
    with pytest.raises(ValueError, match=places):
        load_track(_save(tmp_path, lines.spiral(6.0, 1.5)))


def test_narrow_places_are_named_with_a_width_that_fits(tmp_path: Path) -> None:
    name = _save(tmp_path, lines.hairpin(23.45, 150.0))
    note = r"one place .* at least 23\.4\d m between \d+\.\d m \(x .* task\.track_width_m=23\.4 makes it equally wide"
    assert re.search(note, str(narrows_note(load_track(name))))
    assert narrows_note(load_track(name, 23.4)) is None
    assert all(narrows_note(load_track(shipped)) is None for shipped in shipped_names())


@pytest.mark.parametrize(("scale", "length"), [(100.0, r"92\.6 km"), (1000.0, r"926\.\d km")])
def test_line_in_another_unit_is_refused_with_length_and_memory(tmp_path: Path, scale: float, length: str) -> None:
    medium = load_track("medium").centre_line[::5, [0, 2]]
    expected = length + r" long and 25\.75 m wide: .* [\d,]+ MB, at most 134 MB .* by 100 if they are in centimetres"
    with pytest.raises(ValueError, match=expected):
        load_track(_save(tmp_path, medium * scale))


def test_wide_road_is_counted_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2\.0 km long and 2575 m wide"):
        load_track(_save(tmp_path, lines.diagonal(2000.0)), 2575.0)


def test_kink_is_refused_with_its_place(tmp_path: Path) -> None:
    kink = np.vstack([_straight(80), np.stack([np.arange(0, 60, 0.5), np.full(120, 80.0)], axis=1)])
    with pytest.raises(ValueError, match=r"kink of radius 1\.\d m at (79|80)\.\d m \(x 0\.\d, z (79|80)\.\d\)"):
        load_track(_save(tmp_path, kink))


def test_jump_is_refused_with_its_place(tmp_path: Path) -> None:
    jump = _straight(150)
    jump[200:] += [0, 20]
    with pytest.raises(ValueError, match=r"jumps by 20\.5 m between points 199 and 200 \(x 0\.0, z 99\.5\)"):
        load_track(_save(tmp_path, jump))


def test_nan_is_refused_with_its_point(tmp_path: Path) -> None:
    points = _straight(150)
    points[17, 1] = np.nan
    with pytest.raises(ValueError, match=r"point 17 must be finite"):
        load_track(_save(tmp_path, points))


def test_short_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least 100 m long, got 89\.5 m"):
        load_track(_save(tmp_path, _straight(90)))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((5, 4)), "rows of x,z or x,y,z"),
        (np.zeros(7), "rows of x,z or x,y,z"),
        (np.zeros((1, 2)), "at least 2 points"),
        (np.array([["a", "b"], ["c", "d"]]), "must hold plain numbers"),
    ],
)
def test_files_of_other_shapes_are_refused(tmp_path: Path, points: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_track(_save(tmp_path, points))


def test_pickled_array_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="must hold plain numbers"):
        load_track(str(path))


def test_tmrls_pickle_is_a_track(tmp_path: Path) -> None:
    path = tmp_path / "reward.pkl"
    points = np.insert(_arc(60.0, 170, 0.1), 1, 8.5, axis=1)
    path.write_bytes(pickle.dumps(points))
    np.save(tmp_path / "reward.npy", points * (-1.0, 1.0, 1.0))  # x of the game points the other way
    assert load_track(str(path)).hash() == load_track(str(tmp_path / "reward.npy")).hash()


def test_what_cannot_be_driven_can_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"add points; --check draws the line$"):
        load_track(_save(tmp_path, _straight(90)))


def test_unknown_name_lists_the_tracks() -> None:
    with pytest.raises(ValueError, match=r"short, medium, long.*got 'nurburgring'"):
        load_track("nurburgring")
    with pytest.raises(ValueError, match="does not exist"):
        load_track("missing.csv")


def test_width_must_leave_room_for_the_car(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task\.track_width_m must be > 7\.5 m"):
        load_track(_save(tmp_path, _straight(150)), 5.0)
