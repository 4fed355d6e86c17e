"""What a run folder tells of its run: configuration, curves, the newest play, versions.

A folder may come from somebody else, or be half written: everything is checked, nothing is run or unpickled, and what
cannot be read becomes a note that says what to do. Checkpoints stay unread.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tasks.laps.files import ComparedLaps, read_laps
from tasks.process.dated_folder import newest_folders
from tasks.roles.report.curves import Curve, read_curves

MAX_TEXT_BYTES = 4 * 2**20
"""A larger config.yaml, versions.json or results.json is not read."""
MAX_ENTRIES = 3000
"""So many entries of a configuration are shown."""

_MAX_DEPTH = 12
_PARTS = ("config.yaml", "summaries", "play")


@dataclass(frozen=True)
class Play:
    """The newest play of a run."""

    folder: Path
    results: dict[str, Any]
    """results.json."""
    laps: ComparedLaps | None = None
    driven_line: Path | None = None
    """The picture of all its episodes."""
    video: Path | None = None


@dataclass(frozen=True)
class RunFacts:
    """All that a report shows of a run."""

    folder: Path
    config: dict[str, str]
    """Values by full key, in the order of the file."""
    curves: dict[str, Curve]
    play: Play | None
    versions: dict[str, str]
    notes: list[str] = field(default_factory=list)
    """What is missing or cannot be read, and what to do."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.name


def find_run(name: str, runs: Path) -> Path:
    """The folder of a run.

    Args:
        name: A folder, the name of one in ``runs``, or ``latest``: the run that was written to last.
        runs: Folder of all runs.

    Raises:
        ValueError: There is none; says which there are.
    """
    if name == "latest":
        newest = _newest_runs(runs)
        if not newest:
            raise ValueError(f"--report latest: there is no run in {runs.absolute()}; train.py writes one")
        return newest[0]
    for folder in (Path(name).expanduser(), runs / name):
        if _is_folder(folder):
            folder = folder.resolve()
            if not any((folder / part).exists() for part in _PARTS):
                raise ValueError(f"{folder} is no run folder: it has none of {', '.join(_PARTS)}; {_there_are(runs)}")
            return folder
    raise ValueError(f"--report {name}: there is no such folder, here or in {runs.absolute()}; {_there_are(runs)}")


def read_run(folder: Path) -> RunFacts:
    """Reads what there is in the folder of a run."""
    notes: list[str] = []
    config = _config(folder, notes)
    curves, problems = read_curves(folder / "summaries")
    if problems:
        notes.append(f"Files of summaries that cannot be read are left out: {', '.join(problems)}.")
    if not curves:
        notes.append("There are no learning curves: summaries has nothing that was logged. Training writes it.")
    play = _newest_play(folder, notes)
    return RunFacts(folder, config, curves, play, _versions(folder, notes), notes)


def number(value: object) -> float | None:
    """A finite number of a file; None for anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e15 and math.isfinite(value) else None  # type: ignore[arg-type]


def seen_from_here(path: Path) -> Path:
    """The path from the folder where the command is given, where it lies below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _newest_runs(runs: Path) -> list[Path]:
    """The runs that were written to last, the last first."""
    return [folder.resolve() for folder in newest_folders(runs, "config.yaml", "summaries/*tfevents*")]


def _there_are(runs: Path) -> str:
    newest = [folder.name for folder in _newest_runs(runs)[:3]]
    return f"the newest in {runs}: {', '.join(newest)}" if newest else f"there is no run in {runs.absolute()} yet"


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no folder can have
        return False


def _config(folder: Path, notes: list[str]) -> dict[str, str]:
    try:
        data = yaml.safe_load(_text(folder / "config.yaml"))
    except FileNotFoundError:
        notes.append("There is no config.yaml, so the configuration is not known.")
        return {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        notes.append(f"config.yaml cannot be read: {_first_line(error)}.")
        return {}
    if not isinstance(data, Mapping):
        notes.append("config.yaml holds no configuration.")
        return {}
    entries = {}
    for key, value in _entries(data, "", 0):
        entries[key] = value
        if len(entries) >= MAX_ENTRIES:
            notes.append(f"config.yaml has more than {MAX_ENTRIES} entries; the others are left out.")
            break
    return entries


def _entries(data: Any, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    """Every value with its full key. Aliases of YAML may make a small file endless, so it is walked step by step."""
    is_plain_list = isinstance(data, list) and not any(isinstance(item, (list, Mapping)) for item in data)
    if depth >= _MAX_DEPTH or not data or is_plain_list or not isinstance(data, (list, Mapping)):
        yield prefix, _shown(data)
        return
    items = data.items() if isinstance(data, Mapping) else enumerate(data)
    for key, value in items:
        yield from _entries(value, f"{prefix}.{key}" if prefix else str(key), depth + 1)


def _shown(value: Any) -> str:
    """A value as YAML writes it; what is nested too deep, or too long, is only hinted at."""
    if isinstance(value, Mapping):
        return "{...}" if value else "{}"
    if isinstance(value, list):
        is_short = len(value) <= MAX_ENTRIES and not any(isinstance(item, (list, Mapping)) for item in value)
        return "[" + ", ".join(map(_shown, value)) + "]" if is_short else "[...]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _versions(folder: Path, notes: list[str]) -> dict[str, str]:
    try:
        data = json.loads(_text(folder / "versions.json"))
        return {str(key): str(value) for key, value in data.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        notes.append(f"versions.json cannot be read: {_first_line(error)}.")
        return {}


def _newest_play(folder: Path, notes: list[str]) -> Play | None:
    checkpoint = seen_from_here(folder / "nn" / "best.pth")
    command = f"python train.py --play --checkpoint {shlex.quote(str(checkpoint))}"
    folders = sorted((path.parent for path in folder.glob("play/*/results.json")), reverse=True)
    for newest in folders:
        try:
            results = json.loads(_text(newest / "results.json"))
        except (OSError, ValueError, RecursionError) as error:
            notes.append(f"{newest.name}/results.json cannot be read: {_first_line(error)}.")
            continue
        if not isinstance(results, dict):
            notes.append(f"{newest.name}/results.json holds no results.")
            continue
        return Play(
            newest,
            results,
            _laps(newest, results, command, notes),
            _own_file(newest / "driven_line.png", folder),
            _own_file(newest / "episode.mp4", folder),
        )
    notes.append(f"There are no laps to show, because the run was not played yet. This plays it: {command}")
    return None


def _laps(folder: Path, results: Mapping[str, Any], command: str, notes: list[str]) -> ComparedLaps | None:
    if "track" not in results:
        return None
    try:
        return read_laps(folder / "laps.json")
    except FileNotFoundError:
        notes.append(f"The newest play stored no laps, so line, traces and sectors are missing. Play again: {command}")
    except (OSError, ValueError) as error:
        notes.append(f"{folder.name}/laps.json cannot be read: {_first_line(error)}. Play again: {command}")
    return None


def _own_file(path: Path, run: Path) -> Path | None:
    """The file, if it is one of the run's own: a link may lead to anything."""
    return path if path.is_file() and path.resolve().is_relative_to(run.resolve()) else None


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"it must have at most {MAX_TEXT_BYTES >> 20} MB, got {path.stat().st_size >> 20} MB")
    return path.read_text(encoding="utf-8")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
