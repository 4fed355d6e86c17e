"""--record: its files, its sources of telemetry, and its refusals."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tasks
from tasks.config import GameKind, LiveConfig, TaskConfig, TelemetryRecord
from tasks.game.clock import VirtualClock
from tasks.game.errors import TelemetryError, TelemetryState
from tasks.game.protocols import Telemetry
from tasks.points.files import read_points
from tasks.recordings.recording import load_npz
from tasks.roles import recording_files
from tasks.roles.config import DriveConfig, Driver, RecordConfig
from tasks.roles.record import record
from tasks.roles.recording import RecordedPath, RecordingRefused, Refusal, Sample, path_of
from tasks.sim.track import load_track
from tasks.trackmania.reference_path import load_reference_path
from tests.tasks.roles.record.drives import DriveMaker, telemetry_of

SIM = TaskConfig(game=GameKind.sim, track="short")
LIVE = TaskConfig(game=GameKind.live, track="short")


class ScriptedTelemetry:
    """A ``TelemetrySource`` that plays samples on a virtual clock; an error in their place is raised."""

    def __init__(self, clock: VirtualClock, events: Sequence[Sample | TelemetryError]) -> None:
        self._clock = clock
        self._events = list(events)
        self._num_sent = 0

    def newest(self) -> tuple[Telemetry, float]:
        raise AssertionError("a recording waits for the next record")

    def wait_newer(self, timeout_s: float) -> tuple[Telemetry, float]:
        assert 0 < timeout_s <= 1.0, "the stop key is asked about that often"
        if not self._events:
            self._clock.sleep_until(self._clock.now() + timeout_s)
            raise TelemetryError(TelemetryState.in_menu, "the plugin is silent: load a map")
        sample = self._events.pop(0)
        if isinstance(sample, TelemetryError):
            self._clock.sleep_until(self._clock.now() + timeout_s)
            raise sample
        self._num_sent += 1
        age_s = 1e-4 * self._num_sent
        self._clock.sleep_until(sample.time_s + age_s)
        return telemetry_of(sample), age_s

    def close(self) -> None:
        raise AssertionError("the source is not the recording's to close")


def lap() -> DriveMaker:
    return DriveMaker().stand().drive((100.0, 10.0, 280.0), (160.0, 10.0, 280.0)).finish()


def recorded_from(
    events: Sequence[Sample | TelemetryError],
    is_stopped: Callable[[], bool] = lambda: False,
    wait_limit_s: float = 60.0,
) -> RecordedPath:
    clock = VirtualClock()
    source = ScriptedTelemetry(clock, events)
    path, _ = record.recorded_live(source, RecordConfig(), clock, is_stopped=is_stopped, wait_limit_s=wait_limit_s)
    return path


def test_a_lap_of_the_scripted_driver_becomes_a_path_with_its_facts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RecordConfig(name="my_path", driver=Driver.scripted)
    file = record.run(SIM, config, DriveConfig(), headless=True, runs=tmp_path)
    assert file.parent.parent == tmp_path / "recorded"
    assert file.parent.name.startswith("my_path_20")
    assert sorted(path.name for path in file.parent.iterdir()) == ["map.png", "path.json", "path.npy"]
    points, facts = np.load(file), json.loads((file.parent / "path.json").read_text())
    track = load_track("short")
    # From the middle of the start line across the finish line, within the road.
    np.testing.assert_allclose(points[0], track.centre_line[0], atol=0.05)
    finish_x, finish_z = track.finish_position
    across = (points[-1, 0] - finish_x) * math.sin(track.finish_yaw) + (points[-1, 2] - finish_z) * math.cos(
        track.finish_yaw
    )
    assert 0.0 <= across < 3.0
    offsets = [np.hypot(*(track.centre_line[:, [0, 2]] - point).T).min() for point in points[::50, [0, 2]]]
    assert max(offsets) < track.width_m / 2
    assert facts["track"] == "short"
    assert facts["game"] == "sim"
    assert facts["points"] == len(points)
    assert facts["length_m"] == pytest.approx(0.1 * (len(points) - 1))
    assert facts["lap_time_s"] == pytest.approx(track.scripted.lap_time_s, rel=0.1)  # type: ignore[union-attr]
    assert facts["has_finished"] is True
    assert facts["is_simulator_track"] is True
    assert facts["date"][:4] == file.parent.name[len("my_path_") :][:4]
    with Image.open(file.parent / "map.png") as picture:
        assert picture.size[1] == 700
    answer = capsys.readouterr().out
    assert str(file) in answer
    assert f"{facts['length_m']:.1f} m in {facts['lap_time_s']:.2f} s" in answer


def test_a_recorded_path_is_a_track_and_a_reference_path(tmp_path: Path) -> None:
    file = record.run(SIM, RecordConfig(driver=Driver.scripted), DriveConfig(), headless=True, runs=tmp_path)
    points = np.load(file)
    np.testing.assert_array_equal(load_reference_path(file), points)
    env = tasks.make("TM20Full", game="sim", track="short", reward={"path": str(file)})
    np.testing.assert_array_equal(env.interface.path, points)  # type: ignore[attr-defined,union-attr]
    env.close()
    env = tasks.make("TM20Full", game="sim", track=str(file))
    assert abs(len(env.interface.path) - len(points)) < 20  # type: ignore[attr-defined,union-attr]
    env.reset(seed=0)
    env.close()


def test_the_live_game_is_recorded_from_its_telemetry_alone() -> None:
    recorded = recorded_from(lap().samples)
    assert recorded.has_finished
    np.testing.assert_array_equal(recorded.points, path_of(lap().samples, RecordConfig()).points)
    assert recorded.duration_s == pytest.approx(path_of(lap().samples, RecordConfig()).duration_s, abs=1e-6)


def test_a_menu_before_the_drive_is_waited_for_and_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    silence = [TelemetryError(TelemetryState.in_menu, "the plugin is silent: load a map") for _ in range(20)]
    gone = [TelemetryError(TelemetryState.lost, "connection lost") for _ in range(5)]
    with caplog.at_level(logging.INFO):
        assert recorded_from([*silence, *gone, *lap().samples]).has_finished
    warnings = [entry.message for entry in caplog.records if entry.levelno == logging.WARNING]
    assert warnings == ["the plugin is silent: load a map", "connection lost"]
    told = [entry.message for entry in caplog.records if entry.levelno == logging.INFO]
    assert told[0] == "ready to record: let the car stand at the start, then drive to the finish"
    assert told[1] == "recording; press q and Enter to end it before the finish"
    assert all(text.startswith("recording: ") for text in told[2:])


def test_a_short_wait_without_a_record_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    events: list[Sample | TelemetryError] = [*lap().samples]
    events.insert(40, TelemetryError(TelemetryState.receiving, "no newer telemetry"))
    assert recorded_from(events).has_finished
    assert not [entry for entry in caplog.records if entry.levelno == logging.WARNING]


def test_telemetry_that_never_comes_is_given_up_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"no telemetry for 5 s \(task.live.wait_for_game_s\): .*load a map"):
        recorded_from([], wait_limit_s=5.0)


def test_the_waiting_time_starts_at_the_last_record() -> None:
    silence = [TelemetryError(TelemetryState.in_menu, "in a menu") for _ in range(12)]  # 3.6 s
    first, *rest = lap().samples
    assert recorded_from([*silence, first, *silence, *rest], wait_limit_s=5.0).has_finished


def test_the_stop_key_ends_the_recording_also_in_a_menu() -> None:
    asked = iter([False] * 200 + [True] * 1000)
    driven = DriveMaker().stand().drive((100.0, 10.0, 280.0)).samples
    recorded = recorded_from(driven, is_stopped=lambda: next(asked))
    assert not recorded.has_finished
    with pytest.raises(RecordingRefused) as caught:
        recorded_from([], is_stopped=lambda: True)
    assert caught.value.reason is Refusal.no_telemetry


def test_a_drive_that_is_interrupted_is_kept_once_it_has_begun() -> None:
    def interrupted_after(count: int) -> Callable[[], bool]:
        answers = iter([False] * count)

        def is_stopped() -> bool:
            for answer in answers:
                return answer
            raise KeyboardInterrupt

        return is_stopped

    driven = DriveMaker().stand().drive((100.0, 10.0, 280.0)).samples
    recorded = recorded_from(driven, is_stopped=interrupted_after(len(driven)))
    assert not recorded.has_finished
    assert recorded.length_m > 10.0
    with pytest.raises(KeyboardInterrupt):
        recorded_from(driven, is_stopped=interrupted_after(1))


def test_a_record_without_a_finish_flag_says_how_to_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    live = LiveConfig(record=TelemetryRecord.floats8, port=1, wait_for_game_s=0.3)
    config = dataclasses.replace(LIVE, live=live)
    with pytest.raises(ValueError, match="nothing listens"):
        record.run(config, RecordConfig(stop_key="x"), DriveConfig(), headless=True, runs=tmp_path)
    assert "does not report the finish: end the recording with x" in caplog.text
    assert not list(tmp_path.iterdir())


def test_the_scripted_driver_cannot_drive_the_live_game(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="driver=scripted drives the simulator only"):
        record.run(LIVE, RecordConfig(driver=Driver.scripted), DriveConfig(), headless=True, runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_person_needs_a_window_in_the_simulator(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a window in the simulator"):
        record.run(SIM, RecordConfig(), DriveConfig(), headless=True, runs=tmp_path)


def test_a_live_recording_without_a_finish_is_described_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Out and back: a road cannot cross itself.
    loop = (
        DriveMaker()
        .stand()
        .drive((100.0, 10.0, 280.0), (160.0, 10.0, 280.0), (160.0, 10.0, 240.0), (60.0, 10.0, 240.0))
    )
    recorded = path_of(loop.samples, RecordConfig())
    file = record.write_recording(recorded, LIVE, RecordConfig(), tmp_path, lap_time_s=math.nan)
    facts = json.loads((file.parent / "path.json").read_text())
    assert facts["game"] == "live"
    assert facts["track"] is None
    assert facts["lap_time_s"] is None
    assert facts["is_simulator_track"] is False
    answer = capsys.readouterr().out
    assert "the finish was not reached" in answer
    assert "the simulator can build no road along it" in answer
    np.testing.assert_array_equal(load_reference_path(file), recorded.points * [-1.0, 1.0, 1.0])


def test_two_recordings_in_one_second_do_not_overwrite_each_other(tmp_path: Path) -> None:
    recorded = path_of(lap().samples, RecordConfig())
    files = {record.write_recording(recorded, LIVE, RecordConfig(), tmp_path, lap_time_s=math.nan) for _ in range(3)}
    assert len(files) == 3


def test_the_map_shows_the_driven_line_in_the_colours_of_its_speed() -> None:
    recorded = path_of(lap().samples, RecordConfig())
    slow = recording_files.draw_map(recorded, LIVE, None, title="x")
    assert slow.shape[2] == 3
    dark_red = (slow[..., 0] > 100) & (slow[..., 1] < 40) & (slow[..., 2] < 40)
    assert dark_red.sum() > 200  # all at top speed


def test_a_live_drive_keeps_its_telemetry_and_inputs_beside_the_path(tmp_path: Path) -> None:
    clock = VirtualClock()
    source = ScriptedTelemetry(clock, lap().samples)
    path, drive = record.recorded_live(source, RecordConfig(), clock, is_stopped=lambda: False, wait_limit_s=60.0)
    file = record.write_recording(path, LIVE, RecordConfig(), tmp_path, lap_time_s=math.nan, drive=drive)
    kept = load_npz(file.parent / "drive.npz")
    assert kept.has_inputs
    np.testing.assert_allclose(kept.column("t_ms"), 50.0 * np.arange(len(kept.states)), atol=1e-3)
    assert kept.column("t_ms")[-1] / 1000 == pytest.approx(path.duration_s, abs=0.05)
    np.testing.assert_allclose(kept.states[0, 1:4], path.points[0], atol=1e-4)
    assert len(kept.inputs) == 5 * (len(kept.states) - 1) + 1
    assert set(kept.inputs[:, 1]) == {1.0}
    np.testing.assert_allclose(kept.column("speed")[5:], 20.0, rtol=1e-3)
    # Straight on along z, then to growing x, which is to the left in the game.
    assert kept.column("yaw")[20] == pytest.approx(0.0, abs=1e-3)
    assert kept.column("yaw")[-5] == pytest.approx(-np.pi / 2, abs=1e-3)
    facts = json.loads((file.parent / "path.json").read_text())
    assert facts["frame"] == "game"
    assert facts["human_lap_time_s"] == facts["lap_time_s"] == pytest.approx(path.duration_s, abs=1e-3)


def test_the_scripted_drivers_lap_is_not_recorded_as_a_humans(tmp_path: Path) -> None:
    config = RecordConfig(driver=Driver.scripted)
    file = record.run(SIM, config, DriveConfig(), headless=True, runs=tmp_path)
    facts = json.loads((file.parent / "path.json").read_text())
    assert (facts["frame"], facts["human_lap_time_s"]) == ("simulator", None)
    assert read_points(file).human_lap_time_s is None
