"""Charts of a report as SVG that is written into its page; colours come from the page's style, light or dark.

Everything that is text goes through ``Markup.format``, which escapes it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from tasks.laps.files import ComparedLaps
from tasks.laps.lap import NUM_SECTORS, Lap, Sector
from tasks.pictures import MPS_TO_KMH

FloatArray = NDArray[np.float64]

NARROW = (380, 220)
WIDE = (1000, 150)
SPEED_COLOURS = ("#30123b", "#4675ed", "#1bcfd4", "#61fc6c", "#d1e834", "#fe9b2d", "#da3907", "#7a0403")
"""From standing to the highest speed, evenly spaced."""

_SPEED_STEPS = 28
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 10, 34
_MAP_MARGIN = 0.06


class Series(NamedTuple):
    """One line of a chart."""

    name: str
    x: FloatArray
    y: FloatArray
    style: str
    """Class in the page's style, which gives its colour."""
    is_stepped: bool = False
    is_dotted: bool = False
    """Marks each point, for a few of them."""


def line_chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    size: tuple[int, int] = NARROW,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    marks: Iterable[float] = (),
    zero: bool = False,
) -> Markup:
    """Lines over an axis.

    Args:
        series: The lines; NaN breaks one.
        x_label: What x is, with its unit.
        y_label: What y is, with its unit.
        size: Width and height.
        x_range: Ends of x; None: of what there is.
        y_range: Ends of y; None: of what there is.
        marks: Places on x with a line across.
        zero: Whether 0 is drawn as a line.
    """
    axes = _Axes(size, x_range or _range([line.x for line in series]), y_range or _range([line.y for line in series]))
    parts = [axes.frame(x_label, y_label, zero=zero)]
    parts += [Markup('<line class="mark" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
        _n(axes.px(mark)), _n(axes.bottom), _TOP) for mark in marks]  # fmt: skip
    for line in series:
        parts.append(_path(axes, line))
    return _svg(size, f"{y_label} over {x_label}", parts)


def sector_chart(groups: Sequence[tuple[str, str, Sequence[Sector]]], road_m: float) -> Markup:
    """Time lost in each sector as bars, one beside the other for each group.

    Args:
        groups: Name, class in the page's style, and the sectors.
        road_m: Length of the road [m].
    """
    lost = [[math.nan if sector.lost_s is None else sector.lost_s for sector in group[2]] for group in groups]
    values = np.array([value for row in lost for value in row if math.isfinite(value)] or [0.0])
    reach = max(float(np.abs(values).max()), 0.02)
    size = (WIDE[0], 190)
    low = -1.25 * reach if values.min() < -0.1 * reach else -0.3 * reach
    axes = _Axes(size, (0.0, road_m), (low, 1.25 * reach if values.max() > 0.1 * reach else 0.3 * reach))
    parts = [axes.frame("distance along the middle of the road [m]", "lost by sector [s]", zero=True)]
    for index, (name, style, sectors) in enumerate(groups):
        for number, (sector, value) in enumerate(zip(sectors, lost[index], strict=True), 1):
            if math.isfinite(value):
                parts.append(_bar(axes, sector, value, (index, len(groups)), style, f"{name}, sector {number}"))
    return _svg(size, "time lost in each sector", parts)


def track_map(laps: ComparedLaps, references: Sequence[tuple[Lap, str]], max_speed_kmh: float) -> Markup:
    """The road from above with the driven line coloured by speed, over those of other laps.

    Args:
        laps: The road and the driven lap.
        references: Other laps, each with its class in the page's style.
        max_speed_kmh: Speed of the last colour.
    """
    road = laps.road * np.array([1.0, -1.0])  # SVG's y points down
    low, high = road.min(axis=0) - laps.width_m, road.max(axis=0) + laps.width_m
    margin = _MAP_MARGIN * float((high - low).max())
    left, top = (low - margin).tolist()
    width, height = (high - low + 2 * margin).tolist()
    unit = max(width, height) / 100
    parts = [
        Markup('<path class="road-edge" d="{}" style="stroke-width:{}"/>').format(
            _d(road), _n(laps.width_m + 0.8 * unit)
        ),
        Markup('<path class="road" d="{}" style="stroke-width:{}"/>').format(_d(road), _n(laps.width_m)),
        _across(road, laps.width_m, 0, "start", unit),
        _across(road, laps.width_m, len(road) - 1, "finish", unit),
    ]
    for lap, style in references:
        points = np.stack([lap.trace.x, -lap.trace.z], axis=1)
        parts.append(
            Markup('<path class="other {}" d="{}"><title>{}</title></path>').format(style, _d(points), lap.name)
        )
    parts += _speed_line(laps.driven, max_speed_kmh)
    parts += _sector_numbers(laps, road, unit)
    box = f"{_n(left)} {_n(top)} {_n(width)} {_n(height)}"
    label = f"line over the track, coloured by speed: {laps.driven.name}"
    return Markup('<svg class="map" viewBox="{}" role="img" aria-label="{}">{}</svg>').format(
        box, label, Markup("").join(parts)
    )


