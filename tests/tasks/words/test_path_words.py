"""A path reaches the configuration as the shell gave it, whatever characters it has."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.words.path_words import PATH_KEYS, PATH_LIST_KEYS, as_typed, quote

ROOT = Path(__file__).resolve().parents[3]
CONFIG_FILES = ("tasks/config.py", "tasks/remote/config.py", "tasks/roles/config.py", "algos/config/schema.py")
NAMES_ONLY = {"ep_max_length", "name", "run_name", "task", "train", "experiment"}
"""Their text speaks of files or folders, but they are names or numbers."""

texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)


def read(word: str) -> Override:
    return OverridesParser.create().parse_override(word)


@pytest.mark.parametrize("key", PATH_KEYS)
@pytest.mark.parametrize(
    "path",
    [
        r"C:\Users\Jürgen Müller\runs\x\nn\last.pth",
        r"\\server\share\a.pth",
        "C:\\",
        "a, b=c (1).csv",
        "it's [a] {b}.csv",
        'say "x".csv',
        "a&b#c;d!.csv",
        "null.csv",
        " a ",
        "007",
        "true",
    ],
)
def test_any_path_works_for_every_path_key(key: str, path: str) -> None:
    assert read(as_typed(f"{key}={path}", is_sweep=False)).value() == path
    assert read(as_typed(f"++{key}={path}", is_sweep=False)).value() == path


@given(texts)
@example("a\\\\'")
def test_a_quoted_text_is_read_back_unchanged(text: str) -> None:
    assert read(f"checkpoint={quote(text)}").value() == text


@given(texts.filter(lambda text: text != "null" and text[0] not in "'\"~"))
def test_a_path_stays_as_it_was_typed(text: str) -> None:
    assert read(as_typed(f"checkpoint={text}", is_sweep=False)).value() == text


@pytest.mark.parametrize(
    "word", ["checkpoint=null", "checkpoint=", "checkpoint='a b'", 'checkpoint="it\'s"', "seed=1", "~wandb"]
)
def test_values_that_hydra_can_read_stay_unchanged(word: str) -> None:
    assert as_typed(word, is_sweep=False) == word


def test_the_home_folder_may_be_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jü r")
    monkeypatch.setenv("USERPROFILE", "/home/jü r")
    assert read(as_typed("task.track=~/a.csv", is_sweep=False)).value() == "/home/jü r/a.csv"


@pytest.mark.parametrize("key", PATH_LIST_KEYS)
@pytest.mark.parametrize(
    ("typed", "paths"),
    [
        (r"[C:\Jürgen\my file.py, b(1).py]", ["C:\\Jürgen\\my file.py", "b(1).py"]),
        ("['a,b.py',c.py]", ["a,b.py", "c.py"]),
        ("a, b.py", ["a, b.py"]),
        ("[file://C:/my cfg]", ["file://C:/my cfg"]),
        ("[]", []),
        ("", []),
    ],
)
def test_lists_accept_any_path_and_a_comma_within_quotes(key: str, typed: str, paths: list[str]) -> None:
    assert read(as_typed(f"{key}={typed}", is_sweep=False)).value() == paths


def test_a_sweep_goes_over_paths() -> None:
    override = read(as_typed(r"task.track=short,C:\Jü r.csv,'a,b.csv'", is_sweep=True))
    runs = [read(f"task.track={value}").value() for value in override.sweep_string_iterator()]
    assert runs == ["short", r"C:\Jü r.csv", "a,b.csv"]
    assert as_typed("task.track=choice(short,long)", is_sweep=True) == "task.track=choice(short,long)"


def test_every_key_that_takes_a_path_is_known() -> None:
    found = set()
    for file in CONFIG_FILES:
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found |= {name for name, text in texts_of(node) if re.search(r"\b(files?|folder|path)\b", text, re.I)}
    assert found - NAMES_ONLY == {key.rpartition(".")[2] for key in PATH_KEYS + PATH_LIST_KEYS} - {"searchpath"}


def texts_of(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """The fields of a class that may hold a text, and what is said of them."""
    for field, said in itertools.pairwise(node.body):
        if isinstance(field, ast.AnnAssign) and isinstance(said, ast.Expr) and "str" in ast.unparse(field.annotation):
            yield ast.unparse(field.target), ast.unparse(said.value)
