"""The agent of DAgger: gives the algorithm its teacher."""

from __future__ import annotations

import torch

from algos.algorithms.dagger import DAgger
from algos.faces.agent import OffPolicyAgent
from algos.faces.teacher import load_teacher
from tasks.experience.observation import ObservationSpec


class DAggerAgent(OffPolicyAgent):
    """An ``OffPolicyAgent`` whose algorithm has a teacher."""

    def make_algorithm(self, spec: ObservationSpec, device: torch.device, seed: int) -> DAgger:
        """Builds the algorithm, and the teacher that it imitates."""
        algorithm = super().make_algorithm(spec, device, seed)
        assert isinstance(algorithm, DAgger)
        algorithm.follow(load_teacher(algorithm.config, spec))
        return algorithm
