"""The environment on the wall clock with a late, broken, hanging or stopped game, for both implementations of rtgym."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.config import RtgymConfig
from tasks.envs.interface import Interrupted
from tasks.envs.realtime import TaskEnv, VirtualTimeEnv, make_wall_env
from tasks.experience.samples import TIMING_STATISTICS
from tasks.game.clock import VirtualClock, WallClock
from tests.tasks.recorder import Recorder, action

both = pytest.mark.parametrize("implementation", ["v1", "ts"])


class Walls:
    """Makes environments and closes them; all their threads must end."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())
        self._opened: list[Any] = []

    def make(self, implementation: str, ends_after: int = 10**9, *, step_s: float = 0.02, **options: Any) -> Any:
        rtgym = {key: options.pop(key) for key in ("wait_on_done", "benchmark") if key in options}
        config = RtgymConfig(time_step_duration=step_s, start_obs_capture=step_s / 2, **rtgym)
        env = make_wall_env(Recorder(WallClock(), config, ends_after), config, implementation=implementation, **options)
        self._opened.append(env)
        return env

    def threads(self) -> list[str]:
        """Names of the threads started since then."""
        return [thread.name for thread in threading.enumerate() if thread not in self._before]

    def close(self) -> None:
        for env in self._opened:
            env.interface.fails_at.clear()
            env.interface.released.set()
            env.close()
        wait_until(lambda: not self.threads())


@pytest.fixture
def walls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Walls]:
    monkeypatch.setattr("tasks.envs.realtime._CLOSE_TIMEOUT_S", 0.2)
    opened = Walls()
    yield opened
    opened.close()


