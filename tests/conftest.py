"""Settings of the whole test run: one thread per numerical library, no display, nothing written into the tree.

At its end it says what system packages would have kept tests from being skipped; it installs none.
"""

import os

import pytest

# Before numpy and torch are imported: tests run beside worker processes, and small problems lose time to threads.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for all tests that lack a system package, with the command that installs it."""
    from tests.tasks.game_io.displays import APT_COMMAND

    count = sum(APT_COMMAND in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    if count:
        terminalreporter.write_line(f"{count} tests were skipped for want of system packages: {APT_COMMAND}")
