"""Sequences against environments that keep their own rows: every row, state and return, and how often each is drawn."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algos.replay.sequences import SequenceBatch, SequenceMemory
from algos.replay.storage import ReplayStorage
from tasks.experience.samples import Segment
from tests.algos.replay.replay_reference import Row, Run, make_spec, n_step

GAMMA = 0.9
STATE_SIZE = 2


def next_segment(run: Run, longest: int, checksums: bool = False) -> Segment:
    """A segment whose states are made of the numbers of its rows, so that a test knows whose state it sees."""
    segment = run.next_segment(longest, checksums)
    numbers = segment.frames["row"][:, 0]
    return replace(segment, states=np.stack([numbers, -numbers], axis=1))


def feed(memory: SequenceMemory, run: Run, num_segments: int, longest: int = 9) -> None:
    for _ in range(num_segments):
        segment = next_segment(run, longest)
        assert memory.append(segment)
        run.arrive(segment)


def assert_observation(batch: dict[str, torch.Tensor], row: Row, sequence: int, column: int) -> None:
    for name, expected in row.observation.items():
        np.testing.assert_array_equal(batch[name][sequence, column].numpy(), expected, err_msg=name)


def episode_of(run: Run, row_id: int) -> tuple[list[Row], int]:
    """All arrived rows of the episode of a row, and where it is among them."""
    env, index = run.by_id[row_id]
    first = index
    while not env.rows[first].is_first:
        first -= 1
    end = index + 1
    while end < len(env.rows) and not env.rows[end].is_first:
        end += 1
    return env.rows[first:end], index - first


def assert_sequences_are_what_the_environments_saw(batch: SequenceBatch, run: Run, memory: SequenceMemory) -> None:
    lowest = run.num_rows - memory.capacity
    width = memory.sequence_length + memory.n_step
    rows, next_rows = batch.rows.numpy(), batch.next_rows.numpy()
    k = 0
    for b in range(len(batch.state)):
        episode, start = episode_of(run, int(batch.window["row"][b, 0, 0]))
        count = int(batch.burn_in_rows[b])
        can_be_before = [row.number >= lowest and episode_oldest(run, row) >= lowest for row in episode[:start]]
        missing = max((i for i, is_there in enumerate(can_be_before) if not is_there), default=-1)
        assert count == min(memory.burn_in, start - missing - 1), "the burn-in is as long as it can be"
        for column in range(count):
            assert_observation(batch.burn_in, episode[start - count + column], b, column)
        number = episode[start - count].observation["row"][0]
        np.testing.assert_array_equal(batch.state[b].numpy(), [number, -number])
        num_transitions = 0
        while k < len(rows) and rows[k] // width == b:
            column = rows[k] % width
            assert column == num_transitions
            assert_observation(batch.window, episode[start + column], b, column)
            end, total, discount = n_step(episode, start + column, memory.n_step, GAMMA)
            assert next_rows[k] == b * width + column + end - start - column
            assert_observation(batch.window, episode[end], b, next_rows[k] % width)
            np.testing.assert_array_equal(batch.action[k].numpy(), episode[start + column + 1].action)
            assert batch.reward[k].item() == pytest.approx(total, abs=1e-6)
            assert batch.discount[k].item() == pytest.approx(discount, abs=1e-6)
            assert batch.terminated[k].item() == float(episode[end].terminated)
            num_transitions += 1
            k += 1
        left = len(episode) - 1 - start
        longest = min(memory.sequence_length, left)
        assert num_transitions == longest or (start == 0 and 1 <= num_transitions < longest)
    assert k == len(rows)


def episode_oldest(run: Run, row: Row) -> int:
    """Number of the oldest row that an observation is made of."""
    env, _ = run.by_id[int(row.observation["row"][0])]
    return env.rows[row.needed].number


@settings(max_examples=100, deadline=None)
@given(
    history=st.integers(1, 4),
    act_buf_len=st.integers(0, 3),
    reset_act_buf=st.booleans(),
    n=st.integers(1, 3),
    burn_in=st.integers(0, 5),
    sequence_length=st.integers(1, 6),
    capacity=st.integers(12, 150),
    num_streams=st.integers(1, 4),
    longest_episode=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_sequences_are_exactly_what_the_environments_saw(
    history: int,
    act_buf_len: int,
    reset_act_buf: bool,
    n: int,
    burn_in: int,
    sequence_length: int,
    capacity: int,
    num_streams: int,
    longest_episode: int,
    seed: int,
) -> None:
    run = Run(make_spec(history, 1, act_buf_len, reset_act_buf), num_streams, seed, longest_episode)
    memory = SequenceMemory(run.spec, capacity, n, GAMMA, seed, STATE_SIZE, burn_in, sequence_length)
    for _ in range(12):
        feed(memory, run, 2)
        if memory.num_transitions:
            assert_sequences_are_what_the_environments_saw(memory.sample(5), run, memory)


@pytest.mark.parametrize("sequence_length", [1, 5])
def test_every_transition_is_learned_from_equally_often(sequence_length: int) -> None:
    run = Run(make_spec(1, 1, 1), 2, seed=3, longest_episode=15)
    memory = SequenceMemory(run.spec, 1000, 1, GAMMA, 0, STATE_SIZE, 3, sequence_length)
    feed(memory, run, 40)
    valid = run.valid_rows(1000)
    assert len(valid) == memory.num_transitions
    counts = dict.fromkeys(valid, 0)
    for _ in range(400):
        batch = memory.sample(50)
        for row_id in batch.window["row"].flatten(0, 1)[batch.rows, 0].tolist():
            counts[int(row_id)] += 1
    values = np.array(list(counts.values()), float)
    expected = values.mean()
    # Draws of one row are independent between sequences: 6 standard deviations of a Poisson number.
    assert np.abs(values - expected).max() < 6 * np.sqrt(expected)


def test_sequences_end_where_a_segment_is_missing() -> None:
    run = Run(make_spec(1, 1, 0), 1, seed=0, longest_episode=60)
    memory = SequenceMemory(run.spec, 1000, 1, GAMMA, 0, STATE_SIZE, 8, 8)
    segments = [next_segment(run, 9) for _ in range(12)]
    lost = 6
    for index, segment in enumerate(segments):
        if index != lost:
            memory.append(segment)
    before = {int(number) for segment in segments[:lost] for number in segment.frames["row"][:, 0]}
    batch = memory.sample(200)
    for b in range(200):
        read = {int(number) for number in batch.window["row"][b, :, 0]}
        read |= {int(number) for number in batch.burn_in["row"][b, : int(batch.burn_in_rows[b]), 0]}
        assert read <= before or not read & before


def test_rows_without_states_have_states_of_zeros() -> None:
    run = Run(make_spec(1, 1, 0), 1, seed=0)
    memory = SequenceMemory(run.spec, 200, 1, GAMMA, 0, STATE_SIZE, 2, 4)
    for _ in range(80):
        memory.append(next_segment(run, 9))  # the ring was full of others before
    for _ in range(80):
        memory.append(run.next_segment(9))
    assert not memory.sample(50).state.any()


def test_states_of_another_width_become_zeros_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(make_spec(1, 1, 0), 1, seed=0)
    memory = SequenceMemory(run.spec, 200, 1, GAMMA, 0, STATE_SIZE + 1, 2, 4)
    with caplog.at_level(logging.WARNING):
        feed(memory, run, 5)
    assert not memory.sample(50).state.any()
    assert len(caplog.records) == 1
    assert "w0" in caplog.text


def test_checksums_of_the_workers_are_compared() -> None:
    run = Run(make_spec(2, 1, 1), 1, seed=0)
    memory = SequenceMemory(run.spec, 200, 1, GAMMA, 0, STATE_SIZE, 2, 4, check_samples=True)
    segments = [next_segment(run, 9, checksums=True) for _ in range(6)]
    for segment in segments:
        memory.append(segment)
    memory.sample(20)
    broken = next_segment(run, 9, checksums=True)
    assert broken.checksums is not None
    for segment in (replace(broken, checksums=broken.checksums + 1), *[next_segment(run, 9) for _ in range(3)]):
        memory.append(segment)
    with pytest.raises(ValueError, match="check_samples"):
        memory.sample(200)


def test_equal_seeds_draw_equal_sequences_and_the_state_goes_on() -> None:
    run = Run(make_spec(1, 1, 1), 1, seed=0)
    memories = [SequenceMemory(run.spec, 500, 1, GAMMA, seed, STATE_SIZE, 2, 4) for seed in (7, 7, 8)]
    for _ in range(20):
        segment = next_segment(run, 9)
        for memory in memories:
            memory.append(segment)
    first, again, other = (memory.sample(16) for memory in memories)
    assert first.rows.tolist() == again.rows.tolist()
    assert first.window["row"].tolist() == again.window["row"].tolist()
    assert first.window["row"].tolist() != other.window["row"].tolist()
    memories[2].load_rng_state(memories[0].rng_state())
    assert memories[0].sample(16).window["row"].tolist() == memories[2].sample(16).window["row"].tolist()


def test_states_come_back_from_the_stored_replay(tmp_path: Path) -> None:
    run = Run(make_spec(1, 1, 1), 2, seed=0)
    memories = [SequenceMemory(run.spec, 500, 1, GAMMA, 0, STATE_SIZE, 2, 4) for _ in range(2)]
    with ReplayStorage(tmp_path, run.spec, 500) as storage:
        for index in range(20):
            segment = next_segment(run, 9) if index % 3 else run.next_segment(9)
            memories[0].append(segment)
            storage.append(segment)
    ReplayStorage(tmp_path, run.spec, 500).load(memories[1])
    kept, restored = (memory.sample(64) for memory in memories)
    assert kept.state.any()
    assert kept.state.tolist() == restored.state.tolist()


def test_sampling_from_an_empty_memory_raises() -> None:
    memory = SequenceMemory(make_spec(1, 1, 1), 50, 1, GAMMA, 0, STATE_SIZE, 2, 4)
    with pytest.raises(ValueError, match="append more segments first"):
        memory.sample(4)
