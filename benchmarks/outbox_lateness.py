"""How late a 20 Hz loop wakes up while its worker sends a backlog of 200 MB; prints a table.

    python -m benchmarks.outbox_lateness [--turns 5] [--rate 25]

A remote worker was disconnected from its learner for a while: the outbox has 200 MB in 60 segments, which it sends over
TLS, while the loop continues to hand over segments of 0.13 MB and to take weights of 5 MB each second. The learner
accepts 25 MB/s, so that every step of the nine seconds counts; 0 is as fast as it can. Lateness is the time between the
due and the actual beginning of a step; a hand-over is the call that passes a segment on.

Rows: the loop alone; with the station process and the live line, as in ``--worker``; and with outbox and connection in
the loop's own process. Each is measured with the priority of driving (``tasks.acting.punctuality``, where the system
permits it) and without, in separate processes that take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.acting.punctuality import punctual
from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.samples import Segment
from tasks.remote.access.credentials import load_client, load_server, make_credentials
from tasks.remote.access.listener import Port
from tasks.remote.config import OutboxPolicy
from tasks.remote.learner.gateway import Gateway
from tasks.remote.station.outbox import DiskOutbox, open_outbox
from tasks.remote.station.outbox_uplink import OutboxUplink
from tasks.remote.station.station_config import StationConfig
from tasks.remote.station.station_process import StationProcess
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire import link
from tasks.remote.worker.acting_loop import Progress
from tasks.remote.worker.worker_display import WorkerDisplay

ROOT = Path(__file__).resolve().parents[1]
SPEC = ObservationSpec((Field("images", (4, 64, 64), "uint8", 0, 255, history=4, scale=255.0),))
TIME_STEP_S = 0.05
NUM_STEPS = 180
BACKLOG_SEGMENTS, BACKLOG_ROWS = 60, 810
"""200 MB."""
ROWS = 32
WEIGHTS_BYTES = 5_000_000
PUBLISH_EVERY_S = 1.0
BAR_MS = 5.0
FINGERPRINT = "benchmark"
PROGRAMS = {"alone": "loop alone", "station": "with the station process", "inside": "all in one process"}


class Result(NamedTuple):
    """What one process measured."""

    lateness_ms: list[float]
    drained_s: float
    """Time until the learner had the backlog; NaN: not within the measurement."""
    hand_over_ms: float
    """The longest call that hands over a segment."""


def main() -> None:
    """Measures and prints; with internal arguments it is one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="how often each program is measured")
    parser.add_argument("--rate", type=float, default=25.0, help="what the learner takes [MB/s]; 0: as fast as it can")
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--learner", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.learner:
        learn(arguments.folder, arguments.rate)
    elif arguments.program is not None:
        print(json.dumps(measure(arguments.program, arguments.folder, arguments.address, arguments.plain)))
    else:
        compare(arguments.turns, arguments.rate)


def compare(turns: int, rate: float) -> None:
    """Prints the table."""
    cases = [(program, is_plain) for is_plain in (False, True) for program in PROGRAMS]
    results: dict[tuple[str, bool], list[Result]] = {case: [] for case in cases}
    for _ in range(turns):
        for program, is_plain in cases:
            with tempfile.TemporaryDirectory() as name, learner(Path(name), rate) as address:
                results[program, is_plain].append(run_program(program, is_plain, Path(name), address))
    late = f"{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}"
    print(f"{'50 ms steps, 200 MB backlog':47}{late}{'hand-over':>11}{'MB/s':>6}  max of each turn")
    for program, is_plain in cases:
        title = PROGRAMS[program] + (", without precedence" if is_plain else "")
        print(f"{title:47}{_figures(results[program, is_plain])}")
    print(f"bar: max < {BAR_MS:.0f} ms with the station process")


def _figures(results: Sequence[Result]) -> str:
    lateness = np.concatenate([result.lateness_ms for result in results])
    maxima = [max(result.lateness_ms) for result in results]
    drained_s = float(np.median([result.drained_s for result in results]))
    rate = "-" if np.isnan(drained_s) else f"{backlog_bytes() / 1e6 / drained_s:.0f}"
    each = " ".join(f"{value:.2f}" for value in maxima)
    hand_over_ms = max(result.hand_over_ms for result in results)
    late = f"{np.median(lateness):8.3f}{np.percentile(lateness, 99):8.3f}{lateness.max():8.2f}"
    return f"{late}{hand_over_ms:11.2f}{rate:>6}  {each}"


