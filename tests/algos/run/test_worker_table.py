"""The table of workers: name, address, rate, age of the weights, lost segments."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console as RichConsole

from algos.run.console import Console
from algos.run.worker_table import MAX_ROWS, host_of, lines, table
from tasks.experience.worker_status import WorkerStatus
from tests.algos.run.test_console import SteppedClock, Terminal, stats

REMOTE = WorkerStatus(
    name="gaming-pc.3fa2",
    role="worker",
    address="ipv4:203.0.113.5:51000",
    samples_per_s=19.84,
    segments=120,
    dropped=3,
    duplicates=1,
    unacknowledged=2,
    bytes=12_340_000,
    round_trip_ms=31.4,
    weights_version=412,
    weights_age_s=3.14,
    connected=True,
)
LOCAL = replace(REMOTE, name="worker-0.a1b2c3.1", address="", round_trip_ms=math.nan, weights_age_s=math.nan)
EVALUATOR = replace(LOCAL, name="evaluator-0.a1b2c3.1", role="evaluator")


def drawn(workers: list[WorkerStatus], width: int = 120) -> list[str]:
    stream = io.StringIO()
    shown = table(workers)
    if shown is not None:
        RichConsole(file=stream, width=width).print(shown)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_a_row_shows_all_that_is_known_of_a_worker() -> None:
    heading, remote, local = drawn([LOCAL, REMOTE, EVALUATOR])
    assert heading.split() == (
        ["worker", "from", "samples/s", "weights", "age", "not", "stored", "dropped", "twice", "round", "trip", "MB"]
    )
    assert remote.split() == (
        ["gaming-pc.3fa2", "203.0.113.5", "19.8", "412", "3.1", "s", "2", "3", "1", "31", "ms", "12.3"]
    )
    assert local.split() == ["worker-0.a1b2c3.1", "here", "19.8", "412", "?", "2", "3", "1", "?", "12.3"]


def test_a_disconnected_worker_is_marked() -> None:
    assert drawn([replace(REMOTE, connected=False)])[1].split()[1] == "gone"
    assert "gaming-pc.3fa2 gone" in lines([replace(REMOTE, connected=False)])[0]


def test_a_hanging_worker_shows_for_how_long_also_the_evaluator_and_a_local_one() -> None:
    hanging = [replace(worker, hangs_for_s=34.2) for worker in (REMOTE, LOCAL, EVALUATOR)]
    assert all("has not stepped for 34 s" in row for row in drawn(hanging, width=140)[1:])
    assert len(drawn(hanging)) == 4
    evaluator, remote, local = lines(hanging)
    assert evaluator == "  evaluator-0.a1b2c3.1 has not stepped for 34 s"
    assert remote.startswith("  gaming-pc.3fa2 from 203.0.113.5 | has not stepped for 34 s | ")
    assert local == "  worker-0.a1b2c3.1 has not stepped for 34 s"


def test_a_hanging_worker_is_shown_among_many() -> None:
    many = [replace(REMOTE, name=f"pc-{index:03d}") for index in range(3 * MAX_ROWS)]
    many[-1] = replace(many[-1], hangs_for_s=50.0)
    assert any("has not stepped for 50 s" in line for line in lines(many))


def test_without_workers_there_is_no_table() -> None:
    assert table([]) is None
    assert table([EVALUATOR]) is None
    assert lines([LOCAL, EVALUATOR]) == []


def test_plain_lines_show_remote_workers() -> None:
    (line,) = lines([LOCAL, REMOTE])
    assert line == (
        "  gaming-pc.3fa2 from 203.0.113.5 | 19.8 samples/s | weights 412 (3.1 s old) | not stored 2 | dropped 3 | "
        "round trip 31 ms"
    )


def test_of_many_workers_the_sending_ones_are_shown_and_the_others_counted() -> None:
    many = [
        replace(REMOTE, name=f"pc-{i:02d}", samples_per_s=float(i), connected=i % 2 == 0)
        for i in range(2 * MAX_ROWS + 4)
    ]
    text = lines(many)
    assert text[-1] == f"  and {len(many) - MAX_ROWS} workers more"
    shown = [line.split()[0] for line in text[:-1]]
    assert shown == [f"pc-{i:02d}" for i in range(4, 36, 2)]
    assert drawn(many)[-1].strip() == f"and {len(many) - MAX_ROWS} more"


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("ipv4:10.0.0.7:51234", "10.0.0.7"),
        ("ipv6:%5B2001:db8::1%5D:51234", "2001:db8::1"),
        ("ipv6:[::1]:51234", "::1"),
        ("unix:/tmp/socket", "unix:/tmp/socket"),
        ("", "here"),
    ],
)
def test_the_host_is_read_from_the_peer_of_grpc(address: str, host: str) -> None:
    assert host_of(address) == host


def test_the_console_shows_them_with_its_next_line() -> None:
    clock, stream = SteppedClock(), io.StringIO()
    console = Console(10_000, "run", interval_s=10.0, stream=stream, clock=clock)
    console.workers([LOCAL, REMOTE])
    console.update(stats())
    console.update(stats())
    shown = stream.getvalue().splitlines()
    assert len(shown) == 2
    assert shown[1].startswith("  gaming-pc.3fa2 from 203.0.113.5")
    clock.now_s += 10.0
    console.workers([])
    console.update(stats())
    assert len(stream.getvalue().splitlines()) == 3


def test_the_panel_has_a_table_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "130"), ("LINES", "50")):
        monkeypatch.setenv(name, value)
    stream = Terminal()
    with Console(10_000, "TM20Full", stream=stream, clock=SteppedClock()) as console:
        console.workers([REMOTE])
        console.update(stats())
    for expected in ("gaming-pc.3fa2", "203.0.113.5", "samples/s", "round trip", "31 ms"):
        assert expected in stream.getvalue()
