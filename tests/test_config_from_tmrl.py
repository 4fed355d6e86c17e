"""TMRL's config.json becomes words that our command line takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from algos.config import OptimizerKind
from algos.tmrl_config import KEYS, REDQ_KEYS, hydra_words, main
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
    "MAX_TRAINING_STEPS_PER_ENVIRONMENT_STEP": 4.0,
    "ENVIRONMENT_STEPS_BEFORE_TRAINING": 1000,
    "UPDATE_MODEL_INTERVAL": 200,
    "MEMORY_SIZE": 1000000,
    "BATCH_SIZE": 128,
    "ALG": {
        "ALGORITHM": "SAC",
        "LEARN_ENTROPY_COEF": False,
        "LR_ACTOR": 0.00001,
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


def test_every_word_is_accepted_and_arrives() -> None:
    words, _ = hydra_words(LIDAR)
    config = run_config(*words)
    sac = config.train.params.config
    assert (config.choices.task, config.choices.train) == ("TM20Lidar", "TM20LidarSAC")
    assert (sac.batch_size, sac.gamma, sac.lr_actor, sac.l2_critic) == (128, 0.995, 0.00001, 0.5)
    assert (sac.optimizer_actor, sac.betas_actor) == (OptimizerKind.adamw, [0.997, 0.997])
    assert (config.task.reward.END_OF_TRACK, config.task.rtgym.ep_max_length) == (100.0, 1000)
    assert (config.device, config.inference_device, config.wandb.project) == ("auto", "cpu", "mine")


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
    words, left_out = hydra_words(REDQ)
    config = run_config(*words)
    redq = config.train.params.config
    assert config.choices.train == "TM20LidarREDQ"
    assert (redq.redq_n, redq.redq_m, redq.redq_q_updates_per_policy_update) == (6, 3, 15)
    assert (redq.alpha, redq.learn_entropy_coef, redq.target_entropy, redq.polyak) == (0.37, True, -7.0, 0.995)
    assert not [name for name in left_out if name.startswith("ALG.")]


def test_redq_entries_beside_sac_are_left_out() -> None:
    words, left_out = hydra_words({"ALG": {"ALGORITHM": "SAC", "REDQ_N": 10}})
    assert left_out == ["ALG.REDQ_N"]
    assert run_config(*words).choices.train == "TM20FullSAC"


def test_redq_from_images_is_converted_too() -> None:
    assert hydra_words({"ALG": {"ALGORITHM": "REDQSAC"}})[0][:2] == ["task=TM20Full", "train=TM20FullREDQ"]


def test_what_has_no_meaning_is_named_and_secrets_are_never_repeated() -> None:
    words, left_out = hydra_words(LIDAR)
    assert left_out == ["BUFFERS_MAXLEN", "LOCALHOST_WORKER", "PASSWORD", "WANDB_KEY"]
    assert "secret" not in " ".join(words)


def test_reset_training_keeps_the_replay() -> None:
    assert "checkpoint_mode=replay" in hydra_words({"RESET_TRAINING": True})[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"ENV": {"RTGYM_INTERFACE": "TM20LIDARIMAGES"}}, "ENV.RTGYM_INTERFACE must be one of TM20FULL"),
        ({"ALG": {"ALGORITHM": "TD3"}}, "ALG.ALGORITHM must be one of SAC, REDQSAC, got 'TD3'"),
    ],
)
def test_an_unknown_choice_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hydra_words(config)


def test_the_documentation_names_every_entry_with_a_key_that_exists() -> None:
    text = (Path(__file__).parents[1] / "docs" / "from_tmrl.md").read_text(encoding="utf-8")
    table = text[text.index("## Entries") : text.index("Without a meaning here")]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]
    documented = {entry: here for entries, here in rows for entry in re.findall(r"`([^`]+)`", entries)}
    missing = [entry for entry, (key, _) in (KEYS | REDQ_KEYS).items() if f"`{key}`" not in documented.get(entry, "")]
    assert missing == []
    configs = [OmegaConf.create(composed(f"train={train}")) for train in ("TM20FullSAC", "TM20FullREDQ")]
    named = {key for here in documented.values() for key in re.findall(r"`([a-z][\w.]+)`", here)} - {"replay", "tmrl"}
    keys = {key for key in named for config in configs if OmegaConf.select(config, key, default="absent") != "absent"}
    assert sorted(named - keys) == []


def test_the_command_prints_the_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LIDAR))
    assert main([str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[:2] == ["task=TM20Lidar", "train=TM20LidarSAC"]
    assert "PASSWORD" in captured.err


def test_a_file_that_is_missing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err
