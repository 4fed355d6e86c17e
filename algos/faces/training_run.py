"""A training run without its learning: configuration, folder, log, checkpoints and best evaluation, for both agents.

``algos.faces.agent`` and ``algos.faces.ppo`` own one each and report to it. Only this module decides whether a
checkpoint fits, what every checkpoint contains, and when ``best.pth`` is replaced.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algos.config.schema import CheckpointMode, RunConfig
from algos.faces.checkpoint_fit import changed_task_keys, require_fit, require_playable
from algos.run.checkpoint import Checkpoint, CheckpointError, finite_weights, global_rng_state, load_checkpoint
from algos.run.files import RunFiles
from algos.run.log import RunLog, summary
from tasks.config import config_to_dict
from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.observation import ObservationSpec
from tasks.process.step_watch import StepWatch
from tasks.words.command_line import Role
from tasks.words.nested import Plain

logger = logging.getLogger(__name__)

WORSE_THAN_ANY = (-math.inf, -math.inf, -math.inf)


class TrainingRun:
    """Owns the files of a run and its best evaluation; seeds the global generators when it is made.

    Args:
        params: rl_games' params (``algos.faces.runner_params``).
        algorithm: Name of the algorithm.
    """

    def __init__(self, params: Plain, algorithm: str) -> None:
        config = params["config"]
        self.config: RunConfig = config["run"]
        self.algorithm = algorithm
        self.task = str(config["env_name"])
        self.seed = int(params.get("seed") or 0)
        _seed_everything(self.seed)
        date = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        self.name = str(config.get("full_experiment_name") or f"{config['name']}_{date}")
        self.max_env_steps = int(self.config.max_env_steps)
        self._plain = config_to_dict(self.config)
        self._task_plain = config["env_config"].get("task")
        self.files = RunFiles(Path(config.get("train_dir", "runs")) / self.name, self._plain)
        self.stop = threading.Event()
        self.watch = StepWatch()
        self.best: dict[str, Any] = {}
        """The best evaluation so far, as checkpoints hold it: score, env_steps, report."""

    def open_log(self, writer: Any) -> RunLog:
        """The log of this run over a writer of TensorBoard, which it closes."""
        self.log = RunLog(
            writer,
            self.files.directory,
            self.name,
            self.max_env_steps,
            self._task_plain,
            self._plain,
            is_headless=self.config.headless,
            max_updates=self.config.max_updates,
        )
        return self.log

    def load(
        self, path: str, spec: ObservationSpec, modes: Collection[CheckpointMode] = tuple(CheckpointMode)
    ) -> Checkpoint:
        """Reads the checkpoint from which the run starts, and sees that it fits as ``checkpoint_mode`` asks.

        Raises:
            ValueError: The algorithm does not have that mode.
            CheckpointError: The file cannot be read or does not fit this run.
        """
        mode = self.config.checkpoint_mode
        if mode not in modes:
            known = " or ".join(kind.name for kind in modes)
            raise ValueError(
                f"checkpoint_mode of {self.algorithm} must be {known} (it has no replay), got {mode.name!r}"
            )
        checkpoint = load_checkpoint(path)
        is_new_agent = mode is CheckpointMode.replay
        if mode is CheckpointMode.weights:  # its critics, if any, may begin anew
            require_playable(checkpoint, path, spec, None)
        else:
            require_fit(checkpoint, path, spec, None if is_new_agent else self.algorithm)
        if not is_new_agent:
            finite_weights(checkpoint, path)
        return checkpoint

    def go_on_from_best(self, checkpoint: Checkpoint) -> None:
        """Takes the best evaluation of a resumed run: its ``best.pth`` may be newer than the checkpoint.

        One of another task does not count: nothing that this run drives can be compared with it.

        Args:
            checkpoint: What is resumed.
        """
        candidates = [checkpoint]
        if self.files.best.is_file():
            candidates.append(load_checkpoint(self.files.best))
        found = [(dict(c.best), changed_task_keys(c, self.config, Role.play)) for c in candidates if c.best]
        self.best = max((best for best, changed in found if not changed), key=_score, default={})
        self.log.go_on_from(self.best)
        if found and not self.best:
            changed = ", ".join(found[-1][1])
            logger.warning("%s changed since the best evaluation: best.pth begins anew with the next one", changed)

    def checkpoint(
        self,
        spec: ObservationSpec,
        policy: Mapping[str, object],
        algorithm_state: Mapping[str, object],
        counters: Mapping[str, object],
        **parts: Any,
    ) -> Checkpoint:
        """The present state; ``parts`` are what only some algorithms have, such as the replay."""
        return Checkpoint(
            algorithm=self.algorithm,
            task=self.task,
            config=dict(self._plain),
            observation_spec=spec.to_json(),
            policy=dict(policy),
            algorithm_state=dict(algorithm_state),
            counters=dict(counters),
            rng=global_rng_state(),
            best=dict(self.best),
            **parts,
        )

    def evaluated(self, report: EvaluationReport, env_steps: int, checkpoint: Callable[[], Checkpoint] | None) -> None:
        """Records an evaluation; writes ``best.pth`` when it is the best so far.

        Args:
            report: The evaluation.
            env_steps: Where what was evaluated stood.
            checkpoint: Gives what was evaluated; None: it is not there any more.
        """
        self.log.evaluation(report, env_steps)
        is_best = report.score() > _score(self.best)
        driven = summary(report, self.log.laps_on)
        logger.info("evaluation at %d steps: %s%s", env_steps, driven, ", the best so far" if is_best else "")
        if is_best and checkpoint is not None:
            self.best = {"score": list(report.score()), "env_steps": env_steps, "report": report.to_json()}
            best = checkpoint()
            best.best = dict(self.best)
            self.files.save_best(best)


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


def _score(best: Plain) -> tuple[float, ...]:
    return tuple(best.get("score", WORSE_THAN_ANY))


def _seed_everything(seed: int) -> None:
    """rl_games itself leaves the global generators alone when the seed is 0."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
