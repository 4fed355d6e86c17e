"""An algorithm inside another one: what stands between the learner and what learns derives from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from algos.learning.learner import UpdatedAlgorithm


class WrappedAlgorithm:
    """Does what the algorithm does; a subclass adds something to its updates.

    Args:
        algorithm: What learns.
    """

    def __init__(self, algorithm: UpdatedAlgorithm) -> None:
        self._algorithm = algorithm

    def update(self, batch: Any) -> Mapping[str, torch.Tensor]:
        """One update of the algorithm."""
        return self._algorithm.update(batch)

    def acting_weights(self) -> dict[str, np.ndarray]:
        """The algorithm's."""
        return self._algorithm.acting_weights()

    def state_dict(self) -> dict[str, Any]:
        """The algorithm's."""
        return self._algorithm.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The algorithm's."""
        self._algorithm.load_state_dict(state)
