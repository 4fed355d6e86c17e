"""Counts what an update computes and moves: floating-point operations, and bytes that its operators read and write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


class Work(NamedTuple):
    """Of one call."""

    operations: float
    """Floating-point operations of products and convolutions."""
    moved_bytes: float
    """Sizes of the tensors that operators take and give; what stays in a cache counts all the same."""

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.operations / self.moved_bytes


def counted(call: Callable[[], object]) -> Work:
    """Runs a function once and counts; what it does without torch's operators is not seen."""
    with FlopCounterMode(display=False) as operations, _Bytes() as moved:
        call()
    return Work(float(operations.get_total_flops()), float(moved.count))


class _Bytes(TorchDispatchMode):
    """Sums the sizes of the tensors of all operators; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Lets the operator run and adds what it took and gave."""
        result = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            leaves = tree_leaves((args, kwargs, result))
            self.count += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
        return result
