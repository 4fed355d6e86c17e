"""Timing errors of real-time steps: our wall-clock environment compared with plain rtgym; prints a table.

    python -m benchmarks.step_jitter [--seconds 20] [--time-step 0.05]

The error of a step is the time between its action and the previous one, minus the nominal duration. The interface does
nothing, so the figures are those of the clock alone. Every program runs in a separate process, and all take turns, so
that a busy machine disturbs them alike: without a learner, with one learner in parallel (a process that makes SAC
updates of the compact network), and with a learner for each core. "ours" has a worker's priority
(``tasks.acting.punctuality``); "without precedence" shows systems that do not permit it. The ratio is to the p99 of the
better of rtgym's two implementations without a learner.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rtgym.envs.real_time_env import RealTimeEnv, RealTimeEnvTS

from tasks.acting.punctuality import punctual
from tasks.config import RtgymConfig
from tasks.envs.interface import TaskInterface
from tasks.envs.realtime import make_wall_env
from tasks.experience.observation import Field, ObservationSpec
from tasks.game.clock import Clock

ROOT = Path(__file__).resolve().parents[1]
TURNS = 4
SKIPPED_STEPS = 5
"""Steps at the beginning of a turn that do not count: pages and caches are cold."""


class Program(NamedTuple):
    """A measured program."""

    title: str
    implementation: str
    """rtgym's ``v1`` or ``ts``."""
    is_ours: bool
    is_punctual: bool = False


PROGRAMS = {
    "rtgym-v1": Program("rtgym v1", "v1", is_ours=False),
    "rtgym-ts": Program("rtgym ts-v1", "ts", is_ours=False),
    "ours-plain": Program("ours, without precedence", "ts", is_ours=True),
    "ours-v1": Program("ours over rtgym v1", "v1", is_ours=True, is_punctual=True),
    "ours": Program("ours", "ts", is_ours=True, is_punctual=True),
}
RIVALS = ("rtgym-v1", "rtgym-ts")


