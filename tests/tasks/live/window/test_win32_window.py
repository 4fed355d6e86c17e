"""The window on Windows, against a stand-in for its libraries that keeps to Microsoft's documentation."""

from __future__ import annotations

import ctypes
import itertools
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.game.errors import GameSetupError, WindowError, WindowState
from tasks.live.window import found_window, win32_libraries
from tasks.live.window.win32_libraries import Point, Rect
from tasks.live.window.win32_window import Win32Window, outer_area
from tasks.live.window.window import Geometry

BORDER, TITLE_BAR = 8, 31
"""Frame of Windows 10 at 96 dpi: an invisible border left, right and below, and the title bar."""


AREA = Geometry(100, 100, 656, 519)
"""With the border; the client area is 640 x 480 at 108, 131."""


@dataclass
class FakeWindow:
    """A top-level window; ``area`` is the one with the border."""

    title: str = "Trackmania"
    area: Geometry = AREA
    class_name: str = "ManiaPlanet"
    visible: bool = True
    iconic: bool = False
    zoomed: bool = False
    extended_style: int = 0
    cloaked: int = 0
    border: tuple[int, int] = (BORDER, TITLE_BAR)
    keeps_size: bool = False
    """Whether it refuses another size."""
    latency: int = 0
    """Number of queries until a request takes effect."""
    pending: list[tuple[int, str, Any]] = field(default_factory=list)


