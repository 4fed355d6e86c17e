"""Rates over the last ten seconds, compared with a list of everything that happened."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.experience.worker_status import MAX_NAMES, SPAN_S, RateMeter, WorkerStatus, samples_by_name


def test_a_steady_rate_is_measured_from_its_first_seconds_on() -> None:
    meter = RateMeter()
    assert meter.per_second(5.0) == 0.0
    for i in range(20 * 60):
        meter.add(4, 1000.0 + i / 20)
        if i >= 20 * 3:
            assert meter.per_second(1000.0 + i / 20) == pytest.approx(80.0, rel=0.11)


def test_the_rate_equals_that_of_a_list_of_all_events_within_one_bucket() -> None:
    rng = np.random.default_rng(0)
    meter = RateMeter()
    times = np.cumsum(rng.exponential(0.3, 2000)) + 50.0
    counts = rng.integers(1, 9, 2000)
    for i, (now, count) in enumerate(zip(times, counts, strict=True)):
        meter.add(int(count), float(now))
        if now < times[0] + SPAN_S:
            continue
        most = counts[: i + 1][times[: i + 1] > now - SPAN_S - 1].sum() / SPAN_S
        least = counts[: i + 1][times[: i + 1] > now - SPAN_S + 1].sum() / SPAN_S
        assert least <= meter.per_second(float(now)) <= most


def test_the_rate_falls_to_zero_without_events() -> None:
    meter = RateMeter()
    for second in range(100_000):
        meter.add(1, float(second))
    assert len(meter._buckets) <= SPAN_S + 1
    assert meter.per_second(100_000 + 2 * SPAN_S) == 0.0


def row(name: str, samples_per_s: float, role: str = "worker") -> WorkerStatus:
    return WorkerStatus(name, role, "", samples_per_s, 1, 0, 0, 0, 1, 1.0, 1, 1.0, True)


def test_each_name_has_one_rate_whatever_its_outboxes_and_starts() -> None:
    rows = [row("alice.1111aaaa", 20.0), row("alice.2222bbbb", 5.0), row("worker-0.4f2a91.1", 80.0)]
    rates = samples_by_name([*rows, row("evaluator-0.4f2a91.1", 9.0, "evaluator")])
    assert rates == {"gateway_samples_per_s/alice": 25.0, "gateway_samples_per_s/worker-0": 80.0}


def test_of_very_many_names_only_some_have_a_rate() -> None:
    rows = [row(f"w{index}", 1.0) for index in range(MAX_NAMES + 5)] + [row("w0", 2.0)]
    rates = samples_by_name(rows)
    assert len(rates) == MAX_NAMES
    assert rates["gateway_samples_per_s/w0"] == 3.0
