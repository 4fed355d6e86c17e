"""Keys through a real X server: a window receives them, and none stays pressed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tasks.config import ControlKind
from tasks.game.arrow_keys import press_arrows
from tasks.game.errors import GameSetupError, WindowError, WindowState
from tasks.live.controls import exit_release
from tasks.live.controls.controls import NoControls, _keeps_focus, make_controls
from tasks.live.controls.keyboard import KeyboardControls, keys_for
from tasks.live.controls.keys import Key
from tests.tasks.live.displays import x_server

if TYPE_CHECKING:
    from tests.tasks.live.key_window import KeyWindow

ROOT = Path(__file__).resolve().parents[4]
WAIT_LIMIT_S = 60.0


def control(gas: float, brake: float, steer: float) -> np.ndarray:
    return np.array([gas, brake, steer], np.float32)


class FakeKeys:
    """Records the sent keys."""

    def __init__(self) -> None:
        self.sent: list[tuple[list[Key], list[Key]]] = []
        self.frees = 0
        self.closes = 0
        self.error: Exception | None = None

    def send(self, released: Collection[Key], pressed: Collection[Key]) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((list(released), list(pressed)))

    def free(self) -> None:
        self.frees += 1

    def close(self) -> None:
        self.closes += 1


class FakeWindow:
    """A window that gains and loses the focus."""

    def __init__(self) -> None:
        self.has_focus = True
        self.is_gone = False
        self.focuses = 0

    def is_focused(self) -> bool:
        if self.is_gone:
            raise WindowError(WindowState.closed, "the window is closed")
        return self.has_focus

    def focus(self) -> None:
        self.focuses += 1
        self.has_focus = True


@pytest.fixture
def window(display: str) -> Iterator[KeyWindow]:
    from tests.tasks.live.key_window import KeyWindow

    with KeyWindow(display) as key_window:
        yield key_window


# --- which keys ---


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1.0, 0.0, 0.0), {Key.gas}),
        ((0.01, 0.01, 0.0), {Key.gas, Key.brake}),
        ((0.0, 0.0, 0.5), set()),
        ((-1.0, -1.0, 0.51), {Key.right}),
        ((0.0, 1.0, -0.51), {Key.brake, Key.left}),
    ],
)
def test_thresholds_are_those_of_the_binary_arrows(values: tuple[float, ...], expected: set[Key]) -> None:
    assert keys_for(np.array(values, np.float32)) == expected


def test_binary_arrows_of_the_task_press_the_same_keys_as_the_analog_action() -> None:
    levels = np.linspace(-1.0, 1.0, 9, dtype=np.float32)
    for values in itertools.product(levels, repeat=3):
        analog = np.array(values, np.float32)
        assert keys_for(press_arrows(analog)) == keys_for(analog)


@pytest.mark.parametrize("values", [[1.0, 0.0], [float("nan"), 0.0, 0.0], [0.0, 0.0, float("inf")]])
def test_an_invalid_control_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="control must be"):
        keys_for(np.array(values))


# --- when they are sent ---


def test_only_changes_are_sent() -> None:
    keys = FakeKeys()
    with KeyboardControls(sender=keys) as controls:
        for values in [(1, 0, 0), (0.5, 0, 0), (1, 0, -1), (1, 0, 1), (1, 0, 1)]:
            controls.send(control(*values))
        controls.send(None)
        assert keys.sent == [([], [Key.gas]), ([], [Key.left]), ([Key.left], [Key.right])]
        controls.release()
        controls.release()
        assert keys.sent[3:] == [([Key.gas, Key.right], [])]


def test_focus_is_asserted_before_each_send_that_needs_it() -> None:
    keys = FakeKeys()
    order: list[str] = []

    def focus() -> bool:
        order.append(f"focus after {len(keys.sent)}")
        return False

    with KeyboardControls(focus, sender=keys) as controls:
        controls.send(control(0, 0, 0))
        assert order == []
        controls.send(control(1, 0, 0))
        controls.send(control(1, 0, 0))
        assert order == ["focus after 0", "focus after 1"]


def test_keys_that_are_held_are_pressed_anew_when_the_focus_was_lost() -> None:
    keys, window = FakeKeys(), FakeWindow()
    with KeyboardControls(_keeps_focus(window), sender=keys) as controls:
        controls.send(control(1, 0, 0))
        window.has_focus = False
        controls.send(control(1, 0, 0))
        assert window.focuses == 1
        assert keys.sent == [([], [Key.gas]), ([Key.gas], [Key.gas])]
        controls.send(control(1, 0, 0))
        assert len(keys.sent) == 2


def test_everything_is_released_when_the_window_is_closed() -> None:
    keys, window = FakeKeys(), FakeWindow()
    with KeyboardControls(_keeps_focus(window), sender=keys) as controls:
        controls.send(control(1, 0, 1))
        window.is_gone = True
        with pytest.raises(WindowError):
            controls.send(control(1, 0, 1))
        assert keys.sent[-1] == ([Key.gas, Key.right], [])
        assert controls.held == frozenset()
        with pytest.raises(WindowError):
            controls.restart()
        controls.send(control(0, 0, 0))  # needs no window
        window.is_gone = False
        controls.send(control(1, 0, 0))
        assert controls.held == {Key.gas}


def test_a_key_whose_sending_failed_counts_as_pressed_until_released() -> None:
    keys = FakeKeys()
    with KeyboardControls(sender=keys) as controls:
        keys.error = GameSetupError("the X server is gone")
        with pytest.raises(GameSetupError):
            controls.send(control(1, 0, 0))
        keys.error = None
        controls.release()
        assert keys.sent == [([Key.gas], [])]


def test_closing_twice_releases_once_and_closed_controls_refuse() -> None:
    keys = FakeKeys()
    controls = KeyboardControls(sender=keys)
    controls.send(control(0, 1, 0))
    controls.close()
    controls.close()
    assert keys.sent == [([], [Key.brake]), ([Key.brake], [])]
    assert keys.closes == 1
    controls.release()
    with pytest.raises(RuntimeError, match="closed"):
        controls.send(control(1, 0, 0))


# --- a real window ---


def test_a_window_sees_the_keys_in_order(display: str, window: KeyWindow) -> None:
    with KeyboardControls(display=display) as controls:
        controls.send(control(1, 0, -1))
        controls.send(control(1, 0, 0.2))
        controls.send(control(1, 1, 1))
        assert window.events(5) == [
            ("down", "Up"), ("down", "Left"), ("up", "Left"), ("down", "Down"), ("down", "Right"),
        ]  # fmt: skip
        assert window.down() == {"Up", "Down", "Right"}
        controls.release()
        assert window.down() == set()


def test_restart_and_pop_up_are_taps_without_other_keys(display: str, window: KeyWindow) -> None:
    with KeyboardControls(display=display) as controls:
        controls.send(control(1, 0, 0))
        controls.restart()
        controls.close_popup()
        assert window.events(6) == [
            ("down", "Up"), ("up", "Up"),
            ("down", "BackSpace"), ("up", "BackSpace"),
            ("down", "Return"), ("up", "Return"),
        ]  # fmt: skip
        assert window.down() == set()


def test_keys_reach_the_game_after_another_window_had_the_focus(display: str, window: KeyWindow) -> None:
    from tests.tasks.live.key_window import KeyWindow

    with make_controls(ControlKind.keyboard, window, display) as controls:  # type: ignore[attr-defined]
        controls.send(control(1, 0, 0))
        assert window.events(1) == [("down", "Up")]
        with KeyWindow(display) as other:
            assert not window.is_focused()
            controls.send(control(1, 0, 0))
            assert window.is_focused()
            assert window.events(3) == [("down", "Up"), ("up", "Up"), ("down", "Up")]
            assert other.events(0) == []


def test_close_and_exceptions_release(display: str, window: KeyWindow) -> None:
    def crash(controls: KeyboardControls) -> None:
        with controls:
            controls.send(control(1, 0, 1))
            assert window.down() == {"Up", "Right"}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crash(KeyboardControls(display=display))
    assert window.down() == set()


def test_keys_left_pressed_by_a_killed_program_are_released_at_the_next_start(display: str, window: KeyWindow) -> None:
    window.press("Up")
    window.press("a")
    with KeyboardControls(display=display):
        assert window.down() == {"a"}


def test_two_threads_may_drive_and_release(display: str, window: KeyWindow) -> None:
    failures: list[BaseException] = []
    stop = threading.Event()

    def drive(controls: KeyboardControls) -> None:
        try:
            while not stop.is_set():
                for steer in (-1.0, 1.0):
                    controls.send(control(1, 0, steer))
        except BaseException as error:
            failures.append(error)

    with KeyboardControls(display=display) as controls:
        threads = [threading.Thread(target=drive, args=(controls,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(300):
            controls.release()
        stop.set()
        for thread in threads:
            thread.join(WAIT_LIMIT_S)
    assert not failures
    assert window.down() == set()


# --- the end of the program ---

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
from tasks.live.controls import exit_release
from tasks.live.controls.keyboard import KeyboardControls

gas = np.array([1.0, 0.0, 1.0], np.float32)
left = np.array([0.0, 1.0, -1.0], np.float32)

def ready():
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    sys.stdin.readline()
"""


