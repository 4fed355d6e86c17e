"""An environment with numbered rows, and the policy that drives it: lost and doubled rows can be counted.

Every row (reset or step) has the next number: 1, 2, 3, ... Picture and reward depend on the number, so that damaged
and wrongly assembled rows are noticed, too. Built by name inside the worker processes.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from tasks.acting.env_source import EnvSource
from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.samples import EPISODE_STATISTICS
from tasks.remote.access.fingerprint import agreed_fingerprint

ACTION_SIZE = 2
FUNCTION = "tests.faults.numbered_env:make_env"
POLICY: dict[str, Any] = {"function": "tests.faults.numbered_env:make_policy", "kwargs": {}}

_NUMBER = struct.Struct("<q")


class NumberedEnv(gymnasium.Env):
    """Counts its rows.

    Args:
        length: Steps of an episode; it is truncated.
        picture_bytes: Size of the picture.
        step_s: Duration of a step [s].
        first: Number of the first row.
        ledger: File into which the number of the newest row is written, so that it outlives a kill; empty: none.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (declared so by Gymnasium)

    def __init__(
        self, length: int = 63, picture_bytes: int = 64, step_s: float = 0.0, first: int = 1, ledger: str = ""
    ) -> None:
        self._length, self._step_s, self._next = length, step_s, first
        self._picture_bytes = picture_bytes
        self.observation_spec = make_spec(picture_bytes)
        self.observation_space = self.observation_spec.dict_space()
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self._action = np.zeros(ACTION_SIZE, np.float32)
        self._count = 0
        self._ledger = _open_ledger(Path(ledger)) if ledger else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._count = 0
        self._action = np.zeros(ACTION_SIZE, np.float32)
        return self._observe(self._take_number()), {"progress": 0.0}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._step_s:
            time.sleep(self._step_s)
        self._count += 1
        self._action = action.copy()
        number = self._take_number()
        has_ended = self._count >= self._length
        info: dict[str, Any] = {"progress": self._count / self._length}
        if has_ended:
            info["episode_statistics"] = dict.fromkeys(EPISODE_STATISTICS, 0.0) | {"length": float(self._count)}
        return self._observe(number), float(reward_of(np.array(number))), False, has_ended, info

    def wait(self) -> None:
        """Nothing to pause."""

    def _take_number(self) -> int:
        number, self._next = self._next, self._next + 1
        if self._ledger is not None:
            self._ledger[:] = _NUMBER.pack(number)
        return number

    def _observe(self, number: int) -> dict[str, np.ndarray]:
        numbers = np.array([number])
        return {
            "number": number_bytes(numbers)[0],
            "picture": picture_of(numbers, self._picture_bytes)[0],
            "action_0": self._action,
        }


class VersionPolicy:
    """Its action is the version of its weights, so that each row shows which weights chose it."""

    def __init__(self) -> None:
        self.version = 0

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        return np.full(ACTION_SIZE, (self.version % 100) / 100, np.float32)

    def load_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        if int(weights["version"][0]) != version:
            raise ValueError(f"weights of version {weights['version'][0]} came as version {version}")
        self.version = version

    def begin_episode(self) -> None:
        """Nothing to do."""

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""


def make_env(**kwargs: Any) -> NumberedEnv:
    """Makes the environment from plain data."""
    return NumberedEnv(**kwargs)


def make_policy(seed: int = 0) -> VersionPolicy:
    """Makes the policy from plain data."""
    del seed
    return VersionPolicy()


def make_spec(picture_bytes: int) -> ObservationSpec:
    """Fields of the observation."""
    fields = (Field("number", (8,), "uint8", 0, 255), Field("picture", (picture_bytes,), "uint8", 0, 255))
    return ObservationSpec(fields, action_size=ACTION_SIZE, act_buf_len=1)


def fingerprint(picture_bytes: int) -> str:
    """Fingerprint of the task."""
    source = EnvSource({}, FUNCTION, {"picture_bytes": picture_bytes})
    return agreed_fingerprint(source.describe().fingerprint, POLICY)


def number_bytes(numbers: np.ndarray) -> np.ndarray:
    """Numbers as a field of the observation, shape (n,) -> (n, 8)."""
    return numbers.astype("<i8").reshape(-1, 1).view(np.uint8)


def numbers_of(frames: np.ndarray) -> np.ndarray:
    """The inverse of ``number_bytes``."""
    return np.ascontiguousarray(frames).view("<i8").reshape(-1)


def picture_of(numbers: np.ndarray, size: int) -> np.ndarray:
    """The pictures of these rows, shape (n, size); noise that no compression shortens by much."""
    offsets = np.arange(size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (numbers.astype(np.uint64)[:, None] + np.uint64(1)) * np.uint64(0xD1B54A32D192ED03) + offsets
    mixed ^= mixed >> np.uint64(29)
    return ((mixed * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(56)).astype(np.uint8)


def reward_of(numbers: np.ndarray) -> np.ndarray:
    """The rewards of these rows; resets have none."""
    return (numbers % 1009).astype(np.float32)


def _open_ledger(path: Path) -> mmap.mmap:
    if not path.exists():
        path.write_bytes(_NUMBER.pack(0))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), _NUMBER.size)


def read_ledger(path: Path) -> int:
    """Number of the newest row that was made."""
    return int(_NUMBER.unpack(path.read_bytes())[0]) if path.exists() else 0
