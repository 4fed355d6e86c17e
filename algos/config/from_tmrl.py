"""Converts TMRL's ``config.json`` into arguments of our command line.

    python train.py --import-tmrl ~/TmrlData/config/config.json
    python train.py $(python train.py --import-tmrl config.json)

Standard error has the rest: what was left out, which arguments you must add, and what differs from TMRL.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from algos.config.options import base_name
from tasks.config import RewardConfig, RtgymConfig
from tasks.words.nested import leaves

TASKS = {
    "TM20FULL": "TM20Full",
    "TM20IMAGES": "TM20Full",
    "TM20LIDAR": "TM20Lidar",
    "TM20LIDARPROGRESS": "TM20LidarProgress",
}
"""Our tasks by ENV.RTGYM_INTERFACE."""

KINDS = {"SAC": "sac", "REDQSAC": "redq"}
"""Our algorithms by ALG.ALGORITHM."""

Converted = TypeVar("Converted")

_PARAMS = "train.params.config"
_NETWORK = "train.params.network"
_WORD = re.compile(r"[\w./@:+-]+")
"""A text that a shell passes on from $(...) unchanged."""
_UNLIMITED_STEPS = 1_000_000_000
_ALL_WORKERS = 4096
"""The most that remote.max_workers takes, for TMRL's -1."""
_STEPS_PER_UPDATE = 100
"""TMRL ends by updates alone; so many steps for each leave even a slow learner time to make them all."""


class Difference(NamedTuple):
    """What our training does in another way than TMRL's, whatever the file says."""

    word: str
    """Has TMRL's way, or what is nearest to it."""
    what: str
    tasks: tuple[str, ...] = tuple(TASKS.values())
    """Where the difference exists."""
    kinds: tuple[str, ...] = tuple(KINDS.values())
    """Where the difference exists."""


DIFFERENCES = (
    Difference(
        "task.reward.compat=tmrl", "progress counts beyond the furthest point so far, and creeping ends an episode"
    ),
    Difference(f"{_PARAMS}.n_step=1", "returns sum three rewards before the bootstrap", kinds=("sac",)),
    Difference(
        f"{_PARAMS}.lr_decay_updates=0",
        "learning rates fall to a tenth within train.params.config.lr_decay_updates",
        kinds=("sac",),
    ),
    Difference(
        f"{_NETWORK}.asymmetric_critic=false",
        "critics see the road ahead, and the policy learns to estimate it",
        kinds=("sac",),
    ),
    Difference(
        f"{_NETWORK}.encoder=mlp",
        "two layers more, which learn that estimate, read the LIDAR",
        tasks=("TM20Lidar", "TM20LidarProgress"),
        kinds=("sac",),
    ),
    Difference(f"{_NETWORK}.encoder=tmrl_cnn", "a smaller network reads the images", tasks=("TM20Full",)),
    Difference(f"{_NETWORK}.observation_normalization=tmrl", "observations are scaled field by field"),
    Difference(
        f"{_PARAMS}.warm_up=uniform", "a random policy acts before training begins; in TMRL the untrained network acts"
    ),
    Difference("task.randomization.rolling_starts=0", "half of the simulator's training episodes begin on the way"),
    Difference(f"{_PARAMS}.evaluation_interval=0", "regular evaluations choose best.pth"),
)
"""Each is documented where its key is, with the reason."""


@dataclass
class Conversion:
    """The result of converting a ``config.json``."""

    words: list[str] = field(default_factory=list)
    """For ``train.py``."""
    left_out: list[str] = field(default_factory=list)
    """Names of the entries without a word."""
    notes: list[str] = field(default_factory=list)
    """What is to be typed besides, and why."""


REDQ_KEYS = {
    "ALG.REDQ_N": f"{_PARAMS}.redq_n",
    "ALG.REDQ_M": f"{_PARAMS}.redq_m",
    "ALG.REDQ_Q_UPDATES_PER_POLICY_UPDATE": f"{_PARAMS}.redq_q_updates_per_policy_update",
}
"""As ``KEYS``, for REDQ only: TMRL's files may have them with SAC, which reads none of them."""

UNBOUNDED_TEMPERATURE = [f"{_PARAMS}.alpha_min=1e-08", f"{_PARAMS}.alpha_max=1000.0"]
"""TMRL has no bounds of a learned temperature; ours would refuse its start values."""