class FakeUser32:
    """Top-level windows, topmost first, with handles 1, 2, ... Checks what each call gets."""

    def __init__(self, *windows: FakeWindow) -> None:
        self.windows = list(windows)
        self.handles = {id(window): number for number, window in enumerate(windows, start=1)}
        self.contexts: list[int] = []
        self.known_contexts: tuple[int, ...] = (-4, -3)
        self.process_aware = False
        self.foreground = 0
        self.refuses_focus = False
        self.attached: list[tuple[int, int, int]] = []
        self.position_flags: list[int] = []
        self.placed: list[Geometry] = []

    def open(self, window: FakeWindow) -> None:
        self.windows.insert(0, window)
        self.handles[id(window)] = max(self.handles.values(), default=0) + 1

    def shut(self, window: FakeWindow) -> None:
        self.windows.remove(window)

    def _of(self, handle: int) -> FakeWindow | None:
        assert self.contexts or self.process_aware, "Windows would tell scaled pixels"
        return next((window for window in self.windows if self.handles[id(window)] == handle), None)

    def _look(self, handle: int) -> FakeWindow | None:
        window = self._of(handle)
        if window is not None:
            window.pending = [(left - 1, name, value) for left, name, value in window.pending]
            for _, name, value in [entry for entry in window.pending if entry[0] < 0]:
                setattr(window, name, value)
            window.pending = [entry for entry in window.pending if entry[0] >= 0]
        return window

    def FindWindowExW(self, parent: Any, after: int | None, class_name: Any, title: str) -> int | None:  # noqa: N802
        assert parent is None
        assert class_name is None
        handles = [self.handles[id(w)] for w in self.windows if w.title.lower() == title.lower()]
        if after is not None:
            handles = handles[handles.index(after) + 1 :]
        return handles[0] if handles else None

    def IsWindow(self, handle: int) -> int:  # noqa: N802
        return int(self._of(handle) is not None)

    def IsWindowVisible(self, handle: int) -> int:  # noqa: N802
        window = self._of(handle)
        return int(window is not None and window.visible)

    def IsIconic(self, handle: int) -> int:  # noqa: N802
        window = self._look(handle)
        return int(window is not None and window.iconic)

    def IsZoomed(self, handle: int) -> int:  # noqa: N802
        window = self._look(handle)
        return int(window is not None and window.zoomed)

    def GetWindowTextW(self, handle: int, text: Any, size: int) -> int:  # noqa: N802
        window = self._of(handle)
        text.value = window.title[: size - 1] if window is not None else ""
        return len(text.value)

    def GetClassNameW(self, handle: int, text: Any, size: int) -> int:  # noqa: N802
        window = self._of(handle)
        text.value = window.class_name[: size - 1] if window is not None else ""
        return len(text.value)

    def GetWindowRect(self, handle: int, rect: Any) -> int:  # noqa: N802
        window = self._look(handle)
        if window is None:
            return 0
        left, top, width, height = window.area
        rect._obj.left, rect._obj.top, rect._obj.right, rect._obj.bottom = left, top, left + width, top + height
        return 1

    def GetClientRect(self, handle: int, rect: Any) -> int:  # noqa: N802
        window = self._look(handle)
        if window is None:
            return 0
        border, title_bar = window.border
        rect._obj.left, rect._obj.top = 0, 0
        rect._obj.right = window.area.width - 2 * border
        rect._obj.bottom = window.area.height - title_bar - border
        return 1

    def ClientToScreen(self, handle: int, point: Any) -> int:  # noqa: N802
        window = self._look(handle)
        if window is None:
            return 0
        border, title_bar = window.border
        point._obj.x += window.area.left + border
        point._obj.y += window.area.top + title_bar
        return 1

    def GetSystemMetrics(self, metric: int) -> int:  # noqa: N802
        assert self.contexts or self.process_aware
        return {76: -1920, 77: 0, 78: 3840, 79: 1080}[metric]

    def SetWindowPos(  # noqa: N802
        self, handle: int, after: Any, left: int, top: int, width: int, height: int, flags: int
    ) -> int:
        window = self._of(handle)
        assert window is not None
        assert after is None
        self.position_flags.append(flags)
        self.placed.append(Geometry(left, top, width, height))
        if window.keeps_size:
            width, height = window.area.size
        window.pending.append((window.latency, "area", Geometry(left, top, width, height)))
        return 1

    def ShowWindowAsync(self, handle: int, command: int) -> int:  # noqa: N802
        window = self._of(handle)
        assert window is not None
        assert command == 9
        window.pending += [(window.latency, "iconic", False), (window.latency, "zoomed", False)]
        return 1

    def GetForegroundWindow(self) -> int | None:  # noqa: N802
        return self.foreground or None

    def SetForegroundWindow(self, handle: int) -> int:  # noqa: N802
        if self.refuses_focus and not any(attached for *_, attached in self.attached[-1:]):
            return 0
        self.foreground = handle
        return 1

    def BringWindowToTop(self, handle: int) -> int:  # noqa: N802
        return 1

    def GetWindowThreadProcessId(self, handle: int, process: Any) -> int:  # noqa: N802
        assert process is None
        return 700 + handle

    def AttachThreadInput(self, thread: int, to: int, attach: bool) -> int:  # noqa: N802
        self.attached.append((thread, to, int(attach)))
        return 1

    def GetWindow(self, handle: int, which: int) -> int | None:  # noqa: N802
        assert which == 3
        index = next(i for i, window in enumerate(self.windows) if self.handles[id(window)] == handle)
        return self.handles[id(self.windows[index - 1])] if index else None

    def GetWindowLongW(self, handle: int, index: int) -> int:  # noqa: N802
        assert index == -20
        window = self._of(handle)
        assert window is not None
        return window.extended_style

    def SetThreadDpiAwarenessContext(self, context: ctypes.c_void_p) -> int | None:  # noqa: N802
        value = ctypes.c_ssize_t(context.value or 0).value
        if value not in self.known_contexts:
            return None
        self.contexts.append(value)
        return 0x6010

    def SetProcessDPIAware(self) -> int:  # noqa: N802
        self.process_aware = True
        return 1


