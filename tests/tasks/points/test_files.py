"""Files of points: their columns, and refusals of ambiguous and damaged files."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.points.files import MAX_COORDINATE_M, PointFile, read_points
from tasks.recordings.ghost import ghosts_in
from tests.tasks.recordings.ghost_files import drive_along, ghost_file, right_turn

X = np.round(60.0 - 60.0 * np.cos(np.linspace(0.0, 2.5, 40)), 3)
Z = np.round(60.0 * np.sin(np.linspace(0.0, 2.5, 40)), 3)
Y = np.round(np.linspace(8.0, 9.5, 40), 3)


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("exit 1",))


def table(*columns: Iterable[object], separator: str = ",", header: str = "") -> str:
    lines = [separator.join(map(str, row)) for row in zip(*columns, strict=True)]
    return "\n".join([header, *lines] if header else lines) + "\n"


def read(folder: Path, content: str | bytes, name: str = "a.csv", encoding: str = "utf-8") -> PointFile:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return read_points(file)


def commas(column: np.ndarray) -> list[str]:
    return [str(value).replace(".", ",") for value in column]


def in_quotes(column: Iterable[object]) -> list[str]:
    return [f'"{value}"' for value in column]


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (table(X, Z), "no header"),
        (table(X, Z, header="x,z"), "columns 1, 2"),
        (table(X, Z, header="X [m], Z [m]"), "columns 1, 2"),
        (table(X, Z, header="x_m,y_m"), "x, y in columns 1, 2"),
        (table(Z, X, header="z,x"), "columns 2, 1"),
        (table(range(40), X, Z, header=",x,z"), "columns 2, 3"),
        (table(range(40), X, Z, ["a b"] * 40, [""] * 40, header="time,pos_x,position.z,lap,note"), "columns 2, 3"),
        (table(X, Z, header="# x z", separator=" "), "columns 1, 2"),
        (table(Z, X, header="# made by numpy\n# z,x"), "columns 2, 1"),
        (table(X, Z, header="sep=;\nx;z", separator=";"), "columns 1, 2"),
        (table(X, Z, separator="\t"), "no header"),
        (table(X, Z, separator="   "), "no header"),
        (table(X, Z, separator=", "), "no header"),
        (table(X, Z, [""] * 40), "no header"),
        (table(commas(X), commas(Z), separator=";", header="x;z"), "columns 1, 2"),
        (table(commas(X), commas(Z), separator="\t"), "no header"),
        (table(commas(X), commas(Z), separator="  "), "no header"),
        (table(in_quotes(X), in_quotes(Z), header='"x","z"'), "columns 1, 2"),
        (table(in_quotes(commas(X)), in_quotes(commas(Z)), header='"x","z"'), "columns 1, 2"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_table_is_read_as_it_is_written(tmp_path: Path, text: str, source: str, encoding: str) -> None:
    found = read(tmp_path, text, encoding=encoding)
    np.testing.assert_array_equal(found.ground, np.stack([X, Z], axis=1))
    assert source in found.columns


def test_windows_line_ends_and_an_old_encoding_are_read(tmp_path: Path) -> None:
    text = table(X, Z, ["ü"] * 40, header="x,z,Länge").replace("\n", "\r\n")
    np.testing.assert_array_equal(read(tmp_path, text, encoding="cp1252").ground[:, 1], Z)


@pytest.mark.parametrize("header", ["", "x,y,z", "X,Y,Z"])
def test_three_columns_are_x_y_z(tmp_path: Path, header: str) -> None:
    found = read(tmp_path, table(X, Y, Z, header=header))
    np.testing.assert_array_equal(found.points, np.stack([X, Y, Z], axis=1))
    assert found.has_heights
    assert found.height_range_m == 1.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table(range(40), X, Z), "no header, and its first column grows evenly"),
        (table(np.arange(40) * 0.05, X, Z), "no header, and its first column grows evenly"),
        (table(X, Z, Y), "its second column changes by .* so it may not be the height"),
        (table(commas(X), commas(Z)), "got 4 columns without names"),
        (table(range(40), X, Y, Z), "got 4 columns without names"),
        (table(X, Z, header="east,north"), "does not name x and z"),
        (table(range(40), X, Z, header=",0,1"), "does not name x and z"),
        (table(X, X, Z, header="x,pos_x,z"), "more than one column for x"),
        (table(range(40), X, Z, header="x,z"), "line 2 has 3 cells, the header 2 names"),
    ],
)
def test_an_ambiguous_file_is_refused_with_its_first_lines(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        read(tmp_path, text)
    lines = str(refusal.value).splitlines()
    assert str(tmp_path / "a.csv") in lines[0]
    assert lines[1:] == [f"  {number}: {line!r}" for number, line in enumerate(text.splitlines()[:3], start=1)]


def test_a_long_line_is_shown_in_part(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no line of numbers") as refusal:
        read(tmp_path, "\x1b" * 1000)
    assert "\x1b" not in str(refusal.value)
    assert len(str(refusal.value)) < 800


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table(X, Z, header="x,z") + "oops,2\n", "line 42 must be numbers x,z, got 'oops,2'"),
        (table(X, Z, header="x,z") + "7\n", "line 42 must be numbers x,z, got '7'"),
        (table(X, Z) + "1,2,3\n", "line 41 must have 2 numbers, got '1,2,3'"),
        (table(commas(X), commas(Z), separator=";") + "1.234,5;6\n", "line 41 must be numbers x,z"),
        ("x,z\n0,0\n0,nan\n", r"point 1 must be finite"),
        ("0,0\n0,1e9\n", "point 1 must be finite numbers within 1e\\+07 m"),
        ("0,0\n", "at least 2 points"),
        ("", "must have rows of x,z or x,y,z in metres, got no line of numbers"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">i4", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("columns", [2, 3])
def test_npy_and_pickles_of_every_protocol_are_read(tmp_path: Path, dtype: str, order: str, columns: int) -> None:
    points = np.asarray(np.stack([X, Y, Z][:columns], axis=1), order=order).astype(dtype)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", points)
    np.testing.assert_array_equal(read_points(tmp_path / "a.npy").points, points)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        found = read(tmp_path, pickle.dumps(points, protocol), "reward.pkl")
        np.testing.assert_array_equal(found.points, points)


def test_a_pickle_of_an_older_numpy_is_read(tmp_path: Path) -> None:
    data = pickle.dumps(np.stack([X, Y, Z], axis=1), 3).replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(read(tmp_path, data, "reward.pkl").points[:, 2], Z)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "stored",
    [
        Evil(),
        [1, 2, 3],
        {"points": X},
        np.array([Evil()], dtype=object),
        np.array([["a", "b"], ["c", "d"]]),
        np.zeros((3, 3), complex),
        np.zeros(3, [("x", "f8"), ("z", "f8")]),
        np.datetime64("2020"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_arrays_of_plain_numbers_are_read_and_nothing_is_run(
    tmp_path: Path, stored: object, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pickle.dumps(stored, protocol)
    np.save(tmp_path / "a.npy", np.array(stored), allow_pickle=True)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "Unpickler", None)
    with pytest.raises(ValueError, match=r"reward\.pkl must hold "):
        read(tmp_path, data, "reward.pkl")
    with pytest.raises(ValueError, match=r"a\.npy must (hold|have) "):
        read_points(tmp_path / "a.npy")


def test_a_shape_that_does_not_fit_the_bytes_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1000, 3)))
    data = (tmp_path / "a.npy").read_bytes().replace(b"(1000, 3), }     ", b"(1000000000, 3)}")
    for content in (data, data[:-1]):
        with pytest.raises(ValueError, match=r"is damaged|header"):
            read(tmp_path, content, "a.npy")
    whole = pickle.dumps(np.zeros((1000, 3)))
    with pytest.raises(ValueError, match="is damaged: 24000 bytes of numbers, its shape"):
        read(tmp_path, whole.replace(b"M\xe8\x03", b"M\xff\xff"), "reward.pkl")


def test_a_ghost_is_unpacked_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack = Mock(side_effect=ghosts_in)
    monkeypatch.setattr("tasks.points.files.ghosts_in", unpack)
    climbs = (0.0, 0.0, 5.0, 5.0)
    lines = [read(tmp_path, ghost_file(drive_along(right_turn(climb), 21.0)), "a.Ghost.Gbx") for climb in climbs]
    assert unpack.call_count == 2
    assert [line.height_range_m > 1.0 for line in lines] == [False, False, True, True]


@pytest.mark.parametrize(
    ("name", "message"), [("none.npy", "does not exist"), ("a.dat", r"got '\.dat'"), ("a", "no ending")]
)
def test_a_missing_or_other_file_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_points(tmp_path / name)


ARRAY = pickle.dumps(np.stack([X, Y, Z], axis=1))
NPY_HEADER = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }"
any_bytes = st.one_of(
    st.binary(max_size=200),
    st.text("0123456789.,;\t\n xyz-e\"'#\0", max_size=200).map(str.encode),
    st.builds(
        lambda at, new: ARRAY[:at] + new + ARRAY[at + len(new) :], st.integers(0, len(ARRAY)), st.binary(max_size=9)
    ),
    st.binary(max_size=200).map(lambda rest: NPY_HEADER + rest),
    st.lists(st.sampled_from([ARRAY[at : at + 4] for at in range(0, 120, 2)]), max_size=30).map(b"".join),
)


@given(data=any_bytes, suffix=st.sampled_from([".csv", ".npy", ".pkl"]))
@example(data=b"\xff\xfe0", suffix=".csv")
@example(data=b"0,0\n1e308,-1e308\n-1e308,1e308", suffix=".csv")
@example(data=b"(" * 200, suffix=".pkl")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_points_or_a_message(tmp_path: Path, data: bytes, suffix: str) -> None:
    try:
        found = read(tmp_path, data, f"a{suffix}")
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = f"{tmp_path / 'a'}{suffix} "
        assert found.points.dtype == np.float64
        assert found.points.shape[1] in (2, 3)
        assert (np.abs(found.points) <= MAX_COORDINATE_M).all()
    assert refusal.startswith(f"{tmp_path / 'a'}{suffix} ")
