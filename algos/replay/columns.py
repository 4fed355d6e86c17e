"""What the rows of a replay memory hold, in host memory, and the batches that are gathered from it.

``algos.replay.memory`` knows which rows belong together: it writes where they are into ``Places``.
``algos.replay.device_columns`` does on a GPU what ``HostColumns`` does here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment

NUM_BUFFERS = 2
"""A batch in host memory stays intact until this many more were asked for."""


class Batch(NamedTuple):
    """Transitions o_t, a_{t+1}, sum of rewards, o_{t+k}, on the device that the memory has its rows on; images uint8.

    In host memory the tensors are views of buffers of the memory: they stay intact until sample() has been called
    ``NUM_BUFFERS`` more times. With n_step = 1 an observation and its successor share the frames they have in common,
    so the tensors are not contiguous and must not be written to.
    """

    observation: dict[str, Tensor]
    """Every field of the observation, the action buffer included, shape (B, *field shape)."""
    action: Tensor
    """Action passed to the step that followed the observation, (B, A)."""
    reward: Tensor
    """sum_{j<k} gamma^j r_{t+1+j}, (B,)."""
    discount: Tensor
    """gamma^k, (B,); k = n_step, or less where the episode or the stream's stored rows end."""
    next_observation: dict[str, Tensor]
    """The same fields k steps later; at a truncation the true last observation."""
    terminated: Tensor
    """1.0 where the k-th step ended the episode for good: no bootstrap there. (B,) float32."""


