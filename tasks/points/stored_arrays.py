"""Arrays of numbers from .npy files and pickles, built from checked parts; no file can run code.

A pickle is never unpickled: its operations are read as data, and only those that numpy writes for an array of plain
numbers are accepted. ``tasks.points.files`` reads TMRL's ``reward.pkl`` with it.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_NPY_MAGIC = b"\x93NUMPY"
_NPY_HEADER = re.compile(
    r"\{\s*'descr':\s*'([^']*)',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([\d,\s]*)\),?\s*\}\s*"
)
_NUMBERS = re.compile(r"[<>|]?(f[248]|[iu][1248])")

_PUSHED = {"INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2"} | {
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_FRAMING = {"PROTO", "FRAME", "STOP"}


def npy_array(data: bytes) -> np.ndarray:
    """The array of an .npy file.

    Raises:
        ValueError: It is none, damaged, or holds something else than plain numbers; the text reads on after the name.
    """
    if not data.startswith(_NPY_MAGIC) or len(data) < 12:
        raise ValueError("is no .npy file")
    length_bytes = 2 if data[6] == 1 else 4
    begin = 8 + length_bytes
    end = begin + int.from_bytes(data[8:begin], "little")
    header = _NPY_HEADER.fullmatch(data[begin:end].decode("latin-1"))
    if header is None:
        raise ValueError("must hold an array of plain numbers, its header says something else")
    shape = tuple(int(size) for size in header[3].replace(",", " ").split())
    return _array(header[1], shape, header[2] == "True", data[end:])


def pickled_array(data: bytes) -> np.ndarray:
    """The array of a pickle that holds one array of plain numbers, such as TMRL's ``reward.pkl``.

    Raises:
        ValueError: It is none, damaged, or holds anything else; the text reads on after the name.
    """
    built = _described(data)
    match built:
        case _Built(_Call("_reconstruct", (_Name("ndarray"), *_)), (_, shape, dtype, bool(is_fortran), raw)):
            return _array(_dtype(dtype), shape, is_fortran, raw)
        case _Call("_frombuffer", (raw, dtype, shape, "C" | "F" as order)):
            return _array(_dtype(dtype), shape, order == "F", raw)
    raise ValueError("must hold one numpy array of plain numbers and nothing else")


class _Name(NamedTuple):
    """A class or function that the pickle names; never looked up."""

    name: str


class _Call(NamedTuple):
    """A call that unpickling would make; never made."""

    name: str
    arguments: object


class _Built(NamedTuple):
    """What a call gives, and the state that unpickling would set."""

    call: object
    state: object


_NAMES = {
    "numpy ndarray",
    "numpy dtype",
    "numpy.core.multiarray _reconstruct",
    "numpy._core.multiarray _reconstruct",
    "numpy.core.numeric _frombuffer",
    "numpy._core.numeric _frombuffer",
    "_codecs encode",
}


def _described(data: bytes) -> object:
    """What a pickle would build, in words: every call and state stays a description."""
    stack: list[object] = []
    marks: list[int] = []
    memo: dict[object, object] = {}
    try:
        for operation, argument in _operations(data):
            _apply(operation, argument, stack, marks, memo)
        (built,) = stack
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("is no readable pickle") from error
    return built


def _operations(data: bytes) -> Iterator[tuple[str, object]]:
    try:
        for operation, argument, _ in pickletools.genops(data):
            yield operation.name, argument
    except ValueError as error:
        raise ValueError(f"is no readable pickle: {error}") from error


def _apply(operation: str, argument: object, stack: list[object], marks: list[int], memo: dict[object, object]) -> None:
    if operation in _PUSHED:
        stack.append(argument)
    elif operation in _CONSTANTS:
        stack.append(_CONSTANTS[operation])
    elif operation == "MARK":
        marks.append(len(stack))
    elif operation == "TUPLE" or operation in _TUPLES:
        begin = marks.pop() if operation == "TUPLE" else len(stack) - _TUPLES[operation]
        stack[begin:] = [tuple(stack[begin:])]
    elif operation in _PUTS or operation == "MEMOIZE":
        memo[len(memo) if operation == "MEMOIZE" else argument] = stack[-1]
    elif operation in _GETS:
        stack.append(memo[argument])
    elif operation in ("GLOBAL", "STACK_GLOBAL"):
        text = str(argument) if operation == "GLOBAL" else " ".join([str(stack.pop(-2)), str(stack.pop())])
        stack.append(_name(text))
    elif operation == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(_call(function, arguments))
    elif operation == "BUILD":
        state = stack.pop()
        stack[-1] = _Built(stack[-1], state)
    elif operation not in _FRAMING:
        raise ValueError(f"must hold one numpy array of plain numbers and nothing else, it has {operation}")


def _name(text: str) -> _Name:
    if text not in _NAMES:
        raise ValueError(f"must hold one numpy array of plain numbers and nothing else, it names {text[:80]}")
    return _Name(text.rpartition(" ")[2])


def _call(function: object, arguments: object) -> object:
    match function, arguments:
        case _Name("encode"), (str(text), "latin1"):  # how pickles of protocol 0 to 2 write bytes
            return text.encode("latin-1")
        case _Name(name), _:
            return _Call(name, arguments)
    raise ValueError("must hold one numpy array of plain numbers and nothing else, it calls something else")


def _dtype(described: object) -> str:
    match described:
        case _Built(_Call("dtype", (str(kind), *_)), (_, str(order), *_)):
            return order + kind
    return "something else"


def _array(dtype: str, shape: object, is_fortran: bool, raw: object) -> np.ndarray:
    """The only place where an array is made: type, sizes and length are checked first."""
    if _NUMBERS.fullmatch(dtype) is None:
        raise ValueError(f"must hold plain numbers, got the type {dtype[:80]!r}")
    if not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple) or len(shape) > 4:
        raise ValueError("must hold one array of plain numbers")
    if not all(isinstance(size, int) and 0 <= size < 2**31 for size in shape):
        raise ValueError("must hold one array of plain numbers")
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if needed != len(raw):
        raise ValueError(f"is damaged: {len(raw)} bytes of numbers, its shape {shape} needs {needed}")
    return np.frombuffer(bytes(raw), dtype).reshape(shape, order="F" if is_fortran else "C")
