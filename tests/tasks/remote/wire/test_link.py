"""Messages: they survive the way to bytes and back, and nothing but a LinkError comes of bad bytes."""

from __future__ import annotations

import json
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from tasks.acting.rollout import Rollout
from tasks.experience.evaluation_report import EpisodeResult, EvaluationReport
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment
from tasks.remote.wire import link
from tests.tasks.remote.fakes import CountingEnv, RandomPolicy

pytestmark = pytest.mark.timeout(120)

SPEC: ObservationSpec = CountingEnv().observation_spec


def make_segment(rows: int = 12, check_samples: bool = True) -> Segment:
    segment = Rollout(CountingEnv(length=5), RandomPolicy(), "worker-0.a.1", 2, 0, check_samples).run(rows)
    return replace(segment, seq=7, weights_version=3)


def make_report() -> EvaluationReport:
    trajectory = np.arange(12, dtype=np.float32).reshape(3, 4)
    episodes = (
        EpisodeResult(4, True, 31.25, 100.5, 1.0, 3, 2.0, 20.0, 31.0, trajectory),
        EpisodeResult(5, False, None, 1.5, 0.25, 0, trajectory=trajectory[:0]),
    )
    return EvaluationReport(episodes, 9, np.full((2, 4, 6, 3), 7, np.uint8), 10.0)


def make_reply() -> link.LockStepReply:
    flags = np.array([True, False])
    observation = {"obs": np.arange(6, dtype=np.float32).reshape(2, 3)}
    return link.LockStepReply(5, False, observation, np.ones(2, np.float32), flags, ~flags, ({"a": 1.0},), (1,))


MESSAGES: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "hello": (
        link.encode_hello(link.Hello("w", 0, "worker", "f", {"python": "3"})),
        link.decode_hello,
    ),
    "hello_reply": (link.encode_hello_reply(link.HelloReply(5)), link.decode_hello_reply),
    "acknowledgement": (link.encode_acknowledgement(link.Acknowledgement(5, 3)), link.decode_acknowledgement),
    "segment": (link.encode_segment(make_segment()), lambda m: link.decode_segment(m, SPEC)),
    "compressed segment": (
        link.encode_segment(make_segment(), compress=True),
        lambda m: link.decode_segment(m, SPEC),
    ),
    "weights": (link.encode_weights({"w": np.ones((3, 4), np.float32)}, 2), link.decode_weights),
    "evaluation_request": (
        link.encode_evaluation_request(
            link.EvaluationRequest(1, link.Weights({"w": np.ones(3, np.float32)}, 2), (1, 2), False)
        ),
        link.decode_evaluation_request,
    ),
    "evaluation_report": (link.encode_evaluation_report(make_report(), 1), link.decode_evaluation_report),
    "lock_step_command": (
        link.encode_lock_step_command(link.LockStepCommand(1, np.ones((2, 3), np.float32))),
        link.decode_lock_step_command,
    ),
    "lock_step_reply": (link.encode_lock_step_reply(make_reply()), link.decode_lock_step_reply),
}


def build(header: dict[str, Any], body: bytes = b"", schema: int = link.SCHEMA_VERSION) -> bytes:
    """A message written by hand."""
    text = json.dumps(header).encode()
    return b"TMLK" + struct.pack("<IQ", schema, len(text)) + text + body


def metadata(kind: str = "weights", data: str = '{"version": 1}', compressed: str = "{}") -> dict[str, Any]:
    return {"__metadata__": {"kind": kind, "data": data, "compressed": compressed}}


@pytest.mark.parametrize("flag", ["terminated", "truncated"])
def test_rows_that_cannot_follow_one_another_are_refused(flag: str) -> None:
    segment = make_segment()
    none = np.zeros(len(segment), np.bool_)
    plain = replace(segment, terminated=none, truncated=none, is_first=none)
    ends: dict[str, Any] = {flag: np.arange(len(segment)) == 1}
    goes_on = replace(plain, **ends)
    with pytest.raises(link.LinkError, match="a row after the end of an episode must be a first row"):
        link.decode_segment(link.encode_segment(goes_on), SPEC)
    with pytest.raises(link.LinkError, match="a first row cannot end its episode"):
        link.decode_segment(link.encode_segment(replace(plain, is_first=~none, **ends)), SPEC)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("check_samples", [False, True])
