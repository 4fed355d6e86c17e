"""Draws what a policy estimates of the road ahead: ``python docs/draw_estimate.py runs/<run>/nn/best.pth``.

The checkpoint is one of SAC with images and critics that see more (docs/algorithms/asymmetric.md). Its policy drives a
lap; docs/images/estimate.png shows four moments of it, the image above, and below the borders of the road in the frame
of the car: the true ones, and those that the features of the policy's encoder stand for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import torch

import tasks
from algos.algorithms.sac import SAC
from algos.config import NetworkConfig, SACConfig, network_from_plain
from algos.run.checkpoint import load_checkpoint
from tasks.experience.observation import ObservationSpec

PICTURE = Path(__file__).resolve().parent / "images" / "estimate.png"
MOMENTS_S = (2.5, 5.5, 8.0, 11.5)
BORDERS = ("left_border_ahead", "right_border_ahead")
SEED = 5


class Moment(NamedTuple):
    """An observation, and what the policy estimates of its privileged fields."""

    observation: Mapping[str, np.ndarray]
    estimate: Mapping[str, np.ndarray]


def main(path: str) -> None:
    """Drives, prints the errors of the estimate, writes the picture."""
    mpl.use("Agg")
    torch.set_num_threads(1)
    moments = list(lap(path))
    for name in ("velocity", "yaw_rate", *BORDERS):
        errors = np.abs([moment.estimate[name] - moment.observation[name] for moment in moments])
        print(f"{name}: median error {np.median(errors, 0).round(2).tolist()}")
    draw([moments[round(second * 20)] for second in MOMENTS_S if second * 20 < len(moments)], PICTURE)
    print(f"drawn: {PICTURE}")


def lap(path: str) -> Iterator[Moment]:
    """The moments of a lap of the checkpoint's policy, twenty a second."""
    checkpoint = load_checkpoint(path)
    spec = checkpoint.spec()
    network: NetworkConfig = network_from_plain(checkpoint.config["train"]["params"]["network"])
    agent = SAC(spec, SACConfig(), network, torch.device("cpu"), seed=0)
    agent.acting.load_state_dict(checkpoint.algorithm_state["acting"])
    assert agent.estimator is not None, f"{path} has no estimate: it needs an asymmetric critic and an encoder"
    agent.estimator.load_state_dict(checkpoint.algorithm_state["estimator"])
    task = checkpoint.config["task"]
    env = tasks.make(task["name"], observation="dict", track=task["track"], game="sim", privileged=True)
    observation, _ = env.reset(seed=SEED, options={"from_start": True})
    done = False
    while not done:
        with torch.no_grad():
            fields = {name: torch.from_numpy(np.array(value)[None]) for name, value in observation.items()}
            features = agent.acting.encoder(agent.acting.inputs(fields))
            scaled = agent.estimator(features)[0].numpy()
            action = agent.acting.actor(features)[0][0].tanh().numpy()
        yield Moment(observation, unscaled(spec, scaled))
        observation, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
    env.close()


def unscaled(spec: ObservationSpec, scaled: np.ndarray) -> dict[str, np.ndarray]:
    """The privileged fields of a spec in their units, from their scaled numbers one after the other."""
    fields, begin = {}, 0
    for field in spec.privileged_fields:
        part = scaled[begin : begin + field.size].reshape(field.shape)
        fields[field.name], begin = part * field.scale + field.offset, begin + field.size
    return fields


def draw(moments: list[Moment], path: Path) -> None:
    """Writes the picture of some moments, one column each."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(moments), figsize=(3.2 * len(moments), 5.6), height_ratios=(1, 1.5), layout="constrained"
    )
    for (above, below), (observation, estimate) in zip(axes.T, moments, strict=True):
        above.imshow(observation["images"][-1], cmap="gray")
        above.set_title(f"{3.6 * float(np.hypot(*observation['velocity'])):.0f} km/h")
        above.axis("off")
        for fields, style in (
            (observation, {"color": "0.4", "lw": 4}),
            (estimate, {"color": "tab:blue", "marker": "."}),
        ):
            for name in BORDERS:
                below.plot(
                    fields[name][:, 1],
                    fields[name][:, 0],
                    label="road" if fields is observation else "estimate",
                    **style,
                )
        below.plot(0, 0, "^", color="tab:red", ms=10)
        below.set_aspect("equal", adjustable="datalim")
        below.tick_params(labelsize=7)
    axes[1, 0].set_ylabel("forward [m]")
    axes[1, 0].set_xlabel("to the right [m]")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    axes[1, 0].legend(handles[::2], labels[::2], fontsize=8)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main(sys.argv[1])
