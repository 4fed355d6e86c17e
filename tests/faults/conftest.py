"""Fixtures of the fault suite, and its table: every named fault must have a row when the whole suite runs."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tasks.remote.access.credentials import make_credentials
from tests.faults import namespaces, table
from tests.faults.audit import Account
from tests.faults.rig import Rig

NUM_WORKERS = 4
"""Names for which there are tokens: w0, w1, ..."""

_ROW = "fault"
"""Name of the property of a test that holds its row."""


class AddRow(Protocol):
    """Adds the row of the fault that a test is marked with."""

    def __call__(self, account: Account, remark: str = "") -> None:
        """Adds a row of the table; fails when a sample was lost or doubled."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-table", metavar="PATH", help="also write the table of the fault suite to this file")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # pytest-xdist's processes pass their rows on
        config.pluginmanager.register(FaultTable(config))


class FaultTable:
    """Collects the rows of all tests, in whichever process they ran, and prints them at the end.

    Args:
        config: Tells which tests were asked for.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._rows: list[table.Row] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test has ended; the last one repeats the properties of the others."""
        if report.when != "teardown":
            self._rows += [table.Row.from_json(str(value)) for name, value in report.user_properties if name == _ROW]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """All tests have ended."""
        if self._missing():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Prints the table and the faults without a row."""
        if not self._rows:
            return
        terminalreporter.section("faults")
        terminalreporter.write_line(table.as_text(self._rows))
        for fault in self._missing():
            terminalreporter.write_line(f"MISSING: no row for {fault!r}", red=True)
        path = self._config.getoption("--faults-table", None)
        if path is not None:
            table.write_page(Path(path), self._rows, table.conditions())

    def _missing(self) -> list[str]:
        """Faults that have no row after a run of the whole suite; a run of single tests prints single rows."""
        is_part = self._config.option.keyword or any("::" in arg or ".py" in arg for arg in self._config.args)
        return [] if is_part or not self._rows else table.missing(self._rows)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fault = _fault(item)
    if fault is not None and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        row = table.Row(fault, None, 0.0, reason.removeprefix("Skipped: "))
        report.user_properties.append((_ROW, row.to_json()))
    return report


@pytest.fixture
def add_row(request: pytest.FixtureRequest) -> AddRow:
    """Adds the row of the fault that the test is marked with; fails when a row was lost or doubled."""
    fault = _fault(request.node)
    assert fault in table.FAULTS, f"{fault!r} is not in the table"
    began_s = time.monotonic()

    def add(account: Account, remark: str = "") -> None:
        row = table.Row(str(fault), account, time.monotonic() - began_s, remark)
        request.node.user_properties.append((_ROW, row.to_json()))
        assert account.is_exact, table.as_text([row])

    return add


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the product makes for a learner, a relay and some workers."""
    folder = tmp_path_factory.mktemp("credentials")
    make_credentials(folder, [namespaces.LEARNER], [f"w{index}" for index in range(NUM_WORKERS)])
    return folder


@pytest.fixture
def rig(tmp_path: Path, credentials: Path) -> Iterator[Rig]:
    """Processes and a network to break; all end with the test."""
    with Rig(tmp_path, credentials) as rig:
        yield rig


def _fault(item: pytest.Item) -> str | None:
    marker = item.get_closest_marker("fault")
    return None if marker is None else str(marker.args[0])
