"""Changes of PyTorch's settings of precision, those of a process: ``python -m tests.rounding.settings NAME``.

PyTorch can't put them all back: some operators then complain that settings disagree.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from foldproof.rounding import operands
from foldproof.rounding.operands import rounded_as_set

aten = torch.ops.aten
backends: Any = torch.backends


def errors(*devices: str) -> tuple[float, float] | None:
    """The errors of the number 1.0 on the CPU, as an operand of a matrix product and of a convolution."""
    found, one = rounded_as_set(devices), torch.ones((), dtype=torch.float64)
    return found and (float(found(aten.mm.default, one)), float(found(aten.convolution.default, one)))


def cuda_rounds_operands_of_convolutions_unless_told_otherwise() -> None:
    assert operands._setting("cuda", True) == "tf32" and operands._setting("cuda", False) == "none"
    backends.cudnn.conv.fp32_precision = "ieee"
    assert rounded_as_set(["cuda"]) is None
    backends.cuda.matmul.fp32_precision = "tf32"
    assert rounded_as_set(["cuda"]) is not None


def other_devices_do_as_they_are_set() -> None:
    assert errors("cpu") is None and errors("cpu", "cuda") == (0.0, 0.0)
    backends.mkldnn.matmul.fp32_precision = "bf16"
    assert errors("cpu", "cuda") == (2.0**-8, 0.0)
    backends.mkldnn.conv.fp32_precision = "tf32"
    assert errors("cpu") == (2.0**-8, 2.0**-11) and errors() is None


def a_setting_of_all_is_one_of_each() -> None:
    backends.fp32_precision = "tf32"
    assert errors("cpu") == (2.0**-11, 2.0**-11)


CHECKS = (
    cuda_rounds_operands_of_convolutions_unless_told_otherwise,
    other_devices_do_as_they_are_set,
    a_setting_of_all_is_one_of_each,
)

if __name__ == "__main__":
    next(check for check in CHECKS if check.__name__ == sys.argv[1])()
