"""The rl_games face of off-policy learning: the Runner builds an ``OffPolicyAgent`` for SAC and for each sibling.

It owns the run folder, the writer, the counters' way into checkpoints, signals and the observer's hooks; learning
itself is ``algos.learning.learner``. ``train.py`` hands over this layout (plain data, nothing writes to it after
start)::

    params:
      seed: 0
      torch_threads: 0                 # keeps rl_games from changing torch's thread count
      algo: {name: remote_sac}         # or remote_ppo: see algos/config/ppo.py, ppo_params()
      model: {name: remote_sac}
      network: {name: remote_sac, ...NetworkConfig as plain data}
      config:
        name: TM20FullSAC              # the experiment
        full_experiment_name: TM20FullSAC_2025-01-31_12-00-00   # the run folder below train_dir
        train_dir: runs
        env_name: TM20Full             # the task, as registered in rl_games' env_configurations
        env_config:                    # keyword arguments of RemoteVecEnv
          task: {...TaskConfig as plain data, game resolved}
          policy: {function: "algos.acting.policy:make_acting_policy", kwargs: {spec, network, warm_up, ...}}
          num_workers: 1
          seed: 0
          remote: {...RemoteConfig as plain data}   # where workers from elsewhere join
          ...
        device: cpu                    # resolved: cpu or cuda:N; device_name is the same for rl_games' players
        device_name: cpu
        inference_device: cpu
        num_actors: 1
        max_env_steps: 100000
        max_updates: null
        synchronous: false
        headless: false                # true: plain lines instead of the live panel
        checkpoint_mode: resume        # resume | weights | replay; used when Runner.run gets a checkpoint
        reward_shaper: {}
        torch_compile: false
        synchronous_rows: 1            # rows that a synchronous run acts between two rounds of updates
        sac: {...SACConfig, REDQConfig, ... as plain data}
        play: {...PlayConfig as plain data: episodes, seed, rules, ...}
        wandb: {enabled: false, project: ..., entity: ...}
        full_config: {...the whole resolved hydra config; stored in every checkpoint and as <run>/config.yaml}

``Runner.run({"train": True, "checkpoint": path})`` trains; ``{"train": False, "play": True, "checkpoint": path}``
plays. For ``checkpoint_mode: resume`` of ``<train_dir>/<run>/nn/<file>.pth`` give ``full_experiment_name: <run>``: the
run goes on in its own folder and replay. Any other name starts a new folder and copies the replay.
``algos.run.checkpoint.load_checkpoint(path).config`` is the stored ``full_config``.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rl_games.common import env_configurations, vecenv
from rl_games.interfaces.base_algorithm import BaseAlgorithm

from algos.acting.policy import build_policy
from algos.algorithms.sac import SAC
from algos.config import OffPolicyConfig, network_from_plain, off_policy_from_plain
from algos.config.algorithms import off_policy
from algos.config.errors import UsageError
from algos.learning.learner import Learner, LearnerSchedule
from algos.learning.links import InlineLink
from algos.learning.pace import Pace
from algos.replay.lenient_storage import LenientStorage
from algos.replay.scan import copy_chunks
from algos.replay.transforms import ReplayTransforms
from algos.run.checkpoint import (
    DAMAGED,
    Checkpoint,
    CheckpointError,
    as_arrays,
    finite_weights,
    fits,
    fits_networks,
    global_rng_state,
    load_checkpoint,
    load_global_rng_state,
    run_directory,
    save_checkpoint,
    snapshot,
)
from algos.run.files import RunFiles
from algos.run.interrupt import StopOnInterrupt
from algos.run.log import RunLog, summary
from algos.run.summaries import open_summaries
from tasks.acting.evaluation import ClipRecorder, evaluate
from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment
from tasks.process.step_watch import HangTeller, StepWatch
from tasks.process.write_trouble import reason
from tasks.words.references import resolve

logger = logging.getLogger(__name__)

CHECKPOINT_MODES = ("resume", "weights", "replay")
EVALUATION_SEED = 500_000
"""Seed of the first evaluation episode; all evaluations of a run drive the same episodes, so that they compare."""
WORSE_THAN_ANY = (-math.inf, -math.inf, -math.inf)


class OffPolicyAgent(BaseAlgorithm):
    """Trains SAC or a sibling on samples of workers (asynchronous) or of this process (synchronous).

    Which algorithm that is, ``params.algo.name`` says: any that ``algos.config.algorithms.add_off_policy`` was given.

    Args:
        base_name: rl_games' name of the run, passed to the observer.
        params: As described at the top of this file.
    """

    def __init__(self, base_name: str, params: Mapping[str, Any]) -> None:
        super().__init__(base_name, params)
        self.config: Mapping[str, Any] = params["config"]
        self._params = params
        self._seed = int(params.get("seed") or 0)
        self.algorithm_name = str(params["algo"]["name"])
        self.sac_config = off_policy_from_plain(off_policy(self.algorithm_name).config_type, self.config["sac"])
        self.experiment_name = experiment_name(self.config)
        self.algo_observer = self.config["features"]["observer"]
        self.algo_observer.before_init(base_name, self.config, self.experiment_name)
        seed_everything(self._seed)
        self.name = base_name
        self.env_name = str(self.config["env_name"])
        self.num_actors = int(self.config.get("num_actors", 1))
        self._stop = threading.Event()
        self._set_what_observers_use()
        self.files = run_files(self.config, self.experiment_name)
        self.experiment_dir = self.files.directory
        self.nn_dir, self.summaries_dir = self.files.nn, self.files.summaries
        self.is_synchronous = bool(self.config.get("synchronous", False))
        self._watch = StepWatch()
        self._inline_link: InlineLink | None = None
        self.vec_env, self.env_info = self._make_environments()
        self.spec = observation_spec(self.env_info)
        self.algorithm = self.make_algorithm(self.spec, torch.device(self.ppo_device), self._seed)
        self.memory = self.algorithm.make_memory(self.spec, self._seed)
        self.transforms = ReplayTransforms(self.sac_config.replay_transforms, self._seed)
        self.storage: LenientStorage | None = None
        self.learner = self._make_learner(None)
        self._best: dict[str, Any] = {}
        self._candidate: Checkpoint | None = None
        self._is_closed = False
        self.writer = open_summaries(self.files.summaries)
        self.log = RunLog(
            self.writer,
            self.experiment_dir,
            self.experiment_name,
            int(self.config["max_env_steps"]),
            self.config["env_config"].get("task"),
            self.config.get("wandb") or {},
            self.config.get("full_config") or {},
            is_headless=bool(self.config.get("headless", False)),
            max_updates=self.config.get("max_updates"),
        )
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

    def make_algorithm(self, spec: ObservationSpec, device: torch.device, seed: int) -> SAC:
        """Builds what learns."""
        entry = off_policy(self.algorithm_name)
        build = resolve(entry.algorithm, f"algorithm {self.algorithm_name!r}")
        network = network_from_plain(_without_name(self._params["network"]), entry.network_type)
        return build(spec, self.sac_config, network, device, seed)

    def restore(self, fn: str, set_epoch: bool = True) -> None:
        """Starts from a checkpoint, as ``checkpoint_mode`` says; the Runner calls it before ``train``.

        Raises:
            CheckpointError: The file cannot be read or does not fit this run.
        """
        mode = str(self.config.get("checkpoint_mode", "resume"))
        if mode not in CHECKPOINT_MODES:
            raise ValueError(f"checkpoint_mode must be one of {', '.join(CHECKPOINT_MODES)}, got {mode!r}")
        checkpoint = load_checkpoint(fn)
        require_fit(checkpoint, fn, self.spec, None if mode == "replay" else self.algorithm_name)
        if mode != "replay":
            finite_weights(checkpoint, fn)
        with fits_networks(fn):
            if mode == "weights":
                self._take_networks(checkpoint)
            elif mode == "resume":
                self.algorithm.load_state_dict(checkpoint.algorithm_state)
        if mode == "resume" and set_epoch:
            with fits(fn, "this run", DAMAGED):
                self.learner.load_counters(checkpoint.counters)
            if self.learner.is_finished:
                raise self._nothing_left(fn)
        if mode != "weights":
            self._open_storage(_replay_directory(fn))
        if mode == "resume":
            with fits(fn, "this run", DAMAGED):
                self._resume(checkpoint)
        elif mode == "replay":
            self._take_replay()
        newer = 0 if self.storage is None else self.storage.newer_rows
        kept = f", {newer} of them newer: learned from, but not counted as steps or for updates" if newer else ""
        logger.info("%s of %s: %d steps, %d replay rows%s", mode, fn, self.frame, len(self.memory), kept)

    def train(self) -> tuple[float, int]:
        """Learns until ``max_env_steps``, ``max_updates`` or Ctrl-C.

        Returns:
            Mean return of the newest episodes and the number of updates, as rl_games' agents do.

        Raises:
            NotSavedError: The disk did not take what was to be saved at the end.
        """
        if self.storage is None:
            self._open_storage(None)
        self._start_workers()
        self.clear_stats()
        if self.learner.learns_nothing:
            logger.warning("nothing will be learned: %s", self._why_nothing_is_learned())
        before = self.epoch_num
        try:
            with StopOnInterrupt(self._stop), HangTeller(lambda: {"this process": self._watch.hangs_for_s()}):
                self.learner.run()
        finally:
            self.close()
        if self.epoch_num == before:
            text = "nothing was learned: no update was made, %s has the networks that the command began with"
            logger.warning(text, self.files.newest)
        self.files.require_saved()
        return self.mean_rewards, self.epoch_num

    def train_epoch(self) -> None:
        """One turn of the learner."""
        self.learner.turn()

    def stop(self) -> None:
        """Ends ``train`` at the next turn of the loop; it saves first."""
        self._stop.set()

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
        self.log.close()

    def clear_stats(self) -> None:
        """Forgets the averages that are shown."""
        self.mean_rewards = self.last_mean_rewards = -1e9
        if hasattr(self.algo_observer, "after_clear_stats"):  # rl_games' base class lacks it
            self.algo_observer.after_clear_stats()

    def make_checkpoint(self) -> Checkpoint:
        """The present state; it shares memory with what goes on learning."""
        policy = self.config["env_config"].get("policy") or {}
        # The rows that this state needs are kept from when it is written: see ``on_checkpoint``.
        position = {} if self.storage is None else self.storage.position(keep=False)
        return Checkpoint(
            algorithm=self.algorithm_name,
            task=self.env_name,
            config=dict(self.config.get("full_config") or {}),
            observation_spec=self.spec.to_json(),
            policy={
                "function": policy.get("function"),
                "kwargs": policy.get("kwargs", {}),
                "weights": self.algorithm.acting_weights(),
                "version": max(self.learner.weights_version, 1),
            },
            algorithm_state=self.algorithm.state_dict(),
            counters=self.learner.counters(),
            replay={"position": position, "rng": self.memory.rng_state(), "transforms": self.transforms.rng_state()},
            rollout={} if self._inline_link is None else self._inline_link.state(),
            rng=global_rng_state(),
            best=dict(self._best),
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

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Loads the acting weights."""
        self.algorithm.load_acting_weights(weights["acting"])  # type: ignore[attr-defined]

    def get_full_state_weights(self) -> dict[str, Any]:
        """Everything a checkpoint holds, as plain data."""
        return snapshot(vars(self.make_checkpoint()))

    def set_full_state_weights(self, weights: Mapping[str, Any], set_epoch: bool = True) -> None:
        """The inverse of ``get_full_state_weights``, without the replay and the state of the acting side."""
        self.algorithm.load_state_dict(weights["algorithm_state"])
        if set_epoch:
            self.learner.load_counters(weights["counters"])
        self._best = dict(weights["best"])

    def get_param(self, param_name: str) -> Any:
        """A value of the algorithm's configuration."""
        return getattr(self.sac_config, param_name)

    def set_param(self, param_name: str, param_value: Any) -> None:
        """Not offered: the configuration is fixed once a run has begun."""
        raise NotImplementedError(f"{param_name} cannot be changed while training; resume with another value instead")

    # --- what the learner tells ---

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
        self.log.evaluation(report, env_steps)
        is_best = report.score() > tuple(self._best.get("score", WORSE_THAN_ANY))
        driven = summary(report, self.log.human_lap_time_s)
        logger.info("evaluation at %d steps: %s%s", env_steps, driven, ", the best so far" if is_best else "")
        if is_best and candidate is not None:
            self._best = {"score": list(report.score()), "env_steps": env_steps, "report": report.to_json()}
            candidate.best = dict(self._best)
            self.files.save_best(candidate)

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

    def _make_environments(self) -> tuple[Any, Mapping[str, Any]]:
        """The REMOTE vecenv of an asynchronous run, None of a synchronous one; and what rl_games wants to know."""
        env_config = dict(self.config["env_config"])
        if not self.is_synchronous:
            env_config.setdefault("evaluator", self.sac_config.evaluation_interval > 0)
            num_envs = max(self.num_actors, int(env_config.get("num_workers") or 0))
            vec_env = vecenv.create_vec_env(self.env_name, num_envs, **env_config)
            return vec_env, vec_env.get_env_info()
        from tasks.acting.rollout import Rollout

        env = self._watch.around(make_env(self.env_name, env_config))
        policy = build_policy(env_config["policy"], self._seed)
        rollout = Rollout(
            env, policy, "synchronous", 0, self._seed, check_samples=bool(env_config.get("check_samples", False))
        )
        evaluator = InProcessEvaluator(
            lambda: make_env(self.env_name, env_config),
            lambda: build_policy(env_config["policy"], self._seed),
            self._stop.is_set,
            self._watch,
        )
        self._inline_link = InlineLink(rollout, int(self.config.get("synchronous_rows", 1)), evaluator)
        return None, env_info(env)

    def _start_workers(self) -> None:
        """Starts them behind what is stored of theirs, as far as there are any."""
        if self.vec_env is None:
            return
        if self.storage is not None:
            self.vec_env.go_on_from(self.storage.received)
        self.learner.link = self.vec_env.start()

    def _make_learner(self, storage: LenientStorage | None) -> Learner:
        learner = Learner(
            self.memory,
            storage,
            self.algorithm,
            make_pace(
                self.sac_config,
                self.is_synchronous,
                is_real_time=self.vec_env is not None and self.vec_env.is_real_time,
            ),
            make_schedule(self.sac_config, int(self.config["max_env_steps"]), self.config.get("max_updates")),
            self,
            self._stop,
            transform=self.transforms,
            acts_on_demand=self.is_synchronous,
        )
        if self._inline_link is not None:
            learner.link = self._inline_link
        return learner

    def _open_storage(self, source: Path | None) -> None:
        """Opens the stored replay of this run; that of another run is copied in first."""
        if not self.sac_config.save_replay:
            return
        directory = self.experiment_dir / "replay"
        if source is not None and source.is_dir() and source.resolve() != directory.resolve():
            copy_replay(source, directory)
        with _said_as_fault_of_the_checkpoint():
            self.storage = LenientStorage(directory, self.spec, self.sac_config.memory_size)
        self.learner.storage = self.storage

    # --- starting from a checkpoint ---

    def _resume(self, checkpoint: Checkpoint) -> None:
        """Puts back everything but the networks and the counters."""
        self._best = newest_best(self.files.best, checkpoint.best)
        self._load_replay(checkpoint)
        if checkpoint.replay.get("rng"):
            self.memory.load_rng_state(checkpoint.replay["rng"])
        if checkpoint.replay.get("transforms"):
            self.transforms.load_rng_state(checkpoint.replay["transforms"])
        if self._inline_link is not None and checkpoint.rollout:
            self._inline_link.load_state(as_arrays(checkpoint.rollout))
        else:
            self.learner.publishes_first = self.learner.weights_version > 0
        if self.memory.num_transitions == 0:
            logger.warning("the replay of this checkpoint is not stored: samples are collected before learning goes on")
            self.learner.pace.restart_ratio()
        load_global_rng_state(checkpoint.rng)

    def _load_replay(self, checkpoint: Checkpoint) -> None:
        """Restores the replay: up to the checkpoint when what followed will be repeated, else all of it."""
        if self.storage is None:
            return
        position = checkpoint.replay.get("position") or None
        is_repeated = self.is_synchronous and bool(checkpoint.rollout)
        with _said_as_fault_of_the_checkpoint():
            self.storage.load(self.memory, position, keeps_newer=not is_repeated)

    def _take_networks(self, checkpoint: Checkpoint) -> None:
        fresh = self.algorithm.state_dict()
        state = dict(checkpoint.algorithm_state)
        state.update((key, fresh[key]) for key in ("optimizers", "generator", "num_updates") if key in fresh)
        self.algorithm.load_state_dict(state)
        self.learner.publishes_first = True

    def _take_replay(self) -> None:
        if self.storage is None:
            raise ValueError("checkpoint_mode=replay needs save_replay=true")
        with _said_as_fault_of_the_checkpoint():
            self.storage.load(self.memory)
        if self.memory.num_transitions == 0:
            raise CheckpointError(f"checkpoint_mode=replay: there is no stored replay in {self.storage.directory}")
        self.learner.pace.restart_ratio(available_env_steps=len(self.memory))

    def _nothing_left(self, path: str) -> CheckpointError:
        max_updates = self.config.get("max_updates")
        if max_updates is not None and self.epoch_num >= max_updates:
            return nothing_left(path, f"{self.epoch_num} updates", "max_updates", max_updates)
        return nothing_left(path, f"{self.frame} steps", "max_env_steps", int(self.config["max_env_steps"]))

    def _why_nothing_is_learned(self) -> str:
        config = self.sac_config
        return (
            f"no update is due up to max_env_steps={self.config['max_env_steps']} "
            f"(train.params.config.env_steps_before_training={config.env_steps_before_training}, "
            f"max_updates_per_env_step={config.max_updates_per_env_step}); raise max_env_steps, or lower "
            "env_steps_before_training"
        )

    def _on_episode(self, episode: dict[str, float]) -> None:
        episode_return = float(episode.get("return", 0.0))
        is_first = self.mean_rewards <= -1e9
        self.mean_rewards = episode_return if is_first else 0.95 * self.mean_rewards + 0.05 * episode_return
        self.last_mean_rewards = max(self.last_mean_rewards, self.mean_rewards)
        infos = {"episode": dict(episode), "scores": np.array([episode_return], np.float32)}
        self.algo_observer.process_infos(infos, torch.zeros((1, 1), dtype=torch.long))


