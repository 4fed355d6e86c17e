"""A Gymnasium environment as a task: its spaces, ends and statistics, and refused environments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tasks
import train
from tasks import registry
from tasks.acting.env_source import EnvSource
from tasks.acting.evaluation import ClipRecorder, evaluate
from tasks.acting.rollout import Rollout
from tasks.config import GymConfig, config_from_dict
from tasks.envs.foreign import WrongValueError
from tasks.envs.gym_task import GymTaskEnv

SMALL = "Small-v0"


class SmallEnv(gymnasium.Env):
    """Its spaces are arguments, and its observation is drawn from them."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012 (declared so by Gymnasium)

    def __init__(
        self,
        render_mode: str | None = None,
        observation_space: spaces.Space | None = None,
        action_space: spaces.Space | None = None,
        length: int = 3,
        fails_to_render: bool = False,
        returns: dict[str, Any] | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-2.0, 5.0, (3,)) if observation_space is None else observation_space
        self.action_space = action_space or spaces.Box(np.array([-1.0, 0.0]), np.array([3.0, 0.5]), dtype=np.float64)
        self.length = length
        self.fails_to_render = fails_to_render
        self.returns = returns or {}
        self.actions: list[np.ndarray] = []
        self.is_closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if options is not None:
            raise ValueError(f"unknown options {options}")
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {"x": "not a number", "own": 1}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        self.steps += 1
        info = {"x": "not a number", "game_lost": "never", "own": self.steps}
        step = {"observation": self.observation_space.sample(), "reward": 1.5, "truncated": False}
        step |= {"terminated": self.steps == self.length, **self.returns}
        return step["observation"], step["reward"], step["terminated"], step["truncated"], info

    def render(self) -> np.ndarray:
        if self.fails_to_render:
            raise RuntimeError("no display")
        return np.full((8, 10, 3), 7, np.uint8)

    def close(self) -> None:
        self.is_closed = True


PICTURES = "Pictures-v0"
LANDER = "LunarLander-v9"


@pytest.fixture(autouse=True)
def _own_ids() -> Iterator[None]:
    images = {"observation_space": spaces.Box(0, 255, (40, 40, 3), np.uint8)}
    entry: Any = SmallEnv
    gymnasium.register(SMALL, entry)
    gymnasium.register(PICTURES, entry, kwargs=images)
    gymnasium.register(LANDER, entry, kwargs={"action_space": spaces.Discrete(4)})
    yield
    for name in (SMALL, PICTURES, LANDER):
        del gymnasium.registry[name]


def made(**kwargs: Any) -> GymTaskEnv:
    limit = kwargs.pop("max_episode_steps", None)
    env = tasks.make("Gym", id=SMALL, kwargs=kwargs, max_episode_steps=limit)
    assert isinstance(env, GymTaskEnv)
    return env