def main() -> None:
    """Measures and prints; with internal arguments it is one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="measuring time per program and load")
    parser.add_argument("--time-step", type=float, default=0.05, help="duration of a step [s]")
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--learner", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.learner:
        learn()
    elif arguments.program is not None:
        print(json.dumps(sent_times_s(PROGRAMS[arguments.program], arguments.seconds, arguments.time_step)))
    else:
        compare(arguments.seconds, arguments.time_step)


def compare(seconds: float, time_step_s: float) -> None:
    """Measures all programs under all loads and prints the tables."""
    cores = os.cpu_count() or 1
    print(f"{platform.processor() or platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f} before")
    print(f"{1e3 * time_step_s:.0f} ms steps, {seconds:.0f} s each, |error| in ms")
    bar_ms: float | None = None
    for num_learners in dict.fromkeys((0, 1, cores)):
        errors = _measured(num_learners, seconds, time_step_s)
        if bar_ms is None:
            bar_ms = min(float(np.percentile(np.abs(errors[name]), 99)) for name in RIVALS)
        _print_table(f"{num_learners} learners in parallel", errors, bar_ms, time_step_s)


def sent_times_s(program: Program, seconds: float, time_step_s: float) -> list[float]:
    """Makes steps for a while in this process; returns the times at which actions were sent."""
    interface = StampInterface()
    env: Any = _env(program, interface, time_step_s)
    action = np.zeros(interface.observation_spec.action_size, np.float32)
    with punctual() if program.is_punctual else contextlib.nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rtgym warns at every late step
        env.reset()
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            env.step(action)
        env.stop()
    if program.is_ours:
        env.close()
    return interface.sent_s


class StampInterface(TaskInterface):
    """An interface that only records when actions are sent."""

    observation_spec = ObservationSpec((Field("nothing", (1,)),), 3, 2)

    def __init__(self) -> None:
        self.sent_s: list[float] = []
        self._nothing = [np.zeros(1, np.float32)]

    @classmethod
    def spec_for(cls, config: Any) -> ObservationSpec:
        """The same for every configuration."""
        return cls.observation_spec

    @classmethod
    def from_config(cls, config: Any, clock: Clock) -> StampInterface:
        """Ignores both arguments."""
        return cls()

    def send_control(self, control: np.ndarray | None) -> None:
        """Records the time."""
        self.sent_s.append(time.perf_counter())

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[list[np.ndarray], dict[str, Any]]:
        """Nothing."""
        return self._nothing, {}

    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, dict[str, Any]]:
        """Nothing."""
        return self._nothing, 0.0, False, {}

    def episode_statistics(self) -> dict[str, float]:
        """Nothing."""
        return {}


def learn() -> None:
    """Makes SAC updates, one thread as in a training on the CPU, until standard input closes."""
    import threading

    import torch

    from algos.config import EncoderKind
    from benchmarks.rows.updates import FULL, our_update, sac_config

    torch.set_num_threads(1)
    update = our_update(FULL, EncoderKind.compact_cnn, sac_config(64))
    update()
    print("learning", flush=True)
    threading.Thread(target=lambda: os._exit(len(sys.stdin.read())), daemon=True).start()
    while True:
        update()


def _env(program: Program, interface: StampInterface, time_step_s: float) -> Any:
    start_s = 0.8 * time_step_s
    if program.is_ours:
        config = RtgymConfig(time_step_duration=time_step_s, start_obs_capture=start_s, ep_max_length=10**9)
        return make_wall_env(interface, config, implementation=program.implementation)
    config_of_rtgym = {
        "interface": lambda: interface,
        "time_step_duration": time_step_s,
        "start_obs_capture": start_s,
        "ep_max_length": 10**9,
        "act_buf_len": 2,
    }
    return (RealTimeEnv if program.implementation == "v1" else RealTimeEnvTS)(config_of_rtgym)


def _measured(num_learners: int, seconds: float, time_step_s: float) -> dict[str, np.ndarray]:
    """The errors of all steps of each program [ms], taken in turns."""
    errors: dict[str, list[np.ndarray]] = {name: [] for name in PROGRAMS}
    with contextlib.ExitStack() as stack:
        for _ in range(num_learners):
            stack.enter_context(_learner())
        for _ in range(TURNS):
            for name in PROGRAMS:
                words = ["--program", name, "--seconds", str(seconds / TURNS), "--time-step", str(time_step_s)]
                answer = subprocess.run(_command(words), cwd=ROOT, capture_output=True, text=True, check=True)
                sent_s = np.array(json.loads(answer.stdout))[SKIPPED_STEPS:]
                errors[name].append(1e3 * (np.diff(sent_s) - time_step_s))
    return {name: np.concatenate(turns) for name, turns in errors.items()}


@contextlib.contextmanager
def _learner() -> Iterator[None]:
    command = _command(["--learner"])
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline().strip() != "learning":
            raise RuntimeError("the learner did not start; run: python -m benchmarks.step_jitter --learner")
        try:
            yield
        finally:
            process.stdin.close()


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "benchmarks.step_jitter", *words]


def _print_table(title: str, errors: dict[str, np.ndarray], bar_ms: float, time_step_s: float) -> None:
    load = os.getloadavg()[0]
    print(f"\n{title}; load {load:.1f}")
    print(f"{'':28}{'steps':>7}{'p50':>9}{'p99':>9}{'max':>9}{'mean':>9}{'late %':>8}{'p99 ratio':>11}")
    for name, values in errors.items():
        size = np.abs(values)
        p50, p99 = np.percentile(size, (50, 99))
        late = 100 * float(np.mean(size > 100 * time_step_s))
        print(
            f"{PROGRAMS[name].title:28}{len(values):7}{p50:9.3f}{p99:9.3f}{size.max():9.2f}{values.mean():9.3f}"
            f"{late:8.1f}{p99 / bar_ms:11.2f}"
        )


if __name__ == "__main__":
    main()
