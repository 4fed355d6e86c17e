"""Trains with learner, relay and workers on separate machines, and on one machine for comparison; prints tables.

    python -m benchmarks.two_machines [--ways one,direct,relay] [--seeds 0] [--steps 60000] [--round-trips 0,40]

The machines are network namespaces with their own addresses (iproute2), so this needs root on Linux. In ``direct`` the
workers' machines reach only the learner's; in ``relay`` the workers' and the learner's reach only the relay's. The
benchmark tests and prints which machines reach each other. Each machine has its own folder with its own credentials
from --make-credentials, and runs ``train.py``; all traffic is TLS. After each training ``best.pth`` is played.

Output: a folder for each training with the logs of all machines, the run and the outboxes. Namespaces and
processes are removed at the end, also after Ctrl-C; after a kill -9 the next start removes them.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from benchmarks.two_machines.network import ROOT
from benchmarks.two_machines.program import ProgramError
from benchmarks.two_machines.training import Outcome, Setting, Way, train
from tasks.process.dated_folder import new_dated_folder

WAYS = {"one": Way.one_machine, "direct": Way.direct, "relay": Way.relay}


def main() -> int:
    """Trains and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default="one,direct,relay", help="where the processes are")
    parser.add_argument("--seeds", default="0", help="one training each")
    parser.add_argument("--steps", type=int, default=60_000, help="environment steps of each training")
    parser.add_argument("--track", default="short")
    parser.add_argument("--workers", type=int, default=2, help="workers, each on its machine")
    parser.add_argument("--round-trips", default="0", help="added delay between machines, there and back [ms]")
    parser.add_argument("--folder", type=Path, help="where logs and runs go; default: a new one in runs/")
    arguments = parser.parse_args()
    settings = [
        Setting(WAYS[way], seed, arguments.steps, arguments.track, arguments.workers, round_trip_ms)
        for seed in map(int, arguments.seeds.split(","))
        for way in arguments.ways.split(",")
        for round_trip_ms in ([0.0] if way == "one" else map(float, arguments.round_trips.split(",")))
    ]
    if os.geteuid() != 0 and any(setting.way is not Way.one_machine for setting in settings):
        print("machines of their own are network namespaces, which only root on Linux can make", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    folder = (arguments.folder or new_dated_folder(ROOT / "runs", "two_machines", datetime.now())).resolve()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; logs and runs: {folder}", flush=True)
    outcomes = []
    try:
        for number, setting in enumerate(settings, 1):
            print(f"\n{setting.title}; load {os.getloadavg()[0]:.1f} before", flush=True)
            outcomes.append(train(setting, folder / f"{number}_{setting.way.name}_s{setting.seed}"))
            _print_network(outcomes[-1])
            _print_row(outcomes[-1])
    except (ProgramError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was started has ended", file=sys.stderr)
        return 130
    finally:
        _print_tables(outcomes)
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _print_network(outcome: Outcome) -> None:
    """Prints which machines reach each other, open ports, and the traffic of each machine."""
    for machine in outcome.open_ports:
        reached = {target: took for (source, target), took in outcome.round_trips.items() if source == machine and took}
        others = [target for (source, target), took in outcome.round_trips.items() if source == machine and not took]
        found = ", ".join(f"{target} ({took * 1e3:.2f} ms)" for target, took in reached.items()) or "nobody"
        received, sent = outcome.megabytes[machine]
        print(
            f"  {machine:8} reaches {found}; not {', '.join(others) or 'nobody'}; listens at "
            f"{', '.join(outcome.open_ports[machine]) or 'nothing'}; {received:.1f} MB in, {sent:.1f} MB out"
        )


def _print_row(outcome: Outcome) -> None:
    driven = outcome.driven
    print(
        f"  {outcome.steps:,} steps in {outcome.minutes:.1f} min; best.pth of {outcome.best_at:,} steps: "
        f"{driven.finished}/{driven.episodes}, {driven.mean_lap_s:.2f} s, ratio {driven.ratio:.3f}; "
        f"{outcome.segments}, lost {outcome.segments.lost}",
        flush=True,
    )


def _print_tables(outcomes: list[Outcome]) -> None:
    """Prints the tables of docs/results.md."""
    if not outcomes:
        return
    print("\n| where | seed | best.pth at | whole run | finished | mean lap [s] (std) | ratio |")
    print("|---|---|---|---|---|---|---|")
    for outcome in outcomes:
        setting, driven = outcome.setting, outcome.driven
        print(
            f"| {_place(setting)} | {setting.seed} | {outcome.best_at:,} steps | {outcome.steps:,} steps, "
            f"{outcome.minutes:.1f} min | {driven.finished}/{driven.episodes} | {driven.mean_lap_s:.2f} "
            f"({driven.std_lap_s:.2f}) | {driven.ratio:.3f} |"
        )
    print(
        "\n| where | seed | segments driven | stored | waiting | dropped | doubled | lost | steps/s | updates per step "
        "| weights age [updates] | link round trip [ms] | MB in and out of the learner |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for outcome in outcomes:
        count, pace = outcome.segments, outcome.pace
        traffic = outcome.megabytes.get("learner")
        cells = [
            _place(outcome.setting),
            outcome.setting.seed,
            *(count.driven, count.stored, count.waiting, count.dropped, count.doubled, count.lost),
            f"{outcome.steps / outcome.minutes / 60:.0f}",
            f"{pace['update_ratio']:.3f}",
            f"{pace['weights_age_updates']:.0f}",
            f"{pace['round_trip_ms']:.1f}",
            "" if traffic is None else f"{traffic[0]:.0f}, {traffic[1]:.0f}",
        ]
        print(f"| {' | '.join(map(str, cells))} |")


def _place(setting: Setting) -> str:
    distance = f", {setting.round_trip_ms:g} ms" if setting.round_trip_ms else ""
    return f"{setting.way.value}{distance}"


if __name__ == "__main__":
    sys.exit(main())
