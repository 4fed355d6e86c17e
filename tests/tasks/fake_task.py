"""Tasks over the fake game, registered by tests as a user would register their own."""

from __future__ import annotations

from typing import Self

from tasks.config import TaskConfig
from tasks.game.clock import Clock
from tasks.trackmania.full import FullInterface
from tasks.trackmania.lidar import LidarInterface
from tests.tasks.fake_game import FakeGame, straight_path


class FakeFull(FullInterface):
    """TM20Full over the fake game."""

    @classmethod
    def from_config(cls, config: TaskConfig, clock: Clock) -> Self:
        return cls(FakeGame(clock, config), straight_path(), config, clock)


class FakeLidar(LidarInterface):
    """TM20Lidar over the fake game."""

    @classmethod
    def from_config(cls, config: TaskConfig, clock: Clock) -> Self:
        return cls(FakeGame(clock, config), straight_path(), config, clock)
