"""The console on a terminal and elsewhere."""

from __future__ import annotations

import io
import logging
import math
import sys

import pytest

from algos.run.console import ASCII_BLOCKS, Console, duration, sparkline


class SteppedClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def _terminal_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("LINES", "40")


def stats(**extra: float) -> dict[str, float]:
    return {"time/env_steps": 2500.0, "rollout/return": 31.25, "time/updates_per_second": 104.4, **extra}


def test_plain_lines_come_once_per_interval() -> None:
    clock, stream = SteppedClock(), io.StringIO()
    console = Console(10_000, "TM20Lidar", interval_s=10.0, stream=stream, clock=clock)
    for second in range(21):
        clock.now_s = 100.0 + second
        console.update(stats(**{"time/elapsed_s": 7.0 + second}))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("TM20Lidar: 2,500 of 10,000 steps (25%) | elapsed 0:00:07 | left ?")
    assert "return 31.2" in lines[0]
    assert "updates/s 104.4" in lines[0]
    assert "elapsed 0:00:27" in lines[2]
    assert "\x1b" not in stream.getvalue()


class Gone(Terminal):
    """A closed terminal, or a file on a full disk."""

    def write(self, _: str) -> int:
        raise OSError(5, "Input/output error")


@pytest.mark.usefixtures("_terminal_size")
@pytest.mark.parametrize("is_plain", [False, True])
def test_a_closed_output_ends_nothing(is_plain: bool) -> None:
    console = Console(10_000, "TM20Lidar", stream=Gone(), is_plain=is_plain)
    console.update(stats())
    console.message("an evaluation")
    console.update(stats())
    console.close()


def test_a_value_stays_until_a_new_one_arrives_and_nan_is_ignored() -> None:
    clock, stream = SteppedClock(), io.StringIO()
    console = Console(0, "run", stream=stream, clock=clock)
    console.update(stats(**{"rollout/finish_rate": 0.5}))
    clock.now_s += 11
    console.update({"time/env_steps": 3000.0, "time/elapsed_s": 11.0, "rollout/return": math.nan})
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith("run: 3,000 steps | elapsed 0:00:11")
    assert "return 31.2" in last
    assert "finish rate 50%" in last


def test_the_best_lap_is_the_shortest_so_far() -> None:
    clock, stream = SteppedClock(), io.StringIO()
    console = Console(0, "run", stream=stream, clock=clock)
    for lap in (25.0, 21.5, 23.0):
        clock.now_s += 11
        console.update({"rollout/lap_time_s": lap})
    assert "best lap 21.50 s" in stream.getvalue().splitlines()[-1]


def test_nothing_is_left_at_the_end_of_a_run_that_was_resumed_near_it() -> None:
    stream = io.StringIO()
    console = Console(2500, "run", stream=stream, clock=SteppedClock())
    console.update(stats(**{"time/elapsed_s": 3600.0}))
    assert "2,500 of 2,500 steps (100%) | elapsed 1:00:00 | left 0:00:00" in stream.getvalue()


def test_time_left_follows_the_rate_of_the_last_minute() -> None:
    clock = SteppedClock()
    console = Console(10_000, "run", stream=io.StringIO(), clock=clock)
    assert math.isnan(console.time_left_s())
    # 200 s at 1 step/s, then 90 s at 50 steps/s: (10,000 - 4,700) / 50 = 106 s.
    steps = 0.0
    for second in range(290):
        console.update({"time/env_steps": steps})
        clock.now_s += 1
        steps += 1 if second < 200 else 50
    console.update({"time/env_steps": steps})
    assert steps == 4700
    assert console.time_left_s() == pytest.approx(106, rel=0.01)


def test_the_time_left_is_that_of_the_nearest_limit() -> None:
    clock, stream = SteppedClock(), io.StringIO()
    console = Console(10_000, "run", total_updates=400, stream=stream, clock=clock)
    for second in range(11):
        console.update({"time/env_steps": 10.0 * second, "time/updates": 20.0 * second})
        clock.now_s += 1
    assert console.time_left_s() == pytest.approx(10.0)
    assert "100 of 10,000 steps, 200 of 400 updates (50%)" in stream.getvalue().splitlines()[-1]


