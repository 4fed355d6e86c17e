"""X displays for tests; tests are skipped if a display, or something else that the live game needs, is missing.

Each Xvfb picks a free number and is ended by its own process id.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import NoReturn

import pytest

APT_COMMAND = "sudo apt install xvfb libevdev2"


def require_server() -> None:
    """Skips the test if no display can be started."""
    if shutil.which("Xvfb") is None:
        give_up(f"Xvfb is not installed: {APT_COMMAND}")


def give_up(reason: str) -> NoReturn:
    """Skips a test that this machine cannot run; with TM_REQUIRE_DISPLAY=1 it fails instead.

    Args:
        reason: One line with the command that helps.
    """
    if os.environ.get("TM_REQUIRE_DISPLAY") == "1":
        pytest.fail(f"TM_REQUIRE_DISPLAY=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@contextlib.contextmanager
def x_server(size: str = "1280x800x24", options: Sequence[str] = ()) -> Iterator[str]:
    """A running X server without a window manager; yields its name, such as ``:77``.

    Args:
        size: Width x height x depth of its screen.
        options: Further options of Xvfb. It always gets -noreset: else it would restart when its last client leaves,
            and refuse connections at that moment.
    """
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write_end), "-screen", "0", size, "-nolisten", "tcp", "-noreset", *options],
        pass_fds=(write_end,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    try:
        with os.fdopen(read_end) as number:
            name = number.readline().strip()
        if not name:
            raise RuntimeError(f"Xvfb ended with status {process.wait(5)} before it gave a display")
        yield f":{name}"
    finally:
        process.terminate()
        process.wait(10)
