"""An interface written for rtgym alone, as in its tutorial, used as an environment and as a task of train.py.

python docs/examples/rtgym_interface.py      one episode

``docs/real_time.md`` explains it. The class uses only rtgym; the code below it runs the class here.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from gymnasium import spaces
from rtgym import DummyRCDrone, RealTimeGymInterface

from tasks import registry
from tasks.config import RealTimeTaskConfig, RtgymConfig
from tasks.envs.realtime import make_wall_env

TIMING: dict[str, Any] = {
    "start_obs_capture": 0.05,
    "act_buf_len": 4,
    "ep_max_length": 100,
    "reset_act_buf": False,
    "wait_on_done": False,
}


class MyRealTimeInterface(RealTimeGymInterface):
    """The tutorial's drone."""

    def __init__(self) -> None:
        self.rc_drone: Any = None
        self.target = np.zeros(2, np.float32)

    def get_observation_space(self) -> spaces.Tuple:
        """Position and target."""
        bounds = (1.0, 1.0, 0.5, 0.5)
        return spaces.Tuple([spaces.Box(low=-bound, high=bound, shape=(1,)) for bound in bounds])

    def get_action_space(self) -> spaces.Box:
        """Velocities [m/s]."""
        return spaces.Box(low=-2.0, high=2.0, shape=(2,))

    def get_default_action(self) -> np.ndarray:
        """Velocity 0."""
        return np.array([0.0, 0.0], dtype="float32")

    def send_control(self, control: np.ndarray) -> None:
        """Sets the velocity."""
        self.rc_drone.send_control(control[0], control[1])

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[list[Any], dict[str, Any]]:
        """A new target."""
        self.rc_drone = self.rc_drone or DummyRCDrone()
        self.target[:] = np.random.default_rng(seed).uniform(-0.5, 0.5, 2)
        return [*self.rc_drone.get_observation(), *self.target], {}

    def get_obs_rew_terminated_info(self) -> tuple[list[Any], Any, Any, dict[str, Any]]:
        """Reward: minus the distance. The episode ends when it is less than 1 cm."""
        position = self.rc_drone.get_observation()
        reward = -np.linalg.norm(np.array(position, dtype=np.float32) - self.target)
        return [*position, *self.target], reward, reward > -0.01, {}


def model(observation: tuple[np.ndarray, ...]) -> np.ndarray:
    """A policy that flies straight to the target."""
    pos_x, pos_y, tar_x, tar_y, *_ = observation
    return np.clip(np.concatenate((tar_x - pos_x, tar_y - pos_y)) * 5.0, -2.0, 2.0)


def main() -> None:
    """Flies one episode."""
    env = make_wall_env(MyRealTimeInterface(), RtgymConfig(**TIMING))
    with contextlib.closing(env):
        observation, _ = env.reset(seed=1)
        terminated = truncated = False
        while not (terminated or truncated):
            observation, _, terminated, truncated, info = env.step(model(observation))
    print(f"{info['episode_statistics']['length']:.0f} steps, arrived: {terminated}")


registry.register("MyDrone", f"{__name__}:MyRealTimeInterface", RealTimeTaskConfig, {"rtgym": TIMING})


if __name__ == "__main__":
    main()
