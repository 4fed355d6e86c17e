"""Random tracks: what is drawn, from which seed, on which episode it is driven, and what is refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest

from tasks import registry
from tasks.config import EVALUATION_SEED, PLAY_SEED, TaskConfig, config_from_dict
from tasks.sim.random_line import WIDTH_M, random_line
from tasks.sim.random_tracks import (
    HELD_IN_SEEDS,
    HELD_OUT_SEEDS,
    any_track,
    drawn_line,
    is_fast,
    random_track,
    track_seed_of_episode,
    turned,
)
from tasks.sim.scripted_driver import LAP_SEEDS, drive_scripted
from tasks.sim.track import Track, check_line, load_track

DIGEST = """
import hashlib, numpy as np
from tasks.sim.random_line import random_line
lines = [random_line(np.random.default_rng(seed), is_fast=seed == 0) for seed in range(5)]
print(hashlib.sha256(b"".join(np.round(line, 4).tobytes() for line in lines if line is not None)).hexdigest())
"""


@cache
def drawn_lines(*, fast: bool) -> dict[int, np.ndarray]:
    """Lines by their numbers: forty with short straights, or fifty with long ones."""
    return {seed: drawn_line(seed) for seed in range(170 if fast else 50) if is_fast(seed) is fast}


def longest_straight_m(line: np.ndarray) -> float:
    """Of the stretches that turn by less than one degree in 10 m."""
    steps = np.diff(line[::20], axis=0)
    turns = np.abs(np.diff(np.unwrap(np.arctan2(steps[:, 0], steps[:, 1])))) > np.radians(0.2)
    return 2.0 * max(len(part) for part in np.split(turns, np.flatnonzero(turns)))


def is_driven(track: Track) -> bool:
    """Whether the scripted driver finishes it."""
    return not np.isnan(drive_scripted(track, LAP_SEEDS[:1])[0].finish_time_s)


def corners_of(line: np.ndarray) -> list[tuple[float, float]]:
    """(signed degrees, mean radius) of each stretch that turns to one side by more than 15 degrees."""
    steps = np.diff(line[::20], axis=0)
    turn = np.append(np.diff(np.unwrap(np.arctan2(steps[:, 0], steps[:, 1]))), 0.0)
    side = np.sign(turn) * (np.abs(turn) > 0.012)
    found = []
    for part in np.split(np.arange(len(turn)), np.flatnonzero(np.diff(side)) + 1):
        angle = float(turn[part].sum()) if side[part[0]] else 0.0
        if abs(angle) > np.radians(15.0):
            found.append((float(np.degrees(angle)), 2.0 * len(part) / abs(angle)))
    return found


def test_no_line_crosses_or_nears_itself() -> None:
    for seed, line in (drawn_lines(fast=False) | drawn_lines(fast=True)).items():
        check_line(line, WIDTH_M, f"random:{seed}")
        nodes = line[::20]
        along = np.abs(np.arange(len(nodes))[:, None] - np.arange(len(nodes))[None]) * 2.0
        gaps = np.linalg.norm(nodes[:, None] - nodes[None], axis=2)
        assert gaps[along > 45.0].min() > WIDTH_M + 4.0, f"random:{seed}: walls of two stretches touch"


def test_corners_lengths_and_hairpins_are_those_of_the_shipped_tracks() -> None:
    shipped = [load_track(name).centre_line[:, [0, 2]] for name in ("short", "medium", "long")]
    twisty = list(drawn_lines(fast=False).values())
    lengths = [0.1 * (len(line) - 1) for line in twisty]
    assert 0.1 * (len(shipped[0]) - 1) <= min(lengths)
    assert max(lengths) <= 0.1 * (len(shipped[2]) - 1)
    known, drawn = ([corner for line in lines for corner in corners_of(line)] for lines in (shipped, twisty))
    per_corner = [0.1 * (len(line) - 1) / len(corners_of(line)) for line in shipped]
    assert min(per_corner) * 0.9 < sum(lengths) / len(drawn) < max(per_corner) * 1.1
    radii = np.array([radius for _, radius in drawn])
    assert radii.min() > 17.5
    assert np.quantile(radii, 0.98) < max(radius for _, radius in known) * 1.1
    hairpins, expected = (np.mean([abs(angle) > 130.0 for angle, _ in corners]) for corners in (drawn, known))
    assert 0.5 * expected < hairpins < 1.5 * expected
    assert 0.4 < np.mean([angle > 0.0 for angle, _ in drawn]) < 0.6


def test_a_third_of_what_training_draws_has_long_straights_and_the_named_twenty_have_none() -> None:
    assert not any(is_fast(seed) for seed in (*HELD_IN_SEEDS, *HELD_OUT_SEEDS))
    numbers = {track_seed_of_episode(seed) for seed in range(300)}
    assert 0.25 < np.mean([is_fast(number) for number in numbers]) < 0.42
    assert max(longest_straight_m(line) for line in drawn_lines(fast=False).values()) < 210.0
    longest = [longest_straight_m(line) for line in drawn_lines(fast=True).values()]
    assert np.median(longest) > 220.0
    assert max(longest) > 500.0
    assert max(0.1 * (len(line) - 1) for line in drawn_lines(fast=True).values()) <= 1000.0


def test_another_process_draws_the_same() -> None:
    lines = [random_line(np.random.default_rng(seed), is_fast=seed == 0) for seed in range(5)]
    drawn = [line for line in lines if line is not None]
    assert len(drawn) >= 2
    here = hashlib.sha256(b"".join(np.round(line, 4).tobytes() for line in drawn)).hexdigest()
    there = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True, timeout=120)
    assert there.stdout.strip() == here


def test_a_line_is_mirrored_and_driven_from_its_end() -> None:
    line = np.array([[0.0, 0.0], [0.0, 30.0], [20.0, 30.0]])  # ahead, then to the right
    np.testing.assert_array_equal(
        turned(line, is_mirrored=True, is_reversed=False), [[0.0, 0.0], [0.0, 30.0], [-20.0, 30.0]]
    )
    np.testing.assert_array_equal(
        turned(line, is_mirrored=False, is_reversed=True), [[0.0, 0.0], [-20.0, 0.0], [-20.0, -30.0]]
    )


def test_evaluations_are_held_in_play_is_held_out_and_training_draws_no_held_out_track() -> None:
    assert not set(HELD_IN_SEEDS) & set(HELD_OUT_SEEDS)
    assert [track_seed_of_episode(EVALUATION_SEED + i) for i in range(10)] == list(HELD_IN_SEEDS)
    assert [track_seed_of_episode(PLAY_SEED + i) for i in range(10)] == list(HELD_OUT_SEEDS)
    drawn = {track_seed_of_episode(seed) for seed in range(300)}
    assert len(drawn) == 300
    assert not drawn & set(HELD_OUT_SEEDS)


def test_each_episode_is_driven_and_rewarded_on_its_own_track() -> None:
    env: Any = registry.make("TM20Lidar", track="random", game="sim")
    names = []
    for seed in (PLAY_SEED, PLAY_SEED + 1, PLAY_SEED):
        _, info = env.reset(seed=seed)
        names.append(info["track"])
        track = any_track(info["track"])
        np.testing.assert_array_equal(env.interface.path, track.centre_line)
        x, z = track.start_position
        assert np.hypot(info["x"] - x, info["z"] - z) < 2.0
    assert names == ["random:10", "random:11", "random:10"]
    env.close()


def test_the_named_twenty_have_a_stored_lap_of_the_scripted_driver() -> None:
    for seed in (*HELD_IN_SEEDS, *HELD_OUT_SEEDS):
        track = random_track(seed)
        assert is_driven(track)
        assert track.scripted is not None
        assert 5.0 < track.scripted.lap_time_s < 40.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_scripted_driver_finishes_whatever_is_drawn() -> None:
    for seed in range(100):
        assert is_driven(random_track(seed))


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ({"track": "random:-1"}, "task.track must be random:SEED with a whole number SEED >= 0"),
        ({"track": "random:"}, "task.track must be random:SEED"),
        ({"track": "random", "game": "live"}, "task.track must be a path on the map that is open in the game"),
        ({"track": "random", "reward": {"path": "my.npy"}}, "task.reward.path must be null with task.track=random"),
        ({"track": "random:3", "track_width_m": 20.0}, "task.track_width_m must be left out"),
    ],
)
def test_what_does_not_fit_random_tracks_is_refused(words: dict[str, Any], refusal: str) -> None:
    with pytest.raises(ValueError, match=refusal):
        config_from_dict(TaskConfig, words, "task")


def test_where_one_track_is_needed_one_must_be_named() -> None:
    with pytest.raises(ValueError, match=r"another track each episode.*such as task.track=random:10"):
        any_track("random")
    assert any_track("random:3").name == "random:3"
    assert any_track("short").name == "short"
