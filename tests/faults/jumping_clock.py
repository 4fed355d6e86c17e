"""Makes the time of day jump for the processes of a test only, with a small library preloaded before the C library."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

from tests.faults.permission import refuse

_SOURCE = Path(__file__).with_name("clock_jump.c")
_SECONDS = struct.Struct("@l")


class JumpingClock:
    """The time of day of processes started with its ``environment``; skips the test where it cannot be built.

    Args:
        folder: Folder for the library and the offset.
    """

    def __init__(self, folder: Path) -> None:
        if not sys.platform.startswith("linux"):
            refuse("a jumping clock needs Linux")
        self._library = folder / "clock_jump.so"
        self._offset = folder / "clock_offset"
        self._write(0)
        command = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-o", str(self._library), str(_SOURCE), "-ldl"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            refuse(f"a jumping clock needs a C compiler: {error}")
        self._check()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for a process with this clock."""
        return {"LD_PRELOAD": str(self._library), "CLOCK_OFFSET_FILE": str(self._offset)}

    def jump(self, seconds: int) -> None:
        """Sets the clock off by this much from now on."""
        self._write(seconds)

    def _write(self, seconds: int) -> None:
        # In place: the processes have this file mapped.
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:
            file.write(_SECONDS.pack(seconds))

    def _check(self) -> None:
        """Checks that a process sees the shifted time of day, and that its monotonic clock is unchanged."""
        program = (
            "import sys, time\n"
            "wall, monotonic = time.time(), time.monotonic()\n"
            "open(sys.argv[1], 'r+b').write(int(sys.argv[2]).to_bytes(8, 'little', signed=True))\n"
            "print(round(time.time() - wall), round(time.monotonic() - monotonic))\n"
        )
        command = [sys.executable, "-c", program, str(self._offset), "-7200"]
        done = subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True, timeout=60)
        self._write(0)
        if done.stdout.split() != ["-7200", "0"]:
            refuse(f"the clock could not be made to jump here: {done.stdout!r}")