KEYS = {
    "RUN_NAME": "experiment",
    "CUDA_TRAINING": "device",
    "CUDA_INFERENCE": "inference_device",
    "VIRTUAL_GAMEPAD": "task.control",
    "MAX_TRAINING_STEPS_PER_ENVIRONMENT_STEP": f"{_PARAMS}.max_updates_per_env_step",
    "ENVIRONMENT_STEPS_BEFORE_TRAINING": f"{_PARAMS}.env_steps_before_training",
    "UPDATE_MODEL_INTERVAL": f"{_PARAMS}.update_model_interval",
    "MEMORY_SIZE": f"{_PARAMS}.memory_size",
    "BATCH_SIZE": f"{_PARAMS}.batch_size",
    "DEBUG_MODE": "debug.extra_metrics",
    "ALG.LEARN_ENTROPY_COEF": f"{_PARAMS}.learn_entropy_coef",
    "ALG.ALPHA": f"{_PARAMS}.alpha",
    "ALG.TARGET_ENTROPY": f"{_PARAMS}.target_entropy",
    "ALG.LR_ACTOR": f"{_PARAMS}.lr_actor",
    "ALG.LR_CRITIC": f"{_PARAMS}.lr_critic",
    "ALG.LR_ENTROPY": f"{_PARAMS}.lr_entropy",
    "ALG.GAMMA": f"{_PARAMS}.gamma",
    "ALG.POLYAK": f"{_PARAMS}.polyak",
    "ALG.OPTIMIZER_ACTOR": f"{_PARAMS}.optimizer_actor",
    "ALG.OPTIMIZER_CRITIC": f"{_PARAMS}.optimizer_critic",
    "ALG.BETAS_ACTOR": f"{_PARAMS}.betas_actor",
    "ALG.BETAS_CRITIC": f"{_PARAMS}.betas_critic",
    "ALG.L2_ACTOR": f"{_PARAMS}.l2_actor",
    "ALG.L2_CRITIC": f"{_PARAMS}.l2_critic",
    "ENV.WINDOW_WIDTH": "task.window_width",
    "ENV.WINDOW_HEIGHT": "task.window_height",
    "ENV.IMG_WIDTH": "task.img_width",
    "ENV.IMG_HEIGHT": "task.img_height",
    "ENV.IMG_GRAYSCALE": "task.img_grayscale",
    "ENV.IMG_HIST_LEN": "task.img_hist_len",
    "ENV.SLEEP_TIME_AT_RESET": "task.sleep_time_at_reset",
}
"""Our key by TMRL's entry."""

CONVERSIONS: dict[str, Callable[[Any], object]] = {
    "RUN_NAME": lambda name: re.sub(r"[^\w.+-]+", "_", str(name)),
    "CUDA_TRAINING": lambda is_cuda: "auto" if is_cuda else "cpu",
    "CUDA_INFERENCE": lambda is_cuda: "auto" if is_cuda else "cpu",
    "VIRTUAL_GAMEPAD": lambda is_gamepad: "gamepad" if is_gamepad else "keyboard",
    "ALG.OPTIMIZER_ACTOR": lambda name: str(name).lower(),
    "ALG.OPTIMIZER_CRITIC": lambda name: str(name).lower(),
    **dict.fromkeys(
        ("ENVIRONMENT_STEPS_BEFORE_TRAINING", "UPDATE_MODEL_INTERVAL", "MEMORY_SIZE", "BATCH_SIZE", *REDQ_KEYS), int
    ),
}
"""What becomes of the value, by TMRL's entry; the others stay as they are."""


def convert(config: Mapping[str, object]) -> Conversion:
    """Translates a ``config.json``.

    Args:
        config: Its content.

    Raises:
        ValueError: If the interface or the algorithm is not known, or a number is none.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"expected a config.json of TMRL, got a {type(config).__name__}")
    entries = {name: value for name, value in leaves(config) if not name.rpartition(".")[2].startswith("__")}
    made = Conversion()
    kind = _choice(entries, "ALG.ALGORITHM", "SAC", KINDS)
    task = _choice(entries, "ENV.RTGYM_INTERFACE", "TM20FULL", TASKS)
    made.words += [f"task={task}", f"train={task}{base_name(kind)}"]
    for take in (_take_episode_length, _take_updates, _take_idle, _take_ratio, _take_notes):
        take(entries, made)
    for name, value in entries.items():
        key = _target(name, kind)
        if key is None:
            made.left_out.append(name)
        else:
            conversion = CONVERSIONS.get(name)
            _add(made, name, key, value if conversion is None else _converted(name, value, conversion))
    made.notes += _differences(task, kind)
    return made


def import_file(path: str) -> str:
    """The arguments for one file, a line each; standard error gets the rest.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not TMRL's; the message names it.
    """
    try:
        made = convert(json.loads(Path(path).expanduser().read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    left_out = [f"left out: {', '.join(made.left_out)}"] if made.left_out else []
    sys.stderr.write("".join(f"{line}\n" for line in [*left_out, *made.notes]))
    return "\n".join(made.words)


def _choice(entries: dict[str, object], name: str, default: str, known: Mapping[str, str]) -> str:
    """Our name for one of TMRL's."""
    said = str(entries.pop(name, default)).upper()
    if said not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {said!r}")
    return known[said]


def _take_episode_length(entries: dict[str, object], made: Conversion) -> None:
    """Two limits there, one here: the lower."""
    names = ("RW_MAX_SAMPLES_PER_EPISODE", "ENV.RTGYM_CONFIG.ep_max_length")
    limits = [_converted(name, entries.pop(name), float) for name in names if entries.get(name) is not None]
    if limits:
        made.words.append(f"task.rtgym.ep_max_length={int(min(*limits, _UNLIMITED_STEPS))}")


