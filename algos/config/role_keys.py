"""Refuses a typed key that has no effect: in this role, or because of another key's value.

The metadata of the fields says which keys these are (``tasks.words.keys``).

Only typed keys are checked: a file of cfg and a checkpoint serve every role, and each role reads its part of them.
Choosing a file, ``task=NAME`` or ``train=NAME``, is allowed in every role. Called by ``train.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from algos.config.overrides import typed_keys
from algos.config.schema import RunConfig
from tasks.config import config_to_dict
from tasks.words.command_line import Role
from tasks.words.keys import KeyRoles, has_default, key_needs, key_roles
from tasks.words.nested import value_at
from tasks.words.refusals import as_typed


def check_roles(config: RunConfig, role: Role, words: Sequence[str]) -> None:
    """Refuses every typed key that would do nothing.

    Args:
        config: What the words make.
        role: What this process does.
        words: The words typed, as hydra reports them.

    Raises:
        ValueError: Naming each such key, and what to type instead or which roles it belongs to.
    """
    known = {key: key_roles(config, key) for key in typed_keys(words)}
    wrong = [_refusal(key, said, role) for key, said in known.items() if not said.roles & _roles_of(config, role)]
    if wrong:
        raise ValueError("; ".join(wrong))


def check_needs(config: RunConfig, role: Role, words: Sequence[str]) -> None:
    """Refuses every typed key that does nothing because of another key's value, unless it has its default.

    Args:
        config: What the words make.
        role: What this process does.
        words: The words typed, as hydra reports them.

    Raises:
        ValueError: Naming each such key, and the key that would make it act.
    """
    plain = config_to_dict(config)
    idle: dict[str, str] = {}
    for key in typed_keys(words):
        for owner, need in () if has_default(config, key) else key_needs(config, key, role):
            refusal = need.refusal(plain, owner)
            if refusal is not None:
                idle.setdefault(key, f"{key}={as_typed(value_at(plain, key))} {refusal}")
    if idle:
        raise ValueError("; ".join(idle.values()))


def _roles_of(config: RunConfig, role: Role) -> set[Role]:
    """The role; with an algorithm that is not ours also training: its player is given all that training is given."""
    is_foreign = role is Role.play and isinstance(config.train, Mapping)
    return {role, Role.train} if is_foreign else {role}


def _refusal(key: str, said: KeyRoles, role: Role) -> str:
    begin = f"{key} does nothing {_where(role)}"
    if role in said.instead:
        return f"{begin}: use {said.instead[role]}"
    if not said.roles:
        return f"{begin}: the program writes it, leave it out"
    return f"{begin}: it belongs to {' and '.join(_name(other) for other in Role if other in said.roles)}, leave it out"


def _where(role: Role) -> str:
    return "in training" if role is Role.train else f"with {_name(role)}"


def _name(role: Role) -> str:
    return "training" if role is Role.train else f"--{role.value}"
