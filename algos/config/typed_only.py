"""Settings that are accepted from the command line only: names of code, settings of hydra, plugins, W&B, Trackio.

A checkpoint, the ``config.yaml`` of a run folder and a file of ``--config-dir`` may come from somebody else, so they
may contain only values: registered names, numbers, texts. ``train.py`` calls this before a configuration is used,
``algos.config.hydra_entry`` before hydra reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algos.config.errors import UsageError
from algos.config.overrides import typed_keys
from algos.config.worker_words import written
from tasks.words.nested import leaves

if TYPE_CHECKING:
    from hydra.plugins.config_source import ConfigResult

SECTIONS = ("hydra", "plugins", "wandb", "trackio")
"""Keys of which a file of another folder than ``cfg`` may only say what ``cfg`` says: hydra's name classes, files to
write and variables of the environment."""

_CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.-]*")
"""``module:attribute``, and ``module:Env-v0`` of Gymnasium."""
_TEACHER = "train.params.config.teacher"
"""A checkpoint, which zoo:NAME may name."""
_PLACE = re.compile(rf"(?:^|[\s/@.])(?:{'|'.join(SECTIONS)})(?:[/.@]|$)")
"""A package or an entry of a defaults list that puts something into one of the sections."""


def refuse_names_of_code(config: Mapping[str, object], words: Sequence[str], origin: str) -> None:
    """Refuses a "module:attribute" that comes from a file.

    Args:
        config: The whole configuration, plain data.
        words: The words typed, as hydra reports them.
        origin: The checkpoint, or "a configuration file".

    Raises:
        ValueError: Naming the key, and the word with which it is allowed.
    """
    typed = [f"{key}." for key in typed_keys(words)]
    for key, value in leaves(config):
        code = next((text for text in _texts(value) if _CODE.fullmatch(text) and key != _TEACHER), None)
        if code is not None and not any(f"{key}.".startswith(prefix) for prefix in typed):
            raise ValueError(
                f"{key} names code to run, {code!r}, and comes from {origin}: files may contain values only; "
                f"if you trust that code, type {key}={written(value)}"
            )


def check_files(own: Path) -> None:
    """From now on hydra refuses files of other folders than ``own`` that say what only typed words may say.

    Args:
        own: The folder ``cfg`` of this program.
    """
    from hydra._internal.core_plugins.file_config_source import FileConfigSource
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    class CheckedSource(FileConfigSource):
        """Reads YAML files."""

        def load_config(self, config_path: str) -> ConfigResult:
            """Reads one, and refuses it where it says too much."""
            found = super().load_config(config_path)
            file = (Path(self.path) / config_path).resolve()
            if not file.is_relative_to(own):
                _refuse(found, file, config_path, own)
            return found

    Plugins.instance()  # registers hydra's own sources, once
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = CheckedSource


def _refuse(found: ConfigResult, file: Path, name: str, own: Path) -> None:
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(found.config)
    content = content if isinstance(content, Mapping) else {}
    ours = _ours(own)
    said = [key for key in SECTIONS if key in content and not _is_part(content[key], ours[key])]
    entries = [_place(entry) for entry in content.get("defaults") or () if entry not in ours["defaults"]]
    said += [place for place in (name, found.header.get("package") or "", *entries) if _PLACE.search(place)]
    if said:
        raise UsageError(
            f"{file.with_suffix('.yaml')} sets {said[0]}: settings of {', '.join(SECTIONS)} are accepted on the "
            "command line only, since a file may come from somebody else; remove it from the file and type it"
        )


def _ours(own: Path) -> dict[str, Any]:
    """What the files of this program say of the sections, and their list of defaults."""
    import yaml

    from algos.config.schema import TrackioConfig, WandbConfig

    content = yaml.safe_load((own / "config.yaml").read_text(encoding="utf-8"))
    trackers = {"wandb": asdict(WandbConfig()), "trackio": asdict(TrackioConfig())}
    return {"plugins": [], **trackers, **content}


def _is_part(value: Any, whole: Any) -> bool:
    """Whether a value says nothing else than the whole does."""
    if isinstance(value, Mapping) and isinstance(whole, Mapping):
        return all(key in whole and _is_part(entry, whole[key]) for key, entry in value.items())
    return bool(value == whole)


def _place(entry: Any) -> str:
    """The group and package of an entry of a defaults list."""
    return str(next(iter(entry), "")) if isinstance(entry, Mapping) else str(entry)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(entry)
