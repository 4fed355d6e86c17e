"""How many MB/s of segments and weights go each way (``ends``)."""

from __future__ import annotations

import statistics
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks.link_parts import pairs
from benchmarks.link_parts.ends import WAYS, WEIGHTS_BYTES, Setting, Way

WARM_UP = 3


class Throughput(NamedTuple):
    """Result of one turn."""

    segments: float
    """[MB/s], one after the other as fast as they are taken."""
    weights: float
    """[MB/s], each answered before the next is sent; the median."""


def measured(way: Way, setting: Setting) -> Throughput:
    """One turn, in two new processes."""
    answer, _ = pairs.answers(_learn, _work, WAYS.index(way), setting._replace(is_tls=way.is_tls))
    return Throughput(*answer)


def _learn(connection: Connection, index: int, setting: Setting) -> None:
    way = WAYS[index]
    with way.learner(setting) as end:
        connection.send(end.address)
        for _ in range(WARM_UP):
            end.take_segment()
        began_s = time.perf_counter()
        num_bytes = sum(end.take_segment() for _ in range(way.num_segments))
        segments = num_bytes / (time.perf_counter() - began_s)
        seconds = []
        for _ in range(WARM_UP + way.num_weights):
            began_s = time.perf_counter()
            end.send_weights()
            end.wait_answer()
            seconds.append(time.perf_counter() - began_s)
        weights = WEIGHTS_BYTES / statistics.median(seconds[WARM_UP:])
        connection.send((segments / 1e6, weights / 1e6))
        pairs.wait_done(connection)


def _work(connection: Connection, address: str, index: int, setting: Setting) -> None:
    way = WAYS[index]
    with way.worker(setting, address) as end:
        for _ in range(WARM_UP + way.num_segments):
            end.send_segment()
        for _ in range(WARM_UP + way.num_weights):
            end.answer_weights()
        connection.send(None)
        pairs.wait_done(connection)