class InProcessEvaluator:
    """Drives evaluation episodes in this process, on an environment and a policy of its own.

    Args:
        make_env: Makes the environment at the first use.
        make_policy: Makes the policy at the first use.
        is_stopped: True abandons an evaluation.
        watch: Watches the environment.
    """

    def __init__(
        self,
        make_env: Callable[[], Any],
        make_policy: Callable[[], Any],
        is_stopped: Callable[[], bool],
        watch: StepWatch,
    ) -> None:
        self._make_env = make_env
        self._make_policy = make_policy
        self._is_stopped = is_stopped
        self._watch = watch
        self._env: Any = None
        self._policy: Any = None

    def __call__(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int]
    ) -> EvaluationReport | None:
        """The report of these weights; None when it was abandoned."""
        if self._env is None:
            with self._watch.call():
                self._env = self._watch.around(self._make_env())
            self._policy = self._make_policy()
        self._policy.load_weights(weights, version)
        report = evaluate(self._env, self._policy, seeds, clip=ClipRecorder(), stop=self._is_stopped)
        return report if len(report.episodes) == len(seeds) else None

    def close(self) -> None:
        """Closes the environment. Calling it twice is fine."""
        if self._env is not None:
            self._env.close()
            self._env = None


def make_pace(config: OffPolicyConfig, is_synchronous: bool, *, is_real_time: bool) -> Pace:
    """The pace that a configuration asks for.

    Synchronous runs hold one exact ratio: the minimum, which is where a simulator that is faster than its learner
    settles too, or the maximum when there is no minimum. Real time, which nothing may hold, ignores the minimum.
    """
    low, high = config.min_updates_per_env_step, config.max_updates_per_env_step
    if is_synchronous:
        exact = low if low > 0 else high
        return Pace(exact, exact, config.env_steps_before_training)
    return Pace(low, high, config.env_steps_before_training, ignore_min=is_real_time)


