"""Rows and the cases that measure them: programs that take turns, and which two of them a row compares.

Plain data and arithmetic; ``turns`` runs the programs, ``record`` stores what came out.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Program = Callable[[float], float]
"""Runs for about so many seconds and gives its rate: updates, steps, operations or bytes, per second or in all."""


@dataclass(frozen=True)
class Row:
    """One line of the table: the rate of a program over that of another, and the bar for it."""

    name: str
    work: str
    measure: str
    top: str
    """Title of the program that is compared."""
    bottom: str | None = None
    """Title of the program that it is compared with; None: the rate of ``top`` itself is the figure."""
    bar: float | None = None
    """What is to be reached; None: the row only informs."""
    is_most: bool = False
    """Whether the bar is the most that the figure may be, instead of the least."""

    @property
    def programs(self) -> tuple[str, ...]:
        """Titles of the programs that it needs."""
        return (self.top,) if self.bottom is None else (self.top, self.bottom)

    def value(self, rates: Mapping[str, float]) -> float:
        """The figure of one turn, from the rates that the programs had in it."""
        return rates[self.top] if self.bottom is None else rates[self.top] / rates[self.bottom]


@dataclass
class Case:
    """Programs that take turns, and the rows that compare them."""

    rows: Sequence[Row]
    programs: Mapping[str, Program]
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why a program that a row names is not there, such as a package that is not installed."""
    has_warm_up: bool = True
    """Whether each program runs for a moment before the first turn: caches fill, compilers run."""


@dataclass(frozen=True)
class Result:
    """What was measured of a row."""

    row: Row
    values: tuple[float, ...]
    """Its figure in each turn."""
    rates: Mapping[str, float]
    """Median rate of each of its programs."""

    @property
    def ratio(self) -> float:
        """The median of the turns."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between them lies the middle half of the turns."""
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def is_met(self) -> bool | None:
        """Whether the median reaches the bar; None without one."""
        if self.row.bar is None:
            return None
        return self.ratio <= self.row.bar if self.row.is_most else self.ratio >= self.row.bar


def results(case: Case, turns: Sequence[Mapping[str, float]]) -> list[Result]:
    """What the turns say of those rows of a case whose programs are all there."""
    return [
        Result(
            row,
            tuple(row.value(turn) for turn in turns),
            {title: statistics.median(turn[title] for turn in turns) for title in row.programs},
        )
        for row in case.rows
        if not skipped_because(case, row)
    ]


def skipped_because(case: Case, row: Row) -> str:
    """Why a row cannot be measured; empty where it can."""
    return "; ".join(case.missing[title] for title in row.programs if title in case.missing)
