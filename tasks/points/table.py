"""Tables of points as text (.csv, .tsv, .txt): the header names the columns, or they are unambiguous.

``tasks.points.files`` gives it the bytes of a file. Separators (tab, semicolon, comma, blanks), decimal commas, quotes,
UTF-8 and UTF-16 are recognised; an ambiguous file is refused with its first lines.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_SHOWN_LINES, _SHOWN_SIGNS, _SAMPLE_LINES = 3, 72, 100
_ADVICE = (
    "name the columns in its first line, such as x,z or x,y,z (metres, y is the height); "
    "other columns are ignored then, and --check draws the track"
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE | re.ASCII)
_UNIT = re.compile(r"\[[^\]]*\]|\([^)]*\)|(?<=[ _])m$")
_AXIS = re.compile(r"(?:pos|position|coord|coordinate)?([xyz])(?:pos|position|coord|coordinate)?")
_STEEPEST = 0.25
"""Mean slope of a line beyond which the middle one of three columns without names is hardly a height."""


class PointTable(NamedTuple):
    """The points of a table."""

    points: np.ndarray
    """[m], float64, shape (N, 2) x,z or (N, 3) x,y,z."""
    columns: str
    """How the columns were identified, for people."""


class _Row(NamedTuple):
    line: int
    """Number of its line in the file."""
    cells: list[str]


class _Dialect(NamedTuple):
    separator: str
    has_decimal_comma: bool


_DIALECTS = [_Dialect(separator, comma) for separator in ("\t", ";", ",", " ") for comma in (False, True)]


def read_table(data: bytes) -> PointTable:
    """Reads the points of a table.

    Raises:
        ValueError: It is none, or ambiguous; the text reads on after the name of the file.
    """
    lines = _decoded(data).splitlines()
    numbered = list(enumerate(lines, start=1))
    kept = [(number, line) for number, line in numbered if line.strip() and not _is_comment(line)]
    dialect = _dialect([line for _, line in kept])
    rows = [_Row(number, _cells(line, dialect)) for number, line in kept]
    header = None
    if rows and not all(map(_is_number, rows[0].cells)):
        header = rows.pop(0).cells
    if not rows:
        raise _refusal("must have rows of x,z or x,y,z in metres, got no line of numbers", lines)
    if header is None:
        header = _commented_header(lines[: rows[0].line - 1], dialect)
    return _unnamed(rows, lines) if header is None else _named(header, rows, lines)


def _decoded(data: bytes) -> str:
    """Text, by its byte order mark; UTF-16 without one is known by the zero bytes of its digits."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in data[:64]:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    else:
        encoding = "utf-8-sig"
    text = data.decode(encoding, errors="replace")
    if "\0" in text:
        raise ValueError("must be a table of points as text, got binary data")
    return text


def _dialect(lines: Sequence[str]) -> _Dialect:
    """The one that makes the largest part of the cells numbers; the first of equals."""
    sample = lines[1:_SAMPLE_LINES] or lines

    def fitting(dialect: _Dialect) -> float:
        cells = [_cells(line, dialect) for line in sample]
        numbers = [sum(map(_is_number, row)) for row in cells]
        return sum(numbers) / max(1, sum(map(len, cells))) if max(numbers, default=0) >= 2 else 0.0

    return max(_DIALECTS, key=fitting)


def _cells(line: str, dialect: _Dialect) -> list[str]:
    """The cells of one line without blanks and quotes, with decimal points; empty ones at its end count for nothing."""
    if dialect.separator == " ":
        cut = line.split()
    else:
        try:
            cut = next(csv.reader([line], delimiter=dialect.separator, skipinitialspace=True), [])
        except csv.Error:
            cut = line.split(dialect.separator)
    cells = [cell.strip(" \t\"'") for cell in cut]
    while cells and not cells[-1]:
        cells.pop()
    return [_with_point(cell) for cell in cells] if dialect.has_decimal_comma else cells


def _with_point(cell: str) -> str:
    """A number with a decimal comma as one with a point; one with a point is none among such."""
    return cell.replace(".", "?").replace(",", ".") if cell[-1:].isdigit() else cell


def _is_comment(line: str) -> bool:
    """Whether it says nothing of points; ``sep=`` is a hint to spreadsheets."""
    return line.lstrip().startswith(("#", "sep="))


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None