def inner(env: GymTaskEnv) -> SmallEnv:
    unwrapped = env.env.unwrapped
    assert isinstance(unwrapped, SmallEnv)
    return unwrapped


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")
@pytest.mark.parametrize("observation", ["tuple", "dict", "flat"])
@pytest.mark.parametrize("name", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_gymnasiums_own_environments_pass_its_checker(name: str, observation: str) -> None:
    env = tasks.make("Gym", id=name, observation=observation)
    check_env(env, skip_render_check=True)
    env.close()


def test_an_action_is_mapped_affinely_to_the_bounds_of_each_dimension() -> None:
    env = made()
    env.reset(seed=0)
    for action in ([-1.0, -1.0], [1.0, 1.0], [0.0, 0.5]):
        env.step(np.array(action))
    np.testing.assert_allclose(inner(env).actions, [[-1.0, 0.0], [3.0, 0.5], [1.0, 0.375]], rtol=1e-7)
    assert env.action_space == spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert all(action.dtype == np.float64 for action in inner(env).actions)


def test_both_bounds_are_reached_exactly_and_never_exceeded() -> None:
    low, high = np.float32(-0.4), np.float32(0.7)
    env = made(action_space=spaces.Box(low, high, (1,)), length=9)
    env.reset(seed=0)
    for action in (-1.0, 1.0, np.nextafter(np.float32(1.0), np.float32(2.0)), -7.0):
        env.step(np.array([action]))
    assert [float(action[0]) for action in inner(env).actions] == [low, high, high, low]


def test_an_action_gets_the_shape_and_type_of_its_space_back() -> None:
    env = made(action_space=spaces.Box(-1.0, 1.0, (2, 3)))
    assert env.action_space.shape == (6,)
    env.reset(seed=0)
    env.step(np.arange(6) / 6.0)
    np.testing.assert_allclose(inner(env).actions[0], (np.arange(6) / 6.0).reshape(2, 3), rtol=1e-6)


def test_dicts_and_tuples_become_named_fields_in_the_order_of_the_space() -> None:
    space = spaces.Dict(
        {
            "speed": spaces.Box(0.0, 9.0, (), np.float64),
            "arm": spaces.Dict({"b": spaces.Box(-1.0, 1.0, (2,)), "a": spaces.Box(-1.0, 1.0, (1,))}),
            "pair": spaces.Tuple((spaces.Box(-1.0, 1.0, (2,)), spaces.Box(0, 255, (4,), np.uint8))),
        }
    )
    env = tasks.make("Gym", id=SMALL, kwargs={"observation_space": space}, observation="dict")
    observation, _ = env.reset(seed=3)
    # Gymnasium sorts the keys of a plain dict.
    assert list(observation) == ["arm.a", "arm.b", "pair_0", "pair_1", "speed"]
    assert {name: value.shape for name, value in observation.items()} == {
        "arm.a": (1,), "arm.b": (2,), "pair_0": (2,), "pair_1": (4,), "speed": (1,),
    }  # fmt: skip
    assert {value.dtype.name for name, value in observation.items() if name != "pair_1"} == {"float32"}
    assert observation["pair_1"].dtype == np.uint8
    space.seed(3)
    expected = space.sample()
    assert observation["speed"] == np.float32(expected["speed"])
    np.testing.assert_array_equal(observation["arm.b"], expected["arm"]["b"])
    np.testing.assert_array_equal(observation["pair_1"], expected["pair"][1])
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize(
    ("shape", "expected"), [((6, 8, 3), (6, 8, 3)), ((3, 6, 8), (6, 8, 3)), ((6, 8), (6, 8)), ((8, 8, 8), (8, 8, 8))]
)
def test_an_image_stays_bytes_with_its_channels_last(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    env = made(observation_space=space)
    (picture,), _ = env.reset(seed=1)
    space.seed(1)
    sample = space.sample()
    assert (picture.shape, picture.dtype) == (expected, np.uint8)
    np.testing.assert_array_equal(picture, sample if shape == expected else np.moveaxis(sample, 0, -1))
    (field,) = env.observation_spec.fields
    assert (field.scale, field.high) == (255.0, 255.0)


def test_an_episode_keeps_its_observations() -> None:
    class SameArrayEnv(SmallEnv):
        """An environment that returns the same array each time."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.array = np.zeros(3, np.float32)

        def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            self.array += 1.0
            return self.array, 0.0, False, False, {}

    env = GymTaskEnv(SameArrayEnv(), "same")
    env.reset(seed=0)
    first = env.step(np.zeros(2))[0][0]
    env.step(np.zeros(2))
    assert first.tolist() == [1.0, 1.0, 1.0]


def test_terminated_and_truncated_are_those_of_the_environment() -> None:
    env = made(length=3)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (True, False)]
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(2))
    env = made(length=3, max_episode_steps=2)
    assert env.ep_max_length == 2
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[2:4] for _ in range(2)] == [(False, False), (False, True)]
    env = made(length=2, max_episode_steps=2)
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[2:4] for _ in range(2)] == [(False, False), (True, False)]


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ({"reward": np.array([2.0])}, (2.0, False, False)),
        ({"reward": np.array([[2]], np.int64)}, (2.0, False, False)),
        ({"reward": np.float32(2.0)}, (2.0, False, False)),
        ({"reward": True}, (1.0, False, False)),
        ({"terminated": np.array([True]), "truncated": np.array(1)}, (1.5, True, False)),
        ({"terminated": [0], "truncated": np.array([[True]])}, (1.5, False, True)),
        ({"observation": [1, 2, 3]}, (1.5, False, False)),
        ({"observation": np.array([[1, 2, 3]], np.float64)}, (1.5, False, False)),
    ],
)
def test_an_array_with_one_value_is_taken_as_that_value(
    returns: dict[str, Any], expected: tuple[float, bool, bool]
) -> None:
    env = made(returns=returns)
    env.reset(seed=0)
    (observation,), *step, info = env.step(np.zeros(2))
    assert tuple(step) == expected
    assert [type(value) for value in step] == [float, bool, bool]
    assert observation.shape == (3,)
    assert observation.dtype == np.float32
    assert "observation" not in returns or observation.tolist() == [1.0, 2.0, 3.0]
    assert expected[1:] == (False, False) or info["episode_statistics"]["return"] == expected[0]


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ({"reward": np.zeros(2)}, r"reward must be one number, got array\(\[0\., 0\.\]\) \(shape \[2\], float64\)"),
        ({"reward": None}, r"reward must be one number, got None"),
        ({"reward": "1.0"}, r"reward must be one number, got '1\.0'"),
        ({"terminated": np.zeros(2, bool)}, r"terminated must be true or false, got array.*shape \[2\], bool"),
        ({"terminated": "False"}, r"terminated must be true or false, got 'False'"),
        ({"truncated": None}, r"truncated must be true or false, got None"),
        ({"observation": np.zeros(4)}, r"observation 'observation' must be numbers of shape \[3\], got .*shape \[4\]"),
        ({"observation": None}, r"observation 'observation' must be numbers"),
        ({"observation": np.array(["a", "b", "c"])}, r"observation 'observation' must be numbers"),
        ({"observation": [[1.0], [2.0, 3.0]]}, r"observation 'observation' must be numbers"),
    ],
)
def test_other_values_are_refused_with_value_and_shape(returns: dict[str, Any], message: str) -> None:
    env = made(returns=returns)
    env.reset(seed=0)
    with pytest.raises(WrongValueError, match=rf"^task\.id=Small-v0: {message}"):
        env.step(np.zeros(2))


def test_pictures_of_another_kind_of_number_are_taken_only_as_bytes() -> None:
    space = spaces.Box(0, 255, (2, 2), np.uint8)
    env = made(observation_space=space, returns={"observation": np.full((2, 2), 200)})
    env.reset(seed=0)
    assert env.step(np.zeros(2))[0][0].dtype == np.uint8
    for wrong in (np.full((2, 2), 0.5), np.full((2, 2), 256), np.full((2, 2), -1)):
        env = made(observation_space=space, returns={"observation": wrong})
        env.reset(seed=0)
        with pytest.raises(WrongValueError, match="must be whole numbers from 0 to 255 of shape"):
            env.step(np.zeros(2))


@pytest.mark.parametrize("observation", [{"speed": 1.0}, (1.0,), 3.0])
def test_an_observation_without_its_parts_is_named(observation: Any) -> None:
    space = spaces.Dict({"speed": spaces.Box(0.0, 9.0, ()), "way": spaces.Box(0.0, 9.0, ())})
    env = made(observation_space=space, returns={"observation": observation})
    env.reset(seed=0)
    with pytest.raises(WrongValueError, match=r"task\.id=Small-v0: observation must have the parts"):
        env.step(np.zeros(2))


def test_real_time_puts_an_environment_on_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    description = EnvSource({"name": "Gym", "id": SMALL, "real_time": True}).resolved().describe()
    assert description.is_wall_clock
    waits: list[int] = []
    monkeypatch.setattr(SmallEnv, "wait", lambda self: waits.append(1), raising=False)
    for real_time in (True, False):
        env = tasks.make("Gym", id=SMALL, real_time=real_time)
        assert env.is_real_time == real_time
        env.wait()
    assert waits == [1]


def test_a_synchronous_run_refuses_an_environment_in_real_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([*TINY, "task.real_time=true"]) == 2
    assert "synchronous must be false with task.real_time=true" in capsys.readouterr().err


def test_an_episode_has_return_and_length_and_no_statistics_of_driving() -> None:
    env = made(length=4)
    _, info = env.reset(seed=5)
    assert info == {"own": 1, "seed": 5}
    infos = [env.step(np.zeros(2))[4] for _ in range(4)]
    assert infos[0] == {"own": 1}
    assert infos[-1] == {"own": 4, "episode_statistics": {"return": 6.0, "length": 4.0}}


def test_a_segment_holds_each_action_with_its_result() -> None:
    class CountingPolicy:
        """A policy with the actions 0.1, 0.2, ..."""

        version = 0

        def __init__(self) -> None:
            self.calls = 0

        def act(self, obs: Any, deterministic: bool = False) -> np.ndarray:
            self.calls += 1
            return np.full(2, self.calls / 10, np.float32)

        def begin_episode(self) -> None: ...

    env = tasks.make("Gym", id=SMALL, kwargs={"length": 2}, observation="dict")
    segment = Rollout(env, CountingPolicy(), "w", 0, seed=0).run(6)  # type: ignore[arg-type]
    assert segment.is_first.tolist() == [True, False, False, True, False, False]
    np.testing.assert_allclose(segment.action[:, 0], [0.0, 0.1, 0.2, 0.0, 0.3, 0.4])
    assert segment.reward.tolist() == [0.0, 1.5, 1.5, 0.0, 1.5, 1.5]
    assert segment.terminated.tolist() == [False, False, True, False, False, True]
    assert segment.frames["observation"].shape == (6, 3)
    assert [episode["return"] for episode in segment.episodes] == [3.0, 3.0]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"id": "CartPole-v1"}, r"actions are Discrete\(2\).*continuous.*InvertedPendulum-v5.*plugins="),
        ({"id": "MountainCar-v0"}, "MountainCarContinuous-v0"),
        ({"id": LANDER}, r"LunarLander-v9 with task\.kwargs\.continuous=true"),
        ({"id": "Pendulun-v1"}, r"is not registered.*Pendulum.*plugins=\[my_file\.py\]"),
        ({"id": "Pendulum-v1", "kwargs": {"mass": 3}}, "cannot be made.*mass"),
        ({"id": "os:Pendulum-v1"}, r"plugins=\[my_file.py\] task\.id=Pendulum-v1"),
        ({"id": SMALL, "kwargs": {"action_space": spaces.Box(-np.inf, 1.0, (1,))}}, "no bounds.*RescaleAction"),
        ({"id": SMALL, "kwargs": {"action_space": spaces.Box(0, 3, (1,), np.int64)}}, "whole numbers"),
        ({"id": SMALL, "kwargs": {"action_space": spaces.Box(-1.0, 1.0, ())}}, "must be a vector"),
        ({"id": SMALL, "kwargs": {"observation_space": spaces.Discrete(4)}}, r"observation is Discrete\(4\)"),
        (
            {"id": SMALL, "kwargs": {"observation_space": spaces.Dict({"mode": spaces.Discrete(4)})}},
            "observation 'mode' is Discrete",
        ),
        ({"id": SMALL, "kwargs": {"observation_space": spaces.Dict()}}, "is empty"),
        ({"id": SMALL, "kwargs": {"observation_space": spaces.Box(0.0, 1.0, (0,))}}, "is empty"),
    ],
)
def test_unsupported_spaces_are_refused_with_advice(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        registry.observation_spec("Gym", GymConfig(**config))
    with pytest.raises(ValueError, match=words):
        tasks.make("Gym", **config)


@pytest.mark.parametrize(("key", "value"), [("id", ""), ("max_episode_steps", 0), ("track", "short"), ("game", "sim")])
def test_a_wrong_key_is_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"task\.{key}"):
        config_from_dict(GymConfig, {key: value}, "task")


def test_worker_and_learner_agree_on_id_and_arguments() -> None:
    base = registry.fingerprint("Gym", GymConfig())
    assert registry.fingerprint("Gym", GymConfig()) == base
    assert registry.fingerprint("Gym", GymConfig(kwargs={"g": 9.0})) != base
    assert registry.fingerprint("Gym", GymConfig(id="MountainCarContinuous-v0")) != base


def test_it_has_no_clock_and_can_be_made_many_times() -> None:
    description = EnvSource({"name": "Gym", "id": "Pendulum-v1"}).resolved().describe()
    assert not description.is_wall_clock
    assert not description.is_single_game
    assert description.longest_wait_s == 0.0
    assert description.action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)


def test_options_of_the_harness_do_not_reach_the_environment() -> None:
    env = made()
    env.reset(seed=0, options={"from_start": True})
    with pytest.raises(ValueError, match=r"unknown options \{'angle': 1\}"):
        env.reset(seed=0, options={"from_start": True, "angle": 1})


def test_pictures_come_at_the_rate_of_the_environment_and_a_failure_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    env = tasks.make("Gym", id=SMALL, observation="dict")
    report = evaluate(env, MiddlePolicy(), [1, 2], clip=ClipRecorder(every=1))
    assert report.clip is not None
    assert report.clip.shape == (3, 8, 10, 3)
    assert report.clip_fps == 12.0
    assert (report.has_finish, report.mean_return) == (False, 4.5)
    failing = made(fails_to_render=True)
    failing.reset(seed=0)
    assert failing.render() is None
    assert failing.render() is None
    assert [record.getMessage() for record in caplog.records] == ["no pictures of this environment: no display"]


class MiddlePolicy:
    """A policy with the action 0."""

    def begin_episode(self) -> None: ...

    def act(self, obs: Any, deterministic: bool = False) -> np.ndarray:
        return np.zeros(2, np.float32)


def test_closing_twice_closes_the_environment() -> None:
    env = made()
    env.close()
    env.close()
    assert inner(env).is_closed


def test_mujoco_environments_are_tasks_too() -> None:
    pytest.importorskip("mujoco")
    env = tasks.make("Gym", id="InvertedPendulum-v5", observation="dict")
    observation, _ = env.reset(seed=0)
    assert observation["observation"].shape == (4,)
    assert observation["observation"].dtype == np.float32
    assert env.ep_max_length == 1000
    assert env.step(np.ones(1))[1] == 1.0
    env.close()


TINY = [
    "task=Gym",
    "train=GymSAC",
    "task.id=Pendulum-v1",
    "task.kwargs.g=5.0",
    "task.max_episode_steps=25",
    "synchronous=true",
    "--headless",
    "max_env_steps=120",
    "seed=0",
    "train.params.network.hidden=[16,16]",
    "train.params.config.batch_size=16",
    "train.params.config.env_steps_before_training=50",
    "train.params.config.evaluation_interval=50",
    "train.params.config.evaluation_episodes=2",
    "train.params.config.log_interval=10",
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs a short training by train.py; returns its run folder."""
    folder = tmp_path_factory.mktemp("gym")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train.main(TINY) == 0
    (run,) = (folder / "runs").iterdir()
    return run


def test_a_run_logs_returns_and_chooses_the_best_by_them(run_folder: Path) -> None:
    events = EventAccumulator(str(next((run_folder / "summaries").iterdir())))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"rollout/return", "rollout/episode_length", "evaluation/return"} <= tags
    leaked = ("lap_", "finish", "progress", "wall", "speed_mps")
    assert not [tag for tag in tags if any(word in tag for word in leaked)]
    returns = [event.value for event in events.Scalars("evaluation/return")]
    from algos.run.checkpoint import load_checkpoint

    best = load_checkpoint(str(run_folder / "nn" / "best.pth")).best
    assert best["score"] == [pytest.approx(max(returns)), 0.0, 0.0]
    assert best["score"][0] < 0.0


def test_a_checkpoint_plays_with_its_arguments_and_is_scored_by_return(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run_folder.parents[1])
    words = ["--play", "--checkpoint", str(run_folder / "nn" / "best.pth"), "play.episodes=2"]
    assert train.main(words) == 0
    (file,) = run_folder.glob("play/*/results.json")
    results = json.loads(file.read_text())
    assert list(results) == ["task", "id", "checkpoint", "episodes", "mean_return", "std_return"]
    assert (results["task"], results["id"]) == ("Gym", "Pendulum-v1")
    assert [episode["steps"] for episode in results["episodes"]] == [25, 25]
    returns = [episode["return"] for episode in results["episodes"]]
    assert results["mean_return"] == pytest.approx(np.mean(returns))
    assert {path.name for path in file.parent.iterdir()} == {"results.json", "episode.mp4"}
    printed = capsys.readouterr().out
    assert "Pendulum-v1 with" in printed
    assert f"mean return          {results['mean_return']:.2f}" in printed
    assert not [word for word in ("lap", "finish", "track", "progress", "scripted") if word in printed]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["task.id=CartPole-v1"], "actions are Discrete(2)"),
        (["task.track=short"], "task.track"),
        (["--check"], "is for TrackMania tasks"),
        (["--record"], "is for TrackMania tasks"),
        (["--benchmark"], "has not"),
        ([f"task.id={PICTURES}"], "set train.params.network.encoder=compact_cnn"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_starts(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["task=Gym", "train=GymSAC", *words]) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_advice_for_images_names_only_training_files_that_read_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["task=Gym", "train=GymSAC", f"task.id={PICTURES}"]) == 2
    message = capsys.readouterr().err.strip()
    assert message.endswith("set train.params.network.encoder=compact_cnn")


def test_the_leagues_rules_score_laps_only(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run_folder.parents[1])
    words = ["--play", "--checkpoint", str(run_folder / "nn" / "last.pth"), "play.rules=league"]
    assert train.main(words) == 2
    assert "play.rules=league scores laps" in capsys.readouterr().err
