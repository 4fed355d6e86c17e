"""Other cars from files and text, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.sim.vehicle import VehicleConstants
from tasks.sim.vehicle_files import MAX_BYTES, load_vehicle, vehicle_text


def _file(folder: Path, text: str) -> str:
    (folder / "car.yaml").write_text(text, encoding="utf-8")
    return str(folder / "car.yaml")


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    car = load_vehicle(_file(tmp_path, "yaw_lag_s: 0.2\nacceleration: [14, 10, 6, 5.5]\noff_road_drag: 1e-5\n"))
    assert (car.yaw_lag_s, car.acceleration, car.off_road_drag) == (0.2, (14.0, 10.0, 6.0, 5.5), 1e-5)
    usual = VehicleConstants()
    assert car.turn_rate == usual.turn_rate
    assert car != usual
    assert load_vehicle(None) == usual


def test_the_text_of_a_file_is_the_same_car_without_the_file(tmp_path: Path) -> None:
    file = _file(tmp_path, "yaw_lag_s: 0.1234567890123456\noff_road_drag: 0.00001\nslide_drive: [0, 1, -1, 2, 3]\n")
    car, text = load_vehicle(file), vehicle_text(file)
    (tmp_path / "car.yaml").unlink()
    assert text is not None
    assert load_vehicle(text) == car
    assert vehicle_text(text) == text


@pytest.mark.parametrize("content", ["{}", "yaw_lag_s: 0.145\n"])
def test_a_file_that_changes_nothing_is_the_usual_car(tmp_path: Path, content: str) -> None:
    assert vehicle_text(_file(tmp_path, content)) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("yaw_lag: 0.2", r"unknown constant 'yaw_lag'; did you mean yaw_lag_s; known: acceleration"),
        ("3: 0.2", "unknown constant 3"),
        ("yaw_lag_s: quick", "yaw_lag_s must be a number, got 'quick'"),
        ("yaw_lag_s: true", "yaw_lag_s must be a number, got True"),
        ("yaw_lag_s: [0.1]", r"yaw_lag_s must be a number, got \[0.1\]"),
        ("yaw_lag_s: null", "yaw_lag_s must be a number, got None"),
        ("yaw_lag_s: .nan", "yaw_lag_s must be > 0 and <= 100000, got nan"),
        ("yaw_lag_s: .inf", "yaw_lag_s must be > 0 and <= 100000, got inf"),
        ("yaw_lag_s: 0", "yaw_lag_s must be > 0 and <= 100000, got 0.0"),
        ("coast: -1", "coast must be between 0 and 100000, got -1.0"),
        ("off_road_grip: 1.5", "off_road_grip must be between 0 and 1, got 1.5"),
        ("acceleration: 15", "acceleration must be a list of 4 numbers, got 15"),
        ("acceleration: [15, 10]", r"acceleration must be a list of 4 numbers, got \[15, 10\]"),
        ("acceleration: [15, 10, x, 5]", r"acceleration\[2\] must be a number, got 'x'"),
        ("upshift_kmh: [102, 90, 235, 342]", "upshift_kmh must grow"),
        ("downshift_kmh: [110, 142, 202, 300]", "downshift_kmh must be below upshift_kmh, gear by gear, got 110"),
        ("[1, 2]", "must be a mapping of constants"),
        ("", "must be a mapping of constants"),
        ("a: b: c", "must be YAML"),
        ("[" * 5000, "must be YAML"),
        ("!!python/object/apply:os.getcwd []", "must be YAML"),
        ("yaw_lag_s: 1" + "0" * 400, "yaw_lag_s must be a finite number"),
        ("#" * (MAX_BYTES + 1), "must have at most 65536 bytes"),
    ],
)
def test_bad_content_is_refused_with_what_was_expected(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        load_vehicle(_file(tmp_path, content))
    assert "car.yaml" in str(error.value)


def test_nested_references_do_not_fill_the_message(tmp_path: Path) -> None:
    lines = ["a: &a0 [1, 1]"] + [f"b{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 30)]
    with pytest.raises(ValueError, match="unknown constant") as error:
        load_vehicle(_file(tmp_path, "\n".join(lines)))
    assert len(str(error.value)) < 3000


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_vehicle(str(tmp_path / "none.yaml"))
    with pytest.raises(ValueError, match="cannot be read"):
        load_vehicle(str(tmp_path))
    (tmp_path / "car.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read"):
        load_vehicle(str(tmp_path / "car.yaml"))
