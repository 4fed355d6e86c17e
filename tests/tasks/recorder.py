"""A task for tests of the environments: it records its calls, and fails and hangs on request."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from tasks.config import RtgymConfig
from tasks.envs.interface import TaskInterface
from tasks.experience.observation import Field, ObservationSpec
from tasks.game.clock import Clock


class Recorder(TaskInterface):
    """Logs when it is called; the observation is the number of captures in this episode."""

    def __init__(self, clock: Clock, config: RtgymConfig, ends_after: int = 10**9) -> None:
        self.observation_spec = self.spec_for(config)
        self.calls: list[tuple[str, float, Any]] = []
        self._clock = clock
        self._ends_after = ends_after
        self._captures = 0
        self.reset_takes_s = 0.0
        self.fails_at: dict[str, Exception] = {}
        self.lost_after: int | None = None
        self.hangs_at = ""
        """The call that does not return until ``released`` is set."""
        self.released = threading.Event()
        self.is_interruptible = False
        """Whether a call that hangs can be ended by ``interrupt``, as one of the live game can."""
        self._interrupted = threading.Event()

    @classmethod
    def spec_for(cls, config: RtgymConfig) -> ObservationSpec:
        length = config.act_buf_len if config.act_in_obs else 0
        return ObservationSpec((Field("count", (1,)),), 2, length, config.reset_act_buf)

    @classmethod
    def from_config(cls, config: Any, clock: Clock) -> Recorder:
        return cls(clock, config)

    def send_control(self, control: np.ndarray | None) -> None:
        self._log("send", None if control is None else np.asarray(control).tolist())

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[list[np.ndarray], dict[str, Any]]:
        self._log("reset", seed)
        self._clock.sleep_until(self._clock.now() + self.reset_takes_s)
        self._captures = 0
        return [np.array([0], np.float32)], {}

    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, dict[str, Any]]:
        self._log("capture", None)
        self._captures += 1
        info = {"truncated": True} if self._captures == self.lost_after else {}
        return [np.array([self._captures], np.float32)], 1.0, self._captures >= self._ends_after, info

    def episode_statistics(self) -> dict[str, float]:
        return {"length": float(self._captures)}

    def wait(self) -> None:
        self._log("wait", None)

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        self._log("close", None)

    def times(self, name: str) -> list[float]:
        return [round(at, 6) for call, at, _ in self.calls if call == name]

    def sent(self) -> Any:
        return [what for call, _, what in self.calls if call == "send"]

    def _log(self, name: str, what: Any) -> None:
        if name in self.fails_at:
            raise self.fails_at[name]
        self.calls.append((name, self._clock.now(), what))
        if name != self.hangs_at:
            return
        while not self.released.wait(0.01):
            if self.is_interruptible and self._interrupted.is_set():
                raise ConnectionError(f"{name} was interrupted")


def action(value: float) -> np.ndarray:
    """An action of the recorder."""
    return np.array([value, -value], np.float32)
