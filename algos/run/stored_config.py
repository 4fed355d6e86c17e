"""Starting from a checkpoint: its stored configuration, changed only by what was typed on this command line.

Works on plain data. ``train.py`` gives it the composed configuration (for the values of typed keys), the typed
overrides, and the stored configuration. It refuses changes of the shapes that the checkpoint was made for, of how its
histories begin, and of where it sees the road ahead.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from algos.config.algorithms import TRAIN_SCHEMAS
from algos.config.implied import PRIVILEGED, uses_more
from algos.config.options import base_name
from algos.config.overrides import GROUPS, is_choice, parsed, stored_choice, typed_keys
from algos.config.schema import marked_keys, nearest
from algos.run.tracker_log import TRACKERS
from tasks.words.keys import Belongs, Decides, Trained
from tasks.words.nested import leaves, value_at
from tasks.words.refusals import as_typed

_NAMES = ("train.params.algo.name", "train.params.model.name")
"""Of the algorithm."""
_logger = logging.getLogger(__name__)


def with_stored_choices(words: Sequence[str], is_option: Callable[[str, str], bool]) -> list[str]:
    """Adds ``task=`` and ``train=`` as stored in the checkpoint, so that keys are checked against the right schemas.

    Args:
        words: What was typed.
        is_option: Whether a group has an option; instead of one that it has not, the base of the algorithm is
            taken.

    Raises:
        ValueError: If the checkpoint is missing or damaged.
        UsageError: If the word cannot be read.
    """
    paths = [override.value() for override in parsed(words, "checkpoint") if not override.is_sweep_override()]
    if not paths or paths[-1] is None:
        return list(words)
    from algos.run.checkpoint import load_checkpoint

    stored = load_checkpoint(str(paths[-1])).config
    typed = {word.partition("=")[0] for word in words}
    choices = {group: stored_choice(stored, group) for group in GROUPS if group not in typed}
    known = {group: choice for group, choice in choices.items() if choice is not None and is_option(group, choice)}
    kind = value_at(stored, "train.kind")
    if "train" in choices and "train" not in known and isinstance(kind, str) and kind in TRAIN_SCHEMAS:
        known["train"] = base_name(kind)
    return [*(f"{group}={choice}" for group, choice in known.items()), *words]


def start_from(composed: Mapping[str, object], overrides: Sequence[str], *, is_playing: bool) -> dict[str, Any]:
    """The configuration of a command with a checkpoint: what is stored in the file, changed by what was typed.

    Args:
        composed: Plain data composed from the files of cfg; ``checkpoint`` names the file.
        overrides: The words typed.
        is_playing: Whether the checkpoint is only played.

    Raises:
        ValueError: If the file is missing, damaged or does not fit what was typed.
    """
    from algos.run.checkpoint import load_checkpoint

    path = str(composed["checkpoint"])
    checkpoint = load_checkpoint(path)
    if not checkpoint.algorithm_state and not is_playing and composed["checkpoint_mode"] != "weights":
        raise ValueError(
            f"checkpoint {path} has only what acts, as those of the zoo: play or export it, or begin a training with "
            "it (checkpoint_mode=weights); a training goes on from a last.pth or best.pth in a folder runs/<run>/nn"
        )
    stored = checkpoint.config
    config = merge_stored(stored, composed, overrides)
    if not checkpoint.algorithm_state:  # its run is not here, so a new one does not go by that name
        config["experiment"] = composed["experiment"]
    if is_playing:
        config |= {key: copy.deepcopy(composed[key]) for key in _keys_of(Belongs.learning)}
    else:
        _remind_of_trackers(stored, config, path)
    mode = None if is_playing else config["checkpoint_mode"]
    is_typed = PRIVILEGED in typed_keys(overrides) and value_at(config, PRIVILEGED) is not None
    if "privileged" in config["task"] and not is_typed:
        _set(config, PRIVILEGED, _privileged(stored, config, mode))
    refuse_shape_changes(stored, config, path, mode=mode)
    return config


def _privileged(stored: Mapping[str, object], config: Mapping[str, object], mode: str | None) -> object:
    """What ``task.privileged`` is where it was not typed, or as null; null: what this command needs."""
    captured = value_at(stored, PRIVILEGED)
    if mode in (None, "weights"):
        return None  # its critics, if any, are not those of the file
    if mode == "replay" and captured is None and uses_more(config):
        return False  # the stored rows have none
    return captured


def _remind_of_trackers(stored: Mapping[str, object], config: Mapping[str, Any], path: str) -> None:
    for package, tracker in TRACKERS.items():
        if value_at(stored, f"{package}.enabled") and not config[package]["enabled"]:
            word = f"{package}.enabled=true"
            _logger.warning(
                "the run of %s was recorded with %s; to record with yours, type %s", path, tracker.name, word
            )


def merge_stored(
    stored: Mapping[str, object], composed: Mapping[str, object], overrides: Sequence[str]
) -> dict[str, Any]:
    """The stored configuration with what was typed.

    Args:
        stored: Plain data from the checkpoint.
        composed: Plain data composed from the files of cfg and the same overrides; where typed values are read from.
        overrides: The words typed, as hydra reports them (``HydraConfig.overrides.task``).

    Raises:
        ValueError: If a word takes a key away, or the stored configuration has another form.
    """
    config = copy.deepcopy(dict(stored))
    for key in _keys_of(Belongs.command):
        if key in composed:
            config[key] = copy.deepcopy(composed[key])
    for key, value in composed.items():
        # A key that this program has and the one that wrote the file had not is this program's.
        given = config.setdefault(key, copy.deepcopy(value))
        if isinstance(value, Mapping) and not isinstance(given, Mapping):
            raise ValueError(f"{key} in the checkpoint must be a mapping, got {given!r}: the file is damaged")
    words = parsed(overrides)
    for word in words:
        if word.is_delete():
            raise ValueError(f"{word.input_line} takes a key away, which is not possible with a checkpoint")
    chosen = {word.key_or_group: str(word.value()) for word in words if is_choice(word)}
    for group in GROUPS:
        stored_name = stored_choice(stored, group)
        is_other = chosen.get(group, stored_name) != stored_name
        if is_other:
            config[group] = copy.deepcopy(composed[group])
        if is_other or stored_name != value_at(config, f"choices.{group}"):
            _set(config, f"choices.{group}", value_at(composed, f"choices.{group}"))
        if is_other and group == "train":
            config["max_env_steps"] = composed["max_env_steps"]  # of the new file, unless typed
    typed = list(typed_keys(overrides))
    if "task.game" in typed and "task.clock" not in typed:
        _set(config, "task.clock", "auto")  # the stored clock was resolved for the stored game
    for key in typed:
        key = _up_to_list(composed, key)
        _set(config, key, copy.deepcopy(value_at(composed, key)))
        if key.startswith("debug.") and value_at(config, f"train.params.config.{key}") is not None:
            _set(config, f"train.params.config.{key}", value_at(composed, key))  # as cfg/shared/off_policy.yaml says
    return config


def refuse_shape_changes(
    stored: Mapping[str, object],
    config: Mapping[str, object],
    checkpoint: str,
    *,
    mode: str | None,
) -> None:
    """Refuses a configuration whose observation, action or networks differ from those of the checkpoint.

    Args:
        stored: Plain data from the checkpoint.
        config: What is about to run.
        checkpoint: Path of the file, for the message.
        mode: The checkpoint_mode: resume takes all of the file, replay has networks of its own, weights takes what
            acts, for critics of its own and maybe another algorithm; None: the checkpoint is played.

    Raises:
        ValueError: Naming the key, its stored and its new value.
    """
    marks = marked_keys(Trained)
    checked = {Decides.observation, Decides.history, Decides.look_ahead}
    checked |= {Decides.critic_view} if mode in ("resume", "replay") else set()
    checked |= {Decides.networks} if mode != "replay" else set()
    checked |= {Decides.critics} if mode == "resume" else set()
    is_other_algorithm = mode == "weights" and value_at(stored, _NAMES[0]) != value_at(config, _NAMES[0])
    for key in _leaves_below(marks, stored, config):
        mark = nearest(marks, key)
        if mark is None or mark.what not in checked or (is_other_algorithm and key in _NAMES):
            continue
        old, new = (_value_or(mark.before, plain, key) for plain in (stored, config))
        if old != new:
            raise ValueError(
                f"{key}={as_typed(new)} would change {mark.what.value}: {checkpoint} was trained with "
                f"{as_typed(old)}; leave it at that, or train anew without a checkpoint"
            )


def _keys_of(whom: Belongs) -> list[str]:
    return [key for key, owner in marked_keys(Belongs).items() if owner is whom]


def _leaves_below(marks: Mapping[str, object], *configs: Mapping[str, object]) -> list[str]:
    """The keys that are marked, or what is below them in one of the configurations."""
    found: dict[str, None] = {}
    for key in marks:
        for section in (value_at(config, key) for config in configs):
            names = [name for name, _ in leaves(section, f"{key}.")] if isinstance(section, Mapping) else [key]
            found.update(dict.fromkeys(names))
    return list(found)


def _up_to_list(config: Mapping[str, object], key: str) -> str:
    """The key of the whole list when ``key`` names an entry of one (hidden.0)."""
    names = key.split(".")
    prefixes = [".".join(names[: count + 1]) for count in range(len(names))]
    return next((prefix for prefix in prefixes if isinstance(value_at(config, prefix), list)), key)


def _value_or(before: object, config: Mapping[str, object], key: str) -> object:
    value = value_at(config, key)
    return before if value is None else value


def _set(config: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for name in parents:
        config = config[name] if isinstance(config.get(name), dict) else config.setdefault(name, {})
    config[last] = value
