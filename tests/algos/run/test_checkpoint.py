from __future__ import annotations

import random
import zipfile

import numpy as np
import pytest
import torch

from algos.run.checkpoint import (
    Checkpoint,
    CheckpointError,
    as_arrays,
    global_rng_state,
    load_checkpoint,
    load_global_rng_state,
    run_directory,
    save_checkpoint,
    snapshot,
)


def _checkpoint(**changes) -> Checkpoint:
    values = {
        "algorithm": "remote_sac",
        "task": "TM20Lidar",
        "config": {"seed": 0, "task": {"track": "short"}, "list": [1, 2.5, None, True]},
        "observation_spec": {"fields": []},
        "policy": {"function": "m:f", "kwargs": {}, "weights": {"w": np.arange(3, dtype=np.float32)}, "version": 2},
        "algorithm_state": {"layer": torch.ones(2, 2), "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}},
        "rng": global_rng_state(),
        "replay": {"rng": np.random.default_rng(3).bit_generator.state},
    }
    return Checkpoint(**(values | changes))


def test_everything_saved_is_loaded(tmp_path):
    path = save_checkpoint(tmp_path / "nn" / "last.pth", _checkpoint(best={"score": [0.5, -float("inf"), 0.2]}))
    loaded = load_checkpoint(path)
    assert loaded.config == {"seed": 0, "task": {"track": "short"}, "list": [1, 2.5, None, True]}
    np.testing.assert_array_equal(loaded.acting_weights()["w"], [0.0, 1.0, 2.0])
    assert loaded.algorithm_state["optimizer"]["state"][0]["step"] == 3.0
    assert loaded.best["score"] == [0.5, -float("inf"), 0.2]
    assert loaded.software["torch"] == str(torch.__version__)
    assert loaded.replay["rng"] == np.random.default_rng(3).bit_generator.state  # 128-bit integers included


def test_file_loads_with_weights_only(tmp_path):
    path = save_checkpoint(tmp_path / "last.pth", _checkpoint())
    assert torch.load(path, weights_only=True)["algorithm"] == "remote_sac"


def test_a_numpy_generator_continues_after_loading(tmp_path):
    generator = np.random.Generator(np.random.MT19937(5))
    generator.normal(size=3)
    path = save_checkpoint(tmp_path / "a.pth", _checkpoint(replay={"rng": generator.bit_generator.state}))
    other = np.random.Generator(np.random.MT19937(0))
    other.bit_generator.state = as_arrays(load_checkpoint(path).replay["rng"])
    np.testing.assert_array_equal(other.normal(size=4), generator.normal(size=4))


def test_global_generators_continue_after_loading(tmp_path):
    path = save_checkpoint(tmp_path / "a.pth", _checkpoint(rng=global_rng_state()))
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    load_global_rng_state(load_checkpoint(path).rng)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / "last.pth", _checkpoint(task="old"))

    def fail(content, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, _checkpoint(task="new"))
    assert load_checkpoint(path).task == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["last.pth"]


def test_missing_file_names_those_that_exist(tmp_path):
    save_checkpoint(tmp_path / "best.pth", _checkpoint())
    with pytest.raises(CheckpointError, match=r"lost\.pth does not exist.*best\.pth"):
        load_checkpoint(tmp_path / "lost.pth")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_cut_file_is_named(tmp_path, keep):
    path = save_checkpoint(tmp_path / "cut.pth", _checkpoint())
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(CheckpointError, match=r"cut\.pth \(\d+ bytes\) is damaged"):
        load_checkpoint(path)


def test_flipped_byte_is_noticed(tmp_path):
    path = save_checkpoint(tmp_path / "flip.pth", _checkpoint(algorithm_state={"w": torch.zeros(5000)}))
    with zipfile.ZipFile(path) as archive:
        info = max(archive.infolist(), key=lambda entry: entry.file_size)
    data = bytearray(path.read_bytes())
    data[info.header_offset + 2000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"flip\.pth"):
        load_checkpoint(path)


def test_foreign_checkpoint_is_refused(tmp_path):
    torch.save({"model": {"weight": torch.ones(1)}, "epoch": 3}, tmp_path / "rl_games.pth")
    with pytest.raises(CheckpointError, match=r"rl_games\.pth was not written by this program"):
        load_checkpoint(tmp_path / "rl_games.pth")


def test_pickled_code_is_refused(tmp_path):
    torch.save({"format": print}, tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match=r"code\.pth"):
        load_checkpoint(tmp_path / "code.pth")


def test_other_format_version_is_named(tmp_path):
    path = save_checkpoint(tmp_path / "new.pth", _checkpoint())
    content = torch.load(path, weights_only=True)
    torch.save({**content, "format_version": 99}, path)
    with pytest.raises(CheckpointError, match=r"new\.pth has format version 99, this program reads version 1"):
        load_checkpoint(path)


def test_missing_part_is_named(tmp_path):
    path = save_checkpoint(tmp_path / "part.pth", _checkpoint())
    content = torch.load(path, weights_only=True)
    del content["policy"]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="lacks policy"):
        load_checkpoint(path)


def test_later_updates_do_not_change_a_snapshot():
    weights, numbers = torch.zeros(2), np.zeros(2)
    copy = snapshot({"a": weights, "b": [numbers]})
    weights += 1
    numbers += 1
    assert copy["a"].tolist() == [0.0, 0.0]
    assert copy["b"][0].tolist() == [0.0, 0.0]


def test_a_snapshot_names_values_that_it_cannot_store():
    with pytest.raises(TypeError, match=r"checkpoint\.config\.list\[1\] must be plain data or a tensor, got set"):
        snapshot({"config": {"list": [1, {2}]}})


def test_bytes_and_empty_values_are_stored():
    assert snapshot(b"ab").tolist() == [97, 98]
    assert snapshot(b"").numel() == 0
    assert snapshot({"a": ()}) == {"a": []}


def test_run_directory_is_the_folder_above_nn(tmp_path):
    assert run_directory(tmp_path / "run" / "nn" / "best.pth") == tmp_path / "run"
    assert run_directory(tmp_path / "best.pth") is None
