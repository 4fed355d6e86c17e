"""A real X server for the tests of the live game; without one they are skipped, or fail with TM_REQUIRE_DISPLAY=1."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tasks.live import displays
from tests.tasks.live.stand_ins import StandIn


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """Name of a running X display without a window manager, such as ``:77``; one for the whole session."""
    displays.require_server()
    with displays.x_server() as name:
        yield name


@pytest.fixture
def stand_in(display: str) -> Iterator[StandIn]:
    """A running stand-in game on ``short``, its window 256 x 128 px."""
    with StandIn(display) as game:
        yield game
