"""The live game with parts that answer buttons: restarts, pressed buttons, closing."""

from __future__ import annotations

import logging
import math
import socket
import threading

import cv2
import numpy as np
import pytest

from tasks.config import ControlKind, GameKind, LiveConfig, TaskConfig
from tasks.game.clock import WallClock
from tasks.game.errors import GameError, GameSetupError, TelemetryError, TelemetryState, WindowError, WindowState
from tasks.live.live_game import make_live_game
from tasks.live.parts import check_setup, close_all
from tests.tasks.live.live_fakes import DRIVING, FINISHED, FRAME_S, START, FakeLiveGame

CONFIG = TaskConfig(name="TM20Lidar", game=GameKind.live, window_width=958, window_height=488)
IN_MENU = TelemetryError(TelemetryState.in_menu, "in a menu")
MINIMISED = WindowError(WindowState.minimised, "minimised")


@pytest.fixture
def fake() -> FakeLiveGame:
    return FakeLiveGame()


def test_nothing_is_opened_before_the_game_is_used(fake: FakeLiveGame) -> None:
    game = fake.game(CONFIG)
    game.rest(save_replay=True)
    assert fake.num_opened == 0
    game.telemetry()
    game.frame()
    assert fake.num_opened == 1


def test_a_restart_releases_the_controls_presses_once_and_waits_for_the_start(fake: FakeLiveGame) -> None:
    fake.restart_after_s = 0.7
    game = fake.game(CONFIG)
    game.restart(seed=3)
    assert fake.deeds() == ["release", "restart"]
    pressed_at = fake.journal[-1][0]
    assert 0.7 <= fake.clock.now() - pressed_at < 0.7 + 2 * FRAME_S
    np.testing.assert_array_equal(game.telemetry()[0], START.mirrored())


def test_telemetry_of_the_game_comes_with_x_to_the_right(fake: FakeLiveGame) -> None:
    assert fake.record.x != 0.0
    assert fake.game(CONFIG).telemetry()[0].x == -fake.record.x


@pytest.mark.parametrize(
    "not_there_yet",
    [
        START._replace(finished=1.0),
        START._replace(speed=3.0),
        START._replace(distance=40.0),
        START._replace(speed=-3.0),
    ],
    ids=["finish screen", "rolling", "elsewhere", "backwards"],
)
def test_a_car_that_is_not_at_the_start_is_waited_for(fake: FakeLiveGame, not_there_yet: object) -> None:
    fake.at_start = not_there_yet  # type: ignore[assignment]
    with pytest.raises(GameError, match="the restart button has no effect"):
        fake.game(CONFIG).restart()


def test_the_button_is_pressed_again_when_the_first_press_is_lost() -> None:
    fake = FakeLiveGame(FINISHED, presses_needed=2)
    fake.game(CONFIG).restart()
    assert fake.deeds() == ["release", "restart", "restart"]


def test_a_button_without_effect_names_the_place_and_the_binding() -> None:
    fake = FakeLiveGame(DRIVING._replace(speed=0.5), presses_needed=99)
    with pytest.raises(
        GameError, match=r"\(250\.0, 10\.0, 200\.0\) m, 300 m after the start, and it stands there"
    ) as e:
        fake.game(CONFIG).restart()
    assert "task.control=gamepad presses (gamepad: B" in str(e.value)
    assert fake.deeds().count("restart") == 2
    assert fake.clock.now() < 5.0


def test_the_start_of_the_path_is_a_second_sign(fake: FakeLiveGame) -> None:
    fake.at_start = START._replace(distance=700.0)
    fake.game(CONFIG, start=np.array([-110.0, 10.0, 200.0])).restart()
    assert fake.deeds() == ["release", "restart"]


@pytest.mark.parametrize(("faulty", "fault"), [("telemetry", IN_MENU), ("frames", MINIMISED)])
def test_nothing_is_pressed_while_the_game_cannot_be_seen(fake: FakeLiveGame, faulty: str, fault: GameError) -> None:
    fake.faulty, fake.fault = faulty, fault
    with pytest.raises(GameError) as caught:
        fake.game(CONFIG).restart()
    assert caught.value is fault
    assert fake.deeds() == ["release"]


