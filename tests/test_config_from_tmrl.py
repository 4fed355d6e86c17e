"""TMRL's config.json becomes arguments that our command line takes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

import train
from algos.config import OptimizerKind
from algos.config.from_tmrl import DIFFERENCES, KEYS, KINDS, REDQ_KEYS, TASKS, convert
from algos.config.options import base_name
from algos.config.role_keys import check_needs, check_roles
from algos.faces.role_task import task_of_role
from algos.faces.runner_params import check
from tasks import registry
from tasks.words.command_line import Role
from tests.test_config_files import composed, run_config

LIDAR: dict[str, Any] = {
    "RUN_NAME": "SAC_4_LIDAR",
    "RESET_TRAINING": False,
    "BUFFERS_MAXLEN": 500000,
    "RW_MAX_SAMPLES_PER_EPISODE": 1000,
    "CUDA_TRAINING": True,
    "CUDA_INFERENCE": False,
    "VIRTUAL_GAMEPAD": True,
    "LOCALHOST_WORKER": True,
    "PASSWORD": "a secret",
    "WANDB_KEY": "another secret",
    "WANDB_PROJECT": "mine",
    "WANDB_ENTITY": "me",
    "MAX_TRAINING_STEPS_PER_ENVIRONMENT_STEP": 4.0,
    "ENVIRONMENT_STEPS_BEFORE_TRAINING": 1000,
    "UPDATE_MODEL_INTERVAL": 200,
    "MEMORY_SIZE": 1000000,
    "BATCH_SIZE": 128,
    "ALG": {
        "ALGORITHM": "SAC",
        "LEARN_ENTROPY_COEF": False,
        "LR_ACTOR": 0.00001,
        "LR_ENTROPY": 0.0004,
        "TARGET_ENTROPY": -0.5,
        "ALPHA": 0.01,
        "GAMMA": 0.995,
        "OPTIMIZER_ACTOR": "adamw",
        "BETAS_ACTOR": [0.997, 0.997],
        "L2_CRITIC": 0.5,
    },
    "ENV": {
        "RTGYM_INTERFACE": "TM20LIDAR",
        "WINDOW_WIDTH": 958,
        "WINDOW_HEIGHT": 488,
        "IMG_WIDTH": 65,
        "IMG_HEIGHT": 63,
        "IMG_GRAYSCALE": False,
        "IMG_HIST_LEN": 4,
        "SLEEP_TIME_AT_RESET": 1.5,
        "RTGYM_CONFIG": {
            "time_step_duration": 0.05,
            "start_obs_capture": 0.04,
            "act_buf_len": 2,
            "ep_max_length": 1000,
            "interface_kwargs": {"save_replays": False},
        },
        "REWARD_CONFIG": {"END_OF_TRACK": 100.0, "MIN_STEPS": 70, "MAX_STRAY": 100.0},
    },
    "__VERSION__": "0.6.0",
}


def test_every_argument_is_accepted_and_has_its_value() -> None:
    made = convert(LIDAR)
    refuse_nothing(*made.words)
    config = run_config(*made.words)
    sac = config.train.params.config
    assert (config.choices.task, config.choices.train) == ("TM20Lidar", "TM20LidarSAC")
    assert (sac.batch_size, sac.gamma, sac.lr_actor, sac.l2_critic) == (128, 0.995, 0.00001, 0.5)
    assert (sac.optimizer_actor, sac.betas_actor) == (OptimizerKind.adamw, [0.997, 0.997])
    assert (config.task.reward.END_OF_TRACK, config.task.rtgym.ep_max_length) == (100.0, 1000)
    assert (config.device, config.inference_device) == ("auto", "cpu")


REDQ = LIDAR | {
    "ALG": {
        "ALGORITHM": "REDQSAC",
        "LEARN_ENTROPY_COEF": True,
        "LR_ACTOR": 0.0003,
        "LR_CRITIC": 0.00005,
        "LR_ENTROPY": 0.0003,
        "GAMMA": 0.995,
        "POLYAK": 0.995,
        "TARGET_ENTROPY": -7.0,
        "ALPHA": 0.37,
        "REDQ_N": 6,
        "REDQ_M": 3,
        "REDQ_Q_UPDATES_PER_POLICY_UPDATE": 15,
    }
}


def test_redq_arrives_with_a_learned_temperature_above_our_bound() -> None:
    made = convert(REDQ)
    config = run_config(*made.words)
    redq = config.train.params.config
    assert config.choices.train == "TM20LidarREDQ"
    assert (redq.redq_n, redq.redq_m, redq.redq_q_updates_per_policy_update) == (6, 3, 15)
    assert (redq.alpha, redq.learn_entropy_coef, redq.target_entropy, redq.polyak) == (0.37, True, -7.0, 0.995)
    assert not [name for name in made.left_out if name.startswith("ALG.")]


def test_redq_entries_beside_sac_are_left_out() -> None:
    made = convert({"ALG": {"ALGORITHM": "SAC", "REDQ_N": 10}})
    assert made.left_out == ["ALG.REDQ_N"]
    assert run_config(*made.words).choices.train == "TM20FullSAC"


def test_redq_from_images_is_converted_too() -> None:
    assert convert({"ALG": {"ALGORITHM": "REDQSAC"}}).words[:2] == ["task=TM20Full", "train=TM20FullREDQ"]


def test_entries_without_a_meaning_are_named_and_secrets_never_printed() -> None:
    made = convert(LIDAR)
    learned, images = "the temperature is not learned", "LIDAR has no images"
    idle = [f"ALG.LR_ENTROPY ({learned})", f"ALG.TARGET_ENTROPY ({learned})"]
    idle += [f"ENV.IMG_WIDTH ({images})", f"ENV.IMG_HEIGHT ({images})", f"ENV.IMG_GRAYSCALE ({images})"]
    assert made.left_out == [*idle, "BUFFERS_MAXLEN", "LOCALHOST_WORKER", "PASSWORD", "WANDB_KEY"]
    assert "secret" not in " ".join([*made.words, *made.notes])


def words_of(**entries: Any) -> dict[str, str]:
    return dict(word.split("=", 1) for word in convert(entries).words)


def refuse_nothing(*words: str) -> None:
    """Checks words as train.py does before it trains."""
    config = run_config(*words, "task.game=sim")
    check_roles(config, Role.train, words)
    check_needs(config, Role.train, words)
    config.task = task_of_role(config, Role.train)
    check(config, registry.observation_spec(config.task.name, config.task), [])


@pytest.mark.parametrize(
    ("entries", "steps"),
    [
        ({"RW_MAX_SAMPLES_PER_EPISODE": 300, "ENV": {"RTGYM_CONFIG": {"ep_max_length": 1000}}}, "300"),
        ({"RW_MAX_SAMPLES_PER_EPISODE": 1000, "ENV": {"RTGYM_CONFIG": {"ep_max_length": 300}}}, "300"),
        ({"RW_MAX_SAMPLES_PER_EPISODE": 700}, "700"),
        ({"RW_MAX_SAMPLES_PER_EPISODE": 700, "ENV": {"RTGYM_CONFIG": {"ep_max_length": math.inf}}}, "700"),
        ({"ENV": {"RTGYM_CONFIG": {"ep_max_length": math.inf}}}, "1000000000"),
    ],
)
def test_the_lower_of_both_limits_ends_an_episode(entries: dict[str, Any], steps: str) -> None:
    assert [word for word in convert(entries).words if "ep_max_length" in word] == [f"task.rtgym.ep_max_length={steps}"]
    assert words_of(**entries)["task.rtgym.ep_max_length"] == steps


@pytest.mark.parametrize("optimizer", ["SGD", "rmsprop"])
def test_betas_go_to_the_optimizers_that_have_them(optimizer: str) -> None:
    betas = {"BETAS_ACTOR": [0.9, 0.9], "BETAS_CRITIC": [0.8, 0.9]}
    made = convert({"ALG": {"OPTIMIZER_ACTOR": optimizer, "OPTIMIZER_CRITIC": "AdamW", **betas}})
    refuse_nothing(*made.words)
    assert made.left_out == [f"ALG.BETAS_ACTOR ({optimizer.lower()} has none)"]
    assert "train.params.config.betas_critic=[0.8,0.9]" in made.words


def test_epochs_rounds_and_steps_are_a_limit_in_updates_that_can_be_reached() -> None:
    entries = {"MAX_EPOCHS": 10, "ROUNDS_PER_EPOCH": 100, "TRAINING_STEPS_PER_ROUND": 200}
    for ratio in (4.0, 1.0, 0.1, 0.001, math.inf):
        made = convert(entries | {"MAX_TRAINING_STEPS_PER_ENVIRONMENT_STEP": ratio, "ALG": {"ALGORITHM": "REDQSAC"}})
        assert "max_updates=200000" in made.words
        refuse_nothing(*made.words)
    assert convert({"MAX_EPOCHS": 10}).left_out == ["MAX_EPOCHS"]


@pytest.mark.parametrize(("limit", "workers"), [(4, 4), (-1, 4096)])
def test_the_number_of_workers_is_that_of_remote_workers(limit: int, workers: int) -> None:
    made = convert({"NB_WORKERS": limit})
    assert not [word for word in made.words if "workers" in word]
    assert f"by remote.listen, add remote.max_workers={workers}" in made.notes[0]
    run_config(f"remote.max_workers={workers}")


def test_an_entry_that_needs_a_checkpoint_is_only_reported() -> None:
    made = convert({"RESET_TRAINING": True})
    assert not [word for word in made.words if word.startswith("checkpoint")]
    assert "RESET_TRAINING" in made.notes[0]
    assert "--checkpoint RUN/nn/last.pth checkpoint_mode=replay" in made.notes[0]
    assert not [note for note in convert({"RESET_TRAINING": False}).notes if "RESET_TRAINING" in note]


def test_a_shell_does_not_split_an_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LIDAR | {"RUN_NAME": "my first run *", "WANDB_PROJECT": "my project"}))
    assert train.main(["--import-tmrl", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out.split() == captured.out.splitlines()
    assert "experiment=my_first_run_" in captured.out
    assert "wandb" not in captured.out
    assert """add wandb.enabled=true wandb.project='"my project"' wandb.entity=me""" in captured.err
    config = run_config(*captured.out.split(), "wandb.enabled=true", 'wandb.project="my project"', "wandb.entity=me")
    assert (config.wandb.project, config.wandb.entity) == ("my project", "me")


def test_entries_that_rtgym_has_and_we_have_not_are_left_out() -> None:
    made = convert({"ENV": {"RTGYM_CONFIG": {"real_time": True, "act_buf_len": 3}, "REWARD_CONFIG": {"MINE": 1}}})
    assert made.left_out == ["ENV.RTGYM_CONFIG.real_time", "ENV.REWARD_CONFIG.MINE"]
    assert "task.rtgym.act_buf_len=3" in made.words


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("algorithm", KINDS)
def test_differences_from_tmrl_are_printed_with_arguments_that_restore_them(task: str, algorithm: str) -> None:
    made = convert({"ALG": {"ALGORITHM": algorithm}, "ENV": {"RTGYM_INTERFACE": task}})
    said = [note.rpartition(": ")[2] for note in made.notes if note.startswith("  ")]
    ours = OmegaConf.create(composed(*made.words))
    theirs = OmegaConf.create(composed(*made.words, *said))
    for difference in DIFFERENCES:
        key, _, value = difference.word.partition("=")
        if key.endswith(".encoder") and (value == "mlp") != ("LIDAR" in task):  # of tasks with images, or without
            assert difference.word not in said
            continue
        expected = yaml.safe_load(value)  # false is no text, and 0 is 0.0
        assert OmegaConf.select(theirs, key) == expected, key
        assert (difference.word in said) == (OmegaConf.select(ours, key) != expected), key
    refuse_nothing(*made.words, *said)


def test_the_documentation_names_the_differences() -> None:
    text = (Path(__file__).parents[1] / "docs" / "from_tmrl.md").read_text(encoding="utf-8")
    assert [difference.word for difference in DIFFERENCES if f"`{difference.word}`" not in text] == []
    assert "TM20Full" + base_name("redq") in text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"ENV": {"RTGYM_INTERFACE": "TM20LIDARIMAGES"}}, "ENV.RTGYM_INTERFACE must be one of TM20FULL"),
        ({"ALG": {"ALGORITHM": "TD3"}}, "ALG.ALGORITHM must be one of SAC, REDQSAC, got 'TD3'"),
        ({"BATCH_SIZE": "many"}, "BATCH_SIZE must be a number, got 'many'"),
        ({"RW_MAX_SAMPLES_PER_EPISODE": [3]}, "RW_MAX_SAMPLES_PER_EPISODE must be a number"),
        ({"MAX_TRAINING_STEPS_PER_ENVIRONMENT_STEP": 0}, "MAX_TRAINING_STEPS_PER_ENVIRONMENT_STEP must be > 0, got 0"),
        ([], "expected a config.json of TMRL, got a list"),
    ],
)
def test_entries_that_cannot_be_converted_are_refused(config: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(config)


def test_the_documentation_names_every_entry_with_a_key_that_exists() -> None:
    text = (Path(__file__).parents[1] / "docs" / "from_tmrl.md").read_text(encoding="utf-8")
    table = text[text.index("## Entries") : text.index("Not needed here")]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]
    documented = {entry: here for entries, here in rows for entry in re.findall(r"`([^`]+)`", entries)}
    missing = [entry for entry, key in (KEYS | REDQ_KEYS).items() if f"`{key}`" not in documented.get(entry, "")]
    assert missing == []
    configs = [OmegaConf.create(composed(f"train={train}")) for train in ("TM20FullSAC", "TM20FullREDQ")]
    named = {key for here in documented.values() for key in re.findall(r"`([a-z][\w.]+)`", here)} - {"replay", "tmrl"}
    keys = {key for key in named for config in configs if OmegaConf.select(config, key, default="absent") != "absent"}
    assert sorted(named - keys) == []


def test_the_command_prints_the_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LIDAR))
    assert train.main(["--import-tmrl", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[:2] == ["task=TM20Lidar", "train=TM20LidarSAC"]
    assert "PASSWORD" in captured.err


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), ("{", "Expecting property name"), ("[]", "expected a config.json of TMRL")],
)
def test_a_file_that_is_not_tmrls_is_refused(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.json"
    if content is not None:
        file.write_text(content)
    assert train.main(["--import-tmrl", str(file)]) == 2
    refusal = capsys.readouterr().err
    assert str(file) in refusal
    assert said in refusal
