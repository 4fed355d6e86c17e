"""Random tracks: each is drawn from a number, and an episode draws that number from its own seed.

``task.track=random:SEED`` is the track of a number, ``task.track=random`` another one each episode. Tasks, roles and
pictures get their tracks, by whatever name, from ``any_track`` and ``tracks_of_episodes``.

    python -m tasks.sim.random_tracks      tune the scripted driver to the named twenty again and store the result
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tasks.config import EVALUATION_SEED, PLAY_SEED, RANDOM_TRACK, TaskConfig, random_track_seed
from tasks.sim.random_line import LENGTH_M, WIDTH_M, random_line
from tasks.sim.road_pieces import ROAD_HEIGHT_M, at_height
from tasks.sim.scripted_driver import tune
from tasks.sim.track import TRACKS_FOLDER, ScriptedLap, Track, load_track

HELD_IN_SEEDS = tuple(range(10))
"""Tracks on which training's evaluations drive, so that they choose ``best.pth``. Training may draw them."""
HELD_OUT_SEEDS = tuple(range(10, 20))
"""Tracks on which ``--play`` drives: training never draws them, and they choose nothing."""
SCRIPTED_FILE = TRACKS_FOLDER / "random.json"
"""The scripted driver's results on these twenty."""

_SHADE_SEED = 0
_MOST_SEEDS = 2**31
_EPISODE_ENTROPY = 0x7AC4


class EpisodeTracks(NamedTuple):
    """On which tracks the episodes of a task are driven."""

    first: Track
    """That of all episodes, or what stands for it before the first one."""
    of_episode: Callable[[int | None], Track] | None
    """Track of an episode, by its seed; None: all drive on ``first``."""
    longest_m: float
    """None of them is longer [m]."""


def any_track(name: str, width_m: float = WIDTH_M, *, is_in_game: bool = False) -> Track:
    """``tasks.sim.track.load_track``, and random tracks.

    Args:
        name: As for ``load_track``, or random:SEED.
        width_m: As there.
        is_in_game: As there.

    Raises:
        ValueError: As there; or the name stands for another track each episode.
    """
    if name == RANDOM_TRACK:
        raise ValueError(
            f"task.track={RANDOM_TRACK} is another track each episode, and one track is needed here: name one of them, "
            f"such as task.track={RANDOM_TRACK}:{HELD_OUT_SEEDS[0]}"
        )
    seed = random_track_seed(name)
    return load_track(name, width_m, is_in_game=is_in_game) if seed is None else random_track(seed)


@lru_cache(maxsize=16)
def random_track(seed: int) -> Track:
    """The random track of a number, the same in every process.

    Args:
        seed: At least 0.
    """
    name = f"{RANDOM_TRACK}:{seed}"
    return Track(name, at_height(drawn_line(seed), ROAD_HEIGHT_M), WIDTH_M, _stored_laps().get(name), _SHADE_SEED)


def is_fast(seed: int) -> bool:
    """Whether the random track of a number has long straights: every third one, of those that training may draw."""
    return seed > HELD_OUT_SEEDS[-1] and seed % 3 == 0


def drawn_line(seed: int) -> np.ndarray:
    """The first line of a number that does not end in a dead end, (x, z) [m], shape (N, 2).

    Half are mirrored, half driven from their end.
    """
    return next(line for draw in itertools.count() if (line := _draw(seed, draw)) is not None)


def _draw(seed: int, draw: int) -> np.ndarray | None:
    rng = np.random.default_rng([seed, draw])
    is_mirrored, is_reversed = (rng.random(2) < 0.5).tolist()
    line = random_line(rng, is_fast=is_fast(seed))
    return None if line is None else turned(line, is_mirrored=is_mirrored, is_reversed=is_reversed)


def turned(line: np.ndarray, *, is_mirrored: bool, is_reversed: bool) -> np.ndarray:
    """A line with left and right swapped, or driven from its end to its start, or both; it begins at (0, 0).

    Args:
        line: (x, z) [m], shape (N, 2).
        is_mirrored: Whether a turn to the right becomes one to the left.
        is_reversed: Whether its end becomes its start.
    """
    if is_mirrored:
        line = line * np.array([-1.0, 1.0])
    if is_reversed:
        line = line[::-1] - line[-1]
    return line


def tracks_of_episodes(config: TaskConfig) -> EpisodeTracks:
    """The tracks of a simulated task.

    Args:
        config: The task.
    """
    if config.track == RANDOM_TRACK:
        return EpisodeTracks(random_track(HELD_IN_SEEDS[0]), _TrackOfEpisode(), LENGTH_M[1])
    track = any_track(config.track, config.track_width_m)
    return EpisodeTracks(track, None, track.length_m)


def track_seed_of_episode(seed: int) -> int:
    """Number of the track that an episode with this seed drives on where ``task.track=random``.

    Training's evaluations drive the held-in tracks in their order, the first ten episodes of ``--play`` the held-out
    ones; every other episode gets any track but those.
    """
    for first, tracks in ((EVALUATION_SEED, HELD_IN_SEEDS), (PLAY_SEED, HELD_OUT_SEEDS)):
        if first <= seed < first + len(tracks):
            return tracks[seed - first]
    number = int(np.random.default_rng([seed, _EPISODE_ENTROPY]).integers(_MOST_SEEDS - len(HELD_OUT_SEEDS)))
    return number if number < HELD_OUT_SEEDS[0] else number + len(HELD_OUT_SEEDS)


def main() -> None:
    """Tunes the scripted driver to the named tracks and stores the results."""
    rows = []
    for seed in (*HELD_IN_SEEDS, *HELD_OUT_SEEDS):
        track = random_track(seed)
        parameters, lap = tune(track)
        rows.append(
            f'    "{track.name}": {json.dumps({"parameters": asdict(parameters), "lap_time_s": round(lap, 3)})}'
        )
        sys.stdout.write(f"{track.name}: {track.length_m:.0f} m, {lap:.3f} s\n")
    SCRIPTED_FILE.write_text('{\n  "scripted": {\n' + ",\n".join(rows) + "\n  }\n}\n", encoding="utf-8")


class _TrackOfEpisode:
    """Draws the track of each episode; of one without a seed from a generator without one."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng()

    def __call__(self, seed: int | None) -> Track:
        return random_track(track_seed_of_episode(int(self._rng.integers(_MOST_SEEDS)) if seed is None else seed))


@lru_cache(maxsize=1)
def _stored_laps() -> dict[str, ScriptedLap]:
    stored = json.loads(SCRIPTED_FILE.read_text(encoding="utf-8"))["scripted"]
    return {name: ScriptedLap(entry["parameters"], entry["lap_time_s"]) for name, entry in stored.items()}


if __name__ == "__main__":
    main()
