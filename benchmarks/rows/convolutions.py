"""How fast the convolutions of an update are, compared with the fastest matrix products of the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from algos.config import EncoderKind, Precision
from benchmarks.rows.row import Case, Program, Row
from benchmarks.rows.turns import calls_per_second
from benchmarks.rows.updates import FULL, Update, our_update, precisions, sac_config, square_products, used_precision

BATCH = 64
THREADS = 2
PEAK_SIZES = (256, 512, 1024, 2048)
"""Of the square matrices whose products are the peak: the fastest of them counts."""
OPERATORS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


def case() -> Case:
    """TMRL's network, one encoder for the actor and each critic."""
    work = f"TM20Full, TMRL's network, batch {BATCH}, {THREADS} threads"
    programs: dict[str, Program] = {}
    for precision in precisions():
        update = our_update(FULL, EncoderKind.tmrl_cnn, sac_config(BATCH, precision))
        programs[f"convolutions {precision.name}"] = on_threads(convolution_rate(update))
        programs[f"peak {precision.name}"] = on_threads(partial(peak, precision))
    used = used_precision().name
    rows = [
        Row(
            "convolutions" if precision.name == used else f"convolutions_{precision.name}",
            work,
            f"FLOP rate of its convolutions / peak, {precision.name}",
            f"convolutions {precision.name}",
            f"peak {precision.name}",
            0.6 if precision.name == used else None,
        )
        for precision in precisions()
    ]
    return Case(rows, programs)


def convolution_rate(update: Update) -> Program:
    """Floating-point operations per second of the convolutions in whole updates."""
    update()
    operations = convolution_operations(update)

    def run(seconds: float) -> float:
        update()
        begin, calls = time.perf_counter(), 0
        with _ConvolutionTime() as spent:
            while time.perf_counter() - begin < seconds or not calls:
                update()
                calls += 1
        return calls * operations / spent.seconds

    return run


def convolution_operations(update: Update) -> int:
    """Floating-point operations of all convolutions in one update."""
    with FlopCounterMode(display=False) as counter:
        update()
    counts = counter.get_flop_counts()["Global"]
    return sum(count for operator, count in counts.items() if "convolution" in str(operator))


def peak(precision: Precision, seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Floating-point operations per second of the fastest square products."""
    share = seconds / len(PEAK_SIZES)
    return max(2 * size**3 * calls_per_second(square_products(size, precision), clock)(share) for size in PEAK_SIZES)


def on_threads(program: Callable[[float], float]) -> Program:
    """Runs a program with two threads; the number before is put back."""

    def run(seconds: float) -> float:
        before = torch.get_num_threads()
        torch.set_num_threads(THREADS)
        try:
            return program(seconds)
        finally:
            torch.set_num_threads(before)

    return run


class _ConvolutionTime(TorchDispatchMode):
    """Sums the time of the operators that convolve."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Lets the operator run."""
        began = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        if func in OPERATORS:
            self.seconds += time.perf_counter() - began
        return result
