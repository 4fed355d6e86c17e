"""Measures the rows of the project's table, prints them, and appends them to a file as one line of JSON.

    python -m benchmarks.rows [--only CASE ...] [--turns 5] [--seconds 2] [--json FILE]
    python -m benchmarks.rows --gpu

The programs of a case take turns, so that a busy machine disturbs them alike. A row's figure is the median of the
turns; beside it are the quartiles and the range. Run nothing else on the machine meanwhile. ``--gpu`` measures updates
on a CUDA device and needs torch and numpy alone. ``benchmarks.rows.check`` compares with stored figures.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.rows import cases, record
from benchmarks.rows.row import Result, results, skipped_because
from benchmarks.rows.turns import take_turns

LEAST_TURNS = 2


def main(words: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit status."""
    options = _options(words)
    device = torch.device(options.device)
    if options.gpu and device.type == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("benchmarks.rows: --gpu needs a CUDA device that torch can use; there is none\n")
        return 2
    names = ["gpu"] if options.gpu else options.only or list(cases.CPU_CASES)
    before = record.load()
    print(f"{record.machine()}\n{record.versions()}\nload {before:.1f} before", flush=True)
    measured: list[Result] = []
    skipped: dict[str, str] = {}
    failed = []
    for index, name in enumerate(names, start=1):
        try:
            found, missing = _measure(name, f"[{index}/{len(names)}] {name}", device, options)
        except Exception as error:  # one broken case must not cost the others
            traceback.print_exc()
            failed.append(name)
            skipped[name] = f"failed: {error!r}"
            continue
        measured += found
        skipped |= missing
    settings = {"turns": options.turns, "seconds": options.seconds, "device": str(device)}
    line = record.entry(measured, skipped, (before, record.load()), settings)
    record.append(options.json, line)
    print(f"\n{table(measured)}")
    for name, reason in skipped.items():
        print(f"{name}: skipped, {reason}")
    print(cases.LEARNING)
    print(f"load {line['load'][0]} before, {line['load'][1]} after; appended to {options.json}")
    if failed:
        sys.stderr.write(f"benchmarks.rows: failed: {', '.join(failed)}\n")
    return 1 if failed else 0


def table(measured: Sequence[Result]) -> str:
    """One line for each row."""
    lines = [f"{'row':24}{'figure':>10}{'quartiles':>18}{'range':>18}{'bar':>10}  {'':8}what"]
    for result in measured:
        row = result.row
        bar = "" if row.bar is None else f"{'<=' if row.is_most else '>='} {row.bar:g}"
        verdict = {True: "met", False: "MISSED", None: ""}[result.is_met]
        rates = ", ".join(f"{title} {_short(rate)}" for title, rate in result.rates.items())
        lines.append(
            f"{row.name:24}{_short(result.ratio):>10}{_span(result.quartiles):>18}"
            f"{_span((min(result.values), max(result.values))):>18}{bar:>10}  {verdict:8}"
            f"{row.work}: {row.measure} ({rates})"
        )
    return "\n".join(lines)


class Progress:
    """Says what runs: on a terminal in one line that is written anew, elsewhere in a line for each turn."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._stage = ""
        self._is_terminal = sys.stdout.isatty()

    def report(self, stage: str, program: str) -> None:
        """Takes note of the turn and of the program that begins."""
        if self._is_terminal:
            print(f"\r\033[K{self._title}: {stage} {program}", end="", flush=True)
        elif stage != self._stage:
            print(f"{self._title}: {stage}", flush=True)
        self._stage = stage

    def end(self) -> None:
        """Removes the line from the terminal."""
        if self._is_terminal:
            print("\r\033[K", end="", flush=True)


def _measure(
    name: str, title: str, device: torch.device, options: argparse.Namespace
) -> tuple[list[Result], dict[str, str]]:
    """The rows of a case, and why others of it are missing."""
    progress = Progress(title)
    progress.report("preparing", "")
    case = cases.make(name, device)
    turns = take_turns(case, options.turns, options.seconds, progress.report)
    found = results(case, turns)
    progress.end()
    print(table(found), flush=True)
    return found, {row.name: reason for row in case.rows if (reason := skipped_because(case, row))}


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(cases.CPU_CASES), help="these cases")
    parser.add_argument("--gpu", action="store_true", help="the updates on a GPU instead")
    parser.add_argument("--device", default="cuda", help="with --gpu: cuda, cuda:N, or cpu to try it out")
    parser.add_argument("--turns", type=int, default=5, help="turns of each program")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each program in each turn")
    parser.add_argument("--json", type=Path, default=record.HISTORY, help="file to append to")
    options = parser.parse_args(words)
    if options.turns < LEAST_TURNS:
        parser.error(f"--turns must be >= {LEAST_TURNS}, got {options.turns}")
    if options.seconds <= 0:
        parser.error(f"--seconds must be > 0, got {options.seconds}")
    if options.gpu and options.only:
        parser.error("--only chooses cases of the CPU; leave it out with --gpu")
    return options


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _span(ends: tuple[float, float]) -> str:
    return f"{_short(ends[0])} to {_short(ends[1])}"


if __name__ == "__main__":
    sys.exit(main())
