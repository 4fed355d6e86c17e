"""rtgym's two real-time environments with exceptions passed on, limited waits and threads that end.

rtgym calls the interface in a separate thread. There an exception or a hang makes the caller wait without end, and
rtgym warns at every late step. ``tasks.envs.realtime.WallClockEnv`` drives rtgym through this module: an interface that
keeps exceptions, environments that report when a step begins, and calls with a time limit.

rtgym paces itself with ``time.sleep``, which since Python 3.11 is exact on Windows too (a high-resolution timer instead
of ticks of 16 ms); events wake at once when they are set. Nothing here relies on a timeout that must be exact.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import gymnasium
import numpy as np
from rtgym import RealTimeGymInterface
from rtgym.envs.real_time_env import RealTimeEnv, RealTimeEnvTS

from tasks.config import RtgymConfig
from tasks.envs.interface import TRUNCATED_KEY, TaskInterface, capture
from tasks.envs.step_times import StepTimes
from tasks.experience.observation import Info

Answer = TypeVar("Answer")

IMPLEMENTATIONS = ("v1", "ts")


class RtgymEnv(Protocol):
    """What the wall-clock environment uses of rtgym."""

    ep_max_length: float
    current_step: int
    time_step_duration: float
    start_obs_capture: float

    def reset(self, seed: int | None = None, options: Info | None = None) -> tuple[tuple[np.ndarray, ...], Info]:
        """Starts an episode."""
        ...

    def step(self, action: np.ndarray) -> tuple[tuple[np.ndarray, ...], float, bool, bool, Info]:
        """Ends the step in flight and starts the next one."""
        ...

    def wait(self) -> None:
        """Ends the step in flight and rests."""
        ...

    def stop(self) -> None:
        """Ends the step in flight."""
        ...

    def benchmarks(self) -> dict[str, tuple[float | None, float]]:
        """Durations of the parts of a step [s]."""
        ...

    def set_default_action(self, default_action: np.ndarray) -> None:
        """Changes what the next reset() sends."""
        ...

    def set_time_step_duration(self, time_step_duration: float, time_step_timeout_factor: float | None = None) -> None:
        """Changes the duration of a step."""
        ...

    def set_start_obs_capture(self, start_obs_capture: float) -> None:
        """Changes when an observation is captured."""
        ...

    def set_ep_max_length(self, ep_max_length: float) -> None:
        """Changes after how many steps an episode is truncated."""
        ...

    def end(self, timeout_s: float) -> bool:
        """Ends the thread; returns whether it ended within ``timeout_s``. It ends later if the game hangs."""
        ...


def make_rtgym_env(
    implementation: str, guard: GuardedInterface, config: RtgymConfig, ep_max_length: float, times: StepTimes
) -> RtgymEnv:
    """Builds rtgym's environment.

    Args:
        implementation: ``v1`` (a thread per step) or ``ts`` (one persistent thread).
        guard: What rtgym calls.
        config: The elastic clock. The caller handles its ``wait_on_done``, with a time limit.
        ep_max_length: Steps after which an episode is truncated.
        times: Told of every step that begins.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be 'v1' or 'ts', got {implementation!r}")
    env_class: Callable[..., RtgymEnv] = _PersistentThreadEnv if implementation == "ts" else _ThreadPerStepEnv
    return env_class(_rtgym_config(guard, config, ep_max_length), guard, times)


class GuardedInterface(RealTimeGymInterface):
    """Passes calls on and keeps what they raise, so that rtgym's thread survives.

    Args:
        interface: The task.
    """

    def __init__(self, interface: TaskInterface) -> None:
        self.interface = interface
        self._last_observation: list[np.ndarray] = [
            np.zeros(field.shape, field.dtype) for field in interface.observation_spec.fields
        ]
        self.error: Exception | None = None
        self.is_truncated = False
        """Whether the newest info says that the episode is cut off."""
        self.sent_at_s = 0.0
        """When the newest action was sent, on the clock that rtgym uses."""
        self.is_closed = False
        """Whether calls end here: a call that hung must not drive a game that was closed meanwhile."""
        self.captured = threading.Event()
        """Set when the step in flight has its observation, or failed to get one."""
        self.captured.set()

    def raise_error(self) -> None:
        """Raises what an earlier call raised, once."""
        error, self.error = self.error, None
        if error is not None:
            raise error

    def send_control(self, control: np.ndarray | None) -> None:
        """Sends the control, unless an error has occurred."""
        self.sent_at_s = time.perf_counter()
        if self.error is None and not self.is_closed:
            try:
                self.interface.send_control(control)
            except Exception as error:
                self.error = error

    def reset(self, seed: int | None = None, options: Info | None = None) -> tuple[list[np.ndarray], Info]:
        """Resets; after an error it returns a placeholder that is never used."""
        try:
            self._last_observation, info = self.interface.reset(seed=seed, options=options)
        except Exception as error:
            self.error = error
            info = {}
        return self._last_observation, info

    def wait(self) -> None:
        """Pauses the game."""
        try:
            self.interface.wait()
        except Exception as error:
            self.error = error

    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, Info]:
        """Captures; after an error it returns a placeholder that is never used."""
        reward, terminated, info = 0.0, False, Info()
        try:
            if self.error is None and not self.is_closed:
                self._last_observation, reward, terminated, info = capture(self.interface)
        except Exception as error:
            self.error = error
        self.is_truncated = bool(info.get(TRUNCATED_KEY))
        self.captured.set()
        return self._last_observation, reward, terminated, info

    def get_observation_space(self) -> gymnasium.spaces.Tuple:
        """Space of the fields."""
        return self.interface.get_observation_space()

    def get_action_space(self) -> gymnasium.spaces.Box:
        """Space of the actions."""
        return self.interface.get_action_space()

    def get_default_action(self) -> np.ndarray:
        """What is applied at the start of an episode."""
        return self.interface.get_default_action()


