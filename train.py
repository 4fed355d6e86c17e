"""Trains a driver, plays one back, helps at the game: the command line and the only place where tasks and algos meet.

    python train.py task=TM20Full train=TM20FullSAC
    python train.py task=TM20Full train=TM20FullSAC --play --checkpoint runs/<run>/nn/best.pth
    python train.py task=TM20Lidar task.game=live --check

Exit codes: 0 done (also by Ctrl-C, once there is something to save, and by a training that was too short to learn: it
only warns), 1 a fault of the program (with its traceback) or something that could not be saved, 2 the command cannot be
done as given, 130 Ctrl-C before that. SIGTERM and a closed terminal are as Ctrl-C.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algos.config.errors import UsageError
from algos.run.observers import make_observer
from tasks.game.errors import GameError
from tasks.process.stop_signals import as_interrupt
from tasks.process.write_trouble import NotSavedError
from tasks.words.command_line import ROLES_WITHOUT_CONFIGURATION, RUNNER_ROLES, Role, help_text, parse

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from algos.config.schema import RunConfig
    from tasks.config import AnyTaskConfig
    from tasks.words.command_line import CommandLine

CONFIG_DIR = Path(__file__).resolve().parent / "cfg"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    # Idle OpenMP threads would spin on the cores that the workers need; must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    # gRPC prints a line for each failed handshake, so anybody could fill the log; set before grpc is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # The interpreter's last garbage collection takes seconds with torch loaded, and the process ends anyway.
    atexit.register(gc.freeze)
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        with as_interrupt():
            return _command(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        if wants_traceback:
            traceback.print_exc()
        return _ended(2, str(error))
    except NotSavedError as error:
        return _ended(1, str(error))
    except KeyboardInterrupt:
        return _ended(130, "interrupted")


def run(composed: DictConfig, role: Role, words: Sequence[str]) -> None:
    """Does what the role says with one composed configuration.

    Args:
        composed: What hydra composed (a DictConfig).
        role: What this process does.
        words: The overrides that were typed.

    Raises:
        UsageError: If the configuration does not fit; nothing was started or written.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if role not in RUNNER_ROLES:
        with _refusals():
            if role is Role.export:
                _require_checkpoint(composed, role)
            status = _without_runner(configured(composed, role, words), role)
        if status:
            sys.exit(status)
        return
    with _refusals():
        params = prepare(composed, role, words)
    with _no_unused_folder(params, role):
        _set_up_torch(params)
        _start(params, role)


def prepare(composed: DictConfig, role: Role, words: Sequence[str]) -> dict[str, Any]:
    """Checks all that can be checked before anything is started, and returns rl_games' params.

    Args:
        composed: What hydra composed (a DictConfig).
        role: train or play.
        words: The overrides that were typed.

    Raises:
        ValueError: If the configuration does not fit.
    """
    from algos.config.hydra_entry import options
    from algos.faces.runner_params import check, resolve, runner_params
    from algos.run.folder import run_folder
    from tasks import registry
    from tasks.remote.access.invitation import check_credentials

    if role is Role.play:
        _require_checkpoint(composed, role)
    config = configured(composed, role, words)
    spec = registry.observation_spec(config.task.name, config.task)
    check(config, spec, options("train"), is_playing=role is Role.play)
    registry.make(config.task.name, observation="dict", config=config.task).close()  # track and path exist
    if config.num_workers > 0 or role is Role.play:
        _check_machine(config.task)
    check_credentials(config.remote)
    is_renamed = any(word.startswith("experiment=") for word in words)
    folder = run_folder(config, is_playing=role is Role.play, is_renamed=is_renamed)
    return runner_params(resolve(config), spec, folder, _worker_words(config))


def _require_checkpoint(composed: DictConfig, role: Role) -> None:
    """Refuses a role that needs a trained policy and got none; says which there are."""
    from algos.run.folder import newest_checkpoints
    from algos.run.zoo import entries

    if composed.checkpoint is None:
        found = ", ".join(newest_checkpoints()) or "none yet"
        raise ValueError(
            f"--{role.value} needs --checkpoint FILE, latest, or zoo:NAME (one of {', '.join(entries())}); the newest "
            f"below runs: {found}"
        )


