"""Driving by hand shows the task's observation and reward, and can record a lap."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks import registry
from tasks.config import ClockKind, GameKind, TaskConfig
from tasks.game.clock import VirtualClock
from tasks.roles.config import DriveConfig, RecordConfig
from tasks.roles.drive import drive
from tasks.roles.drive.drive import FRAME_S, SCALES, SLOW_PICTURE_S, RecordedLaps, ViewScale, drive_loop
from tasks.roles.drive.hand_drive import HandDrive
from tasks.roles.picture_window import WindowEvents
from tasks.roles.recording import Recorder, RecordingRefused, RecordingState, Refusal
from tasks.roles.recording_files import undisturbed
from tasks.sim.scripted_driver import ScriptedDriver
from tasks.sim.track import load_track
from tasks.trackmania.full import FullInterface
from tasks.trackmania.lidar import LidarInterface
from tasks.trackmania.reference_path import load_reference_path

GAS = np.array([1.0, 0.0, 0.0], np.float32)
NOTHING = np.zeros(3, np.float32)


def task(name: str = "TM20Lidar") -> TaskConfig:
    config = registry.default_config(name)
    return undisturbed(dataclasses.replace(config, game=GameKind.sim, clock=ClockKind.virtual, track="short"))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def hand_drive(clock: VirtualClock, name: str = "TM20Lidar") -> HandDrive:
    interface_class = LidarInterface if name == "TM20Lidar" else FullInterface
    config = task(name)
    return HandDrive(interface_class.from_config(config, clock), clock, config.rtgym)


def scripted_hands(drive: HandDrive) -> Callable[[], np.ndarray]:
    """A careful driver: the scripted driver with half of its gas, which tolerates other delays."""
    driver = ScriptedDriver(load_track("short"))
    game = drive.game

    def read() -> np.ndarray:
        state = game.state()
        if state.distance_m < 1.0:
            driver.reset()
        gas, brake, steer = driver.act(state).tolist()
        return np.array([gas if state.forward_mps < 25.0 else 0.0, brake, steer], np.float32)

    return read


def press_on(clock: VirtualClock, drive: HandDrive, control: np.ndarray, seconds: float) -> None:
    for _ in range(round(seconds / FRAME_S)):
        clock.sleep_until(clock.now() + FRAME_S)
        drive.update(control)


def quiet() -> WindowEvents:
    return WindowEvents()


def do_not_show(drive: HandDrive) -> None:
    del drive


def test_gas_moves_the_car_and_progress_is_rewarded(clock: VirtualClock) -> None:
    drive = hand_drive(clock)
    press_on(clock, drive, NOTHING, 0.5)
    assert drive.episode_return == 0.0
    press_on(clock, drive, GAS, 2.0)
    driven_m = drive.game.state().distance_m
    assert driven_m > 10.0
    # 0.1 per metre, up to the last capture (one step of driving).
    assert drive.episode_return == pytest.approx(0.1 * driven_m, abs=0.1 * 0.05 * 40 + 0.01)
    assert drive.reward > 0.0


def test_the_observation_is_the_tasks_own_at_the_rate_of_its_steps(clock: VirtualClock) -> None:
    drive = hand_drive(clock)
    seen = [id(drive.observation)]
    for _ in range(60):
        press_on(clock, drive, GAS, FRAME_S)
        if id(drive.observation) != seen[-1]:
            seen.append(id(drive.observation))
            np.testing.assert_array_equal(drive.observation["lidar"][-1], drive.game.lidar())
    assert len(seen) == pytest.approx(1 + 20, abs=1)
    assert drive.observation["lidar"].shape == (4, 19)
    assert drive.observation["speed"][0] > 0.0


def test_a_restart_puts_the_car_and_the_numbers_back(clock: VirtualClock) -> None:
    drive = hand_drive(clock)
    press_on(clock, drive, GAS, 2.0)
    drive.restart()
    assert drive.episode_return == drive.reward == 0.0
    assert drive.game.state().distance_m == 0.0
    press_on(clock, drive, GAS, 1.0)
    assert drive.episode_return > 0.0


def test_a_standing_driver_is_told_that_training_would_have_ended_and_may_continue(clock: VirtualClock) -> None:
    drive = hand_drive(clock)
    press_on(clock, drive, NOTHING, 3.0)
    assert not drive.would_have_ended
    press_on(clock, drive, NOTHING, 2.0)
    assert drive.would_have_ended
    before = drive.episode_return
    press_on(clock, drive, GAS, 1.0)
    assert drive.game.state().distance_m > 1.0
    assert drive.episode_return == before


def test_the_finish_is_timed_by_the_game_and_the_car_is_let_go(clock: VirtualClock) -> None:
    drive = hand_drive(clock)
    hands = scripted_hands(drive)
    while not drive.has_finished:
        press_on(clock, drive, hands(), FRAME_S)
        assert clock.now() < 60.0
    assert drive.num_laps == 1
    assert drive.last_lap_s == drive.best_lap_s == drive.finish_time_s
    assert 5.0 < drive.last_lap_s < 30.0
    # A tenth of the length of the path in metres, and the bonus of 10.
    assert drive.episode_return == pytest.approx(0.1 * load_track("short").length_m + 10.0, abs=0.02)
    speed = drive.game.state().forward_mps
    press_on(clock, drive, GAS, 0.25)
    assert drive.game.state().forward_mps < speed
    assert drive.num_laps == 1


@pytest.mark.parametrize("name", ["TM20Lidar", "TM20Full"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_picture_shows_car_and_observation(clock: VirtualClock, name: str, scale: float) -> None:
    drive = hand_drive(clock, name)
    press_on(clock, drive, GAS, 1.0)
    picture = drive.picture(640, 360, scale)
    assert picture.shape == (360, 640, 3)
    assert picture.dtype == np.uint8
    without_panel = drive.game.render_chase(640, 360)
    changed = (picture != without_panel).any(axis=2)
    assert changed[10:60, 400:630].mean() > 0.9, "the observation is in the corner"
    assert scale < 1.0 or not changed[:, :300].any(), "and nowhere else"


def test_a_small_window_still_has_room_for_the_car(clock: VirtualClock) -> None:
    drive = hand_drive(clock)
    picture = drive.picture(320, 240)
    changed = (picture != drive.game.render_chase(320, 240)).any(axis=2)
    assert changed.any()
    assert not changed[:, : int(0.55 * 320)].any()


def test_a_recorded_lap_is_written_and_ends_the_drive(clock: VirtualClock, tmp_path: Path) -> None:
    drive = hand_drive(clock)
    laps = RecordedLaps(task(), RecordConfig(name="by_hand"), 1, tmp_path)
    drive_loop(drive, clock, scripted_hands(drive), quiet, do_not_show, laps.is_over)
    file = laps.newest_file()
    assert file.parent.name.startswith("by_hand_")
    path = load_reference_path(file)
    track = load_track("short")
    np.testing.assert_allclose(path[0], track.centre_line[0], atol=0.1)
    assert np.hypot(*(path[-1, [0, 2]] - track.finish_position)) < track.width_m / 2


def test_a_restart_begins_a_new_recording(clock: VirtualClock, tmp_path: Path) -> None:
    drive = hand_drive(clock)
    laps = RecordedLaps(task(), RecordConfig(), 1, tmp_path)
    presses = iter([WindowEvents()] * 150 + [WindowEvents(wants_restart=True)])
    drive_loop(drive, clock, scripted_hands(drive), lambda: next(presses, WindowEvents()), do_not_show, laps.is_over)
    path = load_reference_path(laps.newest_file())
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.max() < 0.11
    np.testing.assert_allclose(path[0], load_track("short").centre_line[0], atol=0.1)


def test_the_stop_key_ends_a_recording_and_the_next_one_is_another_file(clock: VirtualClock, tmp_path: Path) -> None:
    drive = hand_drive(clock)
    laps = RecordedLaps(task(), RecordConfig(min_length_m=5.0), 2, tmp_path)

    def events() -> WindowEvents:
        if drive.recorder is not None and drive.recorder.length_m > 20.0:
            return WindowEvents(typed="q")
        is_new = drive.recorder is not None and drive.recorder.state is RecordingState.waiting
        return WindowEvents(wants_restart=is_new and drive.game.state().distance_m > 10.0)

    drive_loop(drive, clock, scripted_hands(drive), events, do_not_show, laps.is_over)
    assert len(list((tmp_path / "recorded").iterdir())) == 2


def test_closing_the_window_keeps_the_drive_so_far(clock: VirtualClock, tmp_path: Path) -> None:
    drive = hand_drive(clock)
    laps = RecordedLaps(task(), RecordConfig(), 1, tmp_path)

    def events() -> WindowEvents:
        return WindowEvents(wants_quit=drive.game.state().distance_m > 60.0)

    drive_loop(drive, clock, scripted_hands(drive), events, do_not_show, laps.is_over)
    assert 50.0 < 0.1 * len(load_reference_path(laps.newest_file())) < 70.0


def test_closing_the_window_without_driving_explains_why_there_is_no_path(clock: VirtualClock, tmp_path: Path) -> None:
    drive = hand_drive(clock)
    laps = RecordedLaps(task(), RecordConfig(), 1, tmp_path)
    presses = iter([WindowEvents()] * 20)
    closed = WindowEvents(wants_quit=True)
    drive_loop(drive, clock, lambda: NOTHING, lambda: next(presses, closed), do_not_show, laps.is_over)
    with pytest.raises(RecordingRefused) as caught:
        laps.newest_file()
    assert caught.value.reason is Refusal.nothing_moved
    assert not list(tmp_path.iterdir())


def test_pictures_come_sixty_times_a_second_at_most(clock: VirtualClock) -> None:
    drive = hand_drive(clock)
    times: list[float] = []
    drive_loop(drive, clock, lambda: GAS, quiet, lambda _: times.append(clock.now()), lambda *_: len(times) >= 10)
    np.testing.assert_allclose(np.diff(times), FRAME_S)


def test_a_slow_view_is_drawn_smaller_and_a_fast_one_is_not() -> None:
    fast, slow = ViewScale(), ViewScale()
    for _ in range(200):
        fast.note(0.5 * SLOW_PICTURE_S)
        slow.note(2.0 * SLOW_PICTURE_S)
    assert fast.scale == 1.0
    assert slow.scale == SCALES[-1]


def test_one_slow_picture_is_no_slow_view() -> None:
    scale = ViewScale()
    for duration in (2.0, *[0.01] * 20, 0.05, *[0.01] * 20):
        scale.note(duration)
    assert scale.scale == 1.0


def test_the_window_drives_until_it_is_closed(no_screen: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown: list[np.ndarray] = []
    monkeypatch.setattr("tasks.roles.picture_window.PictureWindow.show", lambda _, picture: shown.append(picture))
    monkeypatch.setattr(
        "tasks.roles.picture_window.PictureWindow.events", lambda _: WindowEvents(wants_quit=len(shown) >= 3)
    )
    drive.run(task("TM20Full"), DriveConfig(width=400, height=300), RecordConfig(), headless=False, runs=tmp_path)
    assert [picture.shape for picture in shown] == [(300, 400, 3)] * 3
    assert not list(tmp_path.iterdir())


def test_the_configured_number_of_laps_is_recorded(
    no_screen: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tasks.roles.picture_window.PictureWindow.show", lambda *_: None)
    monkeypatch.setattr("tasks.roles.picture_window.PictureWindow.events", lambda _: WindowEvents(wants_quit=True))
    recorded: list[RecordConfig] = []

    def recorder(config: RecordConfig) -> Recorder:
        recorded.append(config)
        return Recorder(config)

    monkeypatch.setattr(drive, "Recorder", recorder)
    wanted = RecordConfig(name="mine", min_length_m=7.0)
    drive.run(task("TM20Full"), DriveConfig(record=True), wanted, headless=False, runs=tmp_path)
    assert recorded
    assert all(config is wanted for config in recorded)


@pytest.mark.parametrize(
    ("config", "headless", "words"),
    [
        (task(), True, "--drive needs a window"),
        (dataclasses.replace(task(), game=GameKind.live, clock=ClockKind.wall), False, "--drive is for the simulator"),
    ],
)
def test_other_tasks_and_games_are_refused(config: TaskConfig, headless: bool, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        drive.run(config, DriveConfig(), RecordConfig(), headless=headless, runs=tmp_path)
