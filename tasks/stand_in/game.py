"""The stand-in game: its loop, one turn per frame, and the effects of faults. ``__main__`` runs it.

Each frame reads the player's input, which drives the car from then on, sends the record of the current car, and shows
the picture of the previous frame, as a game does that renders one frame ahead of the screen.
"""

from __future__ import annotations

import gc
import json
import math
import time
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tasks.game.clock import Clock, WallClock
from tasks.game.protocols import Telemetry
from tasks.sim.camera import FRONT_LENS, draw_window
from tasks.sim.game import CarState
from tasks.sim.random_tracks import any_track
from tasks.stand_in.console import Console
from tasks.stand_in.faults import MOMENTARY, Fault, FaultBoard, FaultRequest, request_from_dict
from tasks.stand_in.frame_pace import FramePace
from tasks.stand_in.ghost_port import GhostPort
from tasks.stand_in.inputs import Inputs
from tasks.stand_in.options import Options
from tasks.stand_in.pad_port import PadPort
from tasks.stand_in.race import Race
from tasks.stand_in.telemetry_server import TelemetryServer
from tasks.stand_in.window import StandInWindow, draw_finish_screen

_BLACK_BGRA = (0, 0, 0, 255)


class StandInGame:
    """Everything there is: window, car, ports, console."""

    def __init__(self, options: Options, console: Console, clock: Clock | None = None) -> None:
        """Opens the ports and the window. pygame's display and joysticks must be initialised.

        Args:
            options: The game.
            console: Where requests come from and answers go.
            clock: Real time when None.

        Raises:
            OSError: A port is in use.
            ValueError: There is no such track.
        """
        self._options = options
        self._console = console
        self._clock = clock or WallClock()
        self._race = Race(any_track(options.track, is_in_game=True), self._clock, options.vehicle)
        self._telemetry = TelemetryServer(options.port, options.num_floats)
        self._ghosts = GhostPort(options.ghost_port)
        self._pad = PadPort(options.pad_port) if options.pad_port is not None else None
        self._inputs = Inputs(self._pad)
        self._window = StandInWindow(options.title, (options.width, options.height), (options.left, options.top))
        self._faults = FaultBoard()
        self._pose = _pose(self._race.state)
        self._num_popups_closed = 0
        self._runs = True
        self._warm_up()
        self._pace = FramePace(self._clock, options.fps)

    def run(self) -> None:
        """Plays until it is ended; says on the console when it is ready."""
        for request in self._options.faults:
            self._begin(request)
        self._console.say(self._ready())
        while self._runs:
            self._obey()
            self._play()
            self._show()
            slow = self._faults.get(Fault.slow)
            self._pace.wait(slow.fps if slow is not None else None)

    def close(self) -> None:
        """Closes ports and window. Calling it twice is fine."""
        self._telemetry.close()
        self._ghosts.close()
        if self._pad is not None:
            self._pad.close()
        self._window.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _warm_up(self) -> None:
        """Compiles the physics and the pictures, which takes seconds the first time, before anyone waits for them."""
        self._race.step(self._race.controls)
        self._show()
        gc.collect()
        gc.freeze()

    def _ready(self) -> dict[str, Any]:
        """What others need to know to play."""
        return {
            "port": self._telemetry.port,
            "ghost_port": self._ghosts.port,
            "pad_port": None if self._pad is None else self._pad.port,
            "window": self._window.handle,
            "title": self._options.title,
            "track": self._race.track.name,
        }

    def _obey(self) -> None:
        """Ends faults whose time is over and follows the console."""
        for fault in self._faults.expire(self._clock.now()):
            self._end(fault)
        for line in self._console.lines():
            try:
                self._console.say(self._answer(json.loads(line)))
            except (ValueError, TypeError, OSError) as error:
                self._console.say({"error": str(error)})
        if self._options.ends_with_stdin and self._console.has_ended:
            self._runs = False

    def _answer(self, request: Any) -> dict[str, Any]:
        """Does what a line asks for.

        Raises:
            ValueError: It is not understood.
        """
        if not isinstance(request, dict):
            raise ValueError(f"expected a JSON object, got {request!r}")
        if "fault" in request:
            self._begin(request_from_dict(request))
        elif "clear" in request:
            self._clear(request["clear"])
        elif request != {"ask": "state"}:
            raise ValueError(f"expected fault, clear or ask, got {request!r}")
        return self._state()

    def _begin(self, request: FaultRequest) -> None:
        """Lets a fault happen, or begin; those that are not named here act where the game asks for them."""
        if request.fault not in MOMENTARY:
            self._faults.begin(request, self._clock.now())
        telemetry, window = self._telemetry, self._window
        match request.fault:
            case Fault.skip:
                telemetry.skip(request.count)
            case Fault.close:
                telemetry.close_client()
            case Fault.rst:
                telemetry.reset_client()
            case Fault.other_client:
                telemetry.occupy()
            case Fault.unload:
                telemetry.unload()
            case Fault.no_ghost:
                self._ghosts.close()
            case Fault.move:
                window.move(request.x, request.y)
            case Fault.resize:
                window.resize(request.width, request.height)
            case Fault.minimise:
                window.minimise()
            case Fault.no_window:
                window.close()
            case Fault.unfocus:
                window.lose_focus()
            case Fault.stall:
                assert request.seconds is not None
                time.sleep(request.seconds)
            case Fault.quit:
                self._runs = False

    def _clear(self, name: str) -> None:
        if name != "all" and name not in Fault.__members__:
            raise ValueError(f"clear must be 'all' or one of {sorted(Fault.__members__)}, got {name!r}")
        for fault in self._faults.clear(None if name == "all" else Fault[name]):
            self._end(fault)

    def _end(self, fault: Fault) -> None:
        """Undoes what a lasting fault did at its beginning."""
        match fault:
            case Fault.other_client:
                self._telemetry.vacate()
            case Fault.unload:
                self._telemetry.load()
            case Fault.no_ghost:
                self._ghosts.open()
            case Fault.minimise:
                self._window.restore()
            case Fault.no_window:
                self._window.open()

    def _play(self) -> None:
        """The player's turn, the car's, and the plugins'."""
        import pygame

        events = pygame.event.get()
        if any(event.type in (pygame.QUIT, pygame.WINDOWCLOSE) for event in events):
            self._runs = False
        player = self._inputs.read(events)
        if player.closes_finish_screen:
            self._num_popups_closed += self._race.close_finish_screen()
        if player.restarts:
            self._race.restart()
        self._race.step(player.controls)
        self._ghosts.serve()
        self._telemetry.serve()
        self._send()

    def _send(self) -> None:
        """Sends this frame's record, as the faults let it."""
        faults = self._faults
        self._telemetry.drain_other()
        if faults.has(Fault.silence):
            return
        split, burst = faults.get(Fault.split), faults.get(Fault.burst)
        record = _spoilt(self._race.telemetry(), faults)
        self._telemetry.publish(record, split.pieces if split else (), burst.count if burst else 1)

    def _show(self) -> None:
        """Shows the frame before this one."""
        state = self._race.state
        pose, self._pose = self._pose, _pose(state)
        if not self._window.is_open or self._faults.has(Fault.frozen):
            return
        width, height = self._window.size
        if self._faults.has(Fault.black):
            picture = np.full((height, width, 4), _BLACK_BGRA, np.uint8)
        else:
            picture = draw_window(pose, self._race.track.grids, width, height, FRONT_LENS)
            if self._race.shows_finish_screen:
                draw_finish_screen(picture, state.finish_time_s)
        self._window.show(picture)

    def _state(self) -> dict[str, Any]:
        """How the game stands, for the console."""
        race, telemetry = self._race, self._telemetry
        return {
            "car": {name: _finite(value) for name, value in race.state._asdict().items()},
            "controls": race.controls._asdict(),
            "keys": self._inputs.keys,
            "joysticks": self._inputs.num_joysticks,
            "shows_finish_screen": race.shows_finish_screen,
            "wall_contacts": race.num_wall_contacts,
            "restarts": race.num_restarts,
            "popups_closed": self._num_popups_closed,
            "ghosts": self._ghosts.num_ghosts,
            "records": telemetry.num_records,
            "clients": telemetry.num_clients,
            "has_client": telemetry.has_client,
            "window": self._window.handle,
            "size": list(self._window.size),
            "frames": self._pace.num_frames,
            "fps": self._pace.measured_fps,
            "longest_frame_s": self._pace.longest_s,
            "faults": self._faults.names(),
        }


def _pose(state: CarState) -> NDArray[np.float64]:
    """(x, z, yaw) of the car, as the camera wants it."""
    return np.array([state.x, state.z, state.yaw])


def _finite(value: float) -> float | None:
    """JSON has no NaN: null instead."""
    return value if math.isfinite(value) else None


def _spoilt(telemetry: Telemetry, faults: FaultBoard) -> Telemetry:
    """The record with what the faults make of it."""
    if faults.has(Fault.kmh):
        telemetry = telemetry._replace(speed=3.6 * telemetry.speed)
    if faults.has(Fault.nan):
        telemetry = telemetry._replace(speed=np.nan, x=np.nan, y=np.nan, z=np.nan)
    return telemetry
