"""Rebuilt observations, returns and validity against environments that stack their observations themselves."""

from __future__ import annotations

import io
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algos.replay.columns import NUM_BUFFERS
from algos.replay.memory import Batch, ReplayMemory
from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.samples import Segment
from tasks.registry import observation_spec
from tests.algos.replay.replay_reference import DEFAULT_ACTION, Run, make_spec, n_step

GAMMA = 0.9


def drawn_ids(batch: Batch) -> list[int]:
    return [int(value) for value in batch.observation["row"][:, 0]]


def assert_batch_is_what_the_environments_saw(batch: Batch, run: Run, n: int) -> None:
    for b, row_id in enumerate(drawn_ids(batch)):
        env, index = run.by_id[row_id]
        end, total, discount = n_step(env.rows, index, n, GAMMA)
        assert list(batch.observation) == list(run.spec.names)
        for rebuilt, row in ((batch.observation, env.rows[index]), (batch.next_observation, env.rows[end])):
            for name, expected in row.observation.items():
                actual = rebuilt[name][b].numpy()
                assert actual.dtype == expected.dtype
                np.testing.assert_array_equal(actual, expected, err_msg=f"{name} of row {row_id}")
        np.testing.assert_array_equal(batch.action[b], env.rows[index + 1].action)
        assert batch.reward[b].item() == pytest.approx(total, abs=1e-6)
        assert batch.discount[b].item() == pytest.approx(discount, abs=1e-6)
        assert batch.terminated[b].item() == float(env.rows[end].terminated)


def feed(memory: ReplayMemory, run: Run, num_segments: int, longest: int = 9, checksums: bool = False) -> None:
    for _ in range(num_segments):
        segment = run.next_segment(longest, checksums)
        assert memory.append(segment)
        run.arrive(segment)


