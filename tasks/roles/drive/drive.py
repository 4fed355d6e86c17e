"""``--drive``: you drive the simulator in a window, with keys or a game pad, and see what the network would see.

``train.py`` calls ``run``; ``tasks.roles.record.record`` calls ``record_by_hand``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks import registry
from tasks.config import ClockKind, GameKind, TaskConfig
from tasks.game.clock import Clock, WallClock
from tasks.roles.config import DriveConfig, RecordConfig
from tasks.roles.drive.hand_controls import HandControls
from tasks.roles.drive.hand_drive import HandDrive
from tasks.roles.picture_window import PictureWindow, WindowEvents
from tasks.roles.recording import Recorder, RecordingRefused, Refusal
from tasks.roles.recording_files import RecordingProgress, undisturbed, write_recording
from tasks.trackmania.driving import DrivingInterface

FRAME_S = 1.0 / 60.0
SCALES = (1.0, 0.75, 0.5, 0.375)
"""How large the view is drawn, relative to the window."""
SLOW_PICTURE_S = 0.022
"""A view that takes longer to draw is drawn smaller [s]."""

_logger = logging.getLogger(__name__)


def run(task: TaskConfig, config: DriveConfig, recording: RecordConfig, *, headless: bool, runs: Path) -> None:
    """Opens the window and lets a person drive until it is closed.

    Args:
        task: The task, in the simulator.
        config: The window, and whether each lap is recorded.
        recording: What is recorded.
        headless: Whether no window may be opened.
        runs: Folder of all runs.

    Raises:
        ValueError: There is no window to drive in, or the task is not the simulator's.
    """
    if headless:
        raise ValueError("--drive needs a window: omit --headless")
    if not config.record:
        _in_window(task, config, lambda drive, _: 0 < config.max_laps <= drive.num_laps)
        return
    session = RecordedLaps(task, recording, config.max_laps, runs)
    _in_window(undisturbed(task), config, session.is_over)


def record_by_hand(task: TaskConfig, config: RecordConfig, window: DriveConfig, runs: Path) -> Path:
    """Lets a person drive in the window until one drive makes a path.

    Args:
        task: The task, in the simulator.
        config: What is recorded.
        window: The window.
        runs: Folder of all runs.

    Returns:
        The written path.npy.

    Raises:
        RecordingRefused: The window was closed before any drive made a path; why the last one did not.
        ValueError: There is no window to drive in, or the task is not the simulator's.
    """
    session = RecordedLaps(task, config, 1, runs)
    _in_window(undisturbed(task), window, session.is_over)
    return session.newest_file()


def drive_loop(
    drive: HandDrive,
    clock: Clock,
    control: Callable[[], np.ndarray],
    events: Callable[[], WindowEvents],
    show: Callable[[HandDrive], None],
    is_over: Callable[[HandDrive, WindowEvents], bool],
) -> None:
    """Drives picture by picture until ``is_over`` or the window is closed.

    Args:
        drive: The drive.
        clock: Its clock.
        control: What the person says now, [gas, brake, steer].
        events: What happened in the window.
        show: Shows the newest picture.
        is_over: Asked once per picture.
    """
    next_at_s = clock.now()
    while True:
        happened = events()
        if happened.wants_restart:
            drive.restart()
        drive.update(control())
        if is_over(drive, happened) or happened.wants_quit:
            return
        show(drive)
        next_at_s = max(next_at_s + FRAME_S, clock.now())
        clock.sleep_until(next_at_s)


class ViewScale:
    """How large the view is drawn: as large as the window, unless that is too slow for this machine."""

    def __init__(self) -> None:
        self._level = 0
        self._mean_s = 0.0
        self._num_measured = 0

    @property
    def scale(self) -> float:
        """Scale relative to the window."""
        return SCALES[self._level]

    def note(self, duration_s: float) -> None:
        """Counts the time of a picture; the first of each size prepares tables and does not count."""
        self._num_measured += 1
        if self._num_measured == 1:
            return
        self._mean_s += (duration_s - self._mean_s) / min(self._num_measured - 1, 10)
        is_slow = self._num_measured > 10 and self._mean_s > SLOW_PICTURE_S
        if is_slow and self._level < len(SCALES) - 1:
            self._level += 1
            self._mean_s, self._num_measured = 0.0, 0


class RecordedLaps:
    """Records one drive after the other: writes its path, or logs why there is none, and starts again.

    Args:
        task: What is driven.
        config: What is recorded.
        max_paths: Paths after which it is over; 0: never.
        runs: Folder of all runs.
    """

    def __init__(self, task: TaskConfig, config: RecordConfig, max_paths: int, runs: Path) -> None:
        self._task, self._config, self._max_paths, self._runs = task, config, max_paths, runs
        self._files: list[Path] = []
        self._refusal: RecordingRefused | None = None
        self._progress: RecordingProgress | None = None

    def is_over(self, drive: HandDrive, happened: WindowEvents) -> bool:
        """Looks after the recording of a drive, once per picture; returns whether enough paths are written."""
        recorder = drive.recorder or self._begin(drive)
        if self._config.stop_key in happened.typed or happened.wants_quit:
            recorder.stop()
        if self._progress is not None:
            self._progress.tell()
        if recorder.state.is_over:
            self._end(drive, recorder)
            self._begin(drive)
        return 0 < self._max_paths <= len(self._files)

    def newest_file(self) -> Path:
        """The path.npy that was written last.

        Raises:
            RecordingRefused: There is none; why the last drive made none.
        """
        if not self._files:
            raise self._refusal or RecordingRefused(Refusal.nothing_moved, "nothing moved: nothing was recorded")
        return self._files[-1]

    def _begin(self, drive: HandDrive) -> Recorder:
        drive.recorder = Recorder(self._config)
        how_to_end = f"{self._config.stop_key} ends it before the finish"
        self._progress = RecordingProgress(drive.recorder, drive.clock, how_to_end)
        return drive.recorder

    def _end(self, drive: HandDrive, recorder: Recorder) -> None:
        try:
            recorded = recorder.path()
        except RecordingRefused as refusal:
            self._refusal = refusal
            if not self._files or refusal.reason is not Refusal.nothing_moved:
                _logger.warning("not recorded: %s", refusal)
            return
        lap_time_s = drive.finish_time_s if recorded.has_finished else math.nan
        self._files.append(write_recording(recorded, self._task, self._config, self._runs, lap_time_s=lap_time_s))


def _in_window(task: TaskConfig, config: DriveConfig, is_over: Callable[[HandDrive, WindowEvents], bool]) -> None:
    """Opens task and window and drives."""
    if task.game is not GameKind.sim:
        raise ValueError(
            f"--drive is for the simulator, got task.game={task.game.name}: set task.game=sim, or drive in the game"
        )
    clock = WallClock()
    env = registry.make(task.name, observation="dict", config=replace(task, clock=ClockKind.wall))
    try:
        interface = getattr(env, "interface", None)
        if not isinstance(interface, DrivingInterface):
            raise ValueError(f"--drive drives TrackMania tasks (TM20...), got task {task.name!r}")
        with PictureWindow(config.width, config.height, f"drive {task.track}") as window:
            drive = HandDrive(interface, clock, task.rtgym)
            try:
                _drive_in(window, drive, clock, is_over)
            except KeyboardInterrupt:  # as if the window were closed: the recording is kept
                is_over(drive, WindowEvents(wants_quit=True))
    finally:
        env.close()


def _drive_in(
    window: PictureWindow, drive: HandDrive, clock: Clock, is_over: Callable[[HandDrive, WindowEvents], bool]
) -> None:
    hands, scale = HandControls(), ViewScale()

    def events() -> WindowEvents:
        happened = window.events()
        if happened.pads_changed:
            hands.look_for_pad()
        return happened

    def show(shown: HandDrive) -> None:
        started_s = clock.now()
        window.show(shown.picture(*window.size, scale.scale))
        scale.note(clock.now() - started_s)

    try:
        drive_loop(drive, clock, hands.read, events, show, is_over)
    finally:
        hands.close()
