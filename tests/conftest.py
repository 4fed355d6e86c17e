"""Settings of the whole test run: one thread per numerical library, no display, nothing written into the tree.

The longest files come first, so that no process is left with one of them at the end. One line at the end names the
system packages whose lack made tests skip; none is installed.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Before numpy and torch are imported: tests run beside worker processes, and small problems lose time to threads.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Compiled sources are kept, even where the account forbids it: hundreds of processes would each compile them again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_LONGEST_FIRST = (
    "tasks/live/test_live_end_to_end.py",
    "tasks/remote/launch/test_ray_cluster.py",
    "test_matrix.py",
    "test_train_run.py",
    "tasks/roles/test_roles_live.py",
    "algos/faces/test_agent.py",
    "tasks/remote/learner/test_vecenv.py",
    "test_examples.py",
    "tasks/remote/worker/test_remote_worker.py",
    "tasks/stand_in/test_stand_in.py",
    "algos/algorithms/test_known_answers.py",
    "test_resume_family.py",
    "tasks/remote/learner/test_vecenv_remote.py",
    "tasks/remote/learner/test_single_game.py",
    "algos/run/test_single_game.py",
    "algos/run/test_remote_training.py",
    "algos/run/test_recurrent_runs.py",
    "tasks/roles/calibrate/test_calibrate.py",
    "tasks/live/test_live_interrupt.py",
    "test_library.py",
)
_COMPILER = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_configure() -> None:
    """Restores signals that are ignored in the background or under nohup; child processes would ignore them, too."""
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compiles the simulator once where pytest-xdist starts processes, so that no test pays for it."""
    is_in_charge = not hasattr(session.config, "workerinput")
    if is_in_charge and session.config.getoption("numprocesses", None) and not session.config.option.collectonly:
        command = [sys.executable, "-m", "tests.compile_simulator"]
        session.config.stash[_COMPILER] = subprocess.Popen(command, cwd=session.config.rootpath)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any) -> None:
    """Has the processes, which have collected meanwhile, begin when the simulator is compiled."""
    if node.config.stash[_COMPILER].wait() != 0:
        pytest.exit("the simulator cannot be compiled, see above", returncode=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the longest files to the front."""
    places = {Path(__file__).parent / file: place for place, file in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for all tests that lack a system package, with the command that installs it."""
    from tests.tasks.live.displays import APT_COMMAND

    count = sum(APT_COMMAND in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    if count:
        terminalreporter.write_line(f"{count} tests were skipped for want of system packages: {APT_COMMAND}")
