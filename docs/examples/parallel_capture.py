"""An observation that takes longer than a step: a process captures it, and the interface reads the newest result.

python docs/examples/parallel_capture.py      a few seconds in real time

``docs/real_time.md`` explains it. A camera needs 80 ms for a picture of a cart on a rail; a step lasts 50 ms. Replace
``look`` by your sensor and ``Rail`` by your device.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from typing import Any, Protocol, Self

import numpy as np

from tasks.config import RtgymConfig, TaskConfig
from tasks.envs.interface import TaskInterface
from tasks.envs.realtime import RealTimeEnv, make_wall_env
from tasks.experience.observation import Field, ObservationSpec
from tasks.game.clock import Clock, WallClock

CAPTURE_S = 0.08
COLUMNS = 128
MAX_SPEED_MPS = 2.0
TIMING: dict[str, Any] = {
    "time_step_duration": 0.05,
    "start_obs_capture": 0.05,  # reading the newest picture takes no time: at the end of the step it is freshest
    "act_buf_len": 5,  # 1 + ceil(160 ms / 50 ms): captures follow each other, so a picture is 80 to 160 ms old
    "ep_max_length": 30,
}

Policy = Callable[[tuple[np.ndarray, ...]], np.ndarray]


class Rail:
    """A cart on a rail of 2 m: three numbers in memory that both processes share. A real device needs none of this."""

    def __init__(self) -> None:
        self._where_speed_since = multiprocessing.get_context("spawn").Array("d", 3)

    def position(self) -> float:
        """Position of the cart now [m]."""
        with self._where_speed_since.get_lock():
            where, speed, since = self._where_speed_since[:]
        return min(max(where + speed * (time.perf_counter() - since), -1.0), 1.0)

    def drive(self, speed: float) -> None:
        """Sets the speed of the cart [m/s]."""
        where = self.position()
        with self._where_speed_since.get_lock():
            self._where_speed_since[:] = [where, speed, time.perf_counter()]


def look(rail: Rail) -> np.ndarray:
    """The slow sensor: a row of pixels, bright where the cart was when the capture began."""
    picture = np.zeros(COLUMNS, np.uint8)
    picture[round((rail.position() + 1.0) / 2.0 * (COLUMNS - 1))] = 255
    time.sleep(CAPTURE_S)
    return picture


class NewestPicture:
    """The newest picture and its time, in memory that two processes share; neither process waits for the other."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._taken_at = context.Array("d", 1)
        self._pixels = context.Array("B", COLUMNS, lock=False)

    def put(self, taken_at: float, picture: np.ndarray) -> None:
        """Replaces the picture."""
        with self._taken_at.get_lock():
            self._pixels[:] = picture.tolist()
            self._taken_at[0] = taken_at

    def get(self) -> tuple[float, np.ndarray]:
        """When the picture was taken (0: never), and a copy of it."""
        with self._taken_at.get_lock():
            return self._taken_at[0], np.array(self._pixels[:], np.uint8)


def take_pictures(rail: Rail, newest: NewestPicture, stop: Any) -> None:
    """The camera's process: it runs until it is stopped or its parent process has ended."""
    parent = multiprocessing.parent_process()
    while not stop.is_set() and (parent is None or parent.is_alive()):
        began_at = time.perf_counter()  # the picture shows this moment, not the moment when it is ready
        newest.put(began_at, look(rail))


class Camera(Protocol):
    """A source of pictures."""

    def picture(self) -> tuple[np.ndarray, float]:
        """A picture and its age [s]."""
        ...

    def close(self) -> None:
        """Releases the sensor."""
        ...


class ParallelCamera:
    """The right way: a process captures continuously; ``picture`` copies its newest picture in microseconds."""

    def __init__(self, rail: Rail) -> None:
        context = multiprocessing.get_context("spawn")
        self._newest = NewestPicture()
        self._stop = context.Event()
        arguments = (rail, self._newest, self._stop)
        self._process = context.Process(target=take_pictures, args=arguments, name="camera", daemon=True)
        self._process.start()
        self._wait_for_the_first(timeout_s=30.0)

    def picture(self) -> tuple[np.ndarray, float]:
        """The newest picture and its age [s]; raises if it is old, because then the camera's process has died."""
        taken_at, picture = self._newest.get()
        age_s = time.perf_counter() - taken_at
        if age_s > 1.0:
            raise RuntimeError(f"the camera has given no picture for {age_s:.1f} s; is its process alive?")
        return picture, age_s

    def close(self) -> None:
        """Ends the process."""
        self._stop.set()
        self._process.join(2.0)
        if self._process.is_alive():
            self._process.terminate()

    def _wait_for_the_first(self, timeout_s: float) -> None:
        deadline = time.perf_counter() + timeout_s
        while self._newest.get()[0] == 0.0:
            if time.perf_counter() > deadline or not self._process.is_alive():
                raise RuntimeError(f"the camera gave no picture within {timeout_s} s")
            time.sleep(0.01)


class DirectCamera:
    """The wrong way: it captures within the step, so the step takes as long as the capture."""

    def __init__(self, rail: Rail) -> None:
        self._rail = rail

    def picture(self) -> tuple[np.ndarray, float]:
        """Captures a picture now."""
        return look(self._rail), CAPTURE_S

    def close(self) -> None:
        """Nothing to release."""


