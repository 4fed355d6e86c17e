"""Structures and signatures of Windows' libraries for ctypes. Used by ``tasks.live.window.win32_window``.

Written after Microsoft's documentation; it has never run on Windows. The structures are tested on Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import Any

from tasks.game.errors import GameSetupError
from tasks.live.window.window import Geometry

# Widths as on Windows, where a long has 32 bits: ctypes.wintypes would take Linux' 64.
LONG, DWORD, HANDLE = ctypes.c_int32, ctypes.c_uint32, ctypes.c_void_p


class Point(ctypes.Structure):
    """POINT."""

    _fields_ = (("x", LONG), ("y", LONG))


class Rect(ctypes.Structure):
    """RECT."""

    _fields_ = (("left", LONG), ("top", LONG), ("right", LONG), ("bottom", LONG))

    def geometry(self) -> Geometry:
        """The same as left, top, width, height."""
        return Geometry(self.left, self.top, self.right - self.left, self.bottom - self.top)


def load_user32() -> Any:
    """The library of windows, with every signature: without one, ctypes cuts handles to 32 bits.

    Raises:
        GameSetupError: This is not Windows.
    """
    if sys.platform != "win32":
        raise GameSetupError(f"user32 needs Windows, got {sys.platform}: X11 has tasks.live.window.x11_window")
    user32 = ctypes.WinDLL("user32", use_last_error=True)
    text, rect, number, truth = ctypes.c_wchar_p, ctypes.POINTER(Rect), ctypes.c_int, ctypes.c_int
    for name, answer, arguments in (
        ("FindWindowExW", HANDLE, (HANDLE, HANDLE, text, text)),
        ("IsWindow", truth, (HANDLE,)),
        ("IsWindowVisible", truth, (HANDLE,)),
        ("IsIconic", truth, (HANDLE,)),
        ("IsZoomed", truth, (HANDLE,)),
        ("GetWindowTextW", number, (HANDLE, text, number)),
        ("GetClassNameW", number, (HANDLE, text, number)),
        ("GetClientRect", truth, (HANDLE, rect)),
        ("GetWindowRect", truth, (HANDLE, rect)),
        ("ClientToScreen", truth, (HANDLE, ctypes.POINTER(Point))),
        ("GetSystemMetrics", number, (number,)),
        ("SetWindowPos", truth, (HANDLE, HANDLE, number, number, number, number, ctypes.c_uint)),
        ("ShowWindowAsync", truth, (HANDLE, number)),
        ("GetForegroundWindow", HANDLE, ()),
        ("SetForegroundWindow", truth, (HANDLE,)),
        ("BringWindowToTop", truth, (HANDLE,)),
        ("GetWindowThreadProcessId", DWORD, (HANDLE, HANDLE)),
        ("AttachThreadInput", truth, (DWORD, DWORD, truth)),
        ("GetWindow", HANDLE, (HANDLE, ctypes.c_uint)),
        ("GetWindowLongW", LONG, (HANDLE, number)),
        ("SetProcessDPIAware", truth, ()),
    ):
        function = getattr(user32, name)
        function.restype, function.argtypes = answer, arguments
    with contextlib.suppress(AttributeError):  # Windows 10 1607 and later
        user32.SetThreadDpiAwarenessContext.restype = HANDLE
        user32.SetThreadDpiAwarenessContext.argtypes = (HANDLE,)
    return user32


def load_dwmapi() -> Any:
    """The library of the compositor; None on another system."""
    if sys.platform != "win32":
        return None
    dwmapi = ctypes.WinDLL("dwmapi")
    dwmapi.DwmGetWindowAttribute.restype = LONG
    dwmapi.DwmGetWindowAttribute.argtypes = (HANDLE, DWORD, HANDLE, DWORD)
    return dwmapi


def load_kernel32() -> Any:
    """The library of threads; None on another system."""
    if sys.platform != "win32":
        return None
    kernel32 = ctypes.WinDLL("kernel32")
    kernel32.GetCurrentThreadId.restype = DWORD
    return kernel32
