"""The line of a remote worker: what it says, and how it is written on a terminal and elsewhere."""

from __future__ import annotations

import io
import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from tasks.remote.station import live_line
from tasks.remote.station.station_config import StationStatus
from tasks.remote.worker import worker_display
from tasks.remote.worker.acting_loop import Progress
from tasks.remote.worker.worker_display import WorkerDisplay

CONNECTED = StationStatus(
    worker="pc.0123abcd",
    segments=3,
    num_bytes=2_400_000,
    dropped=7,
    is_connected=True,
    has_joined=True,
    weights_version=42,
    round_trip_ms=31.4,
)


class Fake(Progress):
    """A station and the progress of driving in one."""

    def __init__(self, status: StationStatus = CONNECTED) -> None:
        super().__init__()
        self.status = status


def display_of(fake: Fake, **kwargs: Any) -> WorkerDisplay:
    return WorkerDisplay("learner.example.org:55555", lambda: fake.status, fake, **({"stream": io.StringIO()} | kwargs))


def test_the_line_says_where_how_fast_what_waits_and_with_which_weights() -> None:
    fake = Fake()
    display = display_of(fake)
    display.line(100.0)
    fake.num_acts, fake.num_episodes, fake.last_return = 200, 4, 12.34
    assert display.line(110.0) == (
        "pc.0123abcd connected to learner.example.org:55555 (31 ms) | 20.0 acts/s | 4 episodes | last return 12.3 | "
        "outbox 3 (2.4 MB) | weights 42 | dropped 7"
    )


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    fake = Fake()
    display = display_of(fake)
    for second in range(31):
        display.line(float(second))
        fake.num_acts += 20 if second < 15 else 5
    assert " | 5.0 acts/s | " in display.line(31.0)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (StationStatus(), "connecting to learner.example.org:55555 | 0.0 acts/s | outbox 0 (0.0 MB) | no weights yet"),
        (
            replace(CONNECTED, is_connected=False, trouble="cannot be reached (UNAVAILABLE: Connection refused)"),
            "learner.example.org:55555 cannot be reached (UNAVAILABLE: Connection refused) | ",
        ),
        (replace(CONNECTED, round_trip_ms=None), "pc.0123abcd connected to learner.example.org:55555 | "),
    ],
)
def test_the_line_begins_with_the_connection(status: StationStatus, words: str) -> None:
    assert display_of(Fake(status)).line(0.0).startswith(words)


@pytest.mark.parametrize(
    ("full", "words"), [("", "waiting: the learner is behind"), ("1000 MB are reached", "waiting: 1000 MB are reached")]
)
def test_a_worker_that_waits_says_for_what(full: str, words: str) -> None:
    fake = Fake(replace(CONNECTED, full=full))
    fake.is_waiting = True
    assert display_of(fake).line(0.0).endswith(words)


def wait_for(stream: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + 30.0
    while text not in stream.getvalue():
        assert time.monotonic() < deadline, stream.getvalue()[-300:]
        time.sleep(0.01)


def test_elsewhere_than_on_a_terminal_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_display, "LINE_EVERY_S", 0.05)
    stream = io.StringIO()
    with display_of(Fake(), stream=stream):
        wait_for(stream, "dropped 7\npc.0123abcd connected")
    assert "\x1b" not in stream.getvalue()


class Terminal(io.StringIO):
    """Claims to be one."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_line_is_redrawn_below_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(live_line, "REDRAW_EVERY_S", 0.05)
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger()
    logger.addHandler(handler)
    try:
        with display_of(Fake(), stream=stream):
            wait_for(stream, "weights 42 | dropped 7")  # all of it, also on 80 columns
            logger.warning("something happened")
            wait_for(stream, "something happened\n")
        assert handler.stream is stream
    finally:
        logger.removeHandler(handler)
    assert "\x1b" in stream.getvalue()  # it was redrawn in place


def test_headless_means_plain_lines_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(worker_display, "LINE_EVERY_S", 0.05)
    stream = Terminal()
    with display_of(Fake(), stream=stream, is_plain=True):
        wait_for(stream, "dropped 7\n")
    assert "\x1b[2K" not in stream.getvalue()


@pytest.mark.parametrize("is_plain", [False, True])
def test_nothing_breaks_when_nobody_can_read_it(is_plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

        def write(self, _: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("tasks.remote.worker.worker_display.LINE_EVERY_S", 0.0)
    with display_of(Fake(), is_plain=is_plain, stream=Gone()) as display:
        display._thread.join(5.0)
        assert not display._thread.is_alive()
