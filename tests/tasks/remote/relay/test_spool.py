"""The relay's spool: what it keeps, gives out, lets go of and survives."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.remote.relay import spool as spools
from tasks.remote.relay.spool import Outcome, Position, Spool
from tasks.remote.relay.spool_file import FILE_NAME, SpoolDamagedError, SpoolTakenError, set_aside
from tests.tasks.remote.far import wait_until

pytestmark = pytest.mark.timeout(120)

TASK = ("task A", "{}")
MEGABYTE = 2**20


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool", MEGABYTE) as spool:
        spool.set_task(*TASK)
        yield spool


def put(spool: Spool, worker: str, *numbers: int, size: int = 100) -> list[Outcome]:
    epoch = spool.position(worker).epoch
    return [spool.append(worker, n, f"{worker} {n} ".encode() + bytes(size), TASK[0], epoch) for n in numbers]


def content(spool: Spool, received: dict[str, int] | None = None) -> list[tuple[str, int]]:
    """Everything that is given out, with what each message says of itself."""
    found: list[tuple[str, int]] = []
    last_id = 0
    while (entry := spool.after(last_id, lambda w, n: n <= (received or {}).get(w, 0))) is not None:
        assert entry.id > last_id
        last_id = entry.id
        worker, seq = entry.message.split(b" ")[:2]
        assert (worker.decode(), int(seq)) == (entry.worker, entry.seq)
        found.append((entry.worker, entry.seq))
    return found


def test_segments_come_out_in_the_order_of_arrival_without_those_that_are_had(spool: Spool) -> None:
    assert put(spool, "a", 1, 2) + put(spool, "b", 1) + put(spool, "a", 5) == [Outcome.kept] * 4
    assert content(spool) == [("a", 1), ("a", 2), ("b", 1), ("a", 5)]
    assert content(spool, {"a": 2, "b": 7}) == [("a", 5)]
    assert spool.position("a") == Position(5, 0, 0)
    assert spool.position("nobody") == Position(0, 0, 0)


def test_a_long_run_that_is_had_is_skipped(spool: Spool) -> None:
    put(spool, "a", *range(1, 301), size=10)
    put(spool, "b", 1)
    assert content(spool, {"a": 299}) == [("a", 300), ("b", 1)]


def test_a_repeated_number_is_not_kept_twice(spool: Spool) -> None:
    assert put(spool, "a", 3, 3, 2, 4) == [Outcome.kept, Outcome.repeated, Outcome.repeated, Outcome.kept]
    assert spool.state()[:2] == (2, 2 * 104)


def test_what_is_durable_is_let_go_of_and_stays_known(spool: Spool) -> None:
    put(spool, "a", *range(1, 201))
    put(spool, "b", 1)
    assert spool.forget({"a": 150, "b": 0, "stranger": 9}) == {
        "a": Position(200, 150, 0),
        "stranger": Position(9, 9, 0),
    }
    assert content(spool) == [("a", n) for n in range(151, 201)] + [("b", 1)]
    assert spool.forget({"a": 140}) == {}
    assert put(spool, "a", 150, 201) == [Outcome.repeated, Outcome.kept]
    # More than has come: it came another way.
    assert spool.forget({"a": 500}) == {"a": Position(500, 500, 0)}
    assert content(spool) == [("b", 1)]


def test_it_is_found_again_as_it_was_left(tmp_path: Path) -> None:
    with Spool(tmp_path, MEGABYTE) as spool:
        assert spool.task is None
        assert put(spool, "a", 1) == [Outcome.stale]
        spool.set_task(*TASK)
        put(spool, "a", 1, 2, 3)
        spool.forget({"a": 1})
    with Spool(tmp_path, MEGABYTE) as spool:
        assert spool.task == TASK
        assert spool.position("a") == Position(3, 1, 0)
        assert spool.state()[:2] == (2, 2 * 104)
        assert content(spool) == [("a", 2), ("a", 3)]


def test_a_number_that_was_deleted_is_no_place_to_hide(spool: Spool) -> None:
    """A reader's place stays behind what comes, even when everything before it is gone."""
    put(spool, "a", 1, 2, 3)
    entries = [spool.after(0, lambda *_: False)]
    while entries[-1] is not None:
        entries.append(spool.after(entries[-1].id, lambda *_: False))
    last = entries[-2]
    assert last is not None
    spool.forget({"a": 3})
    put(spool, "a", 4)
    after = spool.after(last.id, lambda *_: False)
    assert after is not None
    assert after.seq == 4


