"""A person's drive in the simulator: controls in, laps, rewards and pictures out. No window.

``tasks.roles.drive.drive`` calls ``update`` once per drawn picture. The task's own interface captures the observations,
at the times of its steps, so what is shown is what the network would see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np

from tasks.config import RtgymConfig
from tasks.game.clock import Clock
from tasks.roles import overlay
from tasks.roles.overlay import Picture
from tasks.roles.recording import Recorder, RecordingState, Sample
from tasks.sim.game import SimulatedGame
from tasks.trackmania.driving import DrivingInterface

PANEL_WIDTH = 320
_MIN_VIEW_PX = 64
HINTS = "arrows or WASD drive, Delete restarts, Esc ends"


class HandDrive:
    """One car, one person.

    After the finish the car rolls on without controls until the next restart. An episode that training would have
    ended (no progress, too far away) is said so and goes on; its return stays as it was.

    Args:
        interface: The task over a ``SimulatedGame``.
        clock: The clock of that game.
        config: When observations are captured.
        recorder: What records the line; None: nothing.
    """

    def __init__(
        self, interface: DrivingInterface, clock: Clock, config: RtgymConfig, recorder: Recorder | None = None
    ) -> None:
        if not isinstance(interface.game, SimulatedGame):
            raise ValueError(f"only the simulator can be driven by hand here, got {type(interface.game).__name__}")
        self.recorder = recorder
        self.num_laps = 0
        self.last_lap_s = math.nan
        self.best_lap_s = math.nan
        self.reward = 0.0
        """Of the last step."""
        self.episode_return = 0.0
        self.observation: Mapping[str, np.ndarray] = {}
        """Fields by name, without the actions."""
        self._interface = interface
        self.game = interface.game
        self.clock = clock
        self._config = config
        self._next_seed = 0
        self.has_finished = False
        """Whether the car has crossed the finish line since the restart."""
        self.would_have_ended = False
        """Whether training would have ended the episode since the restart."""
        self._panel: Picture | None = None
        self.restart()

    @property
    def finish_time_s(self) -> float:
        """Lap time of the game [s]; NaN before the finish."""
        return float(self.game.episode_facts().finish_time_s)

    def restart(self) -> None:
        """Puts the car back to the start."""
        fields, _ = self._interface.reset(seed=self._next_seed)
        self._next_seed += 1
        self.has_finished = self.would_have_ended = False
        self.reward = self.episode_return = 0.0
        self._capture_at_s = self.clock.now() + self._config.start_obs_capture
        self._take(fields)

    def update(self, control: np.ndarray) -> None:
        """Sends the control, feeds the recorder, and captures the observation when its time has come.

        Args:
            control: [gas, brake, steer] in [-1, 1].
        """
        self._interface.send_control(np.zeros(3, np.float32) if self.has_finished else control)
        now = self.clock.now()
        if self.recorder is not None:
            telemetry, age_s = self.game.telemetry()
            self.recorder.add(Sample.from_telemetry(now - age_s, telemetry))
        if now >= self._capture_at_s:
            self._capture(now)

    def picture(self, width: int, height: int, view_scale: float = 1.0) -> Picture:
        """The car from behind, with the observation and the numbers in its corner, RGB, shape (height, width, 3).

        Args:
            width: [px]
            height: [px]
            view_scale: Size at which the view is drawn before it is enlarged; smaller is faster.
        """
        view_size = (max(_MIN_VIEW_PX, round(width * view_scale)), max(_MIN_VIEW_PX, round(height * view_scale)))
        view = self.game.render_chase(*view_size)
        picture = view if view_size == (width, height) else _resized(view, width, height)
        if self._panel is None:
            self._panel = overlay.below(
                _observed(self.observation, self.game), overlay.text_block(self._lines(), PANEL_WIDTH)
            )
        overlay.inset(picture, _fitting(self._panel, width, height))
        return picture

    def _capture(self, now: float) -> None:
        fields, reward, terminated, _ = self._interface.get_obs_rew_terminated_info()
        step_s = self._config.time_step_duration
        self._capture_at_s = max(self._capture_at_s + step_s, now)
        self.reward = reward
        if not (self.has_finished or self.would_have_ended):
            self.episode_return += reward
        statistics = self._interface.episode_statistics()
        if statistics["finished"] and not self.has_finished:
            self._finish(statistics["lap_time_s"])
        elif terminated:
            self.would_have_ended = True
        self._take(fields)

    def _finish(self, lap_time_s: float) -> None:
        self.has_finished = True
        self.num_laps += 1
        self.last_lap_s = lap_time_s
        self.best_lap_s = lap_time_s if math.isnan(self.best_lap_s) else min(self.best_lap_s, lap_time_s)

    def _take(self, fields: list[np.ndarray]) -> None:
        names = [field.name for field in self._interface.observation_spec.fields]
        self.observation = dict(zip(names, fields, strict=True))
        self._panel = None

    def _lines(self) -> list[tuple[str, tuple[int, int, int]]]:
        telemetry, _ = self.game.telemetry()
        progress = self._interface.episode_statistics()["progress"]
        lines = [
            (f"{telemetry.speed:.1f} m/s   gear {telemetry.gear:.0f}   {telemetry.rpm:.0f} rpm", overlay.TEXT_COLOUR),
            (f"reward {self.reward:+.3f}   return {self.episode_return:+.2f}", overlay.TEXT_COLOUR),
            (f"progress {progress:.1%}", overlay.TEXT_COLOUR),
        ]
        if self.has_finished:
            lines.append((f"finished in {self.last_lap_s:.3f} s", overlay.GOOD_COLOUR))
        elif self.would_have_ended:
            lines.append(("training would have ended this episode", overlay.BAD_COLOUR))
        if self.num_laps:
            lines.append((f"best of {self.num_laps}: {self.best_lap_s:.3f} s", overlay.TEXT_COLOUR))
        if self.recorder is not None:
            lines.append((_recording_line(self.recorder), overlay.BAD_COLOUR))
        lines.append((HINTS, overlay.DIM_COLOUR))
        return lines


def _observed(observation: Mapping[str, np.ndarray], game: SimulatedGame) -> Picture:
    """What the network sees: its pictures, or its beams over the window."""
    rows = []
    if "lidar" in observation:
        drawn = overlay.beams_over(overlay.rgb(game.frame()), observation["lidar"])
        rows.append(overlay.resized(drawn, PANEL_WIDTH))
    rows += [
        overlay.history_row(value, PANEL_WIDTH)
        for value in observation.values()
        if value.dtype == np.uint8 and value.ndim >= 3
    ]
    return overlay.below(*rows) if rows else np.zeros((1, PANEL_WIDTH, 3), np.uint8)


def _resized(picture: Picture, width: int, height: int) -> Picture:
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _fitting(panel: Picture, width: int, height: int) -> Picture:
    """The panel, at most two fifths as wide and nine tenths as high as the picture."""
    scale = min(1.0, 0.4 * width / panel.shape[1], 0.9 * height / panel.shape[0])
    return panel if scale == 1.0 else overlay.resized(panel, round(scale * panel.shape[1]))


def _recording_line(recorder: Recorder) -> str:
    if recorder.state is RecordingState.recording:
        return f"REC {recorder.length_m:.0f} m"
    return f"REC {recorder.state.name}"
