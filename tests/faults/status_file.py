"""The status of a process under test: one small JSON file, replaced as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_status(path: Path, **values: Any) -> None:
    """Writes the status."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(values))
    new.replace(path)


def read_status(path: Path) -> dict[str, Any]:
    """The newest status; empty: none yet."""
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return values
