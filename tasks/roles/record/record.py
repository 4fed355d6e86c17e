"""``--record``: one drive becomes a reference path with its description and a map.

``train.py`` calls ``run``. In the live game it reads only telemetry and presses nothing; in the simulator the scripted
driver drives, or you do in the window of ``tasks.roles.drive.drive``. ``tasks.roles.recording`` makes the path,
``tasks.roles.recording_files`` writes the files.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tasks.config import GameKind, TaskConfig
from tasks.game.clock import Clock, VirtualClock, WallClock
from tasks.game.errors import GameError, TelemetryError, TelemetryState
from tasks.game.protocols import TelemetrySource
from tasks.roles.config import DriveConfig, Driver, RecordConfig
from tasks.roles.record.from_file import write_from_file
from tasks.roles.record.stop_key import StopKey
from tasks.roles.record.telemetry_log import TelemetryLog
from tasks.roles.recording import RecordedPath, Recorder, RecordingState, Sample
from tasks.roles.recording_files import GameDrive, RecordingProgress, undisturbed, write_recording

_MOMENTS_S = (0.01, 0.02, 0.03, 0.04, 0.05)
"""When the simulator's telemetry is read within a step [s]."""
_POLL_S = 0.25
"""How long a record is waited for before the stop key is asked [s]."""
_RETRY_S = 0.05
_REPEAT_EVERY_S = 30.0

_logger = logging.getLogger(__name__)


def run(task: TaskConfig, config: RecordConfig, window: DriveConfig, *, headless: bool, runs: Path) -> Path:
    """Records one drive.

    Args:
        task: The task; its game is decided.
        config: Who drives, and what a path must be.
        window: Its size, where a person drives the simulator.
        headless: Whether no window may be opened.
        runs: Folder of all runs.

    Returns:
        The written path.npy, which ``task.track`` and ``task.reward.path`` take; path.json and map.png lie beside it.

    Raises:
        ValueError: The drive makes no path (``RecordingRefused``), or this cannot be recorded as asked.
    """
    if config.from_file is not None:
        return write_from_file(task, config, runs)
    from tasks.sim.random_tracks import any_track

    is_live = task.game is GameKind.live
    if is_live and config.driver is Driver.scripted:
        raise ValueError("record.driver=scripted drives the simulator only: set record.driver=human or task.game=sim")
    if not is_live:
        any_track(task.track, task.track_width_m)  # refused before anybody drives
    if is_live:
        recorded, telemetry = _recorded_live(task, config)
        return write_recording(recorded, task, config, runs, lap_time_s=math.nan, drive=telemetry)
    if config.driver is Driver.scripted:
        recorded, lap_time_s = recorded_by_script(task, config)
        return write_recording(recorded, task, config, runs, lap_time_s=lap_time_s)
    if headless:
        raise ValueError(
            "record.driver=human needs a window in the simulator: omit --headless or set record.driver=scripted"
        )
    from tasks.roles.drive import drive

    return drive.record_by_hand(task, config, window, runs)


def recorded_live(
    source: TelemetrySource, config: RecordConfig, clock: Clock, *, is_stopped: Callable[[], bool], wait_limit_s: float
) -> tuple[RecordedPath, GameDrive]:
    """Records what a person drives in the live game.

    Args:
        source: Its telemetry.
        config: When it starts and ends.
        clock: Real time.
        is_stopped: Whether the recording shall end; asked several times a second.
        wait_limit_s: How long telemetry may be missing [s].

    Returns:
        The path, and the telemetry and inputs of the drive.

    Raises:
        RecordingRefused: The drive makes no path.
        ValueError: No telemetry arrived for ``wait_limit_s``.
    """
    recorder = Recorder(config)
    silence = _Silence(clock, wait_limit_s)
    progress = RecordingProgress(recorder, clock, f"press {config.stop_key} and Enter to end it before the finish")
    log = TelemetryLog()
    with _kept_when_interrupted(recorder):
        _follow(source, recorder, log, silence, progress, clock, is_stopped)
    path = recorder.path()
    recording = log.recording(*recorder.span_s)
    return path, GameDrive([] if recording is None else [recording])


@contextlib.contextmanager
def _kept_when_interrupted(recorder: Recorder) -> Iterator[None]:
    """A drive that has begun is not lost to Ctrl-C or a closed terminal: that ends it as the stop key does."""
    try:
        yield
    except KeyboardInterrupt:
        if recorder.state is RecordingState.waiting:
            raise
        recorder.stop()


