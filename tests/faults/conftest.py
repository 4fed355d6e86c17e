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

_ROWS = pytest.StashKey[list[table.Row]]()
_IS_WHOLE = pytest.StashKey[bool]()


class AddRow(Protocol):
    """Adds the row of the fault that a test is marked with."""

    def __call__(self, account: Account, remark: str = "") -> None:
        """Adds a row of the table; fails when a sample was lost or doubled."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-table", metavar="PATH", help="also write the table of the fault suite to this file")


def pytest_configure(config: pytest.Config) -> None:
    rows: list[table.Row] = []
    config.stash[_ROWS] = rows
    config.stash[_IS_WHOLE] = False


def pytest_collection_finish(session: pytest.Session) -> None:
    named = {_fault(item) for item in session.items} - {None}
    # A run of single tests prints single rows.
    is_part = session.config.option.keyword or any("::" in str(arg) or ".py" in str(arg) for arg in session.config.args)
    session.config.stash[_IS_WHOLE] = bool(named) and not is_part


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    rows = config.stash[_ROWS]
    if config.stash[_IS_WHOLE] and not config.option.collectonly and table.missing(rows):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[_ROWS]
    if not rows:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(table.as_text(rows))
    if config.stash[_IS_WHOLE]:
        for fault in table.missing(rows):
            terminalreporter.write_line(f"MISSING: no row for {fault!r}", red=True)
    path = config.getoption("--faults-table", None)
    if path is not None:
        table.write_page(Path(path), rows, table.conditions())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fault = _fault(item)
    if fault is not None and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        item.config.stash[_ROWS].append(table.Row(fault, None, 0.0, reason.removeprefix("Skipped: ")))
    return report


@pytest.fixture
def add_row(request: pytest.FixtureRequest) -> AddRow:
    """Adds the row of the fault that the test is marked with; fails when a row was lost or doubled."""
    fault = _fault(request.node)
    assert fault in table.FAULTS, f"{fault!r} is not in the table"
    began_s = time.monotonic()

    def add(account: Account, remark: str = "") -> None:
        row = table.Row(str(fault), account, time.monotonic() - began_s, remark)
        request.config.stash[_ROWS].append(row)
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
