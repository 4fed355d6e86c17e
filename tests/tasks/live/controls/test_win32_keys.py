"""The calls of SendInput, tested on any system: sizes and offsets of the structures, scan codes, flags."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest

from tasks.game.errors import GameSetupError
from tasks.live.controls import win32_keys
from tasks.live.controls.keyboard import KeyboardControls
from tasks.live.controls.keys import Key
from tasks.live.controls.win32_keys import Input, KeyboardInput, MouseInput, Win32Keys, key_inputs
from tests.tasks.live.controls.test_keyboard import control

IS_64_BIT = ctypes.sizeof(ctypes.c_void_p) == 8

SCANCODE, SCANCODE_UP, SCANCODE_EXTENDED, SCANCODE_EXTENDED_UP = 0x8, 0xA, 0x9, 0xB


class FakeUser32:
    """Decodes what SendInput gets from its bytes, as Windows does."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, int]]] = []
        self.taken: int | None = None

    def SendInput(self, count: int, inputs: Any, size: int) -> int:  # noqa: N802 (Windows' name)
        raw = bytes(inputs)
        assert len(raw) == count * size
        events = []
        for start in range(0, len(raw), size):
            entry = raw[start : start + size]
            assert int.from_bytes(entry[0:4], "little") == 1  # INPUT_KEYBOARD
            union = 8 if IS_64_BIT else 4
            virtual_key, scan = (int.from_bytes(entry[union + i : union + i + 2], "little") for i in (0, 2))
            assert virtual_key == 0
            events.append((scan, int.from_bytes(entry[union + 4 : union + 8], "little")))
        self.calls.append(events)
        return count if self.taken is None else self.taken


@pytest.mark.skipif(not IS_64_BIT, reason="sizes of 64-bit Windows")
def test_structures_have_the_sizes_and_offsets_of_64_bit_windows() -> None:
    # winuser.h: DWORD type, 4 bytes of padding, then the union, whose largest member has 32 bytes.
    assert ctypes.sizeof(Input) == 40
    assert ctypes.sizeof(KeyboardInput) == 24
    assert ctypes.sizeof(MouseInput) == 32
    assert Input.union.offset == 8
    offsets = [getattr(KeyboardInput, name).offset for name in ("wVk", "wScan", "dwFlags", "time", "dwExtraInfo")]
    assert offsets == [0, 2, 4, 8, 16]


def test_scan_codes_are_those_of_the_keyboard() -> None:
    # Scan code set 1: W 11, S 1F, A 1E, D 20, Return 1C; Delete is E0 53.
    pressed = key_inputs((), [Key.gas, Key.brake, Key.left, Key.right, Key.confirm, Key.restart])
    assert [entry.ki.wScan for entry in pressed] == [0x11, 0x1F, 0x1E, 0x20, 0x1C, 0x53]
    assert [entry.ki.dwFlags for entry in pressed] == [SCANCODE] * 5 + [SCANCODE_EXTENDED]
    released = key_inputs([Key.gas, Key.restart], ())
    assert [entry.ki.dwFlags for entry in released] == [SCANCODE_UP, SCANCODE_EXTENDED_UP]


def test_changes_go_in_one_call_releases_first() -> None:
    user32 = FakeUser32()
    with KeyboardControls(sender=Win32Keys(user32)) as controls:
        assert sorted(scan for scan, _ in user32.calls.pop()) == [0x11, 0x1C, 0x1E, 0x1F, 0x20, 0x53]
        controls.send(control(1, 0, -1))
        controls.send(control(1, 0, -1))
        controls.send(control(0, 1, 0))
        assert user32.calls == [
            [(0x11, SCANCODE), (0x1E, SCANCODE)],
            [(0x11, SCANCODE_UP), (0x1E, SCANCODE_UP), (0x1F, SCANCODE)],
        ]
    assert user32.calls[2:] == [[(0x1F, SCANCODE_UP)]]


def test_keys_that_windows_blocks_are_reported() -> None:
    user32 = FakeUser32()
    keys = Win32Keys(user32)
    user32.taken = 0
    with pytest.raises(GameSetupError, match=r"took 0 of 1 key events.*administrator"):
        keys.send((), [Key.gas])


def test_access_denied_is_named() -> None:
    assert "access denied" in win32_keys._refusal(0, 1, 5)
    assert "error 87" in win32_keys._refusal(0, 1, 87)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has it")
def test_other_systems_are_refused() -> None:
    with pytest.raises(GameSetupError, match="needs Windows"):
        Win32Keys()
