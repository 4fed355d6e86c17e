"""How long weights take from ``publish`` until workers hold them; both ends read the clock of this machine."""

from __future__ import annotations

import threading
import time
from multiprocessing.connection import Connection

import numpy as np

from benchmarks.link_parts import pairs
from benchmarks.link_parts.ends import Setting, open_gateway, open_uplink
from benchmarks.link_parts.traffic import weights_of
from tasks.remote.wire import link

PAUSE_S = 0.1
WARM_UP = 5


def measured_ms(setting: Setting, num_workers: int, num_bytes: int, rounds: int) -> np.ndarray:
    """Milliseconds of each publication at each worker, until the arrays can be loaded."""
    published, held = pairs.answers(_learn, _work, setting, num_workers, num_bytes, rounds)
    took = [seconds - published[version] for version, seconds in held if version > WARM_UP]
    if len(took) < 0.9 * rounds * num_workers:
        raise RuntimeError(f"only {len(took)} of {rounds * num_workers} publications arrived: too much else runs here")
    return 1e3 * np.array(took)


def _learn(connection: Connection, setting: Setting, num_workers: int, num_bytes: int, rounds: int) -> None:
    weights = weights_of(num_bytes)
    published = {}
    with open_gateway(setting, num_workers) as gateway:
        connection.send(gateway.remote_address or f"{gateway.address} {gateway.token}")
        while gateway.statistics()["gateway/workers"] < num_workers:
            time.sleep(0.05)
        time.sleep(1.0)
        for version in range(1, WARM_UP + rounds + 1):
            published[version] = time.monotonic()
            gateway.publish(weights, version)
            time.sleep(PAUSE_S)
        connection.send(published)
        pairs.wait_done(connection)


def _work(
    connection: Connection, address: str, setting: Setting, num_workers: int, num_bytes: int, rounds: int
) -> None:
    held: list[tuple[int, float]] = []
    threads = [
        threading.Thread(target=_take, args=(setting, address, index, WARM_UP + rounds, held))
        for index in range(num_workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(pairs.TIMEOUT_S)
    connection.send(held)
    pairs.wait_done(connection)


def _take(setting: Setting, address: str, index: int, last: int, held: list[tuple[int, float]]) -> None:
    """Records when each version arrived."""
    with open_uplink(setting, address, window=4, index=index) as (uplink, _):
        version = 0
        while version < last and (message := uplink.wait_newest()) is not None:
            version = link.decode_weights(message).version
            held.append((version, time.monotonic()))
