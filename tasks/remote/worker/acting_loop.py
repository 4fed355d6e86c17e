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

from tasks.acting.batch_rollout import BatchRollout, batch_policy
from tasks.acting.env_source import EnvSource
from tasks.acting.rollout import Policy, Rollout
from tasks.envs.batch import EpisodeBatch
from tasks.experience.networking import WorkerLink
from tasks.experience.samples import Segment
from tasks.process.step_watch import StepWatch
from tasks.remote.wire import link as messages
from tasks.remote.worker.evaluator import Evaluator
from tasks.words.references import resolve

AnyRollout = Rollout | BatchRollout


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
        rollouts: One for each environment, or one for all that step together.
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
        rollouts: Sequence[AnyRollout],
        segment_rows: int,
        stop: threading.Event,
        *,
        evaluator: Evaluator | None = None,
        episodes: int = 0,
        wait_for_room: Callable[[AnyRollout], bool] | None = None,
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
                for segment in self._drive(rollout):
                    self._link.send(segment)
                    if segment.episodes:
                        self._progress.last_return = segment.episodes[-1].get("return", math.nan)

    def _drive(self, rollout: AnyRollout) -> list[Segment]:
        if isinstance(rollout, Rollout):
            return [rollout.run(self._segment_rows, partial(self._note_row, rollout))]
        segments = rollout.run(self._segment_rows, self._stop.is_set)
        self._progress.num_acts += sum(len(segment) for segment in segments)
        self._progress.num_episodes += sum(len(segment.episodes) for segment in segments)
        return segments

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


@dataclass(frozen=True)
class Acting:
    """How the environments of a worker are driven; a seed for each of them."""

    policy: Mapping[str, Any] | None
    """{"function": "module:function", "kwargs": {...}}: makes the policy."""
    worker: str
    """Name in the segments."""
    policy_seeds: Sequence[int]
    """Of the exploration."""
    episode_seeds: Sequence[int]
    """From which the seeds of the episodes are drawn."""
    check_samples: bool = False
    """Whether segments carry checksums."""
    deterministic: bool = False
    """Whether the mean action is driven."""


def make_rollouts(
    stack: ExitStack, source: EnvSource, acting: Acting, step_watch: StepWatch, stop: threading.Event
) -> Sequence[AnyRollout]:
    """One rollout for all environments where the task has a batch of them, else one for each.

    Args:
        stack: Closes the environments.
        source: Makes them.
        acting: How they are driven.
        step_watch: Knows how long each call takes.
        stop: Ends the worker; an environment that waits for its game notices.
    """
    seeds, options = acting.policy_seeds, (acting.check_samples, acting.deterministic)
    make = partial(make_policy, acting.policy)
    with step_watch.call():
        batch = source.make_batch(len(seeds)) if len(seeds) > 1 else None
    if batch is not None:
        stack.callback(batch.close)
    if isinstance(batch, EpisodeBatch):
        policy = batch_policy(make, seeds)
        return [BatchRollout(batch, policy, acting.worker, acting.episode_seeds, step_watch, *options)]
    envs = [_make_env(stack, source, step_watch, stop) for _ in seeds]
    each = zip(envs, seeds, acting.episode_seeds, strict=True)
    return [
        Rollout(env, make(seed), acting.worker, index, episode_seed, *options, step_watch)
        for index, (env, seed, episode_seed) in enumerate(each)
    ]


def only_env(rollouts: Sequence[AnyRollout], step_watch: StepWatch) -> gymnasium.Env:
    """The environment of a single game, watched, for what happens between two episodes."""
    (rollout,) = rollouts
    if not isinstance(rollout, Rollout):
        raise TypeError("environments that step together are not evaluated in between")
    return step_watch.around(rollout.env)


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
    return [step_watch.around(_make_env(stack, source, step_watch, stop)) for _ in range(count)]


def _make_env(stack: ExitStack, source: EnvSource, step_watch: StepWatch, stop: threading.Event) -> gymnasium.Env:
    with step_watch.call():
        env = stack.enter_context(closing(source.make()))
    if env.has_wrapper_attr("watch"):
        env.get_wrapper_attr("watch")(stop.is_set)
    return env
