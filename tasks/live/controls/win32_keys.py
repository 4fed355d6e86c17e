"""Sends keys through Windows' SendInput, as scan codes. Used by ``tasks.live.controls.keyboard``.

Games read scan codes, not virtual keys. Written after Microsoft's documentation of SendInput and INPUT; it has never
run on Windows. The structures and their contents are tested on Linux.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Collection
from typing import Any

from tasks.game.errors import GameSetupError
from tasks.live.controls.keys import Key

INPUT_KEYBOARD = 1
KEYEVENTF_EXTENDEDKEY = 0x0001
KEYEVENTF_KEYUP = 0x0002
KEYEVENTF_SCANCODE = 0x0008

SCAN_CODES = {
    Key.gas: 0x11,
    Key.brake: 0x1F,
    Key.left: 0x1E,
    Key.right: 0x20,
    Key.restart: 0xE053,
    Key.confirm: 0x1C,
}
"""Scan codes of W, S, A, D, Delete (0xE0: an extended key) and Return: the places of the keys, whatever the layout.

TMRL's keys on Windows; its 0xD3 for Delete is DirectInput's name for the extended key 0x53.
"""

_EXTENDED = 0xE000
_ERROR_ACCESS_DENIED = 5

# Widths as on Windows, where a long has 32 bits: ctypes.wintypes would take Linux' 64.
_LONG, _DWORD, _WORD, _ULONG_PTR = ctypes.c_int32, ctypes.c_uint32, ctypes.c_uint16, ctypes.c_size_t


class KeyboardInput(ctypes.Structure):
    """KEYBDINPUT."""

    _fields_ = (
        ("wVk", _WORD),
        ("wScan", _WORD),
        ("dwFlags", _DWORD),
        ("time", _DWORD),
        ("dwExtraInfo", _ULONG_PTR),
    )


class MouseInput(ctypes.Structure):
    """MOUSEINPUT: never sent, but the largest member decides the size of INPUT."""

    _fields_ = (
        ("dx", _LONG),
        ("dy", _LONG),
        ("mouseData", _DWORD),
        ("dwFlags", _DWORD),
        ("time", _DWORD),
        ("dwExtraInfo", _ULONG_PTR),
    )


class _InputUnion(ctypes.Union):
    _fields_ = (("ki", KeyboardInput), ("mi", MouseInput))


class Input(ctypes.Structure):
    """INPUT."""

    _anonymous_ = ("union",)
    _fields_ = (("type", _DWORD), ("union", _InputUnion))


def key_inputs(released: Collection[Key], pressed: Collection[Key]) -> ctypes.Array[Input]:
    """What SendInput gets for these changes, releases first."""
    changes = [(key, KEYEVENTF_KEYUP) for key in released] + [(key, 0) for key in pressed]
    inputs = (Input * len(changes))()
    for entry, (key, flags) in zip(inputs, changes, strict=True):
        code = SCAN_CODES[key]
        entry.type = INPUT_KEYBOARD
        entry.ki.wScan = code & 0xFF
        entry.ki.dwFlags = KEYEVENTF_SCANCODE | flags | (KEYEVENTF_EXTENDEDKEY if code & _EXTENDED else 0)
    return inputs


class Win32Keys:
    """A ``KeySender`` over SendInput; it has no state.

    Args:
        user32: The library; None: Windows' own.

    Raises:
        GameSetupError: If this is not Windows.
    """

    def __init__(self, user32: Any = None) -> None:
        self._user32 = user32 if user32 is not None else _load_user32()

    def send(self, released: Collection[Key], pressed: Collection[Key]) -> None:
        """Releases, then presses, in one uninterrupted series.

        Raises:
            GameSetupError: If Windows does not let keys through.
        """
        inputs = key_inputs(released, pressed)
        if len(inputs) == 0:
            return
        sent = int(self._user32.SendInput(len(inputs), inputs, ctypes.sizeof(Input)))
        if sent != len(inputs):
            raise GameSetupError(_refusal(sent, len(inputs), _last_error()))

    def free(self) -> None:
        """Releases every ``Key``; for one that is up already nothing changes."""
        self.send(list(Key), ())

    def close(self) -> None:
        """Nothing to close."""


def _load_user32() -> Any:
    if sys.platform != "win32":
        raise GameSetupError(f"SendInput needs Windows, got {sys.platform}: X11 has tasks.live.controls.x11_keys")
    user32 = ctypes.WinDLL("user32", use_last_error=True)
    user32.SendInput.argtypes = (ctypes.c_uint, ctypes.POINTER(Input), ctypes.c_int)
    user32.SendInput.restype = ctypes.c_uint
    return user32


def _last_error() -> int:
    if sys.platform == "win32":
        return ctypes.get_last_error()
    return 0


def _refusal(sent: int, count: int, error: int) -> str:
    reason = "access denied" if error == _ERROR_ACCESS_DENIED else f"error {error}"
    return (
        f"Windows took {sent} of {count} key events ({reason}): the window in front belongs to a program that runs as "
        "administrator, or the desktop is locked. Start the game and this program as the same user, neither or both "
        "as administrator"
    )
