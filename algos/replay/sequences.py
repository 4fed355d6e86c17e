"""Sequence memory: a replay memory that draws runs of rows of one episode, with what the policy remembered before them.

Owns what ``ReplayMemory`` owns and one column more. Called by the learner in place of it, for
``algos.algorithms.rsac``. Paper: Kapturowski et al., "Recurrent Experience Replay in Distributed Reinforcement
Learning" (R2D2), section 3: stored state and burn-in.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import torch

from algos.replay.kernels import compiled
from algos.replay.memory import ReplayMemory
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment

LOGGER = logging.getLogger(__name__)


class SequenceBatch(NamedTuple):
    """B sequences of one episode each, and the K transitions in them that are learned from; the caller's tensors.

    Observations and actions are on the device that the memory has its rows on, the others on the CPU.
    A sequence is a burn-in of up to P rows and a window of C = sequence_length + n_step rows that follows it. Both
    are filled up with copies of a row of the sequence, which nothing reads.
    """

    burn_in: dict[str, torch.Tensor]
    """Observations of the burn-in, oldest first, shape (B, P, *field shape); P may be 0."""
    window: dict[str, torch.Tensor]
    """Observations of the window, shape (B, C, *field shape)."""
    state: torch.Tensor
    """What the acting policy remembered before the first row of the sequence, shape (B, S)."""
    burn_in_rows: torch.Tensor
    """Rows of each burn-in, fewer than P where the episode or what is stored of it begins, int64, shape (B,)."""
    rows: torch.Tensor
    """Where o_t of each transition is, counted through all windows: sequence x C + row; int64, shape (K,)."""
    next_rows: torch.Tensor
    """Where o_{t+k} is, in the same count, int64, shape (K,)."""
    action: torch.Tensor
    """Action passed to the step that followed o_t, shape (K, A)."""
    reward: torch.Tensor
    """sum_{j<k} gamma^j r_{t+1+j}, shape (K,)."""
    discount: torch.Tensor
    """gamma^k, shape (K,); k = n_step, or less where the episode or the stream's stored rows end."""
    terminated: torch.Tensor
    """1.0 where the k-th step ended the episode for good: no bootstrap there. (K,) float32."""


class SequenceMemory(ReplayMemory):
    """A ring of rows and uniform sampling of sequences.

    Every transition that ``ReplayMemory`` can draw is learned from with the same probability: a sequence may begin at
    any of their rows, and, reaching over the start of an episode and cut there, up to sequence_length - 1 rows before
    it. Only where the beginning of an episode has left the ring are its first rows drawn less often.

    Args:
        spec: Fields of the observation.
        capacity: Number of rows kept.
        n_step: Number of rewards summed per transition.
        gamma: Discount per step.
        seed: Of the generator that draws.
        state_size: Numbers that the policy remembers; rows that come without them (drawn before the first weights,
            driven by a person) count as remembering zeros.
        burn_in: Rows before the first transition that only bring the state up to date.
        sequence_length: Transitions of a sequence.
        check_samples: Whether rebuilt observations are compared with the checksums that segments carry.
        device: Where the rows are, but for what the policy remembered; None: in host memory.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        capacity: int,
        n_step: int,
        gamma: float,
        seed: int,
        state_size: int,
        burn_in: int,
        sequence_length: int,
        check_samples: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(spec, capacity, n_step, gamma, seed, check_samples, device)
        self.state_size = state_size
        self.burn_in = burn_in
        self.sequence_length = sequence_length
        self._states = np.zeros((capacity, state_size), np.float32)
        self._has_warned = False

    def sample(self, batch_size: int) -> SequenceBatch:  # type: ignore[override]
        """Draws sequences with replacement.

        Args:
            batch_size: Number of sequences, B.

        Raises:
            ValueError: Nothing can be drawn yet.
        """
        self._require_transitions(batch_size)
        starts, lengths = self._draw_sequences(batch_size)
        return self._gather_sequences(starts, lengths)

    def _write(self, slot: int, segment: Segment, part: slice) -> None:
        super()._write(slot, segment, part)
        states = segment.states
        if states is not None and states.shape[1:] != (self.state_size,):
            states = None
            if not self._has_warned:  # the greeting of a worker tells its network, so this is no honest one
                self._has_warned = True
                LOGGER.warning(
                    "worker %s sends states of another size than this network's: zeros replace them", segment.worker
                )
        self._states[slot : slot + part.stop - part.start] = 0.0 if states is None else states[part]

    def _draw_sequences(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """First row and number of transitions of each sequence, (B,) each.

        The windows of sequence_length rows over an episode of N valid rows begin at rows -(sequence_length - 1) to
        N - 1; each is equally likely, so that each row is in as many as any other. Those that begin before the
        episode are cut at its first row.
        """
        starts, lengths = np.empty(batch_size, np.int64), np.empty(batch_size, np.int64)
        filled = 0
        while filled < batch_size:
            rows = self._draw(batch_size * self.sequence_length)
            before = self._rng.integers(0, self.sequence_length, len(rows))
            is_drawn = (before == 0) | self._links.is_first[rows % self.capacity]
            kept = np.flatnonzero(is_drawn)[: batch_size - filled]
            starts[filled : filled + len(kept)] = rows[kept]
            lengths[filled : filled + len(kept)] = self.sequence_length - before[kept]
            filled += len(kept)
        return starts, lengths

    def _gather_sequences(self, starts: np.ndarray, lengths: np.ndarray) -> SequenceBatch:
        """Rebuilds the sequences whose first transitions start at ``starts``, (B,), and have ``lengths``, (B,)."""
        place = _Places(len(starts), self.burn_in, self.sequence_length, self.n_step)
        links, columns = self._links, self._columns
        _walk(
            starts, lengths, self.n_step, self.gamma, self._lowest_row, columns.reward, columns.terminated,
            links.previous, links.next, links.oldest, links.is_first,
            place.burn_in, place.burn_in_rows, place.window,
            place.is_transition, place.next_rows, place.reward, place.discount, place.terminated,
        )  # fmt: skip
        window = self._observations(place.window)
        # o_t of the transitions in order; the last n_step rows of a window are successors only
        sequences, offsets = np.nonzero(place.is_transition)
        first = place.burn_in[:, 0] if self.burn_in else starts
        followed = links.next[place.window[sequences, offsets] % self.capacity]
        return SequenceBatch(
            burn_in=self._observations(place.burn_in),
            window=window,
            state=torch.from_numpy(self._states[first % self.capacity]),
            burn_in_rows=torch.from_numpy(place.burn_in_rows),
            rows=torch.from_numpy(sequences * place.window.shape[1] + offsets),
            next_rows=torch.from_numpy(place.next_rows[sequences, offsets]),
            action=columns.actions_at(followed % self.capacity),
            reward=torch.from_numpy(place.reward[sequences, offsets]),
            discount=torch.from_numpy(place.discount[sequences, offsets]),
            terminated=torch.from_numpy(place.terminated[sequences, offsets]),
        )

    def _observations(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Every field of the observations at ``rows``, (B, R), shape (B, R, *field shape)."""
        spec, columns = self.spec, self._columns
        frame_slots = np.empty((rows.size, spec.history), np.int64)
        action_slots = np.empty((rows.size, spec.act_buf_len), np.int64)
        self._links.observe(rows.ravel(), frame_slots, action_slots)
        fields: dict[str, torch.Tensor] = {}
        for field in spec.fields:
            slots = frame_slots[:, -field.history :] if field.history else frame_slots[:, -1]
            values = columns.frames_at(field.name, slots)  # (B * R, *field shape)
            fields[field.name] = values.view(*rows.shape, *field.shape)
        for index, name in enumerate(spec.action_names):
            values = columns.actions_at(action_slots[:, index])
            fields[name] = values.view(*rows.shape, spec.action_size)
        for row, column in ((rows[:, index], index) for index in range(rows.shape[1])):
            self._verify(row, {name: values[:, column] for name, values in fields.items()})
        return fields