class BoundedCall(Generic[Answer]):
    """A call in a separate thread; the caller may stop waiting, but cannot end the thread.

    Args:
        name: Name of the thread.
        call: What is called.
    """

    def __init__(self, name: str, call: Callable[[], Answer]) -> None:
        self._call = call
        self._answer: Answer
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Whether the call has returned, after at most ``timeout_s``."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def answer(self) -> Answer:
        """What the call returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._answer

    def _run(self) -> None:
        try:
            self._answer = self._call()
        except BaseException as error:
            self._error = error


class _TimedSteps:
    """Tells ``times`` when a step begins, instead of warning.

    rtgym calls ``_update_timestamps`` right after it sent the action of a step.
    """

    _END_OF_STEP: str
    """rtgym's private attribute with the planned end of the last step."""
    is_waiting: bool
    time_step_duration: float
    _at_thread: threading.Thread

    def __init__(self, config: dict[str, Any], guard: GuardedInterface, times: StepTimes) -> None:
        self._guard = guard
        self._times = times
        self._is_paused = False
        super().__init__(config)  # type: ignore[call-arg]  # of rtgym's class

    def wait(self) -> None:
        """Ends the step in flight and rests: the next step cannot be late."""
        self._is_paused = True
        super().wait()  # type: ignore[misc]

    def _update_timestamps(self) -> None:
        due_s = vars(self)[self._END_OF_STEP]
        # A waiting environment does not warn, and stops waiting when its clock restarts.
        self.is_waiting = True
        super()._update_timestamps()  # type: ignore[misc]
        is_paused, self._is_paused = self._is_paused, False
        self._times.add(
            due_s,
            self._guard.sent_at_s,
            self.time_step_duration,
            is_rebased=not self.is_waiting,
            is_paused=is_paused,
        )

    def end(self, timeout_s: float) -> bool:
        """Waits for the thread of the step in flight."""
        self._at_thread.join(timeout_s)
        return not self._at_thread.is_alive()


class _ThreadPerStepEnv(_TimedSteps, RealTimeEnv):
    """rtgym's first implementation."""

    _END_OF_STEP = "_RealTimeEnv__t_end"


class _PersistentThreadEnv(_TimedSteps, RealTimeEnvTS):
    """rtgym's second implementation."""

    _END_OF_STEP = "_RealTimeEnvTS__t_end"

    def end(self, timeout_s: float) -> bool:
        """Asks rtgym's thread to end after its current call, and waits for it."""
        self._ask_to_end()
        return super().end(timeout_s)

    def __del__(self) -> None:
        # rtgym waits for its thread here, without end when the game hangs.
        if "_at_thread" in vars(self):
            self._ask_to_end()

    def _ask_to_end(self) -> None:
        # rtgym 0.16 has no public way to end its thread.
        self.__dict__["_RealTimeEnvTS__die"] = True
        self.__dict__["_RealTimeEnvTS__ev_start_ts"].set()


def _rtgym_config(interface: RealTimeGymInterface, config: RtgymConfig, ep_max_length: float) -> dict[str, Any]:
    return {
        "interface": lambda: interface,
        "time_step_duration": config.time_step_duration,
        "start_obs_capture": config.start_obs_capture,
        "time_step_timeout_factor": config.time_step_timeout_factor,
        "ep_max_length": ep_max_length,
        "act_in_obs": config.act_in_obs,
        "act_buf_len": config.act_buf_len,
        "reset_act_buf": config.reset_act_buf,
        "last_act_on_reset": config.last_act_on_reset,
        "wait_on_done": False,
        "benchmark": config.benchmark,
        "benchmark_polyak": config.benchmark_polyak,
    }
