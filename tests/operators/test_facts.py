"""Facts about operators, against their behavior, for all operators that PyTorch's operator database leads to."""

from __future__ import annotations

import contextlib
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import foldproof
from foldproof.operators import (
    bind_arguments,
    find_functional_form,
    find_operator,
    get_types,
    is_functional,
    is_random,
    is_repeatable,
    list_shared,
    list_updated_statistics,
    list_written,
    writes_out,
)
from tests.shadow.calls import samples_of

aten = torch.ops.aten


SOURCES = Path(foldproof.__file__).parent


def test_no_other_module_reads_schemas_and_tags() -> None:
    reads = re.compile(r"\._schema\b|\.tags\b|\balias_info\b|\btorch\.Tag\b")
    found = [path for path in SOURCES.rglob("*.py") if reads.search(path.read_text(encoding="utf-8"))]
    assert {path.parent.relative_to(SOURCES).as_posix() for path in found} == {"operators"}


def all_operators(*namespaces: str) -> list[OpOverload]:
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = name.partition("::")
        packet, _, overload = rest.partition(".")
        if namespace in namespaces:
            with contextlib.suppress(AttributeError):
                found.append(getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default"))
    return sorted(found, key=str)


def copied(x: Any) -> Any:
    return tree_map(lambda t: t.detach().clone() if isinstance(t, Tensor) else t, x)


def tensors(x: Any) -> list[Tensor]:
    return [t for t in tree_leaves(x) if isinstance(t, Tensor) and t.layout is torch.strided]


def memory(x: Any) -> set[int]:
    return {t.untyped_storage()._cdata for t in tensors(x) if t.numel()}


def same(a: Any, b: Any) -> bool:
    """True if all tensors hold the same bits."""
    pairs = list(zip(tensors(a), tensors(b), strict=True))
    return all(p.shape == q.shape and torch.equal(_bits(p), _bits(q)) for p, q in pairs)


def _bits(t: Tensor) -> Tensor:
    t = t.detach().resolve_conj().resolve_neg().contiguous().clone()
    return t.reshape(-1).view(torch.uint8) if t.numel() else t


class Checked(TorchDispatchMode):
    """Compares each call with what is said of it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[OpOverload] = set()
        self.wrong: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = bind_arguments(func, args, kwargs or {})
        before = copied(given)
        if is_repeatable(func, given):
            first, second = (func(*copied(args), **copied(kwargs or {})) for _ in range(2))
            if not same(first, second):
                self.wrong.add(f"{func} gives something else the second time")
        out = func(*args, **(kwargs or {}))
        written = {*list_written(func), *list_updated_statistics(func, given)}
        for name, value in given.items():
            if name not in written and not same(value, before[name]):
                self.wrong.add(f"{func} writes to {name}")
            if name not in list_shared(func) and memory(value) & memory(out):
                self.wrong.add(f"{func} returns memory of {name}")
        self.seen.add(func)
        return out


def test_what_is_said_of_operators_is_so() -> None:
    from torch.testing._internal.common_methods_invocations import op_db

    checked = Checked()
    torch.manual_seed(0)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for entry in op_db:
            if torch.float32 not in entry.dtypes:
                continue
            for sample in samples_of(entry, 2, torch.float32):
                with checked, contextlib.suppress(Exception):  # what this platform cannot run
                    entry.op(sample.input, *sample.args, **sample.kwargs)
    assert not checked.wrong
    assert len(checked.seen) > 400


X = torch.randn(3, 4)

MAY_RETURN_ARGUMENT = {
    aten.dropout.default: (X, 0.5, False),
    aten.alpha_dropout.default: (X, 0.5, False),
    aten.feature_dropout.default: (X, 0.5, False),
    aten.feature_alpha_dropout.default: (X, 0.5, False),
    aten.einsum.default: ("ij->ji", [X]),
    aten.sum_to_size.default: (X, [3, 4]),
    aten.atleast_1d.default: (X,),
    aten.atleast_2d.Sequence: ([X],),
    aten.atleast_3d.default: (X,),
    aten.broadcast_tensors.default: ([X, X],),
    aten.meshgrid.default: ([X[0], X[1]],),
    aten.cartesian_prod.default: ([X[0]],),
    aten.conj_physical.default: (X,),
    aten.lift.default: (X,),
    aten.to_dense.default: (X,),
    aten.unsafe_chunk.default: (X, 2),
    aten.type_as.default: (X, torch.randn(2)),
    aten.dequantize.self: (X,),
    aten._cast_Float.default: (X,),
    aten.flatten_dense_tensors.default: ([X],),
}


@pytest.mark.parametrize("operator", MAY_RETURN_ARGUMENT, ids=str)
def test_operators_that_share_memory_and_do_not_say_so(operator: OpOverload) -> None:
    args = MAY_RETURN_ARGUMENT[operator]
    assert not any(result.alias_info for result in operator._schema.returns)
    assert memory(args) & memory(operator(*args))
    given = bind_arguments(operator, args, {})
    assert memory(args) <= memory([given[name] for name in list_shared(operator)])


CALLS: list[Any] = [
    *[(X,), (X, torch.randn(3, 4)), (X, [3, 4]), (X, 0), (X, 3), (X, 1.0), (X, 0, 0), (X, True), (X, False), (X, [])],
    *[([X],), ([X, torch.randn(3, 4)],), (X, 0.5, False), (X, torch.float32), (X, torch.randn(3, 4), torch.ones(3, 4))],
]
OF_TESTS = {aten._foobar.default, aten._test_parallel_materialize.default, aten._test_string_default.default}


def test_no_other_operator_shares_memory_and_does_not_say_so() -> None:
    wrong, called = set(), set()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for operator in all_operators("aten"):
            for args in CALLS if not list_written(operator) and operator not in OF_TESTS else []:
                with contextlib.suppress(Exception):  # what the operator does not take
                    out, given = operator(*args), bind_arguments(operator, args, {})
                    called.add(operator)
                    unsaid = [x for name, x in given.items() if name not in list_shared(operator)]
                    wrong |= {str(operator)} if memory(unsaid) & memory(out) else set()
    assert not wrong
    assert len(called) > 300


NORMS = [
    operator
    for operator in all_operators("aten")
    if "running_mean" in get_types(operator) and "backward" not in str(operator) and not writes_out(operator)
]

GIVEN: dict[str, Any] = {"input": torch.randn(4, 3, 5), "training": True, "use_input_stats": True, "momentum": 0.5}
GIVEN |= {"eps": 1e-5, "cudnn_enabled": False, "epsilon": 1e-5, "exponential_average_factor": 0.5}
GIVEN |= {"mean": torch.randn(1, 3), "invstd": torch.rand(1, 3), "count": 5, "counts": torch.ones(1)}


@pytest.mark.parametrize("operator", NORMS, ids=str)
def test_normalizations_that_update_statistics(operator: OpOverload) -> None:
    statistics = {"running_mean": torch.zeros(3), "running_var": torch.ones(3)}
    given = {name: GIVEN.get(name) for name in get_types(operator)} | statistics
    before = copied(statistics)
    said = list_updated_statistics(operator, given)
    try:
        operator(**given)
    except (NotImplementedError, RuntimeError) as reason:
        assert said, reason  # of those for other devices only, all update
        return
    assert bool(said) is not same(statistics, before)
    assert not is_functional(operator, given) or not said
    off = given | {flag: False for flag in ("training", "use_input_stats") if flag in given}
    assert off == given or not list_updated_statistics(operator, off)
    assert not list_updated_statistics(operator, given | {"running_mean": None, "running_var": None})


def test_every_operator_that_takes_a_generator_is_random() -> None:
    taking = [o for o in all_operators("aten", "prims") if any("Generator" in kind for kind in get_types(o).values())]
    assert len(taking) > 50
    assert all(map(is_random, taking))


@pytest.mark.parametrize(
    ("operator", "args", "functional", "repeatable"),
    [
        (aten.mul.Tensor, (X, X), True, True),
        (aten.dropout.default, (X, 0.5, True), False, False),
        (aten.dropout.default, (X, 0.5, False), True, True),
        (aten.native_dropout.default, (X, 0.5, None), False, False),  # None asks for training
        (aten.native_dropout.default, (X, 0.5, False), True, True),
        (aten.rrelu.default, (X, 0.1, 0.3, True), False, False),
        (aten.rrelu.default, (X, 0.1, 0.3, False), True, True),
        (aten.scaled_dot_product_attention.default, (X, X, X, None, 0.1), False, False),
        (aten.scaled_dot_product_attention.default, (X, X, X), True, True),
        (aten.fractional_max_pool2d.default, (X[None], [2, 2], [1, 1], torch.rand(1, 1, 2)), True, True),
        (aten.bernoulli.p, (X, 0.5), False, False),
        (aten.empty.memory_format, ([3],), True, False),
        (aten.empty_like.default, (X,), True, False),
        (aten.new_empty_strided.default, (X, [3], [1]), True, False),
        (aten.resize.default, (X, [100]), True, False),
        (aten.from_file.default, ("a file",), True, False),
        (aten._assert_async.msg, (X, ""), True, True),
        (aten._print.default, ("text",), False, False),
        (aten.add_.Tensor, (X, X), False, False),
        (aten.add.out, (X, X), False, False),
    ],
    ids=lambda x: "" if isinstance(x, tuple) else str(x),  # random numbers differ among workers
)
def test_what_a_call_does(operator: OpOverload, args: tuple[Any, ...], functional: bool, repeatable: bool) -> None:
    given = bind_arguments(operator, args, {})
    assert (is_functional(operator, given), is_repeatable(operator, given)) == (functional, repeatable)


def test_operators_of_inductor_that_do_not_say_what_they_do() -> None:
    from torch._inductor import inductor_prims  # noqa: F401  (defines them)

    prims, inductor = torch.ops.prims, torch.ops.inductor
    assert is_random(prims.inductor_random.default)
    assert not is_functional(inductor.accumulate_grad_.default, {})
    assert not is_functional(inductor.resize_storage_bytes_.default, {})


@pytest.mark.parametrize(
    ("operator", "form", "memory", "options"),
    [
        (aten.add_.Tensor, aten.add.Tensor, (), ()),
        (aten.mm.out, aten.mm.default, ("out",), ()),
        (aten.norm.dtype_out, aten.norm.ScalarOpt_dim_dtype, ("out",), ()),
        (aten.__ilshift__.Scalar, None, (), ()),
        (aten.zeros.out, aten.zeros.default, ("out",), ("dtype", "layout", "device", "pin_memory")),
        (aten.mm.default, None, (), ()),
        (aten.uniform_.default, aten.uniform.default, (), ()),
    ],
    ids=str,
)
def test_functional_forms(operator: Any, form: Any, memory: Any, options: Any) -> None:
    found = find_functional_form(operator)
    assert found == (None if form is None else (form, memory, options))


def test_the_operator_under_another() -> None:
    class Edge:
        _op = aten.mm.default

    assert find_operator(Edge()) is find_operator(aten.mm.default) is aten.mm.default
    assert find_operator(aten.relu) is None  # of several overloads
    assert find_operator(torch.relu) is find_operator("relu") is None
