"""Windows for tests, made with python-xlib alone: they obey requests at once and show a known picture.

``FrameWindowManager`` stands in for a window manager that puts a frame around every window.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import numpy as np
from Xlib import X, Xatom, error
from Xlib.display import Display

BORDER, TITLE_BAR = 3, 21
"""Frame of ``FrameWindowManager``: width of its border, and height of its top [px]."""
_STRIP_BYTES = 200_000


class PlainWindow:
    """A mapped window on its own connection. It has the keyboard focus only when it is given it.

    Args:
        display: Name of the display.
        area: Left, top, width, height.
        net_wm_name: Title as ``_NET_WM_NAME`` (UTF-8); None: it has none.
        wm_name: Title as ``WM_NAME`` (type and bytes); None: it has none.
    """

    def __init__(
        self,
        display: str,
        area: tuple[int, int, int, int] = (10, 20, 320, 200),
        net_wm_name: str | None = "Trackmania",
        wm_name: tuple[str, bytes] | None = None,
    ) -> None:
        self.connection = Display(display)
        screen = self.connection.screen()
        self.window = screen.root.create_window(
            *area, 0, screen.root_depth, background_pixel=0x204060, event_mask=X.StructureNotifyMask
        )
        if net_wm_name is not None:
            self._set_text("_NET_WM_NAME", "UTF8_STRING", net_wm_name.encode())
        if wm_name is not None:
            self._set_text("WM_NAME", *wm_name)
        self.map()

    def map(self) -> None:
        self.window.map()
        self.set_wm_state(1)
        deadline = time.monotonic() + 20.0  # a window manager first puts its frame around it
        while self.window.get_attributes().map_state != X.IsViewable:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def iconify(self) -> None:
        """Minimises as a window manager does: unmapped, and marked as iconic."""
        self.window.unmap()
        self.set_wm_state(3)

    def set_wm_state(self, number: int) -> None:
        atom = self.connection.get_atom("WM_STATE")
        self.window.change_property(atom, atom, 32, [number, 0])
        self.connection.sync()

    def set_net_wm_state(self, *names: str) -> None:
        atoms = [self.connection.get_atom(f"_NET_WM_STATE_{name}") for name in names]
        self.window.change_property(self.connection.get_atom("_NET_WM_STATE"), Xatom.ATOM, 32, atoms)
        self.connection.sync()

    def configure(self, **values: int) -> None:
        self.window.configure(**values)
        self.connection.sync()

    def draw(self, picture: np.ndarray) -> None:
        """Shows a BGRA picture; the server itself repaints it whenever the window is uncovered."""
        height, width = picture.shape[:2]
        pixmap = self.window.create_pixmap(width, height, 24)
        context = pixmap.create_gc()
        rows = max(1, _STRIP_BYTES // (4 * width))
        for top in range(0, height, rows):
            strip = np.ascontiguousarray(picture[top : top + rows])
            pixmap.put_image(context, 0, top, width, len(strip), X.ZPixmap, 24, 0, strip.tobytes())
        self.window.change_attributes(background_pixmap=pixmap.id)
        self.window.clear_area()
        context.free()
        pixmap.free()
        self.connection.sync()

    def destroy(self) -> None:
        self.window.destroy()
        self.connection.sync()

    def close(self) -> None:
        with contextlib.suppress(error.ConnectionClosedError):
            self.connection.close()

    def __enter__(self) -> PlainWindow:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set_text(self, name: str, kind: str, text: bytes) -> None:
        self.window.change_property(self.connection.get_atom(name), self.connection.get_atom(kind), 8, text)


class FrameWindowManager:
    """A window manager that puts the frame, not the client, where a window asks to be; in a thread of its own.

    Args:
        display: Name of the display. It takes the windows that are mapped from now on.
        keeps_size: Whether it refuses every other size than the first.
    """

    def __init__(self, display: str, keeps_size: bool = False) -> None:
        self._connection = Display(display)
        self._connection.set_error_handler(lambda *_: None)
        self._root = self._connection.screen().root
        self._keeps_size = keeps_size
        self._frames: dict[int, Any] = {}
        self._wake = Display(display)
        self._told = self._wake.get_atom("TEST_STOP")
        self.messages: list[str] = []
        supported = [self._connection.get_atom("_NET_ACTIVE_WINDOW")]
        self._root.change_property(self._connection.get_atom("_NET_SUPPORTED"), Xatom.ATOM, 32, supported)
        self._root.change_attributes(event_mask=X.SubstructureRedirectMask | X.PropertyChangeMask)
        self._connection.sync()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> FrameWindowManager:
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.screen().root.change_property(self._told, Xatom.INTEGER, 32, [1])
        self._wake.sync()
        self._thread.join(10)
        for name in ("_NET_SUPPORTED", "_NET_ACTIVE_WINDOW", "TEST_STOP"):
            self._wake.screen().root.delete_property(self._wake.get_atom(name))
        self._wake.sync()
        self._wake.close()
        self._connection.close()

    def _run(self) -> None:
        while True:
            event = self._connection.next_event()
            if event.type == X.PropertyNotify and event.atom == self._told:
                return
            with contextlib.suppress(error.BadWindow, error.BadDrawable):
                self._handle(event)
            self._connection.sync()

    def _handle(self, event: Any) -> None:
        if event.type == X.MapRequest:
            self._frame(event.window)
        elif event.type == X.ConfigureRequest:
            self._configure(event)
        elif event.type == X.ClientMessage:
            name = self._connection.get_atom_name(event.client_type)
            self.messages.append(name)
            if name == "_NET_ACTIVE_WINDOW":
                self._activate(event.window)
            elif name == "_NET_WM_STATE":
                event.window.delete_property(self._connection.get_atom("_NET_WM_STATE"))

    def _frame(self, window: Any) -> None:
        if window.id not in self._frames:
            size = window.get_geometry()
            outer = (size.x, size.y, size.width + 2 * BORDER, size.height + TITLE_BAR + BORDER)
            frame = self._root.create_window(*outer, 0, X.CopyFromParent, event_mask=X.SubstructureRedirectMask)
            window.reparent(frame, BORDER, TITLE_BAR)
            self._frames[window.id] = frame
        self._frames[window.id].map()
        window.map()

    def _configure(self, event: Any) -> None:
        frame = self._frames.get(event.window.id)
        if frame is None:
            event.window.configure(x=event.x, y=event.y, width=event.width, height=event.height)
            return
        is_filling = event.window.get_full_property(self._connection.get_atom("_NET_WM_STATE"), X.AnyPropertyType)
        if event.value_mask & (X.CWX | X.CWY):
            frame.configure(x=event.x, y=event.y)
        if event.value_mask & (X.CWWidth | X.CWHeight) and not self._keeps_size and is_filling is None:
            frame.configure(width=event.width + 2 * BORDER, height=event.height + TITLE_BAR + BORDER)
            event.window.configure(width=event.width, height=event.height)
        if event.value_mask & X.CWStackMode:
            frame.configure(stack_mode=event.stack_mode)

    def _activate(self, window: Any) -> None:
        self._frame(window)
        self._frames[window.id].configure(stack_mode=X.Above)
        window.set_input_focus(X.RevertToParent, X.CurrentTime)
        active = self._connection.get_atom("_NET_ACTIVE_WINDOW")
        self._root.change_property(active, Xatom.WINDOW, 32, [window.id])


def pattern(width: int, height: int, number: int) -> np.ndarray:
    """A BGRA picture in which every pixel encodes its own place and the frame's number, so that all differ."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.empty((height, width, 4), np.uint8)
    picture[..., 0] = x + 7 * number
    picture[..., 1] = y + 3 * number
    picture[..., 2] = (x // 256) * 16 + (y // 256) * 64 + number
    picture[..., 3] = 0
    return picture