class Program:
    """A program that holds keys: it prints when it does, and continues on request."""

    def __init__(self, display: str, body: str) -> None:
        setup = PRELUDE + f"controls = KeyboardControls(display={display!r})\ncontrols.send(gas)\n"
        self._process = subprocess.Popen(
            [sys.executable, "-c", setup + textwrap.dedent(body)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DISPLAY": ""},
        )

    def wait_ready(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", self.end()

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Sends a signal, or lets the program continue; returns its exit status and output."""
        if number is not None:
            self._process.send_signal(number)
        try:
            _, said = self._process.communicate(None if number is not None else "go on\n", timeout=WAIT_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate(timeout=WAIT_LIMIT_S)
            raise
        return self._process.returncode, said


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("ready(); sys.exit(3)", 3),
        ("ready()", 0),
        ("ready(); raise ValueError('by design')", 1),
        ("ready(); exit_release.release_all(); os._exit(4)", 4),
        ("controls._sender.send = lambda *_: 1 / 0\nready(); controls.close()", 1),
    ],
    ids=["sys.exit", "end", "exception", "os._exit after release_all", "failure while closing"],
)
def test_nothing_stays_pressed_when_the_program_ends(display: str, window: KeyWindow, body: str, status: int) -> None:
    program = Program(display, body)
    program.wait_ready()
    assert window.down() == {"Up", "Right"}
    code, said = program.end()
    assert code == status, said
    assert window.down() == set()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
@pytest.mark.parametrize("is_busy", [False, True], ids=["waiting", "sending"])
def test_nothing_stays_pressed_when_a_signal_ends_the_program(
    display: str, window: KeyWindow, name: str, is_busy: bool
) -> None:
    busy = """
        sys.stdout.write("ready\\n")
        sys.stdout.flush()
        while True:
            controls.send(left)
            controls.send(gas)
    """
    program = Program(display, busy if is_busy else "ready()")
    program.wait_ready()
    if is_busy:
        time.sleep(0.05)
    number = getattr(signal, name)
    code, said = program.end(number)
    # Python turns SIGINT into an exception, and ends with its signal.
    assert code == -number, said
    assert window.down() == set()


def test_controls_opened_in_another_thread_are_released_by_a_signal(display: str, window: KeyWindow) -> None:
    body = """
        controls.close()
        exit_release.handle_signals()

        def drive():
            global controls
            controls = KeyboardControls(display=DISPLAY)
            controls.send(gas)

        thread = threading.Thread(target=drive)
        thread.start()
        thread.join()
        ready()
    """
    program = Program(display, body.replace("DISPLAY", repr(display)))
    program.wait_ready()
    assert window.down() == {"Up", "Right"}
    code, said = program.end(signal.SIGTERM)
    assert code == -signal.SIGTERM, said
    assert window.down() == set()


def test_an_existing_signal_handler_is_kept() -> None:
    def mine(*_: object) -> None:
        raise AssertionError("not called")

    previous = signal.signal(signal.SIGTERM, mine)
    try:
        with KeyboardControls(sender=FakeKeys()):
            assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_the_last_close_restores_the_default_handler() -> None:
    previous = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        first, second = KeyboardControls(sender=FakeKeys()), KeyboardControls(sender=FakeKeys())
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        first.close()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        second.close()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_a_failing_release_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    released: list[str] = []

    def fail() -> None:
        raise OSError("the device is gone")

    undo = [exit_release.register(fail), exit_release.register(lambda: released.append("second"))]
    try:
        exit_release.release_all()
    finally:
        for unregister in undo:
            unregister()
    assert released == ["second"]
    assert "the device is gone" in caplog.text
    exit_release.release_all()
    assert released == ["second"]


# --- a machine that cannot ---


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # python-xlib forgets sockets that did not connect
def test_a_missing_display_is_named_with_the_fix() -> None:
    with pytest.raises(GameSetupError, match=r":4711.*task\.live\.display"):
        KeyboardControls(display=":4711")


def test_an_unset_display_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(GameSetupError, match=r"\$DISPLAY.*task\.live\.display"):
        KeyboardControls()


def test_a_server_without_xtest_is_named_with_the_fix(display: str) -> None:
    del display  # there is an Xvfb
    with x_server(options=["-tst"]) as name, pytest.raises(GameSetupError, match=r"XTEST.*task\.control=gamepad"):
        KeyboardControls(display=name)


def test_a_missing_package_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Xlib", None)
    with pytest.raises(GameSetupError, match=r"python-xlib.*pip install"):
        KeyboardControls(display=":1")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # python-xlib forgets sockets that did not connect
def test_an_x_server_that_ends_is_an_error_not_a_hang(display: str) -> None:
    del display
    with x_server() as name:
        controls = KeyboardControls(display=name)
        controls.send(control(1, 0, 0))
    with pytest.raises(GameSetupError, match=f"{name}"):
        controls.send(control(0, 0, 0))
    controls.close()


# --- no controls ---


def test_null_controls_accept_everything_and_send_nothing() -> None:
    with NoControls() as controls:
        controls.send(control(1, 0, 0))
        controls.restart()
        controls.close_popup()
        controls.release()
