"""The disk outbox: nothing lost and nothing twice, through restarts, kills, full disks and learners that forget."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.remote.config import OutboxPolicy
from tasks.remote.station.outbox import DiskOutbox, OutboxFullError, open_outbox
from tasks.remote.station.outbox_file import FILE_NAME, OutboxTakenError

DROP, PAUSE = OutboxPolicy.drop_oldest, OutboxPolicy.pause
HEADER = struct.Struct("<QQQ")


def opened(folder: Path, **kwargs: Any) -> DiskOutbox:
    values: dict[str, Any] = {
        "capacity_bytes": 10**9, "policy": DROP, "fingerprint": "task A", "session": "1", "patience_s": 0.0
    }  # fmt: skip
    return open_outbox(folder, **(values | kwargs))


def encoder(number: int, size: int = 100) -> Callable[[int, int], bytes]:
    """Makes a message that holds its sequence number, how many were dropped before, and which frame it was."""
    content = random.Random(number).randbytes(size)
    return lambda seq, dropped: HEADER.pack(seq, dropped, number) + content


def fill(outbox: DiskOutbox, numbers: range, size: int = 100) -> None:
    for number in numbers:
        outbox.append(number, encoder(number, size))


class Learner:
    """Takes what it has not got, as the gateway does; ``frames`` are what it stored, in order."""

    def __init__(self) -> None:
        self.received = 0
        self.durable = 0
        self.frames: list[int] = []
        self.dropped = 0
        self._pending: list[int] = []

    def join(self, outbox: DiskOutbox) -> None:
        outbox.resume(self.received)

    def receive(self, outbox: DiskOutbox, most: int = 10**9) -> None:
        for _ in range(most):
            found = outbox.after(self.received)
            if found is None:
                break
            seq, self.dropped, number = HEADER.unpack_from(found[1])
            assert seq == found[0] > self.received
            self.received = seq
            self._pending.append(number)
        outbox.acknowledge(self.received, self.durable)

    def store(self, outbox: DiskOutbox) -> None:
        self.frames += self._pending
        self._pending.clear()
        self.durable = self.received
        outbox.acknowledge(self.received, self.durable)

    def take(self, outbox: DiskOutbox, most: int = 10**9) -> None:
        self.receive(outbox, most)
        self.store(outbox)

    def crash(self) -> None:
        """Forgets what was not stored."""
        self._pending.clear()
        self.received = self.durable


@pytest.fixture
def learner() -> Learner:
    return Learner()


# --- numbers and names ---


def test_numbers_go_on_and_the_name_stays_through_restarts(tmp_path: Path, learner: Learner) -> None:
    with opened(tmp_path / "o", session="1") as first:
        fill(first, range(1, 4))
        identity, stream = first.identity, first.first_stream
        learner.join(first)
        learner.take(first, 2)
    with opened(tmp_path / "o", session="2") as second:
        fill(second, range(1, 3))
        assert second.identity == identity
        assert re.fullmatch("[0-9a-f]{8}", identity)
        assert (stream, second.first_stream) == (1000, 2000)
        learner.join(second)
        learner.take(second)
        assert second.state().last_seq == 5
    assert learner.frames == [1, 2, 3, 1, 2]


def test_two_outboxes_have_two_names(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as a, opened(tmp_path / "b") as b:
        assert a.identity != b.identity


def test_within_a_session_a_restarted_station_takes_up_where_it_was(tmp_path: Path, learner: Learner) -> None:
    with opened(tmp_path / "o") as outbox:
        fill(outbox, range(1, 6))
    with opened(tmp_path / "o") as outbox:
        assert (outbox.state().taken, outbox.first_stream) == (5, 1000)
        assert not outbox.append(5, encoder(5))
        fill(outbox, range(4, 9))
        learner.join(outbox)
        learner.take(outbox)
    assert learner.frames == list(range(1, 9))


def test_a_frame_that_got_lost_on_the_way_is_counted_and_leaves_its_number_out(
    tmp_path: Path, learner: Learner
) -> None:
    with opened(tmp_path / "o") as outbox:
        fill(outbox, range(1, 3))
        outbox.append(5, encoder(5))
        assert outbox.dropped == 2
        learner.join(outbox)
        learner.take(outbox)
    assert learner.frames == [1, 2, 5]
    assert (learner.received, learner.dropped) == (5, 2)


def test_a_copy_gets_a_name_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path / "o") as outbox:
        fill(outbox, range(1, 3))
        identity = outbox.identity
    shutil.copytree(tmp_path / "o", tmp_path / "copy")
    (tmp_path / "o").rename(tmp_path / "moved")
    with opened(tmp_path / "copy") as copy, opened(tmp_path / "moved") as moved:
        assert copy.identity != identity
        assert moved.identity == identity
        assert len(copy) == 2
    assert "copied from elsewhere" in caplog.text


# --- what may be forgotten ---


def test_only_what_is_stored_is_deleted(tmp_path: Path, learner: Learner) -> None:
    with opened(tmp_path / "o") as outbox:
        fill(outbox, range(1, 11))
        learner.join(outbox)
        learner.receive(outbox)
        assert (len(outbox), learner.received) == (10, 10)
        learner.store(outbox)
        assert (len(outbox), outbox.state().num_bytes) == (0, 0)
    with opened(tmp_path / "o") as outbox:
        assert outbox.after(0) is None


def test_a_learner_that_lost_what_it_had_not_stored_gets_it_again(tmp_path: Path, learner: Learner) -> None:
    with opened(tmp_path / "o") as outbox:
        fill(outbox, range(1, 11))
        learner.join(outbox)
        learner.take(outbox, 4)
        learner.receive(outbox, 3)
        learner.crash()
        learner.join(outbox)
        learner.take(outbox)
    assert learner.frames == list(range(1, 11))


def test_a_learner_that_is_ahead_of_the_outbox_makes_the_numbers_jump(
    tmp_path: Path, learner: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    learner.received = learner.durable = 50
    with opened(tmp_path / "o") as outbox:
        learner.join(outbox)
        fill(outbox, range(1, 3))
        learner.take(outbox)
    assert learner.frames == [1, 2]
    assert learner.received == 52
    assert "old copy" in caplog.text


# --- full ---


def test_the_oldest_go_when_the_cap_is_reached_and_are_counted(tmp_path: Path, learner: Learner) -> None:
    with opened(tmp_path / "o", capacity_bytes=1300) as outbox:
        fill(outbox, range(1, 31))  # 124 bytes each: ten fit
        assert outbox.state() == (10, 1240, 30, 20, 30)
        learner.join(outbox)
        learner.take(outbox)
    assert learner.frames == list(range(21, 31))
    assert learner.dropped == 20


def test_what_the_learner_may_still_store_counts_as_dropped_only_when_it_did_not(
    tmp_path: Path, learner: Learner
) -> None:
    with opened(tmp_path / "o", capacity_bytes=1300) as outbox:
        fill(outbox, range(1, 11))
        learner.join(outbox)
        learner.receive(outbox, 6)
        fill(outbox, range(11, 15))  # pushes 1-4 out, which the learner has in memory
        assert (len(outbox), outbox.dropped) == (10, 0)
        learner.store(outbox)
        assert (len(outbox), outbox.dropped) == (8, 0)
        learner.receive(outbox, 3)
        fill(outbox, range(15, 19))  # 17 and 18 push 7 and 8 out
        assert outbox.dropped == 0
        learner.crash()
    with opened(tmp_path / "o", capacity_bytes=1300) as outbox:
        learner.join(outbox)
        assert outbox.dropped == 2
        learner.take(outbox)
    assert learner.frames == [*range(1, 7), *range(9, 19)]


def test_with_the_policy_to_pause_nothing_goes(tmp_path: Path, learner: Learner) -> None:
    with opened(tmp_path / "o", capacity_bytes=1300, policy=PAUSE) as outbox:
        fill(outbox, range(1, 11))
        for _ in range(3):
            with pytest.raises(OutboxFullError, match=r"0\.0013 MB are reached"):
                outbox.append(11, encoder(11))
        learner.join(outbox)
        learner.take(outbox, 1)
        fill(outbox, range(11, 12))
        learner.take(outbox)
        assert outbox.dropped == 0
    assert learner.frames == list(range(1, 12))


@pytest.mark.parametrize("policy", [DROP, PAUSE])
def test_a_segment_larger_than_the_whole_outbox_is_a_mistake(tmp_path: Path, policy: OutboxPolicy) -> None:
    mistake = pytest.raises(ValueError, match=r"worker\.outbox_mb must hold at least one segment")
    with opened(tmp_path / "o", capacity_bytes=100, policy=policy) as outbox, mistake:
        outbox.append(1, encoder(1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """12 MB of memory as a file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(folder)]
    if os.name != "posix" or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        if os.environ.get("TM_REQUIRE_ROOT_FAULTS"):
            pytest.fail("a small file system cannot be mounted here")
        pytest.skip("a small file system cannot be mounted here: needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("size", [3_000, 100_000, 1_500_000])
@pytest.mark.parametrize("policy", [DROP, PAUSE])
def test_a_full_disk_costs_no_more_than_is_counted(
    small_disk: Path, learner: Learner, policy: OutboxPolicy, size: int
) -> None:
    offered = 0

    def drive(count: int) -> None:
        nonlocal offered
        for number in range(offered + 1, offered + 1 + count):
            try:
                outbox.append(number, encoder(number, size))
            except OutboxFullError:
                assert policy is PAUSE
                return
            offered = number

    with opened(small_disk / "o", policy=policy) as outbox:
        learner.join(outbox)
        drive(20_000_000 // size)
        assert outbox.state().num_bytes > 4_000_000
        with (small_disk / "of others").open("wb", buffering=0) as file:
            while True:  # to the last byte
                try:
                    file.write(bytes(512))
                except OSError:
                    break
        for _ in range(3):
            drive(10)
            learner.take(outbox, 7)
        learner.take(outbox)
        assert len(outbox) == 0
        drive(3)  # what was delivered made room
        learner.take(outbox)
        before = len(learner.frames)
        (small_disk / "of others").unlink()
        drive(3)
        learner.take(outbox)
        assert len(learner.frames) > before
        assert len(learner.frames) + outbox.dropped == offered
        assert learner.frames == sorted(set(learner.frames))
        assert policy is DROP or not outbox.dropped


# --- one owner ---

OWNER = """
import sys, time
from pathlib import Path
from tests.tasks.remote.station.test_outbox import encoder, opened
outbox = opened(Path(sys.argv[1]))
for number in range(1, int(sys.argv[2])):
    outbox.append(number, encoder(number, 20_000))
    print(number, flush=True)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Starts a process that owns the outbox and appends."""
    processes = []

    def start(count: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", OWNER, str(tmp_path / "o"), str(count)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_each_worker_of_a_machine_gets_its_own_folder(
    tmp_path: Path, owner: Callable[[int], subprocess.Popen[str]]
) -> None:
    process = owner(3)
    assert process.stdout is not None
    while process.stdout.readline() != "ready\n":
        assert process.poll() is None
    with opened(tmp_path / "o") as second, opened(tmp_path / "o") as third:
        assert (second.folder.name, third.folder.name) == ("o-2", "o-3")
        assert len(second) == 0
    with pytest.raises(OutboxTakenError, match="in use by another worker"):
        DiskOutbox(tmp_path / "o", 100, DROP)
    process.kill()
    process.wait()
    with opened(tmp_path / "o") as first:
        assert first.folder.name == "o"
        assert len(first) == 2


def test_the_next_start_waits_for_one_that_is_about_to_end(
    tmp_path: Path, owner: Callable[[int], subprocess.Popen[str]]
) -> None:
    process = owner(2)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    killer = subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(0.3); os.kill({process.pid}, 9)"])
    with opened(tmp_path / "o", patience_s=20.0) as outbox:
        assert outbox.folder.name == "o"
    killer.wait()


def test_kill_9_loses_nothing_that_was_taken(
    tmp_path: Path, owner: Callable[[int], subprocess.Popen[str]], learner: Learner
) -> None:
    process = owner(10**6)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(137)]
    process.kill()
    told += [int(line) for line in process.stdout.read().split() if line.isdigit()]
    process.wait()
    with opened(tmp_path / "o") as outbox:
        # One more may be in the file than its maker had time to tell.
        assert len(told) <= outbox.state().taken <= len(told) + 1
        learner.join(outbox)
        learner.take(outbox)
        assert learner.frames == list(range(1, outbox.state().taken + 1))


def test_what_another_worker_of_this_machine_left_is_delivered_before_a_new_one_is_begun(tmp_path: Path) -> None:
    with opened(tmp_path / "o", session="1"), opened(tmp_path / "o", session="2") as second:
        fill(second, range(1, 4))
    with opened(tmp_path / "o", session="3") as heir:
        assert heir.folder.name == "o-2"
        assert len(heir) == 3
        with opened(tmp_path / "o", session="4") as other:
            assert other.folder.name == "o"
    assert not (tmp_path / "o-3").exists()


# --- what does not belong here ---


def test_segments_of_another_task_stay_where_they_are(tmp_path: Path) -> None:
    with opened(tmp_path / "o") as outbox:
        fill(outbox, range(1, 3))
    with opened(tmp_path / "o", fingerprint="task B", session="2") as other:
        assert other.folder.name == "o-2"
        assert len(other) == 0
    with opened(tmp_path / "o", session="3") as outbox:
        assert len(outbox) == 2


def test_an_empty_outbox_serves_another_task(tmp_path: Path, learner: Learner) -> None:
    with opened(tmp_path / "o") as outbox:
        fill(outbox, range(1, 3))
        learner.join(outbox)
        learner.take(outbox)
    with opened(tmp_path / "o", fingerprint="task B", session="2") as other:
        assert other.folder.name == "o"
        fill(other, range(1, 2))
        assert other.state().last_seq == 3


def test_a_damaged_file_is_put_aside_and_a_new_one_is_begun(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / FILE_NAME).write_bytes(b"not a database" * 1000)
    with opened(tmp_path / "o") as outbox:
        fill(outbox, range(1, 3))
        assert len(outbox) == 2
    assert [path.read_bytes()[:3] for path in (tmp_path / "o").glob("*.broken-*")] == [b"not"]
    assert "is damaged" in caplog.text


def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    opened(tmp_path / "o").close()
    with sqlite3.connect(tmp_path / "o" / FILE_NAME) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(ValueError, match="is of version 9, this program knows 1"):
        opened(tmp_path / "o")


def test_the_file_shrinks_when_all_is_delivered(tmp_path: Path, learner: Learner) -> None:
    with opened(tmp_path / "o") as outbox:
        fill(outbox, range(1, 50), size=100_000)
        learner.join(outbox)
        learner.take(outbox)
    assert (tmp_path / "o" / FILE_NAME).stat().st_size < 100_000
    assert not (tmp_path / "o" / f"{FILE_NAME}-wal").exists()
