"""The window on a real X server, with no window manager and with one that puts frames around windows."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from tasks.game.errors import GameSetupError, WindowError, WindowState
from tasks.live.window import finder, found_window
from tasks.live.window import window as window_module
from tasks.live.window.finder import open_window, window_exists
from tasks.live.window.window import Geometry, hidden_fraction, intersection
from tests.tasks.live import displays

pytest.importorskip("Xlib", reason="python-xlib is not installed: pip install '.[game]'")

from tests.tasks.live.plain_window import BORDER, TITLE_BAR, FrameWindowManager, PlainWindow

# python-xlib leaves the socket of a failed connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SCREEN = Geometry(0, 0, 1280, 800)


@pytest.fixture
def game(display: str) -> Iterator[PlainWindow]:
    """A window of 320 x 200 pixels at 10, 20."""
    with PlainWindow(display) as window:
        yield window


@pytest.fixture
def collects_sockets() -> Iterator[None]:
    """Keeps the sockets that python-xlib leaves from being collected in another test."""
    yield
    gc.collect()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short time limits, for tests in which nothing can succeed."""
    monkeypatch.setattr(found_window, "PLACE_TIMEOUT_S", 0.4)
    monkeypatch.setattr(found_window, "FOCUS_TIMEOUT_S", 0.4)


def eventually(claim: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# Finding


@pytest.mark.parametrize(
    ("net_wm_name", "wm_name"),
    [
        ("Trackmania", None),
        (None, ("STRING", b"Trackmania")),
        (None, ("UTF-8", b"Trackmania")),
        ("Trackmania", ("STRING", b"something else")),
    ],
)
def test_window_is_found_by_either_name(
    display: str, net_wm_name: str | None, wm_name: tuple[str, bytes] | None
) -> None:
    with (
        PlainWindow(display, net_wm_name=net_wm_name, wm_name=wm_name),
        closing(open_window("Trackmania", display)) as found,
    ):
        assert found.geometry() == (10, 20, 320, 200)


@pytest.mark.parametrize("title", ["Trackmanía ★ 2020", "Ünïcode"])
def test_titles_beyond_ascii_are_found(display: str, title: str) -> None:
    with PlainWindow(display, net_wm_name=title):
        assert window_exists(title, display)


def test_latin1_name_of_an_old_program_is_found(display: str) -> None:
    with PlainWindow(display, net_wm_name=None, wm_name=("STRING", "Ünïcode".encode("latin-1"))):
        assert window_exists("Ünïcode", display)


@pytest.mark.parametrize("title", ["Trackmania - Folder", "trackmania", "Track", "Trackmania "])
def test_only_the_exact_title_counts(display: str, title: str) -> None:
    with PlainWindow(display, net_wm_name=title):
        assert not window_exists("Trackmania", display)


def test_net_wm_name_wins_over_wm_name(display: str) -> None:
    with PlainWindow(display, net_wm_name="something else", wm_name=("STRING", b"Trackmania")):
        assert not window_exists("Trackmania", display)


def test_a_missing_window_is_named_with_the_existing_ones(display: str) -> None:
    with (
        PlainWindow(display, net_wm_name="Ubisoft Connect"),
        pytest.raises(
            WindowError, match=r"'Trackmania' was not found .*'Ubisoft Connect'.*task\.live\.window_title"
        ) as e,
    ):
        open_window("Trackmania", display)
    assert e.value.state is WindowState.not_found


def test_visible_window_wins_over_a_hidden_and_a_smaller_one(display: str) -> None:
    with (
        PlainWindow(display, (0, 0, 700, 700)) as hidden,
        PlainWindow(display, (5, 6, 50, 50)),
        PlainWindow(display, (7, 8, 60, 60)),
    ):
        hidden.iconify()
        window = open_window("Trackmania", display)
        assert window.geometry() == (7, 8, 60, 60)
        window.close()


@pytest.mark.usefixtures("collects_sockets")
def test_no_display_is_a_setup_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GameSetupError, match=r"X display ':4242' cannot be opened.*task\.live\.display"):
        open_window("Trackmania", ":4242")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(GameSetupError, match=r"X display \$DISPLAY cannot be opened"):
        open_window("Trackmania")
    assert not window_exists("Trackmania", ":4242")
    assert not window_exists("Trackmania", "no display")


