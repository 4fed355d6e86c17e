"""The workers of a run: a table in the live panel, and plain lines elsewhere. ``console`` shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.experience.worker_status import WorkerStatus

if TYPE_CHECKING:
    from rich.table import Table

MAX_ROWS = 16
"""Workers that are shown; of more, those that matter most."""
HEADINGS = ("worker", "from", "samples/s", "weights", "age", "not stored", "dropped", "twice", "round trip", "MB")


def lines(workers: Sequence[WorkerStatus]) -> list[str]:
    """A line for each worker from elsewhere, and for each that hangs, for streams without a panel."""
    shown, num_hidden = _selected([worker for worker in workers if worker.address or worker.hangs_for_s])
    texts = [_line(worker) if worker.address else f"  {worker.name} {_hanging(worker)}" for worker in shown]
    return texts + ([f"  and {num_hidden} workers more"] if num_hidden else [])


def table(workers: Sequence[WorkerStatus]) -> Table | None:
    """A row for each worker that makes samples, and for an evaluator that hangs; None when there is none."""
    from rich.table import Table
    from rich.text import Text

    told = [worker for worker in workers if worker.role != "evaluator" or worker.hangs_for_s]
    shown, num_hidden = _selected(told)
    if not shown:
        return None
    made = Table(box=None, expand=True, padding=(0, 1), header_style="dim")
    for index, heading in enumerate(HEADINGS):
        made.add_column(heading, justify="left" if index < 2 else "right", no_wrap=True)
    for worker in shown:
        made.add_row(*(Text(cell) for cell in _cells(worker)), style="red" if _is_in_trouble(worker) else "")
    if num_hidden:
        made.add_row(Text(f"and {num_hidden} more", style="dim"))
    return made


def host_of(address: str) -> str:
    """The host in what gRPC calls a peer, such as ipv4:10.0.0.7:51234; "here" for an empty one."""
    if not address:
        return "here"
    kind, _, rest = address.partition(":")
    host = rest.rpartition(":")[0] if kind in ("ipv4", "ipv6") else address
    return host.replace("%5B", "[").replace("%5D", "]").removeprefix("[").removesuffix("]")


def _selected(workers: Sequence[WorkerStatus]) -> tuple[list[WorkerStatus], int]:
    """The workers to show, by name, and how many are left out: first disconnected ones, then those that send least.

    Those that hang are shown in any case.
    """
    by_weight = sorted(
        workers, key=lambda worker: (not worker.hangs_for_s, not worker.connected, -worker.samples_per_s)
    )
    shown = sorted(by_weight[:MAX_ROWS], key=lambda worker: worker.name)
    return shown, len(workers) - len(shown)


def _cells(worker: WorkerStatus) -> tuple[str, ...]:
    return (
        worker.name,
        host_of(worker.address) if worker.connected else "gone",
        _hanging(worker) if worker.hangs_for_s else f"{worker.samples_per_s:,.1f}",
        f"{worker.weights_version:,}",
        _known(worker.weights_age_s, "{:,.1f} s"),
        f"{worker.unacknowledged:,}",
        f"{worker.dropped:,}",
        f"{worker.duplicates:,}",
        _known(worker.round_trip_ms, "{:,.0f} ms"),
        f"{worker.bytes / 1e6:,.1f}",
    )


def _line(worker: WorkerStatus) -> str:
    where = f"from {host_of(worker.address)}" if worker.connected else "gone"
    parts = [
        f"  {worker.name} {where}",
        _hanging(worker) if worker.hangs_for_s else f"{worker.samples_per_s:,.1f} samples/s",
        f"weights {worker.weights_version:,} ({_known(worker.weights_age_s, '{:,.1f} s')} old)",
        f"not stored {worker.unacknowledged:,}",
        f"dropped {worker.dropped:,}",
        f"round trip {_known(worker.round_trip_ms, '{:,.0f} ms')}",
    ]
    return " | ".join(parts)


def _is_in_trouble(worker: WorkerStatus) -> bool:
    return bool(worker.hangs_for_s) or not worker.connected


def _hanging(worker: WorkerStatus) -> str:
    return f"has not stepped for {worker.hangs_for_s:,.0f} s"


def _known(value: float, pattern: str) -> str:
    return "?" if math.isnan(value) else pattern.format(value)
