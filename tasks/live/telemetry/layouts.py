"""The meaning of each float in a plugin's record, one table per known plugin, and the possible values of a car.

Does no input or output; ``tasks.live.telemetry.stream`` cuts a stream of bytes with it. A record has no header, length
or number: only its size distinguishes the plugins.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.config import TelemetryRecord
from tasks.game.protocols import Telemetry

FLOAT_SIZE = 4
"""Bytes of a float32."""

_MAX_SPEED = 400.0
"""The fastest car drives 1000 km/h = 278 m/s."""
_MAX_POSITION = 1e5
"""The largest map has 255 blocks of 32 m = 8160 m."""
_MAX_DISTANCE = 1e7
_MAX_GEAR = 10.0
_MAX_RPM = 20000.0
_MAX_YAW = 10.0
"""Half a turn either way, or a whole turn in one, and a little more."""
_MAX_AXIS = 1.001
"""Of the inputs, a little above 1 for the rounding of float32."""
_OPTIONAL: Mapping[str, float] = Telemetry._field_defaults
"""Fields that few records have, and their values in the others."""


@dataclass(frozen=True)
class RecordLayout:
    """The record of one plugin: little-endian float32 without a header.

    A field of ``Telemetry`` that the record lacks is 0: ``finished`` (then no finish is ever seen, and a lap ends with
    the reference path), ``gear`` and ``rpm``; a missing ``distance`` is integrated by ``RecordStream``. Heading and
    velocity, which few records have, are NaN then.
    """

    name: str
    """Name of the plugin, for people."""
    num_floats: int
    columns: Mapping[str, int]
    """Field of ``Telemetry`` to index of the float."""
    side_speed_column: int | None = None
    """Where ``speed`` is along the car only: index of the speed across it."""
    _struct: struct.Struct = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_struct", struct.Struct(f"<{self.num_floats}f"))

    @property
    def size(self) -> int:
        """Bytes of a record."""
        return FLOAT_SIZE * self.num_floats

    @property
    def missing(self) -> tuple[str, ...]:
        """Fields of ``Telemetry`` that the record lacks, of those that most have."""
        return tuple(name for name in Telemetry._fields if name not in {*self.columns, *_OPTIONAL})

    def decode(self, data: bytes | bytearray | memoryview, offset: int = 0) -> Telemetry:
        """The record that starts at ``offset``; it is not judged.

        Raises:
            ValueError: Fewer than ``size`` bytes are left.
        """
        if len(data) - offset < self.size:
            raise ValueError(f"a record of {self.name} needs {self.size} bytes, got {max(len(data) - offset, 0)}")
        floats = self._struct.unpack_from(data, offset)
        values = {name: floats[index] for name, index in self.columns.items()}
        if self.side_speed_column is not None:
            values["speed"] = math.hypot(values["speed"], floats[self.side_speed_column])
        return Telemetry(**{name: values.get(name, _OPTIONAL.get(name, 0.0)) for name in Telemetry._fields})


def _columns(names: str) -> dict[str, int]:
    """Index of each named float; ``-`` stands for a float that is not used."""
    return {name: index for index, name in enumerate(names.split()) if name != "-"}


LAYOUTS: Mapping[TelemetryRecord, RecordLayout] = {
    TelemetryRecord.floats8: RecordLayout(
        "TMRL's first script", 8, _columns("speed distance x y z steer gas is_braking")
    ),
    TelemetryRecord.floats11: RecordLayout(
        "TMRL's plugin", 11, _columns("speed distance x y z steer gas is_braking finished gear rpm")
    ),
    TelemetryRecord.floats14: RecordLayout(
        "our plugin with heading and velocity",
        14,
        _columns("speed distance x y z steer gas is_braking finished gear rpm velocity_x velocity_z yaw"),
    ),
    TelemetryRecord.floats16: RecordLayout(
        "the plugin with front and side speed",
        16,
        _columns("speed - distance x y z steer gas is_braking finished gear rpm - - - -"),
        side_speed_column=1,
    ),
    TelemetryRecord.floats20: RecordLayout(
        "the plugin with checkpoint, acceleration and slip",
        20,
        _columns("- - speed x y z steer gas is_braking finished - - - - - - - - - gear"),
    ),
    TelemetryRecord.floats33: RecordLayout(
        "the plugin with race time, velocity and wheels",
        33,
        _columns("- - finished - x y z - - - - - - - - - speed rpm gear" + " -" * 11 + " steer gas is_braking"),
    ),
}
"""Layout of each record that ``task.live.record`` names."""


def implausible_reason(record: Telemetry) -> str | None:
    """Why no car can have sent this record, such as ``steer is 17.25``; None when one can."""
    for name, value in zip(Telemetry._fields, record, strict=True):
        low, high = _RANGES[name]
        is_lacking = name in _OPTIONAL and math.isnan(value)
        # A NaN is in no range.
        if not (is_lacking or low <= value <= high):
            return f"{name} is {value:g}, expected {low:g} to {high:g}"
    return None


def record_of_size(size: int) -> TelemetryRecord | None:
    """The known record of that many bytes, if any."""
    return next((record for record, layout in LAYOUTS.items() if layout.size == size), None)


_RANGES: Mapping[str, tuple[float, float]] = {
    # A car that rolls backwards may have a negative speed and the gear -1.
    "speed": (-_MAX_SPEED, _MAX_SPEED),
    "distance": (-_MAX_DISTANCE, _MAX_DISTANCE),
    "x": (-_MAX_POSITION, _MAX_POSITION),
    "y": (-_MAX_POSITION, _MAX_POSITION),
    "z": (-_MAX_POSITION, _MAX_POSITION),
    "steer": (-_MAX_AXIS, _MAX_AXIS),
    "gas": (0.0, _MAX_AXIS),
    "is_braking": (0.0, _MAX_AXIS),
    "finished": (0.0, 1.0),
    "gear": (-1.0, _MAX_GEAR),
    "rpm": (0.0, _MAX_RPM),
    "velocity_x": (-_MAX_SPEED, _MAX_SPEED),
    "velocity_z": (-_MAX_SPEED, _MAX_SPEED),
    "yaw": (-_MAX_YAW, _MAX_YAW),
}
