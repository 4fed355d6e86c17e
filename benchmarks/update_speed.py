"""SAC updates per second on one CPU thread, compared with Stable-Baselines3's SAC in the same run; prints a table.

    python benchmarks/update_speed.py [--seconds 4] [--slow]

Both sample from a filled replay memory and make one update of critics, actor and targets per batch. LIDAR: 83 inputs,
two hidden layers of 256, batch 256. Full: four stacked 64x64 grey images, the compact encoder, batch 64;
Stable-Baselines3 gets the same layers as a features extractor, shared as ours is (share_features_extractor=True:
the critics train it, the actor does not). The two take turns, so that a busy machine slows both alike, and the
medians of the turns are compared. --slow adds TMRL's own network and its shared form, which take seconds per update.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from algos.acting.policy import ActingPolicy, WarmUp
from algos.algorithms.sac import SAC
from algos.config import EncoderKind, NetworkConfig, SACConfig
from algos.replay.memory import ReplayMemory
from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.samples import Segment

ROWS = 4000
EPISODE_ROWS = 320
TURNS = 5
LIDAR = ObservationSpec((Field("speed", (1,), scale=55.6), Field("lidar", (4, 19), history=4, scale=383.0)))
FULL = ObservationSpec(
    (
        Field("speed", (1,), scale=55.6),
        Field("gear", (1,), scale=5.0),
        Field("rpm", (1,), scale=11000.0),
        Field("images", (4, 64, 64), "uint8", 0, 255, history=4, scale=255.0, offset=102.0),
    )
)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="measuring time per program and case")
    parser.add_argument("--slow", action="store_true", help="TMRL's network too, batch 256")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'one thread, sampling included':34}{'batch':>7}{'ours upd/s':>13}{'SB3 upd/s':>12}{'ratio':>8}{'act ms':>9}"
    )
    _print_case("LIDAR, MLP 2x256", LIDAR, EncoderKind.mlp, 256, arguments.seconds)
    _print_case("Full, compact CNN", FULL, EncoderKind.compact_cnn, 64, arguments.seconds)
    if arguments.slow:
        _print_case("Full, TMRL's CNN, shared", FULL, EncoderKind.shared_cnn, 256, arguments.seconds, has_rival=False)
        _print_case("Full, TMRL's CNN, separate", FULL, EncoderKind.tmrl_cnn, 256, arguments.seconds, has_rival=False)


def filled_memory(spec: ObservationSpec, n_step: int, gamma: float) -> ReplayMemory:
    """A replay memory with random rows."""
    rng = np.random.default_rng(0)
    frames = {field.name: _random(rng, (ROWS, *field.frame_shape), field) for field in spec.fields}
    is_first = np.arange(ROWS) % EPISODE_ROWS == 0
    segment = Segment(
        worker="benchmark",
        stream=0,
        seq=1,
        frames=frames,
        action=rng.uniform(-1, 1, (ROWS, spec.action_size)).astype(np.float32),
        reward=rng.normal(size=ROWS).astype(np.float32),
        terminated=np.roll(is_first, -1),
        truncated=np.zeros(ROWS, bool),
        is_first=is_first,
    )
    memory = ReplayMemory(spec, ROWS, n_step, gamma, seed=0)
    memory.append(segment)
    return memory


def our_update(spec: ObservationSpec, encoder: EncoderKind, batch_size: int) -> Callable[[], object]:
    """One sampled update of ours."""
    config = SACConfig(batch_size=batch_size)
    memory = filled_memory(spec, config.n_step, config.gamma)
    agent = SAC(spec, config, NetworkConfig(encoder), torch.device("cpu"), seed=0)
    return lambda: agent.update(memory.sample(batch_size))


def stable_baselines_update(spec: ObservationSpec, encoder: EncoderKind, batch_size: int) -> Callable[[], object]:
    """One sampled update of Stable-Baselines3 with the same layers."""
    if encoder is EncoderKind.mlp:
        kwargs: dict[str, Any] = {"net_arch": [256, 256]}
        env: gymnasium.Env = _RandomEnv(spec.flat_space(), spec.action_size)
        name = "MlpPolicy"
    else:
        kwargs = {
            "net_arch": [256, 256],
            "features_extractor_class": CompactExtractor,
            "share_features_extractor": True,
            "normalize_images": False,
        }
        env, name = _RandomEnv(spec.dict_space(), spec.action_size), "MultiInputPolicy"
    model = stable_baselines3.SAC(
        name, env, batch_size=batch_size, ent_coef=0.01, buffer_size=ROWS, policy_kwargs=kwargs, device="cpu"
    )
    model.set_logger(Logger(None, []))
    _fill(model, spec, is_flat=encoder is EncoderKind.mlp)
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


def act_time_ms(spec: ObservationSpec, encoder: EncoderKind) -> float:
    """Time to choose one action."""
    network = NetworkConfig(encoder)
    agent = SAC(spec, SACConfig(), network, torch.device("cpu"), seed=0)
    policy = ActingPolicy(spec, network, 0, WarmUp.driving, torch.device("cpu"))
    policy.load_weights(agent.acting_weights(), 1)
    rng = np.random.default_rng(0)
    obs = {field.name: _random(rng, field.shape, field) for field in spec.all_fields()}
    return 1e3 * _seconds_per_call(lambda: policy.act(obs), 0.3)


def _print_case(
    title: str, spec: ObservationSpec, encoder: EncoderKind, batch_size: int, seconds: float, has_rival: bool = True
) -> None:
    updates = [our_update(spec, encoder, batch_size)]
    if has_rival:
        updates.append(stable_baselines_update(spec, encoder, batch_size))
    rates = _rates(updates, seconds)
    rival = f"{rates[1]:12.1f}{rates[0] / rates[1]:8.2f}" if has_rival else f"{'-':>12}{'-':>8}"
    print(f"{title:34}{batch_size:7}{rates[0]:13.1f}{rival}{act_time_ms(spec, encoder):9.3f}")


def _rates(updates: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Median calls per second of each, measured in turns."""
    turns: list[list[float]] = [[] for _ in updates]
    for update in updates:
        update()
    for _ in range(TURNS):
        for update, times in zip(updates, turns, strict=True):
            times.append(_seconds_per_call(update, seconds / TURNS))
    return [1.0 / statistics.median(times) for times in turns]


def _seconds_per_call(function: Callable[[], object], seconds: float) -> float:
    function()
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or calls < 2:
        function()
        calls += 1
    return elapsed / calls


def _fill(model: stable_baselines3.SAC, spec: ObservationSpec, is_flat: bool) -> None:
    rng = np.random.default_rng(0)
    assert model.replay_buffer is not None
    for _ in range(ROWS):
        observations: list[Any] = []
        for _ in range(2):
            obs = {field.name: _random(rng, field.shape, field) for field in spec.all_fields()}
            batched = {name: array[None] for name, array in obs.items()}
            observations.append(spec.to_flat(obs)[None] if is_flat else batched)
        action = rng.uniform(-1, 1, (1, spec.action_size))
        model.replay_buffer.add(
            observations[0], observations[1], action, rng.normal(size=1), np.zeros(1, bool), [{}]
        )  # fmt: skip


def _random(rng: np.random.Generator, shape: tuple[int, ...], field: Field) -> np.ndarray:
    if field.dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    return (rng.normal(size=shape) * field.scale).astype(np.float32)


if __name__ == "__main__":
    main()
