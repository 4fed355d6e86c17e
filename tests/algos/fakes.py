"""Small fakes for the learner's tests: a toy task, a source, a memory, an algorithm; they check their arguments."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from tasks.experience.evaluation_report import EpisodeResult, EvaluationReport
from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.samples import Segment
from tests.tasks.remote.fakes import OneGame

SPEC = ObservationSpec(
    fields=(Field("speed", (1,), scale=2.0), Field("place", (2, 3), low=-10.0, high=10.0, history=2, scale=10.0)),
    action_size=3,
    act_buf_len=2,
)
GOAL = 5.0
LENGTH = 30


class ToyEnv(gymnasium.Env):
    """A point on a line: the first action is its speed; reaching 5 m ends the episode, 30 steps truncate it."""

    metadata: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.observation_spec = SPEC
        self.observation_space = SPEC.dict_space()
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))
        self.is_closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._place = float(self.np_random.uniform(0.0, 1.0))
        self._steps, self._return = 0, 0.0
        self._history = [self._frame(0.0)] * 2
        self._actions = [np.zeros(3, np.float32)] * 2
        return self._observation(0.0), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action.shape == (3,)
        assert np.all(np.abs(action) <= 1.0)
        speed = float(np.clip(action[0], -1.0, 1.0))
        self._place = max(self._place + 0.5 * speed, -5.0)
        self._steps += 1
        self._return += 0.5 * speed
        self._history = [self._history[1], self._frame(speed)]
        self._actions = [self._actions[1], np.array(action, np.float32)]
        has_finished = self._place >= GOAL
        is_truncated = not has_finished and self._steps >= LENGTH
        info: dict[str, Any] = {"progress": self._place / GOAL, "x": self._place, "z": 0.0, "speed_mps": speed}
        if has_finished or is_truncated:
            info["episode_statistics"] = self._statistics(has_finished)
        return self._observation(speed), 0.5 * speed, has_finished, is_truncated, info

    def render(self) -> np.ndarray:
        picture = np.zeros((16, 24, 3), np.uint8)
        picture[:, int(np.clip(self._place * 4, 0, 23))] = 255
        return picture

    def close(self) -> None:
        self.is_closed = True

    def _statistics(self, has_finished: bool) -> dict[str, float]:
        return {
            "return": self._return,
            "length": float(self._steps),
            "finished": float(has_finished),
            "lap_time_s": 0.05 * self._steps if has_finished else float("nan"),
            "progress": min(1.0, self._place / GOAL),
            "distance_m": abs(self._place),
            "max_speed_mps": 1.0,
            "mean_speed_mps": 1.0,
            "wall_contacts": 0.0,
            "wall_impact_mps": 0.0,
        }

    def _frame(self, speed: float) -> np.ndarray:
        return np.array([self._place, speed, GOAL - self._place], np.float32)

    def _observation(self, speed: float) -> dict[str, np.ndarray]:
        return {
            "speed": np.array([abs(speed)], np.float32),
            "place": np.stack(self._history),
            "action_0": self._actions[0],
            "action_1": self._actions[1],
        }


def make_toy_env() -> ToyEnv:
    """For "module:function"."""
    return ToyEnv()


class SingleToyEnv(ToyEnv):
    """The toy task as a game of which only one can exist: making a second one fails."""

    metadata: dict[str, Any] = {"single_game": True}  # noqa: RUF012

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._game = OneGame(Path(folder))

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(0.002)
        return super().step(action)

    def close(self) -> None:
        super().close()
        self._game.close()


def make_single_toy_env(folder: str) -> SingleToyEnv:
    """For "module:function"."""
    return SingleToyEnv(folder)


def make_segment(seq: int, rows: int = 10, worker: str = "w", version: int = 0, finished: int = 0) -> Segment:
    """A segment in the middle of an episode: ``rows`` environment steps."""
    statistics = {"return": 2.0, "length": 10.0, "finished": 1.0, "lap_time_s": 1.5, "progress": 1.0}
    return Segment(
        worker=worker,
        stream=0,
        seq=seq,
        frames={"speed": np.zeros((rows, 1), np.float32), "place": np.zeros((rows, 3), np.float32)},
        action=np.zeros((rows, 3), np.float32),
        reward=np.zeros(rows, np.float32),
        terminated=np.zeros(rows, np.bool_),
        truncated=np.zeros(rows, np.bool_),
        is_first=np.zeros(rows, np.bool_),
        weights_version=version,
        episodes=(statistics,) * finished,
    )


class FakeMemory:
    """Counts its rows; a batch is their number."""

    def __init__(self) -> None:
        self.received: dict[str, int] = {}
        self.num_transitions = 0

    def append(self, segment: Segment) -> bool:
        if segment.seq <= self.received.get(segment.worker, 0):
            return False
        self.received[segment.worker] = segment.seq
        self.num_transitions += len(segment)
        return True

    def sample(self, batch_size: int) -> int:
        assert self.num_transitions > 0
        return batch_size

    def __len__(self) -> int:
        return self.num_transitions


class FakeStorage:
    """Reports committed segments as durable."""

    def __init__(self) -> None:
        self.appended: dict[str, int] = {}
        self.commits = 0

    def append(self, segment: Segment) -> bool:
        self.appended[segment.worker] = segment.seq
        return True

    def commit(self) -> dict[str, int]:
        self.commits += 1
        return dict(self.appended)


class FakeAlgorithm:
    """An algorithm whose loss is the number of the update."""

    def __init__(self) -> None:
        self.updates = 0

    def update(self, batch: int) -> dict[str, torch.Tensor]:
        assert batch == 4
        self.updates += 1
        return {"losses/critic": torch.tensor(float(self.updates)), "q": torch.tensor(1.0)}

    def acting_weights(self) -> dict[str, np.ndarray]:
        return {"updates": np.array([self.updates], np.float32)}

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = state["updates"]


class FakeSource:
    """Gives one segment per call; its evaluations are ready after ``polls`` polls."""

    acts_on_demand = False

    def __init__(self, rows: int = 10, polls: int = 0) -> None:
        self.rows = rows
        self.polls = polls
        self.seq = 0
        self.acknowledged: dict[str, int] = {}
        self.published: list[int] = []
        self.requests: list[tuple[int, tuple[int, ...]]] = []
        self.is_closed = False
        self.timeouts: list[float] = []
        self._polls_left = -1
        self._version = 0

    def receive(self, timeout_s: float, max_segments: int | None = None) -> list[Segment]:
        self.timeouts.append(timeout_s)
        self.seq += 1
        return [make_segment(self.seq, self.rows, version=self._version, finished=1)]

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        assert all(seq <= self.seq for seq in durable.values())
        self.acknowledged.update(durable)

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        assert version == self._version + 1
        self._version = version
        self.published.append(int(weights["updates"][0]))

    def request_evaluation(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool = False
    ) -> None:
        assert self._polls_left < 0, "one evaluation at a time"
        self.requests.append((int(weights["updates"][0]), tuple(seeds)))
        self._polls_left = self.polls

    def poll_evaluation(self) -> EvaluationReport | None:
        if self._polls_left < 0:
            return None
        self._polls_left -= 1
        return make_report(True, 3.0) if self._polls_left < 0 else None

    def workers(self) -> list[Any]:
        return []

    def statistics(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self.is_closed = True


class OnDemandSource(FakeSource):
    """The same as a synchronous source."""

    acts_on_demand = True


class FakeListener:
    """Records all calls."""

    def __init__(self) -> None:
        self.segments = 0
        self.logs: list[dict[str, float]] = []
        self.requests = 0
        self.reports: list[EvaluationReport] = []
        self.checkpoints: list[bool] = []

    def on_segments(self, segments: Sequence[Segment]) -> None:
        self.segments += len(segments)

    def on_log(self, metrics: Mapping[str, float]) -> None:
        assert all(isinstance(value, float) for value in metrics.values())
        self.logs.append(dict(metrics))

    def on_evaluation_request(self) -> None:
        self.requests += 1

    def on_evaluation(self, report: EvaluationReport) -> None:
        self.reports.append(report)

    def on_checkpoint(self, is_periodic: bool) -> None:
        self.checkpoints.append(is_periodic)


def make_report(finished: bool, lap_time_s: float, progress: float = 1.0) -> EvaluationReport:
    """A report of one episode."""
    return EvaluationReport(
        (EpisodeResult(1, finished, lap_time_s if finished else None, 1.0, progress, 10),), weights_version=1
    )
