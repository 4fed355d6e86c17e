"""Stable-Baselines3's SAC with the same layers as ours, on a filled replay buffer."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from algos.config import EncoderKind
from benchmarks.rows.updates import ROWS, Update, random_field
from tasks.experience.observation import ObservationSpec

TITLE = "Stable-Baselines3"


def stable_baselines_update(spec: ObservationSpec, encoder: EncoderKind, batch_size: int) -> Update:
    """One sampled update; the compact encoder is shared as ours is: the critics train it, the actor does not."""
    is_flat = encoder is EncoderKind.mlp
    kwargs: dict[str, Any] = {"net_arch": [256, 256]}
    if not is_flat:
        kwargs |= {
            "features_extractor_class": CompactExtractor,
            "share_features_extractor": True,
            "normalize_images": False,
        }
    env = _RandomEnv(spec.flat_space() if is_flat else spec.dict_space(), spec.action_size)
    model = stable_baselines3.SAC(
        "MlpPolicy" if is_flat else "MultiInputPolicy",
        env,
        batch_size=batch_size,
        ent_coef=0.01,
        buffer_size=ROWS,
        policy_kwargs=kwargs,
        device="cpu",
    )
    model.set_logger(Logger(None, []))
    _fill(model, spec, is_flat)
    return lambda: model.train(gradient_steps=1, batch_size=batch_size)


class CompactExtractor(BaseFeaturesExtractor):
    """The layers of the compact encoder, as a Stable-Baselines3 user would write them."""

    def __init__(self, observation_space: spaces.Dict) -> None:
        vector_size = sum(spaces.flatdim(space) for name, space in observation_space.items() if name != "images")
        super().__init__(observation_space, 64 + vector_size)
        self.layers = nn.Sequential(
            nn.Conv2d(4, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Conv2d(32, 32, 3, 2), nn.ReLU(),
            nn.Flatten(), nn.Linear(128, 64), nn.LayerNorm(64), nn.Tanh(),
        )  # fmt: skip

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features of a batch."""
        vector = [tensor for name, tensor in observations.items() if name != "images"]
        return torch.cat([*vector, self.layers((observations["images"].float() - 102) / 255)], dim=1)


class _RandomEnv(gymnasium.Env):
    """Spaces and nothing else: Stable-Baselines3 is built from an environment."""

    def __init__(self, observation_space: spaces.Space, action_size: int) -> None:
        self.observation_space = observation_space
        self.action_space = spaces.Box(-1.0, 1.0, (action_size,), np.float32)


def _fill(model: stable_baselines3.SAC, spec: ObservationSpec, is_flat: bool) -> None:
    rng = np.random.default_rng(0)
    assert model.replay_buffer is not None
    for _ in range(ROWS):
        observations: list[Any] = []
        for _ in range(2):
            obs = {field.name: random_field(rng, field.shape, field) for field in spec.all_fields()}
            batched = {name: array[None] for name, array in obs.items()}
            observations.append(spec.to_flat(obs)[None] if is_flat else batched)
        action = rng.uniform(-1, 1, (1, spec.action_size))
        model.replay_buffer.add(
            observations[0], observations[1], action, rng.normal(size=1), np.zeros(1, bool), [{}]
        )  # fmt: skip
