"""The virtual gamepad through the real vgamepad and libevdev, down to the values of the kernel's events.

Only the kernel's side is replaced: ``/dev/uinput`` by a pipe, and libevdev's uinput device by one that records
its calls. Of the Windows half of vgamepad only the failures are tested.
"""

from __future__ import annotations

import builtins
import errno
import importlib.util
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tasks.config import ControlKind
from tasks.game.errors import GameSetupError
from tasks.live.controls import exit_release, gamepad
from tasks.live.controls.controls import make_controls
from tasks.live.controls.gamepad import GamepadControls
from tests.tasks.live import displays

needs_vgamepad = pytest.mark.skipif(
    importlib.util.find_spec("vgamepad") is None or importlib.util.find_spec("libevdev") is None,
    reason="vgamepad is not installed: pip install '.[dev]'",
)

# linux/input-event-codes.h
EV_SYN, EV_KEY, EV_ABS = 0, 1, 3
ABS_X, ABS_Y, ABS_Z, ABS_RZ = 0, 1, 2, 5
BTN_SOUTH, BTN_EAST = 0x130, 0x131


def control(gas: float, brake: float, steer: float) -> np.ndarray:
    return np.array([gas, brake, steer], np.float32)


class FakeKernel:
    """Records what reaches the kernel: every event, and the state at each report."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int, int]] = []
        self.reports: list[dict[tuple[int, int], int]] = []
        self.devices = 0
        self.opened: list[str] = []
        self.error: OSError | None = None
        self._state: dict[tuple[int, int], int] = {}

    def write(self, kind: int, code: int, value: int) -> None:
        if self.error is not None:
            raise OSError(*self.error.args)  # a new one: an error holds on to where it was raised
        self.events.append((kind, code, value))
        if kind == EV_SYN:
            self.reports.append(dict(self._state))
        else:
            self._state[kind, code] = value

    def history(self, kind: int, code: int) -> list[int]:
        """Value of one axis or button at each report."""
        return [report[kind, code] for report in self.reports]

    def is_neutral(self) -> bool:
        return all(value in (0, -1) for value in self.reports[-1].values())  # ~0 is -1: vgamepad inverts the Y axes


@pytest.fixture
def libevdev_library() -> None:
    """Skips the test if the library itself is missing; the Python package only loads it."""
    try:
        import libevdev

        libevdev.Device()
    except OSError as error:
        displays.give_up(f"{error}: {displays.APT_COMMAND}")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, libevdev_library: None) -> Iterator[FakeKernel]:
    import libevdev.device
    import vgamepad.lin.virtual_gamepad as virtual_gamepad

    fake = FakeKernel()
    write_ends: list[int] = []

    class FakeUinputDevice:
        def __init__(self, source: Any, file: Any = None) -> None:
            fake.devices += 1

        def write_event(self, kind: int, code: int, value: int) -> None:
            fake.write(kind, code, value)

        def __del__(self) -> None:
            fake.devices -= 1

    def fake_open(path: str, *args: Any, **kwargs: Any) -> Any:
        fake.opened.append(path)
        read_end, write_end = os.pipe()  # force feedback is read from it
        write_ends.append(write_end)
        return builtins.open(read_end, "rb", buffering=0)

    monkeypatch.setattr(libevdev.device, "UinputDevice", FakeUinputDevice)
    monkeypatch.setattr(virtual_gamepad, "open", fake_open, raising=False)
    yield fake
    for write_end in write_ends:
        os.close(write_end)


# --- what the kernel sees ---


@needs_vgamepad
def test_gas_brake_and_steer_reach_the_kernel_as_an_xbox_pad(kernel: FakeKernel) -> None:
    with GamepadControls() as controls:
        assert kernel.opened == ["/dev/uinput"]
        assert kernel.is_neutral()
        start, reports = len(kernel.events), len(kernel.reports)
        controls.send(control(1.0, 0.25, -0.5))
        sent = set(kernel.events[start:])
        assert {(EV_ABS, ABS_RZ, 255), (EV_ABS, ABS_Z, 64), (EV_ABS, ABS_X, -16384)} <= sent
        assert kernel.events[-1] == (EV_SYN, 0, 0)
        assert len(kernel.reports) == reports + 1


@needs_vgamepad
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((-1.0, -0.5, 0.0), (0, 0, 0)),  # a trigger has no negative side
        ((0.1, 1.0, 1.0), (26, 255, 32767)),  # 0.1 x 255 = 25.5; banker's rounding
        ((7.0, 0.0, -7.0), (255, 0, -32767)),  # cut to the range
        ((1.0, 1.0, 0.0), (255, 255, 0)),
    ],
)
def test_values_of_triggers_and_stick(
    kernel: FakeKernel, values: tuple[float, ...], expected: tuple[int, int, int]
) -> None:
    with GamepadControls() as controls:
        controls.send(control(*values))
        last = kernel.reports[-1]
        assert (last[EV_ABS, ABS_RZ], last[EV_ABS, ABS_Z], last[EV_ABS, ABS_X]) == expected


@needs_vgamepad
def test_none_sends_nothing(kernel: FakeKernel) -> None:
    with GamepadControls() as controls:
        count = len(kernel.events)
        controls.send(None)
        assert len(kernel.events) == count


@needs_vgamepad
@pytest.mark.parametrize("values", [[0.0, 0.0], [0.0, float("nan"), 0.0]])
def test_an_invalid_control_is_refused_and_not_sent(kernel: FakeKernel, values: list[float]) -> None:
    with GamepadControls() as controls:
        count = len(kernel.events)
        with pytest.raises(ValueError, match="control must be"):
            controls.send(np.array(values))
        assert len(kernel.events) == count


@needs_vgamepad
@pytest.mark.parametrize(
    ("tap", "button", "other"),
    [("restart", BTN_EAST, BTN_SOUTH), ("close_popup", BTN_SOUTH, BTN_EAST)],
    ids=["restart is B", "pop-up is A"],
)
def test_a_tap_is_one_press_and_one_release_with_the_pad_neutral(
    kernel: FakeKernel, tap: str, button: int, other: int
) -> None:
    with GamepadControls() as controls:
        controls.send(control(1.0, 0.0, 1.0))
        before = len(kernel.reports)
        getattr(controls, tap)()
        assert kernel.history(EV_KEY, button)[before:] == [1, 0]
        assert not any(kernel.history(EV_KEY, other))
        assert kernel.history(EV_ABS, ABS_RZ)[before:] == [0, 0]
        assert kernel.history(EV_ABS, ABS_X)[before:] == [0, 0]


# --- nothing stays pressed ---


@needs_vgamepad
def test_release_close_and_exceptions_leave_it_neutral(kernel: FakeKernel) -> None:
    controls = GamepadControls()
    controls.send(control(1.0, 1.0, 1.0))
    controls.release()
    assert kernel.is_neutral()

    def crash() -> None:
        with controls:
            controls.send(control(1.0, 1.0, 1.0))
            assert not kernel.is_neutral()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crash()
    assert kernel.is_neutral()


@needs_vgamepad
def test_an_interrupt_within_a_tap_leaves_it_neutral(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with GamepadControls() as controls:
        monkeypatch.setattr(gamepad.time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            controls.restart()
        assert kernel.history(EV_KEY, BTN_EAST)[-2:] == [1, 0]
        assert kernel.is_neutral()


@needs_vgamepad
def test_the_end_of_the_program_leaves_it_neutral(kernel: FakeKernel) -> None:
    with GamepadControls() as controls:
        controls.send(control(1.0, 1.0, 1.0))
        exit_release.release_all()
        assert kernel.is_neutral()


@needs_vgamepad
def test_closing_twice_removes_the_device_and_its_thread(kernel: FakeKernel) -> None:
    before = threading.active_count()
    controls = GamepadControls()
    assert kernel.devices == 1
    controls.close()
    controls.close()
    assert kernel.devices == 0
    assert threading.active_count() == before
    controls.release()
    with pytest.raises(RuntimeError, match="closed"):
        controls.send(control(1.0, 0.0, 0.0))


@needs_vgamepad
def test_a_removed_device_can_still_be_closed(kernel: FakeKernel, caplog: pytest.LogCaptureFixture) -> None:
    controls = GamepadControls()
    kernel.error = OSError(errno.ENODEV, "No such device")
    controls.close()
    assert "No such device" in caplog.text
    assert kernel.devices == 0


@needs_vgamepad
def test_the_configured_control_is_the_gamepad(kernel: FakeKernel) -> None:
    class NoWindow:
        def is_focused(self) -> bool:
            raise AssertionError("a gamepad needs no focus")

        focus = is_focused

    with make_controls(ControlKind.gamepad, NoWindow()) as controls:  # type: ignore[arg-type, attr-defined]
        controls.send(control(1.0, 0.0, 0.0))
        assert kernel.reports[-1][EV_ABS, ABS_RZ] == 255


# --- a machine that cannot ---


def fail_with(error: BaseException) -> Callable[..., Any]:
    def fail(*args: object, **kwargs: object) -> Any:
        raise error

    return fail


def fake_vgamepad(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    module = types.ModuleType("vgamepad")
    module.VX360Gamepad = fail_with(error)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vgamepad", module)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/dev/uinput"), ["udev/rules.d", gamepad.UDEV_RULE]),
        (FileNotFoundError(errno.ENOENT, "No such file", "/dev/uinput"), ["modprobe uinput", "modules-load.d"]),
        (OSError(errno.ENODEV, "No such device", "/dev/uinput"), ["modprobe uinput"]),
        (OSError("libevdev.so.2: cannot open shared object file"), ["apt install libevdev2"]),
    ],
    ids=["permission", "no device file", "no driver", "no library"],
)
def test_linux_says_what_is_missing_and_the_fix(
    monkeypatch: pytest.MonkeyPatch, error: OSError, expected: list[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    fake_vgamepad(monkeypatch, error)
    with pytest.raises(GameSetupError) as raised:
        GamepadControls()
    for words in [*expected, str(error), "task.control=keyboard"]:
        assert words in str(raised.value)


@pytest.mark.parametrize("error", [RuntimeError("Error: VIGEM_ERROR_BUS_NOT_FOUND"), OSError("ViGEmClient.dll")])
def test_windows_says_that_the_driver_is_missing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    fake_vgamepad(monkeypatch, error)
    with pytest.raises(GameSetupError) as raised:
        GamepadControls()
    for words in ["ViGEmBus", "https://github.com/nefarius/ViGEmBus/releases", str(error), "task.control=keyboard"]:
        assert words in str(raised.value)


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_a_missing_package_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setitem(sys.modules, "vgamepad", None)
    with pytest.raises(GameSetupError, match=r"vgamepad.*pip install '\.\[game\]'"):
        GamepadControls()


@needs_vgamepad
@pytest.mark.skipif(os.path.exists("/dev/uinput") or sys.platform != "linux", reason="this machine has uinput")
@pytest.mark.usefixtures("libevdev_library")
def test_the_real_library_reports_a_kernel_without_uinput() -> None:
    with pytest.raises(GameSetupError, match=r"/dev/uinput[\s\S]*modprobe uinput"):
        GamepadControls()