def configured(composed: DictConfig, role: Role, words: Sequence[str]) -> RunConfig:
    """The whole configuration (a RunConfig), types and ranges checked, the game decided.

    Args:
        composed: What hydra composed (a DictConfig).
        role: What this process does.
        words: The overrides that were typed.

    Raises:
        ValueError: If a value, file or name is wrong.
    """
    from omegaconf import OmegaConf

    from algos.config.remote_keys import check_remote
    from algos.config.role_keys import check_needs, check_roles
    from algos.config.schema import typed
    from algos.config.typed_only import refuse_names_of_code
    from algos.faces.role_task import task_of_role
    from algos.run.stored_config import start_from
    from tasks import registry
    from tasks.plugins import load_plugins

    plain: Any = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    if plain["checkpoint"] is not None:
        plain = start_from(plain, words, is_playing=role is not Role.train)
    refuse_names_of_code(plain, words, f"checkpoint {plain['checkpoint']}" if plain["checkpoint"] else "a file")
    load_plugins(plain["plugins"])
    config = typed(plain, type(registry.default_config(plain["task"].get("name"))))
    check_roles(config, role, words)
    check_needs(config, role, words)
    check_remote(config, role.name)
    config.task = task_of_role(config, role)
    if role is not Role.server:  # it drives nothing
        config.task = registry.keep_vehicle(registry.resolve_game(config.task))
        _note_track_files(config.task)
    return config


def _note_track_files(task: AnyTaskConfig) -> None:
    """Says how the user's own track and path were read."""
    from tasks.config import TaskConfig
    from tasks.trackmania.course import file_notes

    if isinstance(task, TaskConfig):
        for note in file_notes(task):
            logging.getLogger(__name__).info("%s (--check draws it)", note)


def register_options(folders: Sequence[Path]) -> None:
    """Makes registered tasks and algorithms options of task= and train=, also without files.

    Args:
        folders: The folders of configuration files.
    """
    from algos.config import options
    from tasks import registry

    options.register_options(folders, {name: registry.default_config(name) for name in registry.names()})


def _ended(code: int, message: str) -> int:
    """Prints why a command failed, unless its output is closed; returns its exit code."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"train.py: {message}\n")
    return code


def _worker_words(config: RunConfig) -> list[str]:
    """What a worker elsewhere types to have this configuration, where workers may join."""
    if config.remote.listen is None and config.remote.relay is None:
        return []
    from algos.config.hydra_entry import as_in_the_files
    from algos.config.worker_words import worker_words
    from tasks.config import config_to_dict

    return worker_words(config_to_dict(config), as_in_the_files(config.choices.task, config.choices.train))


def _check_machine(task: AnyTaskConfig) -> None:
    """Refuses a live game for which this machine lacks a package, a driver or a permission."""
    from tasks.config import TaskConfig

    if isinstance(task, TaskConfig) and task.is_live:
        from tasks.live.parts import check_setup

        check_setup(task)


def _without_runner(config: RunConfig, role: Role) -> int:
    """Every role that rl_games' Runner has no part in; returns the exit code."""
    from algos.run.folder import RUNS
    from tasks import registry

    if role is Role.benchmark:
        from algos.faces.configured_policy import acting_policy
        from tasks.process.dated_folder import new_dated_folder
        from tasks.roles.benchmark import benchmark

        benchmark.require_clock(config.task)
        policy = acting_policy(config, registry.observation_spec(config.task.name, config.task))
        benchmark.run(config.task, config.benchmark, policy, new_dated_folder(RUNS, "benchmark", datetime.now()))
        return 0
    if role is Role.export:
        from algos.export import export

        sys.stdout.write(export.run(config) + "\n")
        return 0
    if role is Role.worker:
        from algos.faces.configured_policy import expert_weights, remote_policy
        from tasks.acting.env_source import EnvSource
        from tasks.config import config_to_dict
        from tasks.remote.worker import remote_worker

        _check_machine(config.task)
        spec = registry.observation_spec(config.task.name, config.task)
        policy = remote_policy(config, spec)
        rows = config.worker.samples_per_packet
        worker = replace(config.worker, samples_per_packet=config.link.segment_rows if rows == "auto" else rows)
        weights, headless = expert_weights(config, spec), config.headless
        source = EnvSource(config_to_dict(config.task))
        return remote_worker.drive(source, config.remote, worker, policy, expert_weights=weights, headless=headless)
    from tasks.roles import dispatch

    return dispatch.run(role, config, RUNS)


