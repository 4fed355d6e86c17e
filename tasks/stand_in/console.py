"""The stand-in game's standard input and output: a JSON line in, a JSON line out. ``game.py`` owns one ``Console``.

``{"fault": "nan", "seconds": 2}`` asks for a fault, see ``faults.py``; ``{"clear": "nan"}`` ends it and
``{"clear": "all"}`` all; ``{"ask": "state"}`` changes nothing. The answer to each is the state of the game, or
``{"error": ...}``.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Mapping
from typing import Any


class Console:
    """Reads lines in a separate thread, so that no frame waits for them."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._has_ended = threading.Event()
        # A daemon: a read from standard input cannot be interrupted.
        threading.Thread(target=self._read, name="console", daemon=True).start()

    @property
    def has_ended(self) -> bool:
        """Whether standard input is closed."""
        return self._has_ended.is_set()

    def lines(self) -> list[str]:
        """What was typed since the last call."""
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get_nowait())
        return lines

    def say(self, answer: Mapping[str, Any]) -> None:
        """Writes a line."""
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    def _read(self) -> None:
        for line in sys.stdin:
            if line.strip():
                self._lines.put(line)
        self._has_ended.set()
