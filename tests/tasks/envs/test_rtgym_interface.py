"""An interface written for rtgym alone, as in its tutorial, in real time, in virtual time and in train.py."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from rtgym import DEFAULT_CONFIG_DICT, RealTimeGymInterface

import tasks
import train
from tasks import registry
from tasks.config import GymConfig, RealTimeTaskConfig, RtgymConfig, config_from_dict
from tasks.envs.foreign import WrongValueError
from tasks.envs.realtime import RealTimeEnv, VirtualTimeEnv, make_wall_env
from tasks.envs.rtgym_interface import RtgymTask
from tasks.game.clock import Clock, VirtualClock
from tests.tasks.recorder import Recorder

TIMING: dict[str, Any] = {
    "time_step_duration": 0.01,
    "start_obs_capture": 0.01,
    "act_buf_len": 3,
    "wait_on_done": False,
}
CLOCKS = ["virtual", "v1", "ts"]


class Tutorial(RealTimeGymInterface):
    """The six methods, with a drone without delays."""

    def __init__(self) -> None:
        self.sent: list[list[float]] = []
        self.position = np.zeros(2)

    def get_observation_space(self) -> spaces.Tuple:
        return spaces.Tuple([spaces.Box(low=-1.0, high=1.0, shape=(1,)) for _ in range(3)])

    def get_action_space(self) -> spaces.Box:
        return spaces.Box(low=np.array([-2.0, 0.0], np.float32), high=np.array([2.0, 1.0], np.float32))

    def get_default_action(self) -> np.ndarray:
        return np.array([1.0, 0.5], dtype="float32")

    def send_control(self, control: np.ndarray) -> None:
        self.sent.append(np.asarray(control).tolist())
        self.position += 0.05 * control

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[list[Any], dict[str, Any]]:
        assert options is None
        self.position[:] = 0.0
        return [*self.position, 0.5], {}

    def get_obs_rew_terminated_info(self) -> tuple[list[Any], Any, Any, dict[str, Any]]:
        distance = np.float32(abs(self.position[0] - 0.5))
        return [*self.position, 0.5], -distance, distance < 0.01, {}


class Hovering(Tutorial):
    """An interface with its own ``wait``."""

    def wait(self) -> None:
        self.sent.append([7.0, 7.0])


class Duck:
    """An interface that is not derived from rtgym's class."""

    get_observation_space = Tutorial.get_observation_space
    get_action_space = Tutorial.get_action_space
    get_default_action = Tutorial.get_default_action
    send_control = Tutorial.send_control
    reset = Tutorial.reset
    get_obs_rew_terminated_info = Tutorial.get_obs_rew_terminated_info

    def __init__(self, clock: Clock) -> None:
        Tutorial.__init__(self)  # type: ignore[arg-type]
        self.clock = clock


class TwoRewards(Tutorial):
    """An interface that returns two rewards."""

    def get_obs_rew_terminated_info(self) -> tuple[list[Any], Any, Any, dict[str, Any]]:
        return [0.0, 0.0, 0.0], np.zeros(2), False, {}


def made(interface: Any, clock: str, **timing: Any) -> RealTimeEnv:
    config = RtgymConfig(**{**TIMING, **timing})
    if clock == "virtual":
        return VirtualTimeEnv(interface, config, VirtualClock())
    return make_wall_env(interface, config, implementation=clock)


@pytest.mark.parametrize("clock", CLOCKS)
def test_the_tutorials_interface_runs_unchanged_in_its_own_units(clock: str) -> None:
    interface = Tutorial()
    env = made(interface, clock, ep_max_length=5)
    assert env.action_space == interface.get_action_space()
    observation, _ = env.reset(seed=1)
    assert [entry.tolist() for entry in observation] == [[0.0], [0.0], [0.5], [1.0, 0.5], [1.0, 0.5], [1.0, 0.5]]
    rewards: list[Any] = []
    for step in range(1, 6):
        observation, reward, terminated, truncated, info = env.step(np.array([0.25 * step, 0.0]))
        rewards.append(reward)
        assert env.observation_space.contains(observation)
        assert (type(reward), type(terminated)) == (float, bool)
    assert (terminated, truncated) == (False, True)
    assert info["episode_statistics"]["return"] == pytest.approx(sum(rewards))
    assert info["episode_statistics"]["length"] == 5.0
    assert interface.sent == [[1.0, 0.5], [0.25, 0.0], [0.5, 0.0], [0.75, 0.0], [1.0, 0.0]]
    env.close()


@pytest.mark.parametrize("clock", CLOCKS)
def test_an_episode_without_a_limit_goes_on_until_it_terminates(clock: str) -> None:
    env = made(Tutorial(), clock, ep_max_length=math.inf)
    env.reset(seed=1)
    ends = [env.step(np.array([0.0, 0.0]))[2:4] for _ in range(20)]
    assert set(ends) == {(False, False)}
    ends = [env.step(np.array([1.0, 0.0]))[2:4] for _ in range(10)]
    assert (True, False) in ends
    env.close()


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize(
    ("interface", "expected"), [(Tutorial(), [1.0, 0.5]), (Hovering(), [7.0, 7.0]), (Duck(VirtualClock()), [1.0, 0.5])]
)
def test_a_pause_sends_the_default_action_unless_the_interface_waits_otherwise(
    clock: str, interface: Any, expected: list[float]
) -> None:
    interface.sent.clear()
    env = made(interface, clock)
    env.reset(seed=1)
    env.step(np.array([0.0, 0.0]))
    env.wait()
    assert interface.sent[1:] == [[0.0, 0.0], expected]
    env.close()


