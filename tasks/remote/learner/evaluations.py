"""Evaluations as the learner's side of a link counts them: requests by number, and the reports that answer them."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from tasks.experience.evaluation_report import EvaluationReport
from tasks.remote.wire import link


class Evaluations:
    """What was asked and what has come in. Its owner holds its own lock at every call."""

    def __init__(self) -> None:
        # Not from 0: a far worker's report for the learner before this one must not pass for an answer to it.
        self._requested = self._answered = secrets.randbits(40)
        self._reports: deque[EvaluationReport] = deque()

    @property
    def is_open(self) -> bool:
        """Whether the newest request has not been answered yet."""
        return self._answered < self._requested

    def request(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool
    ) -> link.EvaluationRequest:
        """A new request, for one episode per seed; it takes the place of the one before."""
        self._requested += 1
        return link.EvaluationRequest(self._requested, link.Weights(dict(weights), version), tuple(seeds), clip)

    def take(self, report: EvaluationReport, number: int) -> bool:
        """Keeps the report of a request that was made and not answered before.

        Returns:
            Whether it is of the newest request.
        """
        if self._answered < number <= self._requested:
            self._answered = number
            self._reports.append(report)
        return number == self._requested

    def next_report(self) -> EvaluationReport | None:
        """The next report that has come in, or None."""
        return self._reports.popleft() if self._reports else None
