"""Settings of the whole test run: one thread per numerical library, no display, nothing written into the tree.

At the end one line names the system packages whose lack made tests skip; none is installed.
"""

import os
import signal
import subprocess
import sys

import pytest

# Before numpy and torch are imported: tests run beside worker processes, and small problems lose time to threads.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_configure() -> None:
    """Restores signals that are ignored in the background or under nohup; child processes would ignore them, too."""
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compiles the simulator once before pytest-xdist starts processes, so that no test pays for it."""
    is_in_charge = not hasattr(session.config, "workerinput")
    if is_in_charge and session.config.getoption("numprocesses", None) and not session.config.option.collectonly:
        subprocess.run([sys.executable, "-m", "tests.compile_simulator"], cwd=session.config.rootpath, check=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for all tests that lack a system package, with the command that installs it."""
    from tests.tasks.live.displays import APT_COMMAND

    count = sum(APT_COMMAND in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    if count:
        terminalreporter.write_line(f"{count} tests were skipped for want of system packages: {APT_COMMAND}")
