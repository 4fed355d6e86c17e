"""Observation fields by name, as a vector, and as plain data."""

from __future__ import annotations

import json
import pickle
import zlib
from dataclasses import replace

import numpy as np
import pytest

from tasks.experience.observation import Field, ObservationSpec

SPEC = ObservationSpec(
    (
        Field("speed", (1,), high=1000.0, scale=50.0),
        Field("images", (2, 1, 3), "uint8", 0.0, 255.0, history=2, scale=255.0, offset=102.0),
    ),
    action_size=2,
    act_buf_len=2,
)


def example() -> tuple[np.ndarray, ...]:
    images = np.array([[[0, 51, 102]], [[153, 204, 255]]], np.uint8)
    return np.array([25.0], np.float32), images, np.array([-1.0, 0.5], np.float32), np.array([0.0, 1.0], np.float32)


def test_names_follow_the_tuple() -> None:
    assert SPEC.names == ("speed", "images", "action_0", "action_1")
    by_name = SPEC.to_dict(example())
    assert by_name["images"].shape == (2, 1, 3)
    assert all(one is other for one, other in zip(SPEC.to_tuple(by_name), by_name.values(), strict=True))


def test_a_wrong_number_of_entries_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        SPEC.to_dict(example()[:3])


def test_the_flat_vector_is_scaled_in_field_order() -> None:
    flat = SPEC.flatten(example())
    assert flat.dtype == np.float32
    np.testing.assert_allclose(flat, [0.5, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, -1.0, 0.5, 0.0, 1.0], atol=1e-6)
    np.testing.assert_array_equal(flat, SPEC.to_flat(SPEC.to_dict(example())))
    assert SPEC.flat_space().contains(flat)
    assert SPEC.flat_space().high[0] == 20.0


def test_spaces_contain_what_they_describe() -> None:
    assert SPEC.tuple_space().contains(example())
    assert SPEC.dict_space().contains(SPEC.to_dict(example()))
    assert SPEC.dict_space()["images"].dtype == np.uint8


def test_the_newest_part_leaves_out_history_and_actions() -> None:
    newest = SPEC.newest(SPEC.to_dict(example()))
    assert list(newest) == ["speed", "images"]
    assert newest["images"].tolist() == [[153, 204, 255]]
    assert [field.frame_shape for field in SPEC.fields] == [(1,), (1, 3)]
    assert SPEC.history == 2


def test_the_checksum_is_over_all_fields_in_order() -> None:
    speed, images, *actions = example()
    expected = zlib.crc32(speed.tobytes() + images.tobytes() + actions[0].tobytes() + actions[1].tobytes())
    assert SPEC.checksum(SPEC.to_dict(example())) == expected


def test_a_specification_survives_json_and_pickling() -> None:
    SPEC.flatten(example())
    loaded = ObservationSpec.from_json(json.loads(json.dumps(SPEC.to_json())))
    assert loaded == SPEC == pickle.loads(pickle.dumps(SPEC))
    assert loaded.fingerprint() == SPEC.fingerprint()
    assert replace(SPEC, act_buf_len=1).fingerprint() != SPEC.fingerprint()
    assert replace(SPEC, act_buf_len=1).names == ("speed", "images", "action_0")