@settings(max_examples=150, deadline=None)
@given(
    image_history=st.integers(1, 5),
    lidar_history=st.integers(1, 5),
    act_buf_len=st.integers(0, 5),
    n=st.integers(1, 4),
    capacity=st.integers(8, 150),
    num_streams=st.integers(1, 4),
    num_segments=st.integers(1, 40),
    longest_episode=st.integers(1, 14),
    reset_act_buf=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_samples_are_exactly_what_the_environments_stacked(
    image_history: int,
    lidar_history: int,
    act_buf_len: int,
    n: int,
    capacity: int,
    num_streams: int,
    num_segments: int,
    longest_episode: int,
    reset_act_buf: bool,
    seed: int,
) -> None:
    spec = make_spec(image_history, lidar_history, act_buf_len, reset_act_buf)
    run = Run(spec, num_streams, seed, longest_episode)
    memory = ReplayMemory(spec, capacity, n, GAMMA, seed)
    for _ in range(num_segments):
        feed(memory, run, 1)
        valid = run.valid_rows(capacity)
        assert memory.num_transitions == len(valid)
        assert len(memory) == min(run.num_rows, capacity)
        assert memory.total_rows == run.num_rows
    if not valid:
        with pytest.raises(ValueError, match="no transition"):
            memory.sample(4)
        return
    batch = memory.sample(64)
    assert set(drawn_ids(batch)) <= valid
    assert_batch_is_what_the_environments_saw(batch, run, n)


@settings(max_examples=60, deadline=None)
@given(
    history=st.integers(1, 5),
    act_buf_len=st.integers(0, 4),
    reset_act_buf=st.booleans(),
    loss=st.floats(0.05, 0.5),
    seed=st.integers(0, 1000),
)
def test_no_history_and_no_return_reaches_over_lost_segments(
    history: int, act_buf_len: int, reset_act_buf: bool, loss: float, seed: int
) -> None:
    spec = make_spec(history, 2, act_buf_len, reset_act_buf)
    run = Run(spec, 3, seed)
    memory = ReplayMemory(spec, 120, 3, GAMMA, seed)
    for _ in range(60):
        segment = run.next_segment(9)
        if run.rng.random() >= loss:
            memory.append(segment)
            run.arrive(segment)
    if memory.num_transitions:
        batch = memory.sample(64)
        for b, row_id in enumerate(drawn_ids(batch)):
            env, index = run.by_id[row_id]
            for name, expected in env.rows[index].observation.items():
                np.testing.assert_array_equal(batch.observation[name][b].numpy(), expected)
            k = round(np.log(batch.discount[b].item()) / np.log(GAMMA))
            end, total, _ = n_step(env.rows, index, k, GAMMA)
            assert end == index + k
            assert batch.reward[b].item() == pytest.approx(total, abs=1e-6)
            np.testing.assert_array_equal(
                batch.next_observation["images"][b].numpy(), env.rows[end].observation["images"]
            )


def test_every_valid_row_is_drawn_equally_often() -> None:
    run = Run(make_spec(3, 2, 2), 3, seed=5)
    memory = ReplayMemory(run.spec, 60, 1, GAMMA, seed=1)
    feed(memory, run, 30)
    valid = run.valid_rows(60)
    counts = dict.fromkeys(valid, 0)
    draws = 400 * len(valid)
    for row_id in drawn_ids(memory.sample(draws)):
        counts[row_id] += 1
    expected = draws / len(valid)
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    degrees = len(valid) - 1
    assert chi2 < degrees + 5 * np.sqrt(2 * degrees)


def test_rare_valid_rows_are_found_and_drawn_equally_often() -> None:
    spec = make_spec(1, 1, 1)
    memory = ReplayMemory(spec, 64, 1, GAMMA, seed=0)
    row_id = 0
    for seq in range(1, 33):  # 30 lone first rows, then two episodes of one step: 2 valid rows of 34
        length = 2 if seq > 30 else 1
        memory.append(hand_made_segment(spec, seq, [float(row_id + i) for i in range(length)], first=True))
        row_id += length
    assert memory.num_transitions == 2
    ids = drawn_ids(memory.sample(4000))
    assert set(ids) == {30, 32}
    assert abs(ids.count(30) - 2000) < 5 * np.sqrt(1000)


def hand_made_segment(
    spec: ObservationSpec, seq: int, ids: list[float], *, first: bool, terminated: bool = False, truncated: bool = False
) -> Segment:
    n = len(ids)
    rows = np.array(ids, np.float32)
    ends = np.arange(n) == n - 1
    return Segment(
        worker="w",
        stream=0,
        seq=seq,
        frames={
            "row": rows[:, None],
            "lidar": np.repeat(rows[:, None], 3, axis=1),
            "images": np.broadcast_to(rows.astype(np.uint8)[:, None, None], (n, 2, 4)),
        },
        action=np.repeat(rows[:, None] / 100, 2, axis=1),
        reward=rows,
        terminated=ends & terminated,
        truncated=ends & truncated,
        is_first=(np.arange(n) == 0) & first,
    )


def test_a_truncated_episode_bootstraps_from_its_true_last_observation() -> None:
    spec = make_spec(2, 2, 2)
    memory = ReplayMemory(spec, 16, 3, 0.5, seed=0)
    memory.append(hand_made_segment(spec, 1, [10, 11, 12], first=True, truncated=True))
    memory.append(hand_made_segment(spec, 2, [20, 21], first=True, terminated=True))
    batch = memory.sample(300)
    by_start = {row_id: b for b, row_id in enumerate(drawn_ids(batch))}
    assert set(by_start) == {10, 11, 20}
    b = by_start[10]  # r = 11 + 0.5 * 12, two steps to the truncated end
    assert batch.reward[b] == 17.0
    assert batch.discount[b] == 0.25
    assert batch.terminated[b] == 0.0
    assert batch.next_observation["images"][b, :, 0, 0].tolist() == [11, 12]
    assert batch.observation["images"][b, :, 0, 0].tolist() == [10, 10]
    assert batch.action[b].tolist() == pytest.approx([0.11, 0.11])
    assert batch.next_observation["action_0"][b].tolist() == pytest.approx([0.11, 0.11])
    b = by_start[20]
    assert (batch.reward[b], batch.discount[b], batch.terminated[b]) == (21.0, 0.5, 1.0)


def test_an_action_buffer_that_survives_resets_skips_the_action_that_never_acted() -> None:
    spec = make_spec(1, 1, 3, reset_act_buf=False)
    memory = ReplayMemory(spec, 16, 1, GAMMA, seed=0)
    memory.append(hand_made_segment(spec, 1, [10, 11, 12], first=True, terminated=True))
    memory.append(hand_made_segment(spec, 2, [20, 21], first=True))
    batch = memory.sample(200)
    b = drawn_ids(batch).index(20)
    actions = [round(batch.observation[f"action_{i}"][b, 0].item() * 100) for i in range(3)]
    assert actions == [10, 11, 20]


def test_a_recreated_environment_starts_without_a_history() -> None:
    spec = make_spec(1, 1, 3, reset_act_buf=False)
    memory = ReplayMemory(spec, 16, 2, GAMMA, seed=0)
    memory.append(hand_made_segment(spec, 1, [10, 11], first=True))  # the worker dies here
    memory.append(hand_made_segment(spec, 2, [20, 21], first=True))
    batch = memory.sample(200)
    ids = drawn_ids(batch)
    assert set(ids) == {10, 20}
    assert round(batch.observation["action_0"][ids.index(20), 0].item() * 100) == 20
    assert batch.discount[ids.index(10)] == pytest.approx(GAMMA)


def test_rows_that_follow_the_end_of_an_episode_without_a_reset_are_not_joined_to_it() -> None:
    spec = make_spec(2, 1, 1)
    memory = ReplayMemory(spec, 16, 2, GAMMA, seed=0)
    memory.append(hand_made_segment(spec, 1, [10, 11], first=True, terminated=True))
    memory.append(hand_made_segment(spec, 2, [20, 21, 22], first=False))
    assert set(drawn_ids(memory.sample(200))) == {10, 21}  # 20 has no history, 11 no successor


def test_the_newest_row_gets_longer_returns_once_its_successors_arrive() -> None:
    spec = make_spec(1, 1, 1)
    memory = ReplayMemory(spec, 16, 3, 0.5, seed=0)
    memory.append(hand_made_segment(spec, 1, [1, 2], first=True))
    assert memory.sample(1).discount.item() == 0.5
    memory.append(hand_made_segment(spec, 2, [3, 4], first=False))
    batch = memory.sample(100)
    b = drawn_ids(batch).index(1)
    assert batch.discount[b] == 0.125
    assert batch.reward[b] == 2 + 0.5 * 3 + 0.25 * 4


def test_a_segment_longer_than_the_ring_leaves_its_newest_rows() -> None:
    spec = make_spec(2, 1, 1)
    memory = ReplayMemory(spec, 8, 1, GAMMA, seed=0)
    memory.append(hand_made_segment(spec, 1, [float(i) for i in range(30)], first=True))
    assert len(memory) == 8
    assert set(drawn_ids(memory.sample(500))) == set(range(23, 29))  # 22 lacks its history, 29 its successor


def test_a_segment_that_was_appended_before_is_ignored() -> None:
    run = Run(make_spec(2, 2, 2), 1, seed=3)
    memory = ReplayMemory(run.spec, 100, 1, GAMMA, seed=0)
    segments = [run.next_segment(9) for _ in range(4)]
    assert [memory.append(segment) for segment in [*segments, segments[1]]] == [True] * 4 + [False]
    assert memory.total_rows == sum(map(len, segments))
    assert memory.received == {"w0": 4}


def test_segments_without_sequence_numbers_are_appended() -> None:
    run = Run(make_spec(3, 2, 2), 1, seed=3)
    memory = ReplayMemory(run.spec, 400, 1, GAMMA, seed=0)
    for _ in range(20):
        segment = run.next_segment(9)
        assert memory.append(replace(segment, seq=0))
        run.arrive(segment)
    assert memory.num_transitions == len(run.valid_rows(400))


def test_batches_stay_intact_for_the_promised_number_of_calls() -> None:
    run = Run(make_spec(3, 2, 2), 2, seed=4)
    memory = ReplayMemory(run.spec, 400, 1, GAMMA, seed=0)
    feed(memory, run, 30)
    first = memory.sample(16)
    copy = {name: value.clone() for name, value in first.observation.items()}
    for _ in range(NUM_BUFFERS - 1):
        first.observation["images"] = memory.sample(16).observation["images"]  # the dict is the caller's own
    first = first._replace(observation={name: value for name, value in first.observation.items() if name != "images"})
    for name, value in first.observation.items():
        assert torch.equal(value, copy[name])
    assert not torch.equal(memory.sample(16).observation["lidar"], copy["lidar"])


def test_the_generator_continues_from_a_stored_state() -> None:
    run = Run(make_spec(3, 2, 2), 2, seed=4)
    memory = ReplayMemory(run.spec, 400, 1, GAMMA, seed=0)
    feed(memory, run, 30)
    file = io.BytesIO()
    torch.save(memory.rng_state(), file)
    expected = drawn_ids(memory.sample(32))
    assert drawn_ids(memory.sample(32)) != expected
    file.seek(0)
    memory.load_rng_state(torch.load(file, weights_only=True))
    assert drawn_ids(memory.sample(32)) == expected


def test_seeds_decide_what_is_drawn() -> None:
    ids = []
    for seed in (0, 0, 1):
        run = Run(make_spec(1, 1, 1), 2, seed=4)
        memory = ReplayMemory(run.spec, 400, 1, GAMMA, seed)
        feed(memory, run, 30)
        ids.append(drawn_ids(memory.sample(32)))
    assert ids[0] == ids[1] != ids[2]


def test_check_samples_accepts_what_the_worker_saw() -> None:
    run = Run(make_spec(3, 2, 2), 2, seed=6)
    memory = ReplayMemory(run.spec, 100, 2, GAMMA, seed=0, check_samples=True)
    feed(memory, run, 40, checksums=True)
    for _ in range(5):
        assert_batch_is_what_the_environments_saw(memory.sample(64), run, 2)


def test_check_samples_names_the_row_that_differs() -> None:
    run = Run(make_spec(3, 2, 2), 1, seed=6)
    memory = ReplayMemory(run.spec, 100, 1, GAMMA, seed=0, check_samples=True)
    segment = run.next_segment(9, checksums=True)
    assert segment.checksums is not None
    wrong = segment.checksums.copy()
    wrong[1] += 1
    memory.append(replace(segment, checksums=wrong))
    with pytest.raises(ValueError, match=r"row 1 \(worker and stream: \('w0', 0\)\).*images"):
        memory.sample(256)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": np.zeros(2, np.float64)}, "reward must be float32"),
        ({"action": np.zeros((2, 5), np.float32)}, r"action must be float32 \(2, 2\)"),
        ({"frames": {}}, "no field 'row'"),
        ({"is_first": np.array([True, False]), "truncated": np.array([True, False])}, "first row"),
        ({"terminated": np.array([True, False]), "is_first": np.zeros(2, bool)}, "must be a first row"),
    ],
)
def test_a_segment_that_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    spec = make_spec(2, 1, 1)
    memory = ReplayMemory(spec, 16, 1, GAMMA, seed=0)
    segment = hand_made_segment(spec, 1, [1, 2], first=True)
    with pytest.raises(ValueError, match=message):
        memory.append(replace(segment, **change))  # type: ignore[arg-type]
    assert len(memory) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 3}, "memory_size"),
        ({"n_step": 0}, "n_step"),
        ({"gamma": 1.5}, "gamma"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, float], message: str) -> None:
    defaults = {"capacity": 16, "n_step": 1, "gamma": 0.9, "seed": 0}
    with pytest.raises(ValueError, match=message):
        ReplayMemory(make_spec(2, 1, 1), **{**defaults, **arguments})  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident size as Linux reports it")
