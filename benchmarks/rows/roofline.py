"""Draws how far updates are from what the machine can do: operations per second over operations per byte.

    python -m benchmarks.rows.roofline [--picture FILE] [--turns 5] [--seconds 1]

One thread, sampling included, CPU time. The lines are the fastest matrix products and the fastest copy of memory that
were measured between the updates. The bytes are those that torch's operators take and give, so that an update that
runs its steps in fewer operators moves to the right. JAX gets the operations and the bytes of ours, since its compiled
function shows none; it takes part where it is installed, as rl_games and Stable-Baselines3 do.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import statistics
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from algos.config import EncoderKind
from benchmarks.rows.convolutions import peak
from benchmarks.rows.counted import Work, counted
from benchmarks.rows.record import FOLDER, load, machine
from benchmarks.rows.row import Case, Program
from benchmarks.rows.turns import calls_per_second, take_turns
from benchmarks.rows.updates import FULL, LIDAR, Update, our_update, precisions, sac_config

PICTURE = FOLDER / "images" / "roofline.png"
COPIED_BYTES = 64 << 20
"""Larger than the caches."""
MEMORY = "memory"


class Point(NamedTuple):
    """An update in the picture."""

    title: str
    intensity: float
    operations_per_s: float


def main() -> int:
    """Measures, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each program in each turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    updates = all_updates()
    works = {title: counted(update) for title, update in updates.items() if not title.startswith("JAX")}
    works |= {title: works["ours float32, LIDAR"] for title in updates if title.startswith("JAX")}
    programs: dict[str, Program] = {title: calls_per_second(update) for title, update in updates.items()}
    programs |= {precision.name: partial(peak, precision, clock=time.process_time) for precision in precisions()}
    programs[MEMORY] = copy_rate()
    turns = take_turns(Case([], programs), options.turns, options.seconds, _report)
    rates = {title: statistics.median(turn[title] for turn in turns) for title in programs}
    points = placed(works, rates)
    peaks = {precision.name: rates[precision.name] for precision in precisions()}
    for point in points:
        share = point.operations_per_s / peaks["bfloat16" if "bfloat16" in point.title else "float32"]
        print(
            f"{point.title:32}{point.operations_per_s / 1e9:8.1f} GFLOP/s{point.intensity:8.1f} FLOP/byte{share:8.2f}"
        )
    print(f"peaks {', '.join(f'{name} {rate / 1e9:.0f} GFLOP/s' for name, rate in peaks.items())}")
    print(f"memory {rates[MEMORY] / 1e9:.1f} GB/s; load {load():.1f}")
    draw(points, peaks, rates[MEMORY], options.picture)
    print(f"drawn: {options.picture}")
    return 0


def all_updates() -> dict[str, Update]:
    """What is compared, by title: ours in each precision, and what is installed of the others."""
    updates: dict[str, Update] = {}
    for precision in precisions():
        for name, spec, encoder, size in (("LIDAR", LIDAR, "mlp", 256), ("compact", FULL, "compact_cnn", 64)):
            title = f"ours {precision.name}, {name}"
            updates[title] = our_update(spec, EncoderKind(encoder), sac_config(size, precision))
    if importlib.util.find_spec("stable_baselines3"):
        from benchmarks.rows.stable_baselines import stable_baselines_update

        updates["SB3, LIDAR"] = stable_baselines_update(LIDAR, EncoderKind.mlp, 256)
        updates["SB3, compact"] = stable_baselines_update(FULL, EncoderKind.compact_cnn, 64)
    if importlib.util.find_spec("rl_games"):
        from benchmarks.rows.rl_games_sac import rl_games_update

        updates["rl_games, LIDAR"] = rl_games_update(LIDAR, 256)
    if importlib.util.find_spec("jax"):
        from benchmarks.rows.jax_sac import jax_update

        updates["JAX, LIDAR"] = jax_update(LIDAR, 256)
    return updates


def placed(works: Mapping[str, Work], rates: Mapping[str, float]) -> list[Point]:
    """Where updates lie, from what one call does and the calls per second."""
    return [Point(title, work.intensity, work.operations * rates[title]) for title, work in works.items()]


def copy_rate() -> Program:
    """Bytes per second that a copy reads and writes."""
    source = np.ones(COPIED_BYTES, np.uint8)
    target = np.empty_like(source)
    run = calls_per_second(lambda: np.copyto(target, source))
    return lambda seconds: 2 * COPIED_BYTES * run(seconds)


def draw(points: list[Point], peaks: Mapping[str, float], bytes_per_s: float, path: Path) -> None:
    """Writes the picture.

    Args:
        points: The updates.
        peaks: Operations per second of the fastest products, by precision.
        bytes_per_s: Of the fastest copy.
        path: Of the file.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5), dpi=100)
    intensities = np.geomspace(1.0, 128.0, 400)
    for (name, rate), style in zip(peaks.items(), ("-", "--"), strict=False):
        roof = np.minimum(rate, intensities * bytes_per_s) / 1e9
        axes.plot(intensities, roof, style, color="0.35", label=f"peak {name}: {rate / 1e9:.0f} GFLOP/s")
    colours = {"ours": "tab:blue", "SB3": "tab:orange", "rl_games": "tab:green", "JAX": "tab:red"}
    for point in points:
        colour = next(colour for start, colour in colours.items() if point.title.startswith(start))
        rate = point.operations_per_s / 1e9
        axes.plot(
            point.intensity,
            rate,
            "s" if "compact" in point.title else "o",
            color=colour,
            markerfacecolor="none" if "bfloat16" in point.title else colour,
            markersize=9,
            label=f"{point.title}: {rate:.0f}",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set(xlabel="FLOP per byte that operators take and give", ylabel="GFLOP/s")
    date = datetime.datetime.now(datetime.UTC).date()
    axes.set_title(
        f"Updates of SAC, one thread of {machine()['processor']}, memory {bytes_per_s / 1e9:.0f} GB/s; {date}, "
        f"load {load():.1f}",
        fontsize=10,
    )
    axes.grid(True, alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def _report(stage: str, title: str) -> None:
    print(f"{stage}: {title}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