def _command(argv: Sequence[str]) -> int:
    from algos.config.hydra_entry import compose_and_call, config_folders, plugin_words
    from algos.config.options import is_option, with_default_train
    from algos.run.checkpoint_words import with_checkpoint_files
    from algos.run.stored_config import with_stored_choices
    from tasks.plugins import load_plugins

    with _refusals():
        line = parse(argv)
    if "--help" in line.words:
        sys.stdout.write(help_text())
    elif line.role in ROLES_WITHOUT_CONFIGURATION:
        with _refusals():
            done = _without_configuration(line)
        sys.stdout.write(done + "\n")
        return 0
    with _refusals():
        typed = with_checkpoint_files(line.words, line.role)
        load_plugins(plugin_words(typed))
        folders = [CONFIG_DIR, *config_folders(typed)]
        register_options(folders)
        words = with_stored_choices(typed, lambda group, name: is_option(group, name, folders))
        words = with_default_train(words, folders)
    added = set(words) - set(typed)  # choices of files that were not typed

    def job(composed: DictConfig, words: Sequence[str]) -> None:
        run(composed, line.role, [word for word in words if word not in added])

    return compose_and_call(words, CONFIG_DIR, job)


def _without_configuration(line: CommandLine) -> str:
    """Every role that takes no key; returns what is printed."""
    if line.role is Role.import_tmrl:
        from algos.config.from_tmrl import import_file

        return import_file(line.files[0])
    from algos.run.folder import RUNS
    from tasks.roles.dispatch import run_without_configuration

    return run_without_configuration(line, RUNS)


def _start(params: dict[str, Any], role: Role) -> None:
    """Starts rl_games' Runner."""
    import algos.faces.registration
    from algos.faces.rl_games_parts import uncompiled
    from algos.run.checkpoint import CheckpointError
    from tasks.envs.foreign import WrongValueError
    from tasks.remote.access.dialing import RefusedError
    from tasks.remote.access.listener import ListenError
    from tasks.remote.launch.launch import WorkerRefused

    with uncompiled():
        from rl_games.torch_runner import Runner

        from tasks.registration import register_tasks

    config = params["config"]["run"]
    register_tasks()
    algos.faces.registration.log_prints()
    runner = Runner(make_observer(config.observers))
    algos.faces.registration.register(runner)
    runner.load({"params": params})
    try:
        runner.run({"train": role is Role.train, "play": role is Role.play, "checkpoint": config.checkpoint})
    except (CheckpointError, GameError, WrongValueError, WorkerRefused, ListenError, RefusedError) as error:
        raise UsageError(str(error)) from error


def _set_up_torch(params: dict[str, Any]) -> None:
    """Sets the number of threads and seeds every global generator: rl_games leaves them alone for seed 0."""
    import random

    import numpy as np
    import torch

    from algos.faces.runner_params import num_torch_threads

    num_threads = num_torch_threads(params)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    random.seed(params["seed"])
    np.random.seed(params["seed"])  # rl_games draws from it
    torch.manual_seed(params["seed"])


@contextlib.contextmanager
def _no_unused_folder(params: dict[str, Any], role: Role) -> Iterator[None]:
    """Takes a new run folder away when a training is interrupted or refused before it saved anything."""
    from algos.config.train_schema import TrainConfig
    from algos.run.folder import remove_unused

    config = params["config"]
    try:
        yield
    except (KeyboardInterrupt, UsageError):
        # Our agents save at Ctrl-C once they train; another's run without a checkpoint may still have logs to keep.
        run = config["run"]
        if role is Role.train and isinstance(run.train, TrainConfig):
            remove_unused(Path(config["train_dir"]) / config["full_experiment_name"], run.checkpoint)
        raise


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What is wrong with the user's values, files and words becomes the one message of the command."""
    try:
        yield
    except (ValueError, OSError, GameError) as error:
        raise UsageError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
