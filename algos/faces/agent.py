"""The agent of off-policy learning: rl_games' Runner builds an ``OffPolicyAgent`` for SAC and each variant.

It owns the run folder, the writer, the counters in checkpoints, signals and the observer's hooks. Learning itself is in
``algos.learning.learner``; ``algos.faces.runner_params`` describes rl_games' params.

``Runner.run({"train": True, "checkpoint": path})`` trains; ``{"train": False, "play": True, "checkpoint": path}``
plays. For ``checkpoint_mode: resume`` of ``<train_dir>/<run>/nn/<file>.pth`` give ``full_experiment_name: <run>``: the
run goes on in its own folder and replay. Any other name starts a new folder and copies the replay.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algos.acting.policy import build_policy
from algos.algorithms.base import ReplayAlgorithm
from algos.config import NetworkConfig, ReplayLearnerConfig
from algos.config.algorithms import off_policy
from algos.config.errors import UsageError
from algos.config.schema import CheckpointMode
from algos.faces.checkpoint_fit import changed_task_keys
from algos.faces.evaluator import InProcessEvaluator, evaluation_seeds
from algos.faces.rl_games_parts import BaseAlgorithm, vecenv
from algos.faces.task_env import env_info, make_env, observation_spec
from algos.faces.training_run import TrainingRun, nothing_left
from algos.learning.learner import Learner, LearnerSchedule, UpdatedAlgorithm
from algos.learning.links import InlineLink
from algos.learning.pace import Pace
from algos.learning.profile import ProfiledAlgorithm
from algos.learning.threads import ThreadChoice, num_cores
from algos.replay.lenient_storage import LenientStorage
from algos.replay.scan import copy_chunks
from algos.replay.transforms import ReplayTransforms
from algos.run.checkpoint import (
    DAMAGED,
    Checkpoint,
    CheckpointError,
    as_arrays,
    fits,
    fits_networks,
    load_global_rng_state,
    run_directory,
    save_checkpoint,
    snapshot,
)
from algos.run.interrupt import StopOnInterrupt
from algos.run.summaries import open_summaries
from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment
from tasks.process.step_watch import HangReporter
from tasks.process.write_trouble import reason
from tasks.words.command_line import Role
from tasks.words.nested import Plain
from tasks.words.references import resolve

logger = logging.getLogger(__name__)

_SYNCHRONOUS = "synchronous"
"""What the one environment of a synchronous run is called in its segments."""


class OffPolicyAgent(BaseAlgorithm):
    """Trains SAC, a variant or DAgger on samples of workers (asynchronous) or of this process (synchronous).

    Which algorithm that is, ``params.algo.name`` says: any that ``algos.config.algorithms.add_off_policy`` was given.

    Args:
        base_name: rl_games' name of the run, passed to the observer.
        params: As described at the top of this file.
    """

    def __init__(self, base_name: str, params: Plain) -> None:
        super().__init__(base_name, params)
        self.config: Plain = params["config"]
        self.algorithm_name = str(params["algo"]["name"])
        self.run = TrainingRun(params, self.algorithm_name)
        self.learner_config: ReplayLearnerConfig = self.run.config.train.params.config.over(self.run.max_env_steps)
        self.experiment_name = self.run.name
        self.algo_observer = self.config["features"]["observer"]
        self.algo_observer.before_init(base_name, self.config, self.experiment_name)
        self.name = base_name
        self.env_name = self.run.task
        self.num_actors = int(self.config.get("num_actors", 1))
        self._set_what_observers_use()
        self.files = self.run.files
        self.experiment_dir = self.files.directory
        self.nn_dir, self.summaries_dir = self.files.nn, self.files.summaries
        self.is_synchronous = self.run.config.synchronous
        self._inline_link: InlineLink | None = None
        self.vec_env, self.env_info = self._make_environments()
        self.spec = observation_spec(self.env_info)
        self.algorithm = self.make_algorithm(self.spec, torch.device(self.ppo_device), self.run.seed)
        self.memory = self.algorithm.make_memory(self.spec, self.run.seed)
        self._learning = self._with_threads(self.algorithm)
        if self.run.config.profile:
            self._learning = ProfiledAlgorithm(self._learning, self.files.profile)
        self.transforms = ReplayTransforms(self.learner_config.replay_transforms, self.run.seed)
        self.storage: LenientStorage | None = None
        self.learner = self._make_learner(None)
        self._candidate: Checkpoint | None = None
        self._has_begun = self._is_closed = False
        self.writer = open_summaries(self.files.summaries)
        self.log = self.run.open_log(self.writer)
        self.algo_observer.after_init(self)

    @property
    def device(self) -> str:
        """Where the learner computes."""
        return self.ppo_device

    @property
    def frame(self) -> int:
        """Environment steps so far."""
        return self.learner.pace.env_steps

    @property
    def epoch_num(self) -> int:
        """Updates so far."""
        return self.learner.pace.updates

    def make_algorithm(self, spec: ObservationSpec, device: torch.device, seed: int) -> ReplayAlgorithm:
        """Builds the algorithm."""
        build = resolve(off_policy(self.algorithm_name).algorithm, f"algorithm {self.algorithm_name!r}")
        network: NetworkConfig = self.run.config.train.params.network
        return build(spec, self.learner_config, network, device, seed)

    def restore(self, fn: str, set_epoch: bool = True) -> None:
        """Starts from a checkpoint, as ``checkpoint_mode`` says; the Runner calls it before ``train``.

        Raises:
            CheckpointError: The file cannot be read or does not fit this run.
        """
        mode = self.run.config.checkpoint_mode
        checkpoint = self.run.load(fn, self.spec)
        with fits_networks(fn):
            if mode is CheckpointMode.weights:
                self._take_networks(checkpoint)
            elif mode is CheckpointMode.resume:
                self.algorithm.load_state_dict(checkpoint.algorithm_state)
        if mode is CheckpointMode.resume and set_epoch:
            with fits(fn, "this run", DAMAGED):
                self.learner.load_counters(checkpoint.counters)
            if self.learner.is_finished:
                raise self._nothing_left(fn)
        if mode is not CheckpointMode.weights:
            self._open_storage(_replay_directory(fn))
        if mode is CheckpointMode.resume:
            with fits(fn, "this run", DAMAGED):
                self._resume(checkpoint, fn)
        elif mode is CheckpointMode.replay:
            self._take_replay()
        newer = 0 if self.storage is None else self.storage.newer_rows
        kept = f", {newer} of them newer: learned from, but not counted as steps or for updates" if newer else ""
        logger.info("%s of %s: %d steps, %d replay rows%s", mode.name, fn, self.frame, len(self.memory), kept)

    def train(self) -> tuple[float, int]:
        """Learns until ``max_env_steps``, ``max_updates`` or Ctrl-C.

        Returns:
            Mean return of the newest episodes and the number of updates, as rl_games' agents do.

        Raises:
            NotSavedError: The disk did not take what was to be saved at the end.
        """
        self._begin()
        if self.learner.learns_nothing:
            logger.warning("nothing will be learned: %s", self._why_nothing_is_learned())
        before = self.epoch_num
        with StopOnInterrupt(self.run.stop):
            try:
                with HangReporter(lambda: {"this process": self.run.watch.hangs_for_s()}):
                    self.learner.run()
            finally:
                self.close()
        if self.epoch_num == before:
            why = self._why_nothing_is_learned() if self.learner.learns_nothing else "it ended before the first update"
            text = "nothing was learned: %s; %s has the networks that the command began with"
            logger.warning(text, why, self.files.newest)
        self.files.require_saved()
        return self.mean_rewards, self.epoch_num

    def train_epoch(self) -> None:
        """One turn of the learner; the first one starts the workers, as ``train`` does, and ``close`` ends them."""
        if self._begin():
            self.learner.start()
        self.learner.turn()

    def stop(self) -> None:
        """Ends ``train`` at the next turn of the loop; it saves first."""
        self.run.stop.set()

    def close(self) -> None:
        """Ends the workers and closes files. Calling it twice is fine."""
        if self._is_closed:
            return
        self._is_closed = True
        for acting in (self.vec_env, self._inline_link):
            if acting is not None:
                acting.close()
        if self.storage is not None:
            self.storage.close()
        if isinstance(self._learning, ProfiledAlgorithm):
            self._learning.close()
        self.log.close(self.run.stop)

    def clear_stats(self) -> None:
        """Forgets the averages that are shown."""
        self.mean_rewards = self.last_mean_rewards = -1e9
        if hasattr(self.algo_observer, "after_clear_stats"):  # rl_games' base class lacks it
            self.algo_observer.after_clear_stats()

    def make_checkpoint(self) -> Checkpoint:
        """The current state; it shares memory with the networks in training."""
        policy = self.config["env_config"].get("policy") or {}
        # The rows that this state needs are kept from when it is written: see ``on_checkpoint``.
        position = {} if self.storage is None else self.storage.position(keep=False)
        return self.run.checkpoint(
            self.spec,
            {
                "function": policy.get("function"),
                "kwargs": policy.get("kwargs", {}),
                "weights": self.algorithm.acting_weights(),
                "version": max(self.learner.weights_version, 1),
            },
            self.algorithm.state_dict(),
            self.learner.counters(),
            replay={"position": position, "rng": self.memory.rng_state(), "transforms": self.transforms.rng_state()},
            rollout={} if self._inline_link is None else self._inline_link.state(),
        )

    def save(self, fn: str | os.PathLike[str]) -> None:
        """Writes a checkpoint of the present state.

        Raises:
            OSError: It cannot be written.
        """
        save_checkpoint(Path(fn), self.make_checkpoint())

    def get_weights(self) -> dict[str, Any]:
        """The acting weights."""
        return {"acting": self.algorithm.acting_weights()}

    def set_weights(self, weights: Plain) -> None:
        """Loads the acting weights."""
        self.algorithm.load_acting_weights(weights["acting"])

    def get_full_state_weights(self) -> dict[str, Any]:
        """All content of a checkpoint, as plain data."""
        return snapshot(vars(self.make_checkpoint()))

    def set_full_state_weights(self, weights: Plain, set_epoch: bool = True) -> None:
        """The inverse of ``get_full_state_weights``, without the replay and the state of the acting side."""
        self.algorithm.load_state_dict(weights["algorithm_state"])
        if set_epoch:
            self.learner.load_counters(weights["counters"])
        self.run.best = dict(weights["best"])

    def get_param(self, param_name: str) -> object:
        """A value of the algorithm's configuration."""
        return getattr(self.learner_config, param_name)

    def set_param(self, param_name: str, param_value: object) -> None:
        """Not offered: the configuration is fixed once a run has begun."""
        raise NotImplementedError(f"{param_name} cannot be changed while training; resume with another value instead")

    # --- called by the learner ---

    def on_segments(self, segments: Sequence[Segment]) -> None:
        """Shows finished episodes to the observer."""
        for segment in segments:
            for episode in segment.episodes:
                self._on_episode(dict(episode))
        self.algo_observer.after_steps()

    def on_log(self, metrics: Mapping[str, float]) -> None:
        """Records metrics."""
        if self.vec_env is None:
            self.log.scalars(metrics, self.frame, [])
        else:
            self.log.scalars({**metrics, **self.vec_env.statistics()}, self.frame, self.vec_env.workers())
        self.algo_observer.after_print_stats(self.frame, self.epoch_num, self.learner.elapsed_s)

    def on_evaluation_request(self) -> None:
        """Keeps the state that is being evaluated, in case it is the best."""
        checkpoint = self.make_checkpoint()
        self._candidate = Checkpoint(**snapshot(vars(checkpoint)))

    def on_evaluation(self, report: EvaluationReport) -> None:
        """Records an evaluation; writes ``best.pth`` when it is the best so far."""
        candidate, self._candidate = self._candidate, None
        env_steps = candidate.counters["env_steps"] if candidate is not None else self.frame
        self.run.evaluated(report, env_steps, None if candidate is None else lambda: candidate)

    def on_checkpoint(self, is_periodic: bool) -> None:
        """Writes ``last.pth``, and a copy that stays when it is periodic."""
        if self.files.save_newest(self.make_checkpoint(), is_periodic) and self.storage is not None:
            self.storage.position(keep=True)

    # --- building ---

    def _set_what_observers_use(self) -> None:
        """Attributes that rl_games' observers read from an agent."""
        self.ppo_device = str(self.config.get("device", "cpu"))
        self.games_to_track = int(self.config.get("games_to_track", 100))
        self.num_agents = 1
        self.value_size = 1
        self.is_train = True
        self.mean_rewards = self.last_mean_rewards = -1e9

    def _make_environments(self) -> tuple[Any, Plain]:
        """The REMOTE vecenv of an asynchronous run, None of a synchronous one; and what rl_games wants to know."""
        env_config = dict(self.config["env_config"])
        if not self.is_synchronous:
            evaluates = self.learner_config.evaluation_interval > 0
            if evaluates and not env_config.setdefault("evaluator", True):
                raise ValueError(
                    "train.params.config.env_config.evaluator must be true with evaluation_interval > 0, got false; "
                    "train.params.config.evaluation_interval=0 trains without evaluations"
                )
            num_envs = max(self.num_actors, int(env_config.get("num_workers") or 0))
            vec_env = vecenv.create_vec_env(self.env_name, num_envs, **env_config)
            return vec_env, vec_env.get_env_info()
        from tasks.acting.rollout import Rollout

        env = make_env(self.env_name, env_config)
        policy = build_policy(env_config["policy"], self.run.seed)
        checks = bool(env_config.get("check_samples", False))
        rollout = Rollout(env, policy, _SYNCHRONOUS, 0, self.run.seed, checks, step_watch=self.run.watch)
        evaluator = InProcessEvaluator(
            lambda: make_env(self.env_name, env_config),
            lambda: build_policy(env_config["policy"], self.run.seed),
            self.run.stop.is_set,
            self.run.watch,
        )
        self._inline_link = InlineLink(rollout, int(self.config.get("synchronous_rows", 1)), evaluator)
        return None, env_info(env)

    def _with_threads(self, algorithm: ReplayAlgorithm) -> UpdatedAlgorithm:
        """The algorithm; it finds out how many threads it takes where nobody said so and workers leave several cores.

        Not in a synchronous run, which is repeated bit for bit only with the same number, and not beside a game.
        """
        free = num_cores() - self.run.config.num_workers
        is_open = self.run.config.torch_threads == "auto" and self.ppo_device == "cpu"
        is_compared = is_open and free > 1 and self.vec_env is not None and not self.vec_env.is_real_time
        return ThreadChoice(algorithm, free) if is_compared else algorithm

    def _begin(self) -> bool:
        """Opens the replay and starts the workers, if there are any, behind what is stored of theirs; False: again."""
        if self._has_begun:
            return False
        self._has_begun = True
        if self.storage is None:
            self._open_storage(None)
        if self.vec_env is not None:
            if self.storage is not None:
                self.vec_env.go_on_from(self.storage.received)
            self.learner.link = self.vec_env.start()
        self.clear_stats()
        return True

    def _make_learner(self, storage: LenientStorage | None) -> Learner:
        learner = Learner(
            self.memory,
            storage,
            self._learning,
            make_pace(
                self.learner_config,
                self.is_synchronous,
                is_real_time=self.vec_env is not None and self.vec_env.is_real_time,
            ),
            make_schedule(self.learner_config, self.run.max_env_steps, self.run.config.max_updates),
            self,
            self.run.stop,
            transform=self.transforms,
            acts_on_demand=self.is_synchronous,
        )
        if self._inline_link is not None:
            learner.link = self._inline_link
        return learner

    def _open_storage(self, source: Path | None) -> None:
        """Opens the stored replay of this run; that of another run is copied in first."""
        if not self.learner_config.save_replay:
            return
        directory = self.experiment_dir / "replay"
        if source is not None and source.is_dir() and source.resolve() != directory.resolve():
            copy_replay(source, directory)
        with _said_as_fault_of_the_checkpoint():
            self.storage = LenientStorage(directory, self.spec, self.learner_config.memory_size)
        self.learner.storage = self.storage

    # --- starting from a checkpoint ---

    def _resume(self, checkpoint: Checkpoint, path: str) -> None:
        """Puts back everything but the networks and the counters."""
        if self._inline_link is not None and checkpoint.rollout:
            with fits(path, "this run", self._advice_on_episode(checkpoint)):
                self._inline_link.load_state(as_arrays(checkpoint.rollout))
        else:
            self.learner.publishes_first = self.learner.weights_version > 0
        self.run.go_on_from_best(checkpoint)
        self._load_replay(checkpoint)
        if not checkpoint.rollout:
            self._number_after_what_is_stored()
        if checkpoint.replay.get("rng"):
            self.memory.load_rng_state(checkpoint.replay["rng"])
        if checkpoint.replay.get("transforms"):
            self.transforms.load_rng_state(checkpoint.replay["transforms"])
        if self.memory.num_transitions == 0:
            logger.warning(
                "the replay of this checkpoint is not stored: samples are collected before learning continues"
            )
            self.learner.pace.restart_ratio()
        load_global_rng_state(checkpoint.rng)

    def _advice_on_episode(self, checkpoint: Checkpoint) -> str:
        """What to do where the episode of a synchronous run does not go on as it began."""
        changed = ", ".join(changed_task_keys(checkpoint, self.run.config, Role.train))
        if not changed:
            return DAMAGED
        return (
            f"{changed} changed, but a synchronous run goes on in the middle of an episode: leave that as it was, "
            "or take synchronous=false or checkpoint_mode=weights"
        )

    def _load_replay(self, checkpoint: Checkpoint) -> None:
        """Restores the replay: up to the checkpoint when what followed will be repeated, else all of it."""
        if self.storage is None:
            return
        position = checkpoint.replay.get("position") or None
        is_repeated = self.is_synchronous and bool(checkpoint.rollout)
        with _said_as_fault_of_the_checkpoint():
            self.storage.load(self.memory, position, keeps_newer=not is_repeated)

    def _take_networks(self, checkpoint: Checkpoint) -> None:
        """The networks alone; critics begin anew where the file has none, or others than these."""
        self.learner.publishes_first = True
        fresh = self.algorithm.state_dict()
        state = dict(checkpoint.algorithm_state)
        is_of_this_kind = (checkpoint.algorithm, checkpoint.spec()) == (self.algorithm_name, self.spec)
        if not (state and is_of_this_kind) or _critics_of(state) != _critics_of(fresh):
            logger.info("the policy of the checkpoint goes on with new critics")
            self.algorithm.load_acting_weights(checkpoint.acting_weights())
            return
        state.update((key, fresh[key]) for key in ("optimizers", "generator", "num_updates") if key in fresh)
        self.algorithm.load_state_dict(state)

    def _take_replay(self) -> None:
        if self.storage is None:
            raise ValueError("checkpoint_mode=replay needs save_replay=true")
        with _said_as_fault_of_the_checkpoint():
            self.storage.load(self.memory)
        if self.memory.num_transitions == 0:
            raise CheckpointError(f"checkpoint_mode=replay: there is no stored replay in {self.storage.directory}")
        self._number_after_what_is_stored()
        self.learner.pace.restart_ratio(available_env_steps=len(self.memory))

    def _number_after_what_is_stored(self) -> None:
        """New segments of a synchronous run are not taken for repetitions of those that an earlier one stored."""
        if self._inline_link is not None:
            self._inline_link.number_after(self.memory.received.get(_SYNCHRONOUS, 0))

    def _nothing_left(self, path: str) -> CheckpointError:
        max_updates = self.run.config.max_updates
        if max_updates is not None and self.epoch_num >= max_updates:
            return nothing_left(path, f"{self.epoch_num} updates", "max_updates", max_updates)
        return nothing_left(path, f"{self.frame} steps", "max_env_steps", self.run.max_env_steps)

    def _why_nothing_is_learned(self) -> str:
        config, first = self.learner_config, self.learner.pace.next_update_at
        return (
            f"no update is due up to max_env_steps={self.run.max_env_steps}, the next one would be at {first} steps "
            f"(train.params.config.env_steps_before_training={config.env_steps_before_training}, "
            f"max_updates_per_env_step={config.max_updates_per_env_step}); raise max_env_steps to at least {first}, "
            "or lower env_steps_before_training"
        )

    def _on_episode(self, episode: dict[str, float]) -> None:
        episode_return = float(episode.get("return", 0.0))
        is_first = self.mean_rewards <= -1e9
        self.mean_rewards = episode_return if is_first else 0.95 * self.mean_rewards + 0.05 * episode_return
        self.last_mean_rewards = max(self.last_mean_rewards, self.mean_rewards)
        infos = {"episode": dict(episode), "scores": np.array([episode_return], np.float32)}
        self.algo_observer.process_infos(infos, torch.zeros((1, 1), dtype=torch.long))


