"""Files that are written whole or not at all: after a full disk or a kill the previous file is still there.

Used for all files of a run: checkpoints, configuration, results, pictures.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_file(path: Path, content: bytes | bytearray | memoryview) -> None:
    """Writes or replaces a file in one step, durably; its folder is made.

    Raises:
        OSError: It cannot be written. The message names it, and the previous file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is None:
            raise
        # Which file was meant, not which part of writing it failed.
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(folder: Path) -> None:
    """Makes new and removed names durable, where the operating system has that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
