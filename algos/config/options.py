"""Options of ``task=`` and ``train=`` besides the files of ``cfg``: registered tasks, and bases of plugins' algorithms.

``train.py`` calls ``register_options`` before anything is composed. Standard library only, but for hydra at use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algos.config.algorithms import TRAIN_SCHEMAS
from algos.config.train_schema import OffPolicyTrainConfig

_PROVIDER = "registered"
"""How these are told from the schemas in hydra's ConfigStore."""


def register_options(folders: Sequence[Path], tasks: Mapping[str, Any]) -> None:
    """Stores an option for each registered task and algorithm without a file; what an earlier call stored goes.

    Args:
        folders: The folders of configuration files, ``cfg`` first.
        tasks: Dataclasses of the registered tasks with their defaults, by name.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    nodes = {("task", name): config for name, config in tasks.items()}
    nodes |= {("train", base_name(kind)): _base(kind) for kind in TRAIN_SCHEMAS}
    for group in ("task", "train"):
        stored = store.repo.get(group, {})
        for name in [name for name, node in stored.items() if getattr(node, "provider", None) == _PROVIDER]:
            del stored[name]
    for (group, name), node in nodes.items():
        if not _is_file(f"{group}/{name}", folders):  # hydra would take a node of the same name for its schema
            store.store(group=group, name=name, node=node, provider=_PROVIDER)


def is_option(group: str, name: str, folders: Sequence[Path]) -> bool:
    """Whether a file or a registered task or algorithm has this name.

    Args:
        group: ``task`` or ``train``.
        name: What may be typed for it.
        folders: The folders of configuration files.
    """
    from hydra.core.config_store import ConfigStore

    return _is_file(f"{group}/{name}", folders) or f"{name}.yaml" in ConfigStore.instance().repo.get(group, {})


def with_default_train(words: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Adds ``train=SAC`` for a task that has no ``train=<Task>SAC``, where nothing else is typed.

    Args:
        words: What was typed.
        folders: The folders of configuration files.
    """
    typed = dict(word.partition("=")[::2] for word in words)
    task = typed.get("task")
    if task is None or "train" in typed or is_option("train", f"{task}SAC", folders):
        return list(words)
    return [*words, "train=SAC"]


def base_name(kind: str) -> str:
    """``redq``: REDQ, the option of ``train=`` with the paper's settings; spelt like its schema."""
    return TRAIN_SCHEMAS[kind].__name__.removesuffix("TrainConfig")


def _base(kind: str) -> dict[str, Any]:
    """The base of an algorithm without its own file, such as a plugin's."""
    is_off_policy = issubclass(TRAIN_SCHEMAS[kind], OffPolicyTrainConfig)
    shared = ["/shared/off_policy@_here_"] if is_off_policy else []
    return {"defaults": [{"/schema/train@_here_": kind}, *shared, "_self_"]}


def _is_file(name: str, folders: Sequence[Path]) -> bool:
    return any((folder / f"{name}.yaml").is_file() for folder in folders)