def make_schedule(config: OffPolicyConfig, max_env_steps: int, max_updates: int | None = None) -> LearnerSchedule:
    """When the learner does what."""
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


def evaluation_seeds(episodes: int) -> tuple[int, ...]:
    """Seeds of the episodes of an evaluation."""
    return tuple(range(EVALUATION_SEED, EVALUATION_SEED + episodes))


def experiment_name(config: Mapping[str, Any]) -> str:
    """Name of the run folder."""
    date = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return str(config.get("full_experiment_name") or f"{config['name']}_{date}")


def run_files(config: Mapping[str, Any], name: str) -> RunFiles:
    """The files of a run, in its folder below ``train_dir``."""
    return RunFiles(Path(config.get("train_dir", "runs")) / name, config.get("full_config") or {})


def make_env(env_name: str, env_config: Mapping[str, Any]) -> Any:
    """One environment of a registered task with dict observations, in this process."""
    configuration = env_configurations.configurations.get(env_name)
    if configuration is None:
        raise ValueError(
            f"task {env_name!r} is not registered in rl_games; call tasks.registration.register_tasks() first"
        )
    # Around it is what rl_games' own players step.
    return configuration["env_creator"](**env_config).env


def env_info(env: Any) -> dict[str, Any]:
    """What rl_games wants to know of an environment."""
    return {
        "observation_space": env.observation_space,
        "action_space": env.action_space,
        "agents": 1,
        "value_size": 1,
        "observation_spec": env.get_wrapper_attr("observation_spec").to_json(),
    }


