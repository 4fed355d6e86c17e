"""From TMRL's ``config.json`` to the words of our command line, so that an existing setup can be carried over.

    python -m algos.tmrl_config ~/TmrlData/config/config.json
    python train.py $(python -m algos.tmrl_config config.json)

What has no meaning here, or not yet, is named on standard error and left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from algos.train_entries import entry_name

TASKS = {
    "TM20FULL": "TM20Full",
    "TM20IMAGES": "TM20Full",
    "TM20LIDAR": "TM20Lidar",
    "TM20LIDARPROGRESS": "TM20LidarProgress",
}
"""Our tasks by ENV.RTGYM_INTERFACE."""

KINDS = {"SAC": "sac", "REDQSAC": "redq"}
"""Our algorithms by ALG.ALGORITHM."""

_PARAMS = "train.params.config"


def _same(value: Any) -> Any:
    return value


def _lower(value: Any) -> str:
    return str(value).lower()


def _device(is_cuda: Any) -> str:
    return "auto" if is_cuda else "cpu"


def _control(is_gamepad: Any) -> str:
    return "gamepad" if is_gamepad else "keyboard"


def _at_least_one(count: Any) -> int:
    return max(int(count), 1)


REDQ_KEYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "ALG.REDQ_N": (f"{_PARAMS}.redq_n", _same),
    "ALG.REDQ_M": (f"{_PARAMS}.redq_m", _same),
    "ALG.REDQ_Q_UPDATES_PER_POLICY_UPDATE": (f"{_PARAMS}.redq_q_updates_per_policy_update", _same),
}
"""As ``KEYS``, for REDQ only: TMRL's files may have them with SAC, which reads none of them."""

UNBOUNDED_TEMPERATURE = [f"{_PARAMS}.alpha_min=1e-08", f"{_PARAMS}.alpha_max=1000.0"]
"""TMRL holds a learned temperature in no bounds; ours would refuse its start values."""

KEYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "RUN_NAME": ("experiment", _same),
    "RW_MAX_SAMPLES_PER_EPISODE": ("task.rtgym.ep_max_length", _same),
    "CUDA_TRAINING": ("device", _device),
    "CUDA_INFERENCE": ("inference_device", _device),
    "VIRTUAL_GAMEPAD": ("task.control", _control),
    "NB_WORKERS": ("num_workers", _at_least_one),
    "WANDB_PROJECT": ("wandb.project", _same),
    "WANDB_ENTITY": ("wandb.entity", _same),
    "MAX_TRAINING_STEPS_PER_ENVIRONMENT_STEP": (f"{_PARAMS}.max_updates_per_env_step", _same),
    "ENVIRONMENT_STEPS_BEFORE_TRAINING": (f"{_PARAMS}.env_steps_before_training", _same),
    "UPDATE_MODEL_INTERVAL": (f"{_PARAMS}.update_model_interval", _same),
    "MEMORY_SIZE": (f"{_PARAMS}.memory_size", _same),
    "BATCH_SIZE": (f"{_PARAMS}.batch_size", _same),
    "DEBUG_MODE": ("debug.extra_metrics", _same),
    "ALG.LEARN_ENTROPY_COEF": (f"{_PARAMS}.learn_entropy_coef", _same),
    "ALG.ALPHA": (f"{_PARAMS}.alpha", _same),
    "ALG.TARGET_ENTROPY": (f"{_PARAMS}.target_entropy", _same),
    "ALG.LR_ACTOR": (f"{_PARAMS}.lr_actor", _same),
    "ALG.LR_CRITIC": (f"{_PARAMS}.lr_critic", _same),
    "ALG.LR_ENTROPY": (f"{_PARAMS}.lr_entropy", _same),
    "ALG.GAMMA": (f"{_PARAMS}.gamma", _same),
    "ALG.POLYAK": (f"{_PARAMS}.polyak", _same),
    "ALG.OPTIMIZER_ACTOR": (f"{_PARAMS}.optimizer_actor", _lower),
    "ALG.OPTIMIZER_CRITIC": (f"{_PARAMS}.optimizer_critic", _lower),
    "ALG.BETAS_ACTOR": (f"{_PARAMS}.betas_actor", _same),
    "ALG.BETAS_CRITIC": (f"{_PARAMS}.betas_critic", _same),
    "ALG.L2_ACTOR": (f"{_PARAMS}.l2_actor", _same),
    "ALG.L2_CRITIC": (f"{_PARAMS}.l2_critic", _same),
    "ENV.WINDOW_WIDTH": ("task.window_width", _same),
    "ENV.WINDOW_HEIGHT": ("task.window_height", _same),
    "ENV.IMG_WIDTH": ("task.img_width", _same),
    "ENV.IMG_HEIGHT": ("task.img_height", _same),
    "ENV.IMG_GRAYSCALE": ("task.img_grayscale", _same),
    "ENV.IMG_HIST_LEN": ("task.img_hist_len", _same),
    "ENV.SLEEP_TIME_AT_RESET": ("task.sleep_time_at_reset", _same),
}
"""Our key and the conversion of the value, by TMRL's entry."""


