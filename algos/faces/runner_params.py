"""From a checked configuration to the ``params`` that rl_games' Runner takes.

Called by ``train.py`` once everything ``auto`` is resolved. Also says whether a train YAML fits a task. The layout, of
which rl_games, which copies it, reads all but ``run``::

    params:
      seed: 0
      torch_threads: 0                 # keeps rl_games from changing torch's thread count
      algo: {name: remote_sac}
      model: {name: remote_sac}
      network: {name: remote_sac}      # with PPO: rl_games' description of it (algos/config/ppo.py)
      config:
        name: TM20FullSAC              # the experiment
        full_experiment_name: TM20FullSAC_2025-01-31_12-00-00   # the run folder below train_dir
        train_dir: runs
        env_name: TM20Full             # the task, as registered in rl_games' env_configurations
        env_config: {...}              # keyword arguments of RemoteVecEnv; plain data, as worker processes get them
        device: cpu                    # resolved: cpu or cuda:N; device_name is the same for rl_games' players
        device_name: cpu
        inference_device: cpu
        num_actors: 1
        reward_shaper: {}
        torch_compile: false
        run: RunConfig(...)            # the whole configuration, for our agents and players
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from algos.config import ENCODERS, DAggerConfig, EncoderKind, OffPolicyConfig, ReplayLearnerConfig, check_combination
from algos.config.algorithms import TRAIN_SCHEMAS, algorithms, networks, policy_function
from algos.config.options import base_name
from algos.config.ppo import ppo_params
from algos.config.remote_keys import check_remote
from algos.config.schema import CheckpointMode, Rules, RunConfig, algorithm_name
from algos.config.stock_params import check_stock, is_ppo, max_env_steps, stock_parts
from algos.config.train_schema import RL_GAMES_ALGORITHMS, OffPolicyTrainConfig, PPOTrainConfig
from algos.faces.role_task import can_show_more
from algos.run.observers import observer_classes
from tasks import registry
from tasks.config import GymConfig, TaskConfig, config_to_dict
from tasks.experience.observation import ObservationSpec
from tasks.words.nested import leaves

CARS_PER_WORKER = 16
"""Of the simulator, where ``worker.envs_per_worker`` is auto."""
_OF_THE_COMMAND = re.compile(r"\.env_config\.(plugins|remote|launcher|ray)(?:\.|$)")
"""What a train YAML without a kind could tell the vecenv past the keys of the command."""


def check(config: RunConfig, spec: ObservationSpec, train_files: list[str], *, is_playing: bool = False) -> None:
    """Refuses combinations that cannot work, or not on this machine, before anything starts.

    Args:
        config: The configuration.
        spec: What the task observes.
        train_files: All options of train=, to name those that fit.
        is_playing: Whether nothing is learned.

    Raises:
        ValueError: Naming the keys and the alternatives.
    """
    _check_algorithm(config)
    check_remote(config, "play" if is_playing else "train")
    if not is_playing:
        _check_clock(config)
        _check_single_game(config)
        _check_max_updates(config)
        _check_profile(config)
    _check_fit(config, spec, train_files)
    _check_network_name(config)
    if not is_playing:
        _check_look_ahead(config, spec)
    if isinstance(config.train, Mapping):
        check_stock(config, resolve_device("device", config.device))
    _check_replay(config)
    if is_playing and config.play.rules is Rules.league and not isinstance(config.task, TaskConfig):
        raise ValueError(f"play.rules=league scores laps of TrackMania, got task {config.task.name!r}: leave it out")
    observer_classes(config.observers)
    for package, section in (("wandb", config.wandb), ("trackio", config.trackio)):
        if section.enabled and importlib.util.find_spec(package) is None:
            raise ValueError(f"{package}.enabled=true needs the package {package}: pip install '.[{package}]'")
    for key in ("device", "inference_device"):
        resolve_device(key, getattr(config, key))
    if isinstance(config.train, OffPolicyTrainConfig):
        import torch

        from algos.acting.policy import build_policy
        from algos.algorithms.replay_device import chosen_replay_device
        from algos.algorithms.update_modes import chosen_mode
        from algos.networks import chosen_precision
        from algos.replay.transforms import replay_transforms

        _check_combination(config.train)
        if not is_playing:
            _check_privileged(config, spec)
            device = torch.device(resolve_device("device", config.device))
            chosen_precision(config.train.params.config.precision, device)
            chosen_mode(config.train.params.config.update_mode, device)
            chosen_replay_device(config.train.params.config, spec, device)
            replay_transforms(config.train.params.config.replay_transforms)
            _check_teacher(config.train.params.config, spec)
        # Builds the network once, so that an image too small for it is refused here.
        build_policy(worker_policy(config.train, spec, "cpu"), config.seed)


def resolve_device(key: str, value: str) -> str:
    """Turns ``auto`` into cuda:0 when there is one, else cpu.

    Args:
        key: Name of the key, for the message.
        value: auto, cpu, cuda or cuda:N.

    Raises:
        ValueError: If this machine has no such device.
    """
    import torch

    count = torch.cuda.device_count() if value != "cpu" and torch.cuda.is_available() else 0
    if value == "auto":
        return "cuda:0" if count else "cpu"
    if value == "cpu":
        return "cpu"
    index = int(value.partition(":")[2] or 0)
    if index >= count:
        raise ValueError(f"{key}={value}: this machine has {count} CUDA devices that torch can use; take cpu or auto")
    return f"cuda:{index}"


def resolve(config: RunConfig) -> RunConfig:
    """A copy with numbers where ``max_env_steps`` and ``worker.envs_per_worker`` say auto."""
    worker = replace(config.worker, envs_per_worker=_envs_per_worker(config))
    if config.max_env_steps != "auto":
        return replace(config, worker=worker)
    train = config.train if isinstance(config.train, Mapping) else config_to_dict(config.train)
    steps = max_env_steps(train)
    assert steps is not None  # checked
    return replace(config, max_env_steps=steps, worker=worker)


def _envs_per_worker(config: RunConfig) -> int:
    """Where experience is cheap and used little, that of many cars is more varied; else one car is enough."""
    if config.worker.envs_per_worker != "auto" or not isinstance(config.train, OffPolicyTrainConfig):
        return config.worker.num_envs
    is_used_little = config.train.params.config.min_updates_per_env_step < 1.0
    acts_alone = config.num_workers > 0 and not config.synchronous
    return CARS_PER_WORKER if is_used_little and acts_alone and registry.batch_class(config.task) is not None else 1


def runner_params(
    config: RunConfig, spec: ObservationSpec, run_folder: Path, worker_words: Sequence[str] = ()
) -> dict[str, Any]:
    """The ``params`` for ``Runner.load({"params": ...})``: rl_games' own keys, and ``config["run"]`` for ours.

    Args:
        config: The checked configuration, game and steps resolved; it is stored in every checkpoint as it is.
        spec: What the task observes.
        run_folder: Folder of the run.
        worker_words: Words of the configuration for the command of a remote worker (``algos.config.worker_words``).
    """
    run = _run_keys(config, run_folder)
    run["env_config"]["worker_words"] = list(worker_words)
    if isinstance(config.train, OffPolicyTrainConfig):
        num_envs = max(config.num_workers * config.worker.num_envs, 1)
        parts = _off_policy_parts(config.train, spec, run["inference_device"], num_envs)
    elif isinstance(config.train, PPOTrainConfig):
        parts = _ppo_parts(config.train)
    else:
        parts = stock_parts(config.train, int(config.max_env_steps))
    env_config = {**run.pop("env_config"), **parts["config"].pop("env_config", {})}
    return {
        "seed": config.seed,
        "torch_threads": 0,  # set by train.py; 0 keeps rl_games from changing it
        "algo": parts["algo"],
        "model": parts["model"],
        "network": parts["network"],
        "config": {"name": config.experiment, **parts["config"], **run, "env_config": env_config},
    }


def num_torch_threads(params: Mapping[str, Any]) -> int | None:
    """Threads for torch in the learner; None: torch's own number.

    On the CPU one thread is the default: small networks gain little from more, and workers need the cores. Where they
    leave some, ``algos.learning.threads`` compares.
    """
    asked = params["config"]["run"].torch_threads
    if asked != "auto":
        return int(asked)
    return 1 if params["config"]["device"] == "cpu" else None


def _check_algorithm(config: RunConfig) -> None:
    train = config.train if isinstance(config.train, Mapping) else config_to_dict(config.train)
    name, known = algorithm_name(train), (*algorithms(), *RL_GAMES_ALGORITHMS)
    if name not in known:
        raise ValueError(f"train.params.algo.name must be one of {', '.join(known)}, got {name!r}")
    for key, _ in leaves(train, "train."):
        found = _OF_THE_COMMAND.search(key)
        if found is not None:
            raise ValueError(f"{key} cannot be set in a file: remove it and type {found[1]}=...")
    if config.max_env_steps == "auto" and max_env_steps(train) is None:
        raise ValueError(f"max_env_steps must be given: train={config.choices.train} has no train.max_env_steps")


def _check_clock(config: RunConfig) -> None:
    """Refuses to learn between two steps of real time."""
    if config.synchronous and config.task.is_real_time:
        key, other = "task.clock=wall", " or task.clock=virtual"
        if isinstance(config.task, GymConfig):
            key, other = "task.real_time=true", ""
        raise ValueError(
            f"synchronous must be false with {key}, got true: acting and learning in one process would stall the "
            f"real-time loop; set synchronous=false{other}"
        )


def _check_single_game(config: RunConfig) -> None:
    """Refuses more than one environment on the live game."""
    if not config.task.is_live:
        return
    if config.num_workers > 1:
        raise ValueError(
            f"num_workers must be 1 with the live game (task.game=live), got {config.num_workers}: there is one game "
            "on this machine; set num_workers=1, or drive several simulators with task.game=sim"
        )
    num_actors = _num_actors(config.train)
    if num_actors > 1:
        raise ValueError(
            f"train.params.config.num_actors must be 1 with the live game (task.game=live), got {num_actors}: there is "
            "one game on this machine; set train.params.config.num_actors=1 and give horizon_length the steps that the "
            "actors made together, or drive several simulators with task.game=sim"
        )


def _check_max_updates(config: RunConfig) -> None:
    """Refuses a limit in updates if the algorithm counts none, or if a new run cannot reach it."""
    if config.max_updates is None:
        return
    if not isinstance(config.train, OffPolicyTrainConfig):
        raise ValueError(
            f"max_updates must be null with train={config.choices.train}, got {config.max_updates}: only SAC and its "
            "variants count updates; max_env_steps ends the training"
        )
    sac, steps = config.train.params.config, resolve(config).max_env_steps
    is_exact = config.synchronous and sac.min_updates_per_env_step > 0
    ratio = sac.min_updates_per_env_step if is_exact else sac.max_updates_per_env_step
    if config.checkpoint is None and config.max_updates > ratio * int(steps):
        raise ValueError(
            f"max_updates={config.max_updates} would never be reached: max_env_steps={steps} ends the training after "
            f"{ratio * int(steps):.0f} updates or fewer, {ratio:g} for each step; raise max_env_steps to at least "
            f"{math.ceil(config.max_updates / ratio)}, or leave max_updates out"
        )


def _check_profile(config: RunConfig) -> None:
    """Refuses a trace of updates that our learner does not make."""
    if config.profile and not isinstance(config.train, OffPolicyTrainConfig):
        raise ValueError(
            f"profile must be false with train={config.choices.train}, got true: only SAC and its variants have a trace"
        )


def _num_actors(train: OffPolicyTrainConfig | PPOTrainConfig | Mapping[str, Any]) -> int:
    if isinstance(train, PPOTrainConfig):
        return train.params.config.num_actors
    if isinstance(train, OffPolicyTrainConfig):
        return 1
    return int(train["params"].get("config", {}).get("num_actors", 1))


def _check_fit(config: RunConfig, spec: ObservationSpec, train_files: list[str]) -> None:
    """Refuses a train YAML whose encoder cannot read what the task observes."""
    if not isinstance(config.train, OffPolicyTrainConfig | PPOTrainConfig):
        return
    encoder = config.train.params.network.encoder
    images = [field.name for field in spec.visible.fields if field.dtype == "uint8" and len(field.shape) >= 2]
    reads_images = ENCODERS[encoder].reads_images
    if reads_images == bool(images):
        return
    what = f"has images ({', '.join(images)})" if images else "has no images"
    reads = "needs one" if reads_images else "reads none"
    suits = EncoderKind.compact_cnn if images else EncoderKind.mlp
    advice = f"set train.params.network.encoder={suits.name}"
    task = config.choices.task
    fitting = [f"train={task}{base}" for base in map(base_name, TRAIN_SCHEMAS) if f"{task}{base}" in train_files]
    if fitting and not config.choices.train.startswith(task):
        advice += f", or take what is made for it: {', '.join(fitting)}"
    raise ValueError(
        f"train={config.choices.train} does not fit task={config.choices.task}: the observation of {config.task.name} "
        f"{what}, but train.params.network.encoder is {encoder}, which {reads}; {advice}"
    )


def _check_network_name(config: RunConfig) -> None:
    """Refuses a network builder for PPO that no plugin has registered."""
    if not isinstance(config.train, PPOTrainConfig):
        return
    name, known = config.train.params.network.name, tuple(networks())
    if name is not None and name not in known:
        raise ValueError(
            f"train.params.network.name must be null or one of {', '.join(known)}, got {name!r}; "
            "a file of plugins=[FILE.py] registers more by algos.config.algorithms.add_network"
        )


def _check_combination(train: OffPolicyTrainConfig) -> None:
    """Refuses keys of the network that do not go with the algorithm, or with each other."""
    try:
        check_combination(train.params.network, train.params.config)
    except ValueError as error:
        raise ValueError(f"train.params.{error}") from error


def _check_privileged(config: RunConfig, spec: ObservationSpec) -> None:
    """Refuses an asymmetric critic where nothing is captured for it."""
    assert isinstance(config.train, OffPolicyTrainConfig)
    if not config.train.params.network.asymmetric_critic or spec.privileged_fields:
        return
    if config.task.name == "TM20Track":
        advice = "its policy sees all there is"
    elif can_show_more(config.task) and config.checkpoint_mode is CheckpointMode.replay:
        advice = f"the replay of {config.checkpoint} has none: set it to false"
    elif can_show_more(config.task):
        advice = "leave task.privileged out, or set it to true"
    else:
        advice = (
            f"set it to false, or mark fields of the observation of {config.task.name} as privileged "
            "(docs/algorithms/asymmetric.md)"
        )
    raise ValueError(
        "train.params.network.asymmetric_critic must be false when the observation has no privileged fields, got true; "
        + advice
    )


def _check_look_ahead(config: RunConfig, spec: ObservationSpec) -> None:
    """Refuses points of the road ahead in another place where nothing sees them; a checkpoint brings its own."""
    task = config.task
    if not isinstance(task, TaskConfig) or task.look_ahead_exponent == 1 or config.checkpoint is not None:
        return
    if all(field.name != "path_ahead" for field in spec.all_fields()):
        raise ValueError(
            f"task.look_ahead_exponent must be 1 when neither policy nor critic sees the road ahead, got "
            f"{task.look_ahead_exponent}; leave it out, or set task.privileged=true where critics can see more"
        )


def _check_teacher(config: ReplayLearnerConfig, spec: ObservationSpec) -> None:
    """Refuses a teacher that cannot be imitated on this task."""
    if isinstance(config, DAggerConfig):
        from algos.faces.teacher import load_teacher

        load_teacher(config, spec)


def _check_replay(config: RunConfig) -> None:
    """Refuses to start from what is not there: a checkpoint, or the stored replay of one."""
    if config.checkpoint is None and config.checkpoint_mode is not CheckpointMode.resume:
        raise ValueError(
            f"checkpoint_mode={config.checkpoint_mode.name} does nothing without a checkpoint: add --checkpoint FILE, "
            "or leave it out"
        )
    if config.checkpoint_mode is not CheckpointMode.replay:
        return
    if is_ppo(config.train):
        raise ValueError("checkpoint_mode must be resume or weights with PPO, which has no replay, got 'replay'")
    if isinstance(config.train, OffPolicyTrainConfig) and not config.train.params.config.save_replay:
        raise ValueError("train.params.config.save_replay must be true with checkpoint_mode=replay, got false")


def worker_policy(train: OffPolicyTrainConfig, spec: ObservationSpec, inference_device: str) -> dict[str, Any]:
    """What makes the policy of a worker, here or elsewhere: {function, kwargs}. It knows of no privileged field."""
    config = train.params.config
    kwargs: dict[str, Any] = {
        "spec": spec.visible.to_json(),
        "network": config_to_dict(train.params.network),
        "warm_up": config.warm_up.name,
        "device": inference_device,
    }
    if isinstance(config, OffPolicyConfig) and config.held_pedals:  # a policy of the user's need not know of it
        kwargs["held_pedals"] = config.held_pedals
    return {"function": policy_function(train.params.algo.name), "kwargs": kwargs}


def _off_policy_parts(
    train: OffPolicyTrainConfig, spec: ObservationSpec, inference_device: str, num_envs: int
) -> dict[str, Any]:
    name = {"name": train.params.algo.name}
    return {
        "algo": name,
        "model": {"name": train.params.model.name},
        "network": name,
        "config": {
            "num_actors": num_envs,
            "reward_shaper": {},
            "torch_compile": False,
            "env_config": {
                "policy": worker_policy(train, spec, inference_device),
                "check_samples": train.params.config.debug.check_samples,
            },
        },
    }


def _ppo_parts(train: PPOTrainConfig) -> dict[str, Any]:
    params = ppo_params(train.params.config, train.params.network)
    params["config"]["env_config"] = {"policy": None, "observation": params["config"]["observation"]}
    return {"algo": {"name": train.params.algo.name}, **params}


def _run_keys(config: RunConfig, run_folder: Path) -> dict[str, Any]:
    device = resolve_device("device", config.device)
    return {
        "full_experiment_name": run_folder.name,
        "train_dir": str(run_folder.parent),
        "env_name": config.task.name,
        "env_config": {
            "task": config_to_dict(config.task),
            "num_workers": config.num_workers,
            "seed": config.seed,
            "plugins": list(config.plugins),
            "remote": config.remote,
            "launcher": config.launcher.name,
            "ray": config.ray,
            **config_to_dict(config.link),
        },
        "device": device,
        "device_name": device,
        "inference_device": resolve_device("inference_device", config.inference_device),
        "run": config,
    }
