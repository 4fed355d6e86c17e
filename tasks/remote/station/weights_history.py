"""Keeps every k-th version of the weights that a worker gets, as safetensors files (TMRL's SAVE_MODEL_EVERY)."""

from __future__ import annotations

import logging
from pathlib import Path

from tasks.process.atomic_file import write_file
from tasks.remote.wire.link import Weights

_log = logging.getLogger(__name__)


class WeightsHistory:
    """Versions that were kept.

    Args:
        folder: Where the files lie; made with the first.
        every: How many versions further than the last one kept the next has to be; 0: none is kept.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self._folder = folder
        self._every = every
        self._kept = 0

    @property
    def is_kept(self) -> bool:
        """Whether anything is kept at all."""
        return self._every > 0

    def add(self, weights: Weights) -> None:
        """Keeps this version if its turn has come; a worker does not see all of them."""
        if not self.is_kept or 0 <= weights.version - self._kept < self._every:
            return
        import safetensors.numpy

        content = safetensors.numpy.save(weights.arrays, {"version": str(weights.version)})
        try:
            write_file(self._folder / f"{weights.version:09d}.safetensors", content)
        except OSError as error:
            _log.warning("version %d of the weights could not be kept: %s", weights.version, error)
            return
        self._kept = weights.version
