"""The arguments that give a remote worker this learner's configuration: all values that differ from the files of cfg.

``train.py`` asks for them if workers may join, and the learner prints them as part of a command. The typed arguments
are not enough: a resumed run has its configuration from the checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from algos.config.implied import is_implied
from algos.config.schema import marked_keys, nearest
from tasks.words.keys import Workers
from tasks.words.nested import Plain, leaves, value_at
from tasks.words.path_words import quote

_PLAIN = re.compile(r"[\w./@:+-]+")


def worker_words(config: Plain, files: Plain) -> list[str]:
    """Words of hydra, the chosen files first.

    Args:
        config: The learner's whole configuration, plain data, the game decided.
        files: The same as the chosen files of cfg say it, nothing typed.
    """
    choices = config["choices"]
    words = [f"{group}={written(choices[group])}" for group in ("task", "train")]
    marks = marked_keys(Workers)
    for key, value in leaves(config):
        is_shared = nearest(marks, key) is Workers.same and not is_implied(config, key)
        if is_shared and value != value_at(files, key):
            words.append(word(key, value))
    return words


def word(key: str, value: object) -> str:
    """KEY=VALUE, quoted for a shell where it must be."""
    return f"{key if _PLAIN.fullmatch(key) else _quoted(key)}={written(value)}"


def written(value: object) -> str:
    """A value in hydra's grammar, quoted for a shell where it must be."""
    text = _written(value)
    return text if _PLAIN.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    """The text quoted for a shell."""
    return '"' + re.sub(r'(["\\$`])', r"\\\1", text) + '"'


def _written(value: object) -> str:
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{','.join(_written(entry) for entry in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(entry)}" for key, entry in value.items()) + "}"
    text = str(value)
    is_plain = bool(_PLAIN.fullmatch(text)) and re.fullmatch(r"null|true|false|[+-]?[\d.].*", text) is None
    return text if is_plain else quote(text)
