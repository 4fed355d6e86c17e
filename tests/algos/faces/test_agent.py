from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rl_games.common.algo_observer import AlgoObserver, DefaultAlgoObserver, IsaacAlgoObserver

from algos.config import NetworkConfig
from algos.config.errors import UsageError
from algos.config.schema import CheckpointMode, typed_train
from algos.faces.agent import OffPolicyAgent
from algos.learning.threads import ThreadChoice
from algos.run.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from tasks.config import config_to_dict
from tasks.process.write_trouble import NotSavedError
from tests.algos.fakes import make_report
from tests.algos.runs import make_agent, make_params, make_runner, record_losses

pytestmark = pytest.mark.timeout(120)


def read_scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "summaries"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags["scalars"]}
    return scalars | {f"image:{tag}": [(0, 0.0)] for tag in tags["images"]}


class Recorder(AlgoObserver):
    """Records which hooks are called."""

    def __init__(self):
        super().__init__()
        self.calls: list[str] = []
        self.episodes: list[dict] = []

    def before_init(self, base_name, config, experiment_name):
        self.calls.append(f"before_init {base_name} {experiment_name}")

    def after_init(self, algo):
        self.calls.append("after_init")
        self.names = (algo.games_to_track, algo.ppo_device, algo.writer is not None, algo.num_agents)

    def process_infos(self, infos, done_indices):
        self.calls.append("process_infos")
        self.episodes.append(infos["episode"])
        assert done_indices.cpu().numpy().shape == (1, 1)

    def after_steps(self):
        self.calls.append("after_steps")

    def after_clear_stats(self):
        self.calls.append("after_clear_stats")

    def after_print_stats(self, frame, epoch_num, total_time):
        self.calls.append("after_print_stats")


def test_runner_trains_and_leaves_a_whole_run_folder(tmp_path):
    params = make_params(tmp_path, evaluation_interval=60, checkpoint_interval=50)
    observer = Recorder()
    runner = make_runner(params, observer)
    runner.run({"train": True, "play": False})
    run = tmp_path / "run"
    names = {path.name for path in (run / "nn").iterdir()}
    assert names == {"last.pth", "best.pth", "step_00000050.pth", "step_00000100.pth"}
    assert "seed: 0" in (run / "config.yaml").read_text()

    last = load_checkpoint(run / "nn" / "last.pth")
    assert last.counters["env_steps"] == 120
    assert last.counters["updates"] == 80  # ratio 1 after 40 steps
    assert last.config == config_to_dict(params["config"]["run"])
    assert typed_train(last.config["train"]).params.config == params["config"]["run"].train.params.config

    scalars = read_scalars(run)
    expected = ["rollout/return", "rollout/finish_rate", "rollout/progress", "rollout/episode_length"]
    expected += ["rollout/wall_contacts", "losses/critic", "losses/actor", "train/q_mean", "train/alpha"]
    expected += ["time/update_ratio", "time/updates_per_second", "time/env_steps_per_second", "time/sample"]
    expected += ["rollout/replay_size", "evaluation/return", "evaluation/finish_rate", "image:evaluation/clip"]
    assert [tag for tag in expected if tag not in scalars] == []
    assert scalars["time/update_ratio"][-1] == (120, 1.0)

    called = list(dict.fromkeys(call.split()[0] for call in observer.calls))
    assert called[:3] == ["before_init", "after_init", "after_clear_stats"]
    assert {"process_infos", "after_steps", "after_print_stats"} <= set(called)
    assert observer.calls[0] == "before_init run run"
    assert observer.names == (100, "cpu", True, 1)
    assert all(0 < episode["length"] <= 30 and "lap_time_s" in episode for episode in observer.episodes)


@pytest.mark.parametrize("observer", [DefaultAlgoObserver, IsaacAlgoObserver, AlgoObserver])
def test_observers_of_rl_games_work(tmp_path, observer):
    make_runner(make_params(tmp_path, max_env_steps=80), observer()).run({"train": True})
    scores = [tag for tag in read_scalars(tmp_path / "run") if tag in ("scores/mean", "Episode/return")]
    assert bool(scores) == (observer is not AlgoObserver)


