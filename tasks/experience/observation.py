"""Named, ordered observation fields: the sole owner of field order, history layout and scale.

An ``ObservationSpec`` turns rtgym's positional tuple into a dict of named fields, a flat vector, or the newest parts
that are sent and stored, and back. Every other module goes through it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import field as dataclass_field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gymnasium import spaces

ACTION_PREFIX = "action_"
Info = dict[str, Any]
"""Gymnasium's ``info`` of a step, what an environment tells beside an observation, and ``options`` of a reset."""


@dataclass(frozen=True)
class Field:
    """One field of an observation, as the interface returns it."""

    name: str
    shape: tuple[int, ...]
    """Shape of the whole field, history first where there is one."""
    dtype: str = "float32"
    """float32 or uint8."""
    low: float = 0.0
    high: float = float("inf")
    history: int = 0
    """Length of the history along axis 0, newest last; 0: the field has none."""
    scale: float = 1.0
    """Networks see (value - offset) / scale."""
    offset: float = 0.0
    privileged: bool = False
    """Whether only a critic may see it, in training; a policy never does."""
    unit: str = dataclass_field(default="", compare=False)
    """Of the value, for people; empty: a number without one. No part of what a checkpoint must fit."""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of the newest part."""
        return self.shape[1:] if self.history else self.shape

    @property
    def size(self) -> int:
        """Number of scalars."""
        return int(np.prod(self.shape))

    def space(self) -> spaces.Box:
        """The Gymnasium space of the whole field."""
        from gymnasium import spaces  # at use: who learns or stores needs no spaces

        return spaces.Box(self.low, self.high, self.shape, np.dtype(self.dtype).type)


@dataclass(frozen=True)
class ObservationSpec:
    """The fields of a task's observation and the action buffer that follows them.

    Field order is the tuple order. The action buffer adds ``action_0 .. action_{L-1}``, oldest first; the last one is
    the action just passed to step(), which has not acted yet.

    Privileged fields are captured, sent and stored like all others, and are entries of the tuple and the dict. The flat
    vector leaves them out, and so does ``visible``, from which policies are built.
    """

    fields: tuple[Field, ...]
    action_size: int = 3
    act_buf_len: int = 2
    """0 when the action buffer is not part of the observation (act_in_obs false)."""
    reset_act_buf: bool = True
    """Whether a reset clears histories of actions (rtgym)."""

    @cached_property
    def visible(self) -> ObservationSpec:
        """The specification without the privileged fields, as policies see it."""
        if not self.privileged_fields:
            return self
        return replace(self, fields=tuple(field for field in self.fields if not field.privileged))

    @cached_property
    def privileged_fields(self) -> tuple[Field, ...]:
        """What only a critic may see, in order."""
        return tuple(field for field in self.fields if field.privileged)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the action fields, oldest first."""
        return tuple(f"{ACTION_PREFIX}{i}" for i in range(self.act_buf_len))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names in tuple order."""
        return tuple(field.name for field in self.fields) + self.action_names

    @property
    def history(self) -> int:
        """Longest history of any field, at least 1."""
        return max([1, *(field.history for field in self.fields)])

    def all_fields(self) -> tuple[Field, ...]:
        """Fields in tuple order, the actions as fields too."""
        actions = (Field(name, (self.action_size,), "float32", -1.0, 1.0) for name in self.action_names)
        return (*self.fields, *actions)

    def tuple_space(self) -> spaces.Tuple:
        """The space of rtgym's tuple."""
        from gymnasium import spaces  # at use: who learns or stores needs no spaces

        return spaces.Tuple([field.space() for field in self.all_fields()])

    def dict_space(self) -> spaces.Dict:
        """The same, by name."""
        from gymnasium import spaces  # at use: who learns or stores needs no spaces

        return spaces.Dict({field.name: field.space() for field in self.all_fields()})

    def flat_space(self) -> spaces.Box:
        """One float32 vector of the scaled visible fields, for learners that take nothing else."""
        from gymnasium import spaces  # at use: who learns or stores needs no spaces

        fields = self.visible.all_fields()
        low = np.concatenate([self._scaled_bound(f, f.low) for f in fields])
        high = np.concatenate([self._scaled_bound(f, f.high) for f in fields])
        return spaces.Box(low, high, dtype=np.float32)

    def to_dict(self, observation: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Names the entries of rtgym's tuple. No copy."""
        return dict(zip(self.names, observation, strict=True))

    def to_tuple(self, observation: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """The inverse of ``to_dict``."""
        return tuple(observation[name] for name in self.names)

    def to_flat(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Scales and concatenates the visible fields, shape (D,), float32."""
        return self._scaled([observation[name] for name in self.visible.names])

    def flatten(self, observation: Sequence[np.ndarray]) -> np.ndarray:
        """``to_flat`` for rtgym's tuple."""
        if not self.privileged_fields:
            return self._scaled(observation)
        return self.to_flat(self.to_dict(observation))

    def flatten_batch(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """``to_flat`` for a batch: fields (N, *field shape) to (N, D), float32."""
        slices, offset, scale = self._flat_layout
        names = self.visible.names
        flat = np.empty((len(observation[names[0]]), len(offset)), np.float32)
        for part, name in zip(slices, names, strict=True):
            flat[:, part] = observation[name].reshape(len(flat), -1)
        flat -= offset
        flat /= scale
        return flat

    def newest(self, observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The newest part of every field except the actions: what is sent and stored."""
        return {f.name: observation[f.name][-1] if f.history else observation[f.name] for f in self.fields}

    def checksum(self, observation: Mapping[str, np.ndarray]) -> int:
        """CRC-32 over all fields in order (TMRL's CRC debug)."""
        crc = 0
        for field in self.all_fields():
            crc = zlib.crc32(np.ascontiguousarray(observation[field.name], np.dtype(field.dtype)).tobytes(), crc)
        return crc

    def to_json(self) -> dict[str, Any]:
        """Plain data, for configs, checkpoints and the link, without units; ``privileged`` only where it is true."""
        data = asdict(self)
        data["fields"] = [
            {key: value for key, value in entry.items() if key != "unit" and (key != "privileged" or value)}
            for entry in data["fields"]
        ]
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ObservationSpec:
        """The inverse of ``to_json``."""
        fields = tuple(Field(**{**entry, "shape": tuple(entry["shape"])}) for entry in data["fields"])
        rest = {key: value for key, value in data.items() if key != "fields"}
        return ObservationSpec(fields=fields, **rest)

    def fingerprint(self) -> str:
        """Stable text identity of shapes, order and scales; equal specs have equal fingerprints."""
        return f"{zlib.crc32(json.dumps(self.to_json(), sort_keys=True).encode()):08x}"

    def _scaled(self, observation: Sequence[np.ndarray]) -> np.ndarray:
        """The flat vector of the visible entries."""
        slices, offset, scale = self._flat_layout
        flat = np.empty(len(offset), np.float32)
        for part, entry in zip(slices, observation, strict=True):
            flat[part] = entry.ravel()
        flat -= offset
        flat /= scale
        return flat

    @cached_property
    def _flat_layout(self) -> tuple[list[slice], np.ndarray, np.ndarray]:
        """Where each visible field lies in the flat vector, and offset and scale of every entry."""
        entries = self.visible.all_fields()
        ends = np.cumsum([entry.size for entry in entries]).tolist()
        slices = [slice(end - entry.size, end) for entry, end in zip(entries, ends, strict=True)]
        offset = np.concatenate([np.full(entry.size, entry.offset, np.float32) for entry in entries])
        scale = np.concatenate([np.full(entry.size, entry.scale, np.float32) for entry in entries])
        return slices, offset, scale

    @staticmethod
    def _scaled_bound(field: Field, bound: float) -> np.ndarray:
        return np.full(field.size, (bound - field.offset) / field.scale, np.float32)
