"""Drives the live game with a virtual Xbox 360 gamepad, through vgamepad: ViGEmBus on Windows, uinput on Linux.

``tasks.live.controls.controls`` builds this for ``task.control=gamepad``. The Windows half has never run.
"""

from __future__ import annotations

import errno
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from tasks.game.errors import GameSetupError
from tasks.live.controls import exit_release
from tasks.live.controls.keyboard import PRESS_S, checked_control

_log = logging.getLogger(__name__)

BUTTON_A = 0x1000
"""Leaves the finish screen."""
BUTTON_B = 0x2000
"""Back to the start of the track, with the game's default bindings."""

UDEV_RULE = 'KERNEL=="uinput", SUBSYSTEM=="misc", OPTIONS+="static_node=uinput", TAG+="uaccess"'
"""Lets the user who sits at the machine make virtual devices; its file must sort before 73-seat-late.rules."""

_OTHERWISE = "Or drive by keyboard: task.control=keyboard"
_LOCK_TIMEOUT_S = 0.5


class GamepadControls:
    """A ``ControlSink`` over a virtual gamepad; TMRL's mapping.

    | control | gamepad |
    |---|---|
    | gas > 0 | right trigger |
    | brake > 0 | left trigger |
    | steer | left stick, right is positive |
    | restart | B for 0.1 s |
    | finish screen | A for 0.1 s |

    Args:
        make_pad: Makes the device, as ``vgamepad.VX360Gamepad``; None: that.

    Raises:
        GameSetupError: If a package, the driver or a permission is missing; the message has the fix.
    """

    def __init__(self, make_pad: Callable[[], Any] | None = None) -> None:
        self._pad = (make_pad or _make_pad)()
        # The environment's thread drives while another one may close.
        self._lock = threading.RLock()
        self._unregister = exit_release.register(self._release_at_exit)
        self.release()

    def send(self, control: np.ndarray | None) -> None:
        """Sends a control; None sends nothing."""
        if control is None:
            return
        gas, brake, steer = checked_control(control)
        with self._lock:
            pad = self._open_pad()
            pad.right_trigger_float(value_float=max(gas, 0.0))
            pad.left_trigger_float(value_float=max(brake, 0.0))
            pad.left_joystick_float(x_value_float=steer, y_value_float=0.0)
            pad.update()

    def restart(self) -> None:
        """Presses B for 0.1 s, with everything else neutral."""
        self._tap(BUTTON_B)

    def close_popup(self) -> None:
        """Presses A for 0.1 s, with everything else neutral."""
        self._tap(BUTTON_A)

    def release(self) -> None:
        """Sets all controls to neutral."""
        with self._lock:
            if self._pad is not None:
                self._pad.reset()
                self._pad.update()

    def close(self) -> None:
        """Sets all controls to neutral, then removes the device. Calling it twice is fine."""
        with self._lock:
            if self._pad is None:
                return
            try:
                self.release()
            except (OSError, RuntimeError) as error:
                # As text: the error would keep the device alive.
                _log.warning("the gamepad could not be released: %s", str(error))
            self._unregister()
            self._pad = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tap(self, button: int) -> None:
        with self._lock:
            pad = self._open_pad()
            pad.reset()
            try:
                pad.press_button(button=button)
                pad.update()
                time.sleep(PRESS_S)
            finally:
                self.release()

    def _open_pad(self) -> Any:
        if self._pad is None:
            raise RuntimeError("these gamepad controls are closed; make new ones")
        return self._pad

    def _release_at_exit(self) -> None:
        """The device ends with the process; this makes it neutral before."""
        if self._lock.acquire(timeout=_LOCK_TIMEOUT_S):
            try:
                self.release()
            finally:
                self._lock.release()


def _make_pad() -> Any:
    if sys.platform == "win32":
        return _make_vigem_pad()
    return _make_uinput_pad()


def _make_vigem_pad() -> Any:
    try:
        import vgamepad  # connects to the driver at once

        return vgamepad.VX360Gamepad()
    except ImportError as error:
        raise GameSetupError(_package_message(error)) from error
    except Exception as error:  # RuntimeError in 0.2, plain Exception before
        raise GameSetupError(vigem_message(error)) from error


def _make_uinput_pad() -> Any:
    try:
        import vgamepad  # loads libevdev

        return vgamepad.VX360Gamepad()
    except ImportError as error:
        raise GameSetupError(_package_message(error)) from error
    except OSError as error:
        raise GameSetupError(uinput_message(error)) from error


def _package_message(error: ImportError) -> str:
    return f"the virtual gamepad needs the package vgamepad ({error}): pip install '.[game]'. {_OTHERWISE}"


def vigem_message(error: Exception) -> str:
    """What to do about a failure of the driver on Windows."""
    return (
        f"the virtual gamepad needs the driver ViGEmBus, which does not answer ({error}): install ViGEmBus 1.22 from "
        f"https://github.com/nefarius/ViGEmBus/releases and restart Windows. {_OTHERWISE}"
    )


def uinput_message(error: OSError) -> str:
    """What to do about a failure of libevdev or the kernel's uinput on Linux."""
    if "libevdev" in str(error):
        return (
            f"the virtual gamepad needs the library libevdev ({error}): sudo apt install libevdev2 (or your "
            f"distribution's libevdev). {_OTHERWISE}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"the virtual gamepad needs to write to /dev/uinput, which this user may not ({error}). Allow it once:\n"
            f"  echo '{UDEV_RULE}' | sudo tee /etc/udev/rules.d/60-uinput.rules\n"
            "  sudo udevadm control --reload && sudo udevadm trigger --name-match=uinput\n"
            f"then log out and in again. {_OTHERWISE}"
        )
    return (
        f"the virtual gamepad needs the kernel's uinput ({error}). Load it now and at each start:\n"
        "  sudo modprobe uinput && echo uinput | sudo tee /etc/modules-load.d/uinput.conf\n"
        f"A kernel built without it, as in most containers, has none. {_OTHERWISE}"
    )