def test_a_segment_survives(compress: bool, check_samples: bool) -> None:
    segment = make_segment(check_samples=check_samples)
    got, dropped = link.decode_segment(link.encode_segment(segment, 11, compress), SPEC)
    assert dropped == 11
    assert (got.worker, got.stream, got.seq, got.weights_version) == ("worker-0.a.1", 2, 7, 3)
    for name in ("action", "reward", "terminated", "truncated", "is_first"):
        expected = getattr(segment, name)
        np.testing.assert_array_equal(getattr(got, name), expected)
        assert getattr(got, name).dtype == expected.dtype
    assert set(got.frames) == set(segment.frames)
    for name, frames in segment.frames.items():
        np.testing.assert_array_equal(got.frames[name], frames)
        assert got.frames[name].dtype == frames.dtype
    if check_samples:
        np.testing.assert_array_equal(got.checksums, segment.checksums)
    else:
        assert got.checksums is None
    assert len(got.episodes) == len(segment.episodes) == 2
    for a, b in zip(got.episodes, segment.episodes, strict=True):
        np.testing.assert_equal(dict(a), dict(b))  # equal NaN, the lap that was not finished


def test_compression_makes_pictures_smaller() -> None:
    segment = make_segment(200)
    assert len(link.encode_segment(segment, compress=True)) < len(link.encode_segment(segment)) / 2


def test_the_reference_library_reads_a_message() -> None:
    arrays = {
        "b": np.array([True, False]),
        "half": np.zeros((0, 3), np.float32),
        "d": np.arange(3.0),
        "i": np.array([[1, 2]], np.uint8),
        "scalar": np.array(2.5, np.float32),
    }
    # What follows the link's own eight bytes is a safetensors file.
    read = safetensors.numpy.load(link.pack("weights", {"version": 1}, arrays)[8:])
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].shape == array.shape
        assert read[name].dtype == array.dtype


def test_weights_survive_and_are_writable_and_aligned() -> None:
    arrays: dict[str, np.ndarray] = {"a": np.arange(5, dtype=np.uint8)}
    arrays |= {"b": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)}
    message = link.encode_weights(arrays, 12)
    arrays_before = {name: array.copy() for name, array in arrays.items()}
    arrays["b"][:] = 0
    weights = link.decode_weights(message)
    assert weights.version == 12
    for name, array in arrays_before.items():
        np.testing.assert_array_equal(weights.arrays[name], array)
        assert weights.arrays[name].flags.writeable
        assert weights.arrays[name].flags.aligned


def test_a_report_survives() -> None:
    report, number = link.decode_evaluation_report(link.encode_evaluation_report(make_report(), 3))
    assert number == 3
    assert report.to_json() == make_report().to_json()
    np.testing.assert_array_equal(report.episodes[0].trajectory, make_report().episodes[0].trajectory)
    np.testing.assert_array_equal(report.clip, make_report().clip)  # type: ignore[arg-type]


def test_lock_step_messages_survive() -> None:
    command = link.decode_lock_step_command(MESSAGES["lock_step_command"][0])
    np.testing.assert_array_equal(command.actions, np.ones((2, 3)))  # type: ignore[arg-type]
    reset = link.decode_lock_step_command(link.encode_lock_step_command(link.LockStepCommand(4, None)))
    assert reset == link.LockStepCommand(4, None)
    reply = link.decode_lock_step_reply(MESSAGES["lock_step_reply"][0])
    np.testing.assert_array_equal(reply.observation["obs"], make_reply().observation["obs"])
    assert (reply.episodes, reply.episode_indices) == (({"a": 1.0},), (1,))
    np.testing.assert_array_equal(reply.truncated, [False, True])


