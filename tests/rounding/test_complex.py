"""Bounds for complex numbers, against complex64 kernels on the samples of the operator database."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from foldproof import compare
from foldproof.rounding.answers import Rounding, find_rounding
from foldproof.rounding.bound import bound_errors
from foldproof.rounding.complex import has_bound, involves_complex
from foldproof.rounding.noise import Noise
from foldproof.verdict import Kind
from tests.shadow.calls import samples_of

ENTRIES = {f"{e.name}-{e.variant_test_name}": e for e in op_db if torch.complex64 in e.dtypes}

SLACK = 2.0
SAMPLES = 4
UNINITIALIZED = ("empty", "resize", "new_empty", "as_strided")
"""And operators that show memory as it is laid out."""


class _Checked(TorchDispatchMode):
    """Compare each call of an operator with a bound with the same call in complex128."""

    def __init__(self) -> None:
        super().__init__()
        self.checked: set[str] = set()
        self.beyond: dict[str, float] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(word in str(func) for word in UNINITIALIZED) or func._schema.is_mutable:
            return func(*args, **kwargs)
        wide_args, wide_kwargs = tree_map(_widen, (args, kwargs))
        out = func(*args, **kwargs)
        if not involves_complex(args, out) or not has_bound(func, find_rounding(func) is Rounding.EXACT):
            return out
        exact = func(*wide_args, **wide_kwargs)
        bounds = bound_errors(func, exact, wide_args, wide_kwargs, torch.float32)
        for x, y, bound in zip(tree_leaves(out), tree_leaves(exact), bounds, strict=True):
            if isinstance(x, Tensor) and (x.is_complex() or x.is_floating_point()):
                error = (_parts(x) - _parts(y)).abs()
                limit = torch.zeros(x.shape) if bound is None else SLACK * bound + torch.finfo(torch.float32).tiny
                limit = limit.unsqueeze(-1) if x.is_complex() else limit
                close = (error <= limit) | ~_parts(y).isfinite() | (error == 0)
                if not bool(close.all()):
                    self.beyond[str(func)] = float((error / limit)[~close].max())
                self.checked.add(str(func))
        return out


def _widen(x: Any) -> Any:
    wider = {torch.complex64: torch.complex128, torch.float32: torch.float64}
    if isinstance(x, torch.dtype):
        return wider.get(x, x)
    return x.detach().to(wider[x.dtype]) if isinstance(x, Tensor) and x.dtype in wider else x


def _parts(x: Tensor) -> Tensor:
    x = x.resolve_conj().resolve_neg()
    return (torch.view_as_real(x) if x.is_complex() else x).double()


@pytest.mark.parametrize("third", range(3))
def test_kernels_keep_the_bound(third: int) -> None:
    mode = _Checked()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in [*ENTRIES][third::3]:
            for sample in samples_of(ENTRIES[name], SAMPLES, torch.complex64):
                with mode, contextlib.suppress(Exception):  # samples that this platform cannot run
                    ENTRIES[name].op(sample.input, *sample.args, **sample.kwargs)
    assert len(mode.checked) > 15 and not mode.beyond


def test_complex_elements_move_in_both_parts() -> None:
    z = torch.randn(64, dtype=torch.complex128)
    with Noise(torch.Generator().manual_seed(0)) as noise:
        moved = z * z
    error = torch.view_as_real(moved - z * z).abs()
    assert bool((error > 0).all()) and float(error.max()) < 1e-5
    assert not noise.unknown


class _Spectral(torch.nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(8, 5, dtype=torch.complex64))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * self.weight * self.scale, s=x.shape[-2:])


def test_a_spectral_layer_is_compared() -> None:
    x = torch.randn(3, 8, 8)
    assert compare(_Spectral(1.0), _Spectral(1.0), (x,)).kind is Kind.ROUNDING
    assert compare(_Spectral(1.0), _Spectral(1.001), (x,)).kind is Kind.REFUTED