def observation_spec(info: Mapping[str, Any]) -> ObservationSpec:
    """The observation fields that an ``env_info`` names."""
    spec = info["observation_spec"]
    return spec if isinstance(spec, ObservationSpec) else ObservationSpec.from_json(spec)


def require_fit(checkpoint: Checkpoint, path: str | os.PathLike[str], spec: ObservationSpec, name: str | None) -> None:
    """Refuses a checkpoint of another algorithm (unless ``name`` is None) or another observation.

    Raises:
        CheckpointError: Naming the file and what differs.
    """
    if name is not None and checkpoint.algorithm != name:
        raise CheckpointError(f"checkpoint {path} was trained by {checkpoint.algorithm}, this run uses {name}")
    stored = _stored_spec(checkpoint, path)
    if stored != spec:
        raise CheckpointError(
            f"checkpoint {path} was trained on {_described(stored)}; this task gives {_described(spec)}. "
            "Use the task configuration that is stored in the file"
        )


def require_playable(
    checkpoint: Checkpoint, path: str | os.PathLike[str], spec: ObservationSpec, name: str | None
) -> None:
    """As ``require_fit`` for what only acts: privileged fields may differ or be missing.

    Raises:
        CheckpointError: Naming the file and what differs.
    """
    stored = _stored_spec(checkpoint, path).visible
    require_fit(replace(checkpoint, observation_spec=stored.to_json()), path, spec.visible, name)


