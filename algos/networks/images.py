"""Pure functions of batches of images: augmentation, and the order of pixels that convolutions read fast."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor


def random_shift(image: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shifts each image by up to ``pixels`` along both axes, repeating edge pixels (DrQ).

    All channels, hence all frames of a stack, shift alike.

    Args:
        image: Shape (B, C, H, W), any dtype.
        pixels: Largest shift [px].
        generator: Where the shifts are drawn, on the CPU or on the image's device.
    """
    batch, _, height, width = image.shape
    shifts = torch.randint(-pixels, pixels + 1, (2, batch, 1), generator=generator, device=generator.device)
    shifts = shifts.to(image.device)
    rows = (torch.arange(height, device=image.device) + shifts[0]).clamp_(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=image.device) + shifts[1]).clamp_(0, width - 1)  # (B, W)
    index = (rows[:, :, None] * width + columns[:, None, :]).view(batch, 1, -1)  # (B, 1, H*W)
    return image.flatten(2).gather(2, index.expand(-1, image.shape[1], -1)).view(image.shape)


def to_blocks(image: Tensor, kernel: int, stride: int) -> Tensor:
    """Cuts images into blocks of stride x stride pixels, one channel per pixel of a block.

    A convolution with kernel k and stride s is one with kernel k/s and stride 1 over these blocks. Moving bytes so
    is much cheaper than converting a strided image to channels-last float32.

    Args:
        image: uint8, shape (B, C, H, W).
        kernel: Kernel of the convolution, a multiple of the stride.
        stride: Its stride.

    Returns:
        uint8, shape (B, C*s*s, H', W') in channels-last order, without the pixels that the convolution never reaches.
    """
    batch, channels, height, width = image.shape
    rows, columns = ((size - kernel) // stride + kernel // stride for size in (height, width))
    image = image[:, :, : rows * stride, : columns * stride]
    word = {2: torch.int16, 4: torch.int32, 8: torch.int64}.get(stride)
    is_exported = torch.onnx.is_in_onnx_export()  # ONNX cannot see bytes as words
    if word is None or is_exported:  # moved byte by byte, (B, C, Y, y, X, x) -> (B, Y, X, C, y, x)
        blocks = image.reshape(batch, channels, rows, stride, columns, stride).permute(0, 2, 4, 1, 3, 5).contiguous()
    elif _is_for_numpy(image):
        words = _aligned(image, stride).view(word).numpy().reshape(batch, -1)
        blocks = torch.from_numpy(words.take(_block_order(channels, rows, columns, stride), axis=1)).view(torch.uint8)
    else:  # moved word by word, (B, C, Y, y, X) -> (B, Y, X, C, y)
        words = _aligned(image, stride).view(word).unflatten(2, (rows, stride))
        blocks = words.permute(0, 2, 4, 1, 3).contiguous().view(torch.uint8)
    return blocks.view(batch, rows, columns, channels * stride * stride).permute(0, 3, 1, 2)


def _is_for_numpy(image: Tensor) -> bool:
    """Whether numpy moves its words: on a CPU it takes two fifths of torch's time."""
    return image.device.type == "cpu"


@cache
def _block_order(channels: int, rows: int, columns: int, stride: int) -> np.ndarray:
    """Where the words of an image's blocks are in the image: (Y, X, C, y) of (C, Y, y, X), flat."""
    places = np.arange(channels * rows * stride * columns).reshape(channels, rows, stride, columns)
    return places.transpose(1, 3, 0, 2).ravel()


def block_kernel(weight: Tensor, stride: int) -> Tensor:
    """The weight (O, C, k, k) of a strided convolution for blocks: (O, C*s*s, k/s, k/s)."""
    outputs, channels, kernel, _ = weight.shape
    count = kernel // stride
    split = weight.reshape(outputs, channels, count, stride, count, stride)
    blocks = split.permute(0, 2, 4, 1, 3, 5).reshape(outputs, count, count, channels * stride * stride)
    return blocks.permute(0, 3, 1, 2)


def _aligned(image: Tensor, size: int) -> Tensor:
    """The image itself where its bytes can be seen as words of this size, else a copy that can."""
    strides = (*image.stride()[:-1], image.storage_offset())
    fits = image.stride(-1) == 1 and all(step % size == 0 for step in strides)
    return image if fits else image.contiguous()
