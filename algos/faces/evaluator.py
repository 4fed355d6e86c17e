"""Evaluations in the agent's own process. Used by both agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tasks.acting.evaluation import ClipRecorder, evaluate
from tasks.config import EVALUATION_SEED
from tasks.experience.evaluation_report import EvaluationReport
from tasks.process.step_watch import StepWatch


def evaluation_seeds(episodes: int) -> tuple[int, ...]:
    """Seeds of the episodes of an evaluation: the same for all of a run, so that they compare."""
    return tuple(range(EVALUATION_SEED, EVALUATION_SEED + episodes))


class InProcessEvaluator:
    """Drives evaluation episodes in this process, with its own environment and policy.

    Args:
        make_env: Makes the environment at the first use.
        make_policy: Makes the policy at the first use.
        is_stopped: True abandons an evaluation.
        watch: Watches the environment.
    """

    def __init__(
        self,
        make_env: Callable[[], Any],
        make_policy: Callable[[], Any],
        is_stopped: Callable[[], bool],
        watch: StepWatch,
    ) -> None:
        self._make_env = make_env
        self._make_policy = make_policy
        self._is_stopped = is_stopped
        self._watch = watch
        self._env: Any = None
        self._policy: Any = None

    def __call__(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int]
    ) -> EvaluationReport | None:
        """The report of these weights; None when it was abandoned."""
        if self._env is None:
            with self._watch.call():
                self._env = self._watch.around(self._make_env())
            self._policy = self._make_policy()
        self._policy.load_weights(weights, version)
        report = evaluate(self._env, self._policy, seeds, clip=ClipRecorder(), stop=self._is_stopped)
        return report if len(report.episodes) == len(seeds) else None

    def close(self) -> None:
        """Closes the environment. Calling it twice is fine."""
        if self._env is not None:
            self._env.close()
            self._env = None
