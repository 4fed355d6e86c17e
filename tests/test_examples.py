"""The programs of docs/examples run and show what docs/real_time.md says of them; the pages quote them as they are."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import re
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import tasks
import train
from tasks import registry
from tasks.config import RtgymConfig
from tasks.envs.realtime import RealTimeEnv, VirtualTimeEnv
from tasks.game.clock import VirtualClock, WallClock
from tests.test_config_files import CFG

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"
PAGE = ROOT / "docs" / "real_time.md"


@pytest.fixture
def drone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module own_interface; its task is forgotten again."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    known = dict(registry._TASKS)
    yield importlib.reload(importlib.import_module("own_interface"))
    registry._TASKS.clear()
    registry._TASKS.update(known)


@pytest.fixture
def cart(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module parallel_capture, which the camera's process imports by its name too."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("parallel_capture")


def run_example(name: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_drone_flies_on_both_clocks_and_by_name() -> None:
    lines = run_example("own_interface.py").splitlines()
    names = ["virtual time", "virtual time, blind to the sent actions", "real time", "by name"]
    assert [line.partition(":")[0] for line in lines] == names
    assert "20 of 20 arrived" in lines[0]
    assert "4 of 20 arrived" in lines[1]
    assert "20 of 20 arrived" in lines[3]


def test_rtgyms_tutorial_runs_unchanged() -> None:
    assert run_example("rtgym_interface.py").endswith("arrived: True\n")


def test_a_script_of_rl_games_trains_and_plays_our_task() -> None:
    lines = run_example("rl_games_script.py").splitlines()
    assert len([line for line in lines if line.startswith("reward: ") and line.endswith("steps: 50.0")]) == 3


def test_the_drone_repeats_its_flight_in_virtual_time(drone: Any) -> None:
    def flight() -> list[float]:
        env = drone.virtual_env()
        observation, _ = env.reset(seed=3)
        values = []
        for _ in range(5):
            observation, reward, *_ = env.step(drone.fly_ahead(observation))
            values += [float(reward), *np.concatenate(observation).tolist()]
        env.close()
        return values

    assert flight() == flight()


def test_the_drones_environments_have_the_spaces_they_say(drone: Any) -> None:
    for env in (drone.virtual_env(), drone.wall_env(), tasks.make("Drone", clock="virtual")):
        with contextlib.closing(env):
            observation, _ = env.reset(seed=1)
            assert env.observation_space.contains(observation)
            assert len(observation) == 2 + 4
            assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)


def test_the_same_class_is_an_interface_of_plain_rtgym(drone: Any) -> None:
    arguments = (RtgymConfig(**drone.TIMING), WallClock())
    config = {**drone.TIMING, "interface": drone.DroneInterface, "interface_args": arguments, "ep_max_length": 5}
    env = gymnasium.make("rtgym:real-time-gym-ts-v1", config=config, disable_env_checker=True)
    observation, _ = env.reset(seed=1)
    truncated = False
    while not truncated:
        observation, _, _, truncated, _ = env.step(drone.fly_ahead(observation))
    assert len(observation) == 6
    env.close()


def needed_actions(drone: Any, travel_s: float, start_obs_capture_s: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many actions an observation must have: those whose effect on the position it does not fully show."""
    # One ns more: what arrives just after the drone's tick or the capture waits for the next one.
    monkeypatch.setattr(drone.DummyRCDrone, "_travel", lambda self: round(travel_s * 1e9) + 1)

    def positions(pushed_at: int) -> np.ndarray:
        config = RtgymConfig(**{**drone.TIMING, "start_obs_capture": start_obs_capture_s})
        clock = VirtualClock()
        env = VirtualTimeEnv(drone.DroneInterface(config, clock), config, clock)
        env.reset(seed=1)
        actions = [np.array([0.1 if step == pushed_at else 0.0, 0.0]) for step in range(25)]
        return np.array([env.step(action)[0][0][0] for action in actions])

    effect = positions(pushed_at=10) - positions(pushed_at=-1)
    incomplete = [step for step in range(10, 25) if abs(effect[step] - effect[-1]) > 1e-6]
    return max(incomplete) - 10 + 1


