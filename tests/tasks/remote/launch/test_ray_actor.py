"""The actor of one worker on a node, with real worker processes and without Ray."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from tasks.remote.launch import ray_actor
from tasks.remote.launch.ray_actor import WorkerActor, code_digest
from tasks.remote.worker.worker import WorkerConfig
from tests.tasks.remote.learner.test_vecenv import FAKES, POLICY
from tests.tasks.remote.raw_worker import wait_until
from tests.tasks.remote.ray_nodes import environment_of

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerActor]:
    monkeypatch.setattr(ray_actor, "_where", lambda: {"node": "n", "host": "10.0.0.1"})
    monkeypatch.setattr(ray_actor, "_ray_folders", list)
    actor = WorkerActor()
    yield actor
    actor.stop()


def configuration(**changes: Any) -> str:
    """Of a worker whose gateway does not answer."""
    env = {"task": {"name": "Counting"}, "function": f"{FAKES}:make_env", "kwargs": {}}
    config = {"address": "127.0.0.1:1", "token": "t", "worker": "w.x.1", "index": 0, "incarnation": 1, "role": "worker"}
    return WorkerConfig(**{**config, "env": env, "policy": POLICY, **changes}).to_line()


def exit_of(actor: WorkerActor, timeout_s: float = 30.0) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while True:
        ended: dict[str, Any] | None = actor.poll(0.5)["exit"]
        if ended is not None:
            return ended
        assert time.monotonic() < deadline


def test_a_worker_runs_until_it_is_stopped(actor: WorkerActor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the token of the cluster")
    started = actor.start(configuration())
    assert (started["node"], started["host"]) == ("n", "10.0.0.1")
    wait_until(lambda: (Path("/proc") / str(started["pid"]) / "environ").read_text() != "")
    environment = environment_of(started["pid"])
    assert "RAY_AUTH_TOKEN" not in environment
    assert environment["OMP_NUM_THREADS"] == "1"
    lines: list[str] = []
    while not lines:
        lines += actor.poll(0.2)["lines"]
    assert "cannot be reached" in lines[0]
    assert actor.poll(0.0)["exit"] is None
    actor.stop()
    assert exit_of(actor)["status"] == 0
    assert exit_of(actor) == exit_of(actor)


def test_what_a_worker_reports_is_passed_on(actor: WorkerActor) -> None:
    actor.start(configuration(policy={"function": f"{FAKES}:nothing", "kwargs": {}}, plugins=["not_there.py"]))
    ended = exit_of(actor)
    (said,) = map(json.loads, ended["said"])
    assert "not_there.py" in said["message"]
    assert ended["status"] == 1
    assert 0 < ended["lived_s"] < 30


def test_a_worker_that_does_not_take_its_configuration_has_ended(actor: WorkerActor) -> None:
    actor.start("no configuration\n")
    ended = exit_of(actor)
    assert ended["status"] == 1
    assert ended["said"] == []


def test_stop_before_start_is_fine(actor: WorkerActor) -> None:
    actor.stop()


@pytest.mark.parametrize(
    ("change", "is_the_same"),
    [
        (lambda folder: None, True),
        (lambda folder: (folder / "notes.md").write_text("x"), True),
        (lambda folder: (folder / "a.py").write_text("x = 2\n"), False),
        (lambda folder: (folder / "a.py").rename(folder / "b.py"), False),
        (lambda folder: (folder / "c.py").write_text(""), False),
    ],
)
def test_the_digest_changes_with_the_code(
    change: Callable[[Path], object], is_the_same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModuleSpec("tasks", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    (tmp_path / "a.py").write_text("x = 1\n")
    before = code_digest()
    change(tmp_path)
    assert (code_digest() == before) == is_the_same
