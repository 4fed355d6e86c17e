"""Pictures of windows on a real X server, pixel by pixel, also of windows that move."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tasks.game.errors import GameSetupError, WindowError, WindowState
from tasks.live import screen
from tasks.live.screen import ScreenCapture, is_black, observed_image
from tasks.live.window import found_window
from tasks.live.window.finder import open_window
from tasks.live.window.window import GameWindow, Geometry
from tests.tasks.live import displays
from tests.tasks.live.stand_ins import StandIn

pytest.importorskip("Xlib", reason="python-xlib is not installed: pip install '.[game]'")
pytest.importorskip("mss", reason="mss is not installed: pip install '.[game]'")

from tests.tasks.live.plain_window import BORDER, TITLE_BAR, FrameWindowManager, PlainWindow, pattern

# python-xlib leaves the socket of a failed connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

ROOT = Path(__file__).resolve().parents[3]
WIDTH, HEIGHT = 320, 200


@pytest.fixture
def game(display: str) -> Iterator[PlainWindow]:
    """A window of WIDTH x HEIGHT pixels at 10, 20 that shows ``pattern(..., 1)``."""
    with PlainWindow(display) as window:
        window.draw(pattern(WIDTH, HEIGHT, 1))
        yield window


@pytest.fixture
def found(display: str, game: PlainWindow) -> Iterator[GameWindow]:
    with closing(open_window("Trackmania", display)) as window:
        yield window


@pytest.fixture
def capture(display: str, found: GameWindow) -> Iterator[ScreenCapture]:
    with ScreenCapture(found, WIDTH, HEIGHT, display=display) as capture:
        yield capture


@pytest.fixture
def collects_sockets() -> Iterator[None]:
    """Keeps the sockets that python-xlib leaves from being collected in another test."""
    yield
    gc.collect()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short time limits, for tests in which nothing can succeed."""
    monkeypatch.setattr(found_window, "PLACE_TIMEOUT_S", 0.4)


def shows(frame: np.ndarray, number: int, width: int = WIDTH, height: int = HEIGHT) -> bool:
    """Whether all pixels are those of the pattern; the fourth channel means nothing."""
    return frame.shape == (height, width, 4) and np.array_equal(frame[..., :3], pattern(width, height, number)[..., :3])


# What is grabbed


def test_every_pixel_is_that_of_the_window(capture: ScreenCapture, game: PlainWindow) -> None:
    frame = capture.grab()
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    assert shows(frame, 1)
    for number in range(2, 12):
        game.draw(pattern(WIDTH, HEIGHT, number))
        assert shows(capture.grab(), number), "the picture is the newest, and whole"


@pytest.mark.parametrize(("width", "height"), [(958, 488), (256, 128), (65, 33)])
def test_every_size_is_exact(display: str, width: int, height: int) -> None:
    with (
        PlainWindow(display, (17, 5, width, height)) as game,
        closing(open_window("Trackmania", display)) as window,
        ScreenCapture(window, width, height, display=display, place=False) as capture,
    ):
        game.draw(pattern(width, height, 3))
        assert shows(capture.grab(), 3, width, height)


def test_frames_are_independent_and_may_be_drawn_on(capture: ScreenCapture, game: PlainWindow) -> None:
    first = capture.grab()
    game.draw(pattern(WIDTH, HEIGHT, 2))
    second = capture.grab()
    assert shows(first, 1)
    second[:] = 0
    assert shows(capture.grab(), 2)


def test_frame_around_the_window_is_not_in_the_picture(display: str) -> None:
    with (
        FrameWindowManager(display),
        PlainWindow(display) as game,
        closing(open_window("Trackmania", display)) as window,
        ScreenCapture(window, 400, 300, display=display) as capture,
    ):
        capture.grab()
        game.draw(pattern(400, 300, 4))
        assert shows(capture.grab(), 4, 400, 300)
        assert window.geometry()[:2] == (BORDER, TITLE_BAR)


# The window moves


def test_moved_window_is_followed_at_once(capture: ScreenCapture, game: PlainWindow, found: GameWindow) -> None:
    assert shows(capture.grab(), 1)
    game.configure(x=700, y=400)
    assert shows(capture.grab(), 1)
    assert found.geometry()[:2] == (700, 400), "it is followed, not moved back"


