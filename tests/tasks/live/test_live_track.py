"""TM20Track in the live game: what it observes of a drive is what it observes of the same drive in the simulator."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import registry
from tasks.config import GameKind, RandomizationConfig, TaskConfig, TelemetryRecord
from tasks.envs.realtime import VirtualTimeEnv
from tasks.game.clock import VirtualClock
from tasks.game.protocols import Telemetry
from tasks.live.telemetry.layouts import LAYOUTS, implausible_reason
from tasks.sim.game import SimulatedGame
from tasks.sim.scripted_driver import ScriptedDriver
from tasks.sim.track import load_track
from tasks.trackmania.reference_path import path_of_task
from tasks.trackmania.track import TrackInterface

MIRROR_X = np.array([-1.0, 1.0, 1.0])


class BehindThePlugin(SimulatedGame):
    """A simulated game whose telemetry goes through the bytes of a plugin, in the frame of the game."""

    record = TelemetryRecord.floats14

    def telemetry(self) -> tuple[Telemetry, float]:
        telemetry, age_s = super().telemetry()
        layout = LAYOUTS[self.record]
        data = struct.pack(f"<{layout.num_floats}f", *telemetry.mirrored()[: layout.num_floats])
        decoded = layout.decode(data)
        assert implausible_reason(decoded) is None
        return decoded.mirrored(), age_s


def drives(record: TelemetryRecord, recorded: Path) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Live and simulated observation of each step of a scripted lap on ``short_mirrored``."""
    track = load_track("short_mirrored")
    np.save(recorded, track.centre_line * MIRROR_X)
    recorded.with_suffix(".json").write_text(json.dumps({"frame": "game"}))
    random = RandomizationConfig(capture_jitter_s=0.0)
    sim = TaskConfig(
        name="TM20Track",
        game=GameKind.sim,
        track="short_mirrored",
        look_ahead_exponent=3.0,
        randomization=random,
    )
    live = replace(sim, game=GameKind.live, track=str(recorded), sleep_time_at_reset=0.0)
    clock = VirtualClock()
    game = BehindThePlugin(clock, track, live)
    game.record = record
    interface = TrackInterface(game, path_of_task(live), live, clock)
    env: Any = VirtualTimeEnv(interface, live.rtgym, clock).observe_as("dict")
    simulated: Any = registry.make("TM20Track", observation="dict", config=sim)
    pairs = [(env.reset(seed=4)[0], simulated.reset(seed=4)[0])]
    driver, is_over = ScriptedDriver(track), False
    driver.reset()
    while not is_over:
        action = driver.act(game.state())
        (seen, _, *ends, _), (expected, *_) = env.step(action), simulated.step(action)
        pairs.append((seen, expected))
        is_over = any(ends)
    assert len(pairs) > 100
    return pairs


def test_the_plugins_record_with_the_heading_gives_the_same_observations(tmp_path: Path) -> None:
    for seen, expected in drives(TelemetryRecord.floats14, tmp_path / "path.npy"):
        assert list(seen) == list(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(seen[name], value, atol=5e-3, rtol=1e-5, err_msg=name)


def test_tmrls_record_gives_them_but_for_the_slip_and_half_a_step(tmp_path: Path) -> None:
    for seen, expected in drives(TelemetryRecord.floats11, tmp_path / "path.npy")[20:]:
        forward, sideways = expected["velocity"]
        slip, late = math.atan2(sideways, forward), 0.04 * abs(expected["yaw_rate"][0]) + 0.01
        assert seen["velocity"] == pytest.approx([math.hypot(forward, sideways), 0.0], abs=1e-3)
        for name in ("path_ahead", "left_border_ahead", "right_border_ahead"):
            # The heading is that of the motion: everything is seen turned by the slip.
            turned = expected[name] @ np.array([[math.cos(slip), -math.sin(slip)], [math.sin(slip), math.cos(slip)]])
            far_m = np.linalg.norm(turned, axis=1) * late + 0.05
            assert (np.linalg.norm(seen[name] - turned, axis=1) <= far_m).all(), name
        assert seen["yaw_rate"] == pytest.approx(expected["yaw_rate"], abs=0.35)