def test_the_seed_determines_the_losses_and_zero_is_a_valid_seed(tmp_path):
    losses = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        params = make_params(tmp_path, name)
        params["seed"] = seed
        agent = make_agent(params)
        losses[name] = record_losses(agent)
        agent.train()
    assert losses["a"] == losses["b"]
    assert losses["a"] != losses["c"]


@pytest.mark.parametrize(("max_env_steps", "last"), [(160, 7), (45, 5)])
def test_profile_writes_a_trace_that_names_the_updates(tmp_path, monkeypatch, caplog, max_env_steps, last):
    """Updates 4 to 7, or as many as there are: five when training ends after 45 steps."""
    monkeypatch.setattr("algos.learning.profile.FIRST_UPDATE", 3)
    monkeypatch.setattr("algos.learning.profile.NUM_UPDATES", 4)
    caplog.set_level(logging.INFO)
    make_runner(make_params(tmp_path, max_env_steps=max_env_steps, profile=True)).run({"train": True})
    folder = tmp_path / "run" / "profile"
    names = [event.get("name") for event in json.loads((folder / "trace.json").read_text())["traceEvents"]]
    updates = names.count("update")
    assert updates == last - 3
    assert names.count("aten::_fused_adam_") >= updates
    assert "aten::baddbmm" in (folder / "operators.txt").read_text()
    said = f"profile of updates 4 to {last}: {folder / 'trace.json'} (open it at https://ui.perfetto.dev"
    assert said in caplog.text
    assert load_checkpoint(tmp_path / "run" / "nn" / "last.pth").counters["updates"] >= last


def test_profile_says_when_training_ends_before_the_trace_begins(tmp_path, caplog):
    make_runner(make_params(tmp_path, max_env_steps=45, profile=True)).run({"train": True})
    assert "profile=true wrote no trace: it begins after 50 updates, and training ended after 5" in caplog.text
    assert not (tmp_path / "run" / "profile").exists()


@pytest.mark.parametrize(
    ("cores", "keys", "is_compared"),
    [
        (4, {}, True),
        (2, {}, False),
        (4, {"num_workers": 3}, False),
        (4, {"torch_threads": 2}, False),
        (4, {"synchronous": True}, False),
    ],
)
def test_threads_are_compared_where_workers_leave_cores_and_nobody_said_how_many(
    tmp_path, monkeypatch, cores, keys, is_compared
):
    monkeypatch.setattr("algos.faces.agent.num_cores", lambda: cores)
    agent = make_agent(make_params(tmp_path, **({"synchronous": False} | keys)))
    try:
        assert isinstance(agent._learning, ThreadChoice) is is_compared
    finally:
        agent.close()


KILL_SCRIPT = """
import os, signal, sys, json
import torch
torch.set_num_threads(1)
from pathlib import Path
from tests.algos.runs import make_agent, make_params
agent = make_agent(make_params(Path(sys.argv[1]), "killed", **json.loads(sys.argv[2])))
original = agent.algorithm.update
def update(batch):
    if agent.algorithm.num_updates == 61:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(batch)
agent.algorithm.update = update
agent.train()
"""


