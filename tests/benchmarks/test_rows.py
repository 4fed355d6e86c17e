"""The table of the benchmark: figures, spread, bars, the file of JSON lines, and the comparison with stored figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.rows import __main__ as program
from benchmarks.rows import cases, check, record
from benchmarks.rows.row import Case, Result, Row, results, skipped_because
from benchmarks.rows.turns import calls_per_second, take_turns

RATIO = Row("speed", "work", "ours / theirs", "ours", "theirs", bar=2.0)


def result(*values: float, row: Row = RATIO) -> Result:
    return Result(row, values, {"ours": values[0], "theirs": 1.0})


def test_figure_is_the_median_of_the_ratios_of_the_turns() -> None:
    turns = [{"ours": 10.0, "theirs": 5.0}, {"ours": 30.0, "theirs": 10.0}, {"ours": 4.0, "theirs": 4.0}]
    (found,) = results(Case([RATIO], {}), turns)
    assert found.values == (2.0, 3.0, 1.0)
    assert found.ratio == 2.0
    assert found.rates == {"ours": 10.0, "theirs": 5.0}


def test_row_without_peer_gives_the_rate() -> None:
    row = Row("gpu", "work", "updates/s", "ours", bar=5.0)
    (found,) = results(Case([row], {}), [{"ours": 4.0}, {"ours": 6.0}])
    assert found.ratio == 5.0
    assert found.is_met


def test_quartiles_hold_the_middle_half_of_the_turns() -> None:
    assert result(5.0, 1.0, 2.0, 4.0, 3.0).quartiles == (2.0, 4.0)
    assert result(5.0).quartiles == (5.0, 5.0)


@pytest.mark.parametrize(
    ("bar", "is_most", "expected"),
    [(2.0, False, True), (2.1, False, False), (2.0, True, True), (1.9, True, False), (None, False, None)],
)
def test_bar_is_the_least_or_the_most(bar: float | None, is_most: bool, expected: bool | None) -> None:
    row = Row("speed", "work", "ours / theirs", "ours", "theirs", bar, is_most)
    assert result(2.0, 2.0, row=row).is_met is expected


def test_row_whose_program_is_missing_is_skipped_with_the_reason() -> None:
    other = Row("floor", "work", "ours / floor", "ours", "floor")
    case = Case([RATIO, other], {}, missing={"theirs": "it is not installed"})
    assert [found.row.name for found in results(case, [{"ours": 1.0, "floor": 2.0}])] == ["floor"]
    assert skipped_because(case, RATIO) == "it is not installed"
    assert not skipped_because(case, other)


def test_programs_take_turns_and_change_their_order() -> None:
    ran: list[tuple[str, float]] = []

    def made(title: str) -> Callable[[float], float]:
        def run(seconds: float) -> float:
            ran.append((title, seconds))
            return float(len(ran))

        return run

    told: list[str] = []
    turns = take_turns(
        Case([], {"a": made("a"), "b": made("b")}), 2, 3.0, lambda stage, title: told.append(f"{stage} {title}")
    )
    assert [title for title, _ in ran] == ["a", "b", "a", "b", "b", "a"]
    assert [seconds for _, seconds in ran][2:] == [3.0] * 4
    assert turns == [{"a": 3.0, "b": 4.0}, {"a": 6.0, "b": 5.0}]
    assert told[2:] == ["turn 1 of 2 a", "turn 1 of 2 b", "turn 2 of 2 b", "turn 2 of 2 a"]


def test_case_without_warm_up_begins_with_its_first_turn() -> None:
    seen: list[float] = []

    def program(seconds: float) -> float:
        seen.append(seconds)
        return 1.0

    case = Case([], {"a": program}, has_warm_up=False)
    take_turns(case, 2, 3.0, lambda stage, title: None)
    assert seen == [3.0, 3.0]


def test_rate_is_calls_by_the_clock_until_everything_is_done() -> None:
    time_s = [0.0]

    def settle() -> None:
        time_s[0] += 1.0

    def call() -> None:
        time_s[0] += 0.5

    run = calls_per_second(call, lambda: time_s[0], settle)
    assert run(2.0) == pytest.approx(4 / 3.0)  # 4 calls in 2 s, and 1 s until they are done


def measured(path: Path, *values: float, row: Row = RATIO) -> None:
    record.append(path, record.entry([result(*values, row=row)], {"other": "why"}, (0.1, 0.2), {"turns": 5}))


def test_each_run_is_one_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    measured(path, 1.0, 2.0, 3.0)
    measured(path, 4.0)
    first, second = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert first["rows"]["speed"]["ratio"] == 2.0
    assert first["rows"]["speed"]["quartiles"] == [1.5, 2.5]
    assert first["rows"]["speed"]["range"] == [1.0, 3.0]
    assert first["rows"]["speed"]["bar"] == 2.0
    assert first["rows"]["speed"]["is_met"] is True
    assert first["skipped"] == {"other": "why"}
    assert first["versions"]["torch"] == torch.__version__
    assert {"date", "machine", "load", "commit"} <= first.keys()
    assert second["rows"]["speed"]["ratio"] == 4.0


def test_newest_figures_of_each_row_count(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    measured(path, 1.0)
    measured(path, 7.0, row=Row("memory", "work", "bytes", "ours", "theirs"))
    measured(path, 3.0)
    newest = record.newest(record.read(path))
    assert {name: figures["ratio"] for name, figures in newest.items()} == {"speed": 3.0, "memory": 7.0}
    assert newest["speed"]["run"]["load"] == [0.1, 0.2]


@pytest.mark.parametrize("line", ["no json", "[]", "{}"])
def test_damaged_line_is_named(tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history.jsonl"
    measured(path, 1.0)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    assert check.main(["--history", str(path), "--stored", str(tmp_path / "stored.json")]) == 2
    assert "line 2" in capsys.readouterr().err


def checked(tmp_path: Path, before: tuple[float, ...], now: tuple[float, ...], row: Row = RATIO) -> int:
    history, stored = tmp_path / "history.jsonl", tmp_path / "stored.json"
    words = ["--history", str(history), "--stored", str(stored)]
    measured(history, *before, row=row)
    assert check.main([*words, "--store"]) == 0
    measured(history, *now, row=row)
    return check.main(words)


def test_row_that_is_a_tenth_worse_fails_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(tmp_path, (2.0, 2.0, 2.0), (1.79, 1.79, 1.79)) == 1
    assert "worse than stored: speed" in capsys.readouterr().out


def test_row_within_a_tenth_passes(tmp_path: Path) -> None:
    assert checked(tmp_path, (2.0, 2.0, 2.0), (1.81, 1.81, 1.81)) == 0


@pytest.mark.parametrize(("before", "now"), [((1.0, 2.0, 3.0), (1.6, 1.6, 1.6)), ((2.0, 2.0), (0.5, 1.5, 2.5))])
def test_row_within_the_spread_of_either_run_passes(
    tmp_path: Path, before: tuple[float, ...], now: tuple[float, ...]
) -> None:
    assert checked(tmp_path, before, now) == 0


def test_better_row_passes(tmp_path: Path) -> None:
    assert checked(tmp_path, (2.0,), (4.0,)) == 0


def test_figure_that_must_be_small_is_worse_when_it_grows(tmp_path: Path) -> None:
    memory = Row("memory", "work", "bytes", "ours", "theirs", 1.05, is_most=True)
    assert checked(tmp_path, (1.0,), (1.2,), memory) == 1


def test_smaller_figure_of_those_that_must_be_small_passes(tmp_path: Path) -> None:
    assert checked(tmp_path, (1.0,), (0.5,), Row("memory", "work", "bytes", "ours", "theirs", 1.05, is_most=True)) == 0


def test_stored_row_that_was_not_measured_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history, stored = tmp_path / "history.jsonl", tmp_path / "stored.json"
    words = ["--history", str(history), "--stored", str(stored)]
    measured(history, 2.0)
    check.main([*words, "--store"])
    history.unlink()
    measured(history, 1.0, row=Row("memory", "work", "bytes", "ours"))
    assert check.main(words) == 0
    assert "speed: stored 2, not measured" in capsys.readouterr().out


def test_nothing_measured_and_nothing_stored_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history, stored = tmp_path / "history.jsonl", tmp_path / "stored.json"
    words = ["--history", str(history), "--stored", str(stored)]
    assert check.main(words) == 2
    assert "make bench" in capsys.readouterr().err
    measured(history, 1.0)
    assert check.main(words) == 2
    assert "ARGS=--store" in capsys.readouterr().err
    stored.write_text('{"speed": {}}', encoding="utf-8")
    assert check.main(words) == 2
    assert "is not what --store writes" in capsys.readouterr().err


def test_other_machine_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history, stored = tmp_path / "history.jsonl", tmp_path / "stored.json"
    words = ["--history", str(history), "--stored", str(stored)]
    measured(history, 2.0)
    check.main([*words, "--store"])
    figures = json.loads(stored.read_text(encoding="utf-8"))
    figures["speed"]["run"]["machine"]["processor"] = "abacus"
    stored.write_text(json.dumps(figures), encoding="utf-8")
    assert check.main(words) == 0
    assert "stored with processor abacus, now" in capsys.readouterr().out


def fake_case(name: str, device: torch.device) -> Case:
    if name == "redq":
        raise RuntimeError("broken")
    return Case([RATIO], {"ours": lambda seconds: 4.0, "theirs": lambda seconds: 2.0})


def test_program_prints_the_table_and_appends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cases, "make", fake_case)
    path = tmp_path / "history.jsonl"
    assert program.main(["--only", "lidar", "--turns", "3", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "[1/1] lidar: turn 3 of 3" in printed
    assert "met     work: ours / theirs (ours 4, theirs 2)" in printed
    assert "python -m benchmarks.learning" in printed
    assert record.newest(record.read(path))["speed"]["values"] == [2.0, 2.0, 2.0]


def test_broken_case_fails_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cases, "make", fake_case)
    path = tmp_path / "history.jsonl"
    assert program.main(["--only", "redq", "lidar", "--json", str(path)]) == 1
    (line,) = record.read(path)
    assert line["rows"].keys() == {"speed"}
    assert "broken" in line["skipped"]["redq"]
    assert "failed: redq" in capsys.readouterr().err


def test_gpu_without_cuda_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert program.main(["--gpu", "--json", str(tmp_path / "history.jsonl")]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "history.jsonl").exists()


@pytest.mark.parametrize("words", [["--turns", "1"], ["--seconds", "0"], ["--gpu", "--only", "lidar"], ["--only", "x"]])
def test_bad_words_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        program.main(words)
    assert refused.value.code == 2
