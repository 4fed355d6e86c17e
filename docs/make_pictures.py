"""Draws the pictures of README and docs from the simulator: ``python docs/make_pictures.py [checkpoint]``.

Without a checkpoint the scripted driver drives, with one its policy does. The view needs the window of the LIDAR
tasks; a checkpoint of another task draws the driven line only. Those of --check and --record need no checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import tasks
from tasks.config import GameKind
from tasks.game.lidar_sensor import beam_pixels
from tasks.pictures import plot_driven_line, side_by_side, write_png
from tasks.registry import default_config
from tasks.roles.check.task_check import TaskCheck
from tasks.roles.config import RecordConfig
from tasks.roles.overlay import below
from tasks.roles.record.record import recorded_by_script
from tasks.roles.recording_files import draw_map
from tasks.sim.random_tracks import HELD_OUT_SEEDS, random_track
from tasks.trackmania.course import course

IMAGES = Path(__file__).resolve().parent / "images"
TRACK = "medium"
SEED = 1
VIEW_STEP = 190
VIEW_WIDTH = 640
RANDOM_TILE_PX = (230, 230)

Act = Callable[[Any, Mapping[str, np.ndarray]], np.ndarray]


def main(arguments: list[str]) -> None:
    """Writes view.png, driven_line.png, random_tracks.png, check.png and record.png into docs/images."""
    name, act = _trained(arguments[0]) if arguments else ("TM20Lidar", _scripted())
    env = tasks.make(name, observation="dict", track=TRACK, game="sim")
    trajectory, lap_time_s, view = _drive(env, act)
    env.close()
    line = course({"track": TRACK})
    driver = "trained driver" if arguments else "scripted driver"
    lap = "not finished" if lap_time_s is None else f"{lap_time_s:.2f} s"
    title = f"{TRACK}, {driver}: {lap}"
    plot_driven_line(line.centre_line, line.width_m, [trajectory], IMAGES / "driven_line.png", title=title)
    if view is not None:
        write_png(view, IMAGES / "view.png")
    draw_random_tracks()
    draw_roles()


def draw_random_tracks() -> None:
    """Writes the ten held-out random tracks (random_tracks.png)."""
    tracks = [random_track(seed) for seed in HELD_OUT_SEEDS]
    tiles = [
        plot_driven_line(
            track.centre_line, track.width_m, [], title=track.name, size_px=RANDOM_TILE_PX, has_legend=False
        )
        for track in tracks
    ]
    write_png(side_by_side(tiles, 5), IMAGES / "random_tracks.png")


def draw_roles() -> None:
    """Writes what --check shows of two tasks (check.png), and the map that --record draws (record.png)."""
    write_png(below(*[_checked(name) for name in ("TM20Lidar", "TM20Full")]), IMAGES / "check.png")
    task = replace(default_config("TM20Lidar"), game=GameKind.sim, track=TRACK)
    recorded, lap_time_s = recorded_by_script(task, RecordConfig())
    title = f"recorded on {TRACK}: {recorded.length_m:.0f} m, {lap_time_s:.2f} s"
    draw_map(recorded, task, IMAGES / "record.png", title=title)


def _checked(name: str) -> np.ndarray:
    """The picture of --check in the middle of a lap of the scripted driver."""
    with TaskCheck(replace(default_config(name), game=GameKind.sim, track=TRACK)) as check:
        for _ in range(VIEW_STEP):
            check.look()
        return check.picture()


def _drive(env: Any, act: Act) -> tuple[np.ndarray, float | None, np.ndarray | None]:
    """One lap: its trajectory, its time and the view in the middle of it where the window is large enough."""
    observation, info = env.reset(seed=SEED, options={"from_start": True})
    rows: list[tuple[float, float, float]] = []
    view = None
    has_beams = "lidar" in observation
    done = False
    while not done:
        observation, _, terminated, truncated, info = env.step(act(env, observation))
        rows.append((info["x"], info["z"], info["speed_mps"]))
        done = terminated or truncated
        if has_beams and len(rows) == VIEW_STEP:
            view = np.vstack([env.render(), _view(env.interface.game)])
    statistics = info["episode_statistics"]
    return np.array(rows, np.float32), statistics["lap_time_s"] if statistics["finished"] else None, view


def _view(game: Any) -> np.ndarray:
    """The window with the LIDAR's beams, and the grey 64 x 64 picture enlarged in its corner."""
    frame = np.ascontiguousarray(game.frame()[..., 2::-1])
    height, width = frame.shape[:2]
    grey = cv2.resize(cv2.cvtColor(cv2.resize(frame, (64, 64)), cv2.COLOR_RGB2GRAY), (160, 160), interpolation=0)
    for pixels, length in zip(beam_pixels(width, height), game.lidar(), strict=True):
        (row, column), (end_row, end_column) = pixels[0].tolist(), pixels[int(length)].tolist()
        cv2.line(frame, (column, row), (end_column, end_row), (235, 60, 40), 1, cv2.LINE_AA)
        cv2.circle(frame, (end_column, end_row), 4, (235, 60, 40), -1, cv2.LINE_AA)
    frame[:164, -164:] = 255
    frame[:160, -160:] = grey[..., None]
    return cv2.resize(frame, (VIEW_WIDTH, round(height * VIEW_WIDTH / width)), interpolation=cv2.INTER_AREA)


def _scripted() -> Act:
    from tasks.sim.scripted_driver import ScriptedDriver
    from tasks.sim.track import load_track

    driver = ScriptedDriver(load_track(TRACK))
    return lambda env, _: driver.act(env.interface.game.state())


def _trained(checkpoint_file: str) -> tuple[str, Act]:
    from algos.acting.policy import make_acting_policy
    from algos.run.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(checkpoint_file)
    policy = make_acting_policy(**checkpoint.policy["kwargs"], seed=SEED)
    policy.load_weights(checkpoint.acting_weights(), int(checkpoint.policy["version"]))
    policy.begin_episode()
    return checkpoint.config["task"]["name"], lambda _, observation: policy.act(observation, deterministic=True)


if __name__ == "__main__":
    main(sys.argv[1:])