def test_records_that_stop_for_a_moment_do_not_end_a_restart(
    fake: FakeLiveGame, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.restart_after_s = 0.3
    whole = fake.newest

    def with_hole() -> object:
        pressed = [at for at, deed in fake.journal if deed == "restart"]
        if pressed and fake.clock.now() < pressed[0] + 0.2:
            raise IN_MENU
        return whole()

    monkeypatch.setattr(fake, "newest", with_hole)
    fake.game(CONFIG).restart()
    assert fake.deeds() == ["release", "restart"]


def test_telemetry_that_is_lost_during_a_restart_is_the_error(fake: FakeLiveGame) -> None:
    fake.restart = lambda: setattr(fake, "fault", IN_MENU)  # type: ignore[method-assign]
    with pytest.raises(TelemetryError) as caught:
        fake.game(CONFIG).restart()
    assert caught.value is IN_MENU


def test_the_window_gets_the_focus_before_the_button_is_pressed(fake: FakeLiveGame) -> None:
    fake.has_focus = False
    fake.game(CONFIG).restart()
    assert fake.deeds() == ["release", "focus", "restart"]


def test_a_window_without_the_focus_is_driven_by_gamepad(fake: FakeLiveGame) -> None:
    def refuse() -> None:
        raise WindowError(WindowState.not_focused, "not focused")

    fake.has_focus, fake.focus = False, refuse  # type: ignore[method-assign]
    fake.game(CONFIG).restart()
    assert fake.deeds() == ["release", "restart"]


def test_the_pause_between_episodes_follows_tmrls_order_and_timing(fake: FakeLiveGame) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ghosts:
        config = TaskConfig(game=GameKind.live, live=LiveConfig(ghost_port=ghosts.getsockname()[1]))
        game = fake.game(config)
        game.open()
        game.rest(save_replay=True)
        ghosts.settimeout(5.0)
        ghosts.accept()[0].close()
    assert fake.journal == [(0.0, "release"), (1.0, "restart"), (1.5, "popup")]


def test_the_pause_saves_no_ghost_unless_configured(fake: FakeLiveGame, caplog: pytest.LogCaptureFixture) -> None:
    game = fake.game(CONFIG)
    game.open()
    game.rest(save_replay=False)
    assert fake.journal == [(0.0, "release"), (0.0, "restart"), (0.5, "popup")]
    assert not caplog.records


def test_an_unreachable_ghost_port_is_a_warning(fake: FakeLiveGame, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    game = fake.game(TaskConfig(game=GameKind.live, live=LiveConfig(ghost_port=port)))
    game.open()
    game.rest(save_replay=True)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert f"127.0.0.1:{port}" in warning.getMessage()
    assert "task.save_replays=false" in warning.getMessage()
    assert fake.deeds() == ["release", "restart", "popup"]


def test_the_pause_presses_nothing_in_a_menu(fake: FakeLiveGame) -> None:
    game = fake.game(CONFIG)
    game.open()
    fake.fault = IN_MENU
    with pytest.raises(TelemetryError):
        game.rest(save_replay=True)
    assert fake.deeds() == ["release"]


def test_the_image_is_resized_and_grey_or_rgb(fake: FakeLiveGame) -> None:
    rng = np.random.default_rng(0)
    fake.picture = rng.integers(0, 256, (488, 958, 4), np.uint8)
    small = cv2.resize(np.ascontiguousarray(fake.picture[:, :, :3]), (64, 48))
    grey = fake.game(TaskConfig(game=GameKind.live, img_width=64, img_height=48)).image()
    colour = fake.game(TaskConfig(game=GameKind.live, img_width=64, img_height=48, img_grayscale=False)).image()
    np.testing.assert_array_equal(grey, cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))
    np.testing.assert_array_equal(colour, small[:, :, ::-1])


def test_the_lidar_measures_the_picture(fake: FakeLiveGame) -> None:
    # 44 * 488 // 49 = 438: a black line in row 300 ends the beam straight ahead (which starts 20 px away) at 118.
    fake.picture[300] = 0
    lidar = fake.game(CONFIG).lidar()
    assert lidar.shape == (19,)
    assert lidar[9] == 438 - 20 - 300


def test_controls_are_passed_on_and_none_sends_nothing(fake: FakeLiveGame) -> None:
    game = fake.game(CONFIG)
    game.apply(None)
    assert fake.num_opened == 0
    game.apply(np.array([1.0, 0.0, -0.5]))
    assert fake.deeds() == ["send [ 1.   0.  -0.5]"]


def test_the_live_game_has_no_facts_of_a_simulator(fake: FakeLiveGame) -> None:
    facts = fake.game(CONFIG).episode_facts()
    assert math.isnan(facts.finish_time_s)
    assert (facts.wall_contacts, facts.wall_impact_mps) == (0, 0.0)


def test_closing_closes_all_parts_once_and_for_good(fake: FakeLiveGame) -> None:
    game = fake.game(CONFIG)
    game.open()
    game.close()
    game.close()
    assert len(fake.closed) == 4
    with pytest.raises(GameError, match="is closed"):
        game.telemetry()


def test_every_part_is_closed_when_one_cannot_be() -> None:
    class Part:
        closed = 0

        def __init__(self, error: Exception | None = None) -> None:
            self.error = error

        def close(self) -> None:
            Part.closed += 1
            if self.error is not None:
                raise self.error

    first, second = OSError("first"), OSError("second")
    with pytest.raises(OSError, match="first"):
        close_all(Part(), Part(first), Part(second), Part())
    assert Part.closed == 4


def test_a_missing_part_is_reported_and_nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    threads = set(threading.enumerate())
    config = TaskConfig(game=GameKind.live, control=ControlKind.keyboard)
    with pytest.raises(GameSetupError, match=r"task\.live\.display"):
        make_live_game(config, WallClock()).restart()
    assert set(threading.enumerate()) == threads


def test_the_setup_is_checked_without_a_game(display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    without = TaskConfig(game=GameKind.live, control=ControlKind.keyboard)
    with pytest.raises(GameSetupError, match=r"task\.live\.display"):
        check_setup(without)
    with socket.create_server(("127.0.0.1", 0)) as plugin:
        live = LiveConfig(display=display, window_title="nowhere", port=plugin.getsockname()[1])
        check_setup(TaskConfig(game=GameKind.live, control=ControlKind.keyboard, live=live))
        plugin.setblocking(False)
        with pytest.raises(BlockingIOError):
            plugin.accept()


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(GameSetupError, match=r"pip install '\.\[game\]'"):
        check_setup(CONFIG)


def test_the_state_of_the_game_is_logged_once_when_driving_begins(
    fake: FakeLiveGame, caplog: pytest.LogCaptureFixture
) -> None:
    game = fake.game(CONFIG)
    with caplog.at_level(logging.INFO, logger="tasks.live.live_game"):
        game.restart()
        game.restart()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("live game: window 'Trackmania' 958x488")
