"""Pictures of the game: captures the window's client area, makes the observed image, and detects faulty pictures.

``tasks.live.live_game`` captures with a ``ScreenCapture`` and gives the policy an ``observed_image``; ``--check``
also tests whether the picture is black or frozen.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.game.errors import GameSetupError, WindowError, WindowState
from tasks.live.window.window import GameWindow, Geometry, off_screen, window_error, wrong_size

Uint8Array = NDArray[np.uint8]

BLACK_LEVEL = 8
"""A pixel whose channels are all below this is black to ``is_black``."""
BLACK_FRACTION = 0.995
"""A picture with at least this part of black pixels is black; the rest may be a mouse pointer."""

_WARN_EVERY_S = 10.0

_logger = logging.getLogger(__name__)


class ScreenCapture:
    """Grabs the client area of a window wherever it is; implements ``tasks.game.protocols.FrameSource``.

    The window is looked up again at each grab: a moved one is followed, and one that was resized or pushed over the
    screen's edge is placed again if that is allowed. Each thread captures with its own object.
    """

    def __init__(
        self, window: GameWindow, width: int, height: int, *, display: str | None = None, place: bool = True
    ) -> None:
        """Captures nothing yet.

        Args:
            window: The window; not closed by ``close``.
            width: Width that its client area must have [px].
            height: Height that its client area must have [px].
            display: X display of the window; None: $DISPLAY. Not used on Windows.
            place: Whether the window may be moved and resized when it is not as it must be.
        """
        self._window, self._size, self._display, self._may_place = window, (width, height), display, place
        self._placing = threading.Lock()
        self._screen: Geometry | None = None
        self._warned_at = -float("inf")
        self._grabbers: dict[threading.Thread, _Grabber] = {}
        self._grabbers_lock = threading.Lock()
        self._is_closed = False

    def grab(self) -> Uint8Array:
        """The client area now: a new array, uint8 BGRA, shape (height, width, 4). Alpha means nothing.

        Raises:
            WindowError: The window is minimised or closed, or has another size or place and keeps it.
            GameSetupError: The screen of this machine cannot be captured.
        """
        frame = self._try_to_grab()
        if frame is None:  # the window or the screen changed in this moment: look again
            frame = self._try_to_grab()
        if frame is None:
            raise window_error(
                WindowState.off_screen, self._window.title, "the screen returned no picture of the window's area"
            )
        return frame

    def close(self) -> None:
        """Releases the objects of all threads. Calling it twice is fine."""
        with self._grabbers_lock:
            self._is_closed = True
            grabbers, self._grabbers = self._grabbers, {}
        for grabber in grabbers.values():
            grabber.close()

    def __enter__(self) -> ScreenCapture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try_to_grab(self) -> Uint8Array | None:
        area = self._area()
        frame = self._own_grabber().grab(area)
        if frame is None:
            self._forget_grabber()
            self._screen = None
        return frame

    def _area(self) -> Geometry:
        """Where the window is, once it is as it must be."""
        area = self._window.geometry()
        if self._is_as_it_must_be(area):
            return area
        with self._placing:
            area = self._window.geometry()
            if self._is_as_it_must_be(area):  # another thread has placed it
                return area
            if self._may_place:
                self._say_placing(area)
                return self._window.place(0, 0, *self._size)
        if area.size != self._size:
            raise wrong_size(self._window.title, area, *self._size)
        raise off_screen(self._window.title, area, self._window.screen())

    def _is_as_it_must_be(self, area: Geometry) -> bool:
        if area.size != self._size:
            return False
        if self._screen is None or not area.lies_in(self._screen):
            self._screen = self._window.screen()
        return area.lies_in(self._screen)

    def _say_placing(self, area: Geometry) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            width, height = self._size
            _logger.warning("the window %r is %s: moving it to get %dx%d", self._window.title, area, width, height)

    def _own_grabber(self) -> _Grabber:
        """This thread's object. rtgym may start a thread per step, so the object of an ended thread is used again."""
        me = threading.current_thread()
        with self._grabbers_lock:
            if self._is_closed:
                raise WindowError(WindowState.closed, "the screen capture was closed by this program")
            grabber = self._grabbers.get(me)
            if grabber is None:
                grabber = self._inherit() or _Grabber(self._display)
                self._grabbers[me] = grabber
            return grabber

    def _inherit(self) -> _Grabber | None:
        """Takes over the object of an ended thread. On Windows it has handles of that thread, so it is only closed."""
        ended = [thread for thread in self._grabbers if not thread.is_alive()]
        inherited = None
        for thread in ended:
            grabber = self._grabbers.pop(thread)
            if inherited is None and sys.platform != "win32":
                inherited = grabber
            else:
                grabber.close()
        return inherited

    def _forget_grabber(self) -> None:
        with self._grabbers_lock:
            grabber = self._grabbers.pop(threading.current_thread(), None)
        if grabber is not None:
            grabber.close()


def observed_image(frame: Uint8Array, width: int, height: int, grayscale: bool) -> Uint8Array:
    """What a policy sees of a frame, bit for bit as TMRL makes it, from a contiguous picture (70 times faster).

    Args:
        frame: BGRA, shape (h, w, 4).
        width: Observed width [px].
        height: Observed height [px].
        grayscale: Grey, else RGB.

    Returns:
        Shape (height, width), or (height, width, 3) RGB.
    """
    small = cv2.resize(frame, (width, height))
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGRA2GRAY if grayscale else cv2.COLOR_BGRA2RGB), np.uint8)


def is_black(frame: Uint8Array) -> bool:
    """Whether a BGRA picture shows nothing, as protected, covered and Wayland windows do."""
    is_dark = frame[:, :, :3].max(axis=2) < BLACK_LEVEL
    return bool(is_dark.mean() >= BLACK_FRACTION)


class _Grabber:
    """One mss object: a connection to the screen for one thread at a time."""

    def __init__(self, display: str | None) -> None:
        try:
            import mss
            from mss.exception import ScreenShotError
        except ImportError as error:
            raise GameSetupError("capturing the screen needs the package mss: pip install '.[game]'") from error
        options: dict[str, Any] = {"display": display} if sys.platform == "linux" else {}
        try:
            self._mss = mss.MSS(**options)
        except ScreenShotError as error:
            raise GameSetupError(
                f"the screen cannot be captured ({error}): run as the user of the game's desktop, on Linux in an X11 "
                "session with 24-bit colours (docs/real_game.md, Screen)"
            ) from error
        self._error = ScreenShotError
        self._lock = threading.Lock()
        self._is_closed = False

    def grab(self, area: Geometry) -> Uint8Array | None:
        """Pixels of an area, shape (height, width, 4); None when the screen does not give them."""
        region = {"left": area.left, "top": area.top, "width": area.width, "height": area.height}
        with self._lock:
            if self._is_closed:
                return None
            try:
                shot = self._mss.grab(region)
            except self._error as error:
                _logger.debug("no picture of %s: %s", area, error)
                return None
        return np.frombuffer(shot.raw, np.uint8).reshape(area.height, area.width, 4)

    def close(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            # Its handles may have vanished with the screen or with the thread that made them.
            with contextlib.suppress(self._error, OSError):
                self._mss.close()
