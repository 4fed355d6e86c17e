"""The line of a worker or a relay: what is shown must not decide whether they run."""

from __future__ import annotations

import io
import itertools
import threading

import pytest

from tasks.remote.station import live_line


class FadingTerminal(io.StringIO):
    """A terminal that is closed while something is shown there."""

    encoding = "utf-8"
    is_gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.is_gone:
            raise OSError(5, "Input/output error")
        return len(text)


def test_a_line_is_given_up_when_its_terminal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(live_line, "REDRAW_EVERY_S", 0.001)
    terminal, is_over = FadingTerminal(), threading.Event()
    looks = itertools.count(1)

    def look() -> tuple[str, object]:
        terminal.is_gone = True
        if next(looks) > 5:
            is_over.set()
        return "a line", None

    live_line.show(look, is_over, 1.0, stream=terminal)
    assert next(looks) == 7


def test_a_plain_line_comes_at_once_when_there_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_line, "REDRAW_EVERY_S", 0.001)
    stream, is_over = io.StringIO(), threading.Event()
    news = iter([1, 1, 2, 2, 3, 3])

    def look() -> tuple[str, object]:
        new = next(news, None)
        if new is None:
            is_over.set()
        return f"line {new}", new or 3

    live_line.show(look, is_over, 60.0, stream=stream)
    assert stream.getvalue() == "line 1\nline 2\nline 3\n"
