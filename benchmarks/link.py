"""The link between workers and learner: throughput, weights latency, the workers' load on the learner; prints tables.

    python -m benchmarks.link [--tlspyo DIR] [--turns 3] [--seconds 10] [--parts throughput,latency,load]

Throughput is measured for 3.3 MB segments, from worker to learner, and for 10 MB weights, from learner to worker, over
product's own gateway and uplink in plaintext and TLS, beside a raw socket, a raw TLS socket (Python's ``ssl``), and
tlspyo, TMRL's network library, through its relay. Ours encodes, checks and decodes what it sends; the socket moves
bytes. All send the same and take turns in one run, so that a busy machine disturbs them alike; ratios are of each turn,
and their median. tlspyo is used where it is installed, also elsewhere: ``pip install --target DIR tlspyo==0.3.0`` and
``--tlspyo DIR``.

Latency is that of 5 MB of weights from ``publish`` until a worker can load them. Load is what 1, 4, 16 and 64 workers
of 20 steps a second take of one core at the learner.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.link_parts import latency, load, throughput
from benchmarks.link_parts.ends import (
    OURS_TLS,
    SOCKET_TLS,
    TLSPYO,
    TLSPYO_TLS,
    WAYS,
    Setting,
    import_tlspyo,
    make_all_credentials,
)

PARTS = ("throughput", "latency", "load")
LATENCY_BYTES = 5_000_000


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tlspyo", metavar="DIR", help="folder in which tlspyo is installed")
    parser.add_argument("--turns", type=int, default=3, help="turns of each way to send")
    parser.add_argument("--rounds", type=int, default=200, help="publications of weights that are timed")
    parser.add_argument("--seconds", type=float, default=10.0, help="measuring time for each number of workers")
    parser.add_argument("--workers", default="0,1,4,16,64", help="numbers of workers for the load")
    parser.add_argument("--parts", default=",".join(PARTS), help="what is measured")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    parts = arguments.parts.split(",")
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder), is_tls=True, tlspyo=arguments.tlspyo)
        make_all_credentials(setting.folder)
        if "throughput" in parts:
            print_throughput(setting, arguments.turns)
        if "latency" in parts:
            print_latency(setting, arguments.rounds)
        if "load" in parts:
            print_load(setting, arguments.seconds, [int(count) for count in arguments.workers.split(",")])


def print_throughput(setting: Setting, turns: int) -> None:
    """Prints MB/s of each way, and the ratios of ours."""
    ways = list(WAYS)
    try:
        import_tlspyo(setting.tlspyo)
    except ImportError:
        print("tlspyo is left out: it is not installed (--tlspyo DIR)")
        ways = [way for way in WAYS if way not in (TLSPYO, TLSPYO_TLS)]
    found: dict[str, list[throughput.Throughput]] = {way.title: [] for way in ways}
    for _ in range(turns):
        for way in sorted(ways, key=lambda way: not way.is_tls):  # compared ways take turns one after the other
            found[way.title].append(throughput.measured(way, setting))
    print(f"\nMB/s, median (best) of {turns} turns; load {os.getloadavg()[0]:.1f}")
    print(f"{'':20}{'3.3 MB segments':>18}{'10 MB weights':>18}")
    for title, results in found.items():
        cells = (f"{np.median(column):.0f} ({np.max(column):.0f})" for column in zip(*results, strict=True))
        print(f"{title:20}" + "".join(f"{cell:>18}" for cell in cells))
    ours = np.array(found[OURS_TLS.title])
    for rival in (SOCKET_TLS, TLSPYO_TLS):
        if rival in ways:
            segments, weights = np.median(ours / np.array(found[rival.title]), axis=0)
            print(f"{OURS_TLS.title} / {rival.title}, median: {segments:.2f} (segments), {weights:.2f} (weights)")


def print_latency(setting: Setting, rounds: int) -> None:
    """Prints milliseconds until weights have arrived."""
    print(f"\n{LATENCY_BYTES / 1e6:.0f} MB of weights, from publish until they can be loaded [ms]")
    print(f"{'':20}{'workers':>10}{'p50':>10}{'p99':>10}{'max':>10}{'load':>8}")
    for title, is_tls, num_workers in (("ours", False, 1), ("ours, TLS", True, 1), ("ours, TLS", True, 4)):
        took = latency.measured_ms(setting._replace(is_tls=is_tls), num_workers, LATENCY_BYTES, rounds)
        p50, p99 = np.percentile(took, (50, 99))
        print(f"{title:20}{num_workers:10}{p50:10.1f}{p99:10.1f}{took.max():10.1f}{os.getloadavg()[0]:8.1f}")


def print_load(setting: Setting, seconds: float, crowds: Sequence[int]) -> None:
    """Prints shares of one core."""
    print(
        f"\nworkers of 20 steps/s with pictures, TLS, {load.WEIGHTS_BYTES / 1e6:.0f} MB of weights each second: "
        "% of one core"
    )
    print(f"{'workers':>10}{'samples/s':>12}{'link':>8}{'and replay':>12}{'threads':>10}{'memory MB':>12}{'load':>8}")
    for num_workers in crowds:
        found = load.measured(setting, num_workers, seconds)
        shares = f"{100 * found.link:8.1f}{100 * found.stored:12.1f}"
        process = f"{found.num_threads:10}{found.memory_mb:12.0f}"
        print(f"{num_workers:10}{found.samples_per_s:12.0f}{shares}{process}{os.getloadavg()[0]:8.1f}", flush=True)


if __name__ == "__main__":
    main()
