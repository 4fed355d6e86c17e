"""Messages for a configuration that does not fit: the full key, the expected value, and the choices.

Turns the exceptions of hydra and OmegaConf into such a message. Called by ``train.py``, which exits with code 2.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

from tasks.words.path_words import quote
from tasks.words.refusals import type_name, unknown_key

MAX_OPTIONS = 8
"""Options of a group that a message lists; the most alike."""


class UsageError(Exception):
    """Raised when a user's request cannot be fulfilled; its text is the whole message, shown without a traceback."""


def explain(error: BaseException) -> str:
    """One message for an exception of hydra, OmegaConf or YAML raised while composing a configuration."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    cause = next((link for link in _chain(error) if isinstance(link, OmegaConfBaseException)), None)
    if isinstance(error, MissingConfigException):
        return _missing_file(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override or "", _first_line(error.message))
    if cause is not None:
        return _where(error) + _bad_key_or_value(cause)
    return _first_line(str(error)) if str(error) else type(error).__name__


def _unreadable(word: str, reason: str) -> str:
    key, sign, value = word.partition("=")
    if not key or not sign:
        return f"cannot read the argument {word!r}: {reason}; arguments are KEY=VALUE"
    quoted = f'"{key}={quote(value)}"'
    return (
        f"cannot read the argument {word}: {reason}; a value with such characters needs quotes within quotes: {quoted}"
    )


def _missing_file(error: Any) -> str:
    name = str(getattr(error, "missing_cfg_file", None) or "")
    group, _, option = name.rpartition("/")
    if not option or error.options is None:
        return _first_line(str(error))
    close = _alike(option, error.options, count=1, cutoff=0.6)
    hint = f" (did you mean {close[0]}?)" if close else ""
    shown = _alike(option, error.options, count=MAX_OPTIONS, cutoff=0.0)
    rest = len(error.options) - len(shown)
    more = f" and {rest} more, see python train.py --help" if rest else ""
    return f"unknown {group}={option}{hint}; there are {', '.join(sorted(shown))}{more}"


def _alike(name: str, options: Iterable[str], count: int, cutoff: float) -> list[str]:
    """The options that are most like a name, whatever their capitals."""
    spelt = {option.lower(): option for option in options}
    return [spelt[match] for match in difflib.get_close_matches(name.lower(), spelt, count, cutoff)]


def _bad_key_or_value(cause: Any) -> str:
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, ValidationError

    key = str(cause.full_key or "")
    owner = cause.object_type if isinstance(cause.object_type, type) and is_dataclass(cause.object_type) else None
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and owner is not None:
        return unknown_key(key, [entry.name for entry in fields(owner)])
    message = _first_line(str(cause))
    if isinstance(cause, ValidationError) and owner is not None and key:
        hint = typing.get_type_hints(owner).get(key.rpartition(".")[2])
        return f"{key} must be {type_name(hint)}: {message}"
    return f"{key}: {message}" if key else message


def _where(error: BaseException) -> str:
    """Names the YAML file when the fault is in one and not in what was typed."""
    found = re.match(r"In '([^']+)'", str(error))
    return f"in cfg/{found[1]}.yaml: " if found else ""


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else text