def test_a_full_spool_turns_away_until_something_is_let_go_of(tmp_path: Path) -> None:
    with Spool(tmp_path, 1000) as spool:
        spool.set_task(*TASK)
        assert put(spool, "a", 1, 2, 3, size=400) == [Outcome.kept, Outcome.kept, Outcome.no_room]
        assert spool.state().is_full
        spool.forget({"a": 1})
        assert put(spool, "a", 3, size=400) == [Outcome.kept]
        assert not spool.state().is_full


def test_one_segment_that_is_larger_than_the_spool_comes_through(tmp_path: Path) -> None:
    with Spool(tmp_path, 1000) as spool:
        spool.set_task(*TASK)
        assert put(spool, "a", 1, 2, size=5000) == [Outcome.kept, Outcome.no_room]
        spool.forget({"a": 1})
        assert put(spool, "a", 2, size=5000) == [Outcome.kept]


def test_a_disk_with_little_room_turns_away(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(spools.shutil, "disk_usage", lambda _: usage(0, 0, 10 * MEGABYTE))
    assert put(spool, "a", 1) == [Outcome.no_room]
    monkeypatch.undo()
    assert put(spool, "a", 1) == [Outcome.kept]


def test_a_small_disk_is_used_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")

    def small_disk(folder: Path) -> usage:
        used = sum(path.stat().st_size for path in tmp_path.iterdir())
        return usage(32 * MEGABYTE, used, 32 * MEGABYTE - used)

    monkeypatch.setattr(spools.shutil, "disk_usage", small_disk)
    number = 0
    with Spool(tmp_path, 100 * MEGABYTE) as spool:
        spool.set_task(*TASK)
        for _ in range(4):
            before = number
            while put(spool, "a", number + 1, size=130_000) == [Outcome.kept]:
                number += 1
            assert number - before > 20
            assert small_disk(tmp_path).free > 0
            # All but the newest, so that the file is never empty.
            spool.forget({"a": number - 1})
        assert content(spool) == [("a", number)]


def test_a_disk_that_is_full_turns_away_and_loses_nothing(spool: Spool) -> None:
    put(spool, "a", 1)
    spool._file._db.execute("PRAGMA max_page_count = 8")
    outcomes = put(spool, "a", *range(2, 30), size=20_000)
    kept = outcomes.count(Outcome.kept)
    assert outcomes == [Outcome.kept] * kept + [Outcome.no_room] * (28 - kept)
    assert content(spool) == [("a", n) for n in range(1, kept + 2)]
    spool._file._db.execute("PRAGMA max_page_count = 1000000")
    assert put(spool, "a", kept + 2) == [Outcome.kept]


def test_a_reset_begins_behind_what_is_durable_and_who_did_not_hear_of_it_is_stale(spool: Spool) -> None:
    put(spool, "a", *range(1, 11))
    put(spool, "b", 1)
    spool.forget({"a": 4})
    assert spool.reset("a") == Position(4, 4, 1)
    assert content(spool) == [("b", 1)]
    assert spool.append("a", 11, b"a 11 ", TASK[0], 0) is Outcome.stale
    assert put(spool, "a", 5) == [Outcome.kept]
    assert content(spool) == [("b", 1), ("a", 5)]


def test_segments_of_another_task_wait_for_its_trainer(spool: Spool) -> None:
    put(spool, "a", 1, 2)
    spool.set_task("task B", "{}")
    assert put(spool, "b", 1) == [Outcome.stale]
    assert spool.append("b", 1, b"b 1 ", "task B", 0) is Outcome.kept
    assert content(spool) == [("b", 1)]
    assert spool.workers_of_other_tasks() == ["a"]
    # A trainer of another task that knows this worker has not stored these.
    spool.forget({"a": 2})
    spool.set_task(*TASK)
    assert content(spool) == [("a", 1), ("a", 2)]
    assert spool.workers_of_other_tasks() == ["b"]


def test_many_idle_workers_are_forgotten_but_none_with_segments(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "MAX_IDLE_WORKERS", 20)
    put(spool, "busy", 1)
    for number in range(30):
        put(spool, f"w{number}", 1)
        spool.forget({f"w{number}": 1})
    assert len(spool._positions) <= 21
    assert spool.position("busy") == Position(1, 0, 0)
    assert content(spool) == [("busy", 1)]


def test_an_empty_file_gives_its_room_back(tmp_path: Path) -> None:
    with Spool(tmp_path, 200 * MEGABYTE) as spool:
        spool.set_task(*TASK)
        put(spool, "a", *range(1, 11), size=8 * MEGABYTE)
        spool.forget({"a": 10})
    assert (tmp_path / FILE_NAME).stat().st_size < MEGABYTE


def test_a_second_relay_is_kept_out(spool: Spool) -> None:
    with pytest.raises(SpoolTakenError, match="another relay uses"):
        Spool(spool.folder, MEGABYTE)


def test_only_its_owner_reads_it(spool: Spool) -> None:
    put(spool, "a", 1)
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in spool.folder.iterdir()} == {FILE_NAME, f"{FILE_NAME}-wal"}
    assert {path.stat().st_mode & 0o777 for path in spool.folder.iterdir()} == {0o600}


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ValueError, match="is of version 99, this program knows 1"):
        Spool(tmp_path, MEGABYTE)