def nothing_left(path: str | os.PathLike[str], done: str, key: str, limit: int) -> CheckpointError:
    """The refusal to resume a run that has ended.

    Args:
        path: The checkpoint.
        done: What it has, such as "4022 steps".
        key: Which key ends training.
        limit: Its value.
    """
    return CheckpointError(
        f"checkpoint {path} has made {done} and {key} is {limit}: nothing is left to do. "
        f"Raise {key} to go on, or take only the networks with checkpoint_mode=weights"
    )


def newest_best(path: Path, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The best of a run so far: its ``best.pth`` may be newer than the checkpoint that it goes on from.

    Args:
        path: That ``best.pth``; need not exist.
        stored: ``Checkpoint.best`` of the one that it goes on from.
    """
    candidates = [dict(stored)]
    if path.is_file():
        candidates.append(load_checkpoint(path).best)
    return max(candidates, key=lambda best: tuple(best.get("score", WORSE_THAN_ANY)))


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


def seed_everything(seed: int) -> None:
    """Seeds the global generators; rl_games itself leaves them alone when the seed is 0."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _stored_spec(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> ObservationSpec:
    with fits(os.fspath(path), "any observation", "the file is damaged"):
        spec = ObservationSpec.from_json(checkpoint.observation_spec)
        spec.dict_space()  # sees that the fields have shapes and types
        return spec


def _replay_directory(checkpoint: str) -> Path | None:
    directory = run_directory(checkpoint)
    return directory / "replay" if directory is not None else None


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


def _without_name(network: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in network.items() if key != "name"}


def _described(spec: ObservationSpec) -> str:
    fields = ", ".join(f"{field.name} {list(field.shape)} {field.dtype}" for field in spec.all_fields())
    return f"[{fields}]"
