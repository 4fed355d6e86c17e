"""Each fault gives its finding, and only that one, with advice."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from tasks.game.protocols import Telemetry
from tasks.roles.check.findings import Look, Problem, Surroundings, findings

LENGTHS = np.full(19, 400.0, np.float32)
AROUND = Surroundings(beam_lengths=LENGTHS, rate_hz=60.0, path_name="task.track=short")
STEP_S = 0.05
SPEED_MPS = 20.0


def drive(num_looks: int = 40, **changes: object) -> list[Look]:
    """Observations every 50 ms of a car that drives along z at 20 m/s without faults; ``changes`` apply to each."""
    looks = []
    for i in range(num_looks):
        z = 100.0 + SPEED_MPS * STEP_S * i
        record = Telemetry(SPEED_MPS, z, 5.0, 10.0, z, 0.0, 1.0, 0.0, 0.0, 3.0, 5000.0)
        look = Look(
            time_s=10.0 + STEP_S * i + 0.008,
            telemetry=record,
            age_s=0.008,
            is_black=False,
            contrast=40.0,
            is_same_picture=False,
            beams=np.full(19, 150.0, np.float32),
            path_distance_m=1.0,
        )
        looks.append(look._replace(**changes))  # type: ignore[arg-type]
    return looks


def with_telemetry(looks: list[Look], change: Callable[[Telemetry], Telemetry]) -> list[Look]:
    return [look._replace(telemetry=change(look.telemetry)) for look in looks]


def problems(looks: list[Look], around: Surroundings = AROUND) -> list[Problem]:
    return [finding.problem for finding in findings(looks, around)]


def test_there_are_no_findings_when_all_is_well() -> None:
    assert findings(drive(), AROUND) == []


def test_tasks_without_lidar_have_no_findings_about_beams() -> None:
    assert findings(drive(beams=None), Surroundings()) == []


@pytest.mark.parametrize(
    ("looks", "problem", "words"),
    [
        (drive(is_black=True, contrast=0.0), Problem.black_screen, "Wayland"),
        (drive(contrast=0.5), Problem.no_contrast, "one colour"),
        (drive(is_same_picture=True), Problem.frozen_picture, "stood still in 100% of the looks"),
        (drive(beams=LENGTHS), Problem.no_border, "camera"),
        (drive(beams=np.zeros(19, np.float32)), Problem.blocked_beams, "19 of 19 beams"),
        (drive(age_s=0.4), Problem.old_telemetry, "400 ms old"),
        (drive(path_distance_m=87.0), Problem.far_from_path, "87 m from task.track=short"),
        (
            with_telemetry(drive(), lambda record: record._replace(speed=3.6 * SPEED_MPS)),
            Problem.speed_in_kmh,
            "3.6 times what the positions say",
        ),
        (
            with_telemetry(drive(), lambda record: record._replace(speed=0.1 * SPEED_MPS + 0.1)),
            Problem.speed_does_not_fit,
            "task.live.record",
        ),
        (
            with_telemetry(drive(), lambda record: record._replace(speed=0.0, z=100.0)),
            Problem.not_driven,
            "drive while this looks",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Problem) else "",
)
def test_each_fault_gives_exactly_its_finding(looks: list[Look], problem: Problem, words: str) -> None:
    found = findings(looks, AROUND)
    assert [finding.problem for finding in found] == [problem]
    assert words in found[0].message


def test_a_car_far_from_the_path_is_reported_with_its_place() -> None:
    message = findings(drive(path_distance_m=400.0), AROUND)[0].message
    # z after 39 steps of 1 m.
    assert "(5, 10, 139) m is 400 m" in message
    assert "--record" in message


def test_window_and_telemetry_rate_are_checked() -> None:
    assert problems(drive(), AROUND._replace(covered_fraction=0.3)) == [Problem.covered_window]
    assert problems(drive(), AROUND._replace(covered_fraction=0.001)) == []
    assert problems(drive(), AROUND._replace(rate_hz=12.0)) == [Problem.low_rate]
    assert problems(drive(), AROUND._replace(rate_hz=math.nan)) == []


def test_a_picture_may_stand_still_while_the_car_does() -> None:
    looks = with_telemetry(drive(is_same_picture=True), lambda record: record._replace(speed=0.0, z=100.0))
    moving = drive()
    assert problems(looks + moving) == []


def test_a_few_frozen_frames_are_no_frozen_picture() -> None:
    looks = [look._replace(is_same_picture=i % 4 == 0) for i, look in enumerate(drive())]
    assert problems(looks) == []


def test_one_beam_that_meets_a_border_is_enough() -> None:
    beams = LENGTHS.copy()
    beams[9] = 399.0
    assert problems(drive(beams=beams)) == []


def test_a_black_picture_gives_no_further_findings() -> None:
    looks = drive(is_black=True, contrast=0.0, is_same_picture=True, beams=np.zeros(19, np.float32))
    assert problems(looks) == [Problem.black_screen]


def test_a_respawn_does_not_spoil_the_speed_check() -> None:
    looks = drive()
    moved = with_telemetry(looks[20:], lambda record: record._replace(z=record.z - 500.0))
    assert problems(looks[:20] + moved) == []


def test_records_that_were_read_twice_do_not_spoil_the_speed_check() -> None:
    looks = drive()
    doubled = [
        copy for look in looks for copy in (look, look._replace(time_s=look.time_s + 0.02, age_s=look.age_s + 0.02))
    ]
    assert problems(doubled) == []


def test_a_lost_game_comes_first() -> None:
    around = AROUND._replace(game_lost="no telemetry: the plugin is not loaded")
    assert problems([], around) == [Problem.game_lost]
    found = findings(drive(is_black=True), around)
    assert [finding.problem for finding in found] == [Problem.game_lost, Problem.black_screen]
    assert found[0].message == "no telemetry: the plugin is not loaded"


def test_too_few_observations_give_only_that_finding() -> None:
    assert problems(drive(5, is_black=True)) == [Problem.nothing_seen]
