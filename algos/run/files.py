"""Saves the configuration, the versions and the checkpoints of a training in its run folder.

Both agents save through a ``RunFiles``. A full disk ends no training: the log says what could not be written, the
previous file stays, and the next save tries again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from algos.config.errors import UsageError
from algos.run.checkpoint import Checkpoint, machine, save_checkpoint, snapshot, software_versions
from tasks.process.atomic_file import write_file
from tasks.process.write_trouble import NotSavedError, WriteTrouble, reason


class RunFiles:
    """The files of one run folder, which is made here with its parts.

    Args:
        directory: The run folder.
        full_config: Content of ``config.yaml``; empty: none is written, and no ``versions.json``.

    Raises:
        UsageError: The folders cannot be made.
    """

    def __init__(self, directory: Path, full_config: Mapping[str, object]) -> None:
        self.directory = directory
        self.nn = directory / "nn"
        self.summaries = directory / "summaries"
        self.profile = directory / "profile"
        try:
            self.nn.mkdir(parents=True, exist_ok=True)
            self.summaries.mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(f"the run folder {directory} cannot be made: {reason(error)}") from error
        self._troubles: dict[Path, WriteTrouble] = {}
        self._unwritten: dict[Path, Callable[[], object]] = {}
        self._saved_steps: int | None = None
        if full_config:
            text = yaml.safe_dump(dict(full_config), sort_keys=False, allow_unicode=True)
            path = directory / "config.yaml"
            self._write(path, lambda: write_file(path, text.encode()))
            versions = json.dumps(software_versions() | machine(), indent=2) + "\n"
            versions_path = directory / "versions.json"
            self._write(versions_path, lambda: write_file(versions_path, versions.encode()))

    @property
    def newest(self) -> Path:
        """The checkpoint from which the run is resumed."""
        return self.nn / "last.pth"

    @property
    def best(self) -> Path:
        """The checkpoint with the best evaluation."""
        return self.nn / "best.pth"

    def save_newest(self, checkpoint: Checkpoint, is_periodic: bool) -> bool:
        """Writes ``last.pth``, and a copy that stays when it is periodic; tries again what failed before.

        Returns:
            Whether it was written.
        """
        for path, write in list(self._unwritten.items()):
            if path != self.newest:
                self._write(path, write)
        if not self._write(self.newest, lambda: save_checkpoint(self.newest, checkpoint)):
            return False
        self._saved_steps = int(checkpoint.counters["env_steps"])
        if is_periodic:
            copy = self.nn / f"step_{self._saved_steps:08d}.pth"
            self._write(copy, lambda: keep_copy(self.newest, copy))
            self._unwritten.pop(copy, None)  # soon ``last.pth`` is another state
        return True

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Writes ``best.pth``; where that fails, this state is kept until it succeeds."""
        if not self._write(self.best, lambda: save_checkpoint(self.best, checkpoint)):
            kept = Checkpoint(**snapshot(vars(checkpoint)))
            self._unwritten[self.best] = lambda: save_checkpoint(self.best, kept)

    def require_saved(self) -> None:
        """At the end of a training, when nothing is tried again.

        Raises:
            NotSavedError: Something could not be written; says what, why, and what there is.
        """
        if not self._unwritten:
            return
        missing = ", ".join(f"{path} ({self._troubles[path].reason})" for path in self._unwritten)
        there = (
            f"{self.newest} is of step {self._saved_steps:,}"
            if self._saved_steps is not None
            else "nothing of this training was saved"
        )
        raise NotSavedError(f"not saved: {missing}; {there}")

    def _write(self, path: Path, write: Callable[[], object]) -> bool:
        trouble = self._troubles.setdefault(
            path, WriteTrouble(str(path), "training goes on, and the next save tries again")
        )
        try:
            write()
        except OSError as error:
            trouble.failed(error)
            self._unwritten[path] = write
            return False
        trouble.worked()
        self._unwritten.pop(path, None)
        return True


def keep_copy(path: Path, copy: Path) -> None:
    """Gives a written file a second name, as a link where the file system can.

    Raises:
        OSError: It cannot; a file that had the second name is untouched.
    """
    temporary = copy.with_name(f".{copy.name}.{os.getpid()}.tmp")
    try:
        os.link(path, temporary)
        os.replace(temporary, copy)
    except OSError:
        write_file(copy, path.read_bytes())
    finally:
        temporary.unlink(missing_ok=True)