def test_damage_is_noticed_and_put_aside(tmp_path: Path) -> None:
    with Spool(tmp_path, MEGABYTE) as spool:
        spool.set_task(*TASK)
        put(spool, "a", 1, 2)
        spool._file._db.execute("UPDATE segments SET message = zeroblob(104) WHERE seq = 2")
        last = spool.after(0, lambda *_: False)
        assert last is not None
        with pytest.raises(SpoolDamagedError, match="checksum"):
            spool.after(last.id, lambda *_: False)
    (tmp_path / FILE_NAME).write_bytes(b"this is no database, and long enough to be looked at" * 1000)
    with pytest.raises(SpoolDamagedError):
        Spool(tmp_path, MEGABYTE)
    assert set_aside(tmp_path) == tmp_path / f"{FILE_NAME}.damaged"
    with Spool(tmp_path, MEGABYTE) as spool:
        assert spool.state()[:2] == (0, 0)
    assert set_aside(tmp_path / "nowhere") is None


KILLED = """
import sys
from tasks.remote.relay.spool import Spool
spool = Spool(sys.argv[1], 2**30)
spool.set_task("task A", "{}")
number = 0
while True:
    number += 1
    spool.append("a", number, b"a %d " % number + bytes(50_000), "task A", 0)
    if number % 7 == 0:
        spool.forget({"a": number - 5})
    print(number, flush=True)
"""


def test_a_process_that_is_killed_loses_nothing_that_it_said_it_had(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[4])}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    assert process.stdout is not None
    said = 0
    with process.stdout:
        for line in process.stdout:
            said = int(line)
            if said == 100:
                process.kill()
    process.wait(20)
    with Spool(tmp_path, 2**30) as spool:
        position = spool.position("a")
        assert position.received >= said >= 100
        assert content(spool) == [("a", n) for n in range(position.durable + 1, position.received + 1)]
        assert position.received - position.durable <= 12


def test_letting_go_of_a_backlog_lets_who_writes_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Spool(tmp_path, 2**30) as spool:
        spool.set_task(*TASK)
        put(spool, "a", *range(1, 1001))
        deletion_begins = threading.Event()
        delete_some = spool._delete_some
        left: list[int] = []

        def delete_once_the_writer_waits(*arguments: Any) -> int:
            deletion_begins.set()
            wait_until(lambda: spool._lock.has_waiter or left)
            return delete_some(*arguments)

        def write() -> None:
            deletion_begins.wait(20)
            put(spool, "b", 1)
            left.append(spool._segments)

        monkeypatch.setattr(spool, "_delete_some", delete_once_the_writer_waits)
        thread = threading.Thread(target=write)
        thread.start()
        spool.forget({"a": 1000})
        thread.join(20)
        assert left == [1000 - spools._ROWS_AT_ONCE + 1]
        assert content(spool) == [("b", 1)]
