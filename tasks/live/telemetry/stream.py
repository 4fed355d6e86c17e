"""Reads records from the bytes of one connection to the plugin, and checks whether they are plausible.

Pure: bytes and times in, records and reasons out; ``tasks.live.telemetry.openplanet`` owns the socket. The protocol has
no framing, so a misaligned stream stays misaligned: the connection is closed and opened again.
"""

from __future__ import annotations

import math
from collections import deque

from tasks.game.protocols import Telemetry
from tasks.live.telemetry.layouts import RecordLayout, implausible_reason

CONFIRMING_RECORDS = 5
"""So many plausible records in a row are needed before a connection is believed; later ones are believed singly.

Read as TMRL's, those of another plugin can look right up to four times in a row while the car stands.
"""
_VERDICTS = 32
"""The judgement of so many records is remembered."""
_HOPELESS = 4
"""With so many implausible ones among them the stream is given up: TCP loses nothing, so a good one has none."""

_WINDOW_S = 1.0
_GAP_S = 0.5
"""A pause between records after which their motion is not compared [s]."""
_JUMP_M = 30.0
"""The car was put somewhere else when it moves farther than this from one record to the next [m]."""
_MIN_REPORTED = 5.0
"""Slower reported speeds prove nothing [m/s]."""
_MIN_MOVED = 15.0
"""A car that falls or slides sideways may report less than it moves; faster than this on the plane it may not [m/s]."""
_TOO_FAST, _TOO_SLOW = 2.2, 0.2
"""Ratios of reported to moved speed beyond which a window is bad."""
_KMH_RATIO = (2.9, 4.4)
"""Range around 3.6, the ratio of km/h to m/s."""
_BAD_WINDOWS = 2
_VERDICT_S = 5.0
"""A verdict is dropped when nothing confirms it for this long: a standing car proves nothing [s]."""


class RecordStream:
    """The records of one connection."""

    def __init__(self, layout: RecordLayout) -> None:
        self.num_records = 0
        """Complete records so far, plausible or not."""
        self.trouble: str | None = None
        """Why the latest implausible record was dropped; None while there was none."""
        self._layout = layout
        self._rest = bytearray()
        self._num_plausible = 0
        self._is_confirmed = False
        self._verdicts: deque[bool] = deque(maxlen=_VERDICTS)
        self._speed_check = SpeedCheck()
        self._integrates_distance = "distance" in layout.missing

    def feed(self, data: bytes | memoryview, now_s: float) -> list[Telemetry]:
        """Takes bytes as they arrive, in pieces of any size.

        Args:
            data: The bytes.
            now_s: When they arrived [s].

        Returns:
            The records to be believed, oldest first.
        """
        self._rest += data
        whole = len(self._rest) // self._layout.size
        records = [self._layout.decode(self._rest, i * self._layout.size) for i in range(whole)]
        del self._rest[: whole * self._layout.size]
        believed = [record for record in records if self._is_believed(record)]
        if not believed:
            return []
        # Records that arrive together have one time: only the last shows how fast the car moved.
        self._speed_check.add(believed[-1], now_s)
        if self._integrates_distance:
            believed = [record._replace(distance=self._speed_check.driven_m) for record in believed]
        return believed

    def motion_trouble(self, now_s: float) -> str | None:
        """Why the reported speed does not fit the positions; None as long as it may."""
        return self._speed_check.reason(now_s)

    @property
    def is_hopeless(self) -> bool:
        """Whether so many records were implausible that the stream must be out of step or of another plugin."""
        return self._verdicts.count(False) >= _HOPELESS

    def _is_believed(self, record: Telemetry) -> bool:
        self.num_records += 1
        reason = implausible_reason(record)
        self._verdicts.append(reason is None)
        self._num_plausible = 0 if reason is not None else self._num_plausible + 1
        self._is_confirmed = self._is_confirmed or self._num_plausible >= CONFIRMING_RECORDS
        self.trouble = reason or self.trouble
        return self._is_confirmed and reason is None


class SpeedCheck:
    """Compares the reported speed with how fast the position moves, over windows of a second.

    ``driven_m`` is the path so far [m], without jumps.
    """

    def __init__(self) -> None:
        self.driven_m = 0.0
        self._last: tuple[Telemetry, float] | None = None
        self._num_bad = 0
        self._verdict: tuple[str, float] | None = None
        self._start_window()

    def add(self, record: Telemetry, now_s: float) -> None:
        """Takes the next record, received at ``now_s``."""
        last, self._last = self._last, (record, now_s)
        if last is None:
            return
        before, before_s = last
        step = (record.x - before.x, record.y - before.y, record.z - before.z)
        length = math.hypot(*step)
        if length > _JUMP_M:
            self._start_window()
            return
        self.driven_m += length
        elapsed = now_s - before_s
        if elapsed > _GAP_S:
            self._start_window()
            return
        self._elapsed_s += elapsed
        self._reported_m += 0.5 * (abs(before.speed) + abs(record.speed)) * elapsed
        self._moved_m += length
        self._moved_on_plane_m += math.hypot(step[0], step[2])
        if self._elapsed_s >= _WINDOW_S:
            self._judge(now_s)
            self._start_window()

    def reason(self, now_s: float) -> str | None:
        """What is wrong with the speed, for people; None when nothing is known to be."""
        if self._verdict is None or now_s - self._verdict[1] > _VERDICT_S:
            return None
        return self._verdict[0]

    def _start_window(self) -> None:
        self._elapsed_s = 0.0
        self._reported_m = 0.0
        self._moved_m = 0.0
        self._moved_on_plane_m = 0.0

    def _judge(self, now_s: float) -> None:
        reported, moved = self._reported_m / self._elapsed_s, self._moved_m / self._elapsed_s
        on_plane = self._moved_on_plane_m / self._elapsed_s
        if reported < _MIN_REPORTED and on_plane < _MIN_MOVED:
            # Proves nothing: a verdict stays until it is forgotten.
            self._num_bad = 0
            return
        is_too_fast = reported >= _MIN_REPORTED and reported > _TOO_FAST * moved
        is_too_slow = on_plane >= _MIN_MOVED and reported < _TOO_SLOW * on_plane
        if not is_too_fast and not is_too_slow:
            self._num_bad = 0
            self._verdict = None
            return
        self._num_bad += 1
        if self._num_bad >= _BAD_WINDOWS:
            self._verdict = (_motion_text(reported, moved), now_s)


def _motion_text(reported: float, moved: float) -> str:
    """Names the speeds [m/s], and the likely cause."""
    text = f"the speed is given as {reported:.1f}, but the position moves at {moved:.1f} m/s"
    if _KMH_RATIO[0] * moved < reported < _KMH_RATIO[1] * moved:
        return f"{text}: the plugin seems to send km/h, and m/s are needed"
    if reported > _MIN_REPORTED and moved < 0.1:
        return f"{text}: is the game paused?"
    return text
