"""--report: one page of a run or two, from whatever its folder has; nothing in it is trusted."""

from __future__ import annotations

import html.parser
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from tensorboardX import SummaryWriter

import train
from tasks.laps.files import ComparedLaps, write_laps
from tests.tasks.laps.test_laps import ROAD, lap_at

FOREIGN = "<img src=x onerror=alert(1)>&\"'"
STEPS = (1000, 2000, 3000)


class Page(html.parser.HTMLParser):
    """Tags, texts and addresses of a page; refuses unbalanced ones."""

    EMPTY = ("meta", "img")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.tags, self.addresses = "", [], []  # type: str, list[str], list[str]
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of runs, below which commands are given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def write_run(runs: Path, name: str, gamma: float = 0.99, *, is_played: bool = True) -> Path:
    """A run as a training and a play leave it."""
    folder = runs / name
    (folder / "nn").mkdir(parents=True)
    config = f"task: {{name: TM20Lidar, track: short, empty: []}}\nseed: 0\nexperiment: '{FOREIGN[:11]}'\n"
    (folder / "config.yaml").write_text(f"{config}train: {{gamma: {gamma}}}\n")
    (folder / "versions.json").write_text(json.dumps({"torch": "2.13.0", "system": FOREIGN}))
    with SummaryWriter(str(folder / "summaries")) as writer:
        for step in STEPS:
            writer.add_scalar("evaluation/best_lap_time_s", 30.0 - step / 1000, step)
            writer.add_scalar("rollout/return", step / 100, step)
            writer.add_scalar(f"losses/{FOREIGN[:4]}", 0.5, step)
            writer.add_scalar("time/updates_per_second", 40.0, step)
    if is_played:
        play = folder / "play" / "2026-01-01_00-00-00"
        play.mkdir(parents=True)
        results = {"task": "TM20Lidar", "track": "short", "finish_rate": 1.0, "mean_lap_time_s": 5.0, "note": FOREIGN}
        episodes = [{"seed": 7, "finished": True, "lap_time_s": 5.0, "progress": None}]
        (play / "results.json").write_text(json.dumps({**results, "episodes": episodes}))
        write_laps(play / "laps.json", ComparedLaps(ROAD, 20.0, 100.0, lap_at(20.0, FOREIGN), [lap_at(25.0, "human")]))
        (play / "episode.mp4").write_bytes(b"a small video")
    return folder


def report(*names: str) -> int:
    return train.main(["--report", *names])


