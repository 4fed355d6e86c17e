"""Acting: one environment driven by one policy, cut into segments.

Used by the worker processes and by synchronous training. It owns the seeds of the episodes and uses neither networks
nor sockets. Its state is small: replaying the actions restores a deterministic simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from tasks.envs.foreign import WrongValueError, flag, number
from tasks.experience.observation import ACTION_PREFIX, ObservationSpec
from tasks.experience.policy import Policy
from tasks.experience.samples import Segment
from tasks.process.step_watch import StepWatch

MAX_EPISODE_SEED = 2**31 - 1


class Rollout:
    """Drives one environment and returns what happened as segments.

    Args:
        env: Environment with dict observations and an ``observation_spec``.
        policy: Chooses the actions.
        worker: Name of the worker, copied into the segments.
        stream: Index of this environment within the worker.
        seed: Seed from which the episodes' seeds are drawn.
        check_samples: Adds the checksum of every stacked observation to the segments.
        deterministic: Acts with the mean action.
        step_watch: Is told of each call.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        policy: Policy,
        worker: str,
        stream: int,
        seed: int,
        check_samples: bool = False,
        deterministic: bool = False,
        step_watch: StepWatch | None = None,
    ) -> None:
        self._env = env
        self._watch = step_watch or StepWatch()
        self._watch.add(env)
        self._policy = policy
        self._act = partial(policy.act, deterministic=True) if deterministic else policy.act
        self._whose = type(env.unwrapped).__name__
        self._worker = worker
        self._stream = stream
        self._check_samples = check_samples
        self._is_recurrent = hasattr(policy, "recurrent_state")
        self._spec: ObservationSpec = env.get_wrapper_attr("observation_spec")
        self._rng = np.random.default_rng(seed)
        self._fields = [(field.name, field.history > 0) for field in self._spec.fields]
        self._applied_action = f"{ACTION_PREFIX}{self._spec.act_buf_len - 1}" if self._spec.act_buf_len else None
        self._observation: Mapping[str, np.ndarray] | None = None
        self._episode_seed = 0
        self._actions: list[np.ndarray] = []
        self._previous: tuple[int, list[np.ndarray]] | None = None
        self._start: Mapping[str, Any] | None = None

    @property
    def policy(self) -> Policy:
        """The policy that acts here."""
        return self._policy

    @property
    def env(self) -> gymnasium.Env:
        """The driven environment."""
        return self._env

    @property
    def is_between_episodes(self) -> bool:
        """Whether the next row begins an episode, so that the environment may be used otherwise before."""
        return self._observation is None

    def run(self, num_rows: int, should_stop: Callable[[], bool] | None = None) -> Segment:
        """Acts for ``num_rows`` rows (environment steps and resets).

        Args:
            num_rows: Length of the segment.
            should_stop: Asked after every row; True ends the segment early.

        Returns:
            The segment with ``seq`` 0; its sender numbers it.
        """
        if num_rows < 1:
            raise ValueError(f"num_rows must be >= 1, got {num_rows}")
        frames = {
            field.name: np.empty((num_rows, *field.frame_shape), np.dtype(field.dtype)) for field in self._spec.fields
        }
        stores = [(frames[name], name, has_history) for name, has_history in self._fields]
        action = np.zeros((num_rows, self._spec.action_size), np.float32)
        reward = np.zeros(num_rows, np.float32)
        terminated = np.zeros(num_rows, np.bool_)
        truncated = np.zeros(num_rows, np.bool_)
        is_first = np.zeros(num_rows, np.bool_)
        checksums = np.zeros(num_rows, np.uint32) if self._check_samples else None
        remembered: list[np.ndarray] = []
        episodes: list[dict[str, float]] = []
        env_step, act, watch = self._env.step, self._act, self._watch
        observation = self._observation
        row = 0
        while row < num_rows:
            if observation is None:
                observation = self._begin_episode()
                is_first[row] = True
                if self._applied_action is not None:
                    action[row] = observation[self._applied_action]
                has_ended = False
            else:
                chosen = action[row]
                chosen[:] = act(observation)
                self._actions.append(chosen)
                with watch.call():
                    observation, step_reward, is_terminated, is_truncated, info = env_step(chosen)
                reward[row] = number(step_reward, "reward", self._whose)
                has_ended = flag(is_terminated, "terminated", self._whose) or flag(
                    is_truncated, "truncated", self._whose
                )
                if has_ended:
                    terminated[row] = is_terminated
                    truncated[row] = is_truncated
                    episodes.append(_statistics(info))
            for store, name, has_history in stores:
                store[row] = observation[name][-1] if has_history else observation[name]
            if checksums is not None:
                checksums[row] = self._spec.checksum(observation)
            if self._is_recurrent:
                remembered.append(np.array(self._policy.recurrent_state))  # type: ignore[attr-defined]
            if has_ended:
                observation = None
            row += 1
            self._observation = observation
            if should_stop is not None and should_stop():
                break
        if row < num_rows:
            frames = {name: array[:row] for name, array in frames.items()}
        segment = Segment(
            worker=self._worker,
            stream=self._stream,
            seq=0,
            frames=frames,
            action=action[:row],
            reward=reward[:row],
            terminated=terminated[:row],
            truncated=truncated[:row],
            is_first=is_first[:row],
            weights_version=self._policy.version,
            episodes=tuple(episodes),
            checksums=None if checksums is None else checksums[:row],
            states=np.stack(remembered) if remembered else None,
        )
        require_finite(segment)
        return segment

    def rest(self) -> None:
        """Leaves the episode where it is and pauses the environment; the next row begins another episode."""
        self._observation = None
        if self._env.has_wrapper_attr("wait"):
            self._env.get_wrapper_attr("wait")()

    def state(self) -> dict[str, Any]:
        """The state for an exact continuation, as plain data: generators, episode seed, actions since reset.

        An episode that does not begin afresh says by ``info["start"]`` of its reset where it began.
        """
        is_running = self._observation is not None
        previous = self._previous
        return {
            "rng": self._rng.bit_generator.state,
            "policy": self._policy.state(),
            "is_running": is_running,
            "episode_seed": self._episode_seed,
            "actions": [action.tolist() for action in self._actions],
            "start": self._start,
            "previous": None if previous is None else [previous[0], [action.tolist() for action in previous[1]]],
            "checksum": self._spec.checksum(self._observation) if self._observation is not None else 0,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Brings environment and policy back to ``state`` by replaying the episode's actions.

        Raises:
            ValueError: If the environment does not arrive at the same observation: it is not deterministic, or it
                is not the one that the state was taken from.
        """
        self._rng.bit_generator.state = state["rng"]
        self._start = state.get("start")
        if state["previous"] is not None and self._start is None:
            seed, actions = state["previous"]
            self._replay(seed, actions)
        self._observation = None
        self._episode_seed = state["episode_seed"]
        self._actions = [np.array(action, np.float32) for action in state["actions"]]
        if not state["is_running"]:
            if not self._spec.reset_act_buf:
                self._replay(self._episode_seed, self._actions, self._start)
        else:
            self._observation = self._replay(self._episode_seed, self._actions, self._start)
            got = self._spec.checksum(self._observation)
            if got != state["checksum"]:
                raise ValueError(
                    f"rollout state: replaying the {len(self._actions)} actions of episode {self._episode_seed} must "
                    f"end at an observation with checksum {state['checksum']}, got {got}; the environment is not "
                    "deterministic or has changed since the state was taken"
                )
        self._policy.load_state(state["policy"])

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _begin_episode(self) -> Mapping[str, np.ndarray]:
        if not self._spec.reset_act_buf and self._actions:
            # The next episode begins with the last actions of this one.
            self._previous = (self._episode_seed, self._actions)
        self._episode_seed = int(self._rng.integers(MAX_EPISODE_SEED))
        self._actions = []
        with self._watch.call():
            observation, info = self._env.reset(seed=self._episode_seed)
        if not isinstance(observation, Mapping):
            raise WrongValueError(
                f"{self._whose}: reset() must return a dict of the fields by name, got {type(observation).__name__}; "
                "a TaskEnv returns self._observed(fields)"
            )
        self._start = info.get("start")
        self._policy.begin_episode()
        return observation

    def _replay(
        self, seed: int, actions: list[Any], start: Mapping[str, Any] | None = None
    ) -> Mapping[str, np.ndarray]:
        observation, _ = self._env.reset(seed=seed, options=None if start is None else {"start": start})
        for action in actions:
            observation = self._env.step(np.array(action, np.float32))[0]
        return observation


def _statistics(info: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in info.get("episode_statistics", {}).items()}


def require_finite(segment: Segment) -> None:
    """Raises here, where the cause can be found, what the learner would refuse later."""
    columns = [("action", segment.action, "policy"), ("reward", segment.reward, "reward of the environment")]
    columns += [(name, frame, "observation") for name, frame in segment.frames.items() if frame.dtype.kind == "f"]
    for name, values, where in columns:
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise ValueError(
                f"{name} must be finite, got {values[row]} at row {row} of stream {segment.stream} of "
                f"{segment.worker}; look at the {where}"
            )
