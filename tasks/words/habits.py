"""Keys and flags of IsaacGymEnvs, rl_games and TMRL, with their counterparts here.

Only messages use them; none of them has an effect. ``tasks.words.command_line`` looks up flags,
``algos.config.errors`` keys. Standard library only.
"""

from __future__ import annotations

_PLAY = "--play --checkpoint FILE plays what was trained"
_DEVICES = "device is where the learner computes, inference_device where workers and players do"
_CPU = "the simulator runs on CPU cores, one per worker: num_workers"
_ENVS = "num_workers is the number of worker processes, train.params.config.num_actors that of PPO's environments"
_ONE_GPU = "one device learns, device=cuda:N; more experience comes from num_workers, or from remote workers"
_WANDB = "wandb.enabled=true, with wandb.project, wandb.entity and wandb.run_name"
_LIMITS = "training ends at max_env_steps; max_updates ends it at a number of updates"

KEYS = {
    "test": _PLAY,
    "play_only": _PLAY,
    "num_envs": _ENVS,
    "num_actors": _ENVS,
    "numEnvs": _ENVS,
    "max_iterations": _LIMITS,
    "max_epochs": _LIMITS,
    "total_timesteps": _LIMITS,
    "wandb_activate": _WANDB,
    "wandb_project": "wandb.project, with wandb.enabled=true",
    "wandb_entity": "wandb.entity, with wandb.enabled=true",
    "wandb_name": "wandb.run_name, with wandb.enabled=true",
    "wandb_group": _WANDB,
    "wandb_tags": _WANDB,
    "wandb_logcode_dir": _WANDB,
    "track": _WANDB + "; task.track is the road",
    "wandb_project_name": "wandb.project, with wandb.enabled=true",
    "multi_gpu": _ONE_GPU,
    "sim_device": f"{_CPU}; {_DEVICES}",
    "rl_device": _DEVICES,
    "graphics_device_id": _CPU,
    "pipeline": _CPU,
    "physics_engine": _CPU,
    "num_threads": "torch_threads is for the learner; " + _CPU,
    "num_subscenes": _CPU,
    "solver_type": _CPU,
    "capture_video": "play.video=true, the default, writes a video with --play; TensorBoard shows clips of evaluations",
    "capture_video_freq": "clips of evaluations come every train.params.config.evaluation_interval steps",
    "capture_video_len": "a video is the first episode that --play drives",
    "force_render": "nothing is rendered while it trains; --headless leaves out the live display",
    "experiment_name": "experiment",
    "full_experiment_name": "experiment",
    "torch_deterministic": "synchronous=true makes a run repeatable bit for bit",
    "sigma": "play.deterministic=false samples the policy's actions",
    "load_checkpoint": "checkpoint=FILE, or --checkpoint FILE",
    "load_path": "checkpoint=FILE, or --checkpoint FILE",
    "pbt": "--multirun trains one run for each combination of values",
}
"""What to type here, by a key that other projects have."""

FLAGS = {
    "--test": _PLAY,
    "--file": "train=NAME is a file of cfg/train; --config-dir DIR adds your own",
    "--train": "without a flag train.py trains",
    "--tf": "without a flag train.py trains",
    "--trainer": "without a flag train.py trains, with its own workers; remote.listen takes others",
    "--expert": "--worker worker.expert=true --checkpoint FILE",
    "--record-reward": "--record",
    "--check-environment": "--check",
    "--install": "--install-plugin; nothing else is to be installed",
    "--wandb": _WANDB,
    "--config": "KEY=VALUE words; --import-tmrl CONFIG.JSON makes them of TMRL's file",
}
"""What to type here, by a flag that other projects have."""


def flag_here(flag: str) -> str | None:
    """What to type instead of a flag of another project; None for one that is not known.

    Args:
        flag: With its dashes, without a value.
    """
    return FLAGS.get(flag) or KEYS.get(flag.lstrip("-").replace("-", "_"))


def key_here(key: str) -> str | None:
    """What to type instead of a key of another project; None for one that is not known.

    Args:
        key: Full name; the last part counts, and at the top ``task.env`` and ``task.sim`` of IsaacGymEnvs.
    """
    if key in ("task.env", "task.sim"):
        return f"IsaacGymEnvs' groups env and sim are no part of a task here; {_ENVS}"
    return KEYS.get(key.rpartition(".")[2])
