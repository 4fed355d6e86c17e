"""The stand-in game for tests: a separate process on the test's X display, controlled through its console.

with StandIn(display, size="256x128") as game:
    game.fault("nan", seconds=2)
    assert game.state()["restarts"] == 0
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Self

import numpy as np

from tasks.sim.game import CarState
from tasks.stand_in.pad_port import BUTTON_A, BUTTON_B, RECORD

ROOT = Path(__file__).resolve().parents[3]
START_TIMEOUT_S = 90.0
"""The first start on a machine compiles the simulator."""
ANSWER_TIMEOUT_S = 20.0


class StandIn:
    """A running stand-in game; ends with the test, also when the test's process dies."""

    def __init__(
        self,
        display: str,
        *arguments: str,
        track: str = "short",
        size: str = "256x128",
        title: str = "Trackmania",
        port: int = 0,
        ghost_port: int = 0,
    ) -> None:
        """Starts the game and waits until it plays.

        Args:
            display: X display, such as ``:77``.
            arguments: Further arguments, such as ``"--fault", "silence"``.
            track: The track.
            size: Size of its window [px].
            title: Title of its window.
            port: Port of the telemetry; 0: a free one.
            ghost_port: Port of the ghost saver; 0: a free one.

        Raises:
            RuntimeError: It does not start; the message has its output.
        """
        command = [sys.executable, "-m", "tasks.stand_in", "--end-with-stdin", "--display", display]
        command += ["--track", track, "--size", size, "--title", title, "--port", str(port)]
        command += ["--ghost-port", str(ghost_port), "--pad-port", "0", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._complaints: deque[str] = deque(maxlen=50)
        self._answers: queue.Queue[str] = queue.Queue()
        self._lock = threading.Lock()
        self._readers = [
            threading.Thread(target=self._listen, args=(self._process.stdout, self._answers.put), daemon=True),
            threading.Thread(target=self._listen, args=(self._process.stderr, self._complaints.append), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.display, self.title = display, title
        try:
            ready = self._next_answer(START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise
        self.port: int = ready["port"]
        self.ghost_port: int = ready["ghost_port"]
        self.pad_port: int = ready["pad_port"]
        self.window: int = ready["window"]
        """Number of the X window; ``state()["window"]`` after it was closed and opened again."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Exit status of its process; None while it runs."""
        return self._process.poll()

    def fault(self, name: str, seconds: float | None = None, **particulars: Any) -> dict[str, Any]:
        """Starts a fault (``tasks.stand_in.faults``); returns the state."""
        request = {"fault": name, **particulars}
        return self.ask(request if seconds is None else {**request, "seconds": seconds})

    def clear(self, name: str = "all") -> dict[str, Any]:
        """Ends a fault, or all; returns the state."""
        return self.ask({"clear": name})

    def state(self) -> dict[str, Any]:
        """State of the game: car, controls, keys, counters; see ``StandInGame._state``. Takes up to a frame."""
        return self.ask({"ask": "state"})

    def car(self) -> CarState:
        """The car, as the scripted driver wants it."""
        car = self.state()["car"]
        return CarState(**{**car, "finish_time_s": math.nan if car["finish_time_s"] is None else car["finish_time_s"]})

    def quit(self) -> int:
        """Closes its console, so that it ends by itself; returns its exit status."""
        with self._lock, contextlib.suppress(OSError):
            self._write({"fault": "quit"})
        return self._process.wait(ANSWER_TIMEOUT_S)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a line to its console and returns the answer.

        Raises:
            ValueError: It refused the line.
            RuntimeError: It has ended, or does not answer.
        """
        with self._lock:
            self._write(request)
            answer = self._next_answer(ANSWER_TIMEOUT_S + (request.get("seconds") or 0.0))
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the game. Calling it twice is fine."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10.0)
        for reader in self._readers:
            reader.join(10.0)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise RuntimeError(f"the stand-in game has ended: {self._said()}") from error

    def _next_answer(self, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                answer: dict[str, Any] = json.loads(self._answers.get(timeout=0.2))
                return answer
            except queue.Empty:
                if not self.is_running and self._answers.empty():
                    raise RuntimeError(f"the stand-in game has ended: {self._said()}") from None
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the stand-in game does not answer: {self._said()}") from None

    def _said(self) -> str:
        return f"exit status {self._process.poll()}, it said: {''.join(self._complaints) or 'nothing'}"

    @staticmethod
    def _listen(pipe: Any, put: Any) -> None:
        for line in pipe:
            put(line)


class PadControls:
    """A ``ControlSink`` over the stand-in's pad port: analog controls without a virtual gamepad."""

    def __init__(self, port: int) -> None:
        self._socket: socket.socket | None = socket.create_connection(("127.0.0.1", port), timeout=5.0)
        self._axes = (0.0, 0.0, 0.0)

    def send(self, control: np.ndarray | None) -> None:
        if control is not None:
            gas, brake, steer = (float(value) for value in control)
            self._axes = (max(gas, 0.0), max(brake, 0.0), steer)
            self._write(0)

    def restart(self) -> None:
        self._press(BUTTON_B)

    def close_popup(self) -> None:
        self._press(BUTTON_A)

    def release(self) -> None:
        self._axes = (0.0, 0.0, 0.0)
        self._write(0)

    def close(self) -> None:
        if self._socket is not None:
            self.release()
            self._socket.close()
            self._socket = None

    def _press(self, button: int) -> None:
        self._axes = (0.0, 0.0, 0.0)
        self._write(button)
        time.sleep(0.1)
        self._write(0)

    def _write(self, buttons: int) -> None:
        assert self._socket is not None, "closed"
        self._socket.sendall(RECORD.pack(*self._axes, buttons))
