"""Checks the architecture: who imports whom, what an import may do, and how files may be read."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS: dict[str, str] = {
    # what everything knows
    "tasks.words": "",
    "tasks.config": "tasks.words",
    "tasks.process": "",
    "tasks.game": "",
    "tasks.experience": "",
    "tasks.plugins": "",
    "tasks.pictures": "tasks.process",
    "tasks.recordings": "tasks.process",
    "tasks.points": "tasks.recordings",
    "tasks.laps": "tasks.pictures tasks.process",
    # games
    "tasks.sim": "tasks.config tasks.game tasks.laps tasks.points tasks.process tasks.recordings tasks.words",
    "tasks.live.window": "tasks.game",
    "tasks.live.controls": "tasks.config tasks.game",
    "tasks.live.telemetry": "tasks.config tasks.game",
    "tasks.live": "tasks.config tasks.game tasks.live.controls tasks.live.telemetry tasks.live.window",
    "tasks.stand_in": "tasks.config tasks.game tasks.sim",
    "tasks.fidelity": "tasks.recordings tasks.sim",
    # tasks
    "tasks.envs": "tasks.config tasks.experience tasks.game",
    "tasks.registry": "tasks.config tasks.envs tasks.experience tasks.game tasks.live.telemetry tasks.live.window "
    "tasks.sim tasks.words",
    "tasks": "tasks.envs tasks.registry",
    "tasks.gymnasium_ids": "tasks",
    "tasks.trackmania": "tasks.config tasks.envs tasks.experience tasks.game tasks.laps tasks.live tasks.points "
    "tasks.recordings tasks.sim",
    "tasks.film": "tasks.game tasks.pictures tasks.process tasks.sim tasks.trackmania tasks.words",
    # acting, in this process and in others
    "tasks.acting": "tasks.config tasks.envs tasks.experience tasks.process tasks.registry tasks.words",
    "tasks.remote.config": "tasks.words",
    "tasks.remote.wire": "tasks.experience",
    "tasks.remote.access": "tasks.remote.config tasks.remote.wire",
    "tasks.remote.station": "tasks.experience tasks.process tasks.remote.access tasks.remote.config tasks.remote.wire",
    "tasks.remote.worker": "tasks.acting tasks.envs tasks.experience tasks.game tasks.live.controls tasks.plugins "
    "tasks.process tasks.remote.access tasks.remote.config tasks.remote.station tasks.remote.wire tasks.words",
    "tasks.remote.relay": "tasks.experience tasks.process tasks.remote.access tasks.remote.config "
    "tasks.remote.station tasks.remote.wire",
    "tasks.remote.launch": "tasks.remote.config tasks.remote.station tasks.remote.worker",
    "tasks.remote.learner": "tasks.acting tasks.config tasks.envs tasks.experience tasks.plugins tasks.process "
    "tasks.registry tasks.remote.access tasks.remote.config tasks.remote.launch tasks.remote.station "
    "tasks.remote.wire tasks.remote.worker",
    "tasks.registration": "tasks.registry tasks.remote.learner",
    # people at the game
    "tasks.roles.config": "tasks.words",
    "tasks.roles.picture_window": "",
    "tasks.roles.overlay": "tasks.game",
    "tasks.roles.recording": "tasks.game tasks.roles.config tasks.trackmania",
    "tasks.roles.recording_files": "tasks.config tasks.game tasks.pictures tasks.points tasks.process "
    "tasks.recordings tasks.roles.config tasks.roles.recording tasks.sim",
    "tasks.roles.benchmark": "tasks.acting tasks.config tasks.envs tasks.experience tasks.game tasks.process "
    "tasks.registry tasks.roles.config tasks.words",
    "tasks.roles.calibrate": "tasks.fidelity tasks.process tasks.sim",
    "tasks.roles.check": "tasks.config tasks.experience tasks.game tasks.live tasks.live.window "
    "tasks.pictures tasks.points tasks.process tasks.registry tasks.roles.config tasks.roles.overlay "
    "tasks.roles.picture_window tasks.sim tasks.trackmania",
    "tasks.roles.drive": "tasks.config tasks.game tasks.registry tasks.roles.config tasks.roles.overlay "
    "tasks.roles.picture_window tasks.roles.recording tasks.roles.recording_files tasks.sim tasks.trackmania",
    "tasks.roles.record": "tasks.config tasks.game tasks.live.telemetry tasks.live.window tasks.recordings "
    "tasks.roles.config tasks.roles.drive tasks.roles.recording tasks.roles.recording_files tasks.sim "
    "tasks.trackmania",
    "tasks.roles.report": "tasks.laps tasks.pictures tasks.process",
    "tasks.roles.dispatch": "tasks.config tasks.live tasks.remote.access tasks.remote.config tasks.remote.relay "
    "tasks.roles.calibrate tasks.roles.check tasks.roles.config tasks.roles.drive tasks.roles.record "
    "tasks.roles.report tasks.words",
    # learning
    "algos.config": "tasks.config tasks.process tasks.remote.config tasks.roles.config tasks.words",
    "algos.networks": "algos.config tasks.experience",
    "algos.learning": "tasks.acting tasks.experience",
    "algos.replay": "tasks.experience tasks.process",
    "algos.algorithms": "algos.config algos.networks algos.replay tasks.experience",
    "algos.acting": "algos.config algos.networks tasks.experience tasks.words",
    "algos.run": "algos.config tasks.experience tasks.pictures tasks.process tasks.trackmania tasks.words",
    "algos.faces": "algos.acting algos.algorithms algos.config algos.learning algos.networks algos.replay algos.run "
    "tasks.acting tasks.config tasks.experience tasks.film tasks.laps tasks.process tasks.registry tasks.trackmania "
    "tasks.words",
    "algos.export": "algos.acting algos.config algos.faces algos.run tasks.config tasks.experience tasks.process "
    "tasks.registry",
    # the command line, where both sides meet
    "train": "algos.config algos.export algos.faces algos.run tasks.acting tasks.config tasks.envs tasks.game "
    "tasks.live tasks.plugins tasks.process tasks.registration tasks.registry tasks.remote.access "
    "tasks.remote.launch tasks.remote.worker tasks.roles.benchmark tasks.roles.dispatch tasks.trackmania "
    "tasks.words",
}
"""Every room, from the ground up, and the rooms that its files import: only rooms that stand above it in this table.

