"""Compares the newest figures with the stored ones: ``python -m benchmarks.rows.check``.

    python -m benchmarks.rows.check            exits 1 and names the rows that became worse
    python -m benchmarks.rows.check --store    stores the newest figures as those to compare with

A row became worse when its median is worse than the stored one by more than a tenth, and by more than the turns of
either run differ: than the distance between the median and its worse quartile.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.rows.record import FOLDER, HISTORY, newest, read

STORED = FOLDER / "baseline.json"
TOLERANCE = 0.1

Figures = Mapping[str, Any]
"""Of one row, as ``record.newest`` gives them."""


def main(words: list[str] | None = None) -> int:
    """Compares and prints; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="store_true", help="store the newest figures; rows not measured stay")
    parser.add_argument("--history", type=Path, default=HISTORY, help="what the benchmark appended to")
    parser.add_argument("--stored", type=Path, default=STORED, help="what to compare with")
    options = parser.parse_args(words)
    try:
        found, stored = newest(read(options.history)), read_stored(options.stored)
    except ValueError as error:
        return _refuse(str(error))
    if not found:
        return _refuse(f"nothing was measured yet: {options.history} has no rows; run: make bench")
    if options.store:
        options.stored.write_text(json.dumps({**stored, **found}, indent=1) + "\n", encoding="utf-8")
        print(f"stored: {', '.join(found)} in {options.stored}")
        return 0
    if not stored:
        return _refuse(f"nothing is stored in {options.stored}; run: make bench-check ARGS=--store")
    return 1 if report(found, stored) else 0


def report(found: Mapping[str, Figures], stored: Mapping[str, Figures]) -> list[str]:
    """Prints a line for each stored row; returns the names of those that became worse."""
    worse = []
    for name, before in stored.items():
        now = found.get(name)
        if now is None:
            print(f"{name}: stored {before['ratio']:.3g}, not measured")
            continue
        if is_worse(now, before):
            worse.append(name)
        verdict = "WORSE" if name in worse else "fine"
        print(f"{name}: stored {before['ratio']:.3g}, now {now['ratio']:.3g}, {verdict}{_difference(now, before)}")
    if worse:
        print(f"worse than stored: {', '.join(worse)}")
    return worse


def is_worse(now: Figures, before: Figures) -> bool:
    """Whether a row became worse by more than a tenth and by more than its turns differ."""
    side = 1 if before["is_most"] else 0  # the quartile on the worse side
    sign = -1 if before["is_most"] else 1
    lost = sign * (before["ratio"] - now["ratio"])
    spread = max(abs(row["ratio"] - row["quartiles"][side]) for row in (now, before))
    return lost > max(TOLERANCE * before["ratio"], spread)


def read_stored(path: Path) -> dict[str, Figures]:
    """The stored figures by row; none where there is no file.

    Raises:
        ValueError: The file is not what ``--store`` writes.
    """
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        for figures in stored.values():
            is_worse(figures, figures)  # every field is there
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what --store writes ({error!r}); restore it, or store anew") from error
    return stored


def _difference(now: Figures, before: Figures) -> str:
    """What differs between the machines and packages of both runs, since ratios depend on them."""
    parts = [
        f"{key} {value}, now {now['run'][group].get(key)}"
        for group in ("machine", "versions")
        for key, value in before["run"][group].items()
        if now["run"][group].get(key) != value
    ]
    return f" (stored with {'; '.join(parts)})" if parts else ""


def _refuse(message: str) -> int:
    sys.stderr.write(f"benchmarks.rows.check: {message}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