def _take_updates(entries: dict[str, object], made: Conversion) -> None:
    """TMRL's end is a number of updates, in three factors."""
    names = ("MAX_EPOCHS", "ROUNDS_PER_EPOCH", "TRAINING_STEPS_PER_ROUND")
    if all(name in entries for name in names):
        updates = math.prod(_converted(name, entries.pop(name), int) for name in names)
        steps = math.ceil(updates * max(_STEPS_PER_UPDATE, 1 / _ratio(entries)))
        made.words += [f"max_updates={updates}", f"max_env_steps={steps}"]


def _take_idle(entries: dict[str, object], made: Conversion) -> None:
    """What does nothing beside another entry, there as here, where its key would be refused."""
    idle: dict[str, str] = {}
    for network in ("ACTOR", "CRITIC"):
        optimizer = str(entries.get(f"ALG.OPTIMIZER_{network}", "adam")).lower()
        if optimizer not in ("adam", "adamw"):
            idle[f"ALG.BETAS_{network}"] = f"{optimizer} has none"
    if not entries.get("ALG.LEARN_ENTROPY_COEF", True):
        idle |= dict.fromkeys(("ALG.LR_ENTROPY", "ALG.TARGET_ENTROPY"), "the temperature is not learned")
    elif "ALG.LEARN_ENTROPY_COEF" in entries:
        made.words += UNBOUNDED_TEMPERATURE
    if "task=TM20Full" not in made.words:
        idle |= dict.fromkeys(("ENV.IMG_WIDTH", "ENV.IMG_HEIGHT", "ENV.IMG_GRAYSCALE"), "LIDAR has no images")
    for name, why in idle.items():
        if name in entries:
            del entries[name]
            made.left_out.append(f"{name} ({why})")


def _take_ratio(entries: dict[str, object], made: Conversion) -> None:
    """TMRL has no lower bound on updates per step; ours must not be above the upper one."""
    if _ratio(entries) < 1.0:
        made.words.append(f"{_PARAMS}.min_updates_per_env_step=0")


def _ratio(entries: Mapping[str, object]) -> float:
    name = "MAX_TRAINING_STEPS_PER_ENVIRONMENT_STEP"
    ratio = _converted(name, entries.get(name, 1.0), float)
    if not ratio > 0:
        raise ValueError(f"{name} must be > 0, got {ratio}")
    return ratio


def _take_notes(entries: dict[str, object], made: Conversion) -> None:
    """What means something only beside a word that the file has not."""
    if entries.pop("RESET_TRAINING", False):
        made.notes.append(
            "RESET_TRAINING: for a new agent on the samples of an old run add --checkpoint RUN/nn/last.pth "
            "checkpoint_mode=replay"
        )
    if "NB_WORKERS" in entries:
        limit = _converted("NB_WORKERS", entries.pop("NB_WORKERS"), int)
        made.notes.append(
            "NB_WORKERS: where remote workers join, by remote.listen, add remote.max_workers="
            f"{limit if limit > 0 else _ALL_WORKERS}"
        )
    places = {key: entries.pop(f"WANDB_{key.upper()}", None) for key in ("project", "entity")}
    words = [_typed(f"wandb.{key}", str(place)) for key, place in places.items() if place]
    if words:
        made.notes.append(
            f"WANDB_PROJECT, WANDB_ENTITY: to send metrics there add wandb.enabled=true {' '.join(words)}"
        )


def _differences(task: str, kind: str) -> Iterator[str]:
    yield "differs from TMRL's training on purpose; the argument beside each restores TMRL's behaviour:"
    for difference in DIFFERENCES:
        if task in difference.tasks and kind in difference.kinds:
            yield f"  {difference.what}: {difference.word}"


def _target(name: str, kind: str) -> str | None:
    group, _, entry = name.rpartition(".")
    if group == "ENV.RTGYM_CONFIG" and entry in RtgymConfig.__dataclass_fields__:
        return f"task.rtgym.{entry}"
    if group == "ENV.REWARD_CONFIG" and entry in RewardConfig.__dataclass_fields__:
        return f"task.reward.{entry}"
    if name.endswith("interface_kwargs.save_replays"):
        return "task.save_replays"
    return (KEYS | REDQ_KEYS if kind == "redq" else KEYS).get(name)


def _converted(name: str, value: object, conversion: Callable[[Any], Converted]) -> Converted:
    try:
        return conversion(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be a number, got {value!r}") from error


def _add(made: Conversion, name: str, key: str, value: object) -> None:
    """Adds an argument; one that a shell would split, as it splits $(...), becomes a note."""
    if isinstance(value, str) and not _WORD.fullmatch(value):
        made.notes.append(f"{name}: type {_typed(key, value)} yourself")
    else:
        made.words.append(f"{key}={_written(value)}")


def _typed(key: str, text: str) -> str:
    """As a person types it into a shell."""
    return f"{key}={text if _WORD.fullmatch(text) else repr(json.dumps(text, ensure_ascii=False))}"


def _written(value: object) -> str:
    if isinstance(value, float) and math.isinf(value):
        return "inf"
    return json.dumps(value).replace(" ", "") if not isinstance(value, str) else value