def test_missing_package_is_a_setup_error_with_the_command(display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Xlib.display", None)
    with pytest.raises(GameSetupError, match=r"python-xlib: pip install '\.\[game\]'"):
        open_window("Trackmania", display)


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "sys", SimpleNamespace(platform="darwin"))
    with pytest.raises(GameSetupError, match="'darwin'"):
        open_window("Trackmania")


# Where it is


def test_state_and_geometry_follow_the_window(display: str, game: PlainWindow) -> None:
    with closing(open_window("Trackmania", display)) as window:
        assert window.state() is WindowState.ready
        assert window.screen() == SCREEN
        game.configure(x=33, y=44)
        assert window.geometry() == (33, 44, 320, 200)
        game.configure(x=-5, y=700, width=400, height=300)
        assert window.geometry() == (-5, 700, 400, 300)


def test_a_minimised_window_differs_from_a_closed_one(display: str, game: PlainWindow) -> None:
    with closing(open_window("Trackmania", display)) as window:
        game.iconify()
        assert window.state() is WindowState.minimised
        assert window_exists("Trackmania", display)
        with pytest.raises(WindowError, match=r"minimised.*restore it") as minimised:
            window.geometry()
        assert minimised.value.state is WindowState.minimised
        game.map()
        assert window.state() is WindowState.ready
        game.destroy()
        assert window.state() is WindowState.closed
        assert not window_exists("Trackmania", display)
        for question in (window.geometry, window.screen, window.covered_fraction, window.focus):
            with pytest.raises(WindowError, match=r"closed.*start the game again") as closed:
                question()
            assert closed.value.state is WindowState.closed
        with pytest.raises(WindowError, match="closed"):
            window.place(0, 0, 320, 200)
        assert not window.is_focused()


@pytest.mark.parametrize("is_mapped", [True, False])
def test_window_that_the_window_manager_hides_is_minimised(display: str, game: PlainWindow, is_mapped: bool) -> None:
    with closing(open_window("Trackmania", display)) as window:
        game.set_net_wm_state("HIDDEN")
        if not is_mapped:
            game.iconify()
        assert window.state() is WindowState.minimised


def test_a_reopened_game_is_found_again(display: str) -> None:
    first = PlainWindow(display)
    window = open_window("Trackmania", display)
    first.close()
    assert eventually(lambda: window.state() is WindowState.closed)
    with PlainWindow(display, (50, 60, 70, 80)) as second:
        assert window.state() is WindowState.ready
        assert window.geometry() == (50, 60, 70, 80)
        assert second.window.id == first.window.id, "the X server gives the number again, so this tests that"
    window.close()


def test_another_program_with_the_number_of_the_closed_window_is_not_the_game(display: str) -> None:
    first = PlainWindow(display)
    window = open_window("Trackmania", display)
    number = first.window.id
    first.close()
    others: list[PlainWindow] = []

    def number_is_given_again() -> bool:
        others.append(PlainWindow(display, net_wm_name="Editor"))
        return others[-1].window.id == number

    assert eventually(number_is_given_again)
    assert window.state() is WindowState.closed
    window.close()
    for other in others:
        other.close()


@pytest.mark.usefixtures("collects_sockets")
def test_server_that_goes_away_closes_the_window() -> None:
    displays.require_server()
    with displays.x_server() as display:
        game = PlainWindow(display)
        window = open_window("Trackmania", display)
        assert window.state() is WindowState.ready
    assert window.state() is WindowState.closed
    with pytest.raises(WindowError, match="cannot be opened"):
        window.geometry()
    window.close()
    game.close()


def test_closing_twice_is_fine_and_leaves_the_game_open(display: str, game: PlainWindow) -> None:
    window = open_window("Trackmania", display)
    window.close()
    window.close()
    assert window.state() is WindowState.closed
    with pytest.raises(WindowError, match="this program has released"):
        window.geometry()
    assert window_exists("Trackmania", display)


# Placing


def test_place_gives_the_exact_client_area(display: str, game: PlainWindow) -> None:
    with closing(open_window("Trackmania", display)) as window:
        assert window.place(0, 0, 958, 488) == (0, 0, 958, 488)
        answer = game.window.get_geometry()
        assert (answer.x, answer.y, answer.width, answer.height) == (0, 0, 958, 488)
        assert window.place(100, 50, 256, 128) == (100, 50, 256, 128) == window.geometry()