def test_a_run_becomes_one_page_that_needs_nothing_else(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(runs, "a run")
    assert report("a run") == 0
    assert capsys.readouterr().out == "runs/a run/report.html: open it in a browser\n"
    page = Page(folder / "report.html")
    assert [address[:22] for address in page.addresses] == ["data:video/mp4;base64,"]
    assert page.tags.count("script") == page.tags.count("img") == page.tags.count("link") == 0
    assert page.tags.count("svg") >= 4 + 1 + 4 + 2  # curves, the map, traces, time lost and sectors
    for shown in (
        "Return",
        "Updates per second",
        "27.00 s",
        "at 3,000 steps",
        "human (4.000 s)",
        "+0.100",
        "task.track",
    ):
        assert shown in page.text, shown
    assert page.text.count(FOREIGN) >= 4  # as text: in versions, results and names of laps


def test_two_runs_are_side_by_side_with_their_differences_marked(runs: Path) -> None:
    folder = write_run(runs, "first", gamma=0.99)
    write_run(runs, "second", gamma=0.95, is_played=False)
    assert report("first", str(runs / "second")) == 0
    page = Page(folder / "report_with_second.html")
    assert "1 entry differs" in page.text
    source = (folder / "report_with_second.html").read_text()
    assert re.findall(r"<mark>(.*?)</mark>", source) == ["0.99", "0.95"]


def test_laps_of_two_runs_on_one_road_share_their_charts(runs: Path) -> None:
    folder = write_run(runs, "first")
    write_run(runs, "second")
    assert report("first", "second") == 0
    page = Page(folder / "report_with_second.html")
    assert page.text.count("Traces and sectors") == 1
    for name in ("first", "second"):
        assert f"{name}, {FOREIGN} lost to human [s]" in page.text
    write_run(runs, "elsewhere")
    (play,) = (runs / "elsewhere").glob("play/*")
    write_laps(play / "laps.json", ComparedLaps(ROAD[:, ::-1], 20.0, 100.0, lap_at(20.0), []))
    assert report("first", "elsewhere") == 0
    text = Page(folder / "report_with_elsewhere.html").text
    assert "Traces and sectors of first" in text
    assert "Traces and sectors of elsewhere" in text


def test_the_newest_run_is_latest_and_an_unplayed_one_says_what_plays_it(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for age, name in enumerate(("new", "old")):
        folder = write_run(runs, name, is_played=False)
        for file in (folder / "config.yaml", *folder.glob("summaries/*")):
            os.utime(file, (1e9 - age, 1e9 - age))
    assert report("latest") == 0
    printed = capsys.readouterr().out
    assert "runs/new/report.html" in printed
    assert "python train.py --play --checkpoint runs/new/nn/best.pth" in printed


def test_half_written_and_damaged_files_leave_a_page_with_notes(runs: Path) -> None:
    folder = write_run(runs, "run")
    (events,) = folder.glob("summaries/*")
    events.write_bytes(events.read_bytes()[:-30])
    (folder / "summaries" / "events.out.tfevents.9.other").write_bytes(os.urandom(500))
    (folder / "config.yaml").write_text("a: &a [*a, *a]\nb: !!python/object/apply:os.system ['touch stolen']\n")
    (folder / "versions.json").write_text("[")
    (play,) = folder.glob("play/*")
    (play / "laps.json").write_text('{"road": 1}')
    (play / "episode.mp4").unlink()
    (play / "episode.mp4").symlink_to("/etc/hostname")
    assert report("run") == 0
    page = Page(folder / "report.html")
    assert "best lap of an evaluation" in page.text  # what was written whole is there
    for note in ("config.yaml cannot be read", "versions.json cannot be read", "Play again: python train.py --play"):
        assert note in page.text, note
    assert not page.addresses  # a link to another file is not followed
    assert not Path("stolen").exists()


def test_aliases_that_would_fill_the_memory_are_cut_short(runs: Path) -> None:
    (runs / "run").mkdir()
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}" for i in range(1, 12)]
    (runs / "run" / "config.yaml").write_text("\n".join(lines))
    assert report("run") == 0
    assert (runs / "run" / "report.html").stat().st_size < 3e6


def test_a_large_video_is_linked(runs: Path) -> None:
    folder = write_run(runs, "run#1 %")
    (play,) = folder.glob("play/*")
    with (play / "episode.mp4").open("wb") as file:
        file.truncate(9_000_000)
    assert report("run#1 %") == 0
    assert Page(folder / "report.html").addresses == ["play/2026-01-01_00-00-00/episode.mp4"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["gone"], "no such folder.*the newest in runs: run"),
        (["empty"], "is no run folder: it has none of config.yaml, summaries, play"),
        (["run", "run"], "name two runs, or give it once"),
        (["run", "run", "run"], "one run or two, got 3"),
        (["run", "seed=1"], "--report takes no keys|no such folder"),
        (["bad\0name"], "no such folder"),
        (["x" * 5000], "no such folder"),
    ],
)
def test_what_is_no_run_is_refused(
    runs: Path, capsys: pytest.CaptureFixture[str], names: list[str], reason: str
) -> None:
    write_run(runs, "run", is_played=False)
    (runs / "empty").mkdir()
    assert report(*names) == 2
    assert re.search(reason, capsys.readouterr().err)


def test_without_any_run_latest_says_so(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report("latest") == 2
    assert "there is no run in" in capsys.readouterr().err


def test_a_run_that_went_on_from_an_earlier_step_has_one_curve(runs: Path) -> None:
    from tasks.roles.report.curves import read_curves

    folder = runs / "run" / "summaries"
    for number, steps in enumerate(((1000, 2000, 3000), (2000, 2500))):
        with SummaryWriter(str(folder), filename_suffix=str(number)) as writer:
            for step in steps:
                writer.add_scalar("rollout/return", number, step, walltime=1e9 + 100 * number + step / 1000)
    curves, problems = read_curves(folder)
    assert not problems
    assert curves["rollout/return"].steps.tolist() == [1000, 2000, 2500]
    assert curves["rollout/return"].values.tolist() == [0, 1, 1]
    assert np.isfinite(curves["rollout/return"].times_s).all()
