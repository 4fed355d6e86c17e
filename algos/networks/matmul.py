"""Which library multiplies matrices on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

_MATMUL: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
"""torch's setting of the precision of oneDNN's matrix products."""


@contextmanager
def fast_matmul() -> Iterator[None]:
    """Inside, float32 matrix products on the CPU use oneDNN where that is faster and loses no precision.

    torch sends them to MKL, which leaves half of an AMD processor's vector units idle. The setting that routes them
    to oneDNN also permits bfloat16 inside, so it is used only where a test product shows full float32 precision.
    """
    if not _onednn_keeps_precision():
        yield
        return
    before = _MATMUL.fp32_precision
    _MATMUL.fp32_precision = "bf16"
    try:
        yield
    finally:
        _MATMUL.fp32_precision = before


@cache
def _onednn_keeps_precision() -> bool:
    """Whether oneDNN serves float32 products with float32 arithmetic on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    left = torch.linspace(-1.0, 1.0, 256 * 256).sin().view(256, 256)
    right = torch.linspace(1.0, 3.0, 256 * 256).cos().view(256, 256)
    exact = left.double() @ right.double()
    before = _MATMUL.fp32_precision
    _MATMUL.fp32_precision = "bf16"
    try:
        error = (left @ right - exact).abs().max() / exact.abs().max()
    finally:
        _MATMUL.fp32_precision = before
    return error.item() < 1e-5
