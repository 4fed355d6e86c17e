"""How long a picture of the game takes: find the window, copy the pixels, make the observed image.

    python -m benchmarks.screen_capture [--display :1] [--grabs 1000]

The stand-in game draws 60 frames a second in a separate process. Without --display, an Xvfb is started for
the time of the measurement (apt install xvfb).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from tasks.live.screen import ScreenCapture, observed_image
from tasks.live.window.finder import open_window

SIZES = ((958, 488), (256, 128))
RATE_HZ = 200.0
"""Grabs are spread out, so that they meet the game in every phase of its frame."""


def main() -> None:
    """Measures each size and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--display", help="X display to measure on; default: an Xvfb of its own")
    parser.add_argument("--grabs", type=int, default=1000, help="grabs per size")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        display = arguments.display or stack.enter_context(x_server())
        print(f"{'what':32} {'mean ms':>8} {'p50':>8} {'p99':>8} {'max':>8}   load {os.getloadavg()[0]:.1f}")
        for size in SIZES:
            with stand_in(display, size):
                measure(display, size, arguments.grabs)


def measure(display: str, size: tuple[int, int], grabs: int) -> None:
    """Prints how long grabs of the stand-in's window take."""
    name = f"{size[0]}x{size[1]}"
    with contextlib.closing(open_window("Trackmania", display)) as window:
        window.place(0, 0, *size)
        with ScreenCapture(window, *size, display=display) as capture:
            frame = capture.grab()
            report(f"{name} look the window up", window.geometry, grabs)
            report(f"{name} grab", capture.grab, grabs)
            report(f"{name} grab + 64x64 grey", lambda: observed_image(capture.grab(), 64, 64, True), grabs)
            report(f"{name} 64x64 grey alone", lambda: observed_image(frame, 64, 64, True), grabs)


def report(name: str, work: Callable[[], object], count: int) -> None:
    """Prints the durations of ``count`` calls at ``RATE_HZ``."""
    durations = np.empty(count)
    for index in range(count):
        started = time.perf_counter()
        work()
        durations[index] = 1e3 * (time.perf_counter() - started)
        time.sleep(max(0.0, 1.0 / RATE_HZ - 1e-3 * durations[index]))
    p50, p99 = np.percentile(durations, (50, 99))
    print(f"{name:32} {durations.mean():8.3f} {p50:8.3f} {p99:8.3f} {durations.max():8.3f}")


@contextlib.contextmanager
def stand_in(display: str, size: tuple[int, int]) -> Iterator[None]:
    """A running stand-in game; ends with its standard input."""
    command = [sys.executable, "-m", "tasks.stand_in", "--end-with-stdin", "--display", display]
    command += ["--size", f"{size[0]}x{size[1]}", "--port", "0", "--ghost-port", "0", "--pad-port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit("the stand-in game did not start")
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(20)


@contextlib.contextmanager
def x_server() -> Iterator[str]:
    """An Xvfb that picks its own number; yields its name."""
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "1280x800x24", "-nolisten", "tcp"]
    try:
        server = subprocess.Popen(command, pass_fds=(write_end,), stderr=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise SystemExit("Xvfb is not installed: sudo apt install xvfb, or give --display") from error
    finally:
        os.close(write_end)
    try:
        with os.fdopen(read_end) as number:
            yield f":{number.readline().strip()}"
    finally:
        server.terminate()
        server.wait(10)


if __name__ == "__main__":
    main()
