"""What was measured as one line of JSON, appended to a file, and the newest figures of all rows in it."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.rows.row import Result

FOLDER = Path(__file__).resolve().parents[1]
HISTORY = FOLDER / "history.jsonl"
"""One line for each run; not part of the repository."""
PACKAGES = ("torch", "numpy", "numba", "rl_games", "stable_baselines3", "jax")

Entry = dict[str, Any]
"""A line of the file: date, commit, machine, versions, load, settings, rows, skipped."""


def entry(
    measured: Iterable[Result], skipped: Mapping[str, str], load: tuple[float, float], settings: Mapping[str, object]
) -> Entry:
    """A run of the benchmark as plain data.

    Args:
        measured: The rows.
        skipped: Why the others are missing, by name.
        load: Of the machine, before and after.
        settings: Turns, seconds and device.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "versions": versions(),
        "load": [round(value, 2) for value in load],
        "settings": dict(settings),
        "rows": {result.row.name: _figures(result) for result in measured},
        "skipped": dict(skipped),
    }


def append(path: Path, line: Entry) -> None:
    """Adds a line to the file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[Entry]:
    """All lines, oldest first; none where there is no file.

    Raises:
        ValueError: A line is not what ``entry`` gives.
    """
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error}); remove the line") from error
        if not isinstance(line, dict) or not isinstance(line.get("rows"), dict):
            raise ValueError(f"{path}, line {number}: has no rows; remove the line")
        lines.append(line)
    return lines


def newest(lines: Iterable[Entry]) -> dict[str, dict[str, Any]]:
    """The last figures of each row, with date, machine, versions and load of their run beside them."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        run = {key: line.get(key) for key in ("date", "commit", "machine", "versions", "load")}
        for name, figures in line["rows"].items():
            found[name] = {**figures, "run": run}
    return found


def machine() -> dict[str, object]:
    """The processor, the number of its cores, and the GPU."""
    return {"processor": _processor(), "cores": os.cpu_count(), "gpu": _gpu(), "system": platform.platform()}


def versions() -> dict[str, str]:
    """Of Python and of the packages that matter here."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def load() -> float:
    """Programs that wanted a core in the last minute."""
    return os.getloadavg()[0]


def _figures(result: Result) -> dict[str, object]:
    low, high = result.quartiles
    return {
        "work": result.row.work,
        "measure": result.row.measure,
        "ratio": result.ratio,
        "quartiles": [low, high],
        "range": [min(result.values), max(result.values)],
        "values": list(result.values),
        "rates": dict(result.rates),
        "bar": result.row.bar,
        "is_most": result.row.is_most,
        "is_met": result.is_met,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _commit() -> str | None:
    command = ["git", "-C", str(FOLDER), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
