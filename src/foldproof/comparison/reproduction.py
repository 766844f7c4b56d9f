"""A script that shows a wrong answer with nothing but PyTorch."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from foldproof.comparison.attribution import Part
from foldproof.comparison.candidate import Candidate
from foldproof.comparison.judge import number
from foldproof.log import log_caught
from foldproof.rounding.float64 import Float64
from foldproof.spec import BACKENDS

SMALL = 512
"""Numbers that a script may spell out."""


def reproduce(part: Part, candidate: Candidate) -> str | None:
    """A script in which the operators of ``part``, compiled alone, are wrong; None where none was found.

    Its inputs are random, or spelt out where they have to be and are few. It is run here, before it is given away.
    """
    if candidate.compile is None or candidate.backend not in BACKENDS:
        return None
    compiled = candidate.compile(part.module)
    random = tuple(_random(x, i) for i, x in enumerate(part.inputs))
    if _wrong(part, compiled, random):
        made = [_random_source(x, i) for i, x in enumerate(part.inputs)]
    elif sum(x.numel() for x in part.inputs) <= SMALL and _wrong(part, compiled, part.inputs):
        made = [f"torch.tensor({x.tolist()}, dtype={x.dtype})" for x in part.inputs]
    else:
        return None
    return _script(part, candidate.backend, made)


def _wrong(part: Part, compiled: object, inputs: Sequence[Tensor]) -> bool:
    """True if the compiled part is much further from the float64 result than eager."""
    assert callable(compiled)
    try:
        with torch.no_grad():
            eager, other = part.module(*inputs), compiled(*inputs)
            with Float64():
                float64 = part.module(*(x.double() if x.is_floating_point() else x for x in inputs))
    except Exception as error:
        log_caught(error, "running operators alone")
        return False
    e, o, t = (number(x) for x in (eager, other, float64))
    scale = float(t.abs().max()) * torch.finfo(eager.dtype).eps if t.numel() and eager.is_floating_point() else 0.0
    return float((o - t).abs().max()) > 16 * (float((e - t).abs().max()) + scale)


def _random(x: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    if x.is_floating_point():
        return torch.randn(x.shape, dtype=x.dtype)
    return torch.randint(int(x.min()), int(x.max()) + 1, x.shape, dtype=x.dtype) if x.numel() else x.clone()


def _random_source(x: Tensor, seed: int) -> str:
    shape = tuple(x.shape)
    if x.is_floating_point():
        return f"(torch.manual_seed({seed}), torch.randn({shape}, dtype={x.dtype}))[1]"
    low, high = (int(x.min()), int(x.max()) + 1) if x.numel() else (0, 1)
    return f"(torch.manual_seed({seed}), torch.randint({low}, {high}, {shape}, dtype={x.dtype}))[1]"


def _script(part: Part, backend: str, inputs: Sequence[str]) -> str:
    code = re.sub(r";  \w+ = None.*", "", part.module.code.strip()).replace("def forward(self, ", "def f(")
    code = re.sub(r"def forward\(self\)", "def f()", code)
    made = "\n".join(f"    {source}," for source in inputs)
    return f"""\
import torch


{code}


inputs = (
{made}
)
with torch.no_grad():
    eager = f(*inputs)
    compiled = torch.compile(f, backend="{backend}")(*inputs)
    truth = f(*(x.double() if x.is_floating_point() else x for x in inputs))  # the float64 baseline
print("eager − float64:   ", (eager.double() - truth).abs().max().item())
print("compiled − float64:", (compiled.double() - truth).abs().max().item())
print("on outputs up to   ", truth.abs().max().item(), "torch", torch.__version__)
"""