class CartInterface(TaskInterface):
    """Drive the cart to a mark. Action: speed in [-1, 1] of 2 m/s; reward: minus the distance in the picture [m]."""

    def __init__(
        self, config: RtgymConfig, clock: Clock, make_camera: Callable[[Rail], Camera] = ParallelCamera
    ) -> None:
        """Starts no process: environments are often built just to read their spaces."""
        if not isinstance(clock, WallClock):
            raise ValueError("CartInterface needs task.clock=wall: its camera runs in real time")
        self.observation_spec = self.spec_for(config)
        self._make_camera = make_camera
        self._rail = Rail()
        self._camera: Camera | None = None
        self._mark = 0.0
        self._distances: list[float] = []

    @classmethod
    def spec_for(cls, config: RtgymConfig | TaskConfig) -> ObservationSpec:
        """The age is part of the observation: with the sent actions it shows where the cart is now."""
        rtgym = config.rtgym if isinstance(config, TaskConfig) else config
        fields = (
            Field("picture", (COLUMNS,), "uint8", high=255.0, scale=255.0),
            Field("age", (1,), scale=0.1),
            Field("mark", (1,), low=-1.0, high=1.0),
        )
        return ObservationSpec(fields, 1, rtgym.act_buf_len, rtgym.reset_act_buf)

    @classmethod
    def from_config(cls, config: TaskConfig, clock: Clock) -> Self:
        """Called by ``tasks.make`` and train.py."""
        return cls(config.rtgym, clock)

    def send_control(self, control: np.ndarray | None) -> None:
        """Sets the speed of the cart."""
        if control is not None:
            self._rail.drive(MAX_SPEED_MPS * float(control[0]))

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[list[np.ndarray], dict]:
        """Stops the cart and draws a mark; the first call starts the camera."""
        self._rail.drive(0.0)
        if self._camera is None:
            self._camera = self._make_camera(self._rail)
        self._mark = float(np.random.default_rng(seed).uniform(-0.5, 0.5))
        self._distances = []
        time.sleep(2 * CAPTURE_S)  # so that the first picture shows the cart standing
        return self._observe(), {"progress": 0.0}

    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, dict[str, Any]]:
        """Observes the camera's newest picture."""
        observation = self._observe()
        self._distances.append(abs(_seen_position(observation[0]) - self._mark))
        return observation, -self._distances[-1], False, {"progress": 1.0 - min(self._distances[-1], 1.0)}

    def wait(self) -> None:
        """Stops the cart."""
        self.send_control(self.get_default_action())

    def episode_statistics(self) -> dict[str, float]:
        """Return and length of the episode."""
        return {"return": -sum(self._distances), "length": float(len(self._distances))}

    def close(self) -> None:
        """Ends the camera's process."""
        if self._camera is not None:
            self._camera.close()

    def _observe(self) -> list[np.ndarray]:
        assert self._camera is not None
        picture, age_s = self._camera.picture()
        return [picture, np.array([age_s], np.float32), np.array([self._mark], np.float32)]


def drive_blindly(observation: tuple[np.ndarray, ...]) -> np.ndarray:
    """Treats the old picture as the present."""
    picture, _, mark, *_ = observation
    return np.clip((mark - _seen_position(picture)) * 5.0, -1.0, 1.0)


def drive_ahead(observation: tuple[np.ndarray, ...]) -> np.ndarray:
    """Adds the distance driven since the picture: the newest action is about to act, the others have acted."""
    picture, age, mark, *sent = observation
    step_s = TIMING["time_step_duration"]
    moved = step_s * sent[-1]
    for steps_ago, action in enumerate(reversed(sent[:-1])):
        moved = moved + action * np.clip(age - steps_ago * step_s, 0.0, step_s)
    return np.clip((mark - _seen_position(picture) - MAX_SPEED_MPS * moved) * 5.0, -1.0, 1.0)


def wall_env(make_camera: Callable[[Rail], Camera] = ParallelCamera) -> RealTimeEnv:
    """The cart in real time."""
    config = RtgymConfig(**TIMING)
    return make_wall_env(CartInterface(config, WallClock(), make_camera), config)


def drive(env: RealTimeEnv, policy: Policy, seed: int = 2) -> dict[str, float]:
    """Drives one episode; returns mean step, greatest age [ms], and the distance to the mark in its second half [m]."""
    observation, _ = env.reset(seed=seed)
    ages, distances, truncated = [], [], False
    began_at = time.perf_counter()
    while not truncated:
        observation, reward, _, truncated, _ = env.step(policy(observation))
        ages.append(float(observation[1][0]))
        distances.append(-float(reward))
    return {
        "step_ms": 1e3 * (time.perf_counter() - began_at) / len(ages),
        "max_age_ms": 1e3 * max(ages),
        "distance_m": float(np.mean(distances[len(distances) // 2 :])),
    }


def main() -> None:
    """Drives with each camera and policy."""
    drives = (
        ("parallel process", ParallelCamera, drive_ahead),
        ("parallel process, blind to the sent actions", ParallelCamera, drive_blindly),
        ("within the step", DirectCamera, drive_ahead),
    )
    for name, camera, policy in drives:
        with contextlib.closing(wall_env(camera)) as env:
            seen = drive(env, policy)
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in seen.items()))


def _seen_position(picture: np.ndarray) -> float:
    return int(picture.argmax()) / (COLUMNS - 1) * 2.0 - 1.0


if __name__ == "__main__":
    main()
