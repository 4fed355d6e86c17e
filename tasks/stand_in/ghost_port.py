"""The port of the ghost saver: each connection requests a ghost. ``game.py`` owns one."""

from __future__ import annotations

from tasks.stand_in.ports import Listener


class GhostPort:
    """Counts the ghosts that were asked for."""

    def __init__(self, port: int) -> None:
        """Opens the port; 0: a free one."""
        self._listener = Listener(port)
        self._is_wanted = True
        self.num_ghosts = 0
        """Asked for so far."""

    @property
    def port(self) -> int:
        """The port, also while it is closed."""
        return self._listener.port

    def serve(self) -> None:
        """Takes all connections. Called once a frame."""
        if self._is_wanted and not self._listener.try_open():
            return
        while (connection := self._listener.accept()) is not None:
            self.num_ghosts += 1
            connection.close()

    def open(self) -> None:
        """Opens the port again, at the next frame."""
        self._is_wanted = True

    def close(self) -> None:
        """Closes the port. Calling it twice is fine."""
        self._is_wanted = False
        self._listener.close()
