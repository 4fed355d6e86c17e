"""The keeper of one worker on a node, with real worker processes and without Ray."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from tasks.remote.launch import ray_keeper
from tasks.remote.launch.ray_keeper import RayKeeper, code_digest
from tasks.remote.worker.worker import WorkerConfig
from tests.tasks.remote.learner.test_vecenv import FAKES, POLICY, wait_until
from tests.tasks.remote.ray_nodes import environment_of

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayKeeper]:
    monkeypatch.setattr(ray_keeper, "_where", lambda: {"node": "n", "host": "10.0.0.1"})
    monkeypatch.setattr(ray_keeper, "_ray_folders", list)
    keeper = RayKeeper()
    yield keeper
    keeper.stop()


def configuration(**changes: Any) -> str:
    """Of a worker whose gateway does not answer."""
    env = {"task": {"name": "Counting"}, "function": f"{FAKES}:make_env", "kwargs": {}}
    config = {"address": "127.0.0.1:1", "token": "t", "worker": "w.x.1", "index": 0, "incarnation": 1, "role": "worker"}
    return WorkerConfig(**{**config, "env": env, "policy": POLICY, **changes}).to_line()


def exit_of(keeper: RayKeeper, timeout_s: float = 30.0) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while True:
        ended: dict[str, Any] | None = keeper.poll(0.5)["exit"]
        if ended is not None:
            return ended
        assert time.monotonic() < deadline


def test_a_worker_runs_until_it_is_stopped(keeper: RayKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the token of the cluster")
    started = keeper.start(configuration())
    assert (started["node"], started["host"]) == ("n", "10.0.0.1")
    wait_until(lambda: (Path("/proc") / str(started["pid"]) / "environ").read_text() != "")
    environment = environment_of(started["pid"])
    assert "RAY_AUTH_TOKEN" not in environment
    assert environment["OMP_NUM_THREADS"] == "1"
    lines: list[str] = []
    while not lines:
        lines += keeper.poll(0.2)["lines"]
    assert "cannot be reached" in lines[0]
    assert keeper.poll(0.0)["exit"] is None
    keeper.stop()
    assert exit_of(keeper)["status"] == 0
    assert exit_of(keeper) == exit_of(keeper)


def test_what_a_worker_reports_is_passed_on(keeper: RayKeeper) -> None:
    keeper.start(configuration(policy={"function": f"{FAKES}:nothing", "kwargs": {}}, plugins=["not_there.py"]))
    ended = exit_of(keeper)
    (said,) = map(json.loads, ended["said"])
    assert "not_there.py" in said["message"]
    assert ended["status"] == 1
    assert 0 < ended["lived_s"] < 30


def test_a_worker_that_does_not_take_its_configuration_has_ended(keeper: RayKeeper) -> None:
    keeper.start("no configuration\n")
    ended = exit_of(keeper)
    assert ended["status"] == 1
    assert ended["said"] == []


def test_stop_before_start_is_fine(keeper: RayKeeper) -> None:
    keeper.stop()


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