def test_place_restores_a_minimised_window(display: str, game: PlainWindow) -> None:
    with closing(open_window("Trackmania", display)) as window:
        game.iconify()
        assert window.place(0, 0, 320, 200) == (0, 0, 320, 200)
        assert window.state() is WindowState.ready


def test_window_larger_than_the_screen_is_an_error(display: str, game: PlainWindow, impatient: None) -> None:
    with closing(open_window("Trackmania", display)) as window:
        with pytest.raises(WindowError, match=r"1400x400 at 0,0, the screen is 1280x800") as error:
            window.place(0, 0, 1400, 400)
        assert error.value.state is WindowState.off_screen


def test_geometry_and_place_are_exact_inside_a_frame(display: str) -> None:
    with (
        FrameWindowManager(display),
        PlainWindow(display) as game,
        closing(open_window("Trackmania", display)) as window,
    ):
        assert eventually(lambda: window.state() is WindowState.ready)
        assert window.geometry() == (10 + BORDER, 20 + TITLE_BAR, 320, 200)
        assert window.place(0, 0, 958, 488) == (BORDER, TITLE_BAR, 958, 488)
        assert game.window.get_geometry().width == 958


def test_a_maximised_window_is_restored_before_it_is_placed(display: str) -> None:
    with (
        FrameWindowManager(display) as manager,
        PlainWindow(display) as game,
        closing(open_window("Trackmania", display)) as window,
    ):
        game.set_net_wm_state("MAXIMIZED_VERT", "MAXIMIZED_HORZ")
        assert window.place(0, 0, 400, 300) == (BORDER, TITLE_BAR, 400, 300)
        assert "_NET_WM_STATE" in manager.messages


def test_giving_up_takes_less_than_two_seconds() -> None:
    assert window_module.PLACE_TIMEOUT_S + 10 * window_module.POLL_S < 2.0
    assert window_module.FOCUS_TIMEOUT_S + 10 * window_module.POLL_S < 2.0


def test_window_that_keeps_its_size_is_an_error_with_both_sizes(display: str, impatient: None) -> None:
    with (
        FrameWindowManager(display, keeps_size=True),
        PlainWindow(display),
        closing(open_window("Trackmania", display)) as window,
    ):
        with pytest.raises(
            WindowError, match=r"it is 320x200 at .*, wanted 958x488\): set the game to windowed"
        ) as error:
            window.place(0, 0, 958, 488)
        assert error.value.state is WindowState.wrong_size


# Keyboard focus


def test_focus_goes_to_the_game_and_back(display: str, game: PlainWindow) -> None:
    with PlainWindow(display, net_wm_name="Editor") as editor:
        game_window, editor_window = open_window("Trackmania", display), open_window("Editor", display)
        editor_window.focus()
        assert editor_window.is_focused()
        assert not game_window.is_focused()
        assert game_window.covered_fraction() == 1.0
        game_window.focus()
        assert game_window.is_focused()
        assert not editor_window.is_focused()
        assert game.connection.get_input_focus().focus.id == game.window.id
        assert game_window.covered_fraction() == 0.0, "it is raised"
        assert editor.connection is not None
        game_window.close()
        editor_window.close()


def test_focus_on_a_part_of_the_window_is_its_focus(display: str, game: PlainWindow) -> None:
    from Xlib import X

    part = game.window.create_window(0, 0, 10, 10, 0, X.CopyFromParent)
    part.map()
    part.set_input_focus(X.RevertToParent, X.CurrentTime)
    game.connection.sync()
    with closing(open_window("Trackmania", display)) as window:
        assert window.is_focused()
        game.connection.set_input_focus(X.PointerRoot, X.RevertToNone, X.CurrentTime)
        game.connection.sync()
        assert not window.is_focused(), "keys go to whatever is under the pointer"


def test_focus_restores_a_minimised_window(display: str, game: PlainWindow) -> None:
    with closing(open_window("Trackmania", display)) as window:
        game.iconify()
        window.focus()
        assert window.state() is WindowState.ready
        assert window.is_focused()


