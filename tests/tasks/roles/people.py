"""A person who drives the stand-in game with a pad while a role looks on."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Self

from tasks.sim.track import load_track
from tests.tasks.live.live_driving import PursuitDriver
from tests.tasks.live.stand_ins import PadControls, StandIn

_PERIOD_S = 0.05
_TIMEOUT_S = 20.0


class Person:
    """Restarts and then drives lap after lap along ``short``, in a thread of its own, until ``__exit__``.

    Args:
        game: The game.
        wait_s: How long the car stands after a restart [s].
    """

    def __init__(self, game: StandIn, wait_s: float = 0.2) -> None:
        self._game = game
        self._wait_s = wait_s
        self._stop = threading.Event()
        self._pad = PadControls(game.pad_port)
        self._thread = threading.Thread(target=self._drive, daemon=True)

    def __enter__(self) -> Self:
        put_at_start(self._game, self._pad)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(30.0)
        self._pad.close()

    def _drive(self) -> None:
        while not self._stop.wait(self._wait_s):
            self._drive_lap()
            if not self._stop.is_set():
                put_at_start(self._game, self._pad)

    def _drive_lap(self) -> None:
        driver = PursuitDriver(load_track("short").centre_line, cruise_mps=28.0)
        while not self._stop.wait(_PERIOD_S):
            state = self._game.state()
            if state["shows_finish_screen"]:
                return
            car = state["car"]
            self._pad.send(driver.act({"x": car["x"], "z": car["z"], "speed_mps": car["forward_mps"]}))


def put_at_start(game: StandIn, pad: PadControls | None = None) -> None:
    """Presses restart and waits until the car stands at the start."""
    own_pad = PadControls(game.pad_port) if pad is None else None
    hands = pad or own_pad
    assert hands is not None
    with contextlib.closing(own_pad) if own_pad is not None else contextlib.nullcontext():
        end = time.monotonic() + _TIMEOUT_S
        while True:
            hands.restart()
            state = game.state()
            if state["car"]["distance_m"] < 2.0 and not state["shows_finish_screen"]:
                return
            assert time.monotonic() < end, f"the car does not go back to the start: {state}"
            hands.close_popup()
