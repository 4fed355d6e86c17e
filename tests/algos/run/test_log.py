"""The end of a run waits for the pictures of its last evaluation, unless somebody wants it to stop."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from algos.run import log
from algos.run.log import RunLog
from tasks.experience.evaluation_report import EpisodeResult, EvaluationReport
from tasks.trackmania.course import Course

pytestmark = pytest.mark.timeout(60)
REPORT = EvaluationReport((EpisodeResult(1, True, 20.0, 30.0, 1.0, 400, trajectory=np.ones((5, 4), np.float32)),))
ROAD = np.stack([np.zeros(50), np.zeros(50), np.linspace(0.0, 100.0, 50)], axis=1)
TASK = {"name": "TM20Lidar", "track": "short", "game": "sim"}


class Writer:
    """Keeps what is done in which order."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def add_scalar(self, name: str, value: float, step: int) -> None: ...

    def add_image(self, name: str, *args: object, **kwargs: object) -> None:
        self.done.append(name)

    def close(self) -> None:
        self.done.append("closed")


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, a picture is being drawn; a stop is obeyed at once."""
    released = threading.Event()
    monkeypatch.setattr(log, "driven_line", lambda *_: released.wait(30.0))
    monkeypatch.setattr(log, "INTERRUPTED_TIMEOUT_S", 0.0)
    yield released
    released.set()


def evaluated(tmp_path: Path) -> tuple[RunLog, Writer]:
    writer = Writer()
    run = RunLog(writer, tmp_path, "run", 100, TASK, {}, is_headless=True)
    run.evaluation(REPORT, 50)
    return run, writer


def test_the_end_waits_for_the_pictures(
    tmp_path: Path, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, writer = evaluated(tmp_path)
    monkeypatch.setattr(log.logger, "info", lambda _: release.set())  # it says that it waits
    run.close(threading.Event())
    assert writer.done == ["evaluation/driven_line", "closed"]


def test_a_picture_of_many_tracks_is_abandoned_between_two_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def course(task: Mapping[str, str]) -> Course:
        drawn.append(task["track"])
        return Course(task["track"], ROAD, 20.0)

    monkeypatch.setattr(log, "course", course)
    episodes = [replace(REPORT.episodes[0], track=f"random:{i}") for i in range(10)]
    picture = log.driven_lines(TASK, EvaluationReport(tuple(episodes)), stop=lambda: len(drawn) == 2)
    assert picture is None
    assert drawn == ["random:0", "random:1"]


def test_a_picture_that_was_abandoned_before_it_was_drawn_is_not_drawn(
    tmp_path: Path, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    drawn: list[bool] = []

    def load(_: Mapping[str, str]) -> None:
        begun.set()
        release.wait(30.0)

    monkeypatch.setattr(log, "course", load)
    monkeypatch.setattr(log, "driven_line", lambda *_: drawn.append(True))
    run, _ = evaluated(tmp_path)
    assert begun.wait(30.0)
    stop = threading.Event()
    stop.set()
    run.close(stop)
    release.set()
    run._drawer.shutdown(wait=True)
    assert drawn == []


def test_a_stop_meanwhile_leaves_them_out(
    tmp_path: Path, release: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, writer = evaluated(tmp_path)
    stop = threading.Event()
    monkeypatch.setattr(log.logger, "info", lambda _: stop.set())
    run.close(stop)
    assert not release.is_set()
    assert writer.done == ["closed"]
    assert "the pictures of the last evaluation took too long and are left out" in caplog.text


@pytest.mark.parametrize(
    ("episodes", "shown"),
    [
        ([(True, 21.5, 30.0), (True, 20.5, 32.0), (False, None, 10.0)], "best lap 20.50 s"),
        ([(False, None, 10.0)], None),
        ([(None, None, -150.0), (None, None, -50.0)], "best return -100.0"),
    ],
    ids=["laps", "no lap yet", "returns"],
)
def test_the_first_line_after_a_resume_has_the_best_evaluation_so_far(
    episodes: list[tuple[bool | None, float | None, float]],
    shown: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = [EpisodeResult(1, finished, lap_s, earned, 0.5, 10) for finished, lap_s, earned in episodes]
    report = EvaluationReport(tuple(results))
    run = RunLog(Writer(), tmp_path, "run", 100, None, {}, is_headless=True)
    run.go_on_from({"score": list(report.score()), "env_steps": 40, "report": report.to_json()})
    run.scalars({"rollout/return": 1.0}, 50)
    run.close()
    line = capsys.readouterr().out.splitlines()[0]
    assert [part for part in line.split(" | ") if part.startswith("best")] == ([shown] if shown else [])


def test_the_first_line_has_the_time_since_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunLog(Writer(), tmp_path, "run", 100, None, {}, is_headless=True)
    run.scalars({"time/elapsed_s": 42.0}, 50)
    run.close()
    assert capsys.readouterr().out.startswith("run: 50 of 100 steps (50%) | elapsed 0:00:42 |")
