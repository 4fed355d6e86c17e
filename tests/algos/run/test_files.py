"""The files of a run on a full disk."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import pytest

from algos.config.errors import UsageError
from algos.run.checkpoint import Checkpoint, load_checkpoint
from algos.run.files import RunFiles, keep_copy
from tasks.process.write_trouble import NotSavedError


def checkpoint(env_steps: int) -> Checkpoint:
    return Checkpoint("remote_sac", "T", {}, {}, {}, {"x": env_steps}, counters={"env_steps": env_steps})


class FullDisk:
    """A disk that refuses files with certain names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: set[str] = set()
        self._replace = os.replace
        monkeypatch.setattr(os, "replace", self.replace)

    def replace(self, source: Path, target: Path) -> None:
        if Path(target).name in self.names:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._replace(source, target)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_has_its_folders_configuration_and_checkpoints(tmp_path: Path) -> None:
    files = RunFiles(tmp_path / "run", {"seed": 3, "name": "é"})
    assert files.save_newest(checkpoint(7), is_periodic=True)
    files.save_best(checkpoint(5))
    files.require_saved()
    assert (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8") == "seed: 3\nname: é\n"
    assert names(files.nn) == ["best.pth", "last.pth", "step_00000007.pth"]
    assert files.summaries.is_dir()


def test_a_failed_save_is_reported_once_and_the_previous_file_stays(
    tmp_path: Path, disk: FullDisk, caplog: pytest.LogCaptureFixture
) -> None:
    files = RunFiles(tmp_path, {})
    files.save_newest(checkpoint(1), is_periodic=False)
    disk.names = {"last.pth"}
    assert not files.save_newest(checkpoint(2), is_periodic=True)
    assert not files.save_newest(checkpoint(3), is_periodic=True)
    assert load_checkpoint(files.newest).counters["env_steps"] == 1
    assert names(files.nn) == ["last.pth"]
    with pytest.raises(NotSavedError, match=r"not saved: \S+last\.pth \(No space left on device\); \S+ is of step 1$"):
        files.require_saved()
    disk.names = set()
    assert files.save_newest(checkpoint(4), is_periodic=True)
    files.require_saved()
    assert names(files.nn) == ["last.pth", "step_00000004.pth"]
    assert [message.split(str(files.newest))[1][:18] for message in warnings(caplog)] == [
        " cannot be written",
        " is written again",
    ]


def test_the_best_state_survives_a_full_disk(tmp_path: Path, disk: FullDisk) -> None:
    files = RunFiles(tmp_path, {})
    disk.names = {"best.pth"}
    best = checkpoint(1)
    files.save_best(best)
    best.algorithm_state["x"] = 99  # what goes on learning
    files.save_newest(checkpoint(2), is_periodic=False)
    with pytest.raises(NotSavedError, match="best"):
        files.require_saved()
    disk.names = set()
    files.save_newest(checkpoint(3), is_periodic=False)
    files.require_saved()
    assert load_checkpoint(files.best).algorithm_state["x"] == 1


def test_the_configuration_is_written_when_there_is_space(tmp_path: Path, disk: FullDisk) -> None:
    disk.names = {"config.yaml"}
    files = RunFiles(tmp_path, {"seed": 3})
    assert names(tmp_path) == ["nn", "summaries", "versions.json"]
    assert json.loads((tmp_path / "versions.json").read_text()).keys() >= {"python", "torch", "rl_games", "system"}
    disk.names = set()
    files.save_newest(checkpoint(1), is_periodic=False)
    assert (tmp_path / "config.yaml").read_text() == "seed: 3\n"


def test_a_run_that_saved_nothing_reports_it(tmp_path: Path, disk: FullDisk) -> None:
    files = RunFiles(tmp_path, {})
    disk.names = {"last.pth"}
    files.save_newest(checkpoint(1), is_periodic=False)
    with pytest.raises(NotSavedError, match="nothing of this training was saved"):
        files.require_saved()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(UsageError, match=r"the run folder \S+run cannot be made: "):
        RunFiles(tmp_path / "run", {})


def test_a_checkpoint_is_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    monkeypatch.setattr(os, "link", no_link)
    keep_copy(tmp_path / "a", tmp_path / "b")
    keep_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"new"
    assert names(tmp_path) == ["a", "b"]
