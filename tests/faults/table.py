"""The table of the fault suite: one row for each named fault, printed at the end and written for the docs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.faults.audit import Account

NAMED_FAULTS = (
    "connection cut (RST) for 8 s",
    "silent hole for 25 s",
    "packets dropped for 35 s",
    "half-open peers",
    "slow network",
    "learner killed (kill -9) twice",
    "worker killed (kill -9)",
    "courier killed (kill -9) twice",
    "learner and worker killed at once",
    "train.py killed (kill -9), resumed from its checkpoint",
    "learner slowed to 1 segment/s",
    "relay killed (kill -9)",
    "relay's disk destroyed",
    "learner away, relay spools",
    "disk full at the worker, it pauses",
    "disk full at the worker, it drops",
    "disk full at the learner",
    "disk full at the relay",
    "16 workers at once",
    "clock jumps",
    "malformed, huge, truncated and replayed messages",
    "10,000 fuzzed messages",
    "2,000 fuzzed messages at a relay",
)
"""What must have a row."""

_HEADER = ("fault", "sent", "stored", "lost", "doubled", "dropped", "seconds", "remark")


class Row(NamedTuple):
    """What came of one fault."""

    fault: str
    account: Account | None
    """None: it could not be tried here."""
    seconds: float
    remark: str

    def cells(self) -> tuple[str, ...]:
        """As text."""
        account = self.account
        counts = ("",) * 5 if account is None else tuple(f"{count:,}" for count in account)
        return (self.fault, *counts, f"{self.seconds:.0f}", self.remark)


def missing(rows: Sequence[Row]) -> list[str]:
    """Named faults without a row."""
    present = {row.fault for row in rows}
    return [fault for fault in NAMED_FAULTS if fault not in present]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """As they are named; others last."""
    places = {fault: place for place, fault in enumerate(NAMED_FAULTS)}
    return sorted(rows, key=lambda row: places.get(row.fault, len(places)))


def as_text(rows: Sequence[Row]) -> str:
    """For a terminal."""
    lines = [_HEADER, *(row.cells() for row in in_order(rows))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    texts = [
        "  ".join(
            cell.rjust(width) if 0 < column < len(_HEADER) - 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(text.rstrip() for text in texts)


def as_markdown(rows: Sequence[Row]) -> str:
    """For the docs."""
    lines = [_HEADER, ("---", *("---:",) * (len(_HEADER) - 2), "---"), *(row.cells() for row in in_order(rows))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_page(path: Path, rows: Sequence[Row]) -> None:
    """Writes the page of the docs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{_PAGE}\n{as_markdown(rows)}\n", encoding="utf-8")


_PAGE = """\
# What faults do to the samples

Written by `make test-faults ARGS="--faults-table docs/faults.md"`; do not edit it by hand. Each row is one test of
`tests/faults`: learner, relay and workers are processes of their own, connected with TLS and tokens, and driven by an
environment that numbers its rows 1, 2, 3, ... After the fault the learner is ended, and its stored replay is read as a
resumed run reads it.

- **sent**: rows that the worker had taken into its outbox, or, where it was not killed, rows that it drove.
- **stored**: different rows in the stored replay, each with the picture and the reward that belong to its number.
- **lost**: sent, but neither stored nor dropped. **doubled**: stored once too often. Both must be 0.
- **dropped**: given up by an outbox that was full, as `worker.outbox_policy=drop_oldest` asks for, and counted there.
- **seconds**: of the whole test, starting and ending the processes included.
"""
