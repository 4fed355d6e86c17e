"""A small disk that can be filled: a tmpfs. Needs root."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Self

from tests.faults.permission import need_root, refuse

MEGABYTE = 1024 * 1024


class SmallDisk:
    """A separate file system, as a context manager; skips the test where it cannot be mounted.

    Args:
        folder: Where; made if it does not exist.
        megabytes: Its size.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._megabytes = megabytes
        self._ballast = folder / "ballast"

    def fill(self, megabytes: int) -> None:
        """Writes a file of this size."""
        self._ballast.write_bytes(bytes(megabytes * MEGABYTE))

    def fill_up(self) -> None:
        """Fills the remaining space."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        """Removes what ``fill`` and ``fill_up`` wrote."""
        self._ballast.unlink()

    def __enter__(self) -> Self:
        need_root("a small tmpfs")
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m", "tmpfs", str(self.folder)]
        mounted = subprocess.run(command, check=False, capture_output=True, text=True)
        if mounted.returncode:
            refuse(f"a tmpfs cannot be mounted: {mounted.stderr.strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        # Lazily: a killed process may not have closed its files yet.
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True, capture_output=True)
