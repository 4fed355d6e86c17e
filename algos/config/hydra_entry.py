"""Hydra's side of the command line: composes the configuration from the arguments and calls back with it.

Called by ``train.py``. Hydra prints its own errors and exits with code 1; here they become one ``UsageError``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algos.config.errors import UsageError, explain
from algos.config.overrides import parsed
from tasks.process.write_trouble import NotSavedError

if TYPE_CHECKING:
    from omegaconf import DictConfig

MAPPINGS = (["ray", "resources"], ["task", "kwargs"])
"""Keys below which a user chooses the names."""

Job = Callable[["DictConfig", list[str]], None]
"""Takes a composed configuration and the overrides that were typed."""


def compose_and_call(words: Sequence[str], config_dir: Path, job: Job) -> int:
    """Composes ``config_dir/config.yaml`` with the words and calls ``job``: once, or for each job of --multirun.

    Hydra's own flags (--cfg, --info, --help) print and call nothing.

    Returns:
        The exit code that hydra's flags ask for, 0 otherwise.

    Raises:
        UsageError: If the words or the files cannot be composed, or the job raised it.
        NotSavedError: The job raised it.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from algos.config.schema import register_schemas
    from algos.config.typed_only import check_files

    register_schemas()
    check_files(config_dir)
    call = _GuardedJob(job)
    try:
        with _as_hydra_wants([_with_new_entries(word) for word in words]):
            hydra.main(version_base="1.3", config_path=str(config_dir), config_name="config")(call)()
    except SystemExit as stop:
        if call.ended_by is not None:
            raise call.ended_by from None
        return int(stop.code or 0)
    except (HydraException, OmegaConfBaseException, YAMLError, AssertionError, ValueError) as error:
        if call.has_started:
            raise
        raise UsageError(explain(error)) from error
    return 0


def plugin_words(words: Sequence[str]) -> list[str]:
    """The paths in the words ``plugins=[...]``, which must be loaded before anything is composed.

    Raises:
        UsageError: If such a word cannot be read.
    """
    return _values(words, "plugins")


def config_folders(words: Sequence[str]) -> list[Path]:
    """The user's folders of configuration files: ``--config-dir DIR`` and ``hydra.searchpath=[file://DIR]``."""
    given = [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    given += [after for word, after in itertools.pairwise(words) if word == "--config-dir"]
    paths = _values(words, "hydra.searchpath")
    return [Path(folder) for folder in given + [path.removeprefix("file://") for path in paths]]


def options(group: str) -> list[str]:
    """All that a group may say, ``task`` or ``train``: files and generated entries; only within a job."""
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    return list(loader.get_group_options(group, config_name="config"))


def as_in_the_files(task: str, train: str) -> dict[str, Any]:
    """The configuration as the files of cfg say it, with nothing typed; only within a job.

    Args:
        task: File of cfg/task.
        train: File of cfg/train.
    """
    from hydra import compose
    from omegaconf import OmegaConf

    composed = compose("config", [f"task={task}", f"train={train}"])
    plain: Any = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    return plain


def _values(words: Sequence[str], key: str) -> list[str]:
    """The entries of a list that is typed as ``key=[...]``, read without composing anything."""
    values = [override.value() for override in parsed(words, key)]
    return [str(entry) for value in values for entry in (value if isinstance(value, list) else [value])]


def _with_new_entries(word: str) -> str:
    """Hydra wants ++ before a mapping whose entries are not in the file."""
    return f"++{word}" if word.partition("=")[0].split(".")[:2] in MAPPINGS else word


@contextlib.contextmanager
def _as_hydra_wants(words: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv; with HYDRA_FULL_ERROR its exceptions reach us instead of being printed."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = ["train.py", *words], "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


class _GuardedJob:
    """The callback for hydra. It leaves through SystemExit with what has one message: hydra adds lines to others."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.has_started = False
        self.ended_by: UsageError | NotSavedError | None = None

    def __call__(self, composed: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        self.has_started = True
        try:
            self._job(composed, list(HydraConfig.get().overrides.task))
        except (UsageError, NotSavedError) as error:
            self.ended_by = error
            raise SystemExit(1) from error
