"""What a process under test says of itself: one small JSON file, replaced as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_status(path: Path, **values: Any) -> None:
    """Says how things stand."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(values))
    new.replace(path)


def read_status(path: Path) -> dict[str, Any]:
    """What was said last; empty: nothing yet."""
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return values
