"""Fourier transforms, of numbers in pairs: the last dimension holds the real and the imaginary part."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from foldproof.onnx_graph.registry import Numbers, defines, whole_numbers


@defines("DFT")
def dft(
    x: Tensor,
    length: Numbers | None = None,
    along: Numbers | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    """the transform along an axis, cut off or padded with 0 to a length; of it only the first half, if ``onesided``"""
    dim = (axis if along is None else whole_numbers(along)[0]) % x.dim()
    whole = _complex(x)
    if onesided and inverse:
        count = 2 * (whole.shape[dim] - 1) if length is None else whole_numbers(length)[0]
        return cast(Tensor, torch.fft.irfft(whole, count, dim)).unsqueeze(-1)
    count = whole.shape[dim] if length is None else whole_numbers(length)[0]
    made = torch.fft.ifft(whole, count, dim) if inverse else torch.fft.fft(whole, count, dim)
    return torch.view_as_real(made.narrow(dim, 0, count // 2 + 1) if onesided else made)


def _complex(x: Tensor) -> Tensor:
    pairs = x if x.shape[-1] == 2 else functional.pad(x, (0, 1))
    return torch.view_as_complex(pairs.contiguous())


@defines("STFT")
def stft(
    signal: Tensor,
    step: Numbers,
    window: Tensor | None = None,
    length: Numbers | None = None,
    *,
    onesided: int = 1,
) -> Tensor:
    count = whole_numbers(length)[0] if length is not None else cast(Tensor, window).shape[0]
    frames = _complex(signal if signal.dim() == 3 else signal.unsqueeze(-1)).unfold(1, count, whole_numbers(step)[0])
    made = torch.fft.fft(frames if window is None else frames * window, count, -1)
    return torch.view_as_real(made[..., : count // 2 + 1] if onesided else made)
