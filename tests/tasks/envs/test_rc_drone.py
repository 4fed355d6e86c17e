"""The drone equals that of real-time gym's tutorial: travel times, late messages, the task, both clocks, its state."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from rtgym.tuto import dummy_drone

import tasks
import train
from algos.run.checkpoint import load_checkpoint
from tasks import registry
from tasks.acting.rollout import Rollout
from tasks.config import RCDroneConfig
from tasks.envs.rc_drone import MAX_SPEED_MPS, DummyRCDrone, RCDroneInterface, now_ns
from tasks.envs.realtime import RealTimeEnv
from tasks.game.clock import VirtualClock

MS = 1_000_000


def new_drone(clock: VirtualClock, travels_ms: list[float] | None = None, seed: int = 0) -> DummyRCDrone:
    """A drone; ``travels_ms``: travel times of its commands, one after the other, and reports take 20 ms."""
    drone = DummyRCDrone(clock, np.random.default_rng(seed))
    if travels_ms is not None:
        left = iter(travels_ms)
        drone._travel = lambda: 20 * MS  # type: ignore[method-assign]
        send = drone.send_control

        def sent(vel_x: float, vel_y: float) -> None:
            drone._advance(now_ns(clock))
            drone._travel = lambda: round(next(left) * MS)  # type: ignore[method-assign]
            send(vel_x, vel_y)
            drone._travel = lambda: 20 * MS  # type: ignore[method-assign]

        drone.send_control = sent  # type: ignore[method-assign]
    return drone


def seen_from(clock: VirtualClock, drone: DummyRCDrone, until_s: float) -> dict[int, float]:
    """The observed x at each millisecond from now on."""
    first = round(clock.now() * 1000)
    seen = {}
    for ms in range(first, round(until_s * 1000) + 1):
        clock.sleep_until(ms / 1000)
        seen[ms] = drone.get_observation()[0]
    return seen


def test_travel_times_are_uniform_between_20_and_50_ms() -> None:
    drone = new_drone(VirtualClock(), seed=1)
    travels = np.array([drone._travel() for _ in range(4000)]) / MS
    assert 20.0 <= travels.min() < 20.5
    assert 49.5 < travels.max() <= 50.0
    assert travels.mean() == pytest.approx(35.0, abs=0.5)
    assert travels.std() == pytest.approx(30.0 / np.sqrt(12.0), abs=0.3)


@pytest.mark.parametrize("seed", range(20))
def test_a_command_shows_40_to_110_ms_later(seed: int) -> None:
    clock = VirtualClock()
    drone = new_drone(clock, seed=seed)
    clock.sleep_until(0.1 + 0.0007 * seed)
    sent_at_ms = clock.now() * 1000
    drone.send_control(1.0, 0.0)
    seen = seen_from(clock, drone, 0.3)
    first_ms = min(ms for ms, x in seen.items() if x > 0.0)
    assert 40.0 < first_ms - sent_at_ms <= 110.0 + 10.0  # the report that shows it is sent a tick after it is applied


def test_a_position_is_20_to_60_ms_old() -> None:
    clock = VirtualClock()
    drone = new_drone(clock, seed=3)
    drone.send_control(1.0, 0.0)
    clock.sleep_until(0.2)
    ages_ms = []
    for ms in range(200, 600):
        clock.sleep_until(ms / 1000)
        seen = drone.get_observation()[0]
        # 1 m/s: the position tells the time at which it was true, from the report of the present position.
        ages_ms.append((drone._x - seen) * 1000)
    assert min(ages_ms) >= 20.0
    assert max(ages_ms) <= 60.0 + 10.0


def test_a_command_that_was_overtaken_is_never_applied() -> None:
    clock = VirtualClock()
    drone = new_drone(clock, travels_ms=[50.0, 20.0])
    drone.send_control(-1.0, 0.0)  # arrives at 50 ms
    clock.sleep_until(0.015)
    drone.send_control(1.0, 0.0)  # arrives at 35 ms, and is the newer one
    seen = seen_from(clock, drone, 0.5)
    assert min(seen.values()) == 0.0
    # Applied at the tick of 40 ms; the report of 460 or 470 ms has arrived by 490 ms.
    assert seen[490] == pytest.approx(0.43)


def test_a_report_that_was_overtaken_is_ignored() -> None:
    clock = VirtualClock()
    drone = new_drone(clock, seed=5)
    drone.send_control(1.0, 0.0)
    values = list(seen_from(clock, drone, 0.6).values())
    assert values == sorted(values)


def test_the_fastest_command_keeps_its_direction() -> None:
    clock = VirtualClock()
    drone = new_drone(clock, travels_ms=[20.0])
    drone.send_control(30.0, 40.0)
    clock.sleep_until(0.5)
    x, y = drone.get_observation()
    assert x / y == pytest.approx(0.75)
    # Applied from the tick of 20 ms to that of 480 ms, whose report has just arrived.
    assert np.hypot(x, y) == pytest.approx(MAX_SPEED_MPS * 0.46)


def test_the_world_ends_at_one_metre() -> None:
    clock = VirtualClock()
    drone = new_drone(clock)
    drone.send_control(2.0, -1.0)
    clock.sleep_until(3.0)
    assert drone.get_observation() == (1.0, -1.0)


def test_the_numbers_are_those_of_rtgyms_drone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dummy_drone, "Thread", lambda **_: type("Idle", (), {"start": lambda self: None})())
    theirs = dummy_drone.DummyRCDrone()
    ours = DummyRCDrone(VirtualClock(), np.random.default_rng(0))
    assert (theirs.communication_delay_min, theirs.communication_delay_max) == tuple(t * 1e-9 for t in ours.travel_ns)
    assert (theirs.control_sleep, theirs.max_vel, theirs.world_size) == (
        ours.tick_ns * 1e-9,
        ours.max_speed_mps,
        ours.world_size_m,
    )


def made(**config: Any) -> RealTimeEnv:
    env = tasks.make("RCDrone", **config)
    assert isinstance(env, RealTimeEnv)
    return env


def interface_of(env: RealTimeEnv) -> RCDroneInterface:
    assert isinstance(env.interface, RCDroneInterface)
    return env.interface


def fly_ahead(observation: tuple[np.ndarray, ...]) -> np.ndarray:
    """Aims from the place where the drone will be when the sent actions have acted."""
    position, target = np.concatenate(observation[:2]), np.concatenate(observation[2:4])
    acting = (0.5 * observation[5] + observation[6] + observation[7]) * MAX_SPEED_MPS * 0.05
    return np.clip((target - position - acting) * 5.0, -1.0, 1.0)


def test_the_configuration_is_the_tutorials() -> None:
    rtgym = RCDroneConfig().rtgym
    assert (rtgym.time_step_duration, rtgym.start_obs_capture, rtgym.time_step_timeout_factor) == (0.05, 0.05, 1.0)
    assert (rtgym.ep_max_length, rtgym.act_buf_len, rtgym.reset_act_buf) == (100, 4, False)


def test_spaces_are_the_tutorials_with_actions_in_one() -> None:
    env = made()
    assert env.observation_spec.names == ("pos_x", "pos_y", "tar_x", "tar_y", *(f"action_{i}" for i in range(4)))
    bounds = [(float(space.low[0]), float(space.high[0]), space.shape) for space in env.observation_space.spaces]  # type: ignore[attr-defined]
    assert bounds == [(-1.0, 1.0, (1,))] * 2 + [(-0.5, 0.5, (1,))] * 2 + [(-1.0, 1.0, (2,))] * 4
    assert env.action_space == spaces.Box(-1.0, 1.0, (2,), np.float32)
    for seed in range(3):
        assert env.observation_space.contains(env.reset(seed=seed)[0])
        assert all(env.observation_space.contains(env.step(env.action_space.sample())[0]) for _ in range(9))


def test_the_reward_is_minus_the_distance_and_100_steps_truncate() -> None:
    env = made()
    env.reset(seed=4)
    for step in range(1, 101):
        observation, reward, terminated, truncated, info = env.step(np.array([1.0, 1.0]))
        position, target = np.concatenate(observation[:2]), np.concatenate(observation[2:4])
        assert reward == pytest.approx(-np.linalg.norm(position - target), abs=1e-6)
        assert (terminated, truncated) == (False, step == 100)
    assert np.abs(target).max() <= 0.5
    statistics = info["episode_statistics"]
    assert (statistics["length"], statistics["finished"]) == (100.0, 0.0)
    assert np.isnan(statistics["lap_time_s"])


def test_a_target_is_reached_within_a_centimetre_and_the_time_is_reported() -> None:
    env = made()
    arrived = 0
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        ended = truncated = False
        rewards = []
        while not (ended or truncated):
            observation, reward, ended, truncated, info = env.step(fly_ahead(observation))
            rewards.append(float(reward))
        assert ended == (rewards[-1] > -0.01)
        assert all(reward <= -0.01 for reward in rewards[:-1])
        arrived += ended
        statistics = info["episode_statistics"]
        assert statistics["return"] == pytest.approx(sum(rewards))
        if ended:
            assert statistics["lap_time_s"] == pytest.approx(0.05 * len(rewards))
            assert (statistics["finished"], statistics["progress"]) == (1.0, 1.0)
    assert arrived >= 18


def test_a_reset_moves_the_target_and_nothing_else() -> None:
    env = made(rtgym={"ep_max_length": 8})
    env.reset(seed=0)
    for _ in range(8):
        last, *_ = env.step(np.array([0.5, 0.0]))
    first, _ = env.reset(seed=1)
    assert first[0] >= last[0] > 0.0
    assert first[2] != last[2]
    assert [float(action[0]) for action in first[4:]] == [0.5, 0.5, 0.5, 0.0]  # the last one was never sent


def test_the_drone_does_not_move_before_the_first_reset() -> None:
    env = made()
    assert interface_of(env)._drone is None
    assert env.render().tolist()[200][190] != [255, 255, 255]  # type: ignore[union-attr]
    env.reset(seed=0)
    assert interface_of(env)._drone is not None


def test_the_picture_shows_drone_and_target_where_they_are() -> None:
    env = made()
    observation, _ = env.reset(seed=2)
    for _ in range(12):
        observation, *_ = env.step(np.array([0.4, -0.2]))
    picture = env.render()
    assert picture is not None
    assert (picture.shape, picture.dtype) == ((400, 400, 3), np.uint8)
    for name, colour, at in (("drone", [0, 0, 255], observation[:2]), ("target", [255, 0, 0], observation[2:4])):
        rows, columns = np.nonzero((picture == colour).all(axis=-1))
        expected = [float(value[0]) * 200 + 200 for value in at]
        assert [columns.mean(), rows.mean()] == pytest.approx(expected, abs=3.0), name


def test_both_clocks_give_the_same_flight() -> None:
    """On both clocks 20 steps of 1 m/s lead to the distance that delays of 40 to 110 ms allow."""
    seen = {}
    for clock in ("virtual", "wall"):
        env = made(clock=clock)
        env.reset(seed=0)
        started_s = time.perf_counter()
        for _ in range(14):
            observation, *_ = env.step(np.array([0.5, 0.0]))
        duration_s = time.perf_counter() - started_s
        seen[clock] = float(observation[0][0])
        assert env.is_real_time == (clock == "wall")
        assert clock == "virtual" or duration_s > 13 * 0.05
        env.close()
    # 13 steps have acted; 40 to 120 ms of them are not seen yet. A late step of a busy machine flies on.
    assert 0.65 - 0.13 <= seen["virtual"] <= 0.65 - 0.03
    assert 0.65 - 0.13 <= seen["wall"] <= 1.0


def test_the_state_is_plain_data_and_continues_bit_for_bit_later() -> None:
    clock = VirtualClock()
    drone = new_drone(clock, seed=7)
    for index in range(40):
        clock.sleep_until(0.033 * index)
        drone.send_control(np.sin(index), np.cos(index))
    state = json.loads(json.dumps(drone.state()))
    later = VirtualClock()
    later.sleep_until(77.7)
    other = new_drone(later, seed=8)
    other.load_state(state)
    start, other_start = clock.now(), later.now()
    for index in range(1, 60):
        clock.sleep_until(start + 0.007 * index)
        later.sleep_until(other_start + 0.007 * index)
        for each in (drone, other):
            each.send_control(0.1 * index, -0.2)
        assert drone.get_observation() == other.get_observation()


class NoisyPolicy:
    """A policy that draws its actions."""

    version = 0

    def __init__(self) -> None:
        self.rng = np.random.default_rng(3)

    def act(self, obs: Any, deterministic: bool = False) -> np.ndarray:
        return self.rng.uniform(-1.0, 1.0, 2).astype(np.float32)

    def load_weights(self, weights: Any, version: int) -> None: ...

    def begin_episode(self) -> None: ...

    def state(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state}

    def load_state(self, state: Any) -> None:
        self.rng.bit_generator.state = state["rng"]


@pytest.mark.parametrize("rows", [5, 21, 30, 63])
def test_a_rollout_continues_bit_for_bit_although_no_reset_moves_the_drone(rows: int) -> None:
    def rollout() -> Rollout:
        env = tasks.make("RCDrone", observation="dict", rtgym={"ep_max_length": 20})
        return Rollout(env, NoisyPolicy(), "w", 0, seed=1, check_samples=True)

    first = rollout()
    first.run(rows)
    state = json.loads(json.dumps(first.state()))
    second = rollout()
    second.load_state(state)
    one, other = first.run(70), second.run(70)
    np.testing.assert_array_equal(one.checksums, other.checksums)  # type: ignore[arg-type]
    np.testing.assert_array_equal(one.reward, other.reward)
    told, other_told = ([list(episode.values()) for episode in segment.episodes] for segment in (one, other))
    np.testing.assert_array_equal(told, other_told)


def test_a_run_resumes_from_its_checkpoint_and_plays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "task=RCDrone",
        "train=RCDroneSAC",
        "synchronous=true",
        "--headless",
        "max_env_steps=130",
        "seed=0",
        "train.params.network.hidden=[16,16]",
        "train.params.config.batch_size=16",
        "train.params.config.env_steps_before_training=60",
        "train.params.config.evaluation_episodes=1",
    ]
    assert train.main(words) == 0
    (run,) = (tmp_path / "runs").iterdir()
    last = run / "nn" / "last.pth"
    assert train.main([f"checkpoint={last}", "max_env_steps=180", "--headless"]) == 0
    assert load_checkpoint(str(last)).counters["env_steps"] >= 180
    capsys.readouterr()
    assert train.main(["--play", "--checkpoint", str(last), "play.episodes=2"]) == 0
    (file,) = run.glob("play/*/results.json")
    results = json.loads(file.read_text())
    assert results["task"] == "RCDrone"
    assert not {"track", "game", "scripted_lap_time_s", "lap_ratio"} & set(results)
    assert {"finish_rate", "mean_lap_time_s", "mean_return"} <= set(results)
    assert {path.name for path in file.parent.iterdir()} == {"results.json", "episode.mp4"}
    printed = capsys.readouterr().out
    assert "RCDrone with" in printed
    assert not [word for word in ("track", "scripted", "lap ") if word in printed]


def test_the_task_has_no_game_to_choose() -> None:
    assert registry.resolve_game(RCDroneConfig()).clock.name == "virtual"
    with pytest.raises(ValueError, match=r"task\.game"):
        tasks.make("RCDrone", game="sim")
