"""The disk outbox of a remote worker: segments that the learner has not stored yet.

The station of a remote worker owns it. It numbers the segments, goes on numbering after a restart, and forgets only
what the learner calls durable. A process that is killed, or a machine that loses its power, loses no segment that
``append`` returned for.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tasks.remote.config import OutboxPolicy
from tasks.remote.station.outbox_file import FILE_NAME, OutboxFile, OutboxTakenError, is_full_disk

_log = logging.getLogger(__name__)

STREAMS_PER_START = 1000
"""Every start of a worker numbers its streams from its own multiple of this, so that none is ever spliced."""

_MOST_FOLDERS = 99


class OutboxFullError(OSError):
    """Raised when there is no room and nothing may be dropped."""


class OutboxState(NamedTuple):
    """What lies in an outbox."""

    segments: int
    num_bytes: int
    last_seq: int
    dropped: int
    """Segments lost so far because there was no room."""
    taken: int
    """Number of the last segment of this session that was taken, or known to be lost."""


def open_outbox(
    folder: Path,
    capacity_bytes: int,
    policy: OutboxPolicy,
    fingerprint: str,
    session: str,
    patience_s: float = 2.0,
) -> DiskOutbox:
    """Opens ``folder``, or one beside it, ``folder-2``, ``folder-3``, ...: each worker of a machine gets its own.

    One that still holds segments of this task comes before one that is empty, so that in the end all are delivered.

    Args:
        folder: First choice; made when it does not exist.
        capacity_bytes: Of ``DiskOutbox``.
        policy: Of ``DiskOutbox``.
        fingerprint: What worker and learner must agree on; segments fit no other.
        session: Names one run of the worker: a station that is started again within it takes up the same streams.
        patience_s: How long to wait for the first choice: the process that has it may be about to end [s].

    Raises:
        OSError: No folder can be used.
    """
    empty: DiskOutbox | None = None
    for candidate in _candidates(folder):
        is_new = not (candidate / FILE_NAME).exists()
        if is_new and empty is not None:
            break
        outbox = _open_if_free(candidate, capacity_bytes, policy, fingerprint, patience_s)
        patience_s = 0.0
        if outbox is None:
            continue
        if len(outbox) or outbox.is_of(session):
            if empty is not None:
                empty.close()
            return outbox.begin(fingerprint, session)
        if empty is None:
            empty = outbox
        else:
            outbox.close()
        if is_new:
            break
    if empty is None:
        raise OutboxTakenError(f"worker.outbox: {folder} and {_MOST_FOLDERS - 1} folders beside it are all in use")
    return empty.begin(fingerprint, session)


class DiskOutbox:
    """Encoded segments in the order of their numbers; its methods may be called from any thread.

    Args:
        folder: Where the file lies; made when it does not exist.
        capacity_bytes: Size of all segments beyond which the outbox is full.
        policy: What a full outbox does.
        patience_s: How long to wait for another process that has it [s].

    Raises:
        OutboxTakenError: Another worker has the folder.
        OSError: The file cannot be written.
        ValueError: The file is of another version of this program.
    """

    def __init__(self, folder: Path, capacity_bytes: int, policy: OutboxPolicy, patience_s: float = 0.0) -> None:
        self.folder = folder
        self._capacity_bytes = capacity_bytes
        self._policy = policy
        self._lock = threading.RLock()
        self._file = OutboxFile(folder, patience_s)
        try:
            facts = self._facts = self._file.facts()
            self._sizes: dict[int, int] = dict(self._file.query("SELECT seq, size FROM segments ORDER BY seq"))
        except sqlite3.Error as error:
            self._file.close()
            raise OSError(f"worker.outbox: {folder / FILE_NAME} cannot be read: {error}") from error
        self._bytes = sum(self._sizes.values())
        self._num_marks = sum(not size for size in self._sizes.values())
        self._identity = str(facts.get("identity", ""))
        self._starts = int(facts.get("starts", 0))
        self._taken = int(facts.get("taken", 0))
        self._last_seq = int(facts.get("last_seq", 0))
        self._received = int(facts.get("received", 0))
        self._durable = 0
        self._has_warned = False
        self._is_closed = False
        self.dropped = int(facts.get("dropped", 0))

    # --- whose it is ---

    def fits(self, fingerprint: str) -> bool:
        """Whether nothing in it is of another task."""
        return not self._sizes or self._facts.get("fingerprint") == fingerprint

    def is_of(self, session: str) -> bool:
        """Whether this run of the worker has used it before."""
        return bool(self._facts.get("session") == session)

    def begin(self, fingerprint: str, session: str) -> DiskOutbox:
        """Starts or takes up a run of the worker; returns itself.

        Raises:
            OSError: That cannot be noted.
        """
        if not self.is_of(session):
            self._starts, self._taken = self._starts + 1, 0
        self._recognise()
        facts: dict[str, Any] = {"fingerprint": fingerprint, "session": session, "identity": self._identity}
        facts |= {"starts": self._starts, "taken": self._taken, "file": self._file.number()}
        try:
            with self._file.transaction():
                self._file.set_facts(**facts)
        except sqlite3.Error as error:
            self.close()
            raise OSError(f"worker.outbox: {self.folder / FILE_NAME} cannot be written: {error}") from error
        return self

    @property
    def identity(self) -> str:
        """Eight hexadecimal digits that belong to this file only: sequence numbers are numbers of this identity."""
        return self._identity

    @property
    def first_stream(self) -> int:
        """Number of the first stream of this start of the worker."""
        return self._starts * STREAMS_PER_START

    def _recognise(self) -> None:
        """A new file gets an identity, and so does a copy: two never go by the same."""
        if self._identity and self._facts["file"] != self._file.number():
            _log.warning(
                "%s was copied from elsewhere; it goes on under a name of its own, and what it holds (%d segments) "
                "may arrive twice if the original delivers it, too",
                self.folder,
                len(self),
            )
            self._identity = ""
        self._identity = self._identity or secrets.token_hex(4)

    # --- in ---

    def append(self, number: int, encode: Callable[[int, int], bytes]) -> bool:
        """Keeps a segment durably.

        Args:
            number: 1, 2, 3, ... within the session; a number that is left out is a segment that was lost on the way.
            encode: Makes the message, given its sequence number and how many were dropped before it.

        Returns:
            False when it was not kept: taken before, or dropped and counted because there is no room.

        Raises:
            OutboxFullError: There is no room, and the policy is to pause.
            ValueError: The segment is larger than the whole outbox may be.
        """
        with self._lock:
            lost = number - self._taken - 1
            if lost < 0:
                return False
            seq, dropped = self._last_seq + lost + 1, self.dropped + lost
            message = encode(seq, dropped)
            self._require_capacity(message)
            try:
                victims = self._victims(len(message))
                unreceived = sum(victim > self._received for victim in victims)
                if unreceived:
                    message = encode(seq, dropped + unreceived)
                self._insert(number, seq, dropped + unreceived, message, victims)
            except OutboxFullError as error:
                return self._give_up(number, seq, dropped, str(error))
            except sqlite3.Error as error:
                if not is_full_disk(error):
                    raise
                return self._give_up(number, seq, dropped, f"{self.folder}: {error}")
            self._has_warned = False
            return True

    def _require_capacity(self, message: bytes) -> None:
        if len(message) > self._capacity_bytes:
            raise ValueError(
                f"worker.outbox_mb must hold at least one segment ({len(message) / 1e6:.1f} MB), got "
                f"{self._capacity_bytes / 1e6:g} MB"
            )

    def _victims(self, size: int) -> list[int]:
        """Numbers of what has to go so that a message of this size fits.

        Raises:
            OutboxFullError: It does not fit, whatever may go.
        """
        above_cap = self._bytes + size - self._capacity_bytes
        missing = max(above_cap, self._file.lacks(size))
        victims = []
        for seq, held in self._sizes.items():
            if missing <= 0:
                break
            if held:
                victims.append(seq)
                missing -= held
        if missing > 0 or (victims and self._policy is OutboxPolicy.pause):
            reason = f"{self._capacity_bytes / 1e6:g} MB are reached" if above_cap > 0 else "the disk is full"
            raise OutboxFullError(f"{self.folder}: {reason}")
        return victims

    def _insert(self, number: int, seq: int, dropped: int, message: bytes, victims: list[int]) -> None:
        with self._file.transaction() as run:
            for victim in victims:
                if victim > self._received:
                    run("DELETE FROM segments WHERE seq = ?", (victim,))
                else:
                    # The learner has it in memory. A mark stays, until it is known whether it kept it.
                    run("UPDATE segments SET size = 0, message = NULL WHERE seq = ?", (victim,))
            run("INSERT INTO segments VALUES (?, ?, ?)", (seq, len(message), message))
            self._file.set_facts(last_seq=seq, dropped=dropped, taken=number, received=self._received)
        for victim in victims:
            if victim > self._received:
                self._forget(victim)
            else:
                self._bytes -= self._sizes[victim]
                self._sizes[victim] = 0
                self._num_marks += 1
        self._sizes[seq] = len(message)
        self._bytes += len(message)
        self._last_seq, self.dropped, self._taken = seq, dropped, number

    def _give_up(self, number: int, seq: int, dropped: int, reason: str) -> bool:
        """Counts the newest as dropped; or, with the policy to pause, leaves it to who holds it."""
        if not self._has_warned:
            self._has_warned = True
            _log.error("nothing can be added to the outbox %s", reason)
        if self._policy is OutboxPolicy.pause:
            raise OutboxFullError(reason)
        # The number is left out: that is how the learner knows that something is missing here. The file learns of it
        # with the next segment; a number that is used again because of a crash was never sent.
        self._last_seq, self.dropped, self._taken = seq, dropped + 1, number
        return False

    # --- out ---

    def __len__(self) -> int:
        """Segments that are kept."""
        with self._lock:
            return len(self._sizes) - self._num_marks

    def state(self) -> OutboxState:
        """What lies here."""
        with self._lock:
            return OutboxState(len(self), self._bytes, self._last_seq, self.dropped, self._taken)

    def after(self, seq: int) -> tuple[int, bytes] | None:
        """Number and message of the first segment behind ``seq``, if there is one."""
        with self._lock:
            # What is durable may still lie in the file when the disk was too full to delete it.
            rows = self._file.query(
                "SELECT seq, message FROM segments WHERE seq > ? AND message IS NOT NULL ORDER BY seq LIMIT 1",
                (max(seq, self._durable),),
            )
        return rows[0] if rows else None

    def resume(self, received: int) -> None:
        """Notes what the learner has at the beginning of a stream; it may be less than before, after a crash.

        Args:
            received: Sequence number up to which the learner has everything that was sent.
        """
        with self._lock:
            if received > self._last_seq:
                _log.warning(
                    "the learner has segments up to %d of %s, the outbox only up to %d: was an old copy of %s put "
                    "back? What is there up to that number counts as delivered",
                    received,
                    self._identity,
                    self._last_seq,
                    self.folder,
                )
            lost = [seq for seq, size in self._sizes.items() if not size and seq > received]
            for seq in lost:
                self._forget(seq)
            self.dropped += len(lost)
            self._received = received
            self._last_seq = max(self._last_seq, received)
            self._tidy("DELETE FROM segments WHERE size = 0 AND seq > ?", received)

    def acknowledge(self, received: int, durable: int) -> bool:
        """Notes what the learner has received and forgets what it has stored; whether that was anything."""
        with self._lock:
            self._received = received
            if durable <= self._durable:
                return False
            self._durable = durable
            stored = list(itertools.takewhile(lambda seq: seq <= durable, self._sizes))
            for seq in stored:
                self._forget(seq)
            if stored:
                self._tidy("DELETE FROM segments WHERE seq <= ?", durable)
            return bool(stored)

    def _forget(self, seq: int) -> None:
        size = self._sizes.pop(seq)
        self._bytes -= size
        self._num_marks -= not size

    def _tidy(self, statement: str, seq: int) -> None:
        """Brings the file up to what is known here; a full disk may prevent that until the next time."""
        try:
            with self._file.transaction() as run:
                run(statement, (seq,))
                self._file.set_facts(last_seq=self._last_seq, dropped=self.dropped, received=self._received)
        except sqlite3.Error as error:
            if not is_full_disk(error):
                raise
            _log.debug("the outbox could not be cleaned up: %s", error)

    # --- end ---

    def close(self) -> None:
        """Closes the file and gives the folder up. Calling it twice is fine."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._file.close(shrink=not self._sizes)

    def __enter__(self) -> DiskOutbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _candidates(folder: Path) -> Iterator[Path]:
    yield folder
    for number in range(2, _MOST_FOLDERS + 1):
        yield folder.with_name(f"{folder.name}-{number}")


def _open_if_free(
    folder: Path, capacity_bytes: int, policy: OutboxPolicy, fingerprint: str, patience_s: float
) -> DiskOutbox | None:
    try:
        outbox = DiskOutbox(folder, capacity_bytes, policy, patience_s)
    except OutboxTakenError as error:
        _log.info("%s", error)
        return None
    if outbox.fits(fingerprint):
        return outbox
    _log.warning("%s holds %d segments of another task; a worker with that task delivers them", folder, len(outbox))
    outbox.close()
    return None
