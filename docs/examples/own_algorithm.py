r"""An algorithm, a replay transform and an observer of your own, used by their names.

python train.py task=TM20Lidar train=TM20LidarSmoothSAC --config-dir=docs/examples/cfg \
    'plugins=[docs/examples/own_algorithm.py]' 'train.params.config.replay_transforms=[mirror]' 'observers=[LapFile]'

``docs/own_algorithms.md`` explains it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.algorithms.sac import SAC, Metrics
from algos.config import SACConfig
from algos.config.algorithms import add_off_policy
from algos.replay.memory import Batch
from algos.replay.transforms import add_replay_transform
from algos.run.observers import add_observer

STEER = 2
"""Index of the steering in an action."""


@dataclass
class SmoothSACConfig(SACConfig):
    """SAC's keys, and two of its own, all below ``train.params.config``."""

    smoothness: float = 0.1
    """Weight of the smoothness term; 0: SAC."""
    smoothness_std: float = 0.05
    """How far apart two features are that should lead to the same action."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("smoothness", "smoothness_std"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")


class SmoothSAC(SAC):
    """SAC whose actor gives similar actions for similar features.

    The spatial term of CAPS, Mysore et al., https://arxiv.org/abs/2012.06644, here with the squared distance.
    """

    config: SmoothSACConfig

    def actor_loss(self, actor_features: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Metrics]:
        """SAC's, plus smoothness * |mu(s) - mu(s + noise)|^2."""
        loss, log_prob, metrics = super().actor_loss(actor_features, features)
        noise = torch.randn(
            actor_features.shape, generator=self._generator, device=self.device, dtype=actor_features.dtype
        )
        here, _ = self.acting.actor(actor_features)
        near, _ = self.acting.actor(actor_features + self.config.smoothness_std * noise)
        roughness = (here.tanh() - near.tanh()).square().sum(-1).mean()
        metrics["losses/roughness"] = roughness.detach()
        return loss + self.config.smoothness * roughness, log_prob, metrics


def mirror(batch: Batch, rng: np.random.Generator) -> Batch:
    """Mirrors half of the LIDAR batch: left and right are swapped, and so is the sign of steering."""
    chosen = torch.from_numpy(rng.random(len(batch.reward)) < 0.5)
    return batch._replace(
        observation=_mirrored(batch.observation, chosen),
        action=_steered_back(batch.action, chosen),
        next_observation=_mirrored(batch.next_observation, chosen),
    )


class LapFile:
    """Writes each lap of training into ``laps.csv`` of the run folder, and counts them in TensorBoard."""

    def after_init(self, algo: Any) -> None:
        """Called when the agent has been built."""
        self._algo = algo
        self._path: Path = algo.experiment_dir / "laps.csv"
        self._laps = 0

    def process_infos(self, infos: Mapping[str, Any], done_indices: Tensor) -> None:
        """Called for each episode that ended."""
        episode = infos["episode"]
        if episode.get("finished"):
            self._laps += 1
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{self._algo.frame},{episode['lap_time_s']:.3f}\n")

    def after_print_stats(self, frame: int, epoch_num: int, total_time: float) -> None:
        """Called whenever metrics were recorded."""
        self._algo.writer.add_scalar("rollout/laps", self._laps, frame)


def _mirrored(observation: Mapping[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    changed = dict(observation)
    lidar = observation["lidar"]  # (B, H, 19), from left to right
    changed["lidar"] = torch.where(chosen[:, None, None], lidar.flip(-1), lidar)
    for name in observation:
        if name.startswith("action_"):
            changed[name] = _steered_back(observation[name], chosen)
    return changed


def _steered_back(action: Tensor, chosen: Tensor) -> Tensor:
    signs = torch.ones_like(action)
    signs[chosen, STEER] = -1.0
    return action * signs


# The names: for train=SmoothSAC, replay_transforms=[mirror] and observers=[LapFile].
add_off_policy("smooth_sac", f"{__name__}:SmoothSAC", SmoothSACConfig)
add_replay_transform("mirror", mirror)
add_observer("LapFile", f"{__name__}:LapFile")
