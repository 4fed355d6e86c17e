"""The SQLite file of a relay's spool: opened for one process, checked, and written in transactions.

``spool`` owns one and knows what lies in it. What a full disk or a damaged file makes of a statement becomes one of the
errors below.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tasks.remote.access.private_files import FILE_MODE, make_folder

FILE_NAME = "spool.sqlite3"

_SCHEMA_VERSION = 1
_PAGE_BYTES = 32_768
_LOW_SPACE_BYTES = 64 << 20
"""With less free space the log is emptied after every change, so that it need not grow when there is none left."""
_SMALL_FILE_BYTES = 64 << 20
_CREATE = """
CREATE TABLE IF NOT EXISTS tasks (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, spec TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS workers (
    name TEXT PRIMARY KEY, received INTEGER NOT NULL, durable INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT, task INTEGER NOT NULL, worker TEXT NOT NULL, seq INTEGER NOT NULL,
    size INTEGER NOT NULL, crc INTEGER NOT NULL, message BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS segments_of_task ON segments (task);
CREATE INDEX IF NOT EXISTS segments_of_worker ON segments (worker, seq);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""


class SpoolTakenError(OSError):
    """Raised when another process has the spool."""


class SpoolDamagedError(OSError):
    """Raised when the file cannot be read any more; ``set_aside`` makes room for a new one."""


class NoSpaceError(OSError):
    """Raised when the disk is full or fails; what was begun is undone."""


class SpoolFile:
    """The file; not thread-safe.

    Args:
        folder: Where it lies; made when it does not exist, for its owner only.

    Raises:
        SpoolTakenError: Another process has it.
        SpoolDamagedError: It is not the file of a spool.
        OSError: It cannot be written.
        ValueError: It is of another version of this program.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_closed = False
        self._db = _open(folder)

    def read(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """All rows of a query.

        Raises:
            SpoolDamagedError: They cannot be read.
        """
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Callable[..., Any]]:
        """What is executed meanwhile is done altogether or not at all.

        Raises:
            NoSpaceError: The disk is full or fails.
            SpoolDamagedError: The file is damaged.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db.execute
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", "")
            if name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR"):
                raise NoSpaceError(str(error)) from error
            raise self._damaged(error) from error
        finally:
            if shutil.disk_usage(self._folder).free < _LOW_SPACE_BYTES:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def unused_bytes(self) -> int:
        """Room inside the file."""
        ((pages,),) = self.read("PRAGMA freelist_count")
        return int(pages) * _PAGE_BYTES

    def give_room_back(self) -> None:
        """Shrinks a large file in which nothing is left."""
        if (self._folder / FILE_NAME).stat().st_size > _SMALL_FILE_BYTES:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("VACUUM")

    def close(self) -> None:
        """Closes it and gives the folder up. Calling it twice is fine."""
        if not self._is_closed:
            self._is_closed = True
            with contextlib.suppress(sqlite3.Error):
                self._db.close()

    def _damaged(self, error: sqlite3.DatabaseError) -> OSError:
        if self._is_closed:
            return OSError(f"{self._folder}: the spool is closed")
        return SpoolDamagedError(f"{self._folder / FILE_NAME} cannot be used: {error}")


def set_aside(folder: str | Path) -> Path | None:
    """Renames a damaged file, so that a new one can be begun; the one of the time before is deleted.

    Returns:
        Its new path; None when there was none.
    """
    path = Path(folder) / FILE_NAME
    aside = path.with_name(f"{FILE_NAME}.damaged")
    for suffix in ("-wal", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(FILE_NAME + suffix).replace(aside.with_name(aside.name + suffix))
    return aside if aside.exists() else None


def _open(folder: Path) -> sqlite3.Connection:
    """Opens the file for this process alone."""
    make_folder(folder)
    path = folder / FILE_NAME
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE))
    db = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        _prepare(db, path)
    except sqlite3.DatabaseError as error:
        db.close()
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_BUSY"):
            raise SpoolTakenError(f"remote.spool: another relay uses {folder}; give each its own folder") from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise SpoolDamagedError(f"{path} cannot be used: {error}") from error
        raise OSError(f"remote.spool: {path} cannot be used: {error}") from error
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    # Exclusive before the first use of the log: no other process gets in, and no memory is shared. NORMAL: when the
    # power fails the newest segments may be gone, which their workers still hold.
    pragmas = (
        f"page_size = {_PAGE_BYTES}",
        "locking_mode = EXCLUSIVE",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "wal_autocheckpoint = 256",  # 8 MB
    )
    for pragma in pragmas:
        db.execute(f"PRAGMA {pragma}").fetchall()
    db.execute("BEGIN IMMEDIATE")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in (0, _SCHEMA_VERSION):
        raise ValueError(
            f"remote.spool: {path} is of version {version}, this program knows {_SCHEMA_VERSION}; deliver what it "
            "holds with the version that made it, or delete it: workers still hold what was not delivered"
        )
    for statement in filter(str.strip, _CREATE.split(";")):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    db.execute("COMMIT")
