"""A typed key is noticed without waiting, and a program without input works too."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.roles.record.stop_key import StopKey


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def test_the_key_is_noticed_among_others_and_stays_noticed(pipe: tuple[int, int]) -> None:
    key = StopKey("q", pipe[0])
    assert not key.is_pressed()
    os.write(pipe[1], b"hello\n")
    assert not key.is_pressed()
    os.write(pipe[1], b"x")
    os.write(pipe[1], b"q\n")
    assert key.is_pressed()
    assert key.is_pressed()


def test_a_key_in_a_terminal_counts_once_enter_is_pressed() -> None:
    master, terminal = pty.openpty()
    try:
        key = StopKey("q", terminal)
        os.write(master, b"q")
        assert not key.is_pressed()
        os.write(master, b"\n")
        assert key.is_pressed()
    finally:
        os.close(master)
        os.close(terminal)


def test_letters_beyond_ascii_are_read(pipe: tuple[int, int]) -> None:
    key = StopKey("q", pipe[0])
    os.write(pipe[1], b"\xff\xfe \xc3\xa9q")
    assert key.is_pressed()


def test_the_end_of_the_input_is_not_a_key(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    descriptor = os.open(empty, os.O_RDONLY)
    try:
        key = StopKey("q", descriptor)
        assert not key.is_pressed()
        assert not key.is_pressed()
    finally:
        os.close(descriptor)


def test_a_program_without_an_input_never_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert not StopKey("q").is_pressed()
