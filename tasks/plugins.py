"""The user's own Python files: imported by path so that they register tasks, networks, algorithms or observers.

``train.py`` loads the files of ``plugins=[my_file.py]`` before anything is looked up by name; every worker process
loads the same files. Only files typed on the command line are loaded: a checkpoint never names code to run.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType


def load_plugins(paths: Iterable[str]) -> list[ModuleType]:
    """Imports every file once per process, in order; a file that was already imported is not run again.

    A plugin ``dir/my_file.py`` becomes the module ``my_file``, and its folder joins ``sys.path``, so that
    ``"my_file:Class"`` is a valid registration and the file may import its neighbours.

    Raises:
        ValueError: If a path is not a Python file, or its name is taken by another module.
    """
    return [_load(Path(path)) for path in paths]


def plugin_paths(paths: Iterable[str]) -> list[str]:
    """Absolute paths, for processes that run in another folder."""
    return [str(Path(path).expanduser().resolve()) for path in paths]


def _load(path: Path) -> ModuleType:
    file = path.expanduser().resolve()
    if not file.is_file() or file.suffix != ".py":
        raise ValueError(f"plugins: {path} is not a Python file (looked for {file})")
    name = file.stem
    loaded = sys.modules.get(name)
    if loaded is not None:
        if getattr(loaded, "__file__", None) and Path(str(loaded.__file__)).resolve() == file:
            return loaded
        raise ValueError(f"plugins: the name of {file} is taken by the module {name!r}; rename the file")
    return _import(name, file)


def _import(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"plugins: {file} cannot be imported")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
