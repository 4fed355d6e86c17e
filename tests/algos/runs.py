"""Whole runs through rl_games' Runner on the toy task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from algos.config import NetworkConfig, SACConfig
from tasks.config import config_to_dict
from tests.algos.fakes import SPEC

TASK = "Toy"


def make_params(train_dir: Path, run: str = "run", **changes: Any) -> dict[str, Any]:
    """Params of a small synchronous SAC run; ``changes`` go to the SAC configuration or, where known, to the run."""
    run_keys = {"max_env_steps": 120, "synchronous": True, "checkpoint_mode": "resume", "inference_device": "cpu"}
    run_keys |= {key: changes.pop(key) for key in list(changes) if key in (*run_keys, "play", "synchronous_rows")}
    env_keys = {"num_workers": 1, "segment_rows": 8, "window": 4}
    env_keys |= {key: changes.pop(key) for key in list(changes) if key in env_keys}
    sac = {
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
    network = config_to_dict(NetworkConfig(hidden=[16, 16]))
    kwargs = {"spec": SPEC.to_json(), "network": network, "warm_up": "driving", "device": "cpu"}
    return {
        "seed": 0,
        "torch_threads": 0,
        "algo": {"name": "remote_sac"},
        "model": {"name": "remote_sac"},
        "network": {"name": "remote_sac", **network},
        "config": {
            "name": "toy",
            "full_experiment_name": run,
            "train_dir": str(train_dir),
            "env_name": TASK,
            "env_config": {
                "task": {"name": TASK, "track": "short", "game": "sim"},
                "policy": {"function": "algos.acting.policy:make_acting_policy", "kwargs": kwargs},
                "env": {"function": "tests.algos.fakes:make_toy_env", "kwargs": {}},
                "seed": 0,
                **env_keys,
            },
            "device": "cpu",
            "device_name": "cpu",
            "num_actors": 1,
            "reward_shaper": {},
            "torch_compile": False,
            "sac": config_to_dict(SACConfig(**(sac | changes))),
            "wandb": {"enabled": False},
            "full_config": {"task": {"name": TASK}, "seed": 0},
            **run_keys,
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