def _commented_header(before: Sequence[str], dialect: _Dialect) -> list[str] | None:
    """The names of the columns where the last comment before the points gives them, as numpy writes a header."""
    comments = [line.lstrip().lstrip("#") for line in before if _is_comment(line)]
    cells = _cells(comments[-1], dialect) if comments else []
    return cells if len(list(filter(None, map(_axis, cells)))) >= 2 else None


def _axis(name: str) -> str | None:
    """The axis of a column's name: x, X [m], pos_x, position.x, x_m; None: none."""
    plain = re.sub(r"[ _.]", "", _UNIT.sub("", name.lower().strip()))
    found = _AXIS.fullmatch(plain)
    return found[1] if found else None


def _named(header: Sequence[str], rows: Sequence[_Row], lines: Sequence[str]) -> PointTable:
    """Takes the columns that the header names."""
    axes = [_axis(name) for name in header]
    wanted = [axis for axis in "xyz" if axis in axes]
    for axis in wanted:
        if axes.count(axis) > 1:
            raise _refusal(f"names more than one column for {axis}; {_ADVICE}", lines)
    if wanted not in (["x", "z"], ["x", "y", "z"], ["x", "y"]):  # x and y without z are a map seen from above
        raise _refusal(f"has a first line that does not name x and z; {_ADVICE}", lines)
    columns = [axes.index(axis) for axis in wanted]
    for row in rows:
        if len(row.cells) > len(header):
            raise _refusal(f"line {row.line} has {len(row.cells)} cells, the header {len(header)} names", lines)
    numbers = ", ".join(str(column + 1) for column in columns)
    return PointTable(_points(rows, columns, lines), f"{', '.join(wanted)} in columns {numbers} as its header says")


def _unnamed(rows: Sequence[_Row], lines: Sequence[str]) -> PointTable:
    """Takes two columns as x,z and three as x,y,z, unless they look like something else."""
    count = len(rows[0].cells)
    if count not in (2, 3):
        raise _refusal(f"must have rows of x,z or x,y,z in metres, got {count} columns without names; {_ADVICE}", lines)
    for row in rows:
        if len(row.cells) != count:
            raise ValueError(f"line {row.line} must have {count} numbers, got {_shown(lines[row.line - 1])}")
    points = _points(rows, range(count), lines)
    if count == 3:
        _refuse_doubtful(points, lines)
    return PointTable(points, f"{'x, z' if count == 2 else 'x, y, z'} in its {count} columns, which have no header")


def _refuse_doubtful(points: np.ndarray, lines: Sequence[str]) -> None:
    """Three columns without names may be x,y,z; or a time or number of the row, and x,z; or x,z and the height."""
    with np.errstate(all="ignore"):  # values that are not finite have their own message
        steps = np.diff(points, axis=0)
        slope = np.abs(steps[:, 1]).sum() / max(1e-9, float(np.hypot(steps[:, 0], steps[:, 2]).sum()))
    is_count = len(steps) > 1 and steps[0, 0] > 0 and np.allclose(steps[:, 0], steps[0, 0], rtol=1e-6, atol=1e-9)
    if is_count:
        raise _refusal(f"has no header, and its first column grows evenly, so it may not be x; {_ADVICE}", lines)
    if slope > _STEEPEST:
        raise _refusal(
            f"has no header, and its second column changes by {slope:.2g} m for each metre of road, "
            f"so it may not be the height; {_ADVICE}",
            lines,
        )


def _points(rows: Sequence[_Row], columns: Sequence[int], lines: Sequence[str]) -> np.ndarray:
    points = np.empty((len(rows), len(columns)))
    for i, row in enumerate(rows):
        cells = [row.cells[column] if column < len(row.cells) else "" for column in columns]
        if not all(map(_is_number, cells)):
            axes = "x,z" if len(columns) == 2 else "x,y,z"
            raise ValueError(f"line {row.line} must be numbers {axes}, got {_shown(lines[row.line - 1])}")
        points[i] = [float(cell) for cell in cells]
    return points


def _refusal(text: str, lines: Sequence[str]) -> ValueError:
    """A message that ends with the first lines of the file."""
    shown = [f"\n  {number}: {_shown(line)}" for number, line in enumerate(lines[:_SHOWN_LINES], start=1)]
    return ValueError(f"{text}{'. It begins with' if shown else ''}{''.join(shown)}")


def _shown(line: str) -> str:
    return repr(line if len(line) <= _SHOWN_SIGNS else f"{line[:_SHOWN_SIGNS]}...")
