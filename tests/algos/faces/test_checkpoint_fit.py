"""A checkpoint of the simulator's earlier car is accepted with a warning."""

from __future__ import annotations

from typing import Any

import pytest

from algos.faces.checkpoint_fit import require_fit
from algos.run.checkpoint import Checkpoint
from tasks.config import TaskConfig, config_to_dict
from tasks.registry import observation_spec

TODAY = config_to_dict(TaskConfig()) | {"game": "sim"}
EARLIER = {key: value for key, value in TODAY.items() if key != "vehicle"}


@pytest.mark.parametrize(
    ("task", "is_warned"),
    [(EARLIER, True), (TODAY, False), (EARLIER | {"game": "live"}, False), ({"id": "Pendulum-v1"}, False)],
)
def test_resuming_or_playing_it_warns(task: dict[str, Any], is_warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    spec = observation_spec("TM20Lidar")
    checkpoint = Checkpoint("remote_sac", "TM20Lidar", {"task": task}, spec.to_json(), {}, {})
    require_fit(checkpoint, "old.pth", spec, "remote_sac")
    assert ("old.pth was trained on the simulator's earlier car" in caplog.text) is is_warned