def _follow(
    source: TelemetrySource,
    recorder: Recorder,
    log: TelemetryLog,
    silence: _Silence,
    progress: RecordingProgress,
    clock: Clock,
    is_stopped: Callable[[], bool],
) -> None:
    """Feeds a recorder until it is over."""
    while not recorder.state.is_over:
        if is_stopped():
            recorder.stop()
            break
        try:
            telemetry, age_s = source.wait_newer(_POLL_S)
        except TelemetryError as error:
            silence.note(error)
            clock.sleep_until(clock.now() + _RETRY_S)
            continue
        silence.end()
        time_s = clock.now() - age_s
        log.add(time_s, telemetry)
        recorder.add(Sample.from_telemetry(time_s, telemetry))
        progress.tell()


def recorded_by_script(task: TaskConfig, config: RecordConfig) -> tuple[RecordedPath, float]:
    """Records a lap of the scripted driver in the simulator.

    Returns:
        The path, and the lap time [s].

    Raises:
        RecordingRefused: The drive makes no path.
        ValueError: The driver did not reach the finish.
    """
    from tasks.sim.game import SimulatedGame
    from tasks.sim.random_tracks import any_track
    from tasks.sim.scripted_driver import CAPTURE_S, STEP_S, ScriptedDriver
    from tasks.sim.vehicle_files import load_vehicle

    track = any_track(task.track, task.track_width_m)
    clock = VirtualClock()
    game = SimulatedGame(clock, track, undisturbed(task))
    driver = ScriptedDriver(track, constants=load_vehicle(task.vehicle))
    recorder = Recorder(config)
    game.restart(0)
    # As through the 20 Hz environment: what is decided in one step acts from the next one on.
    running = following = np.zeros(3, np.float32)
    for step in itertools.count():
        game.apply(running)
        for moment_s in _MOMENTS_S:
            clock.sleep_until(step * STEP_S + moment_s)
            telemetry, age_s = game.telemetry()
            recorder.add(Sample.from_telemetry(clock.now() - age_s, telemetry))
            if moment_s == CAPTURE_S:
                running, following = following, driver.act(game.state())
        if recorder.state.is_over:
            break
    recorded = recorder.path()
    if not recorded.has_finished:
        raise ValueError(
            f"the scripted driver did not reach the finish of {task.track}: drive it yourself (record.driver=human)"
        )
    return recorded, float(game.episode_facts().finish_time_s)


class _Silence:
    """Waits for missing telemetry: logs each state once, and again every 30 s."""

    def __init__(self, clock: Clock, wait_limit_s: float) -> None:
        self._clock = clock
        self._wait_limit_s = wait_limit_s
        self._since_s: float | None = None
        self._state: TelemetryState | None = None
        self._told_at_s = -math.inf

    def note(self, error: TelemetryError) -> None:
        """Counts a wait without a record.

        Raises:
            ValueError: The time limit has passed.
        """
        now = self._clock.now()
        if self._since_s is None:
            self._since_s = now
        if now - self._since_s > self._wait_limit_s:
            limit = f"{self._wait_limit_s:g} s (task.live.wait_for_game_s)"
            raise ValueError(f"no telemetry for {limit}: {error}") from error
        is_short_pause = error.state in (TelemetryState.receiving, TelemetryState.connecting)
        is_news = error.state is not self._state or now - self._told_at_s > _REPEAT_EVERY_S
        if is_news and not is_short_pause:
            self._state, self._told_at_s = error.state, now
            _logger.warning("%s", error)

    def end(self) -> None:
        """Ends the wait: a record arrived."""
        self._since_s = self._state = None
        self._told_at_s = -math.inf


def _recorded_live(task: TaskConfig, config: RecordConfig) -> tuple[RecordedPath, GameDrive]:
    """``recorded_live`` with the plugin's telemetry and the terminal."""
    from tasks.live.telemetry.layouts import LAYOUTS
    from tasks.live.telemetry.openplanet import OpenPlanetClient
    from tasks.live.window.finder import window_exists

    live = task.live
    if "finished" in LAYOUTS[live.record].missing:
        name = LAYOUTS[live.record].name
        _logger.warning("%s does not report the finish: end the recording with %s", name, config.stop_key)
    stop_key = StopKey(config.stop_key)
    try:
        with OpenPlanetClient(
            live.port,
            record=live.record,
            max_age_s=live.max_telemetry_age_s,
            is_game_running=lambda: window_exists(live.window_title, live.display),
        ) as source:
            return recorded_live(
                source, config, WallClock(), is_stopped=stop_key.is_pressed, wait_limit_s=live.wait_for_game_s
            )
    except GameError as error:
        raise ValueError(str(error)) from error
