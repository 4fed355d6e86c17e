"""Training without train.py: this program makes environment, workers, learner and the link between them itself.

python docs/examples/library.py      two worker processes teach the drone of own_interface.py to fly to its target

``docs/library.md`` explains it. Replace the parts that you write yourself: environment, policy, algorithm, link.
"""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import torch
from own_interface import virtual_env

from algos.acting.policy import ActingPolicy
from algos.algorithms.sac import SAC
from algos.config import NetworkConfig, SACConfig, WarmUp
from algos.replay.memory import ReplayMemory
from tasks.acting.rollout import Rollout
from tasks.experience.networking import LearnerLink, WorkerLink
from tasks.remote.learner.gateway import Gateway
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire.link import Hello, decode_weights

SPEC = virtual_env().observation_spec
NETWORK = NetworkConfig(hidden=[64, 64])
CPU = torch.device("cpu")


def act(link: WorkerLink, name: str, seed: int) -> None:
    """A worker: acts in an environment with the newest weights and sends what it experienced."""
    policy = ActingPolicy(SPEC, NETWORK, seed, WarmUp.uniform, CPU)
    rollout = Rollout(virtual_env().observe_as("dict"), policy, name, 0, seed)
    while link.wait_for_room():
        if (message := link.take_newest()) is not None:
            policy.load_weights(*decode_weights(message))
        link.send(rollout.run(num_rows=32))


def learn(link: LearnerLink, env_steps: int) -> None:
    """The learner: stores segments, makes one update for each step, and publishes the newest weights."""
    memory = ReplayMemory(SPEC, env_steps, n_step=3, gamma=0.95, seed=0)
    algorithm = SAC(SPEC, SACConfig(lr_actor=1e-3, lr_critic=1e-3), NETWORK, CPU, seed=0)
    returns: list[float] = []
    while len(memory) < env_steps:
        for segment in link.receive(timeout_s=1.0, max_segments=1):
            memory.append(segment)
            link.acknowledge(memory.received)  # only now the worker deletes it and continues
            returns += [episode["return"] for episode in segment.episodes]
            if len(memory) > 1000:
                for _ in range(segment.num_env_steps):
                    algorithm.update(memory.sample(batch_size=128))
                link.publish(algorithm.acting_weights(), version=algorithm.num_updates)
            if len(returns) >= 10:
                print(f"{len(memory)} rows, mean return {np.mean(returns):.1f}", flush=True)
                returns.clear()


def work(address: str, token: str, index: int) -> None:
    """A worker process: connects to the learner, then acts until it is terminated."""
    torch.set_num_threads(1)
    hello = Hello(f"worker-{index}", index, "worker", SPEC.fingerprint())
    uplink = Uplink(address, token, hello, threading.Event())
    uplink.connect()
    uplink.start(push=True)
    act(uplink, hello.worker, seed=index)


def main() -> None:
    """Starts two worker processes and learns in this one."""
    torch.set_num_threads(1)
    with Gateway(SPEC, SPEC.fingerprint()) as gateway:
        for index in range(2):
            arguments = (gateway.address, gateway.token, index)
            multiprocessing.get_context("spawn").Process(target=work, args=arguments, daemon=True).start()
        learn(gateway, env_steps=4000)


if __name__ == "__main__":
    main()