def speed_gradient() -> Markup:
    """The colours of ``track_map`` as a CSS gradient."""
    return Markup("linear-gradient(to right, {})").format(Markup(", ").join(SPEED_COLOURS))


class _Axes:
    """Where numbers lie in a chart."""

    def __init__(self, size: tuple[int, int], x: tuple[float, float], y: tuple[float, float]) -> None:
        self.size, self._x, self._y = size, x, y
        self.bottom, self.right = size[1] - _BOTTOM, size[0] - _RIGHT

    def px(self, x: float) -> float:
        return _LEFT + (x - self._x[0]) / (self._x[1] - self._x[0]) * (self.right - _LEFT)

    def py(self, y: float) -> float:
        low, high = self._y
        return self.bottom - (min(max(y, low), high) - low) / (high - low) * (self.bottom - _TOP)

    def frame(self, x_label: str, y_label: str, *, zero: bool) -> Markup:
        """Grid, numbers and names of the axes."""
        _width, height = self.size
        parts = []
        for tick in _ticks(*self._y, max(2, (self.bottom - _TOP) // 34)):
            y = _n(self.py(tick))
            parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, self.right, y, y))
            parts.append(Markup('<text x="{}" y="{}" class="tick end">{}</text>').format(
                _LEFT - 6, _n(self.py(tick) + 3.5), _short(tick)))  # fmt: skip
        for tick in _ticks(*self._x, max(2, (self.right - _LEFT) // 80)):
            parts.append(Markup('<text x="{}" y="{}" class="tick middle">{}</text>').format(
                _n(self.px(tick)), self.bottom + 14, _short(tick)))  # fmt: skip
        if zero and self._y[0] < 0.0 < self._y[1]:
            y = _n(self.py(0.0))
            parts.append(Markup('<line class="zero" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, self.right, y, y))
        parts.append(Markup('<text x="{}" y="{}" class="label middle">{}</text>').format(
            _n((_LEFT + self.right) / 2), height - 5, x_label))  # fmt: skip
        parts.append(Markup('<text transform="translate(11 {}) rotate(-90)" class="label middle">{}</text>').format(
            _n((_TOP + self.bottom) / 2), y_label))  # fmt: skip
        return Markup("").join(parts)


def _svg(size: tuple[int, int], label: str, parts: Iterable[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        *size, label, Markup("").join(parts)
    )


def _path(axes: _Axes, line: Series) -> Markup:
    commands, is_down, last_y = [], False, 0.0
    for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True):
        if not (math.isfinite(x) and math.isfinite(y)):
            is_down = False
            continue
        px, py = axes.px(x), axes.py(y)
        if is_down and line.is_stepped and py != last_y:
            commands.append(f"L{_n(px)} {_n(last_y)}")
        commands.append(f"{'L' if is_down else 'M'}{_n(px)} {_n(py)}")
        is_down, last_y = True, py
    path = Markup('<path class="line {}" d="{}"><title>{}</title></path>').format(
        line.style, "".join(commands), line.name
    )
    if not line.is_dotted:
        return path
    dots = [
        Markup('<circle class="dot {}" cx="{}" cy="{}" r="2.2"><title>{}: {} at {}</title></circle>').format(
            line.style, _n(axes.px(x)), _n(axes.py(y)), line.name, f"{y:.4g}", f"{x:,.0f}"
        )
        for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True)
        if math.isfinite(x) and math.isfinite(y)
    ]
    return path + Markup("").join(dots)


def _bar(axes: _Axes, sector: Sector, value: float, place: tuple[int, int], style: str, name: str) -> Markup:
    """One bar and its number; ``place`` is its index in the sector and how many there are."""
    index, count = place
    room = (sector.to_m - sector.from_m) * 0.84
    begin = (sector.from_m + sector.to_m - room) / 2 + room * index / count
    left, right = axes.px(begin), axes.px(begin + room / count)
    zero, end = axes.py(0.0), axes.py(value)
    text_y = end - 4 if value >= 0.0 else end + 11
    bar = Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"><title>{}: {} s</title></rect>').format(
        style, _n(left), _n(min(zero, end)), _n(right - left - 1), _n(abs(zero - end)), name, f"{value:+.3f}"
    )
    number = Markup('<text class="tick middle" x="{}" y="{}">{}</text>').format(
        _n((left + right) / 2), _n(text_y), f"{value:+.2f}"
    )
    return bar + number


def _across(road: FloatArray, width_m: float, index: int, style: str, unit: float) -> Markup:
    """A line across the road."""
    place, side = road[index], _side(road, index)
    a, b = place - side * width_m / 2, place + side * width_m / 2
    text = _beside(road, index, width_m / 2 + 5.0 * unit)
    return Markup(
        '<line class="{0}" x1="{1}" y1="{2}" x2="{3}" y2="{4}" style="stroke-width:{5}"/>'
        '<text class="{0}" x="{6}" y="{7}" style="font-size:{8}px">{0}</text>'
    ).format(
        style, _n(a[0]), _n(a[1]), _n(b[0]), _n(b[1]), _n(1.0 * unit), _n(text[0]), _n(text[1] + unit), _n(2.8 * unit)
    )


def _speed_line(lap: Lap, max_speed_kmh: float) -> list[Markup]:
    """Pieces of the same colour, each joined to the next."""
    speed = lap.trace.speed_mps * MPS_TO_KMH
    bins = np.clip(speed / max(max_speed_kmh, 1.0) * _SPEED_STEPS, 0, _SPEED_STEPS - 1).astype(int)
    points = np.stack([lap.trace.x, -lap.trace.z], axis=1)
    cuts = [0, *(np.flatnonzero(np.diff(bins)) + 1).tolist(), len(points)]
    pieces = []
    for begin, end in itertools.pairwise(cuts):
        piece = points[begin : min(end + 1, len(points))]
        pieces.append(Markup('<path class="driven" d="{}" style="stroke:{}"><title>{}</title></path>').format(
            _d(piece), _speed_colour(bins[begin] / (_SPEED_STEPS - 1)), f"{speed[begin]:.0f} km/h"))  # fmt: skip
    return pieces


def _speed_colour(share: float) -> str:
    place = share * (len(SPEED_COLOURS) - 1)
    low = min(int(place), len(SPEED_COLOURS) - 2)
    a, b = (np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)]) for text in SPEED_COLOURS[low : low + 2])
    return "#" + "".join(f"{value:02x}" for value in np.rint(a + (b - a) * (place - low)).astype(int).tolist())


