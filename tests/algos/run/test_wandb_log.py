"""W&B may fail or hang: no training waits for it."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from algos.config.errors import UsageError
from algos.run import wandb_log
from algos.run.wandb_log import WandbLog


class FakeRun:
    def __init__(self) -> None:
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


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    run = FakeRun()
    fake: Any = types.ModuleType("wandb")
    fake.init = lambda **settings: run
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return run


def new_log(tmp_path: Path) -> WandbLog:
    return WandbLog(tmp_path, "title", {"project": "p"}, {})


def test_all_metrics_arrive_before_the_end(tmp_path: Path, run: FakeRun) -> None:
    log = new_log(tmp_path)
    log.scalars({"a": 1.0}, 10)
    log.scalars({"a": 2.0}, 20)
    log.close()
    assert run.logged == [({"a": 1.0}, 10), ({"a": 2.0}, 20)]
    assert run.is_finished


def test_an_error_is_reported_once_and_ends_nothing(
    tmp_path: Path, run: FakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    log = new_log(tmp_path)
    run.error = OSError(28, "No space left on device")
    for step in range(5):
        log.scalars({"a": 1.0}, step)
    log.close()
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("the log at W&B cannot be written (No space left on device)")
    assert len(said) <= 2  # that it is over, when it has finished


@pytest.mark.timeout(30)
def test_a_hanging_upload_delays_nothing(
    tmp_path: Path, run: FakeRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb_log, "TROUBLED_FINISH_S", 0.01)
    run.may_go_on.clear()
    log = new_log(tmp_path)
    for step in range(wandb_log.MAX_QUEUED + 10):
        log.scalars({"a": 1.0}, step)
    log.close()
    run.may_go_on.set()
    assert "it accepts nothing more" in caplog.text


def test_a_run_that_cannot_start_is_refused(tmp_path: Path, run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise RuntimeError("not logged in\ntraceback of a service")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with pytest.raises(UsageError, match=r"W&B cannot begin: not logged in$"):
        new_log(tmp_path)


def test_a_missing_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="needs the package wandb"):
        new_log(tmp_path)
