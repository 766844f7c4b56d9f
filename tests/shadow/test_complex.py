"""Complex numbers: PyTorch's operator database over the real numbers and modulo p, views, bits and writes."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from foldproof.shadow import SamplePoint, Semantics, Shadow, Undecided, draw_variable, embed_constant
from foldproof.shadow.registry import COMPLEX, RULES
from tests.shadow.calls import copied, samples_of
from tests.shadow.reals import RealPoint

aten = torch.ops.aten
ENTRIES = {f"{e.name}-{e.variant_test_name}": e for e in op_db if torch.complex128 in e.dtypes}

SAMPLES = 4
NARROW = ("bfloat16", "half", "float", "cfloat", "chalf", "cov")
"""Casts to a narrower dtype, which are read as the identity; `cov` has weights in float32."""
UNINITIALISED = ("empty", "resize")

EXACT = (
    *(
        "add",
        "sub",
        "rsub",
        "mul",
        "neg",
        "addcmul",
        "square",
        "mm",
        "bmm",
        "mv",
        "dot",
        "vdot",
        "baddbmm",
    ),
    *(
        "addmv",
        "addr",
        "outer",
        "matmul",
        "sum",
        "cumsum",
        "conj",
        "conj_physical",
        "real",
        "imag",
        "index_add",
        "trace",
    ),
    *("index_put", "scatter", "scatter_add", "cat", "stack", "where", "masked_fill", "einsum", "kron", "tril", "roll"),
    *("view_as_real", "resolve_conj", "complex", "linalg.cross", "diagonal_scatter", "constant_pad_nd", "index_fill"),
)
"""Functions that are exact on small whole numbers."""


def is_number(x: Any) -> bool:
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex()) and x.layout is torch.strided


def pairs(x: Tensor) -> Tensor:
    """Return a tensor in memory of its own, complex numbers as pairs."""
    x = x.resolve_conj().resolve_neg()
    return torch.view_as_real(x) if x.is_complex() else x


def on_shadows(arguments: Any, point: SamplePoint) -> Any:
    return tree_map(lambda t: Shadow(t.clone(), embed_constant(point, t)) if is_number(t) else copied(t), arguments)


def called(function: Callable[..., Any], arguments: Any) -> list[Any]:
    first, args, kwargs = arguments
    return tree_leaves(function(first, *args, **kwargs))


@pytest.mark.parametrize("name", ENTRIES)
def test_function_over_the_reals(name: str, record_property: Callable[[str, object], None]) -> None:
    """On complex numbers a function computes on residues what it does in complex128, or is UNDECIDED."""
    passed = 0
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for sample in samples_of(ENTRIES[name], SAMPLES, torch.complex128):
            arguments = sample.input, sample.args, sample.kwargs
            expected = None
            with contextlib.suppress(Exception):  # samples that this platform cannot run
                expected = called(ENTRIES[name].op, copied(arguments))
            if expected is None:
                continue
            with contextlib.suppress(Undecided):
                results = called(ENTRIES[name].op, on_shadows(arguments, RealPoint(Semantics())))
                assert len(results) == len(expected)
                if not any(word in name for word in (*NARROW, *UNINITIALISED)):
                    for result, plain in zip(results, expected):
                        assert_same(result, plain)
                passed += 1
    record_property("samples", passed)


def assert_same(result: Any, plain: Any) -> None:
    if not isinstance(plain, Tensor):
        assert result == plain
        return
    assert (result.shape, result.dtype) == (plain.shape, plain.dtype)
    if isinstance(result, Shadow):
        resolved: Any = result.resolve_conj().resolve_neg()
        wanted = pairs(plain).double()
        atol = 1e-9 * (1 + float(torch.where(wanted.isfinite(), wanted, 0.0).abs().sum()))
        for found in (pairs(resolved.residue.parts[0]), pairs(resolved.value).double()):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=atol, equal_nan=True)


@pytest.mark.parametrize("name", [n for n in ENTRIES if n.split("-")[0] in EXACT])
def test_exact_functions_modulo_p(name: str) -> None:
    """On whole numbers, the value modulo p is the residue, for every prime."""
    checked = 0

    def whole(x: Any) -> Any:
        if is_number(x):
            real = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
            rounded = real.clamp(-9, 9).round()
            return torch.view_as_complex(rounded) if x.is_complex() else rounded
        return x.to(torch.int64) if isinstance(x, Tensor) and x.dtype is torch.uint8 else x

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for sample in samples_of(ENTRIES[name], SAMPLES, torch.complex128):
            arguments = tree_map(whole, (sample.input, sample.args, sample.kwargs))
            if any(isinstance(x, (float, complex)) and x * 4 != int((x * 4).real) for x in tree_leaves(arguments)):
                continue  # a factor that is no multiple of 1/4
            point = SamplePoint(seed=checked, k=3)
            for result in called(ENTRIES[name].op, on_shadows(arguments, point)):
                if isinstance(result, Shadow) and not point.evaluations:
                    resolved: Any = result.resolve_conj().resolve_neg()
                    wanted = embed_constant(point, resolved.value)
                    for part, exact in zip(resolved.residue.parts, wanted.parts):
                        assert torch.equal(pairs(part), pairs(exact))
                    checked += 1
    assert checked


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func)
        return func(*args, **(kwargs or {}))


def test_every_definition_is_reached() -> None:
    """The database, or a call here, reaches every definition; a name that is missing has no test."""
    z, x, at = torch.randn(3, 4, dtype=torch.complex128), torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 2])
    own: list[tuple[Any, tuple[Any, ...]]] = [
        (aten.add.Scalar, (z, 1 + 2j)),
        (aten.sub.Scalar, (z, 1 + 2j, 2)),
        (aten.rsub.Scalar, (z, 1 - 1j)),
        (aten.rsub.Scalar, (x, 1j)),
        (aten.mul.Scalar, (z, 2j)),
        (aten.div.Scalar, (z, 1 + 1j)),
        (aten.div.Tensor, (x, z)),
        (aten.where.ScalarSelf, (x > 0, 1j, z)),
        (aten.where.ScalarOther, (x > 0, z, 1.5)),
        (aten.eq.Scalar, (z, 1j)),
        (aten.ne.Scalar, (x, 1j)),
        (aten.ne.Tensor, (z, x)),
        (aten.eq.Tensor, (x, z)),
        (aten.index_add.default, (z, 0, at, z[:2])),
        (aten._conj_physical.default, (z,)),
        (aten.conj_physical.default, (z,)),
        (aten.conj_physical.default, (x,)),
        (aten.angle.default, (x,)),
        (aten.silu.default, (z,)),
        (aten._fft_r2c.default, (x, [0, 1], 1, True)),
        (aten._fft_r2c.default, (x, [1], 0, False)),
        (aten.lerp.Tensor, (z, z * 2j, z)),
        (aten.view.dtype, (z, torch.float64)),
        (aten.view.dtype, (x, torch.complex128)),
        (aten.view_as_real.default, (z,)),
        (aten.view_as_complex.default, (x.view(3, 2, 2),)),
        (aten._to_copy.default, (z,)),
        (aten.complex.default, (x, x)),
        (aten.polar.default, (x, x)),
        (
            aten.addmm.default,
            (
                z,
                z[:, :3],
                z,
            ),
        ),
    ]
    recorder = _Recorder()
    with recorder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for entry in ENTRIES.values():
            for sample in samples_of(entry, SAMPLES, torch.complex128):
                with contextlib.suppress(Exception):
                    entry.op(sample.input, *sample.args, **sample.kwargs)
    reached = recorder.seen
    for operator, args in own:
        with torch.no_grad():
            expected = operator(*copied(args))
            assert_same(operator(*on_shadows(args, RealPoint(Semantics()))), expected)
            assert_same(operator(*on_shadows(args, RealPoint(Semantics(algebraic=True)))), expected)
    assert COMPLEX.keys() <= reached | {operator for operator, _ in own}


# Views, bits and writes.


@pytest.fixture
def point() -> SamplePoint:
    return SamplePoint(seed=7, k=2)


def variable(point: SamplePoint, *shape: int) -> Any:
    z = torch.randn(*shape, dtype=torch.complex64)
    return Shadow(z, draw_variable(point, z, data=True))


def same(a: Any, b: Any) -> bool:
    a, b = (t.resolve_conj().resolve_neg() for t in (a, b))
    close = torch.allclose(pairs(a.value), pairs(b.value), atol=1e-6)
    return close and all(torch.equal(p, q) for p, q in zip(a.residue.parts, b.residue.parts))


WRITES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "real part": (lambda z: z.real.mul_(2), lambda z: torch.complex(2 * z.real, z.imag)),
    "imaginary part": (lambda z: z.imag.fill_(3), lambda z: torch.complex(z.real, torch.full_like(z.real, 3))),
    "part of the conjugate": (lambda z: z.conj().imag.fill_(3), lambda z: z.real - 3j),
    "negative view": (lambda z: z.conj().imag.add_(1), lambda z: z - 1j),
    "conjugate": (lambda z: z.conj().mul_(1j), lambda z: z * -1j),
    "row of the conjugate": (lambda z: z.conj()[0].copy_(z[1]), lambda z: torch.cat([z[1:2].conj(), z[1:]])),
    "transposed conjugate": (lambda z: z.mH[:, 0].fill_(1j), lambda z: torch.cat([z[:1] * 0 - 1j, z[1:]])),
    "pairs": (lambda z: torch.view_as_real(z)[..., 1].neg_(), lambda z: z.conj()),
    "numbers of the memory": (lambda z: z.view(torch.float32)[:, ::2].zero_(), lambda z: z.imag * 1j),
    "complex view of pairs": (
        lambda z: torch.view_as_complex(torch.view_as_real(z)).mul_(2j),
        lambda z: z * 2j,
    ),
    "real numbers": (lambda z: z.copy_(z.real.clone()), lambda z: z.real + 0j),
    "in place": (lambda z: z.conj_physical_(), lambda z: z.conj()),
    "out": (lambda z: torch.mul(z, 2j, out=z), lambda z: z * 2j),
    "masked": (lambda z: z.masked_fill_(z.real > 0, 1j), lambda z: torch.where(z.real > 0, 1j, z)),
    "index": (
        lambda z: z.__setitem__((0, torch.tensor([1, 2])), 5),
        lambda z: torch.cat([torch.cat([z[:1, :1], 5 + 0 * z[:1, 1:3], z[:1, 3:]], 1), z[1:]]),
    ),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes(name: str, point: SamplePoint) -> None:
    """A write through a view, whatever its bits, shows in the tensor and in all other views of it."""
    z = variable(point, 3, 4)
    write, result = WRITES[name]
    with torch.no_grad():
        wanted = result(z.clone())
        views = z.conj(), z.real, z.mT, torch.view_as_real(z)
        write(z)
        assert same(z, wanted)
        for view, seen in zip(views, (wanted.conj(), wanted.real, wanted.mT, torch.view_as_real(wanted.clone()))):
            assert same(view, seen)


def test_copies_and_reshapes_of_conjugates(point: SamplePoint) -> None:
    z = variable(point, 3, 4)
    with torch.no_grad():
        conjugate = z.conj()
        assert same(copy.deepcopy(conjugate), conjugate) and same(copy.deepcopy(z.conj().imag), z.conj().imag)
        both: Any = copy.deepcopy([z, conjugate])
        both[0].mul_(2j)
        assert same(both[1], (z * 2j).conj())
        transposed = z.conj()
        transposed.t_()
        assert same(transposed, z.mH)
        assert same(torch.nn.Parameter(z.conj()).detach(), conjugate)


def test_casts_to_real_numbers_drop_the_imaginary_part(point: SamplePoint) -> None:
    z, out = variable(point, 3), None
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert same(z.to(torch.float32), z.real.clone())
        out = z.real.clone().zero_()
        out.copy_(z.conj() * 1j)
        assert same(out, z.imag)
        with pytest.raises((Undecided, RuntimeError)):
            out.add_(z)


def test_kernels_with_conjugates_inside_see_them(point: SamplePoint) -> None:
    """PyTorch resolves no conjugate in the code of a dispatch mode by itself."""
    z = variable(point, 3, 3)
    with torch.no_grad():
        torch.testing.assert_close(torch.linalg.pinv(z).value, torch.linalg.pinv(z.value))


def test_infinite_parts(point: SamplePoint) -> None:
    """Products of infinite complex numbers follow conventions that residues do not show."""
    with torch.no_grad():
        for z in (torch.tensor([complex(float("inf"), 1)]), torch.tensor([complex(0, float("-inf"))])):
            with pytest.raises(Undecided):
                Shadow(z, embed_constant(point, z)) * 2j
            with pytest.raises(Undecided):
                Shadow(z, embed_constant(point, z)).clone()
        z = torch.tensor([complex(float("nan"), 1)])
        with pytest.raises(Undecided):
            Shadow(z, embed_constant(point, z)) * 2j
        x = torch.tensor([[float("inf"), 1.0]])
        with pytest.raises(Undecided):
            torch.view_as_complex(Shadow(x, embed_constant(point, x)))
        z = variable(point, 2)
        z.real[0] = float("inf")
        with pytest.raises(Undecided):
            z * z


def test_other_uses_of_memory_are_undecided(point: SamplePoint) -> None:
    z = variable(point, 4)
    with torch.no_grad():
        with pytest.raises(Undecided, match="bits"):
            z.view(torch.float64)
        with pytest.raises(Undecided, match="bits"):
            z.real.clone().view(torch.int32)
        with pytest.raises((Undecided, RuntimeError)):
            torch.view_as_real(z.conj())


def test_structural_rules_say_so() -> None:
    """Every view of a tensor is a view of complex ones: no view may go by parts, whose result is new memory."""
    assert not [op for op, rule in RULES.items() if rule.view and not rule.complex]
