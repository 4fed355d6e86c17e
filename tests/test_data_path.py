"""The two paths of docs/architecture.md: one observation and one set of weights are followed through the code.

A worker's loop and a learner run in this process, with the real link between them on loopback. Each function that a
list names is watched, and what it is given or returns is searched for the bytes that are followed. One that only calls
others has them when it gives them to the next: so those that it may give them to are watched, too.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algos.acting.policy import make_acting_policy
from algos.algorithms.sac import SAC
from algos.config import NetworkConfig, SACConfig
from algos.learning.learner import Learner, LearnerSchedule
from algos.learning.pace import Pace
from tasks import registry
from tasks.acting.env_source import EnvSource
from tasks.config import GameKind, TaskConfig, config_to_dict
from tasks.process.step_watch import StepWatch
from tasks.remote.learner.gateway import Gateway
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire import link
from tasks.remote.worker.acting_loop import Acting, ActingLoop, make_rollouts
from tasks.sim.camera import FrontCamera
from tasks.sim.game import SimulatedGame
from tests.algos.fakes import FakeListener

pytestmark = pytest.mark.timeout(300)  # the first run compiles the simulator

PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
NETWORK = NetworkConfig(encoder="tmrl_cnn", hidden=[8], feature_size=8)
GIVEN_TO = ("tasks.remote.wire.link:decode_segment",)
MOST_ENV_STEPS = 600
"""Which the worker drives at most; turns in which the learner waits for it do not count."""


def listed(heading: str) -> list[str]:
    """The functions below a heading of the page, as "module:function"."""
    section = PAGE.read_text("utf-8").split(f"### {heading}\n")[1].split("\n#")[0]
    functions = re.findall(r"^\d+\. `(tasks|algos)/([\w/]+)\.py`: `([\w.]+)`", section, re.MULTILINE)
    return [f"{room}.{path.replace('/', '.')}:{function}" for room, path, function in functions]


def carries(value: Any, mark: bytes) -> bool:
    """Whether the bytes are in what a function was given or returned."""
    match value:
        case bytes() | bytearray():
            return mark in value
        case np.ndarray():
            return mark in value.tobytes()
        case torch.Tensor():
            return mark in value.detach().numpy().tobytes()
        case Mapping():
            return any(carries(part, mark) for part in value.values())
        case tuple() | list():
            return any(carries(part, mark) for part in value)
    return hasattr(value, "frames") and carries(value.frames, mark)


class Followed:
    """Watches functions and records the order in which the mark reached them."""

    def __init__(self, functions: list[str], patch: pytest.MonkeyPatch) -> None:
        self.mark = b""
        self.passed: list[str] = []
        self._functions = functions
        for function in {*functions, *GIVEN_TO}:
            self._watch(function, patch)

    def marked(self, picture: np.ndarray) -> np.ndarray:
        """A picture that is followed from now on, in the shape of this one."""
        noise = np.random.default_rng(0).integers(0, 256, picture.shape, np.uint8)
        self.mark = noise.tobytes()
        return noise

    def _watch(self, place: str, patch: pytest.MonkeyPatch) -> None:
        module, _, path = place.partition(":")
        *owner, name = path.split(".")
        holder = functools.reduce(getattr, owner, importlib.import_module(module))
        function = getattr(holder, name)

        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            caller = sys._getframe(1)
            self._note(f"{caller.f_globals['__name__']}:{caller.f_code.co_qualname}", args)
            self._note(place, args)
            result = function(*args, **kwargs)
            self._note(place, (result, args))  # it may have written into what it was given
            return result

        patch.setattr(holder, name, watched)

    def _note(self, place: str, value: Any) -> None:
        if self.mark and place in self._functions and place not in self.passed and carries(value, self.mark):
            self.passed.append(place)


@contextmanager
def training(warm_up_steps: int, num_envs: int = 1) -> Iterator[Learner]:
    """A learner whose link leads to a worker that acts in its environments."""
    config = TaskConfig(name="TM20Full", game=GameKind.sim)
    spec = registry.observation_spec("TM20Full", config)
    algorithm = SAC(spec, SACConfig(memory_size=1000), NETWORK, torch.device("cpu"), seed=0)
    schedule = LearnerSchedule(
        batch_size=64,
        max_env_steps=10_000,
        update_model_interval=10_000,
        log_interval=10_000,
        evaluation_interval=0,
        evaluation_seeds=(),
        checkpoint_interval=0,
    )
    stop = threading.Event()
    pace = Pace(0.5, 1.0, env_steps_before_training=warm_up_steps)
    with Gateway(spec, "followed") as gateway:
        learner = Learner(algorithm.make_memory(spec, 0), None, algorithm, pace, schedule, FakeListener(), stop)
        learner.link = gateway
        place = f"{make_acting_policy.__module__}:{make_acting_policy.__name__}"
        policy = {"function": place, "kwargs": {"spec": spec.to_json(), "network": config_to_dict(NETWORK)}}
        seeds = range(num_envs)
        uplink = Uplink(gateway.address, gateway.token, link.Hello("worker", 0, "worker", "followed"), stop)
        uplink.connect()
        uplink.start(push=True)
        stack = ExitStack()
        source, acting = EnvSource(config_to_dict(config)), Acting(policy, "worker", seeds, seeds)
        loop = ActingLoop(uplink, make_rollouts(stack, source, acting, StepWatch(), stop), 8, stop)
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        try:
            yield learner
        finally:
            stop.set()
            uplink.close()
            thread.join(20.0)
            stack.close()


def follow_to_the_end(learner: Learner, followed: Followed, functions: list[str]) -> None:
    while len(followed.passed) < len(functions) and learner.pace.env_steps < MOST_ENV_STEPS:
        learner.turn()


def test_an_observation_passes_the_functions_of_the_page_on_its_way_to_the_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    functions = listed("Observation to gradient")
    image, pictures = SimulatedGame.image, itertools.count()

    def marked_image(game: SimulatedGame) -> np.ndarray:
        picture = image(game)
        return followed.marked(picture) if next(pictures) == 5 else picture

    monkeypatch.setattr(SimulatedGame, "image", marked_image)
    followed = Followed(functions, monkeypatch)
    with training(warm_up_steps=16) as learner:
        follow_to_the_end(learner, followed, functions)
    assert followed.passed == functions
    assert len(functions) <= 12


def test_an_observation_of_one_of_many_cars_passes_the_functions_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = listed("Observation of many cars") + listed("Observation to gradient")[4:]
    images, calls = FrontCamera.images, itertools.count()

    def marked_images(camera: FrontCamera, poses: Any, grids: Any, out: np.ndarray, slot: int) -> None:
        images(camera, poses, grids, out, slot)
        if next(calls) == 5:
            out[1, slot] = followed.marked(out[1, slot])

    monkeypatch.setattr(FrontCamera, "images", marked_images)
    followed = Followed(functions, monkeypatch)
    with training(warm_up_steps=16, num_envs=2) as learner:
        follow_to_the_end(learner, followed, functions)
    assert followed.passed == functions


def test_weights_pass_the_functions_of_the_page_on_their_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = listed("Weights back")
    followed = Followed(functions, monkeypatch)
    with training(warm_up_steps=10_000) as learner:
        weights = learner._algorithm.acting_weights()
        followed.mark = max(weights.values(), key=lambda array: array.size).tobytes()
        learner.publish()
        follow_to_the_end(learner, followed, functions)
    assert followed.passed == functions
