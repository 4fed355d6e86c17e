"""--report RUN [RUN_B]: writes a page about a run, or about two beside each other, that opens without a network.

Called by ``tasks.roles.dispatch``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tasks.process.atomic_file import write_file
from tasks.roles.report.page import render
from tasks.roles.report.run_facts import find_run, read_run, seen_from_here

_MAX_NAME = 120
"""A file's name holds so much of a run's."""


def run(names: Sequence[str], runs: Path) -> str:
    """Writes ``report.html`` into the folder of the run, or ``report_with_<the other>.html`` into that of the first.

    Args:
        names: One run or two, each as ``find_run`` takes it.
        runs: Folder of all runs.

    Returns:
        The answer for people.

    Raises:
        ValueError: There is no such run, or they are more than two, or the same.
        OSError: The page cannot be written.
    """
    if len(names) > 2:
        raise ValueError(f"--report takes one run or two, got {len(names)}: {' '.join(names)}")
    folders = [find_run(name, runs) for name in names]
    if len(folders) == 2 and folders[0] == folders[1]:
        raise ValueError(f"--report {' '.join(names)}: both are {folders[0]}; name two runs, or give it once")
    facts = [read_run(folder) for folder in folders]
    file = "report.html" if len(facts) == 1 else f"report_with_{facts[1].name[:_MAX_NAME]}.html"
    path = folders[0] / file
    write_file(path, render(facts, path.parent, datetime.now()).encode("utf-8", "replace"))
    notes = [f"{one.name}: {note}" for one in facts for note in one.notes]
    return "\n".join([*notes, f"{seen_from_here(path)}: open it in a browser"])
