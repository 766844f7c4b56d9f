"""PyTorch's operator database, function by function: whole Python functions on shadows, over the real numbers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_leaves, tree_map

from foldproof.shadow import Semantics, Shadow, Undecided, embed_constant
from tests.shadow.calls import copied, floats, is_float, samples_of
from tests.shadow.reals import RealPoint

ENTRIES = {f"{entry.name}-{entry.variant_test_name}": entry for entry in op_db if torch.float64 in entry.dtypes}

SAMPLES = 8  # of each entry; `test_rules` takes more
UNINITIALISED = ("empty", "resize")


@pytest.mark.parametrize("name", ENTRIES)
def test_function(name: str, record_property: Callable[[str, object], None]) -> None:
    """A function either computes on residues what it does in float64, or is UNDECIDED; it never fails otherwise."""
    entry = ENTRIES[name]
    passed = 0
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for sample in samples_of(entry, SAMPLES):
            arguments = _widened((sample.input, sample.args, sample.kwargs))
            if not floats(arguments):
                continue
            expected = None
            with contextlib.suppress(Exception):  # samples that this platform cannot run
                expected = _called(entry.op, copied(arguments))
            if expected is None:
                continue
            with contextlib.suppress(Undecided):
                results = _called(entry.op, _on_reals(arguments))
                assert len(results) == len(expected)
                for result, plain in zip(results, expected):
                    if isinstance(plain, Tensor) and not any(word in name for word in UNINITIALISED):
                        _assert_same(result, plain)
                passed += 1
    record_property("samples", passed)


GRADIENTS = [name for name, entry in ENTRIES.items() if entry.supports_autograd]
GRADIENT_SAMPLES = 4
SINGLE = {"nn.functional.hardsigmoid-"}
"""Functions whose derivative multiplies by a float32 number in any dtype, here by a sixth."""


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str, record_property: Callable[[str, object], None]) -> None:
    """Autograd on shadows either computes the gradients that it does in float64, or is UNDECIDED."""
    entry = ENTRIES[name]
    passed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sample in samples_of(entry, GRADIENT_SAMPLES):
            arguments = _widened((sample.input, sample.args, sample.kwargs))
            if not floats(arguments):
                continue
            expected = None
            with contextlib.suppress(Exception):
                expected = _gradients(entry.op, copied(arguments))
            if expected is None:
                continue
            with contextlib.suppress(Undecided):
                results = _gradients(entry.op, _on_reals(arguments))
                assert [x is None for x in results] == [x is None for x in expected]
                for result, plain in zip(results, expected):
                    if plain is not None and bool(plain.isfinite().all()):
                        _assert_close(result, plain, torch.float32 if name in SINGLE else plain.dtype)
                passed += 1
    record_property("samples", passed)


def _gradients(function: Callable[..., Any], arguments: Any) -> list[Any]:
    arguments = tree_map(lambda t: t.requires_grad_() if is_float(t) else t, arguments)
    outputs = [x for x in _called(function, arguments) if isinstance(x, Tensor) and x.requires_grad]
    generator = torch.Generator().manual_seed(0)
    cotangents = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in outputs]
    return list(torch.autograd.grad(outputs, floats(arguments), cotangents, allow_unused=True))


def _widened(x: Any) -> Any:
    return tree_map(lambda t: t.double() if is_float(t) else t, x)


def _on_reals(x: Any) -> Any:
    point = RealPoint(Semantics())
    return tree_map(lambda t: Shadow(t.clone(), embed_constant(point, t)) if is_float(t) else copied(t), x)


def _called(function: Callable[..., Any], arguments: Any) -> list[Any]:
    first, args, kwargs = arguments
    return tree_leaves(function(first, *args, **kwargs))


def _assert_same(result: Tensor, plain: Tensor) -> None:
    assert (result.shape, result.dtype, result.stride()) == (plain.shape, plain.dtype, plain.stride())
    if isinstance(result, Shadow):
        resolved: Any = result.resolve_conj()
        (part,) = (torch.view_as_real(x) if x.is_complex() else x for x in resolved.residue.parts)
        _assert_close(part, torch.view_as_real(plain.resolve_conj()) if plain.is_complex() else plain, plain.dtype)
    elif not plain.dtype.is_floating_point and not plain.is_complex():
        assert torch.equal(result, plain)


def _assert_close(result: Tensor, plain: Tensor, dtype: torch.dtype) -> None:
    part = result.residue.parts[0] if isinstance(result, Shadow) else result
    rtol = max(1e-9, 4 * torch.finfo(dtype).eps)  # casts to a narrower dtype are identities
    atol = rtol * (1 + float(torch.where(plain.isfinite(), plain, 0.0).abs().sum()))
    torch.testing.assert_close(part.double(), plain.double(), rtol=rtol, atol=atol, equal_nan=True)