def test_a_killed_synchronous_run_resumes_bit_for_bit(tmp_path):
    changes = {"max_env_steps": 160, "checkpoint_interval": 45, "synchronous_rows": 3, "memory_size": 80}
    torch.set_num_threads(1)
    whole = make_agent(make_params(tmp_path, "whole", **changes))
    expected = record_losses(whole)
    whole.train()

    command = [sys.executable, "-c", KILL_SCRIPT, str(tmp_path), json.dumps(changes)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    path = tmp_path / "killed" / "nn" / "last.pth"
    saved_updates = load_checkpoint(path).counters["updates"]
    assert 0 < saved_updates < 61

    resumed = make_agent(make_params(tmp_path, "killed", **changes))
    resumed.restore(str(path))
    losses = record_losses(resumed)
    resumed.train()
    assert losses[:50] == expected[saved_updates : saved_updates + 50]
    assert losses == expected[saved_updates:]


def test_a_stopped_synchronous_run_resumes_bit_for_bit(tmp_path):
    whole = make_agent(make_params(tmp_path, "whole"))
    expected = record_losses(whole)
    whole.train()

    first = make_agent(make_params(tmp_path, "stopped"))
    losses = record_losses(first)
    original = first.algorithm.update

    def update(batch):
        if len(losses) == 33:
            first.stop()
        return original(batch)

    first.algorithm.update = update
    first.train()
    second = make_agent(make_params(tmp_path, "stopped"))
    second.restore(str(tmp_path / "stopped" / "nn" / "last.pth"))
    more = record_losses(second)
    second.train()
    assert losses + more == expected


def test_best_contains_the_weights_that_were_evaluated(tmp_path):
    agent = make_agent(make_params(tmp_path))
    agent.on_evaluation_request()
    with torch.no_grad():
        for parameter in agent.algorithm.critic.parameters():
            parameter.add_(1.0)
    before = agent._candidate.algorithm_state["critic"]
    agent.on_evaluation(make_report(True, 20.0))
    stored = load_checkpoint(tmp_path / "run" / "nn" / "best.pth")
    for name, tensor in stored.algorithm_state["critic"].items():
        assert torch.equal(tensor, before[name])
        assert not torch.equal(tensor, agent.algorithm.critic.state_dict()[name])
    agent.close()


def test_best_is_replaced_by_a_better_score_only(tmp_path):
    agent = make_agent(make_params(tmp_path))
    path = tmp_path / "run" / "nn" / "best.pth"
    kept = []
    for report in (
        make_report(False, 0.0, progress=0.5),
        make_report(True, 30.0),
        make_report(True, 31.0),
        make_report(False, 0.0, progress=0.9),
        make_report(True, 29.0),
    ):
        agent.on_evaluation_request()
        agent.on_evaluation(report)
        kept.append(load_checkpoint(path).best["report"]["mean_lap_time_s"])
    assert kept == [None, 30.0, 30.0, 30.0, 29.0]
    agent.close()


def test_weights_mode_loads_the_networks_and_starts_a_new_run(tmp_path):
    make_runner(make_params(tmp_path, "old")).run({"train": True})
    path = tmp_path / "old" / "nn" / "last.pth"
    stored = load_checkpoint(path)
    only_acts = save_checkpoint(tmp_path / "policy.pth", replace(stored, algorithm_state={}))
    for file in (path, only_acts):
        agent = make_agent(make_params(tmp_path, "new", checkpoint_mode=CheckpointMode.weights))
        agent.restore(str(file))
        for name, array in agent.algorithm.acting_weights().items():
            np.testing.assert_array_equal(array, stored.acting_weights()[name])
        state = agent.algorithm.state_dict()
        for part in ("critic", "target_critic"):
            is_taken = all(torch.equal(state[part][name], old) for name, old in stored.algorithm_state[part].items())
            assert is_taken == (file == path), part
        assert (agent.frame, agent.epoch_num, len(agent.memory)) == (0, 0, 0)
        agent.close()
    agent = make_agent(make_params(tmp_path, "new", checkpoint_mode=CheckpointMode.weights))
    agent.restore(str(only_acts))
    agent.train()
    assert load_checkpoint(tmp_path / "new" / "nn" / "last.pth").counters["env_steps"] == 120


def test_replay_mode_loads_only_the_samples(tmp_path, monkeypatch):
    make_runner(make_params(tmp_path, "old")).run({"train": True})
    path = tmp_path / "old" / "nn" / "last.pth"
    params = make_params(tmp_path, "new", checkpoint_mode=CheckpointMode.replay, max_env_steps=50)
    agent = make_agent(params)
    fresh = agent.algorithm.acting_weights()
    agent.restore(str(path))
    assert all(np.array_equal(array, fresh[name]) for name, array in agent.algorithm.acting_weights().items())
    stored = len(load_rows(tmp_path / "old"))
    assert len(agent.memory) == stored
    acted = received(agent, monkeypatch)
    agent.train()
    assert agent.frame == 50
    assert agent.epoch_num == 50  # ratio 1 from the first step: 124 stored rows are more than the 40 of the warm-up
    assert len(agent.memory) == stored + len(acted)  # a row each, and none was taken for a repetition


def received(agent: OffPolicyAgent, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a synchronous run receives from its own acting, as it comes."""
    assert agent._inline_link is not None
    receive, acted = agent._inline_link.receive, list[Any]()

    def counted(*args: Any, **keys: Any) -> Any:
        acted.append(receive(*args, **keys))
        return acted[-1]

    monkeypatch.setattr(agent._inline_link, "receive", counted)
    return acted


def load_rows(run: Path) -> range:
    position = load_checkpoint(run / "nn" / "last.pth").replay["position"]
    return range(position["rows"])


def test_resume_in_another_folder_copies_the_replay(tmp_path):
    make_runner(make_params(tmp_path, "old")).run({"train": True})
    agent = make_agent(make_params(tmp_path, "new", max_env_steps=150))
    agent.restore(str(tmp_path / "old" / "nn" / "last.pth"))
    agent.train()
    assert agent.frame == 150
    assert len(load_rows(tmp_path / "new")) > len(load_rows(tmp_path / "old"))
    assert (tmp_path / "old" / "replay").is_dir()


def test_resume_without_a_stored_replay_collects_first(tmp_path):
    make_runner(make_params(tmp_path, "old", save_replay=False)).run({"train": True})
    assert not (tmp_path / "old" / "replay").exists()
    agent = make_agent(make_params(tmp_path, "old", save_replay=False, max_env_steps=200))
    agent.restore(str(tmp_path / "old" / "nn" / "last.pth"))
    agent.train()
    assert agent.epoch_num == 80 + 40  # 80 more steps, 40 of them before training continues


def test_training_continues_on_a_full_disk_and_reports_it_at_the_end(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    agent = make_agent(make_params(tmp_path, max_env_steps=60))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotSavedError, match=r"last\.pth \(No space left on device\); nothing of this training"):
        agent.train()
    assert agent.frame == 60
    assert agent.epoch_num > 0
    assert agent.storage.left_out > 60


def test_a_replay_that_does_not_fit_on_the_disk_is_refused(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    make_runner(make_params(tmp_path, "old")).run({"train": True})
    agent = make_agent(make_params(tmp_path, "new", max_env_steps=200))
    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(UsageError, match=r"replay cannot be copied to \S+: .*No space left on device; make room"):
        agent.restore(str(tmp_path / "old" / "nn" / "last.pth"))
    agent.close()
    assert not (tmp_path / "new" / "replay").exists()


def stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "run" / "replay").iterdir())


def test_a_synchronous_run_that_goes_on_in_another_task_is_told_which_key_changed(tmp_path, monkeypatch):
    """Before anything of the stored replay is removed."""
    agent = make_agent(make_params(tmp_path, checkpoint_interval=80))
    agent.train()
    path = str(tmp_path / "run" / "nn" / "step_00000080.pth")
    before = stored_bytes(tmp_path)
    monkeypatch.setattr("tests.algos.fakes.GOAL", 6.0)  # the way to it is observed
    params = make_params(tmp_path, max_env_steps=200)
    same_task = make_agent(params)
    with pytest.raises(CheckpointError, match=r"replaying .* has changed since .*; the file is damaged"):
        same_task.restore(path)
    same_task.close()
    params["config"]["run"].task["track"] = "long"
    other_task = make_agent(params)
    expected = r"step_00000080\.pth does not fit this run: .*; task\.track changed, but .* or take synchronous=false"
    with pytest.raises(CheckpointError, match=expected) as refusal:
        other_task.restore(path)
    assert "damaged" not in str(refusal.value)
    assert stored_bytes(tmp_path) == before
    other_task.close()
    params["config"]["run"].synchronous = False
    asynchronous = make_agent(params)
    asynchronous.restore(path)
    asynchronous.close()


def test_only_the_newest_checkpoint_keeps_its_rows(tmp_path, monkeypatch):
    agent = make_agent(make_params(tmp_path, max_env_steps=60))
    agent.train()
    kept = []
    original = agent.storage.position

    def position(keep=True):
        kept.append(keep)
        return original(keep)

    monkeypatch.setattr(agent.storage, "position", position)
    agent.save(tmp_path / "copy.pth")
    assert kept.count(True) == 0
    agent.on_checkpoint(is_periodic=False)
    assert kept.count(True) == 1


def test_a_missing_replay_is_reported_as_a_fault_of_the_checkpoint(tmp_path):
    make_runner(make_params(tmp_path, "old")).run({"train": True})
    shutil.rmtree(tmp_path / "old" / "replay")
    agent = make_agent(make_params(tmp_path, "old", max_env_steps=200))
    with pytest.raises(CheckpointError, match="take only the weights"):
        agent.restore(str(tmp_path / "old" / "nn" / "last.pth"))
    agent.close()


@pytest.mark.parametrize("mode", [CheckpointMode.resume, CheckpointMode.weights])
def test_networks_of_other_shapes_are_named_and_nothing_is_copied(tmp_path, mode):
    make_runner(make_params(tmp_path, "old")).run({"train": True})
    path = tmp_path / "old" / "nn" / "last.pth"
    params = make_params(tmp_path, "new", checkpoint_mode=mode)
    params["config"]["run"].train.params.network = NetworkConfig(hidden=[24, 24])
    agent = make_agent(params)
    what = {
        CheckpointMode.weights: r"weights do not fit this network: \S+ must have shape \(6, 24\), got \(6, 16\)",
        CheckpointMode.resume: r"size mismatch for \S+: ",
    }
    with pytest.raises(CheckpointError, match=rf"last\.pth does not fit the networks of this run: {what[mode]}"):
        agent.restore(str(path))
    assert not (tmp_path / "new" / "replay").exists()
    agent.close()


def test_of_a_failed_run_only_the_replay_can_be_used(tmp_path):
    make_runner(make_params(tmp_path, "old")).run({"train": True})
    path = tmp_path / "old" / "nn" / "last.pth"
    checkpoint = load_checkpoint(path)
    next(iter(checkpoint.policy["weights"].values())).fill_(math.nan)
    save_checkpoint(path, checkpoint)
    for mode in CheckpointMode:
        agent = make_agent(make_params(tmp_path, f"new_{mode.name}", checkpoint_mode=mode))
        refusal = pytest.raises(CheckpointError, match=r"last\.pth holds NaN in the weights \S+: training had failed")
        with contextlib.nullcontext() if mode is CheckpointMode.replay else refusal:
            agent.restore(str(path))
        agent.close()
    assert len(agent.memory) > 0


def test_counters_of_another_kind_are_a_fault_of_the_checkpoint(tmp_path):
    make_runner(make_params(tmp_path, "old")).run({"train": True})
    path = tmp_path / "old" / "nn" / "last.pth"
    checkpoint = load_checkpoint(path)
    checkpoint.counters["episodes"] = "os:abort"
    save_checkpoint(path, checkpoint)
    agent = make_agent(make_params(tmp_path, "old"))
    with pytest.raises(CheckpointError, match=r"last\.pth does not fit this run: .*the file is damaged"):
        agent.restore(str(path))
    agent.close()


def test_other_observation_or_algorithm_is_refused(tmp_path):
    agent = make_agent(make_params(tmp_path))
    path = tmp_path / "other.pth"
    checkpoint = agent.make_checkpoint()
    checkpoint.algorithm = "remote_ppo"
    save_checkpoint(path, checkpoint)
    with pytest.raises(CheckpointError, match="was trained by remote_ppo, this run uses remote_sac"):
        agent.restore(str(path))
    checkpoint.algorithm = "remote_sac"
    checkpoint.observation_spec["fields"] = checkpoint.observation_spec["fields"][:1]
    save_checkpoint(path, checkpoint)
    with pytest.raises(CheckpointError, match=r"other\.pth was trained on .speed .1. float32.*place"):
        agent.restore(str(path))
    agent.close()


def test_full_state_weights_round_trip(tmp_path):
    first = make_agent(make_params(tmp_path, "a"))
    first.train()
    second = make_agent(make_params(tmp_path, "b"))
    second.set_full_state_weights(first.get_full_state_weights())
    assert second.frame == 120
    for name, tensor in second.algorithm.critic.state_dict().items():
        assert torch.equal(tensor, first.algorithm.critic.state_dict()[name])
    second.set_weights(first.get_weights())
    assert second.get_param("gamma") == 0.99
    with pytest.raises(NotImplementedError):
        second.set_param("gamma", 0.5)
    second.close()


def test_asynchronous_run_learns_from_worker_processes(tmp_path):
    params = make_params(tmp_path, synchronous=False, evaluation_interval=150, max_env_steps=400)
    agent = make_agent(params)
    agent.train()
    run = tmp_path / "run"
    assert 400 <= agent.frame <= 400 + 8 * 4
    assert 1.0 * 0.95 <= agent.learner.pace.ratio <= 2.0 * 1.05
    assert (run / "nn" / "best.pth").is_file()
    scalars = read_scalars(run)
    assert [tag for tag in ("gateway/workers", "rollout/weights_age_updates") if tag not in scalars] == []
    assert agent.vec_env.process_ids() == {}


def test_evaluations_that_nobody_would_drive_are_refused(tmp_path):
    params = make_params(tmp_path, synchronous=False, evaluation_interval=150)
    params["config"]["env_config"]["evaluator"] = False
    with pytest.raises(ValueError, match="evaluator must be true with evaluation_interval > 0, got false"):
        make_agent(params)


def test_an_older_copy_resumes_with_its_own_steps_and_the_whole_replay(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    params = make_params(tmp_path, synchronous=False, max_env_steps=300, checkpoint_interval=100)
    make_agent(params).train()
    nn = tmp_path / "run" / "nn"
    early = sorted(nn.glob("step_*.pth"))[0]
    old, new = load_checkpoint(early), load_checkpoint(nn / "last.pth")
    assert old.counters["env_steps"] < new.counters["env_steps"] - 100
    agent = make_agent(make_params(tmp_path, synchronous=False, max_env_steps=250, checkpoint_interval=100))
    agent.restore(str(early))
    stored, newer = (new.replay["position"]["rows"] - n for n in (0, old.replay["position"]["rows"]))
    assert len(agent.memory) == stored
    assert f"{old.counters['env_steps']} steps, {stored} replay rows, {newer} of them newer: learned" in caplog.text
    counters = {name: value for name, value in agent.learner.counters().items() if name != "elapsed_s"}
    assert counters == {name: old.counters[name] for name in counters}
    agent.train()
    assert 250 <= agent.frame <= 250 + 8 * 4
    assert agent.learner.pace.ratio >= 0.95
    assert load_checkpoint(nn / "last.pth").replay["position"]["rows"] > stored


def test_no_experience_is_lost_where_a_run_changes_between_synchronous_and_asynchronous(tmp_path, monkeypatch):
    path = tmp_path / "run" / "nn" / "last.pth"
    make_agent(make_params(tmp_path)).train()
    between = make_agent(make_params(tmp_path, synchronous=False, max_env_steps=160))
    between.restore(str(path))
    between.train()
    agent = make_agent(make_params(tmp_path, max_env_steps=300))
    agent.restore(str(path))
    stored, acted = len(agent.memory), received(agent, monkeypatch)
    agent.train()
    assert agent.frame == 300
    assert len(agent.memory) == stored + len(acted)  # a row each, and none was taken for a repetition


def test_an_older_copy_of_a_synchronous_run_repeats_what_followed(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    changes: dict[str, Any] = {"max_env_steps": 160, "checkpoint_interval": 80}
    agent = make_agent(make_params(tmp_path, **changes))
    expected = record_losses(agent)
    agent.train()
    again = make_agent(make_params(tmp_path, **changes))
    again.restore(str(tmp_path / "run" / "nn" / "step_00000080.pth"))
    losses = record_losses(again)
    begin = again.epoch_num
    assert again.frame == 80
    again.train()
    assert losses == expected[begin:]
    assert "on are removed: the run repeats them" in caplog.text


def test_resuming_an_older_copy_keeps_the_best_policy(tmp_path):
    agent = make_agent(make_params(tmp_path, checkpoint_interval=80))
    agent.train()
    agent.on_evaluation_request()
    agent.on_evaluation(make_report(True, 20.0))
    again = make_agent(make_params(tmp_path, max_env_steps=200))
    again.restore(str(tmp_path / "run" / "nn" / "step_00000080.pth"))
    again.on_evaluation_request()
    again.on_evaluation(make_report(True, 25.0))
    assert load_checkpoint(tmp_path / "run" / "nn" / "best.pth").best["report"]["mean_lap_time_s"] == 20.0
    again.close()


def test_the_console_of_a_resumed_run_knows_the_best_lap_of_the_run(tmp_path, capsys):
    agent = make_agent(make_params(tmp_path))
    agent.on_evaluation_request()
    agent.on_evaluation(make_report(True, 0.25))
    agent.train()
    again = make_agent(make_params(tmp_path, max_env_steps=150))
    again.restore(str(tmp_path / "run" / "nn" / "last.pth"))
    capsys.readouterr()
    again.train()
    first = capsys.readouterr().out.splitlines()[0]
    assert "best lap 0.25 s" in first


def test_resuming_on_another_track_begins_anew_with_the_best_policy(tmp_path, caplog):
    agent = make_agent(make_params(tmp_path))
    agent.on_evaluation_request()
    agent.on_evaluation(make_report(True, 20.0))
    agent.train()
    nn = tmp_path / "run" / "nn"
    laps = []
    for track, lap_time_s in (("long", 60.0), ("long", 61.0)):
        params = make_params(tmp_path, max_env_steps=200)
        params["config"]["run"].task["track"] = track
        again = make_agent(params)
        again.restore(str(nn / "last.pth"))
        again.on_evaluation_request()
        again.on_evaluation(make_report(True, lap_time_s))
        again.on_checkpoint(is_periodic=False)
        again.close()
        laps.append(load_checkpoint(nn / "best.pth").best["report"]["mean_lap_time_s"])
    assert laps == [60.0, 60.0]
    assert caplog.text.count("task.track changed since the best evaluation") == 1


@pytest.mark.parametrize("synchronous", [True, False])
def test_resuming_a_finished_run_is_refused(tmp_path, synchronous):
    make_agent(make_params(tmp_path, synchronous=synchronous)).train()
    path = tmp_path / "run" / "nn" / "last.pth"
    before = path.read_bytes()
    steps = load_checkpoint(path).counters["env_steps"]
    agent = make_agent(make_params(tmp_path, synchronous=synchronous, max_env_steps=steps))
    expected = (
        rf"last\.pth has made {steps} steps and max_env_steps is {steps}: nothing is left to do\. Raise max_env_st"
    )
    with pytest.raises(CheckpointError, match=expected):
        agent.restore(str(path))
    agent.close()
    assert path.read_bytes() == before


def test_updates_due_at_the_end_are_made_after_a_resume(tmp_path):
    agent = make_agent(make_params(tmp_path))
    original = agent.algorithm.update

    def update(batch):
        if agent.frame >= 120:
            agent.stop()
        return original(batch)

    agent.algorithm.update = update
    agent.learner.link._rows_per_segment = 10  # the last ten rows arrive at once, and ten updates are due for them
    agent.train()
    assert agent.frame >= 120
    assert agent.epoch_num < agent.frame - 40  # updates are due
    again = make_agent(make_params(tmp_path))
    again.restore(str(tmp_path / "run" / "nn" / "last.pth"))
    again.train()
    assert (again.frame, again.epoch_num) == (agent.frame, agent.frame - 40)


@pytest.mark.parametrize(
    "changes", [{"max_env_steps": 40}, {"max_updates_per_env_step": 0.01, "min_updates_per_env_step": 0.0}]
)
def test_a_run_that_makes_no_update_warns_at_the_start_and_at_the_end(tmp_path, caplog, changes):
    agent = make_agent(make_params(tmp_path, **changes))
    agent.train()
    first, last = caplog.messages[0], caplog.messages[-1]
    assert first.startswith(f"nothing will be learned: no update is due up to max_env_steps={agent.run.max_env_steps}")
    assert "env_steps_before_training=40" in first
    needed = 41 if agent.run.max_env_steps == 40 else 140
    assert last.startswith("nothing was learned: no update is due")
    assert f"raise max_env_steps to at least {needed}," in last


def test_learning_rates_fall_until_the_last_step_of_a_run_and_of_one_that_was_made_longer(tmp_path):
    keys: dict[str, Any] = {"lr_decay_updates": "auto", "min_updates_per_env_step": 1.0}
    agent = make_agent(make_params(tmp_path, max_env_steps=100, **keys))
    agent.train()
    assert agent.epoch_num == 60  # 40 steps of warm-up
    assert agent.get_param("lr_decay_updates") == 100
    assert agent.algorithm._optimizers["actor"].param_groups[0]["lr"] == pytest.approx(3e-4 * (1 - 0.9 * 59 / 100))
    longer = make_agent(make_params(tmp_path, max_env_steps=200, **keys))
    longer.restore(str(tmp_path / "run" / "nn" / "last.pth"))
    assert longer.get_param("lr_decay_updates") == 200


def test_an_agent_can_be_trained_turn_by_turn(tmp_path):
    agent = make_agent(make_params(tmp_path, synchronous=False))
    try:
        deadline = time.monotonic() + 60
        while agent.epoch_num == 0 and time.monotonic() < deadline:
            agent.train_epoch()
        assert agent.epoch_num > 0
    finally:
        agent.close()


def test_a_run_that_makes_updates_does_not_warn(tmp_path, caplog):
    make_agent(make_params(tmp_path, max_env_steps=41)).train()
    assert "learned" not in caplog.text


def test_a_file_in_place_of_the_stored_replay_is_named(tmp_path):
    make_agent(make_params(tmp_path, "old")).train()
    shutil.rmtree(tmp_path / "old" / "replay")
    (tmp_path / "old" / "replay").write_text("not a folder")
    agent = make_agent(make_params(tmp_path, "old", max_env_steps=200))
    with pytest.raises(CheckpointError, match=r"old/replay must be a folder"):
        agent.restore(str(tmp_path / "old" / "nn" / "last.pth"))
    agent.close()


def test_only_the_files_of_a_replay_are_copied(tmp_path):
    make_agent(make_params(tmp_path, "old")).train()
    (tmp_path / "old" / "replay" / "notes").mkdir()
    os.mkfifo(tmp_path / "old" / "replay" / "pipe.rows")
    agent = make_agent(make_params(tmp_path, "new", max_env_steps=150))
    agent.restore(str(tmp_path / "old" / "nn" / "last.pth"))
    agent.close()
    assert all(path.is_file() for path in (tmp_path / "new" / "replay").iterdir())


def test_ctrl_c_saves_everything_within_five_seconds(tmp_path):
    agent = make_agent(make_params(tmp_path, synchronous=False, max_env_steps=10_000_000, evaluation_interval=500))
    pressed = []

    def press():
        deadline = time.monotonic() + 60
        while agent.epoch_num < 50 and time.monotonic() < deadline:
            time.sleep(0.05)
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)  # within two seconds: the same request

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    thread = threading.Thread(target=press)
    thread.start()
    try:
        agent.train()
        seconds = time.monotonic() - pressed[0]
        thread.join()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    assert seconds < 15.0  # within five on an idle machine
    stored = load_checkpoint(tmp_path / "run" / "nn" / "last.pth")
    assert stored.counters["updates"] >= 50
    assert stored.replay["position"]["rows"] == agent.memory.total_rows  # the replay is full
    assert agent.vec_env.process_ids() == {}
