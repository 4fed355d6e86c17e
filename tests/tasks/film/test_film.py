"""A film shows the episode in its own time, with what its panels say at the moment of each picture."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import tasks
from tasks.acting.evaluation import evaluate
from tasks.film import frames as film_frames
from tasks.film.frames import frames, write_animation, write_film
from tasks.film.gap import gaps_s
from tasks.film.overlay import HEIGHT, WIDTH, Dials, DrivingOverlay
from tasks.film.recorder import FilmRecorder, Shot
from tasks.sim.chase_view import ChaseCar
from tasks.trackmania.full import FullInterface
from tests.tasks.trackmania.test_trackmania_interfaces import build, task_config

STEER_BAR, GAS_BAR, BRAKE_BAR = ((slice(y, y + 6), slice(110, 336)) for y in (600, 634, 668))
"""Rows and columns of the picture."""


class Straight:
    """Full gas ahead."""

    version = 1

    def begin_episode(self) -> None: ...

    def act(self, obs: Any, deterministic: bool = False) -> np.ndarray:
        return np.array([1.0, -1.0, 0.5], np.float32)


def car(time_s: float = 0.0, **changes: Any) -> ChaseCar:
    return ChaseCar(0.0, 10.0 * time_s, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0, 3, time_s)._replace(**changes)


def recorded(cars: list[ChaseCar]) -> FilmRecorder:
    """A film of a car whose view is black but for its place and heading, as numbers in two pixels."""
    film = FilmRecorder()
    film.shots = [Shot(each.time_s, each, None, np.zeros(3, np.float32), 0.0) for each in cars]
    film.path = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 100.0], [50.0, 0.0, 100.0]])
    film.seen = []  # type: ignore[attr-defined]

    def view(car: ChaseCar, width: int, height: int) -> np.ndarray:
        film.seen.append(car)  # type: ignore[attr-defined]
        return np.zeros((height, width, 3), np.uint8)

    film.view = view
    return film


def test_a_simulated_car_is_drawn_where_it_was_between_two_steps() -> None:
    turned = [car(0.0, yaw=3.1), car(0.5, yaw=-3.1, gear=4)]
    film = recorded(turned)
    assert len(list(frames(film, 8.0, "x"))) == (0.5 + film_frames.HOLD_S) * 8
    seen = film.seen[:5]  # type: ignore[attr-defined]
    assert [each.time_s for each in seen] == [0.0, 0.125, 0.25, 0.375, 0.5]
    assert [each.z for each in seen] == [0.0, 1.25, 2.5, 3.75, 5.0]
    assert math.cos(seen[2].yaw) == pytest.approx(-1.0)  # the short way round, by pi
    assert [each.gear for each in seen] == [3, 3, 3, 3, 4]


def colours(picture: np.ndarray, place: tuple[slice, slice]) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in picture[place].reshape(-1, 3).tolist()}


def test_the_bars_show_the_controls_and_the_map_shows_the_car() -> None:
    path = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 100.0], [50.0, 0.0, 100.0]])
    overlay = DrivingOverlay(path, np.zeros((1, 2)), np.zeros(1), has_gap=True)
    blank = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    idle = overlay.draw(blank, Dials(1.0))
    busy = overlay.draw(blank, Dials(1.0, gas=1.0, brake=0.5, steer=-1.0, z=100.0, gap_s=0.5))
    assert not blank.any()
    assert len(colours(idle, GAS_BAR)) == len(colours(busy, GAS_BAR)) == 1
    assert colours(idle, GAS_BAR) != colours(busy, GAS_BAR)
    changed = (idle != busy).any(axis=2)
    assert changed[BRAKE_BAR].mean() == pytest.approx(0.5, abs=0.03)
    assert changed[STEER_BAR][:, :100].all()
    assert not changed[STEER_BAR][:, 130:].any()
    assert changed[100:140, 1010:1250].any()  # the gap
    rows, columns = np.nonzero((idle != busy).any(axis=2)[24:235, 24:275])
    assert rows.min() < 40  # the car was drawn low, and now high, in the map
    assert columns.max() < 150


def test_a_gap_is_the_difference_of_the_times_at_the_same_place() -> None:
    places, times = np.array([0.0, 15.0, 40.0, 99.0]), np.array([0.0, 2.0, 3.0, 9.0])
    reference_times, reference_places = np.array([0.0, 1.0, 5.0]), np.array([0.0, 10.0, 50.0])
    np.testing.assert_allclose(gaps_s(times, places, reference_times, reference_places), [0.0, 0.5, -1.0, np.nan])


@pytest.mark.parametrize("name", ["TM20Lidar", "RCDrone"])
def test_every_task_is_filmed_by_numbers_or_by_its_own_pictures(name: str) -> None:
    track = (
        {"track": "short", "rtgym": {"ep_max_length": 4}} if name == "TM20Lidar" else {"rtgym": {"ep_max_length": 4}}
    )
    env = tasks.make(name, observation="dict", **track)
    film = FilmRecorder()
    policy: Any = Straight()
    policy.act = lambda obs, deterministic=False: np.ones(env.observation_spec.action_size, np.float32)
    report = evaluate(env, policy, [1, 2], film=film)
    env.close()
    assert [episode.steps for episode in report.episodes] == [4, 4]
    assert len(film.shots) == 5  # of the first episode
    assert np.diff([shot.time_s for shot in film.shots]) == pytest.approx(0.05)
    assert film.shots[-1].episode_return == pytest.approx(report.episodes[0].episode_return)
    assert all((shot.picture is None) == (name == "TM20Lidar") for shot in film.shots)
    pictures = list(frames(film, 2.0, f"{name} here"))
    assert [(picture.shape, picture.dtype) for picture in pictures] == [((HEIGHT, WIDTH, 3), np.uint8)] * 4
    assert len(np.unique(pictures[0].reshape(-1, 3), axis=0)) > 20


def test_the_live_game_is_filmed_by_its_window_and_telemetry() -> None:
    env, _ = build(FullInterface, task_config())
    env = env.observe_as("dict")
    film = FilmRecorder()
    env.reset(seed=1)
    film.begin(env)
    action = np.array([1.0, -1.0, 0.0], np.float32)
    for _ in range(20):
        *_, info = env.step(action)
        film.step(env, action, 1.0, info)
    shot = film.shots[-1]
    assert film.view is None
    assert shot.picture is not None
    assert np.asarray(cv2.imdecode(shot.picture, cv2.IMREAD_COLOR)).shape == (128, 256, 3)
    assert shot.car is not None
    assert (shot.car.gas, shot.car.gear, shot.episode_return) == (1.0, 1, 20.0)
    assert shot.car.x == pytest.approx(info["x"], abs=1.0)  # at the end of the step, after its capture
    (first, *_) = frames(film, 1.0, "x")
    assert first.shape == (HEIGHT, WIDTH, 3)


def test_an_episode_that_begins_again_is_filmed_anew() -> None:
    env, _ = build(FullInterface, task_config())
    film = FilmRecorder()
    for _ in range(2):
        env.reset(seed=1)
        film.begin(env)
    assert len(film.shots) == 1


def test_a_film_is_1280_by_720_at_30_pictures_a_second(tmp_path: Path) -> None:
    write_film(recorded([car(0.0), car(0.5)]), tmp_path / "episode.mp4", "x")
    video = cv2.VideoCapture(str(tmp_path / "episode.mp4"))
    size = (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT))
    assert (*size, video.get(cv2.CAP_PROP_FPS)) == (WIDTH, HEIGHT, 30.0)
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 60
    video.release()


def test_an_animated_picture_is_made_smaller_until_it_is_small_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film_frames, "ANIMATION_BYTES", 3_000)
    write_animation(recorded([car(0.0), car(0.5)]), tmp_path / "episode.webp", "x")
    content = (tmp_path / "episode.webp").read_bytes()
    picture: Any = Image.open(io.BytesIO(content))
    assert len(content) < 3_000
    assert picture.n_frames >= 5  # equal ones at the end become one
    assert picture.width < film_frames.ANIMATION_WIDTH
    assert picture.info["loop"] == 0
