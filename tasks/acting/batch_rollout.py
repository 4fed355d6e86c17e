"""Acting in many environments that step together: one policy, one call for all, a segment for each.

Used by worker processes whose task has a ``tasks.envs.batch.EpisodeBatch``. Each environment has its own episode seeds,
its own exploration and its own stream of rows, as if a ``Rollout`` drove it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tasks.acting.rollout import MAX_EPISODE_SEED, require_finite
from tasks.envs.batch import EpisodeBatch, Observations, Outcome
from tasks.experience.observation import ACTION_PREFIX, ObservationSpec
from tasks.experience.policy import BatchPolicy, Policy
from tasks.experience.samples import Segment
from tasks.process.step_watch import StepWatch


class BatchRollout:
    """Drives a batch of environments and returns what happened as segments.

    Args:
        batch: The environments.
        policy: Chooses the actions; explores each environment by itself (``batch_policy``).
        worker: Name of the worker, copied into the segments.
        seeds: From which the seeds of each environment's episodes are drawn.
        step_watch: Is told of each call.
        check_samples: Adds the checksum of every stacked observation to the segments.
        deterministic: Acts with the mean action.
    """

    is_between_episodes = False
    """All are never between two episodes at once."""

    def __init__(
        self,
        batch: EpisodeBatch,
        policy: BatchPolicy | PolicyCrew,
        worker: str,
        seeds: Sequence[int],
        step_watch: StepWatch,
        check_samples: bool = False,
        deterministic: bool = False,
    ) -> None:
        self.policy = policy
        self._batch = batch
        self._worker = worker
        self._watch = step_watch
        self._check_samples = check_samples
        self._deterministic = deterministic
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        self._ended = list(range(len(seeds)))
        self._observation: Observations = {}

    def run(self, num_rows: int, should_stop: Callable[[], bool]) -> list[Segment]:
        """Acts until an environment has ``num_rows`` rows (steps and resets), each step in all.

        Args:
            num_rows: Longest length of a segment.
            should_stop: Asked after every step; True ends the segments early.

        Returns:
            A segment of each environment with ``seq`` 0; who sends them numbers them.
        """
        if num_rows < 1:
            raise ValueError(f"num_rows must be >= 1, got {num_rows}")
        rows = SegmentRows(self._batch.observation_spec, len(self._rngs), num_rows, self._check_samples)
        while True:
            if self._ended and rows.has_room:
                self._begin_episodes(rows)
            if not rows.has_room or should_stop():
                return rows.segments(self._worker, self.policy.version)
            action = self.policy.act_batch(self._observation, self._deterministic)
            with self._watch.call():
                outcome = self._batch.act(action)
            self._observation = outcome.observation
            rows.add_step(action, outcome, self._states())
            self._ended = np.flatnonzero(outcome.terminated | outcome.truncated).tolist()
            for index in self._ended:
                rows.episodes[index].append(self._batch.statistics(index))

    def rest(self) -> None:
        """The next rows begin other episodes."""
        self._ended = list(range(len(self._rngs)))

    def close(self) -> None:
        """Closes the environments."""
        self._batch.close()

    def _begin_episodes(self, rows: SegmentRows) -> None:
        chosen, self._ended = self._ended, []
        seeds = [int(self._rngs[index].integers(MAX_EPISODE_SEED)) for index in chosen]
        with self._watch.call():
            self._observation = self._batch.begin(chosen, seeds)
        self.policy.begin_episodes(chosen)
        rows.add_first(np.array(chosen), self._observation, self._states())

    def _states(self) -> np.ndarray | None:
        """What a recurrent policy remembers now, shape (N, S)."""
        return getattr(self.policy, "recurrent_states", None)


class SegmentRows:
    """Rows of N environments on their way into segments; each has its own number of them.

    Args:
        spec: What is observed.
        num_envs: N.
        num_rows: Room of each.
        check_samples: Whether the checksum of each observation is kept.
    """

    def __init__(self, spec: ObservationSpec, num_envs: int, num_rows: int, check_samples: bool) -> None:
        self._spec = spec
        self._count = np.zeros(num_envs, np.int64)
        shape = (num_envs, num_rows)
        self._columns: dict[str, np.ndarray] = {
            "action": np.zeros((*shape, spec.action_size), np.float32),
            "reward": np.zeros(shape, np.float32),
            "terminated": np.zeros(shape, np.bool_),
            "truncated": np.zeros(shape, np.bool_),
            "is_first": np.zeros(shape, np.bool_),
        }
        if check_samples:
            self._columns["checksums"] = np.zeros(shape, np.uint32)
        self._frames = {
            field.name: np.empty((*shape, *field.frame_shape), np.dtype(field.dtype)) for field in spec.fields
        }
        self.episodes: list[list[Mapping[str, float]]] = [[] for _ in range(num_envs)]

    @property
    def has_room(self) -> bool:
        """Whether each environment has room for another row."""
        return int(self._count.max()) < self._columns["reward"].shape[1]

    def add_first(self, chosen: np.ndarray, observation: Observations, states: np.ndarray | None) -> None:
        """Adds the first row of an episode to the chosen environments."""
        at = (chosen, self._count[chosen])
        self._columns["is_first"][at] = True
        if self._spec.act_buf_len:
            self._columns["action"][at] = observation[f"{ACTION_PREFIX}{self._spec.act_buf_len - 1}"][chosen]
        self._add_observed(at, observation, states)

    def add_step(self, action: np.ndarray, outcome: Outcome, states: np.ndarray | None) -> None:
        """Adds a row to all."""
        at = (np.arange(len(self._count)), self._count.copy())
        for name in ("reward", "terminated", "truncated"):
            self._columns[name][at] = getattr(outcome, name)
        self._columns["action"][at] = action
        self._add_observed(at, outcome.observation, states)

    def segments(self, worker: str, weights_version: int) -> list[Segment]:
        """What was added, a segment for each environment that has rows."""
        made = []
        for index in np.flatnonzero(self._count).tolist():
            rows = (index, slice(self._count[index]))
            segment = Segment(
                worker=worker,
                stream=index,
                seq=0,
                frames={name: frames[rows] for name, frames in self._frames.items()},
                weights_version=weights_version,
                episodes=tuple(self.episodes[index]),
                **{name: column[rows] for name, column in self._columns.items()},
            )
            require_finite(segment)
            made.append(segment)
        return made

    def _add_observed(
        self, at: tuple[np.ndarray, np.ndarray], observation: Observations, states: np.ndarray | None
    ) -> None:
        chosen = at[0]
        for field in self._spec.fields:
            values = observation[field.name]
            self._frames[field.name][at] = (values[:, -1] if field.history else values)[chosen]
        if "checksums" in self._columns:
            rows = ({name: values[index] for name, values in observation.items()} for index in chosen.tolist())
            self._columns["checksums"][at] = [self._spec.checksum(row) for row in rows]
        if states is not None:
            if "states" not in self._columns:
                self._columns["states"] = np.zeros((*self._columns["reward"].shape, states.shape[1]), np.float32)
            self._columns["states"][at] = states[chosen]
        self._count[chosen] += 1


class PolicyCrew:
    """A policy for each environment, as one; for policies that cannot act on a batch.

    Args:
        policies: One for each.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies

    @property
    def version(self) -> int:
        """Version of the loaded weights."""
        return self._policies[0].version

    @property
    def recurrent_states(self) -> np.ndarray:
        """What recurrent ones remember, shape (N, S); others have no such attribute."""
        return np.stack([policy.recurrent_state for policy in self._policies])  # type: ignore[attr-defined]

    def load_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """All act with these from now on."""
        for policy in self._policies:
            policy.load_weights(weights, version)

    def begin_episodes(self, chosen: Sequence[int]) -> None:
        """These begin an episode."""
        for index in chosen:
            self._policies[index].begin_episode()

    def act_batch(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        """Each acts in its environment."""
        rows = [{name: values[index] for name, values in obs.items()} for index in range(len(self._policies))]
        acted = zip(self._policies, rows, strict=True)
        return np.stack([policy.act(row, deterministic=deterministic) for policy, row in acted])


def batch_policy(make: Callable[[int], Policy], seeds: Sequence[int]) -> BatchPolicy | PolicyCrew:
    """What acts in an environment for each seed: one policy where its class acts on a batch, else one for each.

    Args:
        make: Makes a policy that explores from a seed.
        seeds: Of the exploration of each environment.
    """
    first = make(seeds[0])
    if not _acts_on_batches(type(first)):
        return PolicyCrew([first, *(make(seed) for seed in seeds[1:])])
    policy: BatchPolicy = first  # type: ignore[assignment]
    policy.explore_as(seeds)
    return policy


def _acts_on_batches(policy: type) -> bool:
    """Whether ``act_batch`` does for many what ``act`` does for one: who overrides one must override the other."""

    def depth(name: str) -> int:
        return next((depth for depth, base in enumerate(policy.__mro__) if name in vars(base)), len(policy.__mro__))

    pairs = (("act_batch", "act"), ("begin_episodes", "begin_episode"))
    return hasattr(policy, "explore_as") and all(depth(many) <= depth(one) for many, one in pairs)
