"""Lets programs take turns, so that a busy machine disturbs them alike; and measures calls per second."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.rows.row import Case, Program

WARM_UP_S = 0.05


def take_turns(case: Case, turns: int, seconds: float, report: Callable[[str, str], None]) -> list[dict[str, float]]:
    """Runs each program once in each turn, in every other turn from the last to the first.

    Args:
        case: Whose programs run.
        turns: How many.
        seconds: Of each program in each turn.
        report: Is told which turn it is, and what runs now.

    Returns:
        The rates of each turn, by title.
    """
    programs, titles = case.programs, list(case.programs)
    for title in titles if case.has_warm_up else ():
        report("warm-up", title)
        programs[title](WARM_UP_S)
    measured = []
    for turn in range(turns):
        rates = {}
        for title in titles if turn % 2 == 0 else reversed(titles):
            report(f"turn {turn + 1} of {turns}", title)
            rates[title] = programs[title](seconds)
        measured.append(rates)
    return measured


def calls_per_second(
    function: Callable[[], object],
    clock: Callable[[], float] = time.process_time,
    settle: Callable[[], object] = lambda: None,
) -> Program:
    """A program that calls a function again and again.

    Args:
        function: What is measured.
        clock: CPU time of this process, which other programs on the machine disturb little; ``time.perf_counter`` for
            work that more than one processor does.
        settle: Waits until everything that was asked for is done (on a GPU).
    """

    def run(seconds: float) -> float:
        function()
        settle()
        start, calls = clock(), 0
        while clock() - start < seconds or calls < 2:
            function()
            calls += 1
        settle()
        return calls / (clock() - start)

    return run
