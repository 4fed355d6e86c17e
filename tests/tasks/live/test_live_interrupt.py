"""Ctrl-C while the live game is driven: the program ends soon, and no key stays pressed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tasks.live.live_driving import wait_until
from tests.tasks.live.stand_ins import ROOT, StandIn

CHECKPOINT = ROOT / "runs" / "zoo" / "TM20Lidar" / "policy.pth"
SOON_S = 20.0
"""Limit [s]; an idle machine needs less than 5 s, but tests share the machine."""
ROLES = {
    "play": ["--play", "--checkpoint", str(CHECKPOINT), "play.episodes=100"],
    "benchmark": ["--benchmark", "--checkpoint", str(CHECKPOINT)],
    "train": ["task=TM20Lidar", "train=TM20LidarSAC", "--headless"],
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    "role", ["play", pytest.param("benchmark", marks=pytest.mark.slow), pytest.param("train", marks=pytest.mark.slow)]
)
def test_an_interrupt_ends_the_program_soon_with_all_keys_released(role: str, display: str, tmp_path: Path) -> None:
    with StandIn(display, size="958x488", title="Interrupted") as game, open(tmp_path / "said.txt", "w") as said:
        live = {"display": display, "port": game.port, "window_title": game.title}
        words = ["task.game=live", "task.track=short", "task.control=keyboard"]
        words += [f"task.live.{name}={value}" for name, value in live.items()]
        command = [sys.executable, str(ROOT / "train.py"), *ROLES[role], *words]
        # A terminal sends Ctrl-C to all processes of the program.
        program = subprocess.Popen(command, cwd=tmp_path, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            wait_until(lambda: game.state()["car"]["forward_mps"] > 8.0, "the car drives", 90.0)
            os.killpg(program.pid, signal.SIGINT)
            began_at = time.monotonic()
            wait_until(lambda: game.state()["keys"] == [], "all keys are released", SOON_S)
            status = program.wait(SOON_S)
            assert time.monotonic() - began_at < SOON_S
            time.sleep(0.2)
            assert game.state()["keys"] == []
            text = (tmp_path / "said.txt").read_text()
            assert status == 0, text
            assert "Traceback" not in text, text
        finally:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
                program.wait(10.0)
