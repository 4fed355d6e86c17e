"""The table of the fault suite: one row for each named fault, printed at the end and written for the docs."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from tests.faults.audit import Account

FAULTS = {
    "connection cut (RST) for 8 s": "A proxy resets the connection, and every new one, for 8 s.",
    "silent hole for 25 s": "A proxy swallows what either side sends for 25 s, then delivers it.",
    "packets dropped for 35 s": (
        "Packets between two network namespaces are dropped for 35 s, longer than a keepalive and its answer "
        "may take; both sides give the connection up. **Root.**"
    ),
    "half-open peers": (
        "Five times one end of the connection dies and the other never hears of it, at either side; there is "
        "room for one worker only, so that a ghost would take its place."
    ),
    "slow network": "One worker has 50 kB/s; another beside it must not be held up.",
    "learner killed (kill -9) twice": (
        "While it has segments in memory that it has not stored; started again with its replay."
    ),
    "worker killed (kill -9)": "Twice, with its station, while it has a backlog; started again with its outbox.",
    "station killed (kill -9) twice": "The process that owns outbox and connection; the worker goes on driving.",
    "learner and worker killed at once": "Twice; once the learner comes back first, once the worker.",
    "train.py killed (kill -9), resumed from its checkpoint": (
        "The whole program on TM20Lidar, with `train.py --worker`; `checkpoint=` goes on. Counted in segments."
    ),
    "disk full under train.py": (
        "The working directory lies on a small tmpfs that is filled and freed while training goes on; "
        "with `train.py --worker`, counted in segments. Log, checkpoints and stored replay go on when there is room, "
        "and Ctrl-C ends within 5 s. **Root.**"
    ),
    "learner slowed to 1 segment/s": "`worker.outbox_policy=pause` with an outbox of seven segments: the worker waits.",
    "relay killed (kill -9)": "Twice; started again.",
    "learner and relay killed while a backlog is on its way": (
        "The learner with much in its memory, then the relay; both are started again."
    ),
    "learner away from a relay": "The learner is killed; workers keep everything until it is back.",
    "learner behind a relay slowed to 1 segment/s": (
        "`worker.outbox_policy=pause` with an outbox of seven segments: the worker waits, and the relay holds no more."
    ),
    "disk full at the worker, it pauses": (
        "The outbox lies on a small tmpfs, and the learner cannot be reached until it is full. **Root.**"
    ),
    "disk full at the worker, it drops": (
        "The same with `worker.outbox_policy=drop_oldest`: what is dropped is counted at both sides. **Root.**"
    ),
    "disk full at the learner": (
        "The stored replay lies on a small tmpfs: the learner goes on without storing, counts what it leaves out, "
        "and stores again when there is room. **Root.**"
    ),
    "16 workers at once": "With four names and four outbox folders between them.",
    "clock jumps": (
        "The time of day of worker and learner jumps by hours, forwards and back (a library that is preloaded)."
    ),
    "malformed, huge, truncated and replayed messages": (
        "Somebody with a worker's token sends what no worker sends, and, in the name of another, all that it "
        "has sent once more."
    ),
    "10,000 fuzzed messages": (
        "Mutations of right messages for every method of the learner, and noise at its port without a token; "
        "its memory must not grow."
    ),
    "2,000 fuzzed messages at a relay": "The same there, and the methods that only a learner may call.",
}
"""What is done to the processes; each must have a row. **Root** marks what only root can do."""

_HEADER = ("fault", "sent", "stored", "lost", "doubled", "dropped", "seconds", "remark")


class Row(NamedTuple):
    """How one fault ended."""

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
    return [fault for fault in FAULTS if fault not in present]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """As they are named; others last."""
    places = {fault: place for place, fault in enumerate(FAULTS)}
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


def write_page(path: Path, rows: Sequence[Row], conditions: str) -> None:
    """Writes the page of the docs.

    Args:
        path: Of the page.
        rows: How the faults ended.
        conditions: Machine and date.
    """
    faults = "\n".join(
        ("| fault | what is done |", "|---|---|", *(f"| {name} | {what} |" for name, what in FAULTS.items()))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _PAGE.format(faults=faults, conditions=conditions, rows=as_markdown(rows))
    path.write_text(text, encoding="utf-8")


def conditions() -> str:
    """Machine and date of a run that ends now."""
    python = f"Python {platform.python_version()}"
    return (
        f"{date.today().isoformat()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors, {python}"
    )


_PAGE = """\
# What faults do to the samples

Written by `make test-faults ARGS="--faults-table docs/faults.md"`; do not edit it by hand.

```bash
make test-faults                                             # all of it, about eight minutes; nothing else should run
.venv/bin/python -m pytest -m faults tests/faults -k relay   # some of it
```

Learner, relay and workers run as separate processes, connected with TLS and tokens as in [remote.md](remote.md). Their
environment numbers its rows 1, 2, 3, ... After the fault the learner ends, and the suite reads its stored replay as a
resumed run does. A missing or duplicated row fails the suite.

Small disks and network namespaces need root on Linux, the clock tests a C compiler. Without them the tests are skipped,
with one line each; `TM_REQUIRE_ROOT_FAULTS=1` makes them fail instead, as in continuous integration.

## The faults

{faults}

## Results

{conditions}

{rows}

- **sent**: rows in the worker's outbox or, if it was not killed, rows that it collected.
- **stored**: distinct rows in the stored replay, each with the image and the reward of its number.
- **lost**: sent, but neither stored nor dropped. **doubled**: stored more than once. Both must be 0.
- **dropped**: discarded and counted by a full outbox with `worker.outbox_policy=drop_oldest`, or by a learner whose
  disk was full.
- **seconds**: for the whole test, including the start and end of the processes.
"""
