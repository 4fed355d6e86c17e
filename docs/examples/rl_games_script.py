"""rl_games without train.py: its own Runner trains and plays one of our tasks.

python docs/examples/rl_games_script.py

``docs/own_environments.md`` explains it. The params are those of an ordinary file of rl_games.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from rl_games.torch_runner import Runner

from tasks.registration import register_tasks

FILE = Path(__file__).parent / "cfg" / "train" / "StockPPO.yaml"


def stock_params(folder: str, max_epochs: int) -> dict[str, Any]:
    """The params of the file, and those that a script of rl_games adds."""
    params = yaml.safe_load(FILE.read_text(encoding="utf-8"))["params"]
    params["config"] |= {
        "env_name": "Gym",  # the task; its settings are in env_config
        "env_config": {"task": {"id": "Pendulum-v1", "max_episode_steps": 50}, "num_workers": 1},
        "player": {"games_num": 3},
        "device": "cpu",
        "device_name": "cpu",
        "train_dir": folder,
        "max_epochs": max_epochs,
        "torch_compile": False,
    }
    return params


def train_and_play(params: dict[str, Any], folder: str) -> None:
    """Trains and plays as rl_games' runner.py does."""
    register_tasks()
    trainer, player = Runner(), Runner()
    trainer.load({"params": params})
    trainer.run({"train": True})
    player.load({"params": params})
    player.run({"train": False, "play": True, "checkpoint": str(next(Path(folder).glob("*/nn/*.pth")))})


def main() -> None:
    """Runs a short training and plays three games; rl_games prints the results."""
    with tempfile.TemporaryDirectory() as folder:
        train_and_play(stock_params(folder, max_epochs=4), folder)


if __name__ == "__main__":
    main()