A room is a folder; of ``tasks``, ``tasks.remote`` and ``tasks.roles``, which have folders inside, each file is one.
"""
IN_PROCESS = {"algos.faces.agent": {"tasks"}, "algos.faces.players": {"tasks"}}
"""``synchronous=true`` and ``--play`` act in the learner's own process, so these two build environments themselves."""
FOLDERS_WITH_ROOMS = {"tasks", "tasks.remote", "tasks.roles"}
RL_GAMES_FILES = {
    "train.py",
    "tasks/remote/learner/batch_vecenv.py",
    "tasks/registration.py",
    "tasks/remote/learner/vecenv.py",
    "algos/faces/registration.py",
    "algos/faces/rl_games_parts.py",
    "algos/faces/agent.py",
    "algos/faces/players.py",
    "algos/faces/task_env.py",
    "algos/faces/ppo.py",
}
OPERATING_SYSTEM = {"mss", "vgamepad", "libevdev", "Xlib", "win32api", "win32gui", "ctypes"}


def sources() -> list[Path]:
    files = [ROOT / "train.py", *(ROOT / "tasks").rglob("*.py"), *(ROOT / "algos").rglob("*.py")]
    return sorted(path for path in files if path.exists())


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    """Dotted names of everything the file imports, at the top or at use; type-checking imports too."""
    found: list[str] = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} uses a relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(found)


@cache
def calls_of(path: Path) -> tuple[tuple[str, ast.Call], ...]:
    """Dotted name and node of each call."""
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    return tuple((ast.unparse(call.func), call) for call in calls if isinstance(call.func, ast.Attribute | ast.Name))


def importing(is_meant: Callable[[str], bool]) -> dict[str, list[str]]:
    """What each file imports that is meant, by the file's name; files that import none of it are left out."""
    found = {name_of(path): [name for name in imports_of(path) if is_meant(name)] for path in sources()}
    return {name: imported for name, imported in found.items() if imported}


def all_calls() -> Iterator[tuple[str, str, ast.Call]]:
    """File and line, dotted name and node of each call in the project."""
    for path in sources():
        yield from ((f"{name_of(path)}:{call.lineno}", name, call) for name, call in calls_of(path))


