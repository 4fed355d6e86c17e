"""What is on disk: nothing acknowledged is lost, nothing is stored twice, and old rows go."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import algos.replay.records
import algos.replay.storage
from algos.replay.memory import ReplayMemory
from algos.replay.storage import ReplayStorage
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment
from tasks.remote.wire.link import decode_segment, encode_segment
from tests.algos.replay.replay_reference import Run, make_spec

CAPACITY = 120
SMALL_CHUNK = 3000


@pytest.fixture(scope="module", autouse=True)
def synced_files() -> Iterator[list[str]]:
    """Records what is synced to the disk instead of waiting for it."""
    names: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: names.append(os.path.realpath(f"/proc/self/fd/{descriptor}")))
        yield names


def new_memory(spec: ObservationSpec, capacity: int = CAPACITY) -> ReplayMemory:
    return ReplayMemory(spec, capacity, 2, 0.9, seed=0)


def new_storage(directory: Path, spec: ObservationSpec, **kwargs: Any) -> ReplayStorage:
    return ReplayStorage(directory, spec, CAPACITY, **{"chunk_bytes": SMALL_CHUNK, **kwargs})


def segments_of(spec: ObservationSpec, count: int, seed: int = 0, checksums: bool = False) -> list[Segment]:
    run = Run(spec, 3, seed)
    return [run.next_segment(9, checksums) for _ in range(count)]


def assert_same(one: ReplayMemory, other: ReplayMemory) -> None:
    """Equal counts, and equal draws from equal generators."""
    assert (one.total_rows, len(one), one.num_transitions) == (other.total_rows, len(other), other.num_transitions)
    assert one.received == other.received
    if not one.num_transitions:
        return
    other.load_rng_state(one.rng_state())
    for _ in range(3):
        a, b = one.sample(48), other.sample(48)
        for left, right in ((a.observation, b.observation), (a.next_observation, b.next_observation)):
            assert all(torch.equal(left[name], right[name]) for name in left)
        for name in ("action", "reward", "discount", "terminated"):
            assert torch.equal(getattr(a, name), getattr(b, name))


def memory_after(spec: ObservationSpec, segments: list[Segment]) -> ReplayMemory:
    memory = new_memory(spec)
    for segment in segments:
        memory.append(segment)
    return memory


def restored(
    directory: Path, spec: ObservationSpec, position: Mapping[str, Any] | None = None
) -> tuple[ReplayMemory, ReplayStorage]:
    memory, storage = new_memory(spec), new_storage(directory, spec)
    storage.load(memory, position)
    return memory, storage


def chunk_files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 80),
    commits=st.integers(1, 20),
    chunk_bytes=st.integers(1, 20_000),
    reset_act_buf=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_restored_memory_draws_the_same_batches(
    tmp_path_factory: pytest.TempPathFactory, count: int, commits: int, chunk_bytes: int, reset_act_buf: bool, seed: int
) -> None:
    spec = make_spec(3, 2, 3, reset_act_buf)
    directory = tmp_path_factory.mktemp("replay")
    segments = segments_of(spec, count, seed)
    with new_storage(directory, spec, chunk_bytes=chunk_bytes) as storage:
        for i, segment in enumerate(segments):
            assert storage.append(segment)
            if i % commits == 0:
                storage.commit()
    memory, storage = restored(directory, spec)
    assert_same(memory_after(spec, segments), memory)
    assert storage.total_rows == sum(map(len, segments))
    assert storage.received == memory.received


def test_a_position_is_restored_exactly_and_what_came_later_is_removed(tmp_path: Path) -> None:
    spec = make_spec(3, 2, 3)
    segments = segments_of(spec, 120)
    with new_storage(tmp_path, spec) as storage:
        for segment in segments[:60]:
            storage.append(segment)
        position = json.loads(json.dumps(storage.position()))
        for segment in segments[60:]:
            storage.append(segment)
    expected = memory_after(spec, segments[:60])
    memory, storage = restored(tmp_path, spec, position)
    assert_same(expected, memory)
    for segment in segments[60:]:  # the run goes on as it did the first time
        assert storage.append(segment)
        assert memory.append(segment)
        assert expected.append(segment)
    assert_same(expected, memory)
    storage.close()
    assert_same(expected, restored(tmp_path, spec)[0])


def test_reading_a_foreign_replay_leaves_its_files_alone(tmp_path: Path) -> None:
    spec = make_spec(2, 2, 2)
    segments = segments_of(spec, 20)
    with new_storage(tmp_path, spec) as storage:
        for segment in segments[:10]:
            storage.append(segment)
        position = storage.position()
        for segment in segments[10:]:
            storage.append(segment)
    before = {path.name: path.read_bytes() for path in chunk_files(tmp_path)}
    storage = new_storage(tmp_path, spec, read_only=True)
    assert storage.load(new_memory(spec), position) == position["rows"]
    assert {path.name: path.read_bytes() for path in chunk_files(tmp_path)} == before
    with pytest.raises(ValueError, match="read-only"):
        storage.append(segments[0])


def test_a_kill_at_any_byte_leaves_a_whole_prefix_that_can_be_continued(tmp_path: Path) -> None:
    spec = make_spec(1, 1, 1)
    run = Run(spec, 1, 0)
    segments = [run.next_segment(3) for _ in range(5)]
    ends = []
    with new_storage(tmp_path / "whole", spec) as storage:
        for segment in segments[:4]:
            storage.append(segment)
            storage.commit()
            ends.append(chunk_files(tmp_path / "whole")[0].stat().st_size)
    (path,) = chunk_files(tmp_path / "whole")
    data = path.read_bytes()
    rows = [sum(map(len, segments[:k])) for k in range(6)]
    for size in range(len(data) + 1):
        torn = tmp_path / "torn"
        torn.mkdir()
        (torn / path.name).write_bytes(data[:size])
        whole = sum(end <= size for end in ends)
        storage = new_storage(torn, spec)
        assert storage.load(None) == rows[whole]
        assert storage.received == ({"w0": whole} if whole else {})
        assert storage.append(segments[whole])
        assert storage.commit() == {"w0": whole + 1}
        storage.close()
        memory, _ = restored(torn, spec)
        assert memory.total_rows == rows[whole + 1]
        assert memory.received == {"w0": whole + 1}
        shutil.rmtree(torn)


@pytest.mark.skipif(sys.platform != "linux", reason="names open files through /proc")
def test_what_is_acknowledged_was_synced_after_it_was_written(tmp_path: Path, synced_files: list[str]) -> None:
    spec = make_spec(1, 1, 1)
    with new_storage(tmp_path, spec) as storage:
        for segment in segments_of(spec, 3):
            storage.append(segment)
            synced_files.clear()
            storage.commit()
            (path,) = chunk_files(tmp_path)
            assert synced_files == [str(path.resolve())]
            loaded = new_storage(tmp_path, spec, read_only=True)
            loaded.load(None)
            assert loaded.received == storage.received
            storage.commit()
            assert len(synced_files) == 1  # nothing new, nothing to wait for


def damaged_replay(tmp_path: Path, spec: ObservationSpec, count: int = 60) -> tuple[Path, list[Segment]]:
    """A stored replay of several files, and what is in it; every row knows the checksum of its observation."""
    directory = tmp_path / "replay"
    segments = segments_of(spec, count, checksums=True)
    with ReplayStorage(directory, spec, 10 * CAPACITY, chunk_bytes=SMALL_CHUNK) as storage:
        for segment in segments:
            storage.append(segment)
    assert len(chunk_files(directory)) > 6
    return directory, segments


def kept_rows(directory: Path, spec: ObservationSpec) -> tuple[list[float], ReplayMemory, ReplayStorage]:
    """Identities of the rows that are restored; what is drawn of them is what the workers saw."""
    memory = ReplayMemory(spec, 10 * CAPACITY, 2, 0.9, seed=0, check_samples=True)
    storage = ReplayStorage(directory, spec, 10 * CAPACITY, chunk_bytes=SMALL_CHUNK)
    count = storage.load(memory)
    assert count == len(memory)
    memory.sample(256)
    first = memory.total_rows - len(memory)
    slots = np.arange(first, memory.total_rows) % memory.capacity
    return memory._columns.frames["row"][slots, 0].tolist(), memory, storage


def rows_of(segments: list[Segment]) -> list[float]:
    return [float(row) for segment in segments for row in segment.frames["row"][:, 0]]


def segments_in(path: Path, segments: list[Segment]) -> list[Segment]:
    """Those whose rows are in one file."""
    first = int(path.stem)
    later = [int(other.stem) for other in chunk_files(path.parent) if int(other.stem) > first]
    ends = np.cumsum([len(segment) for segment in segments])
    return [s for s, end in zip(segments, ends, strict=True) if first < end <= min(later, default=int(ends[-1]))]


@pytest.mark.parametrize("where", range(0, 100, 9))
def test_a_flipped_bit_costs_the_segment_that_it_hits(tmp_path: Path, where: int) -> None:
    spec = make_spec(3, 2, 3)
    directory, segments = damaged_replay(tmp_path, spec)
    for path in chunk_files(directory)[:-1]:
        whole = path.read_bytes()
        data = bytearray(whole)
        data[len(data) * where // 100] ^= 0x10
        path.write_bytes(data)
        kept, memory, storage = kept_rows(directory, spec)
        inside = segments_in(path, segments)
        losses = [rows_of([s for s in segments if s is not lost]) for lost in inside]
        assert kept in [rows_of(segments), *losses]  # the first: it hit the beginning of the file
        assert storage.total_rows == sum(map(len, segments))
        assert memory.received == storage.received == memory_after(spec, segments).received
        path.write_bytes(whole)


@pytest.mark.parametrize("index", [0, 2, -2])
def test_a_missing_file_costs_its_own_rows(tmp_path: Path, index: int, caplog: pytest.LogCaptureFixture) -> None:
    spec = make_spec(3, 2, 3)
    directory, segments = damaged_replay(tmp_path, spec)
    path = chunk_files(directory)[index]
    lost = segments_in(path, segments)
    path.unlink()
    kept, memory, storage = kept_rows(directory, spec)
    assert kept == rows_of([segment for segment in segments if segment not in lost])
    assert memory.received == storage.received == memory_after(spec, segments).received
    if index:
        assert f"{len(rows_of(lost))} rows are lost, {len(kept)} are kept" in caplog.text


def test_a_worker_resends_only_what_was_lost_at_the_end(tmp_path: Path) -> None:
    spec = make_spec(1, 1, 1)
    run = Run(spec, 1, 0)
    segments = [run.next_segment(5, True) for _ in range(8)]
    with ReplayStorage(tmp_path, spec, 10 * CAPACITY) as storage:
        ends = []
        for segment in segments:
            storage.append(segment)
            storage.commit()
            ends.append(chunk_files(tmp_path)[0].stat().st_size)
    (path,) = chunk_files(tmp_path)
    data = bytearray(path.read_bytes())
    for lost in (3, 7):
        data[ends[lost] - 1] ^= 1
    path.write_bytes(data)
    kept, memory, storage = kept_rows(tmp_path, spec)
    assert kept == rows_of([*segments[:3], *segments[4:7]])
    assert storage.received == memory.received == {"w0": 7}  # the eighth is asked for, the fourth is gone for good
    assert [storage.append(segment) for segment in segments] == [False] * 7 + [True]
    storage.close()
    assert kept_rows(tmp_path, spec)[0] == rows_of([*segments[:3], *segments[4:]])


@settings(max_examples=60, deadline=None)
@given(
    faults=st.lists(
        st.tuples(st.sampled_from(["flip", "cut", "delete", "swap", "copy", "zero"]), *[st.floats(0, 0.999)] * 3),
        min_size=1,
        max_size=4,
    ),
    reset_act_buf=st.booleans(),
)
def test_after_any_damage_restored_rows_are_right_and_the_run_continues(
    tmp_path_factory: pytest.TempPathFactory, faults: list[tuple[str, float, float, float]], reset_act_buf: bool
) -> None:
    spec = make_spec(3, 2, 3, reset_act_buf)
    tmp_path = tmp_path_factory.mktemp("damage")
    directory, segments = damaged_replay(tmp_path, spec, 80)
    for kind, one, other, where in faults:
        files = [path for path in chunk_files(directory) if path.is_file()]
        damage(kind, files[int(one * len(files))], files[int(other * len(files))], where)
    kept, memory, storage = kept_rows(directory, spec)
    everything = rows_of(segments)
    assert kept == sorted(set(kept), key=everything.index)
    assert memory.received == storage.received
    more = [replace(s, seq=storage.received.get(s.worker, 0) + 7) for s in segments_of(spec, 3)]
    more = list({s.worker: s for s in more}.values())
    assert all(storage.append(segment) for segment in more)
    assert all(memory.append(segment) for segment in more)
    storage.close()
    again, memory_again, _ = kept_rows(directory, spec)
    assert again == kept + rows_of(more)
    assert memory_again.received == memory.received


def damage(kind: str, path: Path, other: Path, where: float) -> None:
    """Does to a file what disks and people do."""
    data = bytearray(path.read_bytes())
    place = int(len(data) * where)
    if kind == "flip" and data:
        data[place] ^= 1
        path.write_bytes(data)
    elif kind == "cut":
        path.write_bytes(data[:place])
    elif kind == "delete":
        path.unlink()
    elif kind == "swap":
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    elif kind == "copy":
        path.with_name(f"{int(path.stem) + int(where * 1000):015d}.rows").write_bytes(data)
    elif kind == "zero":
        path.write_bytes(bytes(len(data)))


def test_swapped_files_are_noticed_and_reordered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = make_spec(3, 2, 3)
    directory, segments = damaged_replay(tmp_path, spec)
    one, other = chunk_files(directory)[2:4]
    names = {path.name: path.read_bytes() for path in chunk_files(directory)}
    damage("swap", one, other, 0.0)
    assert kept_rows(directory, spec)[0] == rows_of(segments)
    assert f"{one} has the rows from {int(other.stem)} on: it was renamed, swapped or copied" in caplog.text
    assert {path.name: path.read_bytes() for path in chunk_files(directory)} == names


def test_foreign_files_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = make_spec(3, 2, 3)
    directory, segments = damaged_replay(tmp_path, spec)
    (path, *_) = chunk_files(directory)
    total = sum(map(len, segments))
    (directory / f"{total:015d}.rows").mkdir()
    shutil.copy(path, directory / f"{total + 9:015d}.rows")
    (directory / f"{total + 50:015d}.rows").write_text("notes of mine")
    for name in ("7.rows", "\u00b2.rows", "notes.rows", f"{'9' * 30}.rows"):
        shutil.copy(path, directory / name)
    kept, _, storage = kept_rows(directory, spec)
    assert kept == rows_of(segments)
    assert storage.total_rows == total
    for name in ("7.rows is no file", "\u00b2.rows is no file", f"{total:015d}.rows is no file", "is a copy"):
        assert name in caplog.text
    run_on = [replace(segment, seq=storage.received[segment.worker] + 1) for segment in segments[:1]]
    for _ in range(30):  # through every name that was taken
        storage.append(replace(run_on[0], seq=storage.received[run_on[0].worker] + 1))
    storage.close()
    assert len(kept_rows(directory, spec)[0]) == len(kept) + 30 * len(run_on[0])
    assert (directory / f"{total + 50:015d}.rows.unused").read_text() == "notes of mine"


@pytest.mark.parametrize(
    "change",
    [
        {"arrays": {"priority": 4}},
        {"frames": {"other": 4}},
        {"rows": 10**12},
        {"rows": "many"},
        {"row": 10**30},
        {"seq": None},
        {"arrays": []},
    ],
)
def test_a_record_with_a_right_checksum_and_wrong_content_is_left_out(
    tmp_path: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(3, 2, 3)
    directory, segments = tmp_path / "replay", segments_of(spec, 20, checksums=True)
    whole = algos.replay.records._record
    with ReplayStorage(directory, spec, 10 * CAPACITY) as storage:
        for index, segment in enumerate(segments):
            with monkeypatch.context() as patch:
                if index == 7:
                    patch.setattr(
                        algos.replay.records, "_record", lambda magic, head, *p: whole(magic, head | change, *p)
                    )
                storage.append(segment)
    assert kept_rows(directory, spec)[0] == rows_of([*segments[:7], *segments[8:]])


def test_a_segment_that_contradicts_itself_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = make_spec(3, 2, 3)
    directory, segments = tmp_path / "replay", segments_of(spec, 20, checksums=True)
    wrong = replace(segments[7], is_first=np.ones_like(segments[7].is_first), terminated=~segments[7].terminated)
    with ReplayStorage(directory, spec, 10 * CAPACITY) as storage:
        for segment in [*segments[:7], wrong, *segments[8:]]:
            storage.append(segment)
    assert kept_rows(directory, spec)[0] == rows_of([*segments[:7], *segments[8:]])
    assert "a first row cannot end its episode" in caplog.text


def test_files_of_versions_that_wrote_no_row_numbers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(3, 2, 3)
    whole = algos.replay.records._record

    def without_row(magic: bytes, head: dict[str, Any], parts: list[bytes]) -> bytes:
        keys = head.keys() - {"row"} if magic == b"TMSG" else head.keys()
        return whole(magic, {key: head[key] for key in head if key in keys}, parts)

    monkeypatch.setattr(algos.replay.records, "_record", without_row)
    directory, segments = damaged_replay(tmp_path, spec)
    assert kept_rows(directory, spec)[0] == rows_of(segments)
    path = chunk_files(directory)[3]
    damage("flip", path, path, 0.6)
    kept, _, storage = kept_rows(directory, spec)
    assert kept in [rows_of([s for s in segments if s is not lost]) for lost in segments_in(path, segments)]
    assert storage.total_rows == sum(map(len, segments))


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(2, 2, 2)
    directory, _ = damaged_replay(tmp_path, spec)
    path = chunk_files(directory)[3]
    read_bytes = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ValueError, match=rf"{path} cannot be read \(Permission denied\); make it readable, or move"):
        kept_rows(directory, spec)


def test_sequence_numbers_are_stored_once_over_restarts(tmp_path: Path) -> None:
    spec = make_spec(1, 1, 1)
    run = Run(spec, 1, 0)
    segments = [run.next_segment(5) for _ in range(6)]
    with new_storage(tmp_path, spec) as storage:
        assert [storage.append(segment) for segment in [*segments[:3], segments[1], segments[2]]] == [
            *(True, True, True),
            *(False, False),
        ]
        assert storage.commit() == {"w0": 3}
    memory, storage = restored(tmp_path, spec)
    assert [storage.append(segment) for segment in segments] == [False] * 3 + [True] * 3
    assert [memory.append(segment) for segment in segments] == [False] * 3 + [True] * 3
    storage.close()
    memory, _ = restored(tmp_path, spec)
    assert memory.total_rows == sum(map(len, segments))


def test_the_largest_numbers_that_the_link_takes_are_read_back(tmp_path: Path) -> None:
    spec = make_spec(2, 2, 2)
    largest = 2**62
    segment = replace(segments_of(spec, 1)[0], stream=largest, seq=largest, weights_version=largest)
    assert decode_segment(encode_segment(segment), spec).segment.seq == largest
    with new_storage(tmp_path, spec) as storage:
        storage.append(segment)
    with new_storage(tmp_path, spec) as storage:
        assert storage.load(new_memory(spec)) == len(segment)
        assert storage.received == {segment.worker: largest}


def test_segments_without_sequence_numbers_are_all_stored(tmp_path: Path) -> None:
    spec = make_spec(1, 1, 1)
    segments = [replace(segment, seq=0, stream=0, worker="w") for segment in segments_of(spec, 1) * 3]
    with new_storage(tmp_path, spec) as storage:
        assert all(storage.append(segment) for segment in segments)
        assert storage.commit() == {}
        assert storage.total_rows == sum(map(len, segments))


def test_old_chunks_are_removed_and_the_ring_is_restored_without_them(tmp_path: Path) -> None:
    for reset_act_buf in (True, False):
        spec = make_spec(3, 2, 3, reset_act_buf)
        directory = tmp_path / str(reset_act_buf)
        segments = segments_of(spec, 300)
        storage = new_storage(directory, spec)
        expected = new_memory(spec)
        for segment in segments:
            storage.append(segment)
            expected.append(segment)
            first_rows = [int(path.stem) for path in chunk_files(directory)]
            stored = storage.total_rows - first_rows[0]
            longest_chunk = CAPACITY // 8 + 9
            assert min(storage.total_rows, CAPACITY) <= stored <= CAPACITY + 2 * longest_chunk
        storage.close()
        memory, _ = restored(directory, spec)
        assert len(memory) == CAPACITY
        assert_same(expected, memory)


def test_rows_of_the_last_two_positions_are_kept_until_a_newer_one(tmp_path: Path) -> None:
    spec = make_spec(2, 2, 2)
    segments = segments_of(spec, 400)
    storage = new_storage(tmp_path, spec)
    positions, memories = [], []
    for i, segment in enumerate(segments):
        storage.append(segment)
        if i == 200:
            storage.position(keep=False)
        if i in (60, 150, 250):
            positions.append(storage.position())
            memories.append(memory_after(spec, segments[: i + 1]))
    storage.close()
    with pytest.raises(ValueError, match="newest checkpoint"):
        new_storage(tmp_path, spec, read_only=True).load(new_memory(spec), positions[0])
    for position, expected in zip(positions[1:], memories[1:], strict=True):
        memory = new_memory(spec)
        new_storage(tmp_path, spec, read_only=True).load(memory, position)
        assert_same(expected, memory)


def test_a_checkpoint_without_its_replay_is_refused(tmp_path: Path) -> None:
    spec = make_spec(1, 1, 1)
    with pytest.raises(ValueError, match=r"up to row 7.*nothing is stored"):
        new_storage(tmp_path, spec).load(new_memory(spec), {"rows": 7, "received": {}})


def test_a_replay_that_ends_too_early_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = make_spec(1, 1, 1)
    with new_storage(tmp_path, spec) as storage:
        for segment in segments_of(spec, 5):
            storage.append(segment)
        rows = storage.position()["rows"]
    _, storage = restored(tmp_path, spec, {"rows": rows + 3})
    assert storage.total_rows == rows
    assert "checkpoint was made with" in caplog.text


def test_a_full_disk_costs_nothing_once_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(2, 2, 2)
    segments = segments_of(spec, 6)
    storage = ReplayStorage(tmp_path, spec, 10 * CAPACITY)
    storage.append(segments[0])
    durable = storage.commit()

    def write_half(file: IO[bytes], data: bytes) -> None:
        file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    for segment in segments[1:]:
        storage.append(segment)
    with monkeypatch.context() as patch:
        patch.setattr(algos.replay.storage, "_write_all", write_half)
        with pytest.raises(OSError, match="No space"):
            storage.commit()
        assert new_storage(tmp_path, spec, read_only=True).load(None) == len(segments[0])
    assert storage.commit() != durable
    storage.close()
    assert_same(memory_after(spec, segments), restored(tmp_path, spec)[0])


def test_only_what_is_new_is_written(tmp_path: Path) -> None:
    spec = make_spec(2, 2, 2)
    segments = segments_of(spec, 30)
    with new_storage(tmp_path, spec) as storage:
        for segment in segments[:29]:
            storage.append(segment)
        storage.commit()
        before = {path: path.stat().st_size for path in chunk_files(tmp_path)}
        times = {path: path.stat().st_mtime_ns for path in before}
        storage.append(segments[29])
        storage.position()
    changed = [path for path in chunk_files(tmp_path) if times.get(path) != path.stat().st_mtime_ns]
    assert len(changed) == 1
    assert changed[0].stat().st_size - before.get(changed[0], 0) < 1500


def test_images_come_back_bit_by_bit_whether_they_compress_or_not(tmp_path: Path) -> None:
    spec = make_spec(1, 1, 1)
    spec = replace(spec, fields=tuple(replace(f, shape=(1, 32, 32)) if f.name == "images" else f for f in spec.fields))
    (segment,) = segments_of(make_spec(1, 1, 1), 1)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (len(segment), 32, 32), np.uint8)
    smooth = np.broadcast_to(np.arange(32, dtype=np.uint8), (len(segment), 32, 32))
    sizes = []
    for name, images in (("noise", noise), ("smooth", smooth)):
        with new_storage(tmp_path / name, spec) as storage:
            storage.append(replace(segment, frames={**segment.frames, "images": images}))
        memory, _ = restored(tmp_path / name, spec)
        assert memory.total_rows == len(segment)
        columns = memory._columns.frames["images"]
        np.testing.assert_array_equal(columns[: len(segment)], images)
        sizes.append(sum(path.stat().st_size for path in chunk_files(tmp_path / name)))
    assert sizes[1] < sizes[0] / 3


def test_checksums_of_samples_survive(tmp_path: Path) -> None:
    spec = make_spec(3, 2, 2)
    with new_storage(tmp_path, spec) as storage:
        for segment in segments_of(spec, 20, checksums=True):
            storage.append(segment)
    memory = ReplayMemory(spec, CAPACITY, 1, 0.9, seed=0, check_samples=True)
    new_storage(tmp_path, spec).load(memory)
    memory.sample(64)
    assert memory._checksums is not None
    memory._checksums[:] = 1
    with pytest.raises(ValueError, match="check_samples"):
        memory.sample(1)


def test_a_replay_of_another_observation_is_refused(tmp_path: Path) -> None:
    with new_storage(tmp_path, make_spec(2, 2, 2)) as storage:
        storage.append(segments_of(make_spec(2, 2, 2), 1)[0])
    other = make_spec(2, 2, 3)
    with pytest.raises(ValueError, match="another observation"):
        new_storage(tmp_path, other).load(new_memory(other))


def test_stored_rows_are_never_overwritten_unread(tmp_path: Path) -> None:
    spec = make_spec(1, 1, 1)
    segments = segments_of(spec, 2)
    with new_storage(tmp_path, spec) as storage:
        storage.append(segments[0])
    with pytest.raises(ValueError, match="load"):
        new_storage(tmp_path, spec).append(segments[1])


def test_making_a_storage_touches_no_file(tmp_path: Path) -> None:
    with new_storage(tmp_path / "replay", make_spec(1, 1, 1)) as storage:
        assert storage.commit() == {}
        assert storage.position() == {"rows": 0, "received": {}}
        storage.close()
    assert not (tmp_path / "replay").exists()