def test_resized_window_gets_its_size_back(capture: ScreenCapture, game: PlainWindow) -> None:
    capture.grab()
    game.configure(width=500, height=100)
    capture.grab()
    game.draw(pattern(WIDTH, HEIGHT, 5))
    assert shows(capture.grab(), 5)
    answer = game.window.get_geometry()
    assert (answer.width, answer.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(("x", "y"), [(-50, 20), (10, -1), (1280 - WIDTH + 1, 20), (10, 790), (5000, 5000)])
def test_window_pushed_over_the_edge_is_brought_back(
    capture: ScreenCapture, game: PlainWindow, found: GameWindow, x: int, y: int
) -> None:
    game.configure(x=x, y=y)
    assert shows(capture.grab(), 1)
    assert found.geometry() == (0, 0, WIDTH, HEIGHT)


def test_window_that_may_not_be_placed_is_an_error_that_says_both_sizes(
    display: str, game: PlainWindow, found: GameWindow
) -> None:
    with ScreenCapture(found, 958, 488, display=display, place=False) as capture:
        with pytest.raises(WindowError, match=r"is 320x200 at 10,20, wanted 958x488.*place_window=true") as wrong:
            capture.grab()
        assert wrong.value.state is WindowState.wrong_size
        assert game.window.get_geometry().width == WIDTH, "it was left alone"
        game.configure(x=-1, width=958, height=488)
        with pytest.raises(WindowError, match=r"958x488 at -1,20, the screen is 1280x800") as outside:
            capture.grab()
        assert outside.value.state is WindowState.off_screen
        game.configure(x=5)
        assert capture.grab().shape == (488, 958, 4)


def test_window_that_keeps_its_size_is_an_error_each_time(display: str, impatient: None) -> None:
    with (
        FrameWindowManager(display, keeps_size=True),
        PlainWindow(display),
        closing(open_window("Trackmania", display)) as window,
        ScreenCapture(window, 958, 488, display=display) as capture,
    ):
        for _ in range(2):
            with pytest.raises(WindowError) as error:
                capture.grab()
            assert error.value.state is WindowState.wrong_size


def test_minimised_window_is_an_error_until_it_is_back(capture: ScreenCapture, game: PlainWindow) -> None:
    capture.grab()
    game.iconify()
    for _ in range(2):
        with pytest.raises(WindowError) as error:
            capture.grab()
        assert error.value.state is WindowState.minimised
    game.map()
    assert shows(capture.grab(), 1)


def test_closed_window_is_an_error_until_the_game_is_back(
    display: str, capture: ScreenCapture, game: PlainWindow
) -> None:
    capture.grab()
    game.destroy()
    for _ in range(2):
        with pytest.raises(WindowError) as error:
            capture.grab()
        assert error.value.state is WindowState.closed
    with PlainWindow(display, (40, 50, 100, 100)) as reopened:
        capture.grab()
        reopened.draw(pattern(WIDTH, HEIGHT, 6))
        assert shows(capture.grab(), 6), "found again, and placed"


def test_a_window_that_keeps_moving_gives_no_endless_loop(
    display: str, game: PlainWindow, found: GameWindow, impatient: None
) -> None:
    stop = threading.Event()

    def shake() -> None:
        for step in itertools.cycle(range(40)):
            if stop.is_set():
                return
            game.configure(width=300 + step, height=180 + step, x=step * 37 - 200)

    shaker = threading.Thread(target=shake)
    shaker.start()
    started = time.monotonic()
    try:
        with ScreenCapture(found, WIDTH, HEIGHT, display=display) as capture:
            for _ in range(3):
                with contextlib.suppress(WindowError):
                    assert capture.grab().shape == (HEIGHT, WIDTH, 4)
    finally:
        stop.set()
        shaker.join(10)
    assert time.monotonic() - started < 30, "each grab ends by itself"


def test_placing_is_logged_once_in_a_while(
    capture: ScreenCapture, game: PlainWindow, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        game.configure(width=500)
        capture.grab()
    assert [record.message for record in caplog.records] == [
        "the window 'Trackmania' is 500x200 at 10,20: moving it to get 320x200"
    ]


@pytest.mark.usefixtures("collects_sockets")
def test_server_that_goes_away_is_an_error() -> None:
    displays.require_server()
    with displays.x_server() as display:
        game = PlainWindow(display)
        window = open_window("Trackmania", display)
        capture = ScreenCapture(window, WIDTH, HEIGHT, display=display)
        capture.grab()
    with pytest.raises(WindowError) as error:
        capture.grab()
    assert error.value.state is WindowState.closed
    capture.close()
    window.close()
    game.close()


class ConstantWindow:
    """A ``GameWindow`` with a fixed area, whatever the screen."""

    title = "Trackmania"

    def __init__(self, area: Geometry) -> None:
        self.area = area

    def geometry(self) -> Geometry:
        return self.area

    def screen(self) -> Geometry:
        return Geometry(0, 0, 10_000, 10_000)


def test_an_area_that_cannot_be_captured_is_an_error(display: str) -> None:
    window = ConstantWindow(Geometry(1200, 700, 320, 200))
    with ScreenCapture(window, 320, 200, display=display) as capture:  # type: ignore[arg-type]
        with pytest.raises(WindowError, match="returned no picture") as error:
            capture.grab()
        assert error.value.state is WindowState.off_screen
        window.area = Geometry(0, 0, 320, 200)
        assert capture.grab().shape == (200, 320, 4)


def test_capture_that_breaks_is_made_anew(capture: ScreenCapture) -> None:
    capture.grab()
    (grabber,) = capture._grabbers.values()
    grabber._mss.close()
    assert shows(capture.grab(), 1)


# Threads and ends


def test_two_threads_capture_at_the_same_time(capture: ScreenCapture, game: PlainWindow) -> None:
    right: list[int] = []

    def grab() -> None:
        right.append(sum(shows(capture.grab(), 1) for _ in range(30)))

    threads = [threading.Thread(target=grab) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(10):
        game.configure(x=10 + 5 * step)
        game.configure(x=10)
    for thread in threads:
        thread.join(60)
    assert len(right) == 2
    assert min(right) >= 10, "a picture that is taken while the window moves may be of where it was"


def test_each_thread_has_an_object_of_its_own(capture: ScreenCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[threading.Thread] = []
    make = screen._Grabber.__init__

    def counted(self: screen._Grabber, display: str | None) -> None:
        made.append(threading.current_thread())
        make(self, display)

    monkeypatch.setattr(screen._Grabber, "__init__", counted)
    both_live = threading.Barrier(2)

    def grab() -> None:
        both_live.wait(10)
        capture.grab()
        both_live.wait(10)

    threads = [threading.Thread(target=grab) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(made) == set(threads)
    assert len(made) == 2


def test_a_thread_per_step_does_not_make_an_object_per_step(capture: ScreenCapture) -> None:
    descriptors = Path("/proc/self/fd")
    counts = []
    for _ in range(20):
        thread = threading.Thread(target=capture.grab)
        thread.start()
        thread.join(30)
        counts.append(len(list(descriptors.iterdir())))
    assert counts[-1] <= counts[0]


def test_on_windows_the_object_of_an_ended_thread_is_closed(
    capture: ScreenCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture.grab()
    (grabber,) = capture._grabbers.values()
    capture._grabbers[threading.Thread()] = capture._grabbers.pop(threading.current_thread())
    monkeypatch.setattr(screen, "sys", SimpleNamespace(platform="win32"))
    assert capture._inherit() is None
    assert grabber.grab(Geometry(0, 0, 10, 10)) is None, "it is closed"
    assert not capture._grabbers


def test_closing_releases_every_thread_and_twice_is_fine(display: str, found: GameWindow) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    capture = ScreenCapture(found, WIDTH, HEIGHT, display=display)
    thread = threading.Thread(target=capture.grab)
    thread.start()
    thread.join(30)
    capture.grab()
    capture.close()
    capture.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    with pytest.raises(WindowError, match="closed by this program"):
        capture.grab()
    assert found.state() is WindowState.ready, "the window is its owner's"


def test_missing_package_is_a_setup_error_with_the_command(
    capture: ScreenCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(GameSetupError, match=r"mss: pip install '\.\[game\]'"):
        capture.grab()


def test_screen_that_cannot_be_captured_is_a_setup_error(found: GameWindow) -> None:
    with (
        ScreenCapture(found, WIDTH, HEIGHT, display=":4242") as capture,
        pytest.raises(GameSetupError, match="cannot be captured"),
    ):
        capture.grab()


# A game library's window, in another process


@contextmanager
def pygame_window(display: str, width: int, height: int) -> Iterator[None]:
    environment = os.environ | {"DISPLAY": display, "SDL_VIDEODRIVER": "x11", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    command = [sys.executable, "-m", "tests.tasks.live.pygame_window", str(width), str(height)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def test_pictures_of_a_running_game_are_whole_and_in_order(display: str) -> None:
    pytest.importorskip("pygame", reason="pygame-ce is not installed: pip install '.[drive]'")
    references = {number: pattern(256, 128, number)[..., :3] for number in range(16)}
    with (
        pygame_window(display, 256, 128),
        closing(open_window("Trackmania", display)) as window,
        ScreenCapture(window, 256, 128, display=display) as capture,
    ):
        numbers: list[int] = []
        torn = 0
        deadline = time.monotonic() + 30
        while len(numbers) < 40 and time.monotonic() < deadline:
            frame = capture.grab()[..., :3]
            whole = [number for number, reference in references.items() if np.array_equal(frame, reference)]
            torn += not whole
            numbers += whole
            time.sleep(0.01)
        steps = np.diff(numbers) % 16
        assert len(numbers) >= 40
        assert torn <= 4, "now and then a picture is taken while the game draws"
        assert set(np.unique(steps)) - {0}, "it goes on"
        assert np.count_nonzero(steps > 8) == 0, "and never back"
        window.place(200, 100, 300, 200)
        capture.grab()
        assert window.geometry().size == (256, 128), "SDL gives the size back too"


def test_the_stand_in_games_window_is_captured_after_every_change(display: str, stand_in: StandIn) -> None:
    def shows_the_road(frame: np.ndarray) -> bool:
        return frame.shape == (128, 256, 4) and not is_black(frame) and bool(np.ptp(frame[..., :3]) > 100)

    with (
        closing(open_window("Trackmania", display)) as window,
        ScreenCapture(window, 256, 128, display=display) as capture,
    ):
        assert shows_the_road(capture.grab())
        stand_in.fault("move", x=300, y=200)
        assert shows_the_road(capture.grab())
        assert window.geometry() == (300, 200, 256, 128)
        stand_in.fault("resize", width=400, height=300)
        assert capture.grab().shape == (128, 256, 4)
        assert window.geometry().size == (256, 128)
        for fault, state in (("minimise", WindowState.minimised), ("no_window", WindowState.closed)):
            stand_in.fault(fault)
            with pytest.raises(WindowError) as error:
                capture.grab()
            assert error.value.state is state
            stand_in.clear(fault)
            stand_in.state()  # a frame later
            assert shows_the_road(capture.grab())
        stand_in.fault("black")
        stand_in.state()
        assert is_black(capture.grab())


# The observed image


def tmrls_image(frame: np.ndarray, width: int, height: int, grayscale: bool) -> np.ndarray:
    """TMRL's pipeline: drop the fourth channel, resize, then grey, or the channels the other way round."""
    small = cv2.resize(frame[:, :, :3], (width, height))
    return cv2.cvtColor(small, cv2.COLOR_BGR2GRAY) if grayscale else small[:, :, ::-1]


@pytest.mark.parametrize("window", [(958, 488), (256, 128), (1920, 1080), (64, 64), (65, 33)])
@pytest.mark.parametrize("image", [(64, 64), (84, 48)])
@pytest.mark.parametrize("grayscale", [True, False])
def test_observed_image_is_tmrls_bit_by_bit(window: tuple[int, int], image: tuple[int, int], grayscale: bool) -> None:
    frame = np.random.default_rng(window[0]).integers(0, 256, (window[1], window[0], 4), np.uint8)
    observed = observed_image(frame, *image, grayscale)
    assert observed.dtype == np.uint8
    assert observed.shape == ((image[1], image[0]) if grayscale else (image[1], image[0], 3))
    assert observed.flags.c_contiguous
    assert np.array_equal(observed, tmrls_image(frame, *image, grayscale))


def test_observed_image_of_a_grabbed_frame_is_tmrls(capture: ScreenCapture) -> None:
    frame = capture.grab()
    for grayscale in (True, False):
        assert np.array_equal(observed_image(frame, 64, 64, grayscale), tmrls_image(frame, 64, 64, grayscale))


def test_observed_colours_are_red_green_blue() -> None:
    frame = np.zeros((8, 8, 4), np.uint8)
    frame[:] = (10, 20, 200, 77)
    assert observed_image(frame, 4, 4, False)[0, 0].tolist() == [200, 20, 10]
    # 0.299 * 200 + 0.587 * 20 + 0.114 * 10
    assert observed_image(frame, 4, 4, True)[0, 0] == 73


# Faults of a picture


def test_black_is_told_from_dark() -> None:
    frame = np.zeros((100, 100, 4), np.uint8)
    frame[..., 3] = 255
    assert is_black(frame)
    frame[:7, :7] = 255
    assert is_black(frame), "a mouse pointer"
    frame[:10, :10] = 255
    assert not is_black(frame)
    frame[:] = 0
    frame[..., 1] = 8
    assert not is_black(frame)
