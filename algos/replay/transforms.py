"""Replay transforms by name: what a plugin does to every batch between the replay memory and the update.

``train.params.config.replay_transforms=[name, ...]`` chooses them; the learner applies them to what it draws from its
memory. Augmentation, relabelling and reward shaping belong here: the stored rows stay as they were driven.
docs/own_algorithms.md has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

ReplayTransform = Callable[[Any, np.random.Generator], Any]
"""Takes a batch (``algos.replay.memory.Batch``) and a generator, returns a batch. The tensors it is given are views of
the memory's buffers and must not be written to."""

_TRANSFORMS: dict[str, ReplayTransform] = {}


def add_replay_transform(name: str, transform: ReplayTransform) -> None:
    """Adds a transform, for ``train.params.config.replay_transforms``; a plugin file calls it when it is imported.

    Args:
        name: A name that is not taken; letters, digits and _.
        transform: Called with a batch and a numpy Generator of its own, from which alone it may draw, so that runs
            repeat and resume exactly. Returns a batch of the same kind with new tensors where it changes some:
            ``batch._replace(reward=...)``.

    Raises:
        ValueError: If the name is taken or cannot be typed.
    """
    if not name.isidentifier():
        raise ValueError(f"the name of a replay transform must be letters, digits and _, got {name!r}")
    if _TRANSFORMS.get(name, transform) is not transform:
        raise ValueError(f"the name {name!r} of a replay transform is taken; choose another one")
    _TRANSFORMS[name] = transform


def replay_transforms(names: Iterable[str]) -> list[tuple[str, ReplayTransform]]:
    """The transforms that are named, in this order, with their names.

    Raises:
        ValueError: If a name is not registered, or is there twice.
    """
    names = list(names)
    if len(set(names)) < len(names):
        raise ValueError(f"train.params.config.replay_transforms must name each transform once, got {names}")
    found = []
    for name in names:
        if name not in _TRANSFORMS:
            known = ", ".join(_TRANSFORMS) or "none"
            raise ValueError(
                f"train.params.config.replay_transforms: unknown {name!r}; registered: {known}; "
                "a file of plugins=[FILE.py] registers more by add_replay_transform"
            )
        found.append((name, _TRANSFORMS[name]))
    return found


class ReplayTransforms:
    """Applies named transforms one after the other, each with a generator of its own.

    Args:
        names: Registered names.
        seed: Of the generators.
    """

    def __init__(self, names: Iterable[str], seed: int) -> None:
        self._transforms = replay_transforms(names)
        numbers = range(len(self._transforms))
        self._generators = [np.random.Generator(np.random.PCG64([seed, number])) for number in numbers]

    def __call__(self, batch: Any) -> Any:
        """The batch after all transforms.

        Raises:
            ValueError: A transform returned something else than a batch.
        """
        for (name, transform), generator in zip(self._transforms, self._generators, strict=True):
            changed = transform(batch, generator)
            if type(changed) is not type(batch):
                raise ValueError(
                    f"the replay transform {name!r} must return a {type(batch).__name__}, got {type(changed).__name__}"
                )
            batch = changed
        return batch

    def rng_state(self) -> dict[str, Any]:
        """States of the generators by name, plain data."""
        pairs = zip(self._transforms, self._generators, strict=True)
        return {name: generator.bit_generator.state for (name, _), generator in pairs}

    def load_rng_state(self, state: Mapping[str, Any]) -> None:
        """Restores what ``rng_state`` returned; a transform that was not there then starts anew."""
        for (name, _), generator in zip(self._transforms, self._generators, strict=True):
            if name in state:
                generator.bit_generator.state = state[name]
