"""The SQLite file of an outbox: opened by one process only, written durably, and usable on a disk that is full.

``outbox`` decides what is kept; here is how.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

FILE_NAME = "outbox.sqlite3"

_SCHEMA_VERSION = 1
_CREATE = (
    "CREATE TABLE IF NOT EXISTS segments (seq INTEGER PRIMARY KEY, size INTEGER NOT NULL, message BLOB)",
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
)
_PRAGMAS = (
    "locking_mode = EXCLUSIVE",  # before the first use of the log: no other process gets in, no memory is shared
    "journal_mode = WAL",
    "synchronous = FULL",  # a transaction that is done survives a loss of power
    "secure_delete = OFF",  # Debian has it on: deleting would write, for which a full disk has no room
)
_LOW_SPACE_BYTES = 64 << 20
"""With less free space the log is emptied after every change: where there is none left it could not be."""
_RESERVED_BYTES = 1 << 20


class OutboxTakenError(OSError):
    """Raised when a folder cannot be used now: another worker has it, or it holds segments of another task."""


class OutboxFile:
    """An open file; the methods must not be called by two threads at once.

    Args:
        folder: Where it lies; made when it does not exist. A file that cannot be read is put aside.
        patience_s: How long to wait for another process that has it [s].

    Raises:
        OutboxTakenError: Another process has it.
        OSError: It cannot be written.
        ValueError: It is of another version of this program.
    """

    def __init__(self, folder: Path, patience_s: float) -> None:
        self.folder = folder
        self._path = folder / FILE_NAME
        folder.mkdir(parents=True, exist_ok=True)
        self._db = self._open(patience_s)

    # --- reading ---

    def query(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows."""
        return self._db.execute(statement, values).fetchall()

    def facts(self) -> dict[str, Any]:
        """What was noted with ``set_facts``."""
        return dict(self.query("SELECT name, value FROM facts"))

    def number(self) -> int:
        """What the file system knows this file by: a copy has another one, also after it was moved."""
        return self._path.stat().st_ino & (2**63 - 1)  # SQLite's integers are signed

    def lacks(self, size: int) -> int:
        """Bytes that have to be deleted from the file before so many fit on the disk."""
        if shutil.disk_usage(self.folder).free >= _RESERVED_BYTES + 3 * size:
            return 0
        # What is added goes to the log first, then to the file; there it must find room that it has already.
        ((unused,),) = self.query("SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size")
        return max(size + _RESERVED_BYTES // 16 - unused, 0)

    # --- writing ---

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Callable[..., Any]]:
        """All or nothing, and on the disk at the end; gives what runs a statement."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db.execute
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        finally:
            if shutil.disk_usage(self.folder).free < _LOW_SPACE_BYTES:
                with contextlib.suppress(sqlite3.Error):
                    self.query("PRAGMA wal_checkpoint(PASSIVE)")

    def set_facts(self, **facts: int | str) -> None:
        """Notes values by name, within a transaction."""
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def close(self, shrink: bool = False) -> None:
        """Closes it and lets others in. Calling it twice is fine.

        Args:
            shrink: Whether unused room is given back to the disk.
        """
        with contextlib.suppress(sqlite3.Error):
            if shrink:
                self._db.execute("VACUUM")
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    # --- opening ---

    def _open(self, patience_s: float) -> sqlite3.Connection:
        try:
            return _connect(self._path, patience_s)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname.startswith("SQLITE_BUSY"):
                raise OutboxTakenError(f"{self.folder} is in use by another worker") from error
            raise OSError(f"worker.outbox: {self._path} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            self._put_aside(error)
            return _connect(self._path, patience_s)

    def _put_aside(self, error: Exception) -> None:
        aside = self._path.with_name(f"{FILE_NAME}.broken-{secrets.token_hex(4)}")
        _log.error("%s is damaged (%s); it is kept as %s and a new one is begun", self._path, error, aside.name)
        self._path.rename(aside)
        with contextlib.suppress(FileNotFoundError):
            self._path.with_name(f"{FILE_NAME}-wal").rename(aside.with_name(f"{aside.name}-wal"))


def is_full_disk(error: sqlite3.Error) -> bool:
    """Whether this is what a full or failing disk makes of a write."""
    name = getattr(error, "sqlite_errorname", "")
    return name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR")


def _connect(path: Path, patience_s: float) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=patience_s, isolation_level=None, check_same_thread=False)
    try:
        for pragma in _PRAGMAS:
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("BEGIN IMMEDIATE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _SCHEMA_VERSION):
            raise ValueError(
                f"worker.outbox: {path} is of version {version}, this program knows {_SCHEMA_VERSION}; deliver what it "
                "holds with the version that made it, or delete it"
            )
        for statement in _CREATE:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db
