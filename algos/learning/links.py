"""The link of a run without workers: a rollout, and evaluations, in this process.

``algos.learning.learner`` sees only a ``LearnerLink``; ``algos.faces.agent`` gives it ``InlineLink`` when it runs
synchronously, else the link of the REMOTE vecenv to its workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from tasks.acting.rollout import Rollout
from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.networking import LearnerLink
from tasks.experience.samples import Segment
from tasks.experience.worker_status import WorkerStatus

_POLL_S = 0.05


class Evaluator(Protocol):
    """Drives evaluation episodes in this process."""

    def __call__(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int]
    ) -> EvaluationReport | None:
        """The report of these weights; None when it was abandoned."""
        ...

    def close(self) -> None:
        """Closes the environment."""
        ...


class RemoteEvaluator:
    """An ``Evaluator`` over the game that the workers drive: waits until they have driven the evaluation.

    Args:
        start: Starts the workers and returns the link to them; their environments must be reset afterwards.
        is_stopped: True abandons an evaluation.
    """

    def __init__(self, start: Callable[[], LearnerLink], is_stopped: Callable[[], bool]) -> None:
        self._start = start
        self._is_stopped = is_stopped

    def __call__(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int]
    ) -> EvaluationReport | None:
        """The report of these weights; None when it was abandoned."""
        link = self._start()
        link.request_evaluation(weights, version, seeds, clip=True)
        while not self._is_stopped():
            report = link.poll_evaluation()
            if report is not None:
                return report
            time.sleep(_POLL_S)
        return None

    def close(self) -> None:
        """Nothing to close: the environment is the workers'."""


class InlineLink:
    """A ``LearnerLink`` whose samples are made in this process, on demand: the reproducible reference.

    Args:
        rollout: Drives one environment.
        rows_per_segment: Rows (steps and resets) that each ``receive`` acts.
        evaluator: Drives evaluation episodes with given weights.
    """

    def __init__(self, rollout: Rollout, rows_per_segment: int, evaluator: Evaluator) -> None:
        if rows_per_segment < 1:
            raise ValueError(f"synchronous_rows must be >= 1, got {rows_per_segment}")
        self._rollout = rollout
        self._rows_per_segment = rows_per_segment
        self._evaluator = evaluator
        self._seq = 0
        self._weights: dict[str, np.ndarray] = {}
        self._version = 0
        self._report: EvaluationReport | None = None

    def receive(self, timeout_s: float, max_segments: int | None = None) -> list[Segment]:
        """Acts and returns one segment."""
        self._seq += 1
        return [replace(self._rollout.run(self._rows_per_segment), seq=self._seq)]

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        """Nothing waits for it."""

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Acts with these weights from the next step on."""
        self._weights = {name: np.array(value) for name, value in weights.items()}
        self._version = version
        self._rollout.policy.load_weights(self._weights, version)

    def request_evaluation(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool = False
    ) -> None:
        """Evaluates at once; pictures of the first episode are always made."""
        self._report = self._evaluator(weights, version, seeds)

    def poll_evaluation(self) -> EvaluationReport | None:
        """The report, once."""
        report, self._report = self._report, None
        return report

    def statistics(self) -> dict[str, float]:
        """None: nothing is on the way."""
        return {}

    def workers(self) -> list[WorkerStatus]:
        """None."""
        return []

    def state(self) -> dict[str, Any]:
        """Environment, policy generators, and the weights that act (older than those that learn)."""
        return {
            "rollout": self._rollout.state(),
            "seq": self._seq,
            "weights": dict(self._weights),
            "version": self._version,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on exactly where ``state`` was taken."""
        if state["version"]:
            self.publish(state["weights"], int(state["version"]))
        self._seq = int(state["seq"])
        self._rollout.load_state(state["rollout"])

    def number_after(self, seq: int) -> None:
        """Numbers the next segment ``seq`` + 1: the memory takes those up to ``seq`` for repetitions of what it has."""
        self._seq = seq

    def close(self) -> None:
        """Closes the environments."""
        self._rollout.close()
        self._evaluator.close()
