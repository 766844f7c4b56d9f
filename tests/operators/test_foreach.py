"""Operators on lists, against the real ones on PyTorch's own samples; and proofs of programs with them."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal import common_methods_invocations as database
from torch.utils._pytree import tree_leaves, tree_map

from foldproof import prove
from foldproof.operators import define_foreach
from foldproof.rounding.noise import Noise
from foldproof.shadow import Semantics, Shadow, Undecided, embed_constant
from foldproof.verdict import Kind
from tests.shadow.reals import RealPoint

aten = torch.ops.aten
ENTRIES = [
    *database.foreach_unary_op_db,
    *database.foreach_binary_op_db,
    *database.foreach_pointwise_op_db,
    *database.foreach_reduce_op_db,
    *database.foreach_other_op_db,
]
SAMPLES = 24
LISTS = 4
"""Number of tensors that are kept of each list: samples have twenty."""


def samples(entry: Any, dtype: torch.dtype) -> list[Any]:
    found = []
    for sample in itertools.islice(entry.sample_inputs("cpu", dtype, noncontiguous=False), SAMPLES):
        lists = [
            x[-LISTS:] if isinstance(x, (list, tuple)) and len(x) > LISTS else x for x in (sample.input, *sample.args)
        ]
        kwargs = {k: x[-LISTS:] if isinstance(x, (list, tuple)) else x for k, x in sample.kwargs.items()}
        lists = [x[-LISTS:] if isinstance(x, Tensor) and x.ndim == 1 and x.numel() == 20 else x for x in lists]
        found.append((lists, kwargs))
    return found


def copied(x: Any) -> Any:
    return tree_map(lambda t: t.detach().clone() if isinstance(t, Tensor) else t, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_real_operators(entry: Any, dtype: torch.dtype) -> None:
    """On shadows, each form gives what the real operator does, in place, too."""
    if dtype not in entry.dtypes:
        pytest.skip("no samples of this dtype")
    ran, checked = 0, 0
    for args, kwargs in samples(entry, dtype):
        for function in (entry.method_variant, entry.inplace_variant):
            if function is None:
                continue
            plain = copied((args, kwargs))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    result = function(*plain[0], **plain[1])
                except Exception:
                    continue
            ran += 1
            expected = plain[0][0] if function is entry.inplace_variant else result
            point = RealPoint(Semantics())

            def shadow(t: Any, point: RealPoint = point) -> Any:
                number = isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())
                return Shadow(t.clone(), embed_constant(point, t)) if number else t

            with torch.no_grad(), contextlib.suppress(Undecided):
                given = tree_map(shadow, copied((args, kwargs)))
                result = function(*given[0], **given[1])
                found = given[0][0] if function is entry.inplace_variant else result
                for x, y in zip(tree_leaves(found), tree_leaves(expected), strict=True):
                    assert (x.shape, x.dtype) == (y.shape, y.dtype)
                    for part in (x.value, x.residue.parts[0]) if isinstance(x, Shadow) else (x,):
                        torch.testing.assert_close(part, y.to(part.dtype), rtol=1e-9, atol=1e-9, equal_nan=True)
                checked += 1
    assert checked or not ran
    assert checked or dtype.is_complex


def test_every_operator_of_a_known_kind_has_a_definition() -> None:
    missing = []
    for name in torch._C._dispatch_get_all_op_names():
        packet, _, overload = name.removeprefix("aten::").partition(".")
        if name.startswith("aten::_foreach_") and "out" not in overload:
            operator = getattr(getattr(aten, packet), overload or "default")
            if define_foreach(operator) is None:
                missing.append(name)
    assert not missing
    assert define_foreach(aten.add.Tensor) is None and define_foreach(aten._foreach_add.List_out) is None


XS, YS = [torch.randn(3), torch.randn(2, 2)], [torch.randn(3), torch.randn(2, 2)]
Program = Callable[..., Any]


def adam(*tensors: Tensor) -> list[Tensor]:
    parameters, gradients = list(tensors[:2]), list(tensors[2:])
    mean, square = [torch.zeros_like(p) for p in parameters], [torch.zeros_like(p) for p in parameters]
    torch._foreach_lerp_(mean, gradients, 0.1)
    torch._foreach_mul_(square, 0.999)
    torch._foreach_addcmul_(square, gradients, gradients, 0.001)
    divisor = torch._foreach_sqrt(square)
    torch._foreach_div_(divisor, 0.5)
    torch._foreach_add_(divisor, 1e-8)
    return [p.addcdiv(m, d, value=-0.25) for p, m, d in zip(parameters, mean, divisor)]


def adam_by_loop(*tensors: Tensor, eps: float = 1e-8) -> list[Tensor]:
    out = []
    for p, g in zip(tensors[:2], tensors[2:]):
        mean = torch.zeros_like(p).lerp(g, 0.1)
        square = (torch.zeros_like(p) * 0.999).addcmul(g, g, value=0.001)
        out.append(p.addcdiv(mean, square.sqrt() / 0.5 + eps, value=-0.25))
    return out


PAIRS: dict[str, tuple[Program, Program, Program]] = {
    "alpha": (
        lambda a, b, c, d: torch._foreach_add([a, b], [c, d], alpha=2),
        lambda a, b, c, d: [a + 2 * c, b + 2 * d],
        lambda a, b, c, d: [a + 2 * c, b + d],
    ),
    "numbers": (
        lambda a, b, c, d: torch._foreach_mul([a, b], [2.0, 3.0]),
        lambda a, b, c, d: [a * 2, b * 3],
        lambda a, b, c, d: [a * 3, b * 2],
    ),
    "in place": (
        lambda a, b, c, d: (torch._foreach_mul_([a, b], [c, d]), a + 1, b)[1:],
        lambda a, b, c, d: (a.mul_(c) + 1, b.mul_(d)),
        lambda a, b, c, d: (a.mul_(c) + 1, b.mul(d)),
    ),
    "one tensor twice": (
        lambda a, b, c, d: (torch._foreach_add_([a, a], [c, c]), a)[1],
        lambda a, b, c, d: a.add_(2 * c),
        lambda a, b, c, d: a.add_(c),
    ),
    "norm": (
        lambda a, b, c, d: torch._foreach_norm([a, b]),
        lambda a, b, c, d: [a.norm(), b.norm()],
        lambda a, b, c, d: [a.norm(), b.norm(1)],
    ),
    "adam": (adam, adam_by_loop, lambda *t: adam_by_loop(*t, eps=1e-2)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_programs(name: str) -> None:
    listed, loop, wrong = PAIRS[name]
    inputs = (*XS, *YS)
    assert prove(listed, loop, inputs).kind is Kind.PROVED
    assert prove(listed, wrong, inputs).kind is Kind.REFUTED


def test_rounding_is_that_of_the_elements() -> None:
    with Noise(torch.Generator().manual_seed(0)) as noise:
        moved = torch._foreach_mul([x.double() for x in XS], [y.double() for y in YS])
    assert not noise.unknown
    for x, y, z in zip(XS, YS, moved):
        error = (x.double() * y.double() - z).abs()
        assert 0 < float(error.max()) < 1e-6
