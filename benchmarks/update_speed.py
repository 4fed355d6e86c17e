"""SAC updates per second on one CPU thread, compared with Stable-Baselines3's SAC in the same run; prints a table.

    python benchmarks/update_speed.py [--seconds 4] [--slow]

Both sample from a filled replay memory and make one update of critics, actor and targets per batch. LIDAR: 83 inputs,
two hidden layers of 256, batch 256. Full: four stacked 64x64 grey images, the compact encoder, batch 64;
Stable-Baselines3 gets the same layers as a features extractor, shared as ours is (share_features_extractor=True:
the critics train it, the actor does not). All take turns, so that a busy machine slows them alike, and the medians of
the turns are compared, in CPU time. Ours has a row for each precision that the processor multiplies; "/ floor" compares
it with the same matrix products and nothing else. --slow adds TMRL's own network and its shared form, which take
seconds per update.
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
from algos.config import EncoderKind, NetworkConfig, Precision, SACConfig
from algos.networks import fast_matmul, multiplies_bfloat16
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
        f"{'one thread, sampling included':34}{'precision':>10}{'batch':>7}{'ours upd/s':>12}{'SB3 upd/s':>11}"
        f"{'ratio':>7}{'/ floor':>9}{'act ms':>8}"
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


def our_update(
    spec: ObservationSpec, encoder: EncoderKind, batch_size: int, precision: Precision = Precision.float32
) -> Callable[[], object]:
    """One sampled update of ours."""
    config = SACConfig(batch_size=batch_size, precision=precision)
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
    precisions = [Precision.float32]
    if multiplies_bfloat16(torch.device("cpu")):
        precisions.append(Precision.bfloat16)
    updates = [our_update(spec, encoder, batch_size, precision) for precision in precisions]
    if encoder is EncoderKind.mlp:
        updates += [_products(spec, batch_size, precision) for precision in precisions]
    if has_rival:
        updates.append(stable_baselines_update(spec, encoder, batch_size))
    rates = _rates(updates, seconds)
    act_ms = act_time_ms(spec, encoder)
    for index, precision in enumerate(precisions):
        rate = rates[index]
        rival = f"{rates[-1]:11.1f}{rate / rates[-1]:7.2f}" if has_rival else f"{'-':>11}{'-':>7}"
        floor = f"{rate / rates[len(precisions) + index]:9.2f}" if encoder is EncoderKind.mlp else f"{'-':>9}"
        print(f"{title:34}{precision.name:>10}{batch_size:7}{rate:12.1f}{rival}{floor}{act_ms:8.3f}")


def _products(spec: ObservationSpec, batch_size: int, precision: Precision, hidden: int = 256) -> Callable[[], object]:
    """The floor: nothing but the matrix products of an update of SAC with two hidden layers and two critics.

    The actor acts on s' and on s; targets and critics judge; gradients of the critics, of the action and of the actor.
    """
    seen, acts = sum(field.size for field in spec.all_fields()), spec.action_size
    judged = seen + acts

    def forward(networks: int, size: int, outputs: int) -> list[tuple[int, ...]]:
        return [(networks, batch_size, a, b) for a, b in ((size, hidden), (hidden, hidden), (hidden, outputs))]

    def weights(networks: int, size: int, outputs: int) -> list[tuple[int, ...]]:
        return [(networks, a, batch_size, b) for _, _, a, b in forward(networks, size, outputs)]

    def back(networks: int, outputs: int) -> list[tuple[int, ...]]:
        return [(networks, batch_size, outputs, hidden), (networks, batch_size, hidden, hidden)]

    shapes = [*forward(1, seen, 2 * acts), *forward(2, judged, 1)]  # the target
    shapes += [*forward(2, judged, 1), *weights(2, judged, 1), *back(2, 1)]  # the critics
    shapes += [*forward(1, seen, 2 * acts), *forward(2, judged, 1), *back(2, 1), (2, batch_size, hidden, acts)]
    shapes += [*weights(1, seen, 2 * acts), *back(1, 2 * acts)]  # the actor
    dtype = torch.bfloat16 if precision is Precision.bfloat16 else torch.float32
    pairs = [(torch.randn(n, a, b).to(dtype), torch.randn(n, b, c).to(dtype)) for n, a, b, c in shapes]

    def run() -> None:
        with fast_matmul():
            for left, right in pairs:
                torch.bmm(left, right)

    return run


def _rates(updates: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Median calls per second of CPU time of each, measured in turns, so that a busy machine disturbs all alike."""
    turns: list[list[float]] = [[] for _ in updates]
    for update in updates:
        update()
    for _ in range(TURNS):
        for update, times in zip(updates, turns, strict=True):
            times.append(_seconds_per_call(update, seconds / TURNS))
    return [1.0 / statistics.median(times) for times in turns]


def _seconds_per_call(function: Callable[[], object], seconds: float) -> float:
    """CPU time of this process."""
    function()
    start, calls = time.process_time(), 0
    while (elapsed := time.process_time() - start) < seconds or calls < 2:
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
