"""The policies that are compared, as the arms of a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.learning.studies import Study
from benchmarks.learning.trainings import Training, trainings

_RANDOMIZED = ("acceleration", "grip", "steering_gain", "steering_delay")


def randomization(percent: float) -> tuple[str, ...]:
    """Words of train.py that draw another car each episode; 0: none."""
    return tuple(f"task.randomization.vehicle.{name}_percent={percent:g}" for name in _RANDOMIZED)


def policies(
    steps: int,
    randomized_steps: int,
    percents: Sequence[float],
    cars: Sequence[Path],
    seeds: Sequence[int],
    car_seeds: Sequence[int],
) -> list[Training]:
    """What is trained: on the game's car, on cars around it, and on each of the others.

    Args:
        steps: Of the trainings on one car.
        randomized_steps: Of those on cars around the game's.
        percents: How far the randomized cars are off, one arm each.
        cars: Files of the cars that those two never see; an arm of the file's name each.
        seeds: Of the two.
        car_seeds: Of the policies that are trained on those cars.
    """
    randomized = {f"randomized{percent:g}": randomization(percent) for percent in percents}
    own = {car.stem: (f"task.vehicle={car}",) for car in cars}
    return [
        *_trainings(steps, {"nominal": ()}, seeds),
        *_trainings(randomized_steps, randomized, seeds),
        *_trainings(steps, own, car_seeds),
    ]


def _trainings(steps: int, arms: Mapping[str, tuple[str, ...]], seeds: Sequence[int]) -> Iterator[Training]:
    study = Study(
        arms=arms,
        words=("task=TM20LidarProgress", "task.track=medium", "task.game=sim", f"max_env_steps={steps}"),
        goal=("evaluation/finish_rate", 1.0),
        curve="evaluation/lap_time_s",
        seeds=tuple(seeds),
    )
    return trainings(f"unseen_cars.{steps}", study)
