"""docs/library.md: its script trains without train.py; both networking interfaces meet the same contract."""

from __future__ import annotations

import ast
import importlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tasks import registry
from tasks.acting.rollout import Rollout
from tasks.experience.networking import LearnerLink, WorkerLink
from tasks.experience.samples import Segment
from tasks.remote.access.credentials import load_client, load_server, make_credentials
from tasks.remote.access.listener import Port
from tasks.remote.learner.gateway import Gateway
from tasks.remote.learner.link_group import LinkGroup
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire import link
from tests.tasks.remote.fakes import CountingEnv, RandomPolicy
from tests.test_examples import EXAMPLES, run_example

SPEC = CountingEnv().observation_spec
WINDOW = 3
ROWS = 8


class Ends(NamedTuple):
    """Both ends of a connection."""

    learner: LearnerLink
    worker: WorkerLink
    stop: threading.Event
    """Ends the waits of the worker's end."""


@pytest.fixture
def folder_link(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module folder_link; the task that the examples register is forgotten again."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    known = dict(registry._TASKS)
    yield importlib.import_module("folder_link")
    registry._TASKS.clear()
    registry._TASKS.update(known)


@pytest.fixture(params=["gateway", "folder"])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ends]:
    """The product's own networking, and the one of docs/examples."""
    stop = threading.Event()
    if request.param == "folder":
        module = request.getfixturevalue("folder_link")
        yield Ends(module.FolderLearnerLink(tmp_path, SPEC), module.FolderWorkerLink(tmp_path, "w", stop, WINDOW), stop)
        stop.set()
        return
    with Gateway(SPEC, "task") as gateway:
        uplink = Uplink(gateway.address, gateway.token, link.Hello("w", 0, "worker", "task"), stop, window=WINDOW)
        uplink.connect()
        uplink.start(push=True)
        yield Ends(gateway, uplink, stop)
        stop.set()
        uplink.close()


def drive(worker: WorkerLink, num_segments: int) -> None:
    """A worker with the same environment and the same draws each time."""
    rollout = Rollout(CountingEnv(), RandomPolicy(seed=5), "w", 0, seed=7)
    for _ in range(num_segments):
        if not worker.wait_for_room():
            return
        worker.send(rollout.run(ROWS))


def collected(learner: LearnerLink, num_segments: int) -> list[Segment]:
    """Receives and stores so many segments."""
    segments: list[Segment] = []
    wait_until(lambda: take(learner, segments) >= num_segments)
    return segments


def take(learner: LearnerLink, segments: list[Segment]) -> int:
    segments += learner.receive(0.05)
    learner.acknowledge({"w": len(segments)})
    return len(segments)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def mean_returns(script: Path) -> list[float]:
    return [float(mean) for mean in re.findall(r"mean return (-[\d.]+)", run_example(str(script)))]


@pytest.mark.slow
def test_the_script_teaches_the_drone() -> None:
    means = mean_returns(EXAMPLES / "library.py")
    assert means[0] < -50.0  # random flight
    assert means[-1] > -30.0


def test_the_script_trains_with_workers_until_it_has_its_rows(tmp_path: Path) -> None:
    text = (EXAMPLES / "library.py").read_text(encoding="utf-8")
    assert "env_steps=4000" in text
    script = tmp_path / "library.py"
    script.write_text(text.replace("env_steps=4000", "env_steps=1200"), encoding="utf-8")
    means = mean_returns(script)
    assert means[0] < -50.0  # random flight