def _sector_numbers(laps: ComparedLaps, road: FloatArray, unit: float) -> list[Markup]:
    along = np.linspace(0.0, 1.0, len(road))
    texts = []
    for number in range(1, NUM_SECTORS + 1):
        index = int(np.searchsorted(along, (number - 0.5) / NUM_SECTORS))
        place = _beside(road, index, laps.width_m / 2 + 2.5 * unit)
        texts.append(Markup('<text class="sector" x="{}" y="{}" style="font-size:{}px">{}</text>').format(
            _n(place[0]), _n(place[1] + unit), _n(2.8 * unit), number))  # fmt: skip
    return texts


def _side(road: FloatArray, index: int) -> FloatArray:
    """Unit vector across the road."""
    ahead = road[min(index + 1, len(road) - 1)] - road[max(index - 1, 0)]
    return np.array([-ahead[1], ahead[0]]) / max(float(np.hypot(*ahead)), 1e-9)


def _beside(road: FloatArray, index: int, distance_m: float) -> FloatArray:
    """A place beside the road, on the side where the rest of the road is farther away."""
    side = _side(road, index) * distance_m
    places = np.stack([road[index] + side, road[index] - side])
    room = np.linalg.norm(road[None] - places[:, None], axis=2).min(axis=1)
    return places[int(room[1] > room[0] + 0.01 * distance_m)]


def _d(points: FloatArray) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points.tolist())


def _n(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.1f}".removesuffix(".0")


def _range(arrays: Sequence[FloatArray]) -> tuple[float, float]:
    """Both ends of all finite numbers, with a little room where they are equal."""
    values = np.concatenate([*arrays, np.zeros(0)])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    least = 0.05 * max(abs(low), abs(high)) or 1.0
    room = max(0.04 * (high - low), (least - (high - low)) / 2)
    return (low - room if low < 0.0 or low > room else min(low, 0.0)), high + room


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between both ends, at most about ``most``."""
    raw = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * index for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    """A number of an axis."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:.6g}" if abs(value) > 1e-12 else "0"
