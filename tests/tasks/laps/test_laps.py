"""Two laps over one road: times along it, sectors, their file and their picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.laps.files import ComparedLaps, read_laps, write_laps
from tasks.laps.lap import Lap, LapTrace, sectors, time_lost
from tasks.laps.picture import draw_comparison

ROAD = np.stack([np.zeros(101), np.linspace(0.0, 100.0, 101)], axis=1)
"""100 m straight ahead."""


def lap_at(speed_mps: float, name: str = "car", until_m: float = 100.0) -> Lap:
    """A drive at one speed, seen every 50 ms; it finishes when it comes to the end of the road."""
    times_s = np.arange(0.04, until_m / speed_mps, 0.05)
    along = speed_mps * times_s
    ones = np.ones_like(times_s)
    trace = LapTrace(times_s, along, 0 * ones, along, speed_mps * ones, ones, 0 * ones, 0.25 * ones)
    return Lap(name, 100.0 / speed_mps if until_m >= 100.0 else None, trace)


def test_sectors_say_where_time_is_lost_and_add_up_to_the_lap() -> None:
    parts = sectors(lap_at(20.0), lap_at(25.0), 100.0)
    assert len(parts) == 10
    # 10 m take 0.5 s and 0.4 s.
    assert [part.lost_s for part in parts] == pytest.approx([0.1] * 10, abs=1e-9)
    assert sum(part.time_s or 0.0 for part in parts) == pytest.approx(5.0)
    places, lost = time_lost(lap_at(20.0), lap_at(25.0), 100.0)
    assert lost[np.searchsorted(places, 50.0)] == pytest.approx(0.5)


def test_sectors_that_were_not_reached_have_no_time() -> None:
    parts = sectors(lap_at(20.0, until_m=35.0), lap_at(25.0), 100.0)
    assert [part.time_s is None for part in parts] == [False] * 3 + [True] * 7
    assert parts[5].lost_s is None
    assert parts[5].reference_time_s == pytest.approx(0.4)
    assert all(part.lost_s is None for part in sectors(lap_at(20.0), None, 100.0))


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    slow, fast = lap_at(20.0, "policy"), lap_at(25.0, "human")
    unknown = fast._replace(trace=fast.trace._replace(gas=np.full_like(fast.trace.gas, np.nan)))
    write_laps(tmp_path / "laps.json", ComparedLaps(ROAD, 20.0, 100.0, slow, [unknown]))
    read = read_laps(tmp_path / "laps.json")
    assert (read.width_m, read.length_m, read.driven.name) == (20.0, 100.0, "policy")
    assert read.driven.lap_time_s == 5.0
    assert read.driven.trace.station_m == pytest.approx(slow.trace.station_m, abs=0.01)
    assert np.isnan(read.others[0].trace.gas).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.pop("laps"), "laps"),
        (lambda data: data["laps"].clear(), "a lap"),
        (lambda data: data["laps"][0].update(lap_time_s="soon"), "positive number"),
        (lambda data: data["laps"][0]["samples"]["x"].pop(), "equally many"),
        (lambda data: data["laps"][0]["samples"].update(z=[["<script>"]]), "numbers"),
        (lambda data: data["road"].update(width_m=-1), "positive number"),
        (lambda data: data["laps"][0]["samples"]["time_s"].reverse(), "must not fall"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, change: object, reason: str) -> None:
    path = tmp_path / "laps.json"
    write_laps(path, ComparedLaps(ROAD, 20.0, 100.0, lap_at(20.0), []))
    data = json.loads(path.read_text())
    change(data)  # type: ignore[operator]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=rf"laps\.json .*{reason}"):
        read_laps(path)
    path.write_bytes(b"\x80\x04half")
    with pytest.raises(ValueError, match=r"laps\.json must be written by --play"):
        read_laps(path)


def test_the_picture_shows_a_lap_that_did_not_finish_too(tmp_path: Path) -> None:
    laps = ComparedLaps(ROAD, 20.0, 100.0, lap_at(20.0, "$x_{", until_m=35.0), [lap_at(25.0)])
    picture = draw_comparison(laps, "a $title", tmp_path / "comparison.png")
    assert picture.shape == (1000, 1600, 3)
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
