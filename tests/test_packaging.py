"""Every imported package is also installed, and the make targets run the documented commands."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def description(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments that setup.py passes to setup()."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", seen.update)
    monkeypatch.chdir(ROOT)
    path = ROOT / "setup.py"
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__file__": str(path), "__name__": "setup"})
    return seen


def third_party_imports(files: list[Path]) -> set[str]:
    names = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    own = {"tasks", "algos", "tests", "train", "benchmarks"}
    return names - set(sys.stdlib_module_names) - own


def distribution_names(module: str) -> set[str]:
    found = importlib.metadata.packages_distributions().get(module, [module])
    return {canonicalize_name(name) for name in found}


def required(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def test_every_third_party_import_is_in_the_requirements(description: dict[str, Any]) -> None:
    files = [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "algos").rglob("*.py"), *ROOT.glob("train.py")]
    every = required(description["install_requires"])
    for name in ("game", "drive", "cluster", "oracle", "onnx", "wandb", "trackio"):
        every |= required(description["extras_require"][name])
    other_names = {"xlib": "python-xlib"}
    missing = {
        module
        for module in third_party_imports(files)
        if not distribution_names(module) & every and other_names.get(module.lower()) not in every
    }
    assert not missing


def test_installed_versions_satisfy_the_requirements(description: dict[str, Any]) -> None:
    for text in description["install_requires"]:
        requirement = Requirement(text)
        version = importlib.metadata.version(requirement.name)
        assert requirement.specifier.contains(version, prereleases=True), f"{text}, but {version} is installed"


def test_packages_that_affect_reproducibility_are_pinned(description: dict[str, Any]) -> None:
    assert {"torch==2.13.0", "rl_games==1.6.5", "rtgym==0.16"} <= set(description["install_requires"])


def test_every_folder_with_modules_is_packaged(description: dict[str, Any]) -> None:
    folders = {path.parent.relative_to(ROOT) for name in ("tasks", "algos") for path in (ROOT / name).rglob("*.py")}
    assert set(description["packages"]) == {".".join(folder.parts) for folder in folders}


def test_the_shipped_tracks_are_packaged(description: dict[str, Any]) -> None:
    patterns = description["package_data"]["tasks.sim"]
    packaged = {path for pattern in patterns for path in (ROOT / "tasks/sim").glob(pattern)}
    tracks = {path for path in (ROOT / "tasks/sim/tracks").iterdir() if path.is_file()}
    assert tracks
    assert tracks <= packaged


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs make as from a shell, also when the tests themselves run under make."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    return subprocess.run(
        ["make", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


@needs_make
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("", "task=TM20Full train=TM20FullSAC"),
        ("task.track=short seed=0", "task=TM20Full train=TM20FullSAC task.track=short seed=0"),
        ("task=TM20Lidar", "task=TM20Lidar"),
        ("task=TM20Lidar train=TM20LidarPPO", "task=TM20Lidar train=TM20LidarPPO"),
        ("train=TM20FullPPO", "task=TM20Full train=TM20FullPPO"),
        ("--play --checkpoint runs/a/nn/best.pth", "--play --checkpoint runs/a/nn/best.pth"),
        ("checkpoint=runs/a/nn/last.pth", "checkpoint=runs/a/nn/last.pth"),
    ],
)
def test_make_train_never_gives_a_key_twice(args: str, expected: str) -> None:
    done = make("-n", "train", f"ARGS={args}", "VENV=.venv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f".venv/bin/python train.py {expected}"


@needs_make
def test_a_missing_python_gets_one_line(tmp_path: Path) -> None:
    done = make("train", "PYTHON=python-that-is-not-there", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert done.stdout.startswith("error: python-that-is-not-there was not found")
    assert len(done.stdout.splitlines()) == 1


@needs_make
def test_missing_python3_venv_gets_one_line(tmp_path: Path) -> None:
    # As Debian's python3 without python3-venv: the interpreter is there, ensurepip is not.
    fake = tmp_path / "python3"
    fake.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    fake.chmod(0o755)
    done = make("train", f"PYTHON={fake}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert done.stdout == "error: python3-venv is missing; on Debian and Ubuntu: sudo apt install python3-venv\n"


def test_the_readme_names_the_two_commands_and_links_to_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make train\n" in text
    assert "make test\n" in text
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    assert links
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing
