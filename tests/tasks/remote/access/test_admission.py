"""Refusals in the log: each its line, a flood of them not."""

from __future__ import annotations

import logging

import pytest

from tasks.remote.access.admission import LINE_EVERY_S, MAX_REFUSAL_LINES, Caller, Refusals


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_each_refusal_is_a_line_until_there_are_too_many(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for i in range(1000):
        refusals.note("ipv4:10.0.0.9:1", f"reason {i}")
    assert [record.getMessage() for record in caplog.records] == [
        f"refused ipv4:10.0.0.9:1: reason {i}" for i in range(MAX_REFUSAL_LINES)
    ]
    assert refusals.count == 1000
    caplog.clear()
    clock.now_s += LINE_EVERY_S
    refusals.note("ipv4:10.0.0.9:1", "once more")
    refusals.note("ipv4:10.0.0.9:1", "and again")
    hidden = 1000 - MAX_REFUSAL_LINES
    assert [record.getMessage() for record in caplog.records] == [
        f"refused ipv4:10.0.0.9:1: once more ({hidden} more were not shown)"
    ]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_after_a_quiet_time_each_is_a_line_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for _ in range(100):
        refusals.note("p", "r")
    caplog.clear()
    clock.now_s += 10 * MAX_REFUSAL_LINES * LINE_EVERY_S
    for _ in range(100):
        refusals.note("p", "r")
    assert len(caplog.records) == MAX_REFUSAL_LINES


def test_a_caller_does_not_show_its_token() -> None:
    assert "secret" not in f"{Caller('alice.1', 'alice', 'secret')!r} {Caller('alice.1', 'alice', 'secret')}"
