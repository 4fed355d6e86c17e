"""The table of the fault suite: one row for each named fault, printed at the end and written for the docs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from tests.faults.audit import Account

FAULTS = {
    "connection cut (RST) for 8 s": "A proxy resets the connection, and every new one, for 8 s.",
    "silent hole for 25 s": "A proxy holds back what either side sends for 25 s, then delivers it.",
    "packets dropped for 35 s": (
        "Packets between two network namespaces are dropped for 35 s, longer than the keepalive timeout; both sides "
        "close the connection. **Root.**"
    ),
    "half-open peers": (
        "Five times one end of the connection dies and the other end does not notice, at the worker or at the learner. "
        "The learner admits one worker only, so a stale connection could keep the worker out."
    ),
    "slow network": "One worker has 50 kB/s; it must not delay another worker.",
    "learner killed (kill -9) twice": "While it has unstored segments in memory; restarted with its replay.",
    "worker killed (kill -9)": "Twice, with its station, while it has a backlog; restarted with its outbox.",
    "station killed (kill -9) twice": "The process with outbox and connection is killed; the worker keeps driving.",
    "learner and worker killed at once": "Twice: once the worker is restarted first, once the learner.",
    "train.py killed (kill -9), resumed from its checkpoint": (
        "The whole program on TM20Lidar, with `train.py --worker`; `checkpoint=` resumes it. Counted in segments."
    ),
    "disk full under train.py": (
        "The working directory is on a small tmpfs that is filled and freed during training, with "
        "`train.py --worker`; counted in segments. Log, checkpoints and stored replay continue when there is space, "
        "and Ctrl-C ends the program within 5 s. **Root.**"
    ),
    "learner slowed to 1 segment/s": "`worker.outbox_policy=pause` with an outbox of seven segments: the worker waits.",
    "relay killed (kill -9)": "Twice; restarted each time.",
    "learner and relay killed while a backlog is on its way": (
        "First the learner, while it has many unstored segments in memory, then the relay; both are restarted."
    ),
    "learner away from a relay": "The learner is killed; workers keep everything until it is restarted.",
    "learner behind a relay slowed to 1 segment/s": (
        "`worker.outbox_policy=pause` with an outbox of seven segments: the worker waits, and the relay holds no more "
        "than these."
    ),
    "disk full at the worker, it pauses": (
        "The outbox is on a small tmpfs, and the learner is unreachable until the tmpfs is full. **Root.**"
    ),
    "disk full at the worker, it drops": (
        "The same with `worker.outbox_policy=drop_oldest`: worker and learner count the dropped segments. **Root.**"
    ),
    "disk full at the learner": (
        "The stored replay is on a small tmpfs: the learner continues without storing, counts the rows that it leaves "
        "out, and stores again when there is space. **Root.**"
    ),
    "16 workers at once": "They share four names and four outbox folders.",
    "clock jumps": (
        "The time of day of worker and learner jumps by hours, forwards and back (through a preloaded library)."
    ),
    "malformed, huge, truncated and replayed messages": (
        "An attacker with a worker's token sends invalid messages. Another one, with the token of the worker that "
        "drives, sends all of its segments again."
    ),
    "10,000 fuzzed messages": (
        "Random changes of valid messages for the learner's methods Push, Hello, Ping and Report, and random bytes at "
        "its port without a token; its memory must not grow."
    ),
    "2,000 fuzzed messages at a relay": "The same at a relay, also for the methods that only a learner may call.",
}
"""Each fault and how it is made; each must have a row. **Root**: only root can make it."""

_HEADER = ("fault", "sent", "stored", "lost", "doubled", "dropped", "seconds", "remark")


class Row(NamedTuple):
    """How one fault ended."""

    fault: str
    account: Account | None
    """None: the test was skipped."""
    seconds: float
    remark: str

    def cells(self) -> tuple[str, ...]:
        """As text."""
        account = self.account
        counts = ("",) * 5 if account is None else tuple(f"{count:,}" for count in account)
        return (self.fault, *counts, f"{self.seconds:.0f}", self.remark)

    def to_json(self) -> str:
        """As one line, for another process."""
        return json.dumps(self)

    @classmethod
    def from_json(cls, line: str) -> Row:
        """The inverse of ``to_json``."""
        fault, account, seconds, remark = json.loads(line)
        return cls(fault, None if account is None else Account(*account), seconds, remark)


def missing(rows: Sequence[Row]) -> list[str]:
    """Named faults without a row."""
    present = {row.fault for row in rows}
    return [fault for fault in FAULTS if fault not in present]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Rows in the order of ``FAULTS``; others last."""
    places = {fault: place for place, fault in enumerate(FAULTS)}
    return sorted(rows, key=lambda row: places.get(row.fault, len(places)))


def as_text(rows: Sequence[Row]) -> str:
    """The table as aligned text for a terminal."""
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
    """The table in Markdown for the docs."""
    lines = [_HEADER, ("---", *("---:",) * (len(_HEADER) - 2), "---"), *(row.cells() for row in in_order(rows))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_page(path: Path, rows: Sequence[Row], conditions: str) -> None:
    """Writes the page of the docs.

    Args:
        path: File of the page.
        rows: Results of the faults.
        conditions: Machine and date.
    """
    faults = "\n".join(
        ("| fault | what is done |", "|---|---|", *(f"| {name} | {what} |" for name, what in FAULTS.items()))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _PAGE.format(faults=faults, conditions=conditions, rows=as_markdown(rows))
    path.write_text(text, encoding="utf-8")


def conditions() -> str:
    """This machine and today's date."""
    python = f"Python {platform.python_version()}"
    return (
        f"{date.today().isoformat()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors, {python}"
    )


_PAGE = """\
# What faults do to the samples

Written by `make test-faults ARGS="--faults-table docs/faults.md"`; do not edit it by hand.

```bash
make test-faults                                             # all of it, six to ten minutes; run nothing else
.venv/bin/python -m pytest -m faults tests/faults -k relay   # some of it
```

Learner, relay and workers run as separate processes, connected with TLS and tokens as in [remote.md](remote.md). Their
environment numbers its rows 1, 2, 3, ... At the end of a test the suite stops the learner and reads its stored replay
as a resumed run does. A missing or duplicated row fails the test.

Small disks and network namespaces need root on Linux, the clock test needs a C compiler. A test that cannot run is
skipped with one line; with `TM_REQUIRE_ROOT_FAULTS=1` it fails instead, as in continuous integration.

## The faults

{faults}

## Results

{conditions}

{rows}

- **sent**: rows that the worker collected; if it was killed, rows that its outbox had taken.
- **stored**: distinct rows in the stored replay, each with the image and the reward of its number.
- **lost**: sent, but neither stored nor dropped. **doubled**: stored more than once. Both must be 0.
- **dropped**: discarded and counted by a full outbox with `worker.outbox_policy=drop_oldest`, or by a learner whose
  disk was full.
- **seconds**: for the whole test, including the start and end of the processes.
"""
