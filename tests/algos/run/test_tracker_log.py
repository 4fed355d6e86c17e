"""A tracker may fail or hang: no training waits for it."""

from __future__ import annotations

import sys
import threading
import types
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from algos.config.errors import UsageError
from algos.config.schema import TrackioConfig, WandbConfig
from algos.run import tracker_log
from algos.run.tracker_log import TRACKERS, TrackerLog

DEFAULTS = {"wandb": asdict(WandbConfig()), "trackio": asdict(TrackioConfig())}


class FakeRun:
    """A run of either package, with what it was begun with."""

    def __init__(self) -> None:
        self.settings: dict[str, object] = {}
        self.logged: list[tuple[dict[str, float], int]] = []
        self.error: Exception | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.is_finished = False

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.may_go_on.wait(30)
        if self.error is not None:
            raise self.error
        self.logged.append((metrics, step))

    def finish(self) -> None:
        self.is_finished = True


@pytest.fixture(params=TRACKERS)
def package(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(package: str, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    run = FakeRun()
    fake: Any = types.ModuleType(package)

    def init(project: str, **settings: object) -> FakeRun:
        run.settings = {"project": project, **settings}
        return run

    fake.init = init
    monkeypatch.setitem(sys.modules, package, fake)
    return run


def new_log(package: str, tmp_path: Path, **settings: object) -> TrackerLog:
    return TrackerLog(package, tmp_path, "title", {package: {**DEFAULTS[package], **settings}})


def test_all_metrics_arrive_before_the_end(tmp_path: Path, package: str, run: FakeRun) -> None:
    log = new_log(package, tmp_path)
    log.scalars({"a": 1.0}, 10)
    log.scalars({"a": 2.0}, 20)
    log.close()
    assert run.logged == [({"a": 1.0}, 10), ({"a": 2.0}, 20)]
    assert run.is_finished


def test_the_run_is_named_as_the_settings_say_or_as_its_folder(tmp_path: Path, package: str, run: FakeRun) -> None:
    new_log(package, tmp_path).close()
    assert (run.settings["project"], run.settings["name"]) == ("trackmania-rl", "title")
    new_log(package, tmp_path, project="mine", run_name="first").close()
    assert (run.settings["project"], run.settings["name"]) == ("mine", "first")
    assert run.settings["config"][package]["project"] == "mine"  # type: ignore[index]


def test_an_error_is_reported_once_and_ends_nothing(
    tmp_path: Path, package: str, run: FakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    log = new_log(package, tmp_path)
    run.error = OSError(28, "No space left on device")
    for step in range(5):
        log.scalars({"a": 1.0}, step)
    log.close()
    said = [record.getMessage() for record in caplog.records]
    name = TRACKERS[package].name
    assert said[0].startswith(f"the log at {name} cannot be written (No space left on device)")
    assert len(said) <= 2  # that it is over, when it has finished


@pytest.mark.timeout(30)
def test_a_hanging_upload_delays_nothing(
    tmp_path: Path, package: str, run: FakeRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracker_log, "TROUBLED_FINISH_S", 0.01)
    run.may_go_on.clear()
    log = new_log(package, tmp_path)
    for step in range(tracker_log.MAX_QUEUED + 10):
        log.scalars({"a": 1.0}, step)
    log.close()
    run.may_go_on.set()
    assert "it accepts nothing more" in caplog.text


@pytest.mark.usefixtures("run")
def test_a_run_that_cannot_start_is_refused(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: object, **__: object) -> None:
        raise RuntimeError("not logged in\ntraceback of a service")

    monkeypatch.setattr(sys.modules[package], "init", init)
    with pytest.raises(UsageError, match=rf"{package}.enabled=true, but .* cannot begin: not logged in$"):
        new_log(package, tmp_path)