class FakeDwmapi:
    """Knows which windows are cloaked, and their areas without the invisible border."""

    def __init__(self, user32: FakeUser32) -> None:
        self._user32 = user32

    def DwmGetWindowAttribute(self, handle: int, attribute: int, answer: Any, size: int) -> int:  # noqa: N802
        window = self._user32._of(handle)
        assert window is not None
        if attribute == 14:
            assert size == 4
            answer._obj.value = window.cloaked
            return 0
        assert attribute == 9
        assert size == 16
        left, top, width, height = window.area
        border = window.border[0]
        answer._obj.left, answer._obj.top = left + border, top
        answer._obj.right, answer._obj.bottom = left + width - border, top + height - border
        return 0


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time advances by a hundredth of a second with each reading of the clock, and not otherwise."""
    ticks = itertools.count()
    fake = SimpleNamespace(monotonic=lambda: next(ticks) * 0.01, sleep=lambda _: None)
    monkeypatch.setattr(found_window, "time", fake)


def test_structures_have_windows_layout() -> None:
    assert ctypes.sizeof(Rect) == 16
    assert ctypes.sizeof(Point) == 8
    assert [getattr(Rect, name).offset for name in ("left", "top", "right", "bottom")] == [0, 4, 8, 12]
    assert bytes(Rect(1, -2, 3, 4)) == b"\x01\x00\x00\x00\xfe\xff\xff\xff\x03\x00\x00\x00\x04\x00\x00\x00"
    assert Rect(-10, 20, 30, 25).geometry() == (-10, 20, 40, 5)


def test_client_area_is_exact_and_the_title_bar_stays_on_the_screen() -> None:
    outer, client = Geometry(100, 100, 656, 519), Geometry(108, 131, 640, 480)
    placed = outer_area(Geometry(0, 0, 958, 488), outer, client)
    assert placed == (-8, 0, 958 + 16, 488 + 39)
    # At 150 % the border is 11 and the top 45 px.
    assert outer_area(Geometry(5, 7, 256, 128), Geometry(0, 0, 322, 256), Geometry(11, 45, 300, 200)) == (
        -6,
        7,
        256 + 22,
        128 + 56,
    )
    borderless = Geometry(3, 4, 50, 60)
    assert outer_area(Geometry(0, 0, 958, 488), borderless, borderless) == (0, 0, 958, 488)


def test_window_is_found_and_its_client_area_told_in_true_pixels() -> None:
    user32 = FakeUser32(FakeWindow("Editor"), FakeWindow())
    window = Win32Window("Trackmania", user32)
    assert window.state() is WindowState.ready
    assert window.geometry() == (108, 131, 640, 480)
    assert window.screen() == (-1920, 0, 3840, 1080)
    assert set(user32.contexts) == {-4}, "per monitor, version 2"


def test_older_windows_is_asked_for_the_awareness_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    user32 = FakeUser32(FakeWindow())
    user32.known_contexts = (-3,)
    assert Win32Window("Trackmania", user32).geometry().size == (640, 480)
    assert set(user32.contexts) == {-3}
    monkeypatch.delattr(FakeUser32, "SetThreadDpiAwarenessContext")
    eldest = FakeUser32(FakeWindow())
    assert Win32Window("Trackmania", eldest).geometry().size == (640, 480)
    assert eldest.process_aware


@pytest.mark.parametrize(
    "other",
    [FakeWindow(class_name="CabinetWClass"), FakeWindow("TRACKMANIA"), FakeWindow(visible=False)],
    ids=["folder", "other case", "hidden"],
)
def test_what_is_not_the_game_is_not_found(other: FakeWindow) -> None:
    with pytest.raises(WindowError, match=r"'Trackmania' was not found") as error:
        Win32Window("Trackmania", FakeUser32(other))
    assert error.value.state is WindowState.not_found
    game = FakeWindow(area=Geometry(0, 0, 656, 519))
    assert Win32Window("Trackmania", FakeUser32(other, game)).geometry() == (8, 31, 640, 480)


def test_largest_window_that_is_not_minimised_wins() -> None:
    small, large = FakeWindow(area=Geometry(1, 1, 100, 100)), FakeWindow(area=Geometry(2, 2, 200, 200))
    minimised = FakeWindow(area=Geometry(3, 3, 900, 900), iconic=True)
    assert Win32Window("Trackmania", FakeUser32(small, minimised, large)).geometry().left == 2 + BORDER


def test_minimised_differs_from_closed_and_a_reopened_game_is_found_again() -> None:
    game = FakeWindow()
    user32 = FakeUser32(game)
    window = Win32Window("Trackmania", user32)
    game.iconic = True
    assert window.state() is WindowState.minimised
    with pytest.raises(WindowError, match="restore it") as minimised:
        window.geometry()
    assert minimised.value.state is WindowState.minimised
    user32.shut(game)
    assert window.state() is WindowState.closed
    with pytest.raises(WindowError, match="start the game again") as closed:
        window.geometry()
    assert closed.value.state is WindowState.closed
    assert not window.is_focused()
    user32.open(FakeWindow(area=Geometry(500, 300, 656, 519)))
    assert window.state() is WindowState.ready
    assert window.geometry().left == 508


@pytest.mark.parametrize("latency", [0, 3, 20])
def test_place_gives_the_exact_client_area_and_waits_for_it(latency: int) -> None:
    game = FakeWindow(latency=latency)
    user32 = FakeUser32(game)
    assert Win32Window("Trackmania", user32).place(0, 0, 958, 488) == (0, TITLE_BAR, 958, 488)
    assert user32.placed[0] == (-8, 0, 974, 527)
    assert game.area == (-8, 0, 974, 527)
    asynchronous = 0x4000
    assert all(flags & asynchronous for flags in user32.position_flags), "a hanging game must not hang us"
    assert all(flags & 0x0001 == 0 and flags & 0x0002 == 0 for flags in user32.position_flags), "size and place count"


@pytest.mark.parametrize("how", ["iconic", "zoomed"])
def test_place_restores_first(how: str) -> None:
    game = FakeWindow(latency=2)
    setattr(game, how, True)
    user32 = FakeUser32(game)
    assert Win32Window("Trackmania", user32).place(0, 0, 256, 128).size == (256, 128)
    assert not getattr(game, how)


def test_a_border_that_changes_during_placing_is_corrected() -> None:
    """As when moving to a monitor with another scaling."""
    game = FakeWindow()
    user32 = FakeUser32(game)
    window = Win32Window("Trackmania", user32)
    move = user32.SetWindowPos

    def move_and_rescale(*arguments: Any) -> int:
        game.border = (11, 45)
        return move(*arguments)

    user32.SetWindowPos = move_and_rescale  # type: ignore[method-assign, assignment]
    assert window.place(0, 0, 958, 488) == (0, 45, 958, 488)
    assert user32.placed == [(-8, 0, 974, 527), (-11, 0, 980, 544)]


def test_window_that_keeps_its_size_is_an_error_with_both_sizes() -> None:
    user32 = FakeUser32(FakeWindow(keeps_size=True))
    with pytest.raises(WindowError, match=r"it is 640x480 at 0,31, wanted 958x488") as error:
        Win32Window("Trackmania", user32).place(0, 0, 958, 488)
    assert error.value.state is WindowState.wrong_size
    assert 2 <= len(user32.placed) <= 8, "it is told again, but not all the time"


def test_window_larger_than_all_monitors_is_an_error() -> None:
    with pytest.raises(WindowError, match=r"the screen is 3840x1080 at -1920,0") as error:
        Win32Window("Trackmania", FakeUser32(FakeWindow())).place(0, 0, 2000, 500)
    assert error.value.state is WindowState.off_screen


def test_window_that_closes_while_it_is_placed_is_closed() -> None:
    game = FakeWindow(latency=1000)
    user32 = FakeUser32(game)
    window = Win32Window("Trackmania", user32)
    move = user32.SetWindowPos

    def move_and_close(*arguments: Any) -> int:
        answer = move(*arguments)
        user32.shut(game)
        return answer

    user32.SetWindowPos = move_and_close  # type: ignore[method-assign, assignment]
    with pytest.raises(WindowError) as error:
        window.place(0, 0, 958, 488)
    assert error.value.state is WindowState.closed


def test_focus_restores_and_comes_to_the_front() -> None:
    game = FakeWindow(iconic=True)
    user32 = FakeUser32(game)
    window = Win32Window("Trackmania", user32)
    assert not window.is_focused()
    window.focus()
    assert window.is_focused()
    assert not window._user32.IsIconic(1)
    assert user32.attached == []


def test_refused_focus_is_taken_by_joining_the_front_program_and_leaving_it() -> None:
    user32 = FakeUser32(FakeWindow("Editor"), FakeWindow())
    user32.foreground, user32.refuses_focus = 1, True
    window = Win32Window("Trackmania", user32)
    window.focus()
    assert window.is_focused()
    assert user32.attached == [(0, 701, 1), (0, 701, 0)]


def test_a_focus_that_cannot_be_got_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    user32 = FakeUser32(FakeWindow())
    monkeypatch.setattr(user32, "SetForegroundWindow", lambda _: 0)
    with pytest.raises(WindowError, match="does not get the keyboard") as error:
        Win32Window("Trackmania", user32).focus()
    assert error.value.state is WindowState.not_focused


def test_covered_fraction_is_what_lies_above() -> None:
    # The client area is 640 x 480 at 108, 131.
    def covered(*above: FakeWindow) -> float:
        user32 = FakeUser32(*above, FakeWindow(), FakeWindow("below", Geometry(0, 0, 1920, 1080)))
        return Win32Window("Trackmania", user32, FakeDwmapi(user32)).covered_fraction()

    half = Geometry(108 - BORDER, 131, 320 + 2 * BORDER, 480 + BORDER)
    assert covered() == 0.0
    assert covered(FakeWindow("Chat", half)) == 0.5, "the invisible border hides nothing"
    assert covered(FakeWindow("Chat", half, visible=False)) == 0.0
    assert covered(FakeWindow("Chat", half, iconic=True)) == 0.0
    assert covered(FakeWindow("Chat", half, cloaked=2)) == 0.0, "on another virtual desktop"
    assert covered(FakeWindow("Overlay", half, extended_style=0x80020)) == 0.0, "clicks go through it"
    assert covered(FakeWindow("Chat", half), FakeWindow("Too", half, border=(0, 0))) == (320 + BORDER) / 640


def test_without_a_compositor_windows_count_with_their_border() -> None:
    user32 = FakeUser32(FakeWindow("Chat", Geometry(108, 131, 160, 480)), FakeWindow())
    assert Win32Window("Trackmania", user32).covered_fraction() == 0.25


def test_closing_twice_is_fine() -> None:
    with Win32Window("Trackmania", FakeUser32(FakeWindow())) as window:
        window.close()
    assert window.state() is WindowState.closed
    with pytest.raises(WindowError, match="this program has released"):
        window.geometry()


@pytest.mark.skipif(sys.platform == "win32", reason="there it loads")
def test_libraries_are_windows_own() -> None:
    with pytest.raises(GameSetupError, match="needs Windows"):
        Win32Window("Trackmania")
    assert win32_libraries.load_dwmapi() is None
    assert win32_libraries.load_kernel32() is None


def test_every_function_that_is_called_has_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, ctypes would cut handles to 32 bits."""
    loaded: dict[str, _Library] = {}
    monkeypatch.setattr(win32_libraries, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(
        win32_libraries.ctypes, "WinDLL", lambda name, **_: loaded.setdefault(name, _Library()), raising=False
    )
    win32_libraries.load_user32()
    win32_libraries.load_dwmapi()
    calls = {name for name in vars(FakeUser32) if name[0].isupper()} - {"SetProcessDPIAware", "GetForegroundWindow"}
    for name in calls:
        assert loaded["user32"].functions[name].argtypes, name
        assert loaded["user32"].functions[name].restype is not None, name
    assert loaded["user32"].functions["GetForegroundWindow"].restype is ctypes.c_void_p
    assert loaded["user32"].functions["FindWindowExW"].restype is ctypes.c_void_p
    assert loaded["user32"].functions["GetWindow"].restype is ctypes.c_void_p
    assert len(loaded["dwmapi"].functions["DwmGetWindowAttribute"].argtypes) == 4


class _Function:
    restype: Any = None
    argtypes: tuple[Any, ...] = ()


class _Library:
    def __init__(self) -> None:
        self.functions: dict[str, _Function] = {}

    def __getattr__(self, name: str) -> _Function:
        return self.functions.setdefault(name, _Function())
