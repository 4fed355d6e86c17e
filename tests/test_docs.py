"""Everything that README.md and docs/ mention exists: commands, keys of the configuration, files, headings."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from algos.config.algorithms import TRAIN_SCHEMAS
from algos.config.hydra_entry import MAPPINGS, _with_new_entries
from algos.config.options import base_name
from tasks.words.command_line import ROLES_WITHOUT_CONFIGURATION, TYPED_AS, parse
from tests.test_config_files import composed

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md"]
GROUPS = "task|train|play|record|drive|check|benchmark|link|remote|worker|ray|debug|wandb|trackio"
OWN_TASKS = ("Drone",)
"""Tasks of docs/examples, which have their own folder."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands() -> Iterator[str]:
    """Every line of a shell block that starts python, without its comment; <...> stands for a name."""
    for page in PAGES:
        for block in re.findall(r"```(?:bash|powershell)\n(.*?)```", text_of(page), flags=re.DOTALL):
            for line in block.splitlines():
                line = re.sub(r"<\w+>", "NAME", line.partition(" #")[0]).strip()
                line = re.sub(r"\$\(.*\)", "", line)
                if line.startswith("python "):
                    yield line


def headings(page: Path) -> set[str]:
    """Anchors as GitHub makes them."""
    lines = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL).splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in headings(linked), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_source_file_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"\b((?:tasks|algos|tests|benchmarks)/[\w/]+\.py)\b", text_of(page))
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_command_can_be_given(command: str) -> None:
    words = shlex.split(command)[1:]
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None
        return
    assert (ROOT / words[0]).is_file()
    if words[0] != "train.py":
        return
    line = parse(words[1:])
    if line.role in ROLES_WITHOUT_CONFIGURATION or any(f"task={task}" in line.words for task in OWN_TASKS):
        return
    if any(word.startswith("plugins=") for word in line.words):
        return  # tests/test_user_code.py gives them with their files
    if "--config-dir" in words:
        return  # tests/algos/config/test_stock_params.py gives those of rl_games with their folder
    typed = [word.split(",")[0] if "--multirun" in words else word for word in line.words]  # the first run of a sweep
    composed(*[_with_new_entries(word) for word in typed if "=" in word and not word.startswith("-")])


@functools.cache
def every_algorithm_and_task() -> list[DictConfig]:
    """Configurations that together have every key."""
    pairs = [("TM20Full", f"TM20Full{base_name(kind)}") for kind in TRAIN_SCHEMAS]
    pairs += [(task, f"{task}SAC") for task in ("RCDrone", "Gym")]
    return [OmegaConf.create(composed(f"task={task}", f"train={train}")) for task, train in pairs]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_key_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(rf"`((?:{GROUPS})\.[\w.]*\w)(?:=[^`]*)?`", text_of(page)))
    files = {key for key in named if Path(key).suffix in (".py", ".yaml", ".json", ".npz", ".png")}
    missing = [
        key
        for key in sorted(named - files - set(TYPED_AS))
        if key.split(".")[:2] not in MAPPINGS
        and all(OmegaConf.select(config, key, default="absent") == "absent" for config in every_algorithm_and_task())
    ]
    assert not missing
    words = set(re.findall(rf"`((?:{GROUPS})\.[\w.]*\w=[^`\s]+)`", text_of(page)))
    OverridesParser.create().parse_overrides(parse(sorted(words)).words)


def said_by_the_program() -> Iterator[str]:
    """Every text in the code of tasks and algos; values that are filled in are left out."""
    for path in [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "algos").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_troubleshooting_table_quotes_messages_that_exist() -> None:
    text = text_of(ROOT / "docs" / "real_game.md")
    rows = [row.split("|") for row in text[text.index("| what you see |") :].splitlines()[2:]]
    quoted = {quote for row in rows for quote in re.findall(r"`([^`]+)`", row[1])} - {"--check"}
    assert len(quoted) > 12
    said = list(said_by_the_program())
    assert [quote for quote in sorted(quoted) if not any(quote in text for text in said)] == []
