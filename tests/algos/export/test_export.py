"""Exported policies act as torch's do, whatever trained them, and drive without torch."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from algos.acting.policy import build_policy
from algos.export.agreement import ExportedPolicy, simulated
from algos.export.description import description
from algos.export.graph import actor_of, onnx_bytes
from algos.faces.ppo import ppo_policy
from algos.faces.runner_params import runner_params
from algos.run import zoo
from algos.run.checkpoint import load_checkpoint
from tasks import registry
from tasks.config import ClockKind, GameKind, TaskConfig
from tests.test_config_files import run_config
from tests.test_strangers_files import untrained
from tests.test_train_checkpoint import refused

ROOT = Path(train.__file__).resolve().parent
NETWORK = "train.params.network."
SMALL = f"{NETWORK}hidden=[8,8]"


def drawn_policy(*words: str) -> tuple[Any, Any]:
    """A policy with drawn weights and statistics, and what it observes."""
    config = run_config(*words, "max_env_steps=1000")
    spec = registry.observation_spec(config.task.name, config.task)
    params = runner_params(config, spec, Path("runs/none"))
    record = params["config"]["env_config"]["policy"] or ppo_policy(params, spec)
    policy = build_policy(record, 0)
    network = policy.deterministic_actor()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=generator) * 0.2
            tensor.copy_(drawn.abs() + 0.5 if "var" in name else drawn)
    if hasattr(policy, "weights"):  # until then the warm-up policy acts
        policy.load_weights(policy.weights(), 1)
    return policy, spec


QUICK = (
    ("TM20Lidar", "TM20LidarCrossQ", SMALL),
    ("TM20Lidar", "TM20LidarPPO", SMALL),
    ("TM20Full", "TM20FullRSAC", SMALL, "task.img_grayscale=false", "task.privileged=true"),
    ("TM20Full", "TM20FullPPO", SMALL),
    ("TM20LidarProgress", "TM20LidarProgressSAC", SMALL, f"{NETWORK}observation_normalization=running"),
)
SLOW = (
    *(("TM20Lidar", f"TM20Lidar{name}", SMALL) for name in ("SAC", "TQC", "REDQ", "DroQ", "RSAC")),
    *(("TM20Full", f"TM20Full{name}", SMALL) for name in ("SAC", "CrossQ")),
    ("TM20Full", "TM20FullSAC", SMALL, f"{NETWORK}encoder=tmrl_cnn"),
    ("RCDrone", "RCDroneSAC", SMALL, f"{NETWORK}actor=simba"),
    ("Gym", "GymTQC", SMALL),
)


@pytest.mark.parametrize(
    "words",
    [*QUICK, *(pytest.param(words, marks=pytest.mark.slow) for words in SLOW)],
    ids=lambda words: "-".join(word.rpartition("=")[2] for word in words[1:] if word != SMALL),
)
def test_onnxruntime_chooses_the_actions_of_torch(words: tuple[str, ...]) -> None:
    policy, spec = drawn_policy(f"task={words[0]}", f"train={words[1]}", *words[2:])
    actor = actor_of(policy, "any", spec)
    exported = ExportedPolicy(onnx_bytes(actor, spec), actor.memory_size)
    rng = np.random.default_rng(0)
    actions = []
    for step in range(4):
        if step == 2:
            policy.begin_episode()
            exported.begin_episode()
        seen = {f.name: (rng.random(f.shape) * 2.0 * f.scale).astype(f.dtype) for f in spec.all_fields()}
        actions.append(policy.act(seen, deterministic=True))
        np.testing.assert_allclose(exported.act(seen), actions[-1], atol=2e-5)
    assert np.ptp(actions) > 1e-3  # they depend on what is seen
    assert actor.memory_size == (64 if words[1].endswith("RSAC") else 0)


def test_a_file_says_what_it_needs_and_drives_many_at_once_without_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    path = tmp_path / "policies" / "lidar.onnx"
    words = ["--export", "onnx", "--checkpoint", "zoo:TM20Lidar", "task.track=short"]
    assert train.main([*words, f"export.to={path}", "export.steps=20"]) == 0
    answer = capsys.readouterr().out
    assert f"written to {path}" in answer
    assert "on 20 steps of TM20Lidar onnxruntime and torch differ by at most" in answer
    session = onnxruntime.InferenceSession(path)
    about = session.get_modelmeta().custom_metadata_map
    fields = {entry["name"]: entry for entry in json.loads(about["inputs"])}
    assert [(name, entry["shape"], entry["unit"]) for name, entry in fields.items()] == [
        ("speed", [1], "m/s"),
        ("lidar", [4, 19], "px"),
        ("action_0", [3], ""),
        ("action_1", [3], ""),
    ]
    (action,) = json.loads(about["outputs"])
    assert (action["low"], action["high"], len(action["meaning"])) == (-1.0, 1.0, 3)
    assert (about["task"], about["time_step_s"], about["algorithm"]) == ("TM20Lidar", "0.05", "remote_dagger")
    assert about["track"] == json.loads(about["task_config"])["track"] == "short"
    assert {"torch", "onnx"} <= json.loads(about["versions"]).keys()
    many = {name: np.ones((5, *entry["shape"]), np.float32) for name, entry in fields.items()}
    assert session.run(None, many)[0].shape == (5, 3)
    example = ROOT / "docs" / "examples" / "drive_onnx.py"
    code = f"import sys, runpy; sys.modules['torch'] = None; runpy.run_path({str(example)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'finished': 1.0" in done.stdout


def test_every_field_of_a_driving_task_has_a_unit() -> None:
    for name in registry.names():
        config = registry.default_config(name)
        if isinstance(config, TaskConfig):
            missing = [field.name for field in registry.observation_spec(name, config).fields if not field.unit]
            assert not missing, name
            assert len(registry.action_meaning(name)) == 3


def test_a_unit_is_no_part_of_what_a_checkpoint_must_fit() -> None:
    stored = load_checkpoint(zoo.entry_file("TM20Lidar"))
    config = registry.default_config("TM20Lidar")
    spec = registry.observation_spec("TM20Lidar", config)
    assert "unit" not in spec.to_json()["fields"][0]
    assert json.loads(description(stored, config, spec, 7)["inputs"])[-1]["shape"] == [7]
    assert simulated(TaskConfig(game=GameKind.live)) == TaskConfig(game=GameKind.sim, clock=ClockKind.virtual)


def test_what_cannot_be_exported_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = importlib.util.find_spec
    assert "--export takes onnx, got tflite" in refused(capsys, "--export", "tflite")
    assert "--export needs --checkpoint FILE" in refused(capsys, "--export", "onnx")
    path = str(untrained(monkeypatch, tmp_path / "best.pth", "SAC"))
    words = ("--export", "onnx", "--checkpoint", path)
    assert "is not written: on 200 steps onnxruntime's actions differ" in with_another_actor(
        monkeypatch, capsys, *words
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    assert 'needs the package onnxruntime: pip install -e ".[onnx]"' in refused(capsys, *words)
    assert not (tmp_path / "best.onnx").exists()


def with_another_actor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command says when the file acts otherwise."""
    with monkeypatch.context() as patch:
        patch.setattr(ExportedPolicy, "act", lambda self, observation: np.full(1, np.nan, np.float32))
        return refused(capsys, *words)
