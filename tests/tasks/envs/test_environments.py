"""The registered environments as users call them: Gymnasium's checker, ids, views, TMRL's script, other learners."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import tasks
from tasks import gymnasium_ids
from tasks.envs.interface import TaskInterface
from tasks.envs.realtime import RealTimeEnv, VirtualTimeEnv, WallClockEnv
from tasks.experience.samples import EPISODE_STATISTICS
from tasks.game.clock import VirtualClock

NAMES = ("TM20Full", "TM20Lidar", "TM20LidarProgress", "TM20Track")
OBSERVATIONS = ("tuple", "dict", "flat")


def make(name: str, observation: str = "tuple", **overrides: Any) -> Any:
    return tasks.make(name, observation=observation, **{"game": "sim", "track": "short", **overrides})


def actions(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform([0.2, -1.0, -0.4], [1.0, 0.3, 0.4], (count, 3)).astype(np.float32)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_environment_checker_passes_without_unexpected_warnings(name: str, observation: str) -> None:
    with warnings.catch_warnings():
        # Engine speed and beams have no upper bound in TMRL; dict and flat are wrappers on purpose.
        warnings.filterwarnings("ignore", message=".*A Box observation space maximum value is infinity")
        if observation != "tuple":
            warnings.filterwarnings("ignore", message=".*is different from the unwrapped version")
        gymnasium_ids.register()
        env = gymnasium.make(f"{name}-v0", observation=observation, game="sim", track="short")
        check_env(env, skip_render_check=False)
        env.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_gymnasium_id_gives_the_environment_itself(name: str) -> None:
    gymnasium_ids.register()
    gymnasium_ids.register()
    env: Any = gymnasium.make(f"{name}-v0", game="sim", track="short")
    assert isinstance(env, VirtualTimeEnv)
    assert env.observation_spec == make(name).observation_spec
    env.reset(seed=1)
    env.wait()
    env.close()


def test_importing_the_module_is_enough_to_find_an_id() -> None:
    script = (
        "import gymnasium\n"
        "env = gymnasium.make('tasks.gymnasium_ids:TM20Lidar-v0', game='sim', track='short', observation='flat')\n"
        "assert env.reset(seed=0)[0].shape == (83,)\n"
    )
    root = Path(tasks.__file__).parents[1]
    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=root, check=True, timeout=100)


def test_a_gymnasium_id_renders_colour_arrays_only() -> None:
    gymnasium_ids.register()
    assert gymnasium.make("TM20Lidar-v0", game="sim", track="short", render_mode="rgb_array").render_mode == "rgb_array"
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array', got 'human'"):
        gymnasium.make("TM20Lidar-v0", game="sim", track="short", render_mode="human")


@pytest.mark.parametrize("name", NAMES)
def test_the_three_views_show_the_same(name: str) -> None:
    plain, by_name, flat = (make(name, observation) for observation in OBSERVATIONS)
    spec = plain.observation_spec
    shown = [env.reset(seed=4)[0] for env in (plain, by_name, flat)]
    for action in actions(60):
        _assert_same(spec, *shown)
        results = [env.step(action) for env in (plain, by_name, flat)]
        assert len({result[1:4] for result in results}) == 1
        shown = [result[0] for result in results]


@pytest.mark.parametrize("observation", ["dict", "flat"])
def test_the_methods_that_users_call_work_in_every_form(observation: str) -> None:
    env = make("TM20Lidar", observation, rtgym={"benchmark": True})
    assert isinstance(env, RealTimeEnv)
    assert env.observation_spec.names[0] == "speed"
    assert isinstance(env.interface, TaskInterface)
    env.set_ep_max_length(2)
    env.set_default_action(np.zeros(3))
    env.set_time_step_duration(0.05)
    env.set_start_obs_capture(0.04)
    assert env.ep_max_length == 2
    env.reset(seed=1)
    env.step(np.zeros(3))
    env.wait()
    env.stop()
    assert env.step(np.zeros(3))[3]
    assert "step_duration" in env.benchmarks()
    env.close()


def test_tmrls_example_script_runs() -> None:
    env = make("TM20Lidar", track="medium")

    def model(obs: tuple[np.ndarray, ...]) -> np.ndarray:
        deviation = obs[1].mean(0)
        deviation /= deviation.sum() + 0.001
        steer = -np.tanh(4.0 * sum((i - 9) * deviation[i] for i in range(19)))
        return np.array([1.0, 0.0, min(max(steer, -1.0), 1.0)])

    obs, _ = env.reset()
    assert [entry.shape for entry in obs] == [(1,), (4, 19), (3,), (3,)]
    for _ in range(200):
        obs, _, terminated, truncated, info = env.step(model(obs))
        if terminated or truncated:
            break
    env.wait()
    assert info["progress"] > 0.02
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_can_be_repeated_from_its_seed(name: str) -> None:
    def episode(seed: int) -> list[float]:
        env = make(name, "flat")
        env.reset(seed=3)
        env.step(actions(1)[0])
        observations = [env.reset(seed=seed)[0]]
        observations += [env.step(action)[0] for action in actions(60)]
        return np.concatenate(observations).tolist()

    assert episode(5) == episode(5)
    assert episode(5) != episode(6)


def test_an_episode_is_the_same_after_days_of_virtual_time() -> None:
    def episode(began_s: float) -> list[float]:
        env = make("TM20Track", "flat", track="long", reward={"MIN_STEPS": 1000})
        env.unwrapped.clock.sleep_until(began_s)
        observations = [env.reset(seed=5)[0]]
        observations += [env.step(action)[0] for action in actions(1000)]
        return np.concatenate(observations).tolist()

    assert episode(0.0) == episode(140_000.0)


def test_an_episode_on_the_simulator_has_statistics() -> None:
    env = make("TM20Lidar", "dict", reward={"wall_penalty": 0.0})
    env.reset(seed=1, options={"from_start": True})
    done = False
    total = 0.0
    while not done:
        _, reward, terminated, truncated, info = env.step(np.array([1.0, -1.0, 0.0]))
        total += reward
        done = terminated or truncated
    statistics = info["episode_statistics"]
    assert tuple(statistics) == EPISODE_STATISTICS
    assert statistics["return"] == pytest.approx(total)
    assert statistics["return"] == pytest.approx(0.1 * statistics["progress"] * _length_m(env))
    assert statistics["max_speed_mps"] > 20.0


@pytest.mark.parametrize("name", NAMES)
def test_the_wall_clock_shows_the_same_as_virtual_time(name: str) -> None:
    """Frames arrive at 60 Hz, so a late capture may show the next one; one of a few attempts must be close."""
    plain: dict[str, Any] = {"randomization": {"capture_jitter_s": 0.0}}
    virtual = _drive(make(name, **plain), 40)
    wall = make(name, clock="wall", **plain)
    assert isinstance(wall, WallClockEnv)
    apart: list[float] = []
    # A frame is 17 ms; at most 28 m/s2 at the start that is 0.5 m/s.
    while len(apart) < 4 and min(apart, default=9.0) >= 1.0:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Time-step timed out")
            real = _drive(wall, 40)
        for one, other in zip(virtual, real, strict=True):
            np.testing.assert_array_equal(one[-2:], other[-2:])
            assert [entry.shape for entry in one] == [entry.shape for entry in other]
        apart.append(max(abs(float(one[0][0] - other[0][0])) for one, other in zip(virtual, real, strict=True)))
    wall.close()
    assert min(apart) < 1.0, f"speeds are {apart} m/s apart"


@pytest.mark.parametrize("observation", ["dict", "flat"])
@pytest.mark.parametrize("algorithm", ["SAC", "PPO"])
def test_stable_baselines_trains_a_few_steps(algorithm: str, observation: str) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    import torch

    torch.set_num_threads(1)
    env = make("TM20Lidar", observation)
    policy = "MlpPolicy" if observation == "flat" else "MultiInputPolicy"
    settings = {"learning_starts": 60, "batch_size": 16, "buffer_size": 200} if algorithm == "SAC" else {}
    settings |= {"n_steps": 40, "batch_size": 20, "n_epochs": 1} if algorithm == "PPO" else {}
    model = getattr(sb3, algorithm)(policy, env, device="cpu", seed=0, policy_kwargs={"net_arch": [16]}, **settings)
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(80)
    after = list(model.policy.parameters())
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    env.close()


def _length_m(env: Any) -> float:
    return 0.1 * (len(env.unwrapped.interface.path) - 1)


def _drive(env: Any, count: int) -> list[tuple[np.ndarray, ...]]:
    return [env.reset(seed=2)[0], *(env.step(action)[0] for action in actions(count))]


def _assert_same(spec: Any, plain: tuple[np.ndarray, ...], by_name: dict[str, np.ndarray], flat: np.ndarray) -> None:
    assert tuple(by_name) == spec.names
    assert (flat.dtype, flat.shape) == (np.float32, spec.flat_space().shape)
    scaled = []
    for entry, field in zip(plain, spec.all_fields(), strict=True):
        np.testing.assert_array_equal(entry, by_name[field.name])
        scaled.append(((entry.astype(np.float64) - field.offset) / field.scale).ravel())
    np.testing.assert_allclose(np.concatenate(scaled), flat, rtol=1e-5, atol=1e-6)


def test_a_clock_is_not_shared_between_environments() -> None:
    first, second = make("TM20Lidar"), make("TM20Lidar")
    first.reset(seed=1)
    first.step(np.zeros(3))
    assert isinstance(second.unwrapped.clock, VirtualClock)
    assert second.unwrapped.clock.now() == 0.0
