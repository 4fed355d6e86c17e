"""Replay memory: every frame stored once, histories and n-step returns rebuilt when sampling.

Owns a ring of single rows in which several streams interleave. The learner appends segments and draws batches;
``algos.replay.columns`` and, on a GPU, ``algos.replay.device_columns`` hold what the rows hold, and
``algos.replay.storage`` has the copy on disk. Knows no algorithm and no socket.

How a row finds its neighbours: rows have absolute numbers 0, 1, 2, ... (slot = number modulo capacity) and each keeps
the numbers of the row before and after it in its own stream. A history is a walk backwards that stops at the first
row of the episode and repeats it, which is what reset() put into the environment's buffers.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from algos.replay.columns import Batch, HostColumns, Places
from algos.replay.device_columns import DeviceColumns
from algos.replay.kernels import compiled
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment

LOGGER = logging.getLogger(__name__)

SPARSE = 8
"""Valid rows are listed instead of drawn by rejection when fewer than one stored row in this many is valid."""

_NONE = -1
"""No such row: the stream starts or ends here."""
_LOST = -2
"""A row existed here and was not received: no history may reach over this place."""


class ReplayMemory:
    """A ring of rows and uniform sampling of the transitions that can be rebuilt from it.

    A row can be the start of a transition when its successor is stored, belongs to the same episode, and the whole
    history of its observation is stored too. All such rows are drawn with the same probability, with replacement.

    Args:
        spec: Fields of the observation.
        capacity: Number of rows kept; in host memory image pages are only touched when they are written.
        n_step: Number of rewards summed per transition.
        gamma: Discount per step.
        seed: Of the generator that draws rows.
        check_samples: Whether rebuilt observations are compared with the checksums that segments carry.
        device: Where the rows and the batches are; None: in host memory.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        capacity: int,
        n_step: int,
        gamma: float,
        seed: int,
        check_samples: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self._require_arguments(spec, capacity, n_step, gamma)
        self.spec = spec
        self.capacity = capacity
        self.n_step = n_step
        self.gamma = gamma
        self.check_samples = check_samples
        self.received: dict[str, int] = {}
        """Highest sequence number appended, by worker."""
        self.total_rows = 0
        """Number of rows ever appended, those that left the ring included: the number of the next row."""
        self._first_row = 0
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._tails: dict[tuple[str, int], int] = {}
        self._gapped: set[str] = set()
        self._columns: HostColumns | DeviceColumns = (
            HostColumns(spec, capacity, n_step) if device is None else DeviceColumns(spec, capacity, n_step, device)
        )
        self._links = _Links(capacity, spec.history, spec.act_buf_len, spec.reset_act_buf)
        self._listed: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        self._checksums: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of stored rows."""
        return self.total_rows - self._lowest_row

    @property
    def num_transitions(self) -> int:
        """Number of rows that sample() can draw."""
        return int(self._links.num_valid)

    def append(self, segment: Segment) -> bool:
        """Adds the rows of a segment; they continue the last ones of the same worker and stream.

        A sequence number above the expected one means that rows are missing: histories never reach over such a
        place. A sequence number of 0 or less is not counted: the segment simply follows.

        Args:
            segment: Rows to store; copied.

        Returns:
            False when the segment was appended before and is ignored.

        Raises:
            ValueError: The segment does not fit the observation spec or contradicts itself.
        """
        self._check(segment)
        if segment.seq > 0 and segment.seq <= self.received.get(segment.worker, 0):
            LOGGER.debug("segment %d of %s was appended before", segment.seq, segment.worker)
            return False
        self._note_sequence(segment)
        if len(segment):
            before = self._row_before(segment)
            for start in range(0, len(segment), self.capacity):
                before = self._append_rows(segment, start, min(start + self.capacity, len(segment)), before)
            self._tails[segment.worker, segment.stream] = self.total_rows - 1
        return True

    def sample(self, batch_size: int) -> Batch:
        """Draws transitions uniformly, with replacement.

        Returns:
            A batch whose tensors stay intact as ``Batch`` says.

        Raises:
            ValueError: Nothing can be drawn yet.
        """
        self._require_transitions(batch_size)
        rows = self._draw(batch_size)
        places = self._columns.places(batch_size)
        self._links.locate(rows, self.gamma, self.n_step, self._columns, places)
        batch = self._columns.gather(places)
        self._verify(rows, batch.observation)
        self._verify(places.end_rows, batch.next_observation)
        return batch

    def start_at(self, row: int, received: Mapping[str, int], streams: Iterable[tuple[str, int]]) -> None:
        """Forgets all rows and numbers the next one: a storage restores rows whose forerunners are gone.

        Args:
            row: Number of the next row.
            received: Highest sequence number before that row, by worker.
            streams: Worker and stream of every stream that had rows before that row.
        """
        self.total_rows = self._first_row = row
        self.received = dict(received)
        self._tails = dict.fromkeys(streams, _LOST)
        self._gapped = set()
        self._listed = (-1, self._listed[1])
        self._links.forget(row)

    def note_gap(self, received: Mapping[str, int], streams: Iterable[tuple[str, int]]) -> None:
        """Takes note that rows are lost before the next one: nothing reaches over this place.

        Args:
            received: Highest sequence numbers among the lost rows, by worker, as far as they are known.
            streams: Worker and stream of every stream that had rows there, as far as they are known.
        """
        for worker, seq in received.items():
            self.received[worker] = max(seq, self.received.get(worker, 0))
        self._tails = dict.fromkeys([*self._tails, *streams], _LOST)

    def rng_state(self) -> dict[str, Any]:
        """State of the generator that draws rows, plain data."""
        return dict(self._rng.bit_generator.state)

    def load_rng_state(self, state: dict[str, Any]) -> None:
        """Restores what ``rng_state`` returned."""
        self._rng.bit_generator.state = state

    @property
    def _lowest_row(self) -> int:
        return max(self.total_rows - self.capacity, self._first_row)

    def _note_sequence(self, segment: Segment) -> None:
        """Breaks the streams of a worker when segments of it are missing, and counts this one."""
        if segment.seq <= 0:
            return
        expected = self.received.get(segment.worker, 0) + 1
        if segment.seq != expected:
            if segment.worker in self.received:
                LOGGER.warning("segments %d..%d of %s are missing", expected, segment.seq - 1, segment.worker)
            self._gapped.add(segment.worker)
            self._tails.update({key: _LOST for key in self._tails if key[0] == segment.worker})
        self.received[segment.worker] = segment.seq

    def _row_before(self, segment: Segment) -> int:
        """Number of the row before a segment in its stream, ``_NONE`` or ``_LOST``."""
        starts = bool(segment.is_first[0])
        tail = self._tails.get((segment.worker, segment.stream))
        if tail is None:
            return _NONE if starts and segment.worker not in self._gapped else _LOST
        if tail < self._lowest_row:
            return _LOST
        has_ended = bool(self._links.done[tail % self.capacity])
        if starts and not has_ended:
            return _NONE  # the environment was made anew: its episode stopped in the middle
        return tail if starts == has_ended else _LOST

    def _append_rows(self, segment: Segment, start: int, stop: int, before: int) -> int:
        """Adds rows start..stop-1, at most ``capacity`` of them; returns the number of the last one."""
        row = self.total_rows
        self.total_rows += stop - start
        first_part = min(self.capacity - row % self.capacity, stop - start)
        for part in (slice(start, start + first_part), slice(start + first_part, stop)):
            if part.start < part.stop:
                self._write((row + part.start - start) % self.capacity, segment, part)
        done = segment.terminated[start:stop] | segment.truncated[start:stop]
        self._links.add(row, before, self._lowest_row, segment.is_first[start:stop], done)
        return self.total_rows - 1

    def _write(self, slot: int, segment: Segment, part: slice) -> None:
        """Copies a part of a segment to consecutive slots."""
        self._columns.write(slot, segment, part)
        if self.check_samples:
            self._write_checksums(slot, segment, part)

    def _require_transitions(self, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if not self._links.num_valid:
            raise ValueError(f"no transition can be drawn yet: {len(self)} rows are stored; append more segments first")

    def _draw(self, batch_size: int) -> np.ndarray:
        """Numbers of uniformly drawn valid rows, (B,)."""
        lowest, stored = self._lowest_row, len(self)
        if self.num_transitions * SPARSE < stored:
            if self._listed[0] != self.total_rows:
                self._listed = (self.total_rows, self._links.valid_rows(lowest, self.total_rows))
            return self._rng.choice(self._listed[1], batch_size)
        rows = np.empty(batch_size, np.int64)
        filled = 0
        while filled < batch_size:
            candidates = self._rng.integers(lowest, lowest + stored, batch_size - filled)
            filled += self._links.keep_valid(candidates, lowest, rows[filled:])
        return rows

    def _write_checksums(self, slot: int, segment: Segment, part: slice) -> None:
        if self._checksums is None:
            self._checksums = np.full(self.capacity, -1, np.int64)
        values = -1 if segment.checksums is None else segment.checksums[part]
        self._checksums[slot : slot + part.stop - part.start] = values

    def _verify(self, rows: np.ndarray, fields: Mapping[str, torch.Tensor]) -> None:
        """Compares rebuilt observations with the checksums that the worker made of its own (TMRL's CRC debug).

        Args:
            rows: Numbers of the rows, (B,).
            fields: Their observations, (B, *field shape).
        """
        if self._checksums is None:
            return
        arrays = {name: tensor.cpu().numpy() for name, tensor in fields.items()}
        for index, row in enumerate(rows):
            observation = {name: array[index] for name, array in arrays.items()}
            expected = int(self._checksums[row % self.capacity])
            if expected >= 0 and self.spec.checksum(observation) != expected:
                raise ValueError(self._mismatch(int(row), observation, expected))

    def _mismatch(self, row: int, observation: Mapping[str, np.ndarray], expected: int) -> str:
        """Describes a rebuilt observation that is not the one its worker saw."""
        stream = next((key for key, tail in self._tails.items() if self._links.is_in_stream(row, tail)), None)
        crcs = {name: zlib.crc32(np.ascontiguousarray(value).tobytes()) for name, value in observation.items()}
        sums = ", ".join(f"{name} {crc:08x}" for name, crc in crcs.items())
        return (
            f"check_samples: row {row} (worker and stream: {stream}) was rebuilt with checksum "
            f"{self.spec.checksum(observation):08x}, its worker saw {expected:08x}; fields: {sums}. "
            "The worker's observation spec (history lengths, act_buf_len, reset_act_buf) and the learner's must agree"
        )

    def _check(self, segment: Segment) -> None:
        """Raises ValueError for a segment that would corrupt the memory."""
        name = f"segment {segment.seq} of worker {segment.worker!r}, stream {segment.stream}"
        n = len(segment)
        expected: dict[str, tuple[np.ndarray, tuple[int, ...], str]] = {
            "action": (segment.action, (n, self.spec.action_size), "float32"),
            "reward": (segment.reward, (n,), "float32"),
            "terminated": (segment.terminated, (n,), "bool"),
            "truncated": (segment.truncated, (n,), "bool"),
            "is_first": (segment.is_first, (n,), "bool"),
        }
        if segment.checksums is not None:
            expected["checksums"] = (segment.checksums, (n,), "uint32")
        for field in self.spec.fields:
            if field.name not in segment.frames:
                raise ValueError(f"{name} has no field {field.name!r}, it has {sorted(segment.frames)}")
            expected[field.name] = (segment.frames[field.name], (n, *field.frame_shape), field.dtype)
        for key, (array, shape, dtype) in expected.items():
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{name}: {key} must be {dtype} {shape}, got {array.dtype} {array.shape}")
        done = segment.terminated | segment.truncated
        if n and (done[:-1] & ~segment.is_first[1:]).any():
            raise ValueError(f"{name}: a row after the end of an episode must be a first row")
        if (segment.is_first & done).any():
            raise ValueError(f"{name}: a first row cannot end its episode")

    @staticmethod
    def _require_arguments(spec: ObservationSpec, capacity: int, n_step: int, gamma: float) -> None:
        smallest = max(spec.history, spec.act_buf_len) + 2
        if capacity < smallest:
            raise ValueError(f"memory_size must be >= {smallest} (the longest history + 2), got {capacity}")
        if n_step < 1:
            raise ValueError(f"n_step must be >= 1, got {n_step}")
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must be in [0, 1], got {gamma}")


class _Links:
    """How rows hang together: neighbours, episode ends, and which rows can start a transition.

    A row is valid when it has a successor and the oldest row that its observation needs has not been evicted. The
    number of valid rows is kept exactly by counting, at each row, how many valid rows become invalid with it.
    """

    def __init__(self, capacity: int, history: int, act_buf_len: int, reset_act_buf: bool) -> None:
        self.previous = np.zeros(capacity, np.int64)
        self.next = np.zeros(capacity, np.int64)
        self.oldest = np.zeros(capacity, np.int64)
        self.expiring = np.zeros(capacity, np.int32)
        self.is_first = np.zeros(capacity, np.bool_)
        self.done = np.zeros(capacity, np.bool_)
        self.num_valid = 0
        self._lowest = 0
        self._history = history
        self._act_buf_len = act_buf_len
        self._reset_act_buf = reset_act_buf

    def add(self, row: int, before: int, lowest: int, is_first: np.ndarray, done: np.ndarray) -> None:
        """Links rows row, row + 1, ... that follow ``before``; ``lowest`` is the oldest row that remains."""
        self.num_valid += _evict(self.expiring, self._lowest, lowest, row)
        self._lowest = lowest
        self.num_valid += _link(
            row, before, lowest, is_first, done,
            self.previous, self.next, self.oldest, self.expiring, self.is_first, self.done,
            self._history, self._act_buf_len, self._reset_act_buf,
        )  # fmt: skip

    def forget(self, lowest: int) -> None:
        """Forgets all rows; the next one added is number ``lowest`` or above."""
        self.expiring[:] = 0
        self.num_valid = 0
        self._lowest = lowest

    def keep_valid(self, candidates: np.ndarray, lowest: int, out: np.ndarray) -> int:
        """Copies the valid ones among candidate rows to ``out``; returns how many."""
        return int(_keep_valid(candidates, lowest, self.next, self.oldest, out))

    def valid_rows(self, lowest: int, end: int) -> np.ndarray:
        """All valid rows, ascending."""
        rows = np.arange(lowest, end)
        return rows[: self.keep_valid(rows.copy(), lowest, rows)]

    def locate(
        self, rows: np.ndarray, gamma: float, n_step: int, columns: HostColumns | DeviceColumns, places: Places
    ) -> None:
        """Finds the slots that make up the transitions from ``rows`` and sums their rewards, into ``places``."""
        _locate(
            rows, n_step, gamma, columns.reward, columns.terminated,
            self.previous, self.next, self.is_first, self._history, self._act_buf_len, self._reset_act_buf,
            places.frame_slots, places.action_slots, places.step_slots, places.end_rows,
            places.reward, places.discount, places.terminated,
        )  # fmt: skip

    def observe(self, rows: np.ndarray, frame_slots: np.ndarray, action_slots: np.ndarray) -> None:
        """Finds the slots that make up the observations at ``rows``, (R,), newest last."""
        _observe(rows, self.previous, self.is_first, self._reset_act_buf, frame_slots, action_slots)

    def is_in_stream(self, row: int, tail: int) -> bool:
        """Whether a row lies on the way back from the newest row of a stream; for error messages."""
        while tail > row:
            tail = int(self.previous[tail % len(self.previous)])
        return tail == row


@compiled
def _evict(expiring: np.ndarray, lowest: int, new_lowest: int, end: int) -> int:
    """Lets the rows lowest..new_lowest-1 go; returns minus the number of rows that became invalid with them."""
    lost = 0
    for row in range(lowest, min(new_lowest, end)):
        slot = row % len(expiring)
        lost += expiring[slot]
        expiring[slot] = 0
    return -lost


@compiled
def _action_before(row: int, lowest: int, previous: np.ndarray, is_first: np.ndarray) -> tuple[int, int]:
    """Row before ``row`` in the action buffer when it survives resets, and the oldest row looked at.

    At a reset rtgym overwrites the newest entry, the action that was never applied: a first row takes the place of
    the last row of the episode before.
    """
    capacity = len(previous)
    while is_first[row % capacity]:
        before = previous[row % capacity]
        if before < 0:
            return before, row
        if before < lowest:
            return _LOST, row
        row = before
    before = previous[row % capacity]
    if before >= 0 and before < lowest:
        return _LOST, row
    return before, row


@compiled
def _oldest_needed(
    row: int, lowest: int, previous: np.ndarray, is_first: np.ndarray, history: int, act_buf_len: int, reset: bool
) -> int:
    """Oldest row that the observation at ``row`` is built from, or _NONE if one of them is missing."""
    capacity = len(previous)
    depth = max(history, act_buf_len) if reset else history
    oldest = row
    for _ in range(depth - 1):
        if is_first[oldest % capacity]:
            break
        oldest = previous[oldest % capacity]
        if oldest < lowest:
            return _NONE
    if reset:
        return oldest
    current = row
    for _ in range(act_buf_len - 1):
        current, seen = _action_before(current, lowest, previous, is_first)
        oldest = min(oldest, seen)
        if current == _LOST:
            return _NONE
        if current == _NONE:
            return oldest
        oldest = min(oldest, current)
    return oldest


@compiled
def _link(
    row: int,
    before: int,
    lowest: int,
    new_is_first: np.ndarray,
    new_done: np.ndarray,
    previous: np.ndarray,
    following: np.ndarray,
    oldest: np.ndarray,
    expiring: np.ndarray,
    is_first: np.ndarray,
    done: np.ndarray,
    history: int,
    act_buf_len: int,
    reset: bool,
) -> int:
    """Links new rows one after the other; returns how many rows became valid."""
    capacity = len(previous)
    gained = 0
    for index in range(len(new_is_first)):
        slot = row % capacity
        previous[slot] = before
        following[slot] = _NONE
        expiring[slot] = 0
        is_first[slot] = new_is_first[index]
        done[slot] = new_done[index]
        oldest[slot] = _oldest_needed(row, lowest, previous, is_first, history, act_buf_len, reset)
        if before >= lowest and before >= 0 and not new_is_first[index]:
            following[before % capacity] = row
            needed = oldest[before % capacity]
            if needed >= lowest:
                expiring[needed % capacity] += 1
                gained += 1
        before = row
        row += 1
    return gained


@compiled
def _keep_valid(candidates: np.ndarray, lowest: int, following: np.ndarray, oldest: np.ndarray, out: np.ndarray) -> int:
    """Copies candidates that have a successor and a whole history."""
    kept = 0
    for row in candidates:
        slot = row % len(following)
        if following[slot] >= 0 and oldest[slot] >= lowest:
            out[kept] = row
            kept += 1
    return kept


@compiled
def _frame_window(row: int, out: np.ndarray, previous: np.ndarray, is_first: np.ndarray) -> None:
    """Slots of the newest frames at ``row``, newest last; the first frame of the episode is repeated."""
    for column in range(len(out) - 1, -1, -1):
        slot = row % len(previous)
        out[column] = slot
        if column and not is_first[slot]:
            row = previous[slot]


@compiled
def _action_window(row: int, out: np.ndarray, previous: np.ndarray, is_first: np.ndarray, reset: bool) -> None:
    """Slots of the action buffer at ``row``, newest last."""
    for column in range(len(out) - 1, -1, -1):
        slot = row % len(previous)
        out[column] = slot
        if column == 0:
            break  # what lies further back may have been evicted
        if not is_first[slot]:
            row = previous[slot]
        elif not reset:
            before = _action_before(row, 0, previous, is_first)[0]
            row = before if before >= 0 else row


@compiled
def _observe(
    rows: np.ndarray,
    previous: np.ndarray,
    is_first: np.ndarray,
    reset: bool,
    frame_slots: np.ndarray,
    action_slots: np.ndarray,
) -> None:
    """Writes the windows of the observations at ``rows``."""
    for index in range(len(rows)):
        _frame_window(rows[index], frame_slots[index], previous, is_first)
        _action_window(rows[index], action_slots[index], previous, is_first, reset)


@compiled
def _locate(
    rows: np.ndarray,
    n_step: int,
    gamma: float,
    rewards: np.ndarray,
    terminations: np.ndarray,
    previous: np.ndarray,
    following: np.ndarray,
    is_first: np.ndarray,
    history: int,
    act_buf_len: int,
    reset: bool,
    frame_slots: np.ndarray,
    action_slots: np.ndarray,
    step_slots: np.ndarray,
    end_rows: np.ndarray,
    reward: np.ndarray,
    discount: np.ndarray,
    terminated: np.ndarray,
) -> None:
    """Walks up to n_step rows ahead, sums the rewards and writes the windows of both observations."""
    capacity = len(previous)
    for b in range(len(rows)):
        end = rows[b]
        total = 0.0
        factor = 1.0
        for _ in range(n_step):
            if following[end % capacity] < 0:
                break
            end = following[end % capacity]
            total += factor * rewards[end % capacity]
            factor *= gamma
        end_rows[b] = end
        reward[b] = total
        discount[b] = factor
        terminated[b] = terminations[end % capacity]
        step_slots[b] = following[rows[b] % capacity] % capacity
        if n_step == 1:  # one window, one row longer, holds both
            _frame_window(end, frame_slots[b], previous, is_first)
            _action_window(end, action_slots[b], previous, is_first, reset)
        else:
            _frame_window(rows[b], frame_slots[b, :history], previous, is_first)
            _frame_window(end, frame_slots[b, history:], previous, is_first)
            _action_window(rows[b], action_slots[b, :act_buf_len], previous, is_first, reset)
            _action_window(end, action_slots[b, act_buf_len:], previous, is_first, reset)
