"""What the rows of a replay memory hold, on a device: an update then moves the slots of its rows, not the rows.

Takes the place of ``algos.replay.columns.HostColumns``: the memory locates batches on the host for both, and they are
equal bit by bit. Nothing here waits for the device. It has never run on CUDA: tests run it on the CPU and on torch's
meta device.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from algos.replay.columns import Batch, Places, observed, window_parts
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment


def num_bytes(spec: ObservationSpec, capacity: int) -> int:
    """Bytes that the rows take on the device."""
    frames = sum(math.prod(field.frame_shape) * np.dtype(field.dtype).itemsize for field in spec.fields)
    return capacity * (frames + spec.action_size * np.dtype(np.float32).itemsize)


class DeviceColumns:
    """One tensor per field and one of actions on a device, newest part only, images uint8.

    Rewards and terminations, from which returns are summed while a batch is located, stay in host memory.

    Args:
        spec: Fields of the observation.
        capacity: Number of rows.
        n_step: Number of rewards summed per transition.
        device: Where the rows are, and the batches gathered from them.

    Raises:
        torch.OutOfMemoryError: The device has too little memory.
    """

    def __init__(self, spec: ObservationSpec, capacity: int, n_step: int, device: torch.device) -> None:
        self.frames = {
            f.name: torch.zeros((capacity, *f.frame_shape), dtype=getattr(torch, f.dtype), device=device)
            for f in spec.fields
        }
        self.action = torch.zeros((capacity, spec.action_size), device=device)
        self.reward = np.zeros(capacity, np.float32)
        self.terminated = np.zeros(capacity, np.bool_)
        self._spec = spec
        self._n_step = n_step
        self._device = device
        self._is_pinned = device.type == "cuda"
        self._parts = {n: torch.from_numpy(part).to(device) for n, part in window_parts(spec, n_step).items()}

    def write(self, slot: int, segment: Segment, part: slice) -> None:
        """Copies a part of a segment to consecutive slots, by one copy to the device per field."""
        slots = slice(slot, slot + part.stop - part.start)
        for name, column in self.frames.items():
            column[slots].copy_(self._staged(segment.frames[name][part], column.dtype), non_blocking=True)
        self.action[slots].copy_(self._staged(segment.action[part], self.action.dtype), non_blocking=True)
        self.reward[slots] = segment.reward[part]
        self.terminated[slots] = segment.terminated[part]

    def places(self, batch_size: int) -> Places:
        """What the next batch is located in, made anew: the device may not have read the last ones yet."""
        return Places(self._spec, batch_size, self._n_step, self._is_pinned)

    def gather(self, places: Places) -> Batch:
        """The batch that was located in what ``places`` gave; its tensors are the caller's."""
        # torch uses pinned memory again only when the copies from it are done
        frame_slots, action_slots, step_slots = places.split(places.slots.to(self._device, non_blocking=True))
        reward, discount, terminated = places.numbers.to(self._device, non_blocking=True).unbind()
        slots = {length: frame_slots.index_select(1, part) for length, part in self._parts.items()}
        frames = {f.name: _rows(self.frames[f.name], slots[max(f.history, 1)]) for f in self._spec.fields}
        act_buf = _rows(self.action, action_slots)
        return Batch(
            observation=observed(self._spec, frames, act_buf, is_successor=False),
            action=_rows(self.action, step_slots),
            reward=reward,
            discount=discount,
            next_observation=observed(self._spec, frames, act_buf, is_successor=True),
            terminated=terminated,
        )

    def frames_at(self, name: str, slots: np.ndarray) -> Tensor:
        """A copy of the frames of a field at slots of any shape, shape (*slots, *frame shape)."""
        return _rows(self.frames[name], self._sent(slots))

    def actions_at(self, slots: np.ndarray) -> Tensor:
        """A copy of the actions at slots of any shape, shape (*slots, A)."""
        return _rows(self.action, self._sent(slots))

    def _sent(self, slots: np.ndarray) -> Tensor:
        return self._staged(slots, torch.int64).to(self._device, non_blocking=True)

    def _staged(self, array: np.ndarray, dtype: torch.dtype) -> Tensor:
        """A copy in host memory from which the device copies while the host goes on."""
        staged = torch.empty(array.shape, dtype=dtype, pin_memory=self._is_pinned)
        staged.numpy()[...] = array
        return staged


def _rows(column: Tensor, slots: Tensor) -> Tensor:
    """Rows of a column (capacity, *row) at slots of any shape, shape (*slots, *row)."""
    return column.index_select(0, slots.reshape(-1)).view(*slots.shape, *column.shape[1:])