def test_a_message_of_another_kind_or_version_is_refused_by_name() -> None:
    with pytest.raises(link.LinkError, match="expected a message of kind 'weights', got 'hello'"):
        link.decode_weights(MESSAGES["hello"][0])
    with pytest.raises(link.LinkError, match="schema version 2, this side speaks 1"):
        link.decode_weights(build(metadata(), schema=2))


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return pytest.fail, ("a pickle was executed",)


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (b"", "only 0 bytes"),
        (b"\x00" * 16, "not a message of this link"),
        (pickle.dumps(Bomb()), "not a message"),
        (b"TMLK" + struct.pack("<IQ", 1, 2**63), "header of"),
        (build({}), "without metadata"),
        (build(metadata() | {"w": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}, b"x" * 8), "dtype 'O'"),
        (build(metadata() | {"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"x" * 4), "shape"),
        (build(metadata() | {"w": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"x" * 4), "shape"),
        (build(metadata() | {"w": {"dtype": "F32", "shape": [2**30], "data_offsets": [0, 2**32]}}), "shape"),
        (
            build(metadata() | {"w": {"dtype": "F32", "shape": [0] + [2**27] * 7, "data_offsets": [0, 0]}}),
            "array of",
        ),
        (build(metadata() | {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"x" * 8), "cut off"),
        (build(metadata() | {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"x" * 8), "at"),
        (build(metadata() | {"w": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}, b"\x02"), "truth"),
        (build(metadata() | {"w": [1]}), "malformed"),
        (build(metadata(), b"more"), "4 bytes too many"),
        (build(metadata(data="[" * 100_000)), "not JSON"),
        (build(metadata(data='{"version": -1}')), "version must be an integer"),
        (build(metadata(data='{"version": 1e999}')), "version must be an integer"),
        (build(metadata(data='{"version": ' + "9" * 4000 + "}")), "version must be an integer"),
    ],
)
def test_bad_messages_are_refused(message: bytes, match: str) -> None:
    with pytest.raises(link.LinkError, match=match):
        link.decode_weights(message)


def test_a_compression_bomb_is_refused_before_it_expands() -> None:
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(b"\0" * (400 << 20))
    assert len(bomb) < 100_000
    for shape in ([400 << 20], [1000]):
        compressed = json.dumps({"w": {"dtype": "U8", "shape": shape}})
        entry = {"w": {"dtype": "U8", "shape": [len(bomb)], "data_offsets": [0, len(bomb)]}}
        tracemalloc.start()
        with pytest.raises(link.LinkError):
            link.decode_weights(build(metadata(compressed=compressed) | entry, bomb))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 << 20


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"reward": np.array([np.nan] * 12, np.float32)}, "finite"),
        ({"reward": np.zeros(12, np.float64)}, "'reward' must be float32"),
        ({"action": np.zeros((12, 2), np.float32)}, r"'action' must be float32 of shape \(12, 3\)"),
        ({"is_first": np.zeros(11, np.bool_)}, "'is_first'"),
        ({"seq": 0}, "sequence number"),
        ({"worker": "w" * 1000}, "worker must be a text of at most 256"),
        ({"frames": {}}, "'frames/count' is missing"),
    ],
)
def test_a_segment_that_does_not_fit_is_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(link.LinkError, match=match):
        link.decode_segment(link.encode_segment(replace(make_segment(), **change)), SPEC)


def test_a_dtype_outside_the_list_is_not_even_sent() -> None:
    with pytest.raises(link.LinkError, match="dtype object"):
        link.encode_weights({"w": np.array([None])}, 1)


@pytest.mark.parametrize("name", MESSAGES)
def test_random_damage_raises_nothing_but_link_errors(name: str) -> None:
    message, decode = MESSAGES[name]
    decode(message)
    rng = np.random.default_rng(0)
    for _ in range(1500):
        damaged = _damage(message, rng)
        try:
            decode(damaged)
        except link.LinkError:
            continue


