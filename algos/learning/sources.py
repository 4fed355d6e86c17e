"""Where the learner's samples come from: worker processes (asynchronous) or this process (synchronous).

``algos.learning.learner`` sees only ``SampleSource``; ``algos.faces.agent`` builds one of the two. Neither owns a
socket or a network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

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
        vec_env: The REMOTE vecenv; its environments must be reset afterwards.
        is_stopped: True abandons an evaluation.
    """

    def __init__(self, vec_env: RemoteVectorEnvironment, is_stopped: Callable[[], bool]) -> None:
        self._vec_env = vec_env
        self._is_stopped = is_stopped

    def __call__(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int]
    ) -> EvaluationReport | None:
        """The report of these weights; None when it was abandoned."""
        self._vec_env.start()
        self._vec_env.request_evaluation(weights, version, seeds, clip=True)
        while not self._is_stopped():
            report = self._vec_env.link.poll_evaluation()
            if report is not None:
                return report
            time.sleep(_POLL_S)
        return None

    def close(self) -> None:
        """Nothing to close: the environment is the workers'."""


class SampleSource(Protocol):
    """Gives samples, takes weights. One owner, one thread."""

    acts_on_demand: bool
    """Whether ``receive`` acts itself, so that it is called only when the learner has nothing else to do."""

    def receive(self, timeout_s: float) -> list[Segment]:
        """Segments in order per worker; empty when none came within ``timeout_s``. Raises a worker's error."""
        ...

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        """Tells each worker up to which sequence number its segments are kept."""
        ...

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Makes all workers act with these weights as soon as they can."""
        ...

    def request_evaluation(self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int]) -> None:
        """Starts an evaluation of these weights; one at a time."""
        ...

    def poll_evaluation(self) -> EvaluationReport | None:
        """The finished evaluation, once; None while there is none."""
        ...

    def go_on_from(self, received: Mapping[str, int]) -> None:
        """Says up to which sequence number the samples of each worker are stored; before the first ``receive``."""
        ...

    def statistics(self) -> dict[str, float]:
        """Scalars to log, with prefix."""
        ...

    def workers(self) -> Sequence[WorkerStatus]:
        """What is known of each worker, for the live table."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs of the acting side; empty when workers begin anew after a restart."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state``."""
        ...

    def close(self) -> None:
        """Ends the workers. Calling it twice is fine."""
        ...


class RemoteVectorEnvironment(Protocol):
    """The asynchronous side of the REMOTE vecenv (``tasks.remote.learner.vecenv.RemoteVecEnv``)."""

    def start(self) -> None:
        """Starts the workers."""

    @property
    def link(self) -> LearnerLink:
        """The way to all workers, once they are started."""

    def request_evaluation(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool = False
    ) -> None:
        """Starts an evaluation."""

    def go_on_from(self, received: Mapping[str, int]) -> None:
        """Has workers go on behind what is stored of theirs."""

    def statistics(self) -> dict[str, float]:
        """Scalars to log."""

    def workers(self) -> list[WorkerStatus]:
        """A row for each worker."""

    def close(self) -> None:
        """Ends the workers."""


class RemoteSource:
    """Samples of worker processes, through the REMOTE vecenv.

    Args:
        vec_env: A RemoteVecEnv that is not started yet.
    """

    acts_on_demand = False

    def __init__(self, vec_env: RemoteVectorEnvironment) -> None:
        self._vec_env = vec_env
        self._is_started = False

    def receive(self, timeout_s: float) -> list[Segment]:
        """The next segment that arrived; the first call starts the workers."""
        self._start()
        # One at a time: the ratio of updates to steps then moves in the smallest steps.
        return self._vec_env.link.receive(timeout_s, max_segments=1)

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        """Passes the durable sequence numbers on."""
        self._vec_env.link.acknowledge(durable)

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Sends weights to all workers."""
        self._start()
        self._vec_env.link.publish(weights, version)

    def request_evaluation(self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int]) -> None:
        """Has the evaluator process drive one episode per seed."""
        self._start()
        self._vec_env.request_evaluation(weights, version, list(seeds), clip=True)

    def poll_evaluation(self) -> EvaluationReport | None:
        """The evaluator's report, once."""
        return self._vec_env.link.poll_evaluation() if self._is_started else None

    def go_on_from(self, received: Mapping[str, int]) -> None:
        """Passes the stored sequence numbers on."""
        self._vec_env.go_on_from(received)

    def workers(self) -> list[WorkerStatus]:
        """A row for each worker."""
        return self._vec_env.workers()

    def statistics(self) -> dict[str, float]:
        """``gateway/...`` scalars."""
        values = self._vec_env.statistics()
        return {name if "/" in name else f"gateway/{name}": float(value) for name, value in values.items()}

    def state(self) -> dict[str, Any]:
        """Empty: workers begin anew."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Ends the workers."""
        self._vec_env.close()

    def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._vec_env.start()


class ActingRollout(Protocol):
    """The part of ``tasks.acting.rollout.Rollout`` that is used here."""

    @property
    def policy(self) -> Any:
        """What acts."""

    def run(self, num_rows: int) -> Segment:
        """Acts for so many rows."""

    def state(self) -> dict[str, Any]:
        """What is needed to go on."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state``."""

    def close(self) -> None:
        """Closes the environment."""


class InlineSource:
    """Samples made in this process, on demand: the reproducible reference.

    Args:
        rollout: Drives one environment.
        rows_per_receive: Rows (steps and resets) per call of ``receive``.
        evaluator: Drives evaluation episodes with given weights.
    """

    acts_on_demand = True

    def __init__(self, rollout: ActingRollout, rows_per_receive: int, evaluator: Evaluator) -> None:
        if rows_per_receive < 1:
            raise ValueError(f"rows_per_receive must be >= 1, got {rows_per_receive}")
        self._rollout = rollout
        self._rows_per_receive = rows_per_receive
        self._evaluator = evaluator
        self._seq = 0
        self._weights: dict[str, np.ndarray] = {}
        self._version = 0
        self._report: EvaluationReport | None = None

    def receive(self, timeout_s: float) -> list[Segment]:
        """Acts and returns one segment."""
        self._seq += 1
        return [replace(self._rollout.run(self._rows_per_receive), seq=self._seq)]

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        """Nothing waits for it."""

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Acts with these weights from the next step on."""
        self._weights = {name: np.array(value) for name, value in weights.items()}
        self._version = version
        self._rollout.policy.load_weights(self._weights, version)

    def request_evaluation(self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int]) -> None:
        """Evaluates at once."""
        self._report = self._evaluator(weights, version, seeds)

    def poll_evaluation(self) -> EvaluationReport | None:
        """The report, once."""
        report, self._report = self._report, None
        return report

    def go_on_from(self, received: Mapping[str, int]) -> None:
        """Nothing to say: ``load_state`` sets the number."""

    def statistics(self) -> dict[str, float]:
        """Nothing to say."""
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

    def close(self) -> None:
        """Closes the environments."""
        self._rollout.close()
        self._evaluator.close()