def hydra_words(config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Translates a ``config.json``.

    Args:
        config: Its content.

    Returns:
        The words for ``train.py``, and the names of the entries that were left out.

    Raises:
        ValueError: If the interface or the algorithm is not known.
    """
    entries = dict(_entries(config))
    kind = _kind(entries)
    words = _choices(entries, kind)
    left_out = []
    for name, value in entries.items():
        target = _target(name, kind)
        if target is None:
            left_out.append(name)
        else:
            words.append(f"{target[0]}={_written(target[1](value))}")
    return words, left_out


def main(argv: Sequence[str]) -> int:
    """Prints the words for one file."""
    if len(argv) != 1:
        sys.stderr.write("usage: python -m algos.tmrl_config CONFIG.JSON\n")
        return 2
    try:
        words, left_out = hydra_words(json.loads(Path(argv[0]).expanduser().read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"tmrl_config: {argv[0]}: {error}\n")
        return 2
    sys.stdout.write("\n".join(words) + "\n")
    if left_out:
        sys.stderr.write(f"left out: {', '.join(left_out)}\n")
    return 0


def _entries(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Entries by dotted name, without comments and secrets' values."""
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            found += [(f"{name}.{inner}", entry) for inner, entry in _entries(value)]
        elif not name.startswith("__"):
            found.append((name, value))
    return found


def _kind(entries: dict[str, Any]) -> str:
    algorithm = str(entries.pop("ALG.ALGORITHM", "SAC")).upper()
    if algorithm not in KINDS:
        raise ValueError(f"ALG.ALGORITHM must be one of {', '.join(KINDS)}, got {algorithm!r}")
    return KINDS[algorithm]


def _choices(entries: dict[str, Any], kind: str) -> list[str]:
    interface = str(entries.pop("ENV.RTGYM_INTERFACE", "TM20FULL")).upper()
    if interface not in TASKS:
        raise ValueError(f"ENV.RTGYM_INTERFACE must be one of {', '.join(TASKS)}, got {interface!r}")
    task = TASKS[interface]
    words = [f"task={task}", f"train={entry_name(task, kind)}"]
    if entries.pop("RESET_TRAINING", False):
        words.append("checkpoint_mode=replay")
    if entries.get("ALG.LEARN_ENTROPY_COEF", False):
        words += UNBOUNDED_TEMPERATURE
    return words


def _target(name: str, kind: str) -> tuple[str, Callable[[Any], Any]] | None:
    for group, key in (("ENV.RTGYM_CONFIG.", "task.rtgym"), ("ENV.REWARD_CONFIG.", "task.reward")):
        if name.startswith(group) and "." not in name.removeprefix(group):
            return f"{key}.{name.removeprefix(group)}", _same
    if name.endswith("interface_kwargs.save_replays"):
        return "task.save_replays", _same
    if kind == "redq" and name in REDQ_KEYS:
        return REDQ_KEYS[name]
    return KEYS.get(name)


def _written(value: Any) -> str:
    return json.dumps(value).replace(" ", "") if not isinstance(value, str) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
