"""Environments of tasks: real-time ones over a ``TaskInterface``, in virtual time and on the wall clock through rtgym.

``TaskEnv`` is the base of these and of environments without a clock. Both real-time ones have rtgym's timing: an action
is sent at the start of a step, the observation of that step is captured ``start_obs_capture`` later, and ``step(a)``
returns the observation of the step in flight before ``a`` acts. ``tasks.registry`` builds them.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any, Self, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from rtgym import RealTimeGymInterface
from rtgym.envs.utils.benchmark import Benchmark

from tasks.config import RtgymConfig
from tasks.envs.batch_clock import JITTER_STREAM
from tasks.envs.interface import TRUNCATED_KEY, Interrupted, TaskInterface, capture
from tasks.envs.rtgym_clock import Answer, BoundedCall, GuardedInterface, make_rtgym_env
from tasks.envs.rtgym_interface import as_task_interface
from tasks.envs.step_times import StepTimes
from tasks.experience.observation import Info, ObservationSpec
from tasks.game.clock import Clock

OBSERVATIONS = ("tuple", "dict", "flat")
"""The forms of an observation: rtgym's tuple, its entries by name, one vector of float32 with all fields scaled."""
_POLL_S = 0.1
"""How often a wait for the game looks for a request to stop [s]."""
_CLOSE_TIMEOUT_S = 1.0
"""How long close() waits for a call into the game before it takes it for hung [s]."""
_SEED_LIMIT = 2**31

_logger = logging.getLogger(__name__)


def make_wall_env(
    interface: TaskInterface | RealTimeGymInterface,
    config: RtgymConfig,
    *,
    implementation: str = "ts",
    timeout_s: float = 10.0,
    reset_timeout_s: float = 60.0,
) -> WallClockEnv:
    """Builds the environment that runs in real time, through rtgym.

    Args:
        interface: The task, built with a ``WallClock``; one written for rtgym is wrapped and keeps its units.
        config: The elastic clock.
        implementation: rtgym's ``v1`` (a thread per step) or ``ts`` (one persistent thread). What is opened once per
            thread, such as a screen capture, is opened at every step with ``v1``.
        timeout_s: How long a capture may take before step() raises TimeoutError.
        reset_timeout_s: The same for reset() and wait().
    """
    return WallClockEnv(interface, config, implementation, timeout_s, reset_timeout_s)