def test_the_script_has_the_length_that_the_page_states() -> None:
    text = (EXAMPLES / "library.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    docstrings = [node.body[0] for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Module)]
    said = {line for node in docstrings for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    lines = [line for number, line in enumerate(text.splitlines(), 1) if line.strip() and number not in said]
    assert len(lines) <= 60


def test_driven_segments_arrive_once_and_in_order(ends: Ends) -> None:
    driver = threading.Thread(target=drive, args=(ends.worker, 12))
    driver.start()
    segments = collected(ends.learner, 12)
    driver.join(30.0)
    assert ends.learner.receive(0.1) == []
    assert [segment.seq for segment in segments] == list(range(1, 13))
    driven = Rollout(CountingEnv(), RandomPolicy(seed=5), "w", 0, seed=7).run(12 * ROWS)
    for name in ("action", "reward", "terminated", "truncated", "is_first"):
        np.testing.assert_array_equal(
            np.concatenate([getattr(segment, name) for segment in segments]), getattr(driven, name)
        )
    for name, frames in driven.frames.items():
        np.testing.assert_array_equal(np.concatenate([segment.frames[name] for segment in segments]), frames)


def test_a_worker_waits_until_the_learner_has_stored_something(ends: Ends) -> None:
    driver = threading.Thread(target=drive, args=(ends.worker, WINDOW + 1))
    driver.start()
    segments: list[Segment] = []

    def all_that_fits() -> bool:
        segments.extend(ends.learner.receive(0.05))
        return len(segments) == WINDOW

    wait_until(all_that_fits)
    assert ends.learner.receive(0.3) == []
    assert driver.is_alive()
    ends.learner.acknowledge({"w": 1})
    driver.join(30.0)
    assert not driver.is_alive()
    wait_until(lambda: [segment.seq for segment in ends.learner.receive(0.05)] == [WINDOW + 1])


def test_a_worker_that_waits_notices_the_end(ends: Ends) -> None:
    drive(ends.worker, WINDOW)
    threading.Timer(0.1, ends.stop.set).start()
    assert not ends.worker.wait_for_room()


def test_a_worker_gets_the_newest_weights_once(ends: Ends) -> None:
    taken: list[link.Weights] = []

    def has_taken(version: int) -> bool:
        message = ends.worker.take_newest()
        taken.extend([] if message is None else [link.decode_weights(message)])
        return bool(taken) and taken[-1].version == version

    for version in (1, 2, 3):
        ends.learner.publish({"value": np.full(2, version, np.float32)}, version)
    wait_until(lambda: has_taken(3))
    np.testing.assert_array_equal(taken[-1].arrays["value"], [3.0, 3.0])
    assert ends.worker.take_newest() is None
    ends.learner.publish({"value": np.zeros(2, np.float32)}, 4)
    wait_until(lambda: has_taken(4))
    assert [weights.version for weights in taken] == sorted({weights.version for weights in taken})


def test_a_killed_learner_continues_after_its_stored_segments(folder_link: Any, tmp_path: Path) -> None:
    drive(folder_link.FolderWorkerLink(tmp_path, "w", threading.Event(), window=9), 9)
    before = folder_link.FolderLearnerLink(tmp_path, SPEC)
    assert [segment.seq for segment in before.receive(0.0, max_segments=6)] == [1, 2, 3, 4, 5, 6]
    before.acknowledge({"w": 2})
    # It had stored 4, and was killed before it could remove them all.
    after = folder_link.FolderLearnerLink(tmp_path, SPEC, received={"w": 4})
    assert [segment.seq for segment in after.receive(0.0)] == [5, 6, 7, 8, 9]
    after.acknowledge({"w": 9})
    assert after.statistics() == {"gateway/queue_depth": 0.0}


def test_a_damaged_file_of_the_folder_is_refused(folder_link: Any, tmp_path: Path) -> None:
    drive(folder_link.FolderWorkerLink(tmp_path, "w", threading.Event()), 1)
    (path,) = tmp_path.rglob("*.segment")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(link.LinkError, match="cut off"):
        folder_link.FolderLearnerLink(tmp_path, SPEC).receive(0.0)


def test_the_link_of_the_page_reaches_other_machines(tmp_path: Path) -> None:
    make_credentials(tmp_path, [], ["alice"])
    server, own, stop = load_server(tmp_path / "learner"), load_client(tmp_path / "workers/alice"), threading.Event()
    port = Port("127.0.0.1:0", server.channel, server.tokens)
    with Gateway(SPEC, "task", remote=port) as gateway:
        hello = link.Hello("alice.1", 0, "worker", "task")
        with closing(Uplink(str(gateway.remote_address), own.token, hello, stop, credentials=own)) as uplink:
            uplink.connect()
            uplink.start(push=True)
            uplink.send(Rollout(CountingEnv(), RandomPolicy(seed=5), "alice.1", 0, seed=7).run(ROWS))
            wait_until(lambda: len(gateway.receive(0.05)) == 1)
            stop.set()


def test_workers_of_both_kinds_train_one_learner(folder_link: Any, tmp_path: Path) -> None:
    stop = threading.Event()
    gateway = Gateway(SPEC, "task")
    links = [gateway, folder_link.FolderLearnerLink(tmp_path, SPEC)]
    uplink = Uplink(gateway.address, gateway.token, link.Hello("by-gateway", 0, "worker", "task"), stop)
    with closing(LinkGroup(links, has_evaluator=False)) as group, closing(uplink):
        uplink.connect()
        uplink.start(push=True)
        workers = {"by-gateway": uplink, "by-folder": folder_link.FolderWorkerLink(tmp_path, "by-folder", stop)}
        for name, worker in workers.items():
            worker.send(Rollout(CountingEnv(), RandomPolicy(seed=5), name, 0, seed=7).run(ROWS))
        senders: list[str] = []

        def have_both_sent() -> bool:
            senders.extend(segment.worker for segment in group.receive(0.05))
            return len(senders) == 2

        wait_until(have_both_sent)
        assert sorted(senders) == ["by-folder", "by-gateway"]
        group.publish({"value": np.ones(1, np.float32)}, 1)
        wait_until(lambda: all(worker.take_newest() is not None for worker in workers.values()))
        stop.set()