def test_a_large_memory_touches_no_pages_before_use() -> None:
    resource = pytest.importorskip("resource")
    images = Field("images", (4, 64, 64), "uint8", 0, 255, history=4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = ReplayMemory(ObservationSpec((images,)), 1_000_000, 1, GAMMA, seed=0)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(memory) == 0
    assert after - before < 100_000  # KiB; the images alone are 4 GB


def test_the_default_action_reaches_the_action_buffer() -> None:
    run = Run(make_spec(1, 1, 3), 1, seed=0)
    memory = ReplayMemory(run.spec, 100, 1, GAMMA, seed=0)
    feed(memory, run, 5)
    first_ids = [row_id for row_id, (env, i) in run.by_id.items() if env.rows[i].is_first]
    batch = memory.sample(400)
    b = next(b for b, row_id in enumerate(drawn_ids(batch)) if row_id in first_ids)
    for i in range(3):
        assert batch.observation[f"action_{i}"][b].tolist() == DEFAULT_ACTION.tolist()


def test_a_stored_row_of_tm20full_takes_little_more_than_its_picture() -> None:
    """Everything that grows with the capacity, per row: at most 1.05 times the 64 x 64 bytes of the newest picture."""
    spec, capacity = observation_spec("TM20Full"), 20_000
    tracemalloc.start()
    memory = ReplayMemory(spec, capacity, n_step=3, gamma=GAMMA, seed=0)
    num_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(memory) == 0
    assert 64 * 64 < num_bytes / capacity <= 1.05 * 64 * 64
