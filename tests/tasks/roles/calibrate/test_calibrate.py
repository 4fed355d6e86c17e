"""--calibrate fits a wrong car, keeps constants without data, and refuses files by name."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import train
from tasks.fidelity.errors import Windows, cut_windows, errors
from tasks.fidelity.fit import NOT_OF_THE_DRIVE, constants_of, fit, shift_speeds
from tasks.recordings.recording import COLUMNS, save_npz
from tasks.roles.calibrate import calibrate
from tasks.sim.open_loop import drive
from tasks.sim.vehicle import VehicleConstants
from tasks.sim.vehicle_files import load_vehicle
from tests.tasks.fidelity.drives import drawn, driven, held

BARS = np.array([[0.5, 0.15, 0.15], [1.5, 0.5, 0.5]])
"""What median and 90 % of the errors after one second are to stay below: km/h, degrees, m."""


def another_car(seed: int) -> VehicleConstants:
    """One whose constants on the road are 10 to 25 % off."""
    rng = np.random.default_rng(seed)
    factors = []
    for field in fields(VehicleConstants):
        size = np.size(getattr(VehicleConstants(), field.name))
        off = 1.0 + rng.choice([-1, 1], size) * rng.uniform(0.1, 0.25, size)
        if field.name.startswith(NOT_OF_THE_DRIVE):
            off[:] = 1.0
        elif field.name.endswith("_kmh"):
            off[:] = off[0]  # speeds of gears and ranges grow from one to the next
        factors.append(off)
    return constants_of(VehicleConstants().vector() * np.concatenate(factors))


def sizes(car: VehicleConstants, windows: Windows) -> np.ndarray:
    """Median and 90 % of each error, shape (2, 3)."""
    return np.percentile(np.abs(np.stack(errors(drive(car.vector(), windows.drives), windows))), (50, 90), axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drives of another car, as files."""
    made = tmp_path_factory.mktemp("drives")
    car = another_car(0)
    for number in range(6):
        save_npz(made / f"{number}.npz", driven(car, drawn(number, 20.0)))
    return made


def test_a_wrong_car_is_fitted_to_within_the_limits(folder: Path, tmp_path: Path) -> None:
    answer = calibrate.run([str(folder)], tmp_path)
    (file,) = tmp_path.glob("calibrated/*/vehicle.yaml")
    windows = cut_windows([driven(another_car(0), drawn(seed, 60.0)) for seed in (20, 21)], 1.0)
    assert (sizes(VehicleConstants(), windows) > BARS).all()
    assert (sizes(load_vehicle(str(file)), windows) <= BARS).all()
    assert "| steering |" in answer
    assert str(file) in answer
    assert (file.parent / "fidelity.png").read_bytes().startswith(b"\x89PNG")


def test_speeds_of_shifts_are_read_off_the_gears() -> None:
    recordings = []
    for _ in range(2):
        recording = driven(VehicleConstants(), held((12.0, 0.0, 1.0, 0.0)))
        kmh = 3.6 * recording.column("u")
        reached = [kmh >= speed - 0.01 for speed in VehicleConstants().upshift_kmh]
        recording.states[:, COLUMNS.index("gear")] = 1 + np.sum(reached, axis=0)
        recordings.append(recording)
    found = shift_speeds(cut_windows(recordings, 1.0))
    for number, speed in enumerate(VehicleConstants().upshift_kmh):
        assert found[f"upshift_kmh[{number}]"] == pytest.approx(speed, abs=0.6)
    assert shift_speeds(cut_windows(recordings[:1], 1.0)) == {}  # one shift may be a damaged record


def test_a_step_beyond_zero_does_not_end_a_fit() -> None:
    """The car does not turn at standstill; the slopes of slow turns would have it turn backwards there."""
    car = VehicleConstants()
    turns_more = replace(car, turn_rate=tuple(1.3 * value for value in car.turn_rate))
    slow = [driven(car, held((2.0, steer, 1.0, 0.0), (6.0, steer, 0.0, 0.0))) for steer in (0.3, 0.6, 1.0, -0.5)]
    costs = [step.cost for _, step in zip(range(3), fit(turns_more, cut_windows(slow, 1.0)), strict=False)]
    assert costs[-1] < 0.1 * costs[0]


def test_constants_without_data_keep_their_values() -> None:
    real = another_car(1)
    straight = held((4.0, 0.0, 1.0, 0.0))
    step = list(fit(VehicleConstants(), cut_windows([driven(real, straight) for _ in range(4)], 1.0)))[-1]
    assert step.constants.turn_rate == VehicleConstants().turn_rate
    assert {"coast", "turn_rate[5]"} <= set(step.uncertain)
    assert step.constants.acceleration[0] == pytest.approx(real.acceleration[0], rel=0.02)


def test_ctrl_c_keeps_the_best_car_so_far(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(start: VehicleConstants, windows: object) -> object:
        for number, step in enumerate(fit(start, windows)):  # type: ignore[arg-type]
            if number == 2:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(calibrate, "fit", interrupted)
    answer = calibrate.run([str(folder / "0.npz")], tmp_path)
    assert "interrupted" in answer
    (file,) = tmp_path.glob("calibrated/*/vehicle.yaml")
    assert yaml.safe_load(file.read_text())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.npz", None, "does not exist"),
        ("bad.npz", b"nothing", "must be a recording"),
        ("notes.txt", b"nothing", "must be a recording"),
        ("run.Ghost.Gbx", b"nothing", ""),
    ],
)
def test_bad_files_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert train.main(["--calibrate", str(tmp_path / name)]) == 2
    assert re.search(f"{re.escape(name)}: .*{reason}", capsys.readouterr().err)


def test_too_little_to_fit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_npz(tmp_path / "short.npz", driven(VehicleConstants(), drawn(0, 5.0)))
    assert train.main(["--calibrate", str(tmp_path)]) == 2
    assert "needs 20 usable seconds" in capsys.readouterr().err
