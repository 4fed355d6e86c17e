"""Holds the cuts between the packages: who imports whom, what an import may do, and how files may be read."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RL_GAMES_FILES = {
    "train.py",
    "tasks/remote/learner/batch_vecenv.py",
    "tasks/registration.py",
    "tasks/remote/learner/vecenv.py",
    "algos/faces/registration.py",
    "algos/faces/agent.py",
    "algos/faces/family.py",
    "algos/faces/players.py",
    "algos/faces/ppo.py",
}
ALGOS_MAY_IMPORT = {
    "tasks.process",
    "tasks.words",
    "tasks.experience.observation",
    "tasks.experience.samples",
    "tasks.config",
    "tasks.trackmania.course",
    "tasks.acting.evaluation",
    "tasks.pictures",
    "tasks.remote.config",
    "tasks.roles.config",
}
SYNCHRONOUS_FILES = {"algos/faces/agent.py", "algos/faces/players.py"}
"""They act in the learner's own process, so they build what a worker process builds."""
OPERATING_SYSTEM = {"mss", "vgamepad", "libevdev", "Xlib", "win32api", "win32gui", "ctypes"}


def sources() -> list[Path]:
    files = [ROOT / "train.py", *(ROOT / "tasks").rglob("*.py"), *(ROOT / "algos").rglob("*.py")]
    return sorted(path for path in files if path.exists())


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Dotted names of everything the file imports, at the top or at use; type-checking imports too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} uses a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls_of(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Dotted name and node of each call."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            yield ast.unparse(node.func), node


def keyword_is(call: ast.Call, name: str, value: object) -> bool:
    values = [k.value for k in call.keywords if k.arg == name]
    return len(values) == 1 and isinstance(values[0], ast.Constant) and values[0].value is value


def is_under(imported: str, package: str) -> bool:
    return imported == package or imported.startswith(f"{package}.")


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_tasks_never_import_algos_or_the_front_door(path: Path) -> None:
    if name_of(path).startswith("tasks/"):
        wrong = [name for name in imports_of(path) if is_under(name, "algos") or is_under(name, "train")]
        assert not wrong


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_algos_know_of_tasks_only_the_data_that_is_passed(path: Path) -> None:
    if name_of(path).startswith("algos/"):
        in_process = name_of(path) in SYNCHRONOUS_FILES
        imported = [name for name in imports_of(path) if is_under(name, "tasks")]
        may_import = ALGOS_MAY_IMPORT | ({"tasks.make", "tasks.acting.rollout"} if in_process else set())
        wrong = [name for name in imported if not any(is_under(name, allowed) for allowed in may_import)]
        assert not wrong


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_rl_games_stays_at_the_rim(path: Path) -> None:
    if name_of(path) not in RL_GAMES_FILES:
        assert not [name for name in imports_of(path) if is_under(name, "rl_games")]


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_the_operating_system_is_touched_only_by_the_live_game(path: Path) -> None:
    if not name_of(path).startswith(("tasks/live/", "tasks/stand_in/")):
        assert not [name for name in imports_of(path) if name.split(".")[0] in OPERATING_SYSTEM]


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_the_simulator_needs_no_torch(path: Path) -> None:
    if name_of(path).startswith(("tasks/sim/", "tasks/trackmania/")):
        assert not [name for name in imports_of(path) if is_under(name, "torch")]


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_no_file_can_run_code_by_being_read(path: Path) -> None:
    pickles = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    assert not [name for name in imports_of(path) if name.split(".")[0] in pickles]
    for name, call in calls_of(path):
        where = f"{name_of(path)}:{call.lineno}"
        if name == "torch.load":
            assert keyword_is(call, "weights_only", True), f"{where}: torch.load needs weights_only=True"
        assert not keyword_is(call, "allow_pickle", True), f"{where}: allow_pickle=True"
        assert name not in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}, f"{where}: use yaml.safe_load"
        assert name not in {"eval", "exec"}, f"{where}: {name}"


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_nothing_is_drawn_from_a_global_generator(path: Path) -> None:
    # Seeding and saving the global ones is allowed: rl_games draws from them.
    kept = {f"{module}.{name}" for module in ("np.random", "random") for name in ("seed", "get_state", "set_state")}
    kept |= {"random.getstate", "random.setstate", "np.random.Generator", "np.random.PCG64", "np.random.SeedSequence"}
    names = [name for name, _ in calls_of(path) if name.startswith(("np.random.", "numpy.random.", "random."))]
    assert not [name for name in names if name not in kept and not name.startswith("np.random.default_rng")]


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_every_module_says_what_it_owns(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text or ast.get_docstring(ast.parse(text))


def test_no_module_is_a_drawer_or_shadows_another() -> None:
    drawers = {"utils", "util", "common", "misc", "helpers"}
    for path in sources():
        assert path.stem not in drawers
        assert path.stem not in sys.stdlib_module_names or path.parent != ROOT


IMPORT_SCRIPT = """
import importlib, os, sys, threading
import cv2, gymnasium, numba, numpy, torch
environment, threads = dict(os.environ), set(threading.enumerate())
for module in sys.argv[1:]:
    importlib.import_module(module)
assert os.listdir(".") == [], os.listdir(".")
assert not torch.cuda.is_initialized()
assert "matplotlib" not in sys.modules, "matplotlib is imported at use"
if not any(name.split(".")[-1] in ("registration", "vecenv", "agent", "players", "ppo") for name in sys.argv[1:]):
    assert dict(os.environ) == environment, set(os.environ.items()) ^ set(environment.items())
    assert set(threading.enumerate()) == threads
    assert "rl_games" not in sys.modules
"""


@pytest.mark.parametrize("at_rim", [False, True], ids=["middle", "rim"])
def test_importing_does_nothing(at_rim: bool, tmp_path: Path) -> None:
    paths = [path for path in sources() if name_of(path) != "train.py"]
    modules = [module_of(path) for path in paths if (name_of(path) in RL_GAMES_FILES) == at_rim]
    command = [sys.executable, "-c", IMPORT_SCRIPT, *modules]
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path.parent), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
