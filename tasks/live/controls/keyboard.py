"""Drives the live game with the keyboard: decides which keys a control presses.

``tasks.live.controls.controls`` builds this for ``task.control=keyboard``. ``x11_keys`` or ``win32_keys`` sends the
keys.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Self

import numpy as np

from tasks.game.arrow_keys import press_arrows
from tasks.game.errors import GameError
from tasks.live.controls import exit_release
from tasks.live.controls.keys import Key, KeySender

_log = logging.getLogger(__name__)

PRESS_S = 0.1
"""How long a button or key that is only tapped stays down [s], as in TMRL."""


def keys_for(control: np.ndarray) -> frozenset[Key]:
    """The keys that a control holds down.

    Args:
        control: [gas, brake, steer] in [-1, 1].
    """
    gas, brake, steer = press_arrows(np.array(checked_control(control)))
    pressed = {Key.gas: gas, Key.brake: brake, Key.right: steer > 0.0, Key.left: steer < 0.0}
    return frozenset(key for key, is_held in pressed.items() if is_held)


def checked_control(control: np.ndarray) -> tuple[float, float, float]:
    """Gas, brake and steer, cut to [-1, 1].

    Raises:
        ValueError: If they are not three finite numbers.
    """
    values = np.asarray(control, np.float64)
    if values.shape != (3,):
        raise ValueError(f"control must be [gas, brake, steer], shape (3,), got shape {values.shape}")
    gas, brake, steer = values.tolist()
    if not (math.isfinite(gas) and math.isfinite(brake) and math.isfinite(steer)):
        raise ValueError(f"control must be finite, got {values.tolist()}")
    return min(max(gas, -1.0), 1.0), min(max(brake, -1.0), 1.0), min(max(steer, -1.0), 1.0)


class KeyboardControls:
    """A ``ControlSink`` over the keyboard. Only changes are sent; nothing stays pressed when the program ends.

    Args:
        focus: Called before keys are sent; gives the game's window the focus where it has not got it and returns True
            when it had to. Held keys are then pressed again, because the game has not seen them. When it
            raises, everything is released first. None: whatever window has the focus gets the keys.
        display: X display of the game, such as ``:1``; None: $DISPLAY. Not used on Windows.
        sender: Who sends the keys; None: this operating system's.

    Raises:
        GameSetupError: If keys cannot be sent on this machine.
    """

    def __init__(
        self,
        focus: Callable[[], bool | None] | None = None,
        display: str | None = None,
        *,
        sender: KeySender | None = None,
    ) -> None:
        self._focus = focus
        self._sender = sender if sender is not None else _open_sender(display)
        self._held: frozenset[Key] = frozenset()
        # The environment's thread drives while another one may close.
        self._lock = threading.RLock()
        self._is_closed = False
        # A program that was killed cannot have released its keys.
        self._sender.free()
        self._unregister = exit_release.register(self._sender.free)

    @property
    def held(self) -> frozenset[Key]:
        """The keys that are down now."""
        return self._held

    def send(self, control: np.ndarray | None) -> None:
        """Presses and releases what differs from the last control; None touches nothing."""
        if control is None:
            return
        wanted = keys_for(control)
        with self._lock:
            self._hold(wanted)

    def restart(self) -> None:
        """Taps the key that puts the car back to the start, with all others released."""
        self._tap(Key.restart)

    def close_popup(self) -> None:
        """Taps the key that leaves the finish screen, with all others released."""
        self._tap(Key.confirm)

    def release(self) -> None:
        """Releases all keys, also when another window has the focus."""
        with self._lock:
            self._change(self._held, frozenset())

    def close(self) -> None:
        """Releases all keys and the keyboard. Calling it twice is fine."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                self._change(self._held, frozenset())
            except GameError as error:
                _log.warning("the keys could not be released: %s", error)
            # Not reached by an interrupt: then the end of the program releases.
            self._unregister()
            self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tap(self, key: Key) -> None:
        with self._lock:
            self._change(self._held, frozenset())
            try:
                self._hold(frozenset({key}))
                time.sleep(PRESS_S)
            finally:
                self._change(self._held, frozenset())

    def _hold(self, wanted: frozenset[Key]) -> None:
        if self._is_closed:
            raise RuntimeError("these keyboard controls are closed; make new ones")
        if wanted and self._take_focus():
            _log.info("the game's window had lost the keyboard; it has the focus again")
            self._change(self._held, wanted)
        else:
            self._change(self._held - wanted, wanted - self._held)

    def _take_focus(self) -> bool:
        """Whether the game's window had not got the focus; it has now."""
        if self._focus is None:
            return False
        try:
            return bool(self._focus())
        except BaseException:
            # The keys would reach some other window.
            self._change(self._held, frozenset())
            raise

    def _change(self, released: frozenset[Key], pressed: frozenset[Key]) -> None:
        if not released and not pressed:
            return
        # Even after an error in between, the keys that may be down are known.
        before = self._held
        self._held = before | pressed
        self._sender.send([key for key in Key if key in released], [key for key in Key if key in pressed])
        self._held = (before - released) | pressed


def _open_sender(display: str | None) -> KeySender:
    if sys.platform == "win32":
        from tasks.live.controls.win32_keys import Win32Keys

        return Win32Keys()
    from tasks.live.controls.x11_keys import X11Keys

    return X11Keys(display)
