"""Notices hanging environments: the log says once when one begins to hang, and once when it steps again.

A ``StepWatch`` measures how long the environments of one thread have been in one call; a worker sends this to the
learner. A ``HangReporter`` logs it. Waiting for the learner, for a request or, on purpose, for a game is not hanging.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, SupportsFloat

import gymnasium

HANGING_S = 30.0
"""A call that takes longer is reported [s]; longer for an environment whose calls are slow."""
LOOK_EVERY_S = 2.0
"""Between two looks of a ``HangReporter`` [s]."""

_LONGEST_CALL_S = 600.0
_log = logging.getLogger(__name__)


class StepWatch:
    """Watches environments that are driven by one thread; any thread may ask.

    Args:
        now: Monotonic clock [s].
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began_s: float | None = None
        self._longest_s = 0.0
        self._waits: list[Callable[[], bool]] = []

    def add(self, env: gymnasium.Env) -> None:
        """Asks its interface, too, which may say by ``is_waiting`` that it waits on purpose."""
        self._waits.append(lambda: bool(getattr(getattr(env.unwrapped, "interface", None), "is_waiting", False)))

    def around(self, env: gymnasium.Env) -> gymnasium.Env:
        """The environment, watched, for callers that do not mark their calls."""
        self.add(env)
        return _WatchedEnv(env, self)

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call that may hang, such as a step, or making an environment; it has ended also where it raises."""
        began_s = self._began_s = self._now()
        try:
            yield
        finally:
            self._began_s = None
            self._longest_s = max(self._longest_s, self._now() - began_s)

    def hangs_for_s(self) -> float:
        """How long the present call has been taking; 0 when that is not long, or there is none."""
        began_s = self._began_s
        if began_s is None or any(waits() for waits in self._waits):
            return 0.0
        spent_s = self._now() - began_s
        return spent_s if spent_s >= min(max(HANGING_S, 2 * self._longest_s), _LONGEST_CALL_S) else 0.0


class HangReporter:
    """Logs which environments hang, from its own thread.

    Args:
        hanging: For each name how long it has not stepped [s]; 0: it does not hang.
    """

    def __init__(self, hanging: Callable[[], Mapping[str, float]]) -> None:
        self._hanging = hanging
        self._told: dict[str, float] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="hang-reporter", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends it. Calling it twice is fine."""
        self._is_over.set()

    def look(self) -> None:
        """Logs new and ended hangs."""
        seconds = self._hanging()
        for name, hangs_for_s in seconds.items():
            if hangs_for_s and name not in self._told:
                _log.warning("%s has not stepped for %.0f s: its environment hangs, or is very slow", name, hangs_for_s)
            elif not hangs_for_s and name in self._told:
                _log.warning("%s steps again, after more than %.0f s", name, self._told[name])
        self._told = {name: hangs_for_s for name, hangs_for_s in seconds.items() if hangs_for_s}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep_looking(self) -> None:
        while not self._is_over.wait(LOOK_EVERY_S):
            self.look()


class _WatchedEnv(gymnasium.Wrapper):
    """Tells a watch of each call; otherwise as what it wraps."""

    def __init__(self, env: gymnasium.Env, watch: StepWatch) -> None:
        super().__init__(env)
        self._watch = watch

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        with self._watch.call():
            return self.env.step(action)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        with self._watch.call():
            return self.env.reset(**kwargs)

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.env, name)
