"""Several links as one: everything of all of them, and one of them asked to evaluate."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tasks.experience.evaluation_report import EpisodeResult, EvaluationReport
from tasks.experience.samples import Segment
from tasks.experience.worker_status import WorkerStatus
from tasks.remote.learner.link_group import LinkGroup
from tests.tasks.remote.raw_worker import make_segment

pytestmark = pytest.mark.timeout(30)


def row(name: str, connected: bool = True) -> WorkerStatus:
    return WorkerStatus(name, "worker", "", 0.0, 0, 0, 0, 0, 0, math.nan, 0, math.nan, connected)


def report(version: int) -> EvaluationReport:
    return EvaluationReport((EpisodeResult(1, True, 3.0, 1.0, 1.0, 10),), weights_version=version)


class FakeLink:
    """Gives what it was made with."""

    def __init__(self, segments: Sequence[Segment] = (), workers: Sequence[WorkerStatus] = (), **metrics: float):
        self.segments = list(segments)
        self.rows = list(workers)
        self.metrics = {f"gateway/{name}": value for name, value in metrics.items()}
        self.calls: list[Any] = []
        self.reports: list[EvaluationReport] = []
        self.failure: Exception | None = None

    def receive(self, timeout_s: float, max_segments: int | None = None) -> list[Segment]:
        if self.failure is not None:
            raise self.failure
        if not self.segments:
            time.sleep(timeout_s)
            return []
        count = len(self.segments) if max_segments is None else max_segments
        taken, self.segments = self.segments[:count], self.segments[count:]
        return taken

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        self.calls.append(("acknowledge", dict(durable)))

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        self.calls.append(("publish", version))

    def request_evaluation(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool = False
    ) -> None:
        self.calls.append(("request", version, tuple(seeds), clip))

    def poll_evaluation(self) -> EvaluationReport | None:
        return self.reports.pop(0) if self.reports else None

    def statistics(self) -> dict[str, float]:
        return dict(self.metrics)

    def workers(self) -> list[WorkerStatus]:
        return self.rows

    def close(self) -> None:
        self.calls.append("close")


def test_segments_of_all_links_come_in_turn() -> None:
    here = FakeLink([make_segment("a.1", seq) for seq in (1, 2, 3)])
    there = FakeLink([make_segment("b.1", seq) for seq in (1, 2, 3)])
    group = LinkGroup([here, there], has_evaluator=False)
    got = [(s.worker, s.seq) for _ in range(6) for s in group.receive(1.0, max_segments=1)]
    assert sorted(got) == [(name, seq) for name in ("a.1", "b.1") for seq in (1, 2, 3)]
    assert {name for name, _ in got[:2]} == {"a.1", "b.1"}
    assert [seq for name, seq in got if name == "a.1"] == [1, 2, 3]


def test_a_wait_for_nothing_ends() -> None:
    group = LinkGroup([FakeLink(), FakeLink()], has_evaluator=False)
    began_s = time.monotonic()
    assert group.receive(0.1) == []
    assert time.monotonic() - began_s >= 0.1


def test_a_link_that_failed_says_so() -> None:
    here, there = FakeLink([make_segment("a.1", 1)] * 3), FakeLink()
    there.failure = ConnectionError("the relay refused")
    group = LinkGroup([here, there], has_evaluator=False)
    here.segments.clear()
    with pytest.raises(ConnectionError, match="the relay refused"):
        group.receive(0.1)


def test_weights_acknowledgements_and_the_end_go_to_all() -> None:
    links = [FakeLink(), FakeLink()]
    group = LinkGroup(links, has_evaluator=False)
    group.publish({}, 4)
    group.acknowledge({"a.1": 7})
    group.close()
    assert [link.calls for link in links] == [[("publish", 4), ("acknowledge", {"a.1": 7}), "close"]] * 2


@pytest.mark.parametrize(
    ("has_evaluator", "here", "there", "asked"),
    [
        (True, [], [row("b.1")], 0),
        (False, [row("a.1")], [row("b.1")], 0),
        (False, [row("a.1", connected=False)], [row("b.1")], 1),
        (False, [], [], 1),
    ],
    ids=["a process that evaluates", "the first with a worker", "one that is gone does not count", "nobody yet"],
)
def test_one_link_is_asked_to_evaluate(has_evaluator: bool, here: Any, there: Any, asked: int) -> None:
    links = [FakeLink(workers=here), FakeLink(workers=there)]
    group = LinkGroup(links, has_evaluator)
    group.request_evaluation({}, 3, [1, 2], clip=True)
    assert links[asked].calls == [("request", 3, (1, 2), True)]
    assert links[1 - asked].calls == []
    assert group.poll_evaluation() is None
    links[asked].reports.append(report(3))
    got = group.poll_evaluation()
    assert got is not None
    assert got.weights_version == 3


def test_a_late_report_of_a_link_that_was_asked_before_is_left_out() -> None:
    here, there = FakeLink(workers=[row("a.1")]), FakeLink(workers=[row("b.1")])
    group = LinkGroup([here, there], has_evaluator=False)
    group.request_evaluation({}, 3, [1])
    here.rows = []
    group.request_evaluation({}, 4, [1])
    here.reports.append(report(3))
    assert group.poll_evaluation() is None
    there.reports.append(report(4))
    got = group.poll_evaluation()
    assert got is not None
    assert got.weights_version == 4


def test_a_link_that_lost_its_workers_is_given_up_for_another_one() -> None:
    here, there = FakeLink(workers=[row("a.1")]), FakeLink(workers=[row("b.1")])
    group = LinkGroup([here, there], has_evaluator=False, patience_s=0.2)
    group.request_evaluation({}, 3, [1, 2], clip=True)
    began_s = time.monotonic()
    while time.monotonic() < began_s + 0.5:
        assert group.poll_evaluation() is None
    assert there.calls == []
    here.rows = [row("a.1", connected=False)]
    lost_s = time.monotonic()
    while not there.calls:
        assert time.monotonic() < lost_s + 20
        assert group.poll_evaluation() is None
    assert there.calls == [("request", 3, (1, 2), True)]
    there.reports.append(report(3))
    assert group.poll_evaluation() is not None
    here.rows, there.rows = [row("a.1")], []
    time.sleep(0.5)
    assert group.poll_evaluation() is None
    assert len(here.calls) == 1, "what was answered is not asked again"


def test_statistics_are_summed_where_that_makes_sense() -> None:
    here = FakeLink(samples_per_s=40.0, round_trip_ms=3.0, weights_lag=4.0, weights_age_s=1.0)
    there = FakeLink(samples_per_s=20.0, round_trip_ms=50.0, weights_lag=1.0, weights_age_s=2.0, refused=2.0)
    assert LinkGroup([here, there], has_evaluator=False).statistics() == {
        "gateway/samples_per_s": 60.0,
        "gateway/round_trip_ms": 50.0,
        "gateway/weights_lag": 1.0,
        "gateway/weights_age_s": 2.0,
        "gateway/refused": 2.0,
    }