class TaskEnv(gymnasium.Env):
    """What the environments of all tasks share: fields by name, spaces, seeds, an end that may be called twice.

    Observations are the fields of ``observation_spec`` in their order, as a tuple unless ``observe_as`` chose another
    form. At the last step of an episode ``info["episode_statistics"]`` holds its statistics
    (``tasks.experience.samples.EPISODE_STATISTICS``). A task whose environment waits for its actions derives from this
    and implements ``spec_for``, ``from_config``, ``reset``, ``step`` and ``_release``; what ``reset`` and ``step``
    return goes through ``self._observed``. A task in real time implements a ``TaskInterface``, which ``RealTimeEnv``
    drives.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (declared so by Gymnasium)
    render_mode = "rgb_array"
    is_real_time = False
    """Whether steps take their time, so that the process should be ``punctual``."""
    ep_max_length: float
    """Steps after which an episode is truncated; inf, or 0 where there is no clock: never."""

    def __init__(self, observation_spec: ObservationSpec) -> None:
        self.observation_spec = observation_spec
        self.observation_space = observation_spec.tuple_space()
        self.action_space = spaces.Box(-1.0, 1.0, (observation_spec.action_size,), np.float32)
        self._action_shape = self.action_space.shape
        self._observed: Callable[[tuple[np.ndarray, ...]], Any] = tuple
        """The fields in the chosen form."""
        self._closed = False

    @classmethod
    def spec_for(cls, config: Any) -> ObservationSpec:
        """The observation that ``config`` leads to."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: Any) -> TaskEnv:
        """Builds the environment."""
        raise NotImplementedError

    def observe_as(self, form: str) -> Self:
        """Chooses the form of observations, one of ``OBSERVATIONS``, and their space; returns the environment."""
        spec = self.observation_spec
        if form == "dict":
            self._observed, self.observation_space = spec.to_dict, spec.dict_space()
        elif form == "flat":
            self._observed, self.observation_space = spec.flatten, spec.flat_space()
        elif form != "tuple":
            raise ValueError(f"observation must be one of {', '.join(OBSERVATIONS)}, got {form!r}")
        return self

    def watch(self, stop: Callable[[], bool]) -> None:
        """Has what waits for the game raise ``Interrupted`` soon after ``stop()`` becomes true."""

    def wait(self) -> None:
        """Pauses the environment until the next reset() or step(); nothing to do where it waits for them anyway."""

    def timing_statistics(self) -> dict[str, float]:
        """``TIMING_STATISTICS`` of the episode so far; nothing where no step is late by itself."""
        return {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """A picture for people, uint8 RGB, shape (h, w, 3); None when the task has none."""
        return None

    def close(self) -> None:
        """Releases the driven game or device. Calling it twice is fine."""
        if not self._closed:
            self._closed = True
            self._release()

    def _release(self) -> None:
        """What ``close`` does the first time."""

    def _episode_seed(self, seed: int | None) -> int:
        """The seed of the next episode: as given, else the next draw of this environment's own generator."""
        gymnasium.Env.reset(self, seed=seed)
        return int(self.np_random.integers(_SEED_LIMIT)) if seed is None else int(seed)

    def _checked_action(self, action: np.ndarray) -> np.ndarray:
        """A float32 copy of the action: the caller may reuse its array."""
        copy = np.array(action, np.float32)
        if copy.shape != self._action_shape:
            raise ValueError(f"action must have shape {self._action_shape}, got {copy.shape}")
        if not all(map(math.isfinite, copy.tolist())):
            raise ValueError(f"action must be finite, got {copy.tolist()}")
        return copy


class RealTimeEnv(TaskEnv):
    """What both environments on rtgym's clock share.

    Observations are rtgym's tuples: the fields of ``observation_spec``, then the action buffer, oldest first; its last
    entry is the action just passed to step(), which has not acted yet.
    """

    def __init__(self, interface: TaskInterface | RealTimeGymInterface, config: RtgymConfig) -> None:
        self.interface = as_task_interface(interface, config)
        spec = self.interface.observation_spec
        super().__init__(spec)
        self.metadata = {**self.metadata, "render_fps": 1.0 / config.time_step_duration}
        self.action_space = self.interface.get_action_space()
        fields = [field.space() for field in spec.fields]
        self.observation_space = spaces.Tuple([*fields, *[self.action_space] * spec.act_buf_len])
        self.ep_max_length = _episode_steps(self.interface, config)

    def replace_interface(self, interface: TaskInterface) -> None:
        """Puts something around the interface that records or measures its calls."""
        self.interface = interface

    def stop(self) -> None:
        """Ends the step in flight."""
        raise NotImplementedError

    def benchmarks(self) -> dict[str, tuple[float | None, float]]:
        """What the parts of a step cost [s]: rtgym's names, (mean, mean absolute deviation)."""
        raise NotImplementedError

    def set_default_action(self, default_action: np.ndarray) -> None:
        """Changes what the next reset() sends."""
        raise NotImplementedError

    def set_time_step_duration(self, time_step_duration: float, time_step_timeout_factor: float | None = None) -> None:
        """Changes the duration of a step [s] from the next step on."""
        raise NotImplementedError

    def set_start_obs_capture(self, start_obs_capture: float) -> None:
        """Changes when an observation is captured [s] from the next step on."""
        raise NotImplementedError

    def set_ep_max_length(self, ep_max_length: float) -> None:
        """Changes after how many steps an episode is truncated."""
        raise NotImplementedError

    def render(self) -> np.ndarray | None:
        """A picture for people, uint8 RGB, shape (h, w, 3)."""
        return self.interface.render()

    def _release(self) -> None:
        self.interface.close()


class VirtualTimeEnv(RealTimeEnv):
    """rtgym's elastic clock in virtual time: one thread, no waiting, the same observations.

    Step k lasts from t_k to t_k + time_step_duration. At t_k the action is sent, at t_k + start_obs_capture (plus a
    jitter) the observation is captured. step() first ends the step in flight, then starts the next one, so the action
    acts during the step after the one whose observation is returned. The last action of an episode is never sent.
    """

    def __init__(
        self,
        interface: TaskInterface | RealTimeGymInterface,
        config: RtgymConfig,
        clock: Clock,
        *,
        capture_jitter_s: float = 0.0,
        inference_time_s: float | Callable[[np.random.Generator], float] = 0.0,
    ) -> None:
        """Builds the environment.

        Args:
            interface: The task, built with the same ``clock``; one written for rtgym is wrapped and keeps its units.
            config: The elastic clock; names as in rtgym.
            clock: Virtual time.
            capture_jitter_s: A capture is late by U(0, this), drawn from the seed of the episode.
            inference_time_s: How long the caller's policy takes; a step is late when that exceeds its duration.
        """
        super().__init__(interface, config)
        self.clock = clock
        self.time_step_duration = config.time_step_duration
        self.start_obs_capture = config.start_obs_capture
        self.time_step_timeout_factor = config.time_step_timeout_factor
        self.default_action = self.interface.get_default_action()
        self.current_step = 0
        self._config = config
        self._capture_jitter_s = capture_jitter_s
        self._inference_time_s = inference_time_s
        self._act_buf = deque([self.default_action] * config.act_buf_len, maxlen=config.act_buf_len)
        self._rng = np.random.default_rng(0)
        self._t_end: float | None = None
        self._capture_at = 0.0
        self._returned_at = 0.0
        self._in_flight = False
        self._is_waiting = False
        self._running = False
        self._captured: tuple[list[np.ndarray], float, bool, Info] | None = None
        self._bench = Benchmark(run_avg_factor=config.benchmark_polyak) if config.benchmark else None

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        """Starts an episode; its first step is driven by the default action (or the last one: last_act_on_reset).

        Where the task has a ``start``, ``info["start"]`` tells it, and ``options={"start": ...}`` begins there again.
        """
        episode_seed = self._episode_seed(seed)
        self._leave_time_step()
        start = self._start(options)
        self._rng = np.random.default_rng([episode_seed, JITTER_STREAM])
        self._refill_action_buffer()
        self.current_step = 0
        fields, info = self.interface.reset(seed=episode_seed, options=options)
        info["seed"] = episode_seed
        if start is not None:
            info["start"] = start
        observation = self._with_actions(fields)
        if self._t_end is None:
            self._t_end = self.clock.now()
        self._running = True
        self._start_time_step(self._act_buf[-1])
        return observation, info

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, Info]:
        """Returns what the step in flight led to, and starts the next one with ``action``."""
        if not self._running:
            raise RuntimeError("The episode is terminated or truncated: call reset() before step().")
        action = self._checked_action(action)
        if self._bench is not None:
            self._bench.start_step_time()
        self._end_time_step()
        if self._bench is not None:
            self._bench.end_step_join_time()
        assert self._captured is not None
        fields, reward, terminated, info = self._captured
        self.current_step += 1
        self._act_buf.append(action)
        is_cut = bool(info.get(TRUNCATED_KEY))
        truncated = not terminated and (is_cut or self.current_step >= self.ep_max_length)
        if terminated or truncated:
            self._end_episode(info)
        else:
            self._start_time_step(action)
        if self._bench is not None:
            self._bench.end_step_time()
        return self._with_actions(fields), reward, terminated, truncated, info

    def wait(self) -> None:
        """Pauses: the step in flight ends, the interface rests, and the clock may be re-based without a warning."""
        self._end_time_step()
        self._is_waiting = True
        self.interface.wait()

    def benchmarks(self) -> dict[str, tuple[float | None, float]]:
        """What the parts of a step cost in real time [s]: rtgym's names, (mean, mean absolute deviation)."""
        if self._bench is None:
            raise ValueError("benchmarks() needs task.rtgym.benchmark to be true, got false")
        return self._bench.get_benchmark_dict()

    def stop(self) -> None:
        """Ends the step in flight."""
        self._end_time_step()

    def set_default_action(self, default_action: np.ndarray) -> None:
        """Changes what the next reset() sends."""
        self.default_action = self._checked_action(default_action)

    def set_time_step_duration(self, time_step_duration: float, time_step_timeout_factor: float | None = None) -> None:
        """Changes the duration of a step [s] from the next step on."""
        self._end_time_step()
        self.time_step_duration = time_step_duration
        if time_step_timeout_factor is not None:
            self.time_step_timeout_factor = time_step_timeout_factor

    def set_start_obs_capture(self, start_obs_capture: float) -> None:
        """Changes when an observation is captured [s] from the next step on."""
        self._end_time_step()
        self.start_obs_capture = start_obs_capture

    def set_ep_max_length(self, ep_max_length: float) -> None:
        """Changes after how many steps an episode is truncated."""
        self._end_time_step()
        self.ep_max_length = ep_max_length

    def _start(self, options: Info | None) -> Info | None:
        """The start of the episode, given or current: that of the interface, and the action buffer."""
        asked = (options or {}).get("start")
        if asked is not None:
            self._act_buf.extend(np.array(action, np.float32) for action in asked["actions"])
            return asked
        start = self.interface.start()
        return None if start is None else {**start, "actions": [action.tolist() for action in self._act_buf]}

    def _start_time_step(self, action: np.ndarray) -> None:
        if self._bench is not None:
            self._bench.start_send_control_time()
        self.interface.send_control(action)
        if self._bench is not None:
            self._bench.end_send_control_time()
        now = self.clock.now()
        start = self._next_start(now)
        self._capture_at = start + self.start_obs_capture
        if self._capture_jitter_s > 0.0:
            self._capture_at += self._capture_jitter_s * self._rng.random()
        self._t_end = start + self.time_step_duration
        self._returned_at = now
        self._in_flight = True

    def _next_start(self, now: float) -> float:
        """Start of the new step: the end of the last one, or now when that is too long ago."""
        assert self._t_end is not None
        lateness = now - self._t_end
        if lateness <= self.time_step_duration * self.time_step_timeout_factor:
            return self._t_end
        if not self._is_waiting:
            warnings.warn(f"Time-step timed out. Elapsed since last time-step: {lateness}", stacklevel=4)
        self._is_waiting = False
        return now

    def _end_time_step(self) -> None:
        """Captures the observation of the step in flight and moves the clock to its end."""
        if not self._in_flight:
            return
        self._in_flight = False
        self.clock.sleep_until(self._capture_at)
        if self._bench is not None:
            self._bench.start_get_obs_time()
        self._captured = capture(self.interface)
        if self._bench is not None:
            self._bench.end_get_obs_time()
        self._sleep_to_end()

    def _leave_time_step(self) -> None:
        """Moves the clock to the end of the step in flight; its observation is never used."""
        if self._in_flight:
            self._in_flight = False
            self._sleep_to_end()

    def _sleep_to_end(self) -> None:
        assert self._t_end is not None
        self.clock.sleep_until(self._t_end)
        if callable(self._inference_time_s):
            self.clock.sleep_until(self._returned_at + self._inference_time_s(self._rng))
        elif self._inference_time_s > 0.0:
            self.clock.sleep_until(self._returned_at + self._inference_time_s)

    def _end_episode(self, info: Info) -> None:
        self._running = False
        info["episode_statistics"] = self.interface.episode_statistics()
        if self._config.wait_on_done:
            self.wait()

    def _refill_action_buffer(self) -> None:
        if self._config.reset_act_buf:
            self._act_buf.extend([self.default_action] * self._config.act_buf_len)
        elif not self._config.last_act_on_reset:
            # The last action of the previous episode was never applied: what will be applied takes its place.
            self._act_buf[-1] = self.default_action

    def _with_actions(self, fields: list[np.ndarray]) -> Any:
        """The observation; it owns its arrays."""
        actions = [action.copy() for action in self._act_buf] if self._config.act_in_obs else []
        return self._observed((*fields, *actions))


