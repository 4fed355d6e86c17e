"""A list-based second method for the replay tests: environments that stack their own observations as rtgym does.

Nothing here uses the code under test: every row keeps the whole observation that its environment returned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.samples import Segment

DEFAULT_ACTION = np.array([0.125, -0.25], np.float32)


def make_spec(image_history: int, lidar_history: int, act_buf_len: int, reset_act_buf: bool = True) -> ObservationSpec:
    """A field without history, one of floats and one of bytes, each with its own history."""
    fields = (
        Field("row", (1,)),
        Field("lidar", (lidar_history, 3), history=lidar_history),
        Field("images", (image_history, 2, 4), "uint8", 0, 255, history=image_history),
    )
    return ObservationSpec(fields, action_size=2, act_buf_len=act_buf_len, reset_act_buf=reset_act_buf)


@dataclass
class Row:
    """One row as its environment saw it."""

    observation: dict[str, np.ndarray]
    action: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    is_first: bool
    needed: int
    """Oldest row of the stream that the observation is made of."""
    number: int = -1
    """Place in the order of arrival; -1: not arrived."""


class StackingEnv:
    """One stream: an endless run of episodes of random length whose observations are stacked by hand."""

    def __init__(self, spec: ObservationSpec, seed: int, longest_episode: int, ids: Iterator[int]) -> None:
        self.spec = spec
        self.rows: list[Row] = []
        self._rng = np.random.default_rng(seed)
        self._longest = longest_episode
        self._ids = ids
        self._left = 0
        self._histories: dict[str, deque[np.ndarray]] = {}
        self._actions: deque[tuple[int, np.ndarray]] = deque(maxlen=max(spec.act_buf_len, 1))
        self._first = 0

    def advance(self) -> None:
        """Adds a row: a reset when the episode is over, else a step."""
        index = len(self.rows)
        frames = {
            "row": np.array([next(self._ids)], np.float32),
            "lidar": self._rng.random(3, np.float32),
            "images": self._rng.integers(0, 256, (2, 4), np.uint8),
        }
        if self._left == 0:
            self._reset(index, frames)
        else:
            self._step(index, frames)

    def _reset(self, index: int, frames: dict[str, np.ndarray]) -> None:
        self._left = int(self._rng.integers(1, self._longest + 1))
        self._first = index
        length = self._actions.maxlen or 1
        if self.spec.reset_act_buf or not self._actions:
            self._actions.extend([(index, DEFAULT_ACTION)] * length)
        else:
            self._actions[-1] = (index, DEFAULT_ACTION)
        for field in self.spec.fields:
            self._histories[field.name] = deque([frames[field.name]] * max(field.history, 1), max(field.history, 1))
        self._add(index, DEFAULT_ACTION, 0.0, terminated=False, truncated=False)

    def _step(self, index: int, frames: dict[str, np.ndarray]) -> None:
        self._left -= 1
        action = self._rng.uniform(-1, 1, 2).astype(np.float32)
        self._actions.append((index, action))
        for name, frame in frames.items():
            self._histories[name].append(frame)
        terminated = self._left == 0 and bool(self._rng.random() < 0.5)
        truncated = self._left == 0 and not terminated
        self._add(index, action, float(np.float32(self._rng.normal())), terminated, truncated)

    def _add(self, index: int, action: np.ndarray, reward: float, terminated: bool, truncated: bool) -> None:
        observation = {
            f.name: np.stack(self._histories[f.name]) if f.history else self._histories[f.name][-1]
            for f in self.spec.fields
        }
        buffer = list(self._actions)[-self.spec.act_buf_len :] if self.spec.act_buf_len else []
        observation |= {f"action_{i}": value for i, (_, value) in enumerate(buffer)}
        needed = min([max(index - self.spec.history + 1, self._first), *(origin for origin, _ in buffer)])
        is_first = index == self._first
        self.rows.append(Row(observation, action, reward, terminated, truncated, is_first, needed))


class Run:
    """Several streams whose segments arrive interleaved, cut at random places."""

    def __init__(self, spec: ObservationSpec, num_streams: int, seed: int, longest_episode: int = 12) -> None:
        self.spec = spec
        self.rng = np.random.default_rng(seed)
        ids = iter(range(1 << 24))
        self.envs = [StackingEnv(spec, seed * 101 + i, longest_episode, ids) for i in range(num_streams)]
        self.by_id: dict[int, tuple[StackingEnv, int]] = {}
        self._sent = [0] * num_streams
        self._seq: dict[str, int] = {}
        self.num_rows = 0

    def next_segment(self, longest: int, checksums: bool = False) -> Segment:
        """Drives a random stream on and returns the rows as one segment; they count as arrived."""
        index = int(self.rng.integers(len(self.envs)))
        env = self.envs[index]
        start = self._sent[index]
        count = int(self.rng.integers(1, longest + 1))
        for _ in range(count):
            env.advance()
            self.by_id[int(env.rows[-1].observation["row"][0])] = (env, len(env.rows) - 1)
        self._sent[index] = len(env.rows)
        worker = f"w{index // 2}"
        self._seq[worker] = self._seq.get(worker, 0) + 1
        return make_segment(self.spec, worker, index % 2, self._seq[worker], env.rows[start:], checksums)

    def arrive(self, segment: Segment) -> None:
        """Numbers the rows of a segment in the order of arrival."""
        for row_id in segment.frames["row"][:, 0]:
            env, index = self.by_id[int(row_id)]
            env.rows[index].number = self.num_rows
            self.num_rows += 1

    def valid_rows(self, capacity: int) -> set[int]:
        """Ids of all rows from which a transition can be rebuilt, for a run in which every segment arrived."""
        lowest = self.num_rows - capacity
        return {
            row_id
            for row_id, (env, index) in self.by_id.items()
            if index + 1 < len(env.rows)
            and not env.rows[index + 1].is_first
            and env.rows[env.rows[index].needed].number >= lowest
        }


def make_segment(
    spec: ObservationSpec, worker: str, stream: int, seq: int, rows: list[Row], checksums: bool = False
) -> Segment:
    """The segment that a worker would send for these rows."""
    newest = [spec.newest(row.observation) for row in rows]
    return Segment(
        worker=worker,
        stream=stream,
        seq=seq,
        frames={f.name: np.stack([frames[f.name] for frames in newest]) for f in spec.fields},
        action=np.stack([row.action for row in rows]),
        reward=np.array([row.reward for row in rows], np.float32),
        terminated=np.array([row.terminated for row in rows]),
        truncated=np.array([row.truncated for row in rows]),
        is_first=np.array([row.is_first for row in rows]),
        weights_version=3,
        checksums=np.array([spec.checksum(row.observation) for row in rows], np.uint32) if checksums else None,
    )


def n_step(rows: list[Row], index: int, n: int, gamma: float) -> tuple[int, float, float]:
    """Index of the row after up to n steps, the discounted rewards on the way, and the discount, by a plain loop."""
    total, k = 0.0, 0
    while k < n and index + k + 1 < len(rows) and not rows[index + k + 1].is_first and rows[index + k + 1].number >= 0:
        total += gamma**k * rows[index + k + 1].reward
        k += 1
    return index + k, total, gamma**k