class _Places:
    """Where the rows of a batch of sequences are, and what their transitions earn."""

    def __init__(self, batch_size: int, burn_in: int, sequence_length: int, n_step: int) -> None:
        self.burn_in = np.empty((batch_size, burn_in), np.int64)
        self.burn_in_rows = np.empty(batch_size, np.int64)
        self.window = np.empty((batch_size, sequence_length + n_step), np.int64)
        self.is_transition = np.zeros((batch_size, sequence_length), np.bool_)
        self.next_rows = np.zeros((batch_size, sequence_length), np.int64)
        self.reward = np.zeros((batch_size, sequence_length), np.float32)
        self.discount = np.zeros((batch_size, sequence_length), np.float32)
        self.terminated = np.zeros((batch_size, sequence_length), np.float32)


@compiled
def _walk(
    starts: np.ndarray,
    lengths: np.ndarray,
    n_step: int,
    gamma: float,
    lowest: int,
    rewards: np.ndarray,
    terminations: np.ndarray,
    previous: np.ndarray,
    following: np.ndarray,
    oldest: np.ndarray,
    is_first: np.ndarray,
    burn_in: np.ndarray,
    burn_in_rows: np.ndarray,
    window: np.ndarray,
    is_transition: np.ndarray,
    next_rows: np.ndarray,
    reward: np.ndarray,
    discount: np.ndarray,
    terminated: np.ndarray,
) -> None:
    """Finds the rows before and after each start, and sums the rewards of every transition among them."""
    capacity = len(previous)
    num_columns = window.shape[1]
    for b in range(len(starts)):
        count = 0
        row = starts[b]
        while count < burn_in.shape[1] and not is_first[row % capacity]:
            before = previous[row % capacity]
            if before < lowest or oldest[before % capacity] < lowest:
                break
            row = before
            count += 1
        burn_in_rows[b] = count
        for column in range(burn_in.shape[1]):
            burn_in[b, column] = row
            if column < count:
                row = following[row % capacity]
        last = 0  # the last column that has a row of its own
        row = starts[b]
        for column in range(num_columns):
            window[b, column] = row
            if column < num_columns - 1 and following[row % capacity] >= 0:
                row = following[row % capacity]
                last = column + 1
        for column in range(min(lengths[b], last)):
            total = 0.0
            factor = 1.0
            steps = min(n_step, last - column)
            for step in range(steps):
                total += factor * rewards[window[b, column + step + 1] % capacity]
                factor *= gamma
            is_transition[b, column] = True
            next_rows[b, column] = b * num_columns + column + steps
            reward[b, column] = total
            discount[b, column] = factor
            terminated[b, column] = terminations[window[b, column + steps] % capacity]
