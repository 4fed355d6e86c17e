"""``train.py`` as a process on one of the machines: with its own folder and log, ended as by Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from benchmarks.two_machines.network import ROOT

ENDS_WITHIN_S = 20.0
"""Time that a program has to end after Ctrl-C; then it is killed."""

_TAIL_BYTES = 3_000


class ProgramError(RuntimeError):
    """Raised when a program ends unexpectedly or with an error."""


class Program:
    """One ``train.py``, from the start to the end of the ``with``.

    Args:
        name: Of its log.
        words: Its command line.
        folder: Its working directory.
        prefix: Command that starts it, such as one that enters a network namespace.
    """

    def __init__(self, name: str, words: Sequence[str], folder: Path, prefix: Sequence[str] = ()) -> None:
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, str(ROOT / "train.py"), *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # This terminal's Ctrl-C must not reach it: only the benchmark handles that.
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        """Whether it is running."""
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> None:
        """Waits for its end.

        Raises:
            ProgramError: It does not end, or ends with an error.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ProgramError(f"{self.name} did not end within {timeout_s:.0f} s:\n{self.tail()}") from None
        if code:
            raise ProgramError(f"{self.name} ended with exit code {code}:\n{self.tail()}")

    def require_running(self) -> None:
        """Raises a ``ProgramError`` if it has ended."""
        if not self.is_running:
            raise ProgramError(f"{self.name} ended with exit code {self._process.returncode}:\n{self.tail()}")

    def interrupt(self) -> None:
        """Sends Ctrl-C and waits for its end.

        Raises:
            ProgramError: It does not end, or ends with an error.
        """
        if self.is_running:
            self._process.send_signal(signal.SIGINT)
        self.wait(ENDS_WITHIN_S)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")

    def close(self) -> None:
        """Ends it for good."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
