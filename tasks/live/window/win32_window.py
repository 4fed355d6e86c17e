"""The game's window on Windows, through ctypes. ``tasks.live.window.finder.open_window`` makes one.

Sizes are true pixels on every monitor: each thread that asks is first made aware of the monitors' scaling (DPI), and
stays so. Written after Microsoft's documentation; it has never run on Windows. Its calls, their order and the
arithmetic are tested on Linux with a fake ``user32``.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

from tasks.game.errors import WindowError, WindowState
from tasks.live.window.found_window import FoundWindow
from tasks.live.window.win32_libraries import DWORD, HANDLE, Point, Rect, load_dwmapi, load_kernel32, load_user32
from tasks.live.window.window import Geometry, hidden_fraction, window_error

DPI_AWARENESS_CONTEXTS = (-4, -3)
"""PER_MONITOR_AWARE_V2 (Windows 10 1703 and later) and PER_MONITOR_AWARE (1607), as handles."""
SW_RESTORE = 9
SWP_NOZORDER, SWP_NOACTIVATE, SWP_NOOWNERZORDER, SWP_ASYNCWINDOWPOS = 0x0004, 0x0010, 0x0200, 0x4000
SM_XVIRTUALSCREEN, SM_YVIRTUALSCREEN, SM_CXVIRTUALSCREEN, SM_CYVIRTUALSCREEN = 76, 77, 78, 79
GW_HWNDPREV = 3
GWL_EXSTYLE = -20
WS_EX_TRANSPARENT = 0x20
DWMWA_EXTENDED_FRAME_BOUNDS, DWMWA_CLOAKED = 9, 14

_FILE_MANAGERS = ("CabinetWClass", "ExploreWClass")
"""Classes of the Explorer's windows: one that shows the folder Trackmania has the game's title."""
_MAX_WINDOWS = 4096
"""Windows appear and vanish while they are listed, so the walk has a limit."""
_MAX_TEXT = 512


def outer_area(wanted: Geometry, outer: Geometry, client: Geometry) -> Geometry:
    """Where a window with its border must go for its client area to have the wanted size.

    The client area starts at the wanted left, so the invisible border that Windows 10 and later draw may lie beyond
    the screen's edge. The title bar starts at the wanted top, so people can still grab it.

    Args:
        wanted: Size of the client area, and the corner.
        outer: The window with its border now.
        client: Its client area now.
    """
    return Geometry(
        wanted.left - (client.left - outer.left),
        wanted.top,
        wanted.width + outer.width - client.width,
        wanted.height + outer.height - client.height,
    )


class Win32Window(FoundWindow):
    """A window found by its title; implements ``tasks.live.window.window.GameWindow``.

    Nothing here waits for the game's own thread: a hanging game is noticed by what does not happen.
    """

    def __init__(self, title: str, user32: Any = None, dwmapi: Any = None) -> None:
        """Finds the window.

        Args:
            title: Its exact title.
            user32: The library; None: Windows' own.
            dwmapi: The library; None: Windows' own when ``user32`` is too, else none.
        """
        self.title = title
        self._user32 = user32 if user32 is not None else load_user32()
        self._dwmapi = dwmapi if dwmapi is not None or user32 is not None else load_dwmapi()
        self._kernel32 = None if user32 is not None else load_kernel32()
        self._is_closed = False
        self._be_dpi_aware()
        self._handle = self._find()
        if self._handle is None:
            raise window_error(WindowState.not_found, title, "no visible window has exactly this title")

    def state(self) -> WindowState:
        """``ready``, ``minimised`` or ``closed``."""
        try:
            handle = self._present_handle()
        except WindowError as error:
            return error.state
        return WindowState.minimised if self._user32.IsIconic(handle) else WindowState.ready

    def geometry(self) -> Geometry:
        """Client area on the screen."""
        handle = self._present_handle()
        if self._user32.IsIconic(handle):
            raise window_error(WindowState.minimised, self.title)
        return self._client_area(handle)

    def screen(self) -> Geometry:
        """The rectangle around all monitors; its corner is negative with a monitor left of the first or above it."""
        self._be_dpi_aware()
        metrics = (SM_XVIRTUALSCREEN, SM_YVIRTUALSCREEN, SM_CXVIRTUALSCREEN, SM_CYVIRTUALSCREEN)
        return Geometry(*(int(self._user32.GetSystemMetrics(metric)) for metric in metrics))

    def is_focused(self) -> bool:
        """Whether it is the foreground window."""
        try:
            return bool(self._user32.GetForegroundWindow() == self._present_handle())
        except WindowError:
            return False

    def covered_fraction(self) -> float:
        """Hidden part, by the order in which Windows stacks the windows."""
        return hidden_fraction(self.geometry(), self.screen(), self._above(self._present_handle()))

    def close(self) -> None:
        """Releases the window."""
        self._is_closed = True

    def _present_handle(self) -> int:
        """The window; when it is closed, one that has taken its place."""
        if self._is_closed:
            raise WindowError(WindowState.closed, f"this program has released the window {self.title!r}")
        self._be_dpi_aware()
        if self._handle is None or not self._is_the_game(self._handle):
            self._handle = self._find()
        if self._handle is None:
            raise window_error(WindowState.closed, self.title)
        return self._handle

    def _find(self) -> int | None:
        """The visible top-level window with the title that is no folder; the largest of several."""
        candidates, handle = [], None
        for _ in range(_MAX_WINDOWS):
            handle = self._user32.FindWindowExW(None, handle, None, self.title)
            if not handle:
                break
            if self._is_the_game(handle):
                size = self._outer_area(handle)
                candidates.append((not self._user32.IsIconic(handle), size.width * size.height, handle))
        return max(candidates)[-1] if candidates else None

    def _is_the_game(self, handle: int) -> bool:
        """Whether the handle is still, or again, that of a visible window with exactly this title."""
        user32 = self._user32
        if not user32.IsWindow(handle) or not user32.IsWindowVisible(handle):
            return False
        text = ctypes.create_unicode_buffer(_MAX_TEXT)
        user32.GetWindowTextW(handle, text, _MAX_TEXT)
        if text.value != self.title:
            return False
        user32.GetClassNameW(handle, text, _MAX_TEXT)
        return text.value not in _FILE_MANAGERS

    def _client_area(self, handle: int) -> Geometry:
        rect, corner = Rect(), Point()
        is_known = self._user32.GetClientRect(handle, ctypes.byref(rect))
        if not is_known or not self._user32.ClientToScreen(handle, ctypes.byref(corner)):
            raise window_error(WindowState.closed, self.title)
        return Geometry(corner.x, corner.y, rect.right, rect.bottom)

    def _outer_area(self, handle: int) -> Geometry:
        rect = Rect()
        if not self._user32.GetWindowRect(handle, ctypes.byref(rect)):
            return Geometry(0, 0, 0, 0)  # closed in this moment
        return rect.geometry()

    def _places(self) -> tuple[Geometry, Geometry]:
        return self.geometry(), self.screen()

    def _request_place(self, wanted: Geometry) -> bool:
        handle = self._present_handle()
        if self._user32.IsIconic(handle) or self._user32.IsZoomed(handle):
            self._user32.ShowWindowAsync(handle, SW_RESTORE)
            return False
        area = outer_area(wanted, self._outer_area(handle), self._client_area(handle))
        flags = SWP_NOZORDER | SWP_NOACTIVATE | SWP_NOOWNERZORDER | SWP_ASYNCWINDOWPOS
        self._user32.SetWindowPos(handle, None, *area, flags)
        return True

    def _request_focus(self) -> None:
        """Windows lets only the program in front give the focus away; for that moment our input is joined to its."""
        user32, handle = self._user32, self._present_handle()
        if user32.IsIconic(handle):
            user32.ShowWindowAsync(handle, SW_RESTORE)
        if user32.SetForegroundWindow(handle):
            return
        front = user32.GetForegroundWindow()
        front_thread = user32.GetWindowThreadProcessId(front, None) if front else 0
        own_thread = self._kernel32.GetCurrentThreadId() if self._kernel32 is not None else 0
        if not front_thread or front_thread == own_thread:
            return
        if user32.AttachThreadInput(own_thread, front_thread, True):
            try:
                user32.BringWindowToTop(handle)
                user32.SetForegroundWindow(handle)
            finally:
                user32.AttachThreadInput(own_thread, front_thread, False)

    def _above(self, handle: int) -> Iterator[Geometry]:
        """Areas of the visible windows above the window, but for overlays that the mouse goes through."""
        user32 = self._user32
        for _ in range(_MAX_WINDOWS):
            handle = user32.GetWindow(handle, GW_HWNDPREV)
            if not handle:
                return
            if not user32.IsWindowVisible(handle) or user32.IsIconic(handle) or self._is_cloaked(handle):
                continue
            if not user32.GetWindowLongW(handle, GWL_EXSTYLE) & WS_EX_TRANSPARENT:
                yield self._drawn_area(handle)

    def _is_cloaked(self, handle: int) -> bool:
        """Whether the desktop hides a window that calls itself visible, such as one of another virtual desktop."""
        cloaked = DWORD()
        return self._ask_dwm(handle, DWMWA_CLOAKED, cloaked) and cloaked.value != 0

    def _drawn_area(self, handle: int) -> Geometry:
        """A window without its invisible border."""
        rect = Rect()
        return rect.geometry() if self._ask_dwm(handle, DWMWA_EXTENDED_FRAME_BOUNDS, rect) else self._outer_area(handle)

    def _ask_dwm(self, handle: int, attribute: int, answer: Any) -> bool:
        if self._dwmapi is None:
            return False
        size = ctypes.sizeof(answer)
        return bool(self._dwmapi.DwmGetWindowAttribute(handle, attribute, ctypes.byref(answer), size) == 0)

    def _be_dpi_aware(self) -> None:
        """From here on, Windows reports true pixels to this thread. Before Windows 10 1607 only for the process."""
        for context in DPI_AWARENESS_CONTEXTS:
            with contextlib.suppress(AttributeError):
                if self._user32.SetThreadDpiAwarenessContext(HANDLE(context)):
                    return
        self._user32.SetProcessDPIAware()