def test_a_pause_sends_the_default_action_of_a_task_interface_too() -> None:
    class Restless(Recorder):
        wait = tasks.envs.interface.TaskInterface.wait

    clock, config = VirtualClock(), RtgymConfig(**TIMING)
    interface = Restless(clock, config)
    interface.wait()
    assert interface.sent() == [[0.0, 0.0]]


@pytest.mark.parametrize("clock", CLOCKS)
def test_values_that_an_interface_returns_are_checked_and_named(clock: str) -> None:
    env = made(TwoRewards(), clock)
    env.reset(seed=1)
    with pytest.raises(WrongValueError, match=r"TwoRewards: reward must be one number, got array\(\[0\., 0\.\]\)"):
        env.step(np.zeros(2))
    env.close()


def test_spaces_that_cannot_be_used_are_refused() -> None:
    class Choices(Tutorial):
        def get_action_space(self) -> Any:
            return spaces.Discrete(3)

    class Boundless(Tutorial):
        def get_action_space(self) -> spaces.Box:
            return spaces.Box(-np.inf, np.inf, (2,))

    with pytest.raises(ValueError, match="Choices: its actions must be a Box of floats with one axis"):
        made(Choices(), "virtual")
    made(Boundless(), "virtual").close()
    with pytest.raises(ValueError, match="Boundless: its actions have no bounds"):
        RtgymTask(Boundless(), RtgymConfig())


def test_an_unlimited_length_can_be_typed_and_stored() -> None:
    config = config_from_dict(RtgymConfig, json.loads(json.dumps({"ep_max_length": math.inf})), "task.rtgym")
    assert config.ep_max_length == math.inf
    for wrong in (0, 2.5, "never", -math.inf, math.nan):
        with pytest.raises(ValueError, match=r"ep_max_length must be 'auto', inf or an integer >= 1"):
            RtgymConfig(ep_max_length=wrong)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    registry.register("Tutorial", f"{__name__}:Tutorial", RealTimeTaskConfig, {"rtgym": {**TIMING, "ep_max_length": 9}})
    registry.register("Duck", f"{__name__}:Duck", RealTimeTaskConfig, {"rtgym": TIMING})
    return "Tutorial"


def test_as_a_task_actions_are_mapped_to_their_bounds(task: str) -> None:
    env: Any = tasks.make(task, observation="dict")
    assert env.action_space == spaces.Box(-1.0, 1.0, (2,), np.float32)
    observation, _ = env.reset(seed=1)
    assert observation["action_2"].tolist() == [0.5, 0.0]
    assert env.observation_space.contains(observation)
    env.step(np.array([-1.0, 1.0]))
    env.step(np.array([0.0, 0.5]))
    assert env.interface._inner.sent == [[1.0, 0.5], [-2.0, 1.0], [0.0, 0.75]]
    duck: Any = tasks.make("Duck")
    assert isinstance(duck.interface._inner.clock, VirtualClock)


def test_rtgyms_environments_under_task_gym_need_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**DEFAULT_CONFIG_DICT, "interface": Hovering, "time_step_duration": 0.01, "start_obs_capture": 0.01}
    monkeypatch.setitem(gymnasium.registry, "Hovering-v0", None)
    del gymnasium.registry["Hovering-v0"]
    gymnasium.register("Hovering-v0", "rtgym.envs:RealTimeEnvTS", kwargs={"config": config})
    with pytest.raises(ValueError, match=r"task\.id=Hovering-v0 is an environment of rtgym.*set task\.real_time=true"):
        registry.observation_spec("Gym", GymConfig(id="Hovering-v0"))
    waits: list[int] = []
    monkeypatch.setattr(Hovering, "wait", lambda self: waits.append(1))
    env = tasks.make("Gym", id="Hovering-v0", real_time=True)
    assert env.is_real_time
    env.reset(seed=1)
    env.step(np.zeros(2))
    env.wait()
    assert waits == [1]
    env.close()


def test_train_py_learns_with_it_and_plays_it(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["task=Tutorial", "train=SAC", "synchronous=true", "--headless", "max_env_steps=40"]
    words += ["train.params.config.env_steps_before_training=20", "train.params.config.batch_size=8"]
    assert train.main([*words, "train.params.network.hidden=[8]", "train.params.config.evaluation_interval=0"]) == 0
    (file,) = tmp_path.glob("runs/*/nn/last.pth")
    assert train.main(["--play", "--checkpoint", str(file), "play.episodes=1", "play.video=false"]) == 0
    (results,) = tmp_path.glob("runs/*/play/*/results.json")
    assert json.loads(results.read_text())["episodes"][0]["steps"] <= 9