def make_pace(config: ReplayLearnerConfig, is_synchronous: bool, *, is_real_time: bool) -> Pace:
    """The pace that a configuration asks for.

    Synchronous runs hold one exact ratio: the minimum, which is where a simulator that is faster than its learner
    settles too, or the maximum when there is no minimum. Real time, which nothing may hold, ignores the minimum.
    """
    low, high = config.min_updates_per_env_step, config.max_updates_per_env_step
    if is_synchronous:
        exact = low if low > 0 else high
        return Pace(exact, exact, config.env_steps_before_training)
    return Pace(low, high, config.env_steps_before_training, ignore_min=is_real_time)


def make_schedule(config: ReplayLearnerConfig, max_env_steps: int, max_updates: int | None = None) -> LearnerSchedule:
    """The learner's intervals and limits."""
    return LearnerSchedule(
        batch_size=config.batch_size,
        max_env_steps=max_env_steps,
        max_updates=max_updates,
        update_model_interval=config.update_model_interval,
        log_interval=config.log_interval,
        evaluation_interval=config.evaluation_interval,
        evaluation_seeds=evaluation_seeds(config.evaluation_episodes),
        checkpoint_interval=config.checkpoint_interval,
    )


def copy_replay(source: Path, directory: Path) -> None:
    """Copies a stored replay into a run that begins with it.

    Raises:
        UsageError: The disk does not take it; what was copied is removed.
    """
    try:
        copy_chunks(source, directory)
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise UsageError(
            f"the stored replay {source} cannot be copied to {directory}: {reason(error)}; make room, or take the "
            "weights alone with checkpoint_mode=weights"
        ) from error


def _replay_directory(checkpoint: str) -> Path | None:
    directory = run_directory(checkpoint)
    return directory / "replay" if directory is not None else None


def _critics_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the critics in the state of an algorithm; empty: it has none."""
    return {name: tuple(tensor.shape) for name, tensor in state.get("critic", {}).items()}


@contextlib.contextmanager
def _said_as_fault_of_the_checkpoint() -> Iterator[None]:
    """What the files of the replay make impossible is a message for the user.

    Raises:
        CheckpointError: With that message.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        raise CheckpointError(str(error)) from error
