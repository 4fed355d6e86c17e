"""The loop of a worker that acts by itself: environments in turn, their segments to the link, new weights in between.

Local and remote workers run the same; a remote one's link leads to its station.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium

from tasks.acting.env_source import EnvSource
from tasks.acting.rollout import Policy, Rollout
from tasks.experience.networking import WorkerLink
from tasks.process.step_watch import StepWatch
from tasks.remote.wire import link as messages
from tasks.remote.worker.evaluator import Evaluator
from tasks.words.references import resolve


@dataclass
class Progress:
    """How far a worker has come; written by its loop, read by its display."""

    num_acts: int = 0
    """Rows so far: environment steps and resets."""
    num_episodes: int = 0
    """Episodes that ended."""
    last_return: float = math.nan
    """Of the last of them."""
    is_waiting: bool = False
    """Whether driving rests until there is room."""


class ActingLoop:
    """Drives environments in turn.

    Args:
        link: Takes segments, brings weights.
        rollouts: One for each environment.
        segment_rows: Rows of a segment.
        stop: Ends the loop.
        evaluator: Drives evaluations between two episodes of the first environment; None: nobody does here.
        episodes: Ends the loop after so many; 0: never.
        wait_for_room: Called before each segment; False ends the loop. None: the link's own.
        progress: Where it is noted how far it has come.
    """

    def __init__(
        self,
        link: WorkerLink,
        rollouts: Sequence[Rollout],
        segment_rows: int,
        stop: threading.Event,
        *,
        evaluator: Evaluator | None = None,
        episodes: int = 0,
        wait_for_room: Callable[[Rollout], bool] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._link = link
        self._rollouts = rollouts
        self._segment_rows = segment_rows
        self._stop = stop
        self._evaluator = evaluator
        self._episodes = episodes
        self._wait_for_room = wait_for_room or (lambda _: link.wait_for_room())
        self._progress = progress or Progress()

    def run(self) -> None:
        """Drives until the end; what was driven is with the link."""
        while True:
            for rollout in self._rollouts:
                if self._evaluator is not None and rollout.is_between_episodes:
                    self._evaluator.answer_waiting()
                if not self._wait_for_room(rollout):
                    return
                self._load_newest()
                if self._is_done():
                    return
                segment = rollout.run(self._segment_rows, partial(self._note_row, rollout))
                self._link.send(segment)
                if segment.episodes:
                    self._progress.last_return = segment.episodes[-1].get("return", math.nan)

    def _note_row(self, rollout: Rollout) -> bool:
        """Called after every row; whether the segment ends here."""
        self._progress.num_acts += 1
        if not rollout.is_between_episodes:
            return self._stop.is_set()
        self._progress.num_episodes += 1
        return self._is_done() or (self._evaluator is not None and self._evaluator.has_request)

    def _is_done(self) -> bool:
        return self._stop.is_set() or 0 < self._episodes <= self._progress.num_episodes

    def _load_newest(self) -> None:
        message = self._link.take_newest()
        if message is None:
            return
        weights = messages.decode_weights(message)
        for rollout in self._rollouts:
            rollout.policy.load_weights(weights.arrays, weights.version)


def make_policy(policy: Mapping[str, Any] | None, seed: int) -> Policy:
    """What {"function": "module:function", "kwargs": {...}} makes, with this seed."""
    if policy is None:
        raise ValueError("a worker that acts or evaluates needs a policy: {function, kwargs}")
    made: Policy = resolve(policy["function"], "policy.function")(**{**(policy.get("kwargs") or {}), "seed": seed})
    return made


def make_envs(
    stack: ExitStack, source: EnvSource, count: int, step_watch: StepWatch, stop: threading.Event
) -> list[gymnasium.Env]:
    """Makes environments that are watched.

    Args:
        stack: Closes them.
        source: Makes them.
        count: So many.
        step_watch: Knows how long each call takes, also the making.
        stop: Ends the worker; an environment that waits for its game notices.
    """
    envs = []
    for _ in range(count):
        with step_watch.call():
            env = step_watch.around(stack.enter_context(closing(source.make())))
        if env.has_wrapper_attr("watch"):
            env.get_wrapper_attr("watch")(stop.is_set)
        envs.append(env)
    return envs