def wait_until(condition: Any, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def use_everything(env: TaskEnv) -> None:
    env.step(action(0))
    env.step(action(0))
    env.wait()
    env.reset(seed=1)


@pytest.mark.parametrize("implementation", ["virtual", "v1", "ts"])
def test_an_interface_can_truncate_its_episode(walls: Walls, implementation: str) -> None:
    config, clock = RtgymConfig(), VirtualClock()
    is_virtual = implementation == "virtual"
    env = VirtualTimeEnv(Recorder(clock, config), config, clock) if is_virtual else walls.make(implementation)
    for lost_after in (2, 3):
        env.interface.lost_after = lost_after
        before = len(env.interface.sent())
        env.reset(seed=1)
        for _ in range(lost_after - 1):
            assert env.step(action(0.5))[2:4] == (False, False)
        *_, terminated, truncated, info = env.step(action(1.0))
        assert (terminated, truncated, info["truncated"]) == (False, True, True)
        assert info["episode_statistics"]["length"] == lost_after
        # As at every end, the action passed to the last step is never sent.
        assert [sent[0] for sent in env.interface.sent()[before:]] == [0.0] + [0.5] * (lost_after - 1)
        with pytest.raises(RuntimeError, match=r"call reset\(\)"):
            env.step(action(0))
    env.interface.lost_after = None
    env.reset(seed=1)
    assert [env.step(action(0))[2:4] for _ in range(5)] == [(False, False)] * 5


@both
def test_a_terminated_episode_is_not_truncated_too(walls: Walls, implementation: str) -> None:
    env = walls.make(implementation, ends_after=2)
    env.interface.lost_after = 2
    env.reset(seed=1)
    assert [env.step(action(0))[2:4] for _ in range(2)] == [(False, False), (True, False)]


@both
def test_late_steps_are_counted_and_logged_once(
    walls: Walls, implementation: str, caplog: pytest.LogCaptureFixture
) -> None:
    env = walls.make(implementation, ends_after=8, step_s=0.08)
    delays = {3: 0.12, 5: 0.2}  # 40 ms late, then 120 ms, which is more than a step and moves the clock
    for _ in range(2):
        env.reset(seed=1)
        for step in range(1, 9):
            time.sleep(delays.get(step, 0.0))
            *_, info = env.step(action(0))
    statistics = info["episode_statistics"]
    assert set(TIMING_STATISTICS) < set(statistics)
    assert statistics["late_steps"] >= 2
    assert statistics["timeouts"] >= 1
    assert 0.06 < statistics["step_p50_s"] < 0.3
    assert statistics["step_p99_s"] > 0.15
    said = [record for record in caplog.records if record.name == "tasks.envs.step_times"]
    assert len(said) == 1
    assert "of 7 steps began late" in said[0].getMessage()
    assert "instead of 80.0 ms" in said[0].getMessage()


@both
def test_neither_the_first_step_nor_one_after_a_pause_is_late(walls: Walls, implementation: str) -> None:
    env = walls.make(implementation, ends_after=3, step_s=0.05)
    for _ in range(2):
        env.reset(seed=1)
        env.step(action(0))
        env.wait()
        env.interface.reset_takes_s = 0.3
        time.sleep(0.3)
        env.step(action(0))
        *_, info = env.step(action(0))
    # Three actions: the first two have nothing to be late against, the third follows the second at once.
    assert 0.03 < info["episode_statistics"]["step_p50_s"] < 0.25


@both
def test_seeds_and_statistics_work_on_the_wall_clock(walls: Walls, implementation: str) -> None:
    env = walls.make(implementation, ends_after=2)
    for seed in (0, 5):
        _, info = env.reset(seed=seed)
        assert info["seed"] == seed
        env.step(action(0))
        *_, terminated, _, info = env.step(action(0))
        assert terminated
        assert info["episode_statistics"]["length"] == 2.0
        with pytest.raises(RuntimeError, match=r"call reset\(\)"):
            env.step(action(0))
    assert [seed for call, _, seed in env.interface.calls if call == "reset"] == [0, 5]


@both
def test_benchmarks_come_from_rtgym(walls: Walls, implementation: str) -> None:
    env = walls.make(implementation, benchmark=True)
    env.reset(seed=1)
    for _ in range(3):
        env.step(action(0))
    assert set(env.benchmarks()) >= {"time_step_duration", "inference_duration", "get_obs_duration"}
    assert env.benchmarks()["step_duration"][0] > 0.001
    with pytest.raises(ValueError, match="benchmark"):
        walls.make(implementation).benchmarks()


@both
def test_the_environment_pauses_at_the_end_of_an_episode(walls: Walls, implementation: str) -> None:
    for wait_on_done in (True, False):
        env = walls.make(implementation, ends_after=1, wait_on_done=wait_on_done)
        env.reset(seed=1)
        env.step(action(0))
        assert len(env.interface.times("wait")) == int(wait_on_done)


@both
@pytest.mark.parametrize("call", ["capture", "send", "reset", "wait"])
def test_an_exception_in_the_game_reaches_the_caller(walls: Walls, implementation: str, call: str) -> None:
    env = walls.make(implementation)
    env.reset(seed=1)
    env.step(action(0))
    env.interface.fails_at[call] = ConnectionError(f"{call} lost")
    with pytest.raises(ConnectionError, match=f"{call} lost"):
        use_everything(env)
    with pytest.raises((RuntimeError, ConnectionError)):
        use_everything(env)
    env.close()
    assert walls.threads() == []


@both
@pytest.mark.parametrize("call", ["capture", "send"])
def test_a_step_that_hangs_times_out_and_can_be_closed(walls: Walls, implementation: str, call: str) -> None:
    env = walls.make(implementation, timeout_s=0.2)
    env.reset(seed=1)
    env.step(action(0))
    env.interface.hangs_at = call
    with pytest.raises(TimeoutError, match=r"no observation within 0\.2 s"):
        use_everything(env)
    require_end(walls, env)


@both
@pytest.mark.parametrize("call", ["reset", "wait"])
def test_a_reset_or_pause_that_hangs_times_out_and_can_be_closed(walls: Walls, implementation: str, call: str) -> None:
    env = walls.make(implementation, timeout_s=0.2, reset_timeout_s=0.2)
    env.reset(seed=1)
    env.interface.hangs_at = call
    with pytest.raises(TimeoutError, match=rf"{call}\(\) of the game did not return within 0\.2 s"):
        use_everything(env)
    with pytest.raises((TimeoutError, RuntimeError)):
        env.step(action(0))
    require_end(walls, env)


def require_end(walls: Walls, env: Any) -> None:
    """Closes an environment whose game hangs: this takes little time, and the game gets no calls afterwards."""
    started = time.monotonic()
    env.close()
    assert time.monotonic() - started < 5.0
    assert env.interface.times("close")
    calls = len(env.interface.calls)
    env.interface.released.set()
    wait_until(lambda: not walls.threads())
    assert len(env.interface.calls) == calls


@both
def test_a_hanging_call_is_forgotten_when_it_returns(walls: Walls, implementation: str) -> None:
    env = walls.make(implementation, timeout_s=0.2, reset_timeout_s=0.2)
    env.reset(seed=1)
    env.interface.hangs_at = "reset"
    with pytest.raises(TimeoutError, match=r"reset\(\)"):
        env.reset(seed=2)
    with pytest.raises(TimeoutError, match="the last call"):
        env.reset(seed=3)
    env.interface.hangs_at = ""
    env.interface.released.set()
    env.reset(seed=4)
    assert env.step(action(0))[0][0].tolist() == [1.0]


@both
def test_a_game_that_hangs_in_its_close_is_left_alone_when_a_call_hangs_too(walls: Walls, implementation: str) -> None:
    env = walls.make(implementation, timeout_s=0.2)
    env.reset(seed=1)
    env.interface.hangs_at = "capture"
    wait_until(lambda: env.interface.times("capture"))
    env.interface.hangs_at = "close"
    env.close()
    env.interface.released.set()
    wait_until(lambda: not walls.threads())


@both
def test_threads_end_when_the_close_of_the_game_fails(walls: Walls, implementation: str) -> None:
    env = walls.make(implementation)
    env.reset(seed=1)
    env.step(action(0))
    env.interface.fails_at["close"] = OSError("no pad")
    with pytest.raises(OSError, match="no pad"):
        env.close()
    assert walls.threads() == []
    env.close()


@both
def test_threads_end_in_every_state(walls: Walls, implementation: str) -> None:
    for steps in (None, 0, 1, 2):
        env = walls.make(implementation, ends_after=2)
        if steps is not None:
            env.reset(seed=1)
            for _ in range(steps):
                env.step(action(0))
        env.close()
        assert walls.threads() == []
        assert len(env.interface.times("close")) == 1
        env.close()
        assert len(env.interface.times("close")) == 1
        for call in (env.reset, env.wait, env.stop):
            with pytest.raises(RuntimeError, match="closed"):
                call()


def test_an_environment_that_nobody_closed_can_be_collected_while_its_game_hangs(walls: Walls) -> None:
    config = RtgymConfig(time_step_duration=0.02, start_obs_capture=0.01)
    env: Any = make_wall_env(Recorder(WallClock(), config), config)
    env.reset(seed=1)
    env.interface.hangs_at = "capture"
    wait_until(lambda: env.interface.times("capture"))
    env._env.__del__()  # rtgym's own would wait for the hanging thread
    env.interface.released.set()
    wait_until(lambda: not walls.threads())


@both
@pytest.mark.parametrize(
    ("call", "is_interruptible"), [("reset", False), ("reset", True), ("wait", True), ("capture", False)]
)
def test_a_wait_for_the_game_ends_when_the_program_is_stopped(
    walls: Walls, monkeypatch: pytest.MonkeyPatch, implementation: str, call: str, is_interruptible: bool
) -> None:
    monkeypatch.undo()
    env = walls.make(implementation)
    stop = threading.Event()
    env.watch(stop.is_set)
    env.reset(seed=1)
    env.interface.is_interruptible = is_interruptible
    env.interface.hangs_at = call
    threading.Timer(0.1, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Interrupted, match="stopped"):
        use_everything(env)
    env.close()
    assert time.monotonic() - started < 5.0


@both
def test_a_stop_does_not_end_steps_that_are_on_time(walls: Walls, implementation: str) -> None:
    env = walls.make(implementation)
    env.watch(lambda: True)
    env.reset(seed=1)
    for count in range(1, 4):
        assert env.step(action(0))[0][0].tolist() == [float(count)]


def test_an_unknown_implementation_is_refused() -> None:
    with pytest.raises(ValueError, match="'v1' or 'ts', got 'v3'"):
        make_wall_env(Recorder(WallClock(), RtgymConfig()), RtgymConfig(), implementation="v3")
