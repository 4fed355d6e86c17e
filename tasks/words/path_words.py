"""Arguments whose value is a path: quoted for hydra, so that no character of a file's name has a meaning to it.

``tasks.words.command_line`` passes every argument through ``as_typed`` before hydra sees it. Standard library only.
"""

from __future__ import annotations

import os
import re

PATH_KEYS = (
    "checkpoint",
    "task.track",
    "task.vehicle",
    "task.reward.path",
    "record.from_file",
    "remote.credentials",
    "worker.outbox",
    "export.to",
)
"""Keys whose value is a file or folder."""
PATH_LIST_KEYS = ("plugins", "hydra.searchpath")
"""Keys whose value is a list of them: [a,b], or one alone."""

_QUOTED = re.compile(r"""(?P<mark>['"])(?:\\.|(?!(?P=mark))[^\\])*(?P=mark)""", re.DOTALL)
_ENTRY = re.compile(rf"\s*({_QUOTED.pattern}\s*(?=,|$)|[^,]*)(?:,|$)", re.DOTALL)
_SWEEP = re.compile(r"(choice|glob|range|interval|sort|shuffle)\(.*\)", re.DOTALL)


def as_typed(word: str, *, is_sweep: bool) -> str:
    """The argument with its value quoted for hydra if its key takes paths; any other argument unchanged.

    A value that is quoted already, ``null`` and nothing at all are left to hydra. ``~`` becomes the home folder.

    Args:
        word: KEY=VALUE.
        is_sweep: Whether commas separate values, one for each run.
    """
    key, sign, value = word.partition("=")
    name = key.lstrip("+")
    if not sign or name not in PATH_KEYS + PATH_LIST_KEYS:
        return word
    if name in PATH_LIST_KEYS and value != "null":
        is_list = value.startswith("[") and value.endswith("]")
        return f"{key}=[{_entries(value[1:-1]) if is_list else _path(value)}]"
    if is_sweep:
        return word if _SWEEP.fullmatch(value) else f"{key}={_entries(value)}"
    return f"{key}={_path(value)}"


def quote(value: str) -> str:
    """A text as hydra's grammar reads it back unchanged: backslashes count only before a quote."""
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"


def _path(value: str) -> str:
    if value in ("", "null") or _QUOTED.fullmatch(value):
        return value
    return quote(os.path.expanduser(value))


def _entries(values: str) -> str:
    """Paths between commas; a quoted one may hold commas."""
    found: list[str] = []
    at = 0
    while at < len(values):
        match = _ENTRY.match(values, at)
        assert match is not None
        found.append(_path(match[1].strip()))
        at = match.end()
    return ",".join(filter(None, found))
