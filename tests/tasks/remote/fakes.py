"""Fake environments and policies for the tests of the link; built by name inside the worker processes."""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.samples import EPISODE_STATISTICS
from tasks.game.errors import GameError
from tasks.live.controls import exit_release
from tasks.process import step_watch


class CountingEnv(gymnasium.Env):
    """A deterministic environment whose observation tells where it is.

    Fields: count (steps since reset), seed (of the episode), position (sum of the actions plus seeded noise), images
    (4 small pictures filled with the count). Checks its actions. Ends after ``length`` steps; even seeds terminate,
    odd ones are truncated.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self,
        length: int = 10,
        step_s: float = 0.0,
        fail_at: int = 0,
        reset_act_buf: bool = True,
        die_at: int = 0,
        bad_reward_at: int = 0,
        name: str = "counting",
    ) -> None:
        self._length, self._step_s, self._fail_at, self._die_at = length, step_s, fail_at, die_at
        self._bad_reward_at = bad_reward_at
        self.observation_spec = ObservationSpec(
            fields=(
                Field("count", (1,), "float32", 0.0, 1e6, scale=10.0),
                Field("seed", (1,), "float32", 0.0, 2.0**31),
                Field("position", (1,), "float32", -1e6, 1e6),
                Field("images", (4, 8, 8), "uint8", 0, 255, history=4, scale=255.0),
            ),
            action_size=3,
            act_buf_len=2,
            reset_act_buf=reset_act_buf,
        )
        self.name = name
        self.observation_space = self.observation_spec.dict_space()
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self._actions: deque[np.ndarray] = deque([np.zeros(3, np.float32)] * 2, maxlen=2)
        self._total = 0
        self.was_closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._seed = int(seed or 0)
        self._count = 0
        self._position = 0.0
        self._images = deque([np.zeros((8, 8), np.uint8)] * 4, maxlen=4)
        if self.observation_spec.reset_act_buf:
            self._actions.extend([np.zeros(3, np.float32)] * 2)
        else:
            self._actions[-1] = np.zeros(3, np.float32)
        return self._observe(), {"progress": 0.0}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if action.shape != (3,) or action.dtype != np.float32:
            raise ValueError(f"action must be float32 of shape (3,), got {action.dtype} {action.shape}")
        if self._step_s:
            time.sleep(self._step_s)
        self._total += 1
        if self._fail_at and self._total >= self._fail_at:
            raise RuntimeError("the wheel fell off")
        if self._die_at and self._total >= self._die_at:
            os._exit(1)
        self._count += 1
        self._actions.append(action)
        self._position += float(action.sum()) + float(self.np_random.normal())
        self._images.append(np.full((8, 8), self._count % 256, np.uint8))
        has_ended = self._count >= self._length
        terminated = has_ended and self._seed % 2 == 0
        info: dict[str, Any] = {"progress": self._count / self._length}
        if has_ended:
            info["episode_statistics"] = dict.fromkeys(EPISODE_STATISTICS, 0.0) | {
                "return": float(self._count),
                "length": float(self._count),
                "lap_time_s": float("nan"),
            }
        reward = float("nan") if self._total == self._bad_reward_at else float(self._count)
        return self._observe(), reward, terminated, has_ended and not terminated, info

    def wait(self) -> None:
        """Nothing to pause."""

    def close(self) -> None:
        self.was_closed = True

    def _observe(self) -> dict[str, np.ndarray]:
        observation: dict[str, np.ndarray] = {
            "count": np.array([self._count], np.float32),
            "seed": np.array([self._seed % 2**20], np.float32),
            "position": np.array([self._position], np.float32),
            "images": np.stack(self._images),
        }
        return observation | {f"action_{i}": action for i, action in enumerate(self._actions)}


class RandomPolicy:
    """Draws actions; with weights it acts with their version instead, so that a row tells who chose it."""

    def __init__(self, seed: int = 0, fail_at_version: int = 0) -> None:
        self.version = 0
        self._rng = np.random.default_rng(seed)
        self._value: float | None = None
        self._fail_at_version = fail_at_version
        self.num_episodes = 0

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        if self._value is None or (not deterministic and self._value < 0):
            return self._rng.uniform(-1, 1, 3).astype(np.float32)
        return np.full(3, self._value, np.float32)

    def load_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        if self._fail_at_version and version >= self._fail_at_version:
            raise ValueError("weights do not fit")
        self._value = float(weights["value"][0])
        self.version = version

    def begin_episode(self) -> None:
        self.num_episodes += 1

    def state(self) -> dict[str, Any]:
        return {"rng": self._rng.bit_generator.state, "num_episodes": self.num_episodes}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._rng.bit_generator.state = state["rng"]
        self.num_episodes = state["num_episodes"]


def make_env(**kwargs: Any) -> CountingEnv:
    """The environment, from plain data."""
    return CountingEnv(**kwargs)


def make_hanging(go_on: str, learner: int, **kwargs: Any) -> CountingEnv:
    """An environment that hangs in a worker while it is made to be driven, until the file ``go_on`` is there.

    Args:
        go_on: The file.
        learner: Process in which nothing hangs; nor does the first in a worker, which is made to be described.
        **kwargs: Of ``CountingEnv``.
    """
    if os.getpid() != learner:
        step_watch.HANGING_S = 0.1
        while next(_made) and not Path(go_on).exists():
            time.sleep(0.01)
    return CountingEnv(**kwargs)


_made = itertools.count()


def make_policy(**kwargs: Any) -> RandomPolicy:
    """The policy, from plain data."""
    return RandomPolicy(**kwargs)


class OneGame:
    """A single game on this machine; it is given up by ``close`` and by the end of the process.

    Args:
        folder: Identifies the game.

    Raises:
        RuntimeError: Somebody has it.
    """

    def __init__(self, folder: Path) -> None:
        import fcntl

        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RuntimeError("two environments drive the one game") from None

    def close(self) -> None:
        """Gives it up."""
        self._lock.close()


class SingleGameEnv(CountingEnv):
    """A single game: a second environment anywhere on this machine fails while one exists.

    Writes what happens to it into a file: process, "reset" with the seed, "end", "let go", "interrupted".

    Args:
        folder: Where its lock and its diary are.
        hang: Reset waits for ever, as for a game that does not come, unless it is watched.
        trouble: What reset says that is wrong with the game.
        **kwargs: Of ``CountingEnv``.
    """

    metadata = {"render_modes": [], "single_game": True}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, folder: str, hang: str = "", trouble: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._folder, self._hang, self._trouble = Path(folder), hang, trouble
        self._stop: Callable[[], bool] = lambda: False
        self._game = OneGame(self._folder)
        self._unregister = exit_release.register(lambda: self._write("let go"))
        self._has_ended = True

    def watch(self, stop: Callable[[], bool]) -> None:
        """As of a ``TaskEnv``."""
        self._stop = stop

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._write(f"reset {seed}")
        if self._trouble:
            raise GameError(self._trouble)
        while self._hang and not (self._hang == "watched" and self._stop()):
            time.sleep(0.01)
        if self._hang:
            self._write("interrupted")
            raise RuntimeError("interrupted")
        self._has_ended = False
        return super().reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._has_ended:
            raise RuntimeError("call reset() before step()")
        result = super().step(action)
        self._has_ended = result[2] or result[3]
        if self._has_ended:
            self._write("end")
        return result

    def close(self) -> None:
        super().close()
        self._unregister()
        self._game.close()

    def _write(self, event: str) -> None:
        with (self._folder / "diary").open("a") as file:
            file.write(f"{os.getpid()} {event}\n")


def make_single_game(**kwargs: Any) -> SingleGameEnv:
    """The environment, from plain data."""
    return SingleGameEnv(**kwargs)
