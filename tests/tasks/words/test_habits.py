"""Answers to keys and flags of other projects name keys and flags that exist here."""

from __future__ import annotations

import re

import pytest

from algos.config.algorithms import TRAIN_SCHEMAS
from algos.config.schema import TASK_SCHEMAS, RunConfig
from tasks.config import config_to_dict
from tasks.words.command_line import HYDRA_FLAGS, build_parser
from tasks.words.habits import FLAGS, KEYS, flag_here, key_here

NO_KEYS = {"KEY", "NAME", "train.py"}


@pytest.mark.parametrize("answer", sorted({*KEYS.values(), *FLAGS.values()}))
def test_every_key_in_an_answer_exists(answer: str) -> None:
    flags = {option for action in build_parser()._actions for option in action.option_strings} | {*HYDRA_FLAGS}
    assert set(re.findall(r"--[a-z][\w-]*", answer)) <= flags
    run = config_to_dict(RunConfig(task=TASK_SCHEMAS["trackmania"](), train=TRAIN_SCHEMAS["ppo"](), experiment="run"))
    off_policy = config_to_dict(RunConfig(task=TASK_SCHEMAS["gym"](), train=TRAIN_SCHEMAS["sac"](), experiment="run"))
    for key in re.findall(r"(?<![-\w.])([a-z_]+(?:\.\w+)+|\w+_\w+|\w+(?==))", answer):
        assert any(has(plain, key) for plain in (run, off_policy)) or key in NO_KEYS, key


def has(plain: object, key: str) -> bool:
    for name in key.split("."):
        if not isinstance(plain, dict) or name not in plain:
            return False
        plain = plain[name]
    return True


def test_keys_and_flags_are_found_however_they_are_spelt() -> None:
    assert flag_here("--wandb-project-name") == key_here("wandb_project_name") == KEYS["wandb_project_name"]
    assert key_here("train.params.config.max_epochs") == KEYS["max_epochs"]
    assert flag_here("--hosts") is key_here("seed") is None
