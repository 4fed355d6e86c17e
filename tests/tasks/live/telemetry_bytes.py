"""Records of the plugin as bytes, written by hand: each float32 is four bytes in hex, the lowest first."""

from __future__ import annotations

ZERO = "00000000"
ONE = "0000803f"
NAN = "0000c07f"
INFINITY = "0000807f"

NUMBERS = (
    ZERO, ONE, "00000040", "00004040", "00008040", "0000a040", "0000c040", "0000e040", "00000041", "00001041",
    "00002041", "00003041", "00004041", "00005041", "00006041", "00007041", "00008041", "00008841", "00009041",
    "00009841", "0000a041", "0000a841", "0000b041", "0000b841", "0000c041", "0000c841", "0000d041", "0000d841",
    "0000e041", "0000e841", "0000f041", "0000f841", "00000042", "00000442",
)  # fmt: skip
"""0 to 33."""

STANDING = bytes.fromhex(
    "00000000"  # speed 0
    "00000000"  # distance 0
    "00000044"  # x 512
    "00002041"  # y 10
    "000060c0"  # z -3.5
    "00000000"  # steer 0
    "00000000"  # gas 0
    "00000000"  # is_braking 0
    "00000000"  # finished 0
    "00000000"  # gear 0
    "00007a44"  # rpm 1000
)
"""A car at the start."""

DRIVING = bytes.fromhex(
    "00004841"  # speed 12.5
    "0080c842"  # distance 100.25
    "00000044"  # x 512
    "00002041"  # y 10
    "000060c0"  # z -3.5
    "000080be"  # steer -0.25
    "0000803f"  # gas 1
    "00000000"  # is_braking 0
    "00000000"  # finished 0
    "00004040"  # gear 3
    "00c0da45"  # rpm 7000
)
"""The same car, faster and farther."""

FINISHED = bytes.fromhex(
    "0000a041"  # speed 20
    "00007a44"  # distance 1000
    "000000c4"  # x -512
    "00002041"  # y 10
    "00000000"  # z 0
    "0000803f"  # steer 1
    "00000000"  # gas 0
    "0000803f"  # is_braking 1
    "0000803f"  # finished 1
    "0000a040"  # gear 5
    "00000045"  # rpm 2048
)
"""Behind the finish, braking."""


def with_float(record: bytes, index: int, value: str) -> bytes:
    """The record with another float, given in hex."""
    return record[: 4 * index] + bytes.fromhex(value) + record[4 * index + 4 :]


def moving(speed: str, x: str) -> bytes:
    """``STANDING`` with a speed and an x, in hex."""
    return with_float(with_float(STANDING, 0, speed), 2, x)
