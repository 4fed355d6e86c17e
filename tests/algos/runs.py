"""Whole runs through rl_games' Runner on the toy task."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

from algos.config import NetworkConfig, SACConfig, WarmUp
from algos.config.schema import RunConfig
from algos.config.train_schema import AlgorithmName, OffPolicyParams, OffPolicyTrainConfig, TrainConfig
from tasks.config import config_to_dict
from tests.algos.fakes import SPEC

TASK = "Toy"
DRIVING: dict[str, Any] = {"n_step": 3, "alpha": 0.01, "learn_entropy_coef": False, "warm_up": WarmUp.driving}
"""Keys of a driving run: a fixed temperature and returns of three steps."""


def make_params(train_dir: Path, run: str = "run", **changes: Any) -> dict[str, Any]:
    """Params of a small synchronous SAC run; ``changes`` go to the SAC configuration or, where known, to the run."""
    run_keys: dict[str, Any] = {"max_env_steps": 120, "synchronous": True}
    known = (*run_keys, "checkpoint_mode", "play", "profile", "torch_threads")
    run_keys |= {key: changes.pop(key) for key in list(changes) if key in known}
    rows = changes.pop("synchronous_rows", 1)
    env_keys = {"num_workers": 1, "segment_rows": 8, "window": 4}
    env_keys |= {key: changes.pop(key) for key in list(changes) if key in env_keys}
    sac: dict[str, Any] = {
        "memory_size": 500,
        "batch_size": 16,
        "env_steps_before_training": 40,
        "min_updates_per_env_step": 1.0,
        "max_updates_per_env_step": 2.0,
        "update_model_interval": 5,
        "log_interval": 20,
        "evaluation_interval": 0,
        "evaluation_episodes": 2,
        "checkpoint_interval": 0,
    }
    network = NetworkConfig(hidden=[16, 16])
    sac_config = SACConfig(**(DRIVING | sac | changes))
    train = OffPolicyTrainConfig(
        kind="sac",
        params=OffPolicyParams(AlgorithmName("remote_sac"), AlgorithmName("remote_sac"), network, sac_config),
    )
    task = {"name": TASK, "track": "short", "game": "sim"}
    kwargs = {"spec": SPEC.to_json(), "network": config_to_dict(network), "warm_up": "driving", "device": "cpu"}
    return {
        "seed": 0,
        "torch_threads": 0,
        "algo": {"name": "remote_sac"},
        "model": {"name": "remote_sac"},
        "network": {"name": "remote_sac"},
        "config": {
            "name": "toy",
            "full_experiment_name": run,
            "train_dir": str(train_dir),
            "env_name": TASK,
            "env_config": {
                "task": task,
                "policy": {"function": "algos.acting.policy:make_acting_policy", "kwargs": kwargs},
                "env": {"function": "tests.algos.fakes:make_toy_env", "kwargs": {}},
                "seed": 0,
                **env_keys,
            },
            "device": "cpu",
            "device_name": "cpu",
            "inference_device": "cpu",
            "synchronous_rows": rows,
            "num_actors": 1,
            "reward_shaper": {},
            "torch_compile": False,
            "run": RunConfig(task=task, train=train, experiment="toy", num_workers=env_keys["num_workers"], **run_keys),
        },
    }


def make_runner(params: dict[str, Any], observer: Any = None) -> Any:
    """A Runner that knows the toy task and our algorithms."""
    from rl_games.torch_runner import Runner

    from algos.faces.registration import register
    from tasks.registration import register_tasks

    register_tasks([TASK])
    runner = Runner(observer)
    register(runner)
    runner.load({"params": params})
    return runner


def make_agent(params: dict[str, Any], observer: Any = None) -> Any:
    """The agent, not yet training."""
    runner = make_runner(params, observer)
    return runner.algo_factory.create(runner.algo_name, base_name="run", params=runner.params)


def record_losses(agent: Any) -> list[tuple[int, float]]:
    """(update, critic loss) of every update from now on."""
    losses: list[tuple[int, float]] = []
    original = agent.algorithm.update

    def update(batch: Any) -> Any:
        metrics = original(batch)
        losses.append((agent.algorithm.num_updates, float(metrics["losses/critic"])))
        return metrics

    agent.algorithm.update = update
    return losses


def section_types(schema: type[TrainConfig]) -> dict[str, type]:
    """The dataclasses of ``params.network`` and ``params.config``."""
    params = typing.get_type_hints(schema)["params"]
    hints = typing.get_type_hints(params)
    return {name: hints[name] for name in ("network", "config")}