def backlog_bytes() -> int:
    """Size of the backlog."""
    return BACKLOG_SEGMENTS * BACKLOG_ROWS * 64 * 64


def run_program(program: str, is_plain: bool, folder: Path, address: str) -> Result:
    """Measures in a separate process."""
    words = ["--program", program, "--folder", str(folder), "--address", address]
    command = [sys.executable, "-m", "benchmarks.outbox_lateness", *words, *(["--plain"] if is_plain else [])]
    environment = os.environ | {"TERM": "xterm-256color"}  # for the live line
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=120, check=True
    )
    return Result(*json.loads(done.stdout.splitlines()[-1]))


# --- the learner ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def learner(folder: Path, rate: float) -> Iterator[str]:
    """A learner in a separate process; yields its address."""
    make_credentials(folder, ["localhost"], ["worker"])
    command = [
        sys.executable,
        "-m",
        "benchmarks.outbox_lateness",
        "--learner",
        "--folder",
        str(folder),
        "--rate",
        str(rate),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(30)


def learn(folder: Path, rate: float) -> None:
    """Receives, acknowledges and publishes until standard input closes."""
    server = load_server(folder / "learner")
    is_over = threading.Event()
    threading.Thread(target=_wait_for_end, args=(is_over,), daemon=True).start()
    weights = {"w": np.random.default_rng(0).standard_normal(WEIGHTS_BYTES // 4, np.float32)}
    port = Port("127.0.0.1:0", server.channel, server.tokens)
    with Gateway(SPEC, FINGERPRINT, remote=port, queue_segments=2) as gateway:
        print(str(gateway.remote_address).replace("127.0.0.1", "localhost"), flush=True)
        version, published_s, free_s = 0, 0.0, time.monotonic()
        while not is_over.is_set():
            for segment in gateway.receive(0.05, max_segments=1):
                size = sum(frames.nbytes for frames in segment.frames.values())
                free_s = max(free_s, time.monotonic()) + (size / 1e6 / rate if rate else 0.0)
                time.sleep(max(free_s - time.monotonic(), 0.0))
                gateway.acknowledge({segment.worker: segment.seq})
            if time.monotonic() - published_s > PUBLISH_EVERY_S:
                version, published_s = version + 1, time.monotonic()
                gateway.publish(weights, version)


def _wait_for_end(is_over: threading.Event) -> None:
    sys.stdin.read()
    is_over.set()


# --- the loop ---------------------------------------------------------------------------------------------------------


def measure(program: str, folder: Path, address: str, is_plain: bool) -> Result:
    """Drives for this long, next to a link."""
    fill(folder / "outbox", folder)
    beside = {"alone": no_link, "station": station_beside, "inside": link_inside}[program]
    with beside(folder, address) as worker, contextlib.nullcontext() if is_plain else punctual():
        return drive(worker)


class Worker(NamedTuple):
    """The link as the loop uses it."""

    send: Callable[[Segment], None]
    take_weights: Callable[[], bytes | bytearray | None]
    left: Callable[[], int]
    """Segments that the learner does not have yet."""


def drive(worker: Worker) -> Result:
    """A step every 50 ms: a new image, and at intervals a segment and new weights."""
    rng = np.random.default_rng(0)
    frames = np.empty((ROWS, 64, 64), np.uint8)
    lateness_ms: list[float] = []
    drained_s = float("nan")
    hand_over_s = 0.0
    start_s = time.perf_counter() + 0.1
    for step in range(NUM_STEPS):
        deadline_s = start_s + step * TIME_STEP_S
        time.sleep(max(deadline_s - time.perf_counter(), 0.0))
        lateness_ms.append(1e3 * (time.perf_counter() - deadline_s))
        frames[step % ROWS] = rng.integers(0, 255, (64, 64), np.uint8)
        if step % ROWS == ROWS - 1:
            segment = segment_of(frames.copy())
            began_s = time.perf_counter()
            worker.send(segment)
            hand_over_s = max(hand_over_s, time.perf_counter() - began_s)
        weights = worker.take_weights()
        if weights is not None:
            link.decode_weights(weights)
        if np.isnan(drained_s) and worker.left() <= 2:
            drained_s = time.perf_counter() - start_s
    return Result(lateness_ms, drained_s, 1e3 * hand_over_s)


def segment_of(frames: np.ndarray, seq: int = 0, worker: str = "worker") -> Segment:
    """A segment with these pictures."""
    rows = len(frames)
    nothing, zeros = np.zeros(rows, np.bool_), np.zeros(rows, np.float32)
    action = np.zeros((rows, SPEC.action_size), np.float32)
    return Segment(worker, 0, seq, {"images": frames}, action, zeros, nothing, nothing, nothing)


def fill(outbox: Path, folder: Path) -> None:
    """Fills the outbox with the backlog."""
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 255, (BACKLOG_ROWS, 64, 64), np.uint8)
    name = load_client(folder / "workers" / "worker").name
    with opened(outbox, "before") as box:
        for number in range(1, BACKLOG_SEGMENTS + 1):
            box.append(number, lambda seq, _: link.encode_segment(segment_of(frames, seq, f"{name}.{box.identity}")))


def opened(outbox: Path, session: str) -> DiskOutbox:
    """The outbox, large enough for the backlog."""
    return open_outbox(outbox, 10**9, OutboxPolicy.drop_oldest, FINGERPRINT, session)


@contextlib.contextmanager
def no_link(folder: Path, address: str) -> Iterator[Worker]:
    """The loop alone."""
    yield Worker(lambda _: None, lambda: None, lambda: 10**9)


@contextlib.contextmanager
def station_beside(folder: Path, address: str) -> Iterator[Worker]:
    """The station process, as with ``--worker``."""
    config = StationConfig(
        listen="127.0.0.1:0",
        token="t" * 43,
        address=address,
        credentials=str(folder / "workers" / "worker"),
        is_plaintext=False,
        name="worker",
        fingerprint=FINGERPRINT,
        session="now",
        outbox=str(folder / "outbox"),
        outbox_bytes=10**9,
        outbox_policy="drop_oldest",
        max_message_bytes=64 << 20,
        compress=True,
    )
    station = StationProcess(config)
    station.start()
    station.wait(lambda status: status.has_joined, threading.Event())
    stop = threading.Event()
    hello = link.Hello("worker", 0, "worker", FINGERPRINT)
    uplink = Uplink(station.status.listen, config.token, hello, stop, window=sys.maxsize)
    uplink.connect()
    uplink.start(push=True)

    def left() -> int:
        status = station.status
        return status.segments + uplink.last_seq - status.taken

    try:
        with WorkerDisplay(address, lambda: station.status, Progress(), stream=_Terminal()):
            yield Worker(uplink.send, uplink.take_newest, left)
    finally:
        stop.set()
        uplink.close()
        station.close()


class _Terminal(io.StringIO):
    """The terminal of the live line."""

    def isatty(self) -> bool:
        """Always true."""
        return True


@contextlib.contextmanager
def link_inside(folder: Path, address: str) -> Iterator[Worker]:
    """Outbox and connection as threads of the process that drives; the loop writes to the disk itself."""
    credentials = load_client(folder / "workers" / "worker")
    stop = threading.Event()
    with opened(folder / "outbox", "now") as outbox:
        name = f"worker.{outbox.identity}"
        hello = link.Hello(name, 0, "worker", FINGERPRINT)
        uplink = OutboxUplink(address, credentials.token, hello, stop, credentials=credentials, outbox=outbox)
        uplink.connect()
        uplink.start(push=True)
        numbers = iter(range(1, 10**9))

        def send(segment: Segment) -> None:
            outbox.append(
                next(numbers), lambda seq, _: link.encode_segment(replace(segment, seq=seq, worker=name), compress=True)
            )
            uplink.wake()

        try:
            yield Worker(send, uplink.take_newest, lambda: len(outbox))
        finally:
            stop.set()
            uplink.close()


if __name__ == "__main__":
    main()