def test_messages_stay_and_close_shows_the_last_state_once() -> None:
    clock, stream = SteppedClock(), io.StringIO()
    with Console(0, "run", stream=stream, clock=clock) as console:
        console.update(stats())
        console.message("evaluation: 10 of 10, 21.40 s")
        console.update({"rollout/return": 40.0})
    console.close()
    console.update(stats())
    console.message("too late")
    lines = stream.getvalue().splitlines()
    assert lines[1] == "evaluation: 10 of 10, 21.40 s"
    assert "return 40.0" in lines[2]
    assert len(lines) == 3


@pytest.mark.usefixtures("_terminal_size")
def test_a_terminal_gets_a_panel_with_bar_groups_and_sparkline() -> None:
    clock, stream = SteppedClock(), Terminal()
    with Console(10_000, "TM20Full", stream=stream, clock=clock) as console:
        for i in range(20):
            clock.now_s += 1.0
            console.update(
                stats(
                    **{
                        "rollout/return": float(i),
                        "time/env_steps": 500.0 * i,
                        "evaluation/finish_rate": 0.9,
                        "rollout/lap_time_s": 22.2,
                    }
                )
            )
    shown = stream.getvalue()
    assert "\x1b[" in shown
    for expected in (
        "TM20Full",
        "9,500 of 10,000 steps (95%)",
        "left 0:00:01",
        "best lap 22.20 s",
        "90%",
        "104.4",
        "▁",
        "█",
    ):
        assert expected in shown


@pytest.mark.usefixtures("_terminal_size")
def test_a_terminal_gets_plain_lines_when_asked() -> None:
    stream = Terminal()
    with Console(10_000, "TM20Full", stream=stream, clock=SteppedClock(), is_plain=True) as console:
        console.update(stats())
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().startswith("TM20Full: 2,500 of 10,000 steps (25%)")


@pytest.mark.usefixtures("_terminal_size")
def test_a_terminal_gets_its_streams_and_log_handlers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        with Console(10, "run", stream=stream, clock=SteppedClock()) as console:
            console.update(stats())
            assert handler.stream is not stream
            logging.getLogger().warning("a worker was restarted")
        assert handler.stream is stream
        assert sys.stderr is stream
    finally:
        logging.getLogger().removeHandler(handler)
    assert "a worker was restarted" in stream.getvalue()


def test_a_stream_that_cannot_encode_is_still_written() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    console = Console(0, "straße", stream=stream, clock=SteppedClock())
    console.update(stats())
    console.close()
    assert raw.getvalue().startswith(b"stra?e: 2,500 steps")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([3.0, 3.0], "__"),
        ([0.0, 7.0], "_@"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], ASCII_BLOCKS),
        ([0.0] * 10 + [2.0] * 10 + [7.0] * 10 + [3.0, 5.0] * 10 + [1.0] * 30, "_-@++..."),
    ],
)
def test_sparkline_averages_into_its_width_between_the_extremes(values: list[float], expected: str) -> None:
    assert sparkline(values, width=8, blocks=ASCII_BLOCKS) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0, "0:00:00"), (3725.4, "1:02:05"), (math.nan, "?")])
def test_duration_is_hours_minutes_seconds(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_a_task_without_a_finish_shows_its_best_return_instead_of_a_lap() -> None:
    clock, stream = SteppedClock(), io.StringIO()
    console = Console(0, "run", stream=stream, clock=clock)
    for evaluated in (-500.0, -150.5, -200.0):
        clock.now_s += 11
        console.update(stats(**{"evaluation/return": evaluated}))
    assert "best return -150.5" in stream.getvalue().splitlines()[-1]
    assert "lap" not in stream.getvalue().replace("elapsed", "")
    clock.now_s += 11
    console.update({"rollout/finish_rate": 0.0})
    assert "best return" not in stream.getvalue().splitlines()[-1]


@pytest.mark.usefixtures("_terminal_size")
def test_the_panel_has_rows_only_for_known_values() -> None:
    stream = Terminal()
    with Console(0, "run", stream=stream, clock=SteppedClock()) as console:
        console.update(stats(**{"evaluation/return": -150.5}))
    shown = stream.getvalue()
    assert "evaluated return" in shown
    assert not [word for word in ("wall contacts", "finish rate", "evaluated lap", "no lap") if word in shown]