class Places:
    """Where the rows of a batch of transitions are, and what these earn.

    With n_step = 1 the window of frames of an observation and that of its successor overlap in all but one frame, so
    both are parts of one window of history + 1 frames; otherwise the two windows lie side by side.

    Args:
        spec: Fields of the observation.
        batch_size: Number of transitions, B.
        n_step: Number of rewards summed per transition.
        is_pinned: Whether a GPU can copy from it while the host goes on.
    """

    def __init__(self, spec: ObservationSpec, batch_size: int, n_step: int, is_pinned: bool = False) -> None:
        widths = window_width(spec.history, n_step), window_width(spec.act_buf_len, n_step)
        self._shapes = [(batch_size, widths[0]), (batch_size, widths[1]), (batch_size,)]
        num_slots = sum(math.prod(shape) for shape in self._shapes)
        self.slots = torch.zeros(num_slots, dtype=torch.int64, pin_memory=is_pinned)
        """All slots, one array after the other."""
        self.numbers = torch.zeros((3, batch_size), pin_memory=is_pinned)
        """Reward, discount and terminated."""
        self.frame_slots, self.action_slots, self.step_slots = (part.numpy() for part in self.split(self.slots))
        self.reward, self.discount, self.terminated = self.numbers.numpy()
        self.end_rows = np.zeros(batch_size, np.int64)

    def split(self, slots: Tensor) -> list[Tensor]:
        """The slots of frames, (B, window), of the action buffers, (B, window), and of the actions, (B,)."""
        parts = slots.split([math.prod(shape) for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]


class HostColumns:
    """One array per field, newest part only. Pages are touched when they are written.

    Args:
        spec: Fields of the observation.
        capacity: Number of rows.
        n_step: Number of rewards summed per transition.
    """

    def __init__(self, spec: ObservationSpec, capacity: int, n_step: int) -> None:
        self.frames = {f.name: np.zeros((capacity, *f.frame_shape), f.dtype) for f in spec.fields}
        self.action = np.zeros((capacity, spec.action_size), np.float32)
        self.reward = np.zeros(capacity, np.float32)
        self.terminated = np.zeros(capacity, np.bool_)
        self._spec = spec
        self._n_step = n_step
        self._parts = window_parts(spec, n_step)
        self._buffers: dict[int, list[_Buffers]] = {}

    def write(self, slot: int, segment: Segment, part: slice) -> None:
        """Copies a part of a segment to consecutive slots."""
        slots = slice(slot, slot + part.stop - part.start)
        for name, column in self.frames.items():
            column[slots] = segment.frames[name][part]
        self.action[slots] = segment.action[part]
        self.reward[slots] = segment.reward[part]
        self.terminated[slots] = segment.terminated[part]

    def places(self, batch_size: int) -> Places:
        """What the next batch is located in; made at the first use of a batch size."""
        buffers = self._buffers.setdefault(batch_size, [])
        if len(buffers) < NUM_BUFFERS:
            buffers.append(_Buffers(self._spec, batch_size, self._n_step))
            return buffers[-1]
        buffers.append(buffers.pop(0))
        return buffers[-1]

    def gather(self, places: Places) -> Batch:
        """The batch that was located in what ``places`` gave."""
        assert isinstance(places, _Buffers)
        slots = {length: np.take(places.frame_slots, part, axis=1) for length, part in self._parts.items()}
        for field in self._spec.fields:
            _take(self.frames[field.name], slots[max(field.history, 1)], places.frames[field.name])
        if places.action_slots.size:
            _take(self.action, places.action_slots, places.act_buf)
        _take(self.action, places.step_slots, places.action)
        return places.batch()

    def frames_at(self, name: str, slots: np.ndarray) -> Tensor:
        """A copy of the frames of a field at slots of any shape, shape (*slots, *frame shape)."""
        return torch.from_numpy(self.frames[name][slots])

    def actions_at(self, slots: np.ndarray) -> Tensor:
        """A copy of the actions at slots of any shape, shape (*slots, A)."""
        return torch.from_numpy(self.action[slots])


def window_width(history: int, n_step: int) -> int:
    """Number of columns that hold an observation's history and its successor's."""
    return history + 1 if n_step == 1 and history else 2 * history


def window_parts(spec: ObservationSpec, n_step: int) -> dict[int, np.ndarray]:
    """Columns of the frame window that a history takes, by its length, at least 1."""
    longest, width = spec.history, window_width(spec.history, n_step)
    lengths = {max(field.history, 1) for field in spec.fields}
    return {n: np.union1d(np.arange(longest - n, longest), np.arange(width - n, width)) for n in lengths}


def observed(
    spec: ObservationSpec, frames: Mapping[str, Tensor], act_buf: Tensor, is_successor: bool
) -> dict[str, Tensor]:
    """Observation fields as views of the first part of each window, or of the last for a successor.

    Args:
        spec: Fields of the observation.
        frames: Windows of each field, shape (B, window, *frame shape).
        act_buf: Windows of the action buffers, shape (B, window, A).
        is_successor: Which of the two.
    """
    views: dict[str, Tensor] = {}
    for field in spec.fields:
        window = frames[field.name]
        if field.history:
            views[field.name] = window[:, -field.history :] if is_successor else window[:, : field.history]
        else:
            views[field.name] = window[:, -1 if is_successor else 0]
    for index, name in enumerate(spec.action_names):
        views[name] = act_buf[:, index - spec.act_buf_len if is_successor else index]
    return views


class _Buffers(Places):
    """Arrays that one batch is gathered into, too, made once per batch size."""

    def __init__(self, spec: ObservationSpec, batch_size: int, n_step: int) -> None:
        super().__init__(spec, batch_size, n_step)
        self.action = np.zeros((batch_size, spec.action_size), np.float32)
        self.frames = {
            f.name: np.zeros((batch_size, window_width(max(f.history, 1), n_step), *f.frame_shape), f.dtype)
            for f in spec.fields
        }
        self.act_buf = np.zeros((*self.action_slots.shape, spec.action_size), np.float32)
        windows = {name: torch.from_numpy(frames) for name, frames in self.frames.items()}
        act_buf = torch.from_numpy(self.act_buf)
        reward, discount, terminated = self.numbers
        self._batch = Batch(
            observation=observed(spec, windows, act_buf, is_successor=False),
            action=torch.from_numpy(self.action),
            reward=reward,
            discount=discount,
            next_observation=observed(spec, windows, act_buf, is_successor=True),
            terminated=terminated,
        )

    def batch(self) -> Batch:
        """The tensors over these buffers; the dicts are the caller's own."""
        batch = self._batch
        return batch._replace(observation=dict(batch.observation), next_observation=dict(batch.next_observation))


def _take(source: np.ndarray, slots: np.ndarray, out: np.ndarray) -> None:
    """out[...] = source[slots], straight into ``out`` (mode raise would go through a temporary copy)."""
    np.take(source, slots, axis=0, out=out, mode="clip")
