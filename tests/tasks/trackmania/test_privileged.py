"""Privileged fields are captured, sent and stored with the others, and no acting policy sees them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import tasks
from tasks import registry
from tasks.acting.env_source import EnvSource
from tasks.config import TaskConfig
from tasks.envs.env_batch import EnvBatch
from tasks.envs.realtime import VirtualTimeEnv
from tasks.experience.observation import Field, ObservationSpec
from tasks.game.clock import VirtualClock
from tasks.game.errors import TelemetryError, TelemetryState
from tasks.remote.wire.link import LockStepCommand
from tasks.remote.worker.env_group import EnvGroup
from tasks.trackmania.driving import PRIVILEGED_FIELDS
from tasks.trackmania.full import FullInterface
from tests.tasks.fake_game import FakeGame, straight_path, task_config

SPEC = ObservationSpec(
    (
        Field("speed", (1,), high=1000.0, scale=50.0),
        Field("truth", (2,), low=-1.0, high=1.0, privileged=True),
        Field("place", (1,), high=1.0),
    ),
    action_size=1,
    act_buf_len=1,
)
ENTRIES = (
    np.array([25.0], np.float32),
    np.array([0.3, -0.7], np.float32),
    np.array([0.25], np.float32),
    np.array([-1.0], np.float32),
)
TASKS = ("TM20Full", "TM20Lidar", "TM20LidarProgress")
FROM_START = {"from_start": True}
GAS = np.array([1.0, 0.0, 0.2], np.float32)


def test_the_visible_specification_lacks_them_and_keeps_the_rest() -> None:
    assert SPEC.names == ("speed", "truth", "place", "action_0")
    assert SPEC.visible.names == ("speed", "place", "action_0")
    assert [field.name for field in SPEC.privileged_fields] == ["truth"]
    assert SPEC.visible.visible is SPEC.visible
    assert replace(SPEC.visible, act_buf_len=0).act_buf_len == 0


def test_the_flat_vector_leaves_them_out() -> None:
    flat = SPEC.flatten(ENTRIES)
    assert flat.tolist() == [0.5, 0.25, -1.0]
    assert SPEC.to_flat(SPEC.to_dict(ENTRIES)).tolist() == flat.tolist()
    assert SPEC.flat_space() == SPEC.visible.flat_space()
    assert SPEC.flat_space().contains(flat)


def test_tuple_dict_and_sent_samples_have_them() -> None:
    assert SPEC.tuple_space().contains(ENTRIES)
    assert list(SPEC.newest(SPEC.to_dict(ENTRIES))) == ["speed", "truth", "place"]
    other = {**SPEC.to_dict(ENTRIES), "truth": np.zeros(2, np.float32)}
    assert SPEC.checksum(other) != SPEC.checksum(SPEC.to_dict(ENTRIES))


def test_plain_data_marks_them_and_is_otherwise_unchanged() -> None:
    loaded = ObservationSpec.from_json(json.loads(json.dumps(SPEC.to_json())))
    assert loaded == SPEC
    assert loaded.fingerprint() != SPEC.visible.fingerprint()
    speed = {"name": "speed", "shape": (1,), "dtype": "float32", "low": 0.0, "high": 1000.0, "history": 0}
    assert SPEC.to_json()["fields"][0] == speed | {"scale": 50.0, "offset": 0.0}
    # as written, with its fingerprint, before there were privileged fields
    old = '{"fields": [{"name": "a", "shape": [2], "dtype": "float32", "low": 0.0, "high": 1.0, "history": 0, '
    old += '"scale": 1.0, "offset": 0.0}], "action_size": 3, "act_buf_len": 2, "reset_act_buf": true}'
    spec = ObservationSpec.from_json(json.loads(old))
    assert spec == ObservationSpec((Field("a", (2,), high=1.0),))
    assert spec.fingerprint() == "8d20c638"


@pytest.mark.parametrize("name", TASKS)
def test_every_task_can_have_them_and_is_otherwise_unchanged(name: str) -> None:
    envs = [tasks.make(name, observation="dict", game="sim", track="short", privileged=flag) for flag in (False, True)]
    plain, wide = envs
    assert not plain.observation_spec.privileged_fields
    names = [entry.name for entry in wide.observation_spec.fields]
    assert set(names) == {*plain.observation_spec.names[:-2], *(entry.name for entry in PRIVILEGED_FIELDS)}
    assert len(set(names)) == len(names)
    assert wide.observation_spec.visible == plain.observation_spec
    config = registry.default_config(name)
    assert isinstance(config, TaskConfig)
    assert registry.fingerprint(name, replace(config, privileged=True)) != registry.fingerprint(name, config)
    observations = [env.reset(seed=1, options=FROM_START)[0] for env in envs]
    for _ in range(20):
        assert observations[1] in wide.observation_space
        assert list(observations[1]) == list(wide.observation_spec.names)
        for key, value in observations[0].items():
            np.testing.assert_array_equal(observations[1][key], value)
        observations = [env.step(GAS)[0] for env in envs]
    assert observations[1]["velocity"][0] > 5.0
    road = tasks.make("TM20Track", observation="dict", game="sim", track="short", randomization=config.randomization)
    track_sees, _ = road.reset(seed=1, options=FROM_START)
    for _ in range(20):
        track_sees = road.step(GAS)[0]
    for field in wide.observation_spec.privileged_fields:
        np.testing.assert_array_equal(observations[1][field.name], track_sees[field.name])


def test_every_episode_starts_with_fresh_fields() -> None:
    env = tasks.make("TM20Lidar", observation="dict", game="sim", track="short", privileged=True)
    first, _ = env.reset(seed=1, options=FROM_START)
    for _ in range(40):
        env.step(GAS)
    again, _ = env.reset(seed=1, options=FROM_START)
    for name in env.observation_spec.names:
        np.testing.assert_array_equal(again[name], first[name])
    assert first["velocity"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", TASKS)
def test_the_flat_view_is_the_same_with_them(name: str) -> None:
    envs = [tasks.make(name, observation="flat", game="sim", track="short", privileged=flag) for flag in (False, True)]
    assert envs[0].observation_space == envs[1].observation_space
    for one, other in [[env.reset(seed=1)[0] for env in envs], [env.step(GAS)[0] for env in envs]]:
        np.testing.assert_array_equal(one, other)


def test_lock_step_sends_only_what_a_policy_may_see() -> None:
    source = EnvSource({"name": "TM20LidarProgress", "game": "sim", "track": "short", "privileged": True}).resolved()
    batch, spec = EnvBatch([source.make()], source.describe().spec, 3), source.describe().spec
    reply = EnvGroup(batch, 1, spec, is_flat=False).answer(LockStepCommand(1, None))
    assert list(reply.observation) == ["speed", "progress", "lidar", "action_0", "action_1"]
    flat = EnvGroup(batch, 1, spec, is_flat=True).answer(LockStepCommand(1, None))
    assert flat.observation["obs"].shape == (1, 84)


def test_a_lost_game_repeats_them() -> None:
    config = task_config()
    config.privileged = True
    clock = VirtualClock()
    game = FakeGame(clock, config)
    env = VirtualTimeEnv(FullInterface(game, straight_path(), config, clock), config.rtgym, clock)
    env.reset(seed=1)
    for _ in range(10):
        before, *_ = env.step(GAS)

    def gone() -> None:
        raise TelemetryError(TelemetryState.in_menu, "a menu")

    game.telemetry = gone  # type: ignore[method-assign, assignment]
    after, _, _, truncated, _ = env.step(GAS)
    assert truncated
    names = env.observation_spec.names
    for name in (field.name for field in env.observation_spec.privileged_fields):
        np.testing.assert_array_equal(after[names.index(name)], before[names.index(name)])
    assert after in env.observation_space


def test_they_use_only_data_that_the_live_game_has() -> None:
    """A game whose facts are unknown, as the live game's are, gives them too."""
    config = task_config()
    config.privileged = True
    clock = VirtualClock()
    game = FakeGame(clock, config)
    facts = game.episode_facts()
    game.episode_facts = lambda: facts._replace(yaw=float("nan"))  # type: ignore[method-assign]
    env = VirtualTimeEnv(FullInterface(game, straight_path(), config, clock), config.rtgym, clock)
    env.reset(seed=1)
    for _ in range(20):
        observation, *_, info = env.step(GAS)
    fields = env.observation_spec.to_dict(observation)
    # The straight path runs along +x.
    assert fields["velocity"] == pytest.approx([info["speed_mps"], 0.0], abs=1e-4)
    assert fields["path_ahead"][:, 1] == pytest.approx(np.zeros(20), abs=1e-4)
    assert all(np.isfinite(fields[field.name]).all() for field in env.observation_spec.privileged_fields)
