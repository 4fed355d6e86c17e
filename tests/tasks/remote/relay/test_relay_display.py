"""What a relay shows must not decide whether it runs."""

from __future__ import annotations

import io
import threading

import pytest

from tasks.remote.relay import relay_display
from tasks.remote.relay.relay_display import RelayState


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
    """Its terminal goes at the first look; it ends with the sixth."""

    def __init__(self, terminal: FadingTerminal, stop: threading.Event) -> None:
        self._terminal = terminal
        self._stop = stop
        self.looks = 0

    def state(self) -> RelayState:
        self._terminal.is_gone = True
        self.looks += 1
        if self.looks > 5:
            self._stop.set()
        return RelayState("127.0.0.1:1", "", (), 0.0, 0, 0, False)


def test_a_relay_goes_on_when_its_terminal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(relay_display, "REDRAW_EVERY_S", 0.001)
    terminal = FadingTerminal()
    monkeypatch.setattr("sys.stderr", terminal)
    stop = threading.Event()
    relay = FakeRelay(terminal, stop)
    relay_display.watch(relay, stop, is_plain=False)
    assert relay.looks == 6
