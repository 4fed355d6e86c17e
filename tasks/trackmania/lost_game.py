"""Waits for a lost game: logs what is wrong and what to do, tries again, and gives up after a while.

``tasks.trackmania.driving`` waits so at the start of an episode, never in mid-episode.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from tasks.envs.interface import Interrupted
from tasks.game.errors import GameError

RETRY_S = 0.5
"""Between two attempts to drive [s]."""
REPEAT_S = 30.0
"""Between two messages about the same state [s]."""

_logger = logging.getLogger(__name__)


class GameWait:
    """The wait of one reset for a lost game.

    A state is logged once when it begins, then every 30 s; a new state at once.
    """

    def __init__(
        self,
        wait_limit_s: float,
        stop: threading.Event,
        now: Callable[[], float] = time.monotonic,
        retry_s: float = RETRY_S,
    ) -> None:
        """Starts with the game taken for well.

        Args:
            wait_limit_s: How long a lost game is waited for [s].
            stop: Ends the waiting.
            now: Monotonic clock [s].
            retry_s: Between two attempts [s].
        """
        self._wait_limit_s = wait_limit_s
        self._stop = stop
        self._now = now
        self._retry_s = retry_s
        self._lost_at_s: float | None = None
        self._state: object = None
        self._said_at_s = 0.0

    def after(self, error: GameError) -> None:
        """Counts a failed attempt and waits until the next one.

        Raises:
            GameError: The time limit has passed.
            Interrupted: The waiting was stopped.
        """
        if self._stop.is_set():
            # The closing itself may have failed: not worth a message.
            raise Interrupted(f"stopped: {error}") from error
        now = self._now()
        if self._lost_at_s is None:
            self._lost_at_s = now
        waited_s = now - self._lost_at_s
        if waited_s >= self._wait_limit_s:
            raise GameError(
                f"the game did not come back within {self._wait_limit_s:.0f} s (task.live.wait_for_game_s): {error}"
            ) from error
        self._say(error, now, waited_s)
        if self._stop.wait(min(self._retry_s, self._wait_limit_s - waited_s)):
            raise Interrupted(f"stopped while waiting for the game: {error}") from error

    def is_over(self) -> None:
        """Ends the waiting: the game is driven again."""
        if self._lost_at_s is not None:
            _logger.warning("the game is back after %.0f s: driving continues", self._now() - self._lost_at_s)
            self._lost_at_s = self._state = None

    def _say(self, error: GameError, now: float, waited_s: float) -> None:
        state = getattr(error, "state", type(error))
        if state == self._state and now - self._said_at_s < REPEAT_S:
            return
        is_news = state != self._state
        self._state, self._said_at_s = state, now
        left = self._wait_limit_s - waited_s
        _logger.warning("%s: %s (%.0f s left)", "waiting for the game" if is_news else "still waiting", error, left)