class WallClockEnv(RealTimeEnv):
    """rtgym's environment, with seeds, statistics, and exceptions that reach the caller.

    rtgym calls the interface in a thread of its own. What goes wrong there is raised by the next call here, and a game
    that hangs is given up on with TimeoutError. Statistics of an episode also hold ``TIMING_STATISTICS``.
    """

    is_real_time = True

    def __init__(
        self,
        interface: TaskInterface | RealTimeGymInterface,
        config: RtgymConfig,
        implementation: str,
        timeout_s: float,
        reset_timeout_s: float,
    ) -> None:
        """Use ``make_wall_env``."""
        super().__init__(interface, config)
        self._config = config
        self._timeout_s = timeout_s
        self._reset_timeout_s = reset_timeout_s
        self._guard = GuardedInterface(self.interface)
        self._times = StepTimes()
        self._env = make_rtgym_env(implementation, self._guard, config, self.ep_max_length, self._times)
        self._running = False
        self._is_stopping: Callable[[], bool] = lambda: False
        self._unfinished: BoundedCall[object] | None = None

    def watch(self, stop: Callable[[], bool]) -> None:
        """Has what waits for the game raise ``Interrupted`` soon after ``stop()`` becomes true."""
        self._is_stopping = stop

    def replace_interface(self, interface: TaskInterface) -> None:
        """Puts something around the interface that records or measures its calls."""
        self.interface = self._guard.interface = interface

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        """Starts an episode, in real time."""
        episode_seed = self._episode_seed(seed)
        self._await_capture()
        self._guard.captured.clear()
        self._times.begin_episode()
        observation, info = self._bounded("reset", lambda: self._env.reset(seed=episode_seed, options=options))
        self._running = True
        info["seed"] = episode_seed
        return self._owned(observation), info

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, Info]:
        """Waits for the end of the step in flight, returns its observation, and starts the next one."""
        if not self._running:
            raise RuntimeError("The episode is terminated or truncated: call reset() before step().")
        action = self._checked_action(action)
        self._await_capture()
        self._guard.captured.clear()
        if self._guard.is_truncated:
            # rtgym knows one reason to truncate: this step is the last one.
            self._env.ep_max_length = self._env.current_step + 1
        observation, reward, terminated, truncated, info = self._env.step(action)
        self._env.ep_max_length = self.ep_max_length
        if terminated or truncated:
            self._end_episode(info)
        return self._owned(observation), reward, terminated, truncated, info

    def wait(self) -> None:
        """Pauses: the step in flight ends, and the interface rests."""
        self._await_capture()
        self._bounded("wait", self._env.wait)

    def benchmarks(self) -> dict[str, tuple[float | None, float]]:
        """Durations that rtgym measured [s], as (mean, mean absolute deviation)."""
        if not self._config.benchmark:
            raise ValueError("benchmarks() needs task.rtgym.benchmark to be true, got false")
        return self._env.benchmarks()

    def timing_statistics(self) -> dict[str, float]:
        """``TIMING_STATISTICS`` of the episode so far."""
        return self._times.statistics()

    def stop(self) -> None:
        """Ends the step in flight."""
        self._await_capture()
        self._env.stop()

    def set_default_action(self, default_action: np.ndarray) -> None:
        """Changes what the next reset() sends."""
        self._env.set_default_action(self._checked_action(default_action))

    def set_time_step_duration(self, time_step_duration: float, time_step_timeout_factor: float | None = None) -> None:
        """Changes the duration of a step [s] from the next step on."""
        self._env.set_time_step_duration(time_step_duration, time_step_timeout_factor)

    def set_start_obs_capture(self, start_obs_capture: float) -> None:
        """Changes when an observation is captured [s] from the next step on."""
        self._env.set_start_obs_capture(start_obs_capture)

    def set_ep_max_length(self, ep_max_length: float) -> None:
        """Changes after how many steps an episode is truncated."""
        self._env.set_ep_max_length(ep_max_length)
        self.ep_max_length = ep_max_length

    def close(self) -> None:
        """Ends rtgym's thread and releases the game, in bounded time even if that hangs. Calling it twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._running = False
        self._guard.is_closed = True
        try:
            self.interface.interrupt()
        finally:
            self._close_interface(self._has_ended(_CLOSE_TIMEOUT_S + self._env.time_step_duration))

    def _end_episode(self, info: Info) -> None:
        self._running = False
        self._guard.captured.set()
        info["episode_statistics"] = self.interface.episode_statistics() | self._times.end_episode()
        if self._config.wait_on_done:
            self.wait()

    def _owned(self, observation: tuple[np.ndarray, ...]) -> Any:
        """Gives every observation its own arrays: rtgym hands out those of its action buffer."""
        fields = len(self.observation_spec.fields)
        actions = [np.array(action, np.float32) for action in observation[fields:]]
        return self._observed((*observation[:fields], *actions))

    def _await_capture(self) -> None:
        """Waits until the interface has answered for the step in flight, then raises what went wrong there."""
        if self._closed:
            raise RuntimeError("The environment is closed: make a new one.")
        if self._unfinished is not None:
            self._finish(self._unfinished, "the last call", self._timeout_s)
        timeout_s = self._timeout_s + self._env.start_obs_capture
        if not self._poll(self._guard.captured.wait, timeout_s):
            self._running = False
            raise TimeoutError(f"the game gave no observation within {self._timeout_s} s; is it still running?")
        self._raise_error()

    def _bounded(self, name: str, call: Callable[[], Answer]) -> Answer:
        """Makes a call that may wait for the game, with a time limit."""
        return self._finish(BoundedCall(f"rtgym-{name}", call), f"{name}()", self._reset_timeout_s)

    def _finish(self, call: BoundedCall[Answer], name: str, timeout_s: float) -> Answer:
        self._unfinished = cast("BoundedCall[object]", call)
        if not self._poll(call.join, timeout_s):
            self._running = False
            raise TimeoutError(f"{name} of the game did not return within {timeout_s} s")
        self._unfinished = None
        answer = call.answer()
        self._raise_error()
        return answer

    def _raise_error(self) -> None:
        if self._guard.error is None:
            return
        self._running = False
        if self._is_stopping():
            raise Interrupted("stopped while waiting for the game") from self._guard.error
        self._guard.raise_error()

    def _poll(self, wait: Callable[[float], bool], timeout_s: float) -> bool:
        """Waits in short turns, between which a request to stop is noticed."""
        deadline = time.monotonic() + timeout_s
        while True:
            left = deadline - time.monotonic()
            if wait(max(0.0, min(left, _POLL_S))):
                return True
            if self._is_stopping():
                self._running = False
                self.interface.interrupt()
                raise Interrupted("stopped while waiting for the game")
            if left <= 0.0:
                return False

    def _has_ended(self, timeout_s: float) -> bool:
        """Ends the threads; whether they have ended within the time, that is, no call into the game hangs."""
        has_returned = self._unfinished is None or self._unfinished.join(timeout_s)
        return self._env.end(timeout_s if has_returned else 0.0) and has_returned

    def _close_interface(self, is_idle: bool) -> None:
        """Closes the interface; when one of its calls hangs this may hang too, so it is not waited for without end."""
        if is_idle:
            self.interface.close()
            return
        closing = BoundedCall("rtgym-close", self.interface.close)
        if closing.join(_CLOSE_TIMEOUT_S):
            closing.answer()
        # What hung may have been freed by that.
        if not self._has_ended(_CLOSE_TIMEOUT_S):
            _logger.warning("a call into the game hangs; its thread ends when the call returns, or with the program")


def _episode_steps(interface: TaskInterface, config: RtgymConfig) -> float:
    if not isinstance(config.ep_max_length, str):
        return config.ep_max_length
    return interface.default_episode_steps(config.time_step_duration)