def test_window_manager_is_asked_for_the_focus(display: str) -> None:
    with (
        FrameWindowManager(display) as manager,
        PlainWindow(display),
        closing(open_window("Trackmania", display)) as window,
    ):
        window.focus()
        assert window.is_focused()
        assert set(manager.messages) == {"_NET_ACTIVE_WINDOW"}


def test_refused_focus_is_an_error(display: str, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrameWindowManager, "_activate", lambda *_: None)
    with (
        FrameWindowManager(display),
        PlainWindow(display),
        closing(open_window("Trackmania", display)) as window,
    ):
        with pytest.raises(WindowError, match=r"does not get the keyboard .0\.4 s .*click on it") as error:
            window.focus()
        assert error.value.state is WindowState.not_focused


# What is hidden


def test_covered_fraction_is_what_lies_above(display: str, game: PlainWindow) -> None:
    with closing(open_window("Trackmania", display)) as window:
        assert window.covered_fraction() == 0.0
        with PlainWindow(display, (10, 20, 160, 200), net_wm_name="Chat") as chat:
            assert window.covered_fraction() == 0.5
            chat.iconify()
            assert window.covered_fraction() == 0.0
            chat.map()
            assert window.covered_fraction() == 0.5
            with PlainWindow(display, (170, 20, 80, 200), net_wm_name="Chat too"):
                assert window.covered_fraction() == 0.75
            window.focus()
            assert window.covered_fraction() == 0.0
        game.configure(x=-80)
        assert window.covered_fraction() == 0.25


def test_covered_fraction_looks_at_frames(display: str) -> None:
    with (
        FrameWindowManager(display),
        PlainWindow(display) as game,
        PlainWindow(display, (10, 20, 320, 79), net_wm_name="Chat"),
        closing(open_window("Trackmania", display)) as window,
    ):
        assert eventually(lambda: window.covered_fraction() > 0)
        # The frame of the other starts at the same corner and is 21 + 79 + 3 high; the client area starts 21 lower.
        assert window.covered_fraction() == pytest.approx((79 + BORDER) / 200)
        assert game.window is not None


def test_hidden_fraction_counts_overlaps_once() -> None:
    area = Geometry(100, 100, 10, 10)
    assert hidden_fraction(area, SCREEN, []) == 0.0
    assert hidden_fraction(area, SCREEN, [Geometry(0, 0, 50, 50)]) == 0.0
    assert hidden_fraction(area, SCREEN, [Geometry(95, 95, 10, 10)]) == 0.25
    assert hidden_fraction(area, SCREEN, [Geometry(100, 100, 5, 10), Geometry(102, 100, 5, 5)]) == 0.6
    assert hidden_fraction(area, SCREEN, [Geometry(0, 0, 300, 300)] * 3) == 1.0
    assert hidden_fraction(area, Geometry(0, 0, 105, 105), [Geometry(103, 100, 50, 1)]) == 0.77
    assert hidden_fraction(Geometry(0, 0, 0, 0), SCREEN, []) == 1.0


def test_intersection_and_lies_in() -> None:
    a = Geometry(0, 0, 10, 10)
    assert intersection(a, Geometry(5, -5, 10, 10)) == (5, 0, 5, 5)
    assert intersection(a, Geometry(10, 0, 5, 5)).size == (0, 0)
    assert Geometry(0, 0, 10, 10).lies_in(a)
    assert Geometry(9, 9, 1, 1).lies_in(a)
    assert not Geometry(9, 9, 2, 1).lies_in(a)
    assert not Geometry(-1, 0, 1, 1).lies_in(a)


# Threads


def test_threads_may_ask_at_the_same_time(display: str, game: PlainWindow) -> None:
    wrong: list[object] = []
    with closing(open_window("Trackmania", display)) as window:

        def ask() -> None:
            for _ in range(100):
                if window.geometry().size != (320, 200) or window.state() is not WindowState.ready:
                    wrong.append(window.geometry())

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_every_error_says_what_to_do() -> None:
    for state in WindowState:
        if state is WindowState.ready:
            continue
        what, remedy = str(window_module.window_error(state, "Trackmania")).split(": ")
        assert what.startswith("the window 'Trackmania' ")
        assert len(remedy) > 15
