"""Matrix products: in which precision they are computed, and by which library on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from algos.config import Precision

_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""What ``torch.cpu.get_capabilities`` calls the units of a CPU that multiply bfloat16."""
_MATMUL: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
"""torch's setting of the precision of oneDNN's matrix products."""


def chosen_precision(precision: Precision, device: torch.device) -> Precision:
    """float32 or bfloat16; ``auto`` is float32, as nothing was learned better in bfloat16 (docs/results.md).

    Raises:
        ValueError: If the device has no bfloat16 products.
    """
    if precision is Precision.auto:
        return Precision.float32
    if precision is Precision.bfloat16 and not multiplies_bfloat16(device):
        raise ValueError(
            f"train.params.config.precision must be auto or float32 on {device.type}, got bfloat16: this "
            + ("processor has neither AVX512_BF16 nor AMX" if device.type == "cpu" else "GPU has no bfloat16 products")
        )
    return precision


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has units for products of bfloat16 matrices; without them they are slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    units = torch.cpu.get_capabilities()
    return any(units.get(unit, False) for unit in _BFLOAT16_UNITS)


@contextmanager
def products(precision: Precision, device: torch.device) -> Iterator[None]:
    """Inside, matrix products and convolutions of float32 tensors have this precision, those of float64 their own.

    With bfloat16 both factors and the result are rounded to it, while the sum inside a product has float32. Weights,
    losses and optimisers are float32 in any case.
    """
    with fast_matmul():
        if precision is Precision.bfloat16:
            # Not cached: the weights change inside, and casts made without gradient would be taken for those with.
            with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
                yield
        else:
            yield


def product_dtype(weight: Tensor) -> torch.dtype:
    """The type in which this weight is multiplied here."""
    kind = weight.device.type
    is_cast = weight.dtype == torch.float32 and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if is_cast else weight.dtype


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
