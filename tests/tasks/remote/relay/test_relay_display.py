"""What a relay shows must not decide whether it runs."""

from __future__ import annotations

import io
import threading

import pytest

from tasks.remote.relay.relay_display import RelayState, watch


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


class FakeRelay:
    """Its terminal goes at the first look; it cannot go on after five more."""

    def __init__(self, terminal: FadingTerminal) -> None:
        self._terminal = terminal
        self.looks = 0

    def state(self) -> RelayState:
        return RelayState("127.0.0.1:1", "", (), 0.0, 0, 0, False)

    def wait(self, timeout_s: float) -> bool:
        self._terminal.is_gone = True
        self.looks += 1
        return self.looks > 5


def test_a_relay_goes_on_when_its_terminal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = FadingTerminal()
    monkeypatch.setattr("sys.stderr", terminal)
    relay = FakeRelay(terminal)
    watch(relay, threading.Event(), is_plain=False)
    assert relay.looks == 6
