"""Linear maps ``W * x + b``: convolutions, linears, scales and shifts of channels, and averages, read alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch.fx import Node

from foldproof.fusion.absorb.convolution import Convolution, convolve_constant
from foldproof.fusion.absorb.rule import remake, remake_bias
from foldproof.fusion.affines import SOURCES, read_affine
from foldproof.fusion.batching.members import Call, Member, read_member
from foldproof.fusion.merging import kernels
from foldproof.graph.nodes import (
    arguments,
    aten,
    is_edge,
    kind_of,
    operator_node,
    set_argument,
    set_operator,
    set_sizes,
    value_readers,
)
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.edit import Edit
from foldproof.rewriting.expression import Expression, Operand
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import total

LONGEST = 3
"""Largest number of operators in a row that are read as one map."""
_POOLS = frozenset({"avg_pool1d", "avg_pool2d", "avg_pool3d"})
_PRODUCTS = frozenset({"addmm", "mm", "matmul"})


@dataclass(frozen=True)
class LinearMap:
    """A linear map of ``x`` with zero padding, as a convolution; that of a linear has no axes of a kernel.

    ``shape`` is that of the weight, (C_out, C_in/groups, *kernel). ``calls`` are the nodes that compute it, the last
    one first, ``path`` leads from it to x by numbers of operands, and ``operator`` is it if it is a convolution or
    linear. ``work`` is the number of multiplications for each place of the result, and ``products`` the number that it
    takes to multiply weights with weights. A weight of None is that of x. A ``lookup`` takes a column of its weight for
    each whole number in x, as if x were vectors with a single 1.
    """

    x: Node
    weight: Operand
    bias: Operand
    shape: tuple[int, ...]
    groups: int
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    work: float
    calls: tuple[Node, ...] = ()
    path: tuple[int, ...] = ()
    operator: Node | None = None
    products: int = 0
    lookup: bool = False

    @property
    def merged_work(self) -> float:
        """Number of multiplications (or look-ups) for each place of the result, if one operator computes the map."""
        return float(self.shape[0] if self.lookup else math.prod(self.shape))

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.shape[2:]

    @property
    def inputs(self) -> int:
        return self.shape[1] * self.groups

    @property
    def is_pointwise(self) -> bool:
        """True if each place of the result is computed from one place of x."""
        return all(size == 1 for size in self.kernel) and not any(self.padding)

    @property
    def geometry(self) -> tuple[Any, ...]:
        return self.kernel, self.stride, self.padding, self.dilation, self.groups

    @property
    def expression(self) -> Operand:
        """The weight, also of x itself."""
        if self.weight is not None:
            return self.weight
        return Expression(kernels.make_diagonal, (None, self.shape[0], self.kernel, 1.0))


def find_rank(node: Node, constants: Constants) -> int | None:
    """Return the number of kernel axes of a convolution, 0 for a linear or a table, and None for any other node."""
    if Convolution().takes(node, constants):
        return value_of(arguments(node)["weight"]).dim() - 2
    return 0 if kind_of(node) in ("linear", "embedding") or (kind_of(node) in _PRODUCTS and not is_edge(node)) else None


def read_maps(node: Node, rank: int, constants: Constants) -> list[LinearMap]:
    """Return ``node`` as a map of itself, of the value before it, and so on: of more, the more is linear.

    Args:
        node: the node; nothing but the reader that is to be merged with it may read it.
        rank: the number of kernel axes; 0 stands for linears, which have channels on the last axis.
        constants: the constants of the program.
    """
    found = [_identity(node, rank)]
    while len(found) <= LONGEST:
        last = found[-1]
        if last.calls and len(value_readers(last.x)) != 1:
            break
        try:
            step = read_step(last.x, rank, constants)
            found.append(compose(last, step))
        except CannotFold:
            break
    return found


def read_step(node: Node, rank: int, constants: Constants) -> LinearMap:
    """Return the map of a node's operand that the node computes.

    Raises:
        CannotFold: it computes none, or one of another form.
    """
    found = find_rank(node, constants)
    if found is not None:
        if found != rank:
            raise CannotFold(f"{node.name} has other kernels")
        if kind_of(node) == "embedding":
            return _read_table(node, constants)
        return _read_convolution(node, constants) if rank else _read_linear(node, constants)
    if kind_of(node) in _POOLS:
        return _read_pool(node, rank)
    return _read_affine(node, rank, constants)


def compose(outer: LinearMap, inner: LinearMap) -> LinearMap:
    """Return the map ``outer(inner(x))``.

    Raises:
        CannotFold: both have kernels, or the outer one pads with zeros what the inner one shifts.
    """
    if not outer.calls:
        return inner
    name = outer.calls[0].name
    if not (outer.is_pointwise or inner.is_pointwise):
        raise CannotFold(f"{name} and the operator before it have kernels of several taps")
    if inner.is_pointwise and any(step != 1 for step in inner.stride) and not outer.is_pointwise:
        raise CannotFold(f"the operator before {name} skips places")
    if inner.bias is not None and any(outer.padding):
        raise CannotFold(f"{name} pads with zeros what the operator before it shifts")
    groups = math.gcd(outer.groups, inner.groups)
    operands = (outer.expression, inner.expression, outer.groups, inner.groups, groups)
    moved = Expression(convolve_constant, (outer.expression, inner.bias, outer.groups)) if inner.bias else None
    wide = inner if outer.is_pointwise else outer
    return LinearMap(
        x=inner.x,
        weight=Expression(kernels.compose, operands),
        bias=total(outer.bias, moved),
        shape=(outer.shape[0], inner.inputs // groups, *wide.kernel),
        groups=groups,
        stride=tuple(a * b for a, b in zip(outer.stride, inner.stride, strict=True)),
        padding=wide.padding,
        dilation=wide.dilation,
        work=outer.work + inner.work * math.prod(outer.stride),
        calls=(*outer.calls, *inner.calls),
        path=(*outer.path, *inner.path),
        operator=outer.operator,
        products=outer.products + inner.products + math.prod(outer.shape) * math.prod(inner.shape[1:]),
        lookup=inner.lookup,
    )


def add(base: LinearMap, other: LinearMap, factor: float, whole: float) -> LinearMap:
    """Return the map whole·(base + factor·other), computed by the operator of ``base``.

    Raises:
        CannotFold: the strides or sizes differ, the taps do not meet, or the sum needs more multiplications.
    """
    if (base.shape[0], base.inputs) != (other.shape[0], other.inputs) or base.stride != other.stride:
        raise CannotFold("their strides or numbers of channels differ")
    kernel, padding, dilation = _unite(base, other)
    groups = math.gcd(base.groups, other.groups)
    shape = (base.shape[0], base.inputs // groups, *kernel)
    weights = (_place(one, groups, kernel, padding, dilation) for one in (base, other))
    bias = base.bias if other.bias is None else total(base.bias, _times(other.bias, factor))
    found = replace(
        base,
        weight=Expression(kernels.join, (*weights, factor, whole)),
        bias=_times(bias, whole),
        shape=shape,
        groups=groups,
        padding=padding,
        dilation=dilation,
        products=base.products + other.products,
    )
    require_no_more_work(found.merged_work, base.work + other.work)
    return replace(found, work=found.merged_work)


def require_no_more_work(merged: float, apart: float) -> None:
    """Check that one operator needs no more multiplications for each place of the result.

    Raises:
        TakesLonger: it needs more.
    """
    if merged > apart:
        raise TakesLonger(f"one operator would take {merged:.0f} multiplications for each place instead of {apart:.0f}")


class TakesLonger(CannotFold):
    """Operators could become one, but that would take more multiplications."""


def plan_edit(new: LinearMap, rule: str, constants: Constants) -> Edit:
    """Plan to let the operator of a map compute it from its ``x``.

    Raises:
        CannotFold: x lies in memory in another order than the operand.
    """
    node = new.operator
    assert node is not None
    if new.lookup:
        [table] = [arguments(call)["weight"] for call in new.calls if kind_of(call) == "embedding"]
        rows = Expression(kernels.make_rows, (new.weight, new.bias))
        return Edit(rule, node, remake(table, "weight", rows, constants), partial(_install_table, new.path))
    if new.kernel:
        given = arguments(node)
        weight, bias = given["weight"], given["bias"]
        _require_like_layout(new.x, given["input"], node)
        old = _read_convolution(node, constants)
        geometry = {
            name: list(getattr(new, name))
            for name in ("stride", "padding", "dilation")
            if getattr(old, name) != getattr(new, name)
        }
        install = partial(_install_convolution, new.path, geometry | {"groups": new.groups})
        expression = new.weight
    else:
        member = _read_member(node)
        weight, bias = member.weight, member.bias
        _require_like_layout(new.x, member.x, node)
        is_linear = kind_of(node) == "linear" or (kind_of(node) == "matmul" and new.bias is not None)
        expression = new.weight if is_linear else Expression(kernels.swap, (new.weight,))
        install = partial(_install_linear, new.path, _call_linear if is_linear else member.called)
    wanted = remake(weight, "weight", expression, constants)
    if new.bias is not None:
        wanted += remake_bias(node, bias, weight, "bias", new.bias, constants)
    return Edit(rule, node, wanted, install)


def _install_convolution(
    path: tuple[int, ...], geometry: Mapping[str, Any], node: Node, constants: Mapping[str, Node]
) -> None:
    for name, value in {"input": _follow(node, path), **constants, **geometry}.items():
        if arguments(node)[name] != value:
            set_argument(node, name, value)


def _install_linear(
    path: tuple[int, ...], called: Callable[..., Call], node: Node, constants: Mapping[str, Node]
) -> None:
    given = arguments(node)
    bias = constants.get("bias", given["self"] if kind_of(node) == "addmm" else given.get("bias"))
    node.target, node.args, node.kwargs = called(_follow(node, path), constants["weight"], bias)


def _install_table(path: tuple[int, ...], node: Node, constants: Mapping[str, Node]) -> None:
    indices = _follow(node, path)
    if kind_of(node) != "embedding":
        set_operator(node, aten.embedding.default)
        node.args, node.kwargs = (constants["weight"], indices), {}
        return
    set_argument(node, "weight", constants["weight"])
    set_argument(node, "indices", indices)


def _call_linear(x: Node, weight: Node, bias: Node | None) -> Call:
    return aten.linear.default, (x, weight) if bias is None else (x, weight, bias), {}


def _follow(node: Node, path: tuple[int, ...]) -> Node:
    """Return the node that a path of operands, by their number, leads to."""
    for number in path:
        node = node.all_input_nodes[number]
    return node


def _identity(node: Node, rank: int) -> LinearMap:
    value = value_of(node)
    if not value.is_floating_point() or value.dim() < 2 or (rank and value.dim() != rank + 2):
        raise CannotFold(f"{node.name} has no channels")
    channels = value.shape[1 if rank else -1]
    if not isinstance(channels, int):
        raise CannotFold(f"the channels of {node.name} have a dynamic size")
    return _diagonal(node, rank, channels, (1,) * rank, None)


def _diagonal(x: Node, rank: int, channels: int, kernel: tuple[int, ...], weight: Operand) -> LinearMap:
    ones, zeros = (1,) * rank, (0,) * rank
    work = float(channels * math.prod(kernel))
    return LinearMap(x, weight, None, (channels, 1, *kernel), channels, ones, zeros, ones, work)


def _read_affine(node: Node, rank: int, constants: Constants) -> LinearMap:
    call = operator_node(node)
    if not any(source.takes(call, constants) for source in SOURCES):
        raise CannotFold(f"{node.name} is not linear")
    step = read_affine(call, constants)
    if (
        step.results != (node,)
        or step.strip is not None
        or step.between
        or value_of(step.input).shape != value_of(node).shape
    ):
        raise CannotFold(f"{node.name} is not linear")
    same = _identity(step.input, rank)
    axis = 1 if rank else value_of(node).dim() - 1
    if any(other != axis for other in step.affine.axes):
        raise CannotFold(f"{node.name} scales along another axis than the channels")
    scale, shift = step.affine.vectors(axis, same.inputs)
    weight = Expression(kernels.make_diagonal, (scale, same.inputs, same.kernel, 1.0))
    calls = (node,) if node is call else (node, call)
    path = (*([0] if node is not call else []), call.all_input_nodes.index(step.input))
    return replace(same, weight=weight, bias=shift, calls=calls, path=path)


def _read_pool(node: Node, rank: int) -> LinearMap:
    given = arguments(node)
    kernel = _repeat(given["kernel_size"], rank)
    padding = _repeat(given["padding"], rank)
    same = _identity(node, rank)
    if given["ceil_mode"] or (any(padding) and not given["count_include_pad"]):
        raise CannotFold(f"{node.name} divides by other numbers at the border")
    divisor = given.get("divisor_override") or math.prod(kernel)
    weight = Expression(kernels.make_diagonal, (None, same.inputs, kernel, float(divisor)))
    found = _diagonal(given["self"], rank, same.inputs, kernel, weight)
    stride = _repeat(given["stride"] or kernel, rank)
    return replace(found, stride=stride, padding=padding, calls=(node,), path=(0,))


def _read_convolution(node: Node, constants: Constants) -> LinearMap:
    given = arguments(node)
    weight = value_of(given["weight"])
    rank = weight.dim() - 2
    if value_of(node).dim() != weight.dim():
        raise CannotFold(f"{node.name} has no batch axis")
    shape = tuple(int(size) for size in weight.shape)
    return LinearMap(
        x=given["input"],
        weight=constants.expression(given["weight"], f"the weight of {node.name}"),
        bias=constants.optional(given["bias"], f"the bias of {node.name}"),
        shape=shape,
        groups=int(given["groups"]),
        stride=_repeat(given["stride"], rank),
        padding=_read_padding(node, given),
        dilation=_repeat(given["dilation"], rank),
        work=float(math.prod(shape)),
        calls=(node,),
        path=(node.all_input_nodes.index(given["input"]),),
        operator=node,
    )


def _read_linear(node: Node, constants: Constants) -> LinearMap:
    member = _read_member(node)
    weight: Operand = constants.expression(member.weight, f"the weight of {node.name}")
    shape = tuple(int(size) for size in value_of(member.weight).shape)
    if member.weight_axis == 1:
        weight, shape = Expression(kernels.swap, (weight,)), shape[::-1]
    bias = constants.optional(member.bias, f"the bias of {node.name}")
    work, path = float(math.prod(shape)), (node.all_input_nodes.index(member.x),)
    return LinearMap(
        x=member.x,
        weight=weight,
        bias=bias,
        shape=shape,
        groups=1,
        stride=(),
        padding=(),
        dilation=(),
        work=work,
        calls=(node,),
        path=path,
        operator=node,
    )


def _read_table(node: Node, constants: Constants) -> LinearMap:
    given = arguments(node)
    weight = constants.expression(given["weight"], f"the table of {node.name}")
    rows, size = (int(size) for size in value_of(given["weight"]).shape)
    return LinearMap(
        x=given["indices"],
        weight=Expression(kernels.swap, (weight,)),
        bias=None,
        shape=(size, rows),
        work=float(size),
        calls=(node,),
        path=(node.all_input_nodes.index(given["indices"]),),
        operator=node,
        lookup=True,
        groups=1,
        stride=(),
        padding=(),
        dilation=(),
    )


def _read_member(node: Node) -> Member:
    member = read_member(node)
    if member is None or (isinstance(member.kind, tuple) and member.kind[1:] != (1, 1)):
        raise CannotFold(f"{node.name} multiplies by no constant matrix")
    return member


def _require_like_layout(x: Node, old: Node, node: Node) -> None:
    """Check that the axes of two values lie in memory in the same order, so that ``node`` keeps its own layout."""
    orders = [sorted(range(value_of(v).dim()), key=lambda axis: -set_sizes(value_of(v).stride(axis))) for v in (x, old)]
    if orders[0] != orders[1]:
        raise CannotFold(f"{x.name} lies in memory in another order than {old.name}, which {node.name} reads")


def _repeat(x: Any, count: int) -> tuple[int, ...]:
    given = tuple(x) if isinstance(x, (list, tuple)) else (x,)
    return given * count if len(given) == 1 else given


def _read_padding(node: Node, given: Mapping[str, Any]) -> tuple[int, ...]:
    kernel = value_of(given["weight"]).shape[2:]
    padding = given["padding"]
    if padding == "valid":
        return (0,) * len(kernel)
    if padding == "same":
        both = [(size - 1) * step for size, step in zip(kernel, _repeat(given["dilation"], len(kernel)), strict=True)]
        if any(n % 2 for n in both):
            raise CannotFold(f"the padding of {node.name} is wider on one side")
        return tuple(n // 2 for n in both)
    return _repeat(padding, len(kernel))


def _unite(base: LinearMap, other: LinearMap) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the kernel, padding and dilation that have the taps of both maps.

    Raises:
        CannotFold: the taps do not meet, or lie further out on one side.
    """
    found = []
    for k, q, p, o, d, e in zip(
        base.kernel, other.kernel, base.padding, other.padding, base.dilation, other.dilation, strict=True
    ):
        step = d if k > 1 or q == 1 else e
        first = min(-p, -o)
        last = max(-p + step * (k - 1), -o + step * (q - 1))
        size = (last - first) // step + 1
        if (p - o) % step or (k > 1 and q > 1 and d != e):
            raise CannotFold("their taps do not meet")
        if -2 * first - step * (size - 1) != 2 * p - step * (k - 1):
            raise CannotFold("one would need padding on one side only")
        found.append((size, -first, step))
    kernel, padding, dilation = zip(*found) if found else ((), (), ())
    return kernel, padding, dilation


def _place(
    one: LinearMap, groups: int, kernel: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]
) -> Operand:
    """Return the weight of a map in a kernel that has its taps, and in fewer groups."""
    weight = one.expression
    if one.groups != groups:
        weight = Expression(kernels.regroup, (weight, one.groups, groups))
    if one.kernel == kernel:
        return weight
    offset = tuple((p - own) // step for p, own, step in zip(padding, one.padding, dilation, strict=True))
    return Expression(kernels.place, (weight, offset, kernel))


def _times(bias: Operand, factor: float) -> Operand:
    return bias if bias is None or factor == 1 else Expression(kernels.times, (bias, factor))