@pytest.mark.parametrize("travel_s", [0.0, 0.02, 0.035, 0.05, 0.07])
@pytest.mark.parametrize("start_obs_capture_s", [0.05, 0.04, 0.02])
def test_the_formula_for_the_action_buffer_counts_what_is_still_unseen(
    drone: Any, travel_s: float, start_obs_capture_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, step, capture = (round(seconds * 1e9) for seconds in (travel_s, 0.05, start_obs_capture_s))
    command += 1  # as there
    age = command + drone.DummyRCDrone.tick_ns
    formula = 1 + math.ceil((command + age + step - capture) / step)
    assert needed_actions(drone, travel_s, start_obs_capture_s, monkeypatch) == formula


def test_the_drone_can_be_chosen_for_training(drone: Any) -> None:
    from hydra import compose, initialize_config_dir

    from algos.config.schema import register_schemas

    register_schemas()
    train.register_options([CFG, EXAMPLES / "cfg"])
    with initialize_config_dir(str(CFG), version_base="1.3"):
        folder = f"hydra.searchpath=[file://{EXAMPLES / 'cfg'}]"
        config = compose("config", overrides=["task=Drone", "train=RCDroneSAC", folder])
    timing = drone.TIMING
    assert config.task.name == "Drone"
    assert {key: config.task.rtgym[key] for key in timing} == timing


def test_train_py_takes_the_drone(drone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(train, "run", lambda composed, role, words: seen.append(train.prepare(composed, role, words)))
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^python train\.py (task=Drone .*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    words = [word.replace("docs/examples", str(EXAMPLES)) for word in shlex.split(command)]
    assert train.main(words) == 0
    assert seen[0]["config"]["env_name"] == "Drone"


def test_the_camera_works_beside_the_steps(cart: Any) -> None:
    with contextlib.closing(cart.wall_env()) as env:
        observation, _ = env.reset(seed=1)
        ages = []
        for _ in range(15):
            observation, *_ = env.step(cart.drive_ahead(observation))
            ages.append(float(observation[1][0]))
        assert env.observation_space.contains(observation)
    assert min(ages) >= cart.CAPTURE_S  # what is read was finished before
    assert len(set(ages)) > 1


def camera_of(env: RealTimeEnv) -> Any:
    return vars(env.interface)["_camera"]


def test_closing_ends_the_cameras_process(cart: Any) -> None:
    env = cart.wall_env()
    env.reset(seed=1)
    process = camera_of(env)._process
    assert process.is_alive()
    env.close()
    process.join(10.0)
    assert not process.is_alive()


def test_a_dead_camera_raises_in_the_caller(cart: Any) -> None:
    env = cart.wall_env()
    env.reset(seed=1)
    camera_of(env)._process.terminate()
    with pytest.raises(RuntimeError, match="the camera has given no picture for"):
        [env.step(np.zeros(1)) for _ in range(30)]
    env.close()


def test_the_pages_figures_for_using_actions_and_capturing_within_the_step_hold() -> None:
    lines = run_example("parallel_capture.py").splitlines()
    seen = {line.partition(":")[0]: dict(re.findall(r"(\w+) ([\d.]+)", line.partition(":")[2])) for line in lines}
    assert float(seen["parallel process"]["distance_m"]) < float(
        seen["parallel process, blind to the sent actions"]["distance_m"]
    )
    # 50 ms to the capture, and then 80 ms for it.
    assert float(seen["within the step"]["step_ms"]) > 125.0


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize(
    "page", ["real_time.md", "library.md", "own_environments.md", "own_algorithms.md", "checkpoints.md"]
)
def test_the_page_quotes_the_examples_as_they_are(page: str) -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.py")))
    blocks = python_blocks(PAGE.parent / page)
    assert blocks
    for block in blocks:
        is_there = any(textwrap.indent(block.rstrip(), " " * indent) in sources for indent in (0, 4))
        assert is_there, f"not in docs/examples:\n{block}"


def test_the_clock_of_the_example_is_real_only_where_it_says_so(cart: Any) -> None:
    with pytest.raises(ValueError, match=r"needs task\.clock=wall"):
        cart.CartInterface(RtgymConfig(**cart.TIMING), VirtualClock())
    began_at = time.perf_counter()
    cart.CartInterface(RtgymConfig(**cart.TIMING), WallClock()).close()
    assert time.perf_counter() - began_at < 5.0