def _damage(message: bytes, rng: np.random.Generator) -> bytes:
    """Changed bytes, a cut, a repeated or removed part, another digit in the header, or noise."""
    damaged = bytearray(message)
    how = rng.integers(6)
    if how == 0:
        for _ in range(int(rng.integers(1, 8))):
            damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
    elif how == 1:
        del damaged[int(rng.integers(len(damaged))) :]
    elif how == 2:
        start, end = sorted(rng.integers(len(damaged), size=2).tolist())
        del damaged[start:end]
    elif how == 3:
        start, end = sorted(rng.integers(len(damaged), size=2).tolist())
        damaged[start:start] = damaged[start:end]
    elif how == 4:
        places = [i for i, byte in enumerate(damaged[:2000]) if byte in b'0123456789{}[]":,-']
        for place in rng.choice(places or [0], size=int(rng.integers(1, 4))):
            damaged[int(place)] = int(rng.choice(list(b'0123456789{}[]":,-eE.')))
    else:
        return rng.bytes(int(rng.integers(200)))
    return bytes(damaged)


# --- remote workers ---


@pytest.mark.parametrize("ping", [link.Ping(12.5, 3), link.Ping(0.0, 0), link.Ping(12.5, 3, 34_000)])
def test_a_ping_survives(ping: link.Ping) -> None:
    assert link.decode_ping(link.encode_ping(ping)) == ping
    unknown = link.decode_ping(link.encode_ping(link.Ping(float("nan"), 0)))
    assert np.isnan(unknown.round_trip_ms)


def test_a_worker_that_says_nothing_of_hanging_does_not_hang() -> None:
    message = link.pack("ping", {"dropped": 0}, {"round_trip_ms": np.array(1.0, np.float64)})
    assert link.decode_ping(message).hangs_for_ms == 0
    with pytest.raises(link.LinkError, match="hangs_for_ms"):
        link.decode_ping(link.encode_ping(link.Ping(1.0, 0, -1)))


@pytest.mark.parametrize("value", [-1.0, float("inf"), -float("inf"), 1e300])
def test_a_ping_with_an_impossible_time_is_refused(value: float) -> None:
    with pytest.raises(link.LinkError, match="round trip of"):
        link.decode_ping(link.encode_ping(link.Ping(value, 0)))


def test_statistics_may_be_unknown_but_not_infinite() -> None:
    segment = make_segment()
    unknown = replace(segment, episodes=({"lap_time_s": float("nan")},))
    assert np.isnan(link.decode_segment(link.encode_segment(unknown), SPEC).segment.episodes[0]["lap_time_s"])
    with pytest.raises(link.LinkError, match="must not be infinite"):
        link.decode_segment(link.encode_segment(replace(segment, episodes=({"return": float("inf")},))), SPEC)


def test_frames_that_are_no_numbers_are_refused() -> None:
    segment = make_segment()
    name = next(name for name, frames in segment.frames.items() if frames.dtype == np.float32)
    for value in (np.nan, np.inf):
        frames = np.array(segment.frames[name])
        frames[-1] = value
        message = link.encode_segment(replace(segment, frames={**segment.frames, name: frames}))
        with pytest.raises(link.LinkError, match="frames must be finite"):
            link.decode_segment(message, SPEC)


def test_a_mismatch_names_the_part_that_differs() -> None:
    ours = link.joint_fingerprint("task A", "network A")
    explain = link.explain_mismatch
    assert "another task than the learner: fingerprint 'task B', expected 'task A'" in explain("task B", ours)
    assert "another task" in explain(link.joint_fingerprint("task B", "network B"), ours)
    assert "another network than the learner: fingerprint 'network B', expected 'network A'" in explain(
        link.joint_fingerprint("task A", "network B"), ours
    )
