"""The options of ``train=``: one entry ``<Task><Algorithm>`` for every task and algorithm, put together from layers.

A layer is a folder of ``cfg/train`` whose files state differences only. For the algorithm ``redq`` of the family
``off_policy``, an entry is the base ``base/redq.yaml`` and then, of each layer of its task, ``off_policy.yaml`` and
``redq.yaml`` where they exist. The layers of a task are its traits (``tasks.registry.traits``), general ones first, and
the folder of its own name. A file ``cfg/train/<Task><Algorithm>.yaml``, or one in a folder of the user's, takes the
place of the entry of that name. A registered task without a file in ``cfg/task`` becomes an option of ``task=`` here.

``train.py`` calls ``register_entries`` before anything is composed. Standard library only, but for hydra at use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algos.config.train_schema import TRAIN_SCHEMAS, OffPolicyTrainConfig

_PROVIDER = "generated"
"""How the entries are told from the schemas in hydra's ConfigStore."""


@dataclass(frozen=True)
class TaskOption:
    """A registered task."""

    traits: tuple[str, ...]
    """Folders of ``cfg/train`` that suit it, general ones first, without its own."""
    config: Any
    """Its dataclass with the defaults."""


def register_entries(folders: Sequence[Path], tasks: Mapping[str, TaskOption]) -> None:
    """Stores what no file says: registered tasks, bases and entries. What an earlier call stored goes.

    Args:
        folders: The folders of configuration files, ``cfg`` first.
        tasks: The registered tasks by name.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    options = {("task", name): task.config for name, task in tasks.items()}
    for kind in TRAIN_SCHEMAS:
        options["train/base", kind] = _base(kind)
        for name, traits in _choices(folders, tasks).items():
            options["train", entry_name(name, kind)] = entry(kind, [*traits, name], folders)
    for group in ("task", "train", "train/base"):
        _forget(store.repo, group)
    for (group, name), node in options.items():
        if not _is_file(f"{group}/{name}", folders):  # hydra would take an entry of the same name for its schema
            store.store(group=group, name=name, node=node, provider=_PROVIDER)


def is_option(group: str, name: str, folders: Sequence[Path]) -> bool:
    """Whether a file or a stored entry of this name exists.

    Args:
        group: ``task`` or ``train``.
        name: What may be typed for it.
        folders: The folders of configuration files.
    """
    from hydra.core.config_store import ConfigStore

    return _is_file(f"{group}/{name}", folders) or f"{name}.yaml" in ConfigStore.instance().repo.get(group, {})


def entry_name(task: str, kind: str) -> str:
    """``TM20Lidar`` and ``redq``: TM20LidarREDQ. The algorithm is spelt as in the name of its schema."""
    return task + TRAIN_SCHEMAS[kind].__name__.removesuffix("TrainConfig")


def made_for(task: str) -> list[str]:
    """The entries of a task."""
    return [entry_name(task, kind) for kind in TRAIN_SCHEMAS]


def entry(kind: str, layers: Iterable[str], folders: Sequence[Path]) -> dict[str, Any]:
    """One entry as hydra reads it: a list of files, later ones go before earlier ones.

    Args:
        kind: The algorithm, ``train.kind``.
        layers: Folders of ``cfg/train``, general ones first.
        folders: The folders of configuration files.
    """
    files = [f"{layer}/{name}" for layer in layers for name in dict.fromkeys((_family(kind), kind))]
    found = [file for file in files if _is_file(f"train/{file}", folders)]
    return {"defaults": [f"{file}@_here_" for file in (f"base/{kind}", *found)]}


def _base(kind: str) -> dict[str, Any]:
    """The base of an algorithm without a file of its own, such as a plugin's."""
    shared = ["off_policy"] if _family(kind) == "off_policy" else []
    return {"defaults": [{"/schema/train@_here_": kind}, *shared, "_self_"]}


def _family(kind: str) -> str:
    """Name of the file of a layer that holds for the algorithm and its siblings."""
    return "off_policy" if issubclass(TRAIN_SCHEMAS[kind], OffPolicyTrainConfig) else kind


def _choices(folders: Sequence[Path], tasks: Mapping[str, TaskOption]) -> dict[str, tuple[str, ...]]:
    """All options of ``task=`` with their traits; a file has those of the registered task that it names."""
    found = {name: task.traits for name, task in tasks.items()}
    for file in (file for folder in folders for file in sorted((folder / "task").glob("*.yaml"))):
        named = re.search(r"^name: *(\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        task = tasks.get(named[1] if named else file.stem)
        found.setdefault(file.stem, task.traits if task else ())
    return found


def _is_file(name: str, folders: Sequence[Path]) -> bool:
    return any((folder / f"{name}.yaml").is_file() for folder in folders)


def _forget(repo: dict[str, Any], group: str) -> None:
    for part in group.split("/"):
        repo = repo.get(part, {})
    for name, node in list(repo.items()):
        if getattr(node, "provider", None) == _PROVIDER:
            del repo[name]
