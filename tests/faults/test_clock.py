"""The time of day jumps at the worker and at the learner: no wait depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import AddRow
from tests.faults.jumping_clock import JumpingClock
from tests.faults.rig import Rig

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

HOUR_S = 3_600


@pytest.mark.fault("clock jumps")
def test_jumps_of_the_time_of_day_have_no_effect(rig: Rig, tmp_path: Path, add_row: AddRow) -> None:
    folders = [tmp_path / name for name in ("at_worker", "at_learner")]
    for folder in folders:
        folder.mkdir()
    at_worker, at_learner = (JumpingClock(folder) for folder in folders)
    learner = rig.learner(environment=at_learner.environment)
    worker = rig.worker(environment=at_worker.environment, episodes=100, step_s=0.002)
    learner.start()
    worker.start()
    jumps = [(at_worker, 3), (at_learner, 5), (at_worker, -7), (at_learner, -2), (at_worker, 0), (at_learner, 0)]
    for clock, hours in jumps:
        learner.await_more(300, worker)
        clock.jump(hours * HOUR_S)
        # Open connections continue, and new ones can be made.
        learner.await_more(300, worker)
        rig.proxy.cut()
        rig.proxy.restore()
    worker.finish()
    add_row(rig.account(learner, w0=6_400), "by 2 to 7 hours, forwards and back, on both sides; then reconnected")