def keyword_is(call: ast.Call, name: str, value: object) -> bool:
    values = [k.value for k in call.keywords if k.arg == name]
    return len(values) == 1 and isinstance(values[0], ast.Constant) and values[0].value is value


def is_under(imported: str, package: str) -> bool:
    return imported == package or imported.startswith(f"{package}.")


@cache
def modules() -> dict[str, Path]:
    return {module_of(path): path for path in sources()}


def room_of(module: str) -> str:
    folder = module.rpartition(".")[0]
    is_package = modules()[module].name == "__init__.py"
    return module if is_package or not folder or folder in FOLDERS_WITH_ROOMS else folder


@cache
def own_imports(module: str) -> frozenset[str]:
    """The modules of this project that one module imports, at the top or at use."""
    found = set()
    for name in imports_of(modules()[module]):
        while name and name not in modules():
            name = name.rpartition(".")[0]
        found |= {name} - {"", module}
    return frozenset(found)


def test_the_table_of_rooms_lists_each_room_after_those_that_it_imports() -> None:
    above: set[str] = set()
    for room, imported in ROOMS.items():
        assert set(imported.split()) <= above, f"{room} imports a room that stands below it in the table"
        above.add(room)


def test_rooms_import_what_the_table_says() -> None:
    arrows: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module in modules():
        room = room_of(module)
        if room in ROOMS:
            imported = {room_of(name) for name in own_imports(module)} - {room} - IN_PROCESS.get(module, set())
            arrows[room] |= imported
        else:
            assert not own_imports(module), f"{module}: {room} is missing in the table of rooms"
    assert {room: " ".join(sorted(names)) for room, names in arrows.items()} == {
        room: " ".join(sorted(names.split())) for room, names in ROOMS.items()
    }


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = {module: own_imports(module) for module in modules()}
    while ready := [module for module, needed in imports.items() if not needed & imports.keys()]:
        for module in ready:
            del imports[module]
    assert not imports, f"in a circle, or above one: {sorted(imports)}"


def test_only_named_modules_import_rl_games() -> None:
    assert importing(lambda name: is_under(name, "rl_games")).keys() <= RL_GAMES_FILES


def test_the_operating_system_is_touched_only_by_the_live_game() -> None:
    files = importing(lambda name: name.split(".")[0] in OPERATING_SYSTEM)
    assert not [file for file in files if not file.startswith(("tasks/live/", "tasks/stand_in/"))]


def test_the_simulator_needs_no_torch() -> None:
    files = importing(lambda name: is_under(name, "torch"))
    assert not [file for file in files if file.startswith(("tasks/sim/", "tasks/trackmania/"))]


def test_no_file_can_run_code_by_being_read() -> None:
    pickles = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    assert not importing(lambda name: name.split(".")[0] in pickles)
    for where, name, call in all_calls():
        if name == "torch.load":
            assert keyword_is(call, "weights_only", True), f"{where}: torch.load needs weights_only=True"
        assert not keyword_is(call, "allow_pickle", True), f"{where}: allow_pickle=True"
        assert name not in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}, f"{where}: use yaml.safe_load"
        assert name not in {"eval", "exec"}, f"{where}: {name}"


def test_nothing_is_drawn_from_a_global_generator() -> None:
    # Seeding and saving the global ones is allowed: rl_games draws from them.
    kept = {f"{module}.{name}" for module in ("np.random", "random") for name in ("seed", "get_state", "set_state")}
    kept |= {"random.getstate", "random.setstate", "np.random.Generator", "np.random.PCG64", "np.random.SeedSequence"}
    for where, name, _ in all_calls():
        if name.startswith(("np.random.", "numpy.random.", "random.")):
            assert name in kept or name.startswith("np.random.default_rng"), f"{where}: {name}"


def test_every_module_has_a_docstring() -> None:
    written = [path for path in sources() if path.stat().st_size]
    assert not [name_of(path) for path in written if not ast.get_docstring(tree_of(path))]


def test_no_module_has_a_vague_name_or_that_of_a_package() -> None:
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
assert "torch._inductor.compile_fx" not in sys.modules, "torch's compiler is imported at use"
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
