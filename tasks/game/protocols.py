"""The protocols of a game: telemetry, pictures and controls. The live game and the simulator implement them."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np


class Telemetry(NamedTuple):
    """Where the car is and how it moves, in the order of our plugin's record of little-endian float32."""

    speed: float
    """[m/s]"""
    distance: float
    """Driven since the start [m]."""
    x: float
    """[m]"""
    y: float
    """Up [m]."""
    z: float
    """[m]"""
    steer: float
    """-1 to 1, positive to the right."""
    gas: float
    """0 to 1."""
    is_braking: float
    """0 or 1."""
    finished: float
    """1 while the finish screen shows, else 0."""
    gear: float
    rpm: float
    velocity_x: float = math.nan
    """[m/s]; NaN, like all that follows, where the record lacks it."""
    velocity_z: float = math.nan
    """[m/s]"""
    yaw: float = math.nan
    """Heading [rad], 0 along +z, growing towards +x."""

    @property
    def is_finite(self) -> bool:
        """Whether everything is that a record cannot lack."""
        return all(map(math.isfinite, self[: -len(self._field_defaults)]))

    def mirrored(self) -> Telemetry:
        """From the game's frame, whose x points to the left of z, to ours, or back."""
        return self._replace(x=-self.x, velocity_x=-self.velocity_x, yaw=-self.yaw)


class Game(Protocol):
    """A car on a track, at some moment of the clock it was built with. Reading is never blocking for long."""

    def telemetry(self) -> tuple[Telemetry, float]:
        """Newest record, with x to the right of z, and its age [s]."""
        ...

    def frame(self) -> np.ndarray:
        """Newest picture of the window, uint8 BGRA, shape (window_height, window_width, 4)."""
        ...

    def image(self) -> np.ndarray:
        """The observed picture, uint8, shape (img_height, img_width), or (img_height, img_width, 3) RGB.

        Equal to cv2.resize of the BGRA frame (bilinear), then grey.
        """
        ...

    def lidar(self) -> np.ndarray:
        """TMRL's 19-beam LIDAR of the newest picture, float32, shape (19,), unit: pixels along the beam."""
        ...

    def apply(self, control: np.ndarray | None) -> None:
        """Sends [gas, brake, steer], each in [-1, 1]; None touches nothing."""
        ...

    def restart(self, seed: int | None, from_start: bool = False) -> None:
        """Puts the car back to the start. A simulator draws the episode's randomness from ``seed``.

        Args:
            seed: Of the episode.
            from_start: Whether an episode that would begin on the way begins at the start all the same.
        """
        ...

    def rest(self, save_replay: bool) -> None:
        """Between episodes: releases the controls; the live game saves a ghost, leaves the finish screen, restarts.

        Args:
            save_replay: Whether the live game shall save a ghost of the run; when it cannot, that is a warning.
        """
        ...

    def episode_facts(self) -> GameFacts:
        """What only a simulator can know; NaN or 0 where it is not known."""
        ...

    def close(self) -> None:
        """Releases all controls and resources. Calling it twice is fine."""
        ...


class GameFacts(NamedTuple):
    """Facts since the last restart that telemetry does not carry."""

    finish_time_s: float
    """Race time at which the finish line was crossed, interpolated within the tick [s]; NaN before."""
    wall_contacts: int
    """Number of separate contacts with a wall."""
    wall_impact_mps: float
    """Summed speed lost into walls [m/s]."""
    yaw: float
    """Heading [rad]; NaN when unknown."""
    started_at_m: float = 0.0
    """How far along the road the episode began [m]; 0: at the start."""


class TelemetrySource(Protocol):
    """Where records of the live game come from."""

    def newest(self) -> tuple[Telemetry, float]:
        """Newest record, as the game sends it, and its age [s], at once.

        Raises:
            TelemetryError: There is none, or the newest is too old or not plausible.
        """
        ...

    def wait_newer(self, timeout_s: float) -> tuple[Telemetry, float]:
        """Like ``newest``, but a record that arrives after this call; waits at most ``timeout_s``."""
        ...

    def close(self) -> None:
        """Ends the connection and its thread. Calling it twice is fine."""
        ...


class FrameSource(Protocol):
    """Where pictures of the live game come from."""

    def grab(self) -> np.ndarray:
        """The client area of the window now, uint8 BGRA, contiguous, shape (window_height, window_width, 4).

        Raises:
            WindowError: The window is minimised or closed, or has another size and keeps it.
        """
        ...

    def close(self) -> None:
        """Ends capturing. Calling it twice is fine."""
        ...


class ControlSink(Protocol):
    """How the live game is controlled. Everything is released on close, on an exception and when the program ends."""

    def send(self, control: np.ndarray | None) -> None:
        """Sends [gas, brake, steer], each in [-1, 1]; None touches nothing."""
        ...

    def restart(self) -> None:
        """Presses and releases the button that puts the car back to the start; takes about 0.1 s."""
        ...

    def close_popup(self) -> None:
        """Presses and releases what leaves the finish screen; takes about 0.1 s."""
        ...

    def release(self) -> None:
        """Releases everything: neutral pad, no key held."""
        ...

    def close(self) -> None:
        """Releases everything and the device. Calling it twice is fine."""
        ...
