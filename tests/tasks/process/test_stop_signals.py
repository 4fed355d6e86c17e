"""Signals that stop a program, and processes that ignore them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

import train
from tasks.process.stop_signals import answered_by, as_interrupt, ignore_terminal, stop_signals

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Sets the signal handlers that Python has at the start, and restores the old ones afterwards."""
    before = {number: signal.getsignal(number) for number in ALL}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_closed_terminal_stops_a_program_like_ctrl_c_and_sigterm() -> None:
    assert stop_signals() == ALL


def test_nohup_keeps_a_program_running_when_its_terminal_is_closed() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert stop_signals() == (signal.SIGINT, signal.SIGTERM)
    with as_interrupt():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", ALL)
def test_every_stop_signal_interrupts_and_the_handlers_are_restored(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), as_interrupt():
        signal.raise_signal(number)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_an_existing_handler_is_kept() -> None:
    seen: list[int] = []

    def mine(number: int, _: object) -> None:
        seen.append(number)

    signal.signal(signal.SIGTERM, mine)
    with as_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert seen == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is mine


def test_a_child_process_ignores_the_signals_of_the_terminal() -> None:
    ignore_terminal()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("number", ALL)
def test_a_command_that_a_signal_ends_reports_it(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: object) -> int:
        signal.raise_signal(number)
        return 0

    monkeypatch.setattr(train, "_command", command)
    assert train.main([]) == 130
    assert capsys.readouterr().err == "train.py: interrupted\n"


def test_a_command_with_a_closed_terminal_still_has_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _: str) -> None:
            raise OSError(5, "Input/output error")

    def command(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_command", command)
    monkeypatch.setattr("sys.stderr", Gone())
    assert train.main([]) == 130


def test_the_first_signal_is_answered_and_ctrl_c_after_it_interrupts() -> None:
    answers: list[str] = []
    with answered_by(lambda: answers.append("stop")):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        assert answers == ["stop"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
