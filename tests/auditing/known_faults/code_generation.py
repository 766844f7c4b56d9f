"""Known faults of the C++ that is made of loops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._inductor.codegen.cpp import CppOverrides

from tests.auditing.known_faults.fault import KnownFault, given, patched


def _plain(sign: str) -> Any:
    """An operator of C++, whose result is at least an int."""
    return lambda _: staticmethod(lambda a, b: f"({a} {sign} {b})")


def _bytes(x: Tensor) -> Tensor:
    return (x + x).to(torch.int16)


FAULTS = {
    "bytes added as whole numbers": KnownFault(
        "a sum of bytes does not overflow before it is converted",
        105264,
        patched(CppOverrides, "add", _plain("+")),
        _bytes,
        given([128, 7, 200], dtype=torch.uint8),
    ),
    "bytes subtracted as whole numbers": KnownFault(
        "a difference of bytes does not overflow before it is converted",
        113016,
        patched(CppOverrides, "sub", _plain("-")),
        lambda x: (x - 100).to(torch.int16),
        given([128, 7, 200], dtype=torch.uint8),
    ),
    "bytes multiplied as whole numbers": KnownFault(
        "a power of bytes does not overflow before its cosine is taken",
        98149,
        patched(CppOverrides, "mul", _plain("*")),
        lambda x: torch.cos(x.pow(5)),
        given([4, 3, 9], dtype=torch.uint8),
    ),
    "a shift by all bits to the left": KnownFault(
        "a shift to the left by as many bits as a number has leaves it as it is",
        143566,
        patched(CppOverrides, "bitwise_left_shift", _plain("<<")),
        lambda x, n: torch.bitwise_left_shift(x, n),
        given([1000, 5, -3], [64, 2, 64]),
    ),
    "a shift by all bits to the right": KnownFault(
        "a shift to the right by as many bits as a number has leaves it as it is",
        143555,
        patched(CppOverrides, "bitwise_right_shift", _plain(">>")),
        lambda x, n: torch.bitwise_right_shift(x, n),
        given([1000, 5, -3], [64, 2, 64]),
    ),
}
