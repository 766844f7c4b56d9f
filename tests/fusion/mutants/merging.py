"""Linear operators that are merged wrongly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foldproof.fusion.examples import functional
from foldproof.fusion.merging import branches, chains, kernels, maps
from foldproof.rewriting.expression import Expression
from mutants.mutant import Mutant, Patch, around, decomposed, exported, mutant, patch

_conv = partial(nn.Conv2d, 6, 6)
_line = partial(nn.Conv1d, 6, 6)
_norm = partial(nn.BatchNorm2d, 6)
_shape = (2, 6, 7, 8)
_three = partial(_conv, 3, padding=1)
_row = (2, 6, 9)


def _branches(function: Callable[..., Any], shape: tuple[int, ...] = _shape, **parts: Any) -> Any:
    return exported(functional((shape,), function, **parts))


three_and_one = _branches(lambda m, x: m.a(x) + m.b(x), a=_three, b=partial(_conv, 1))
core_three_and_one = decomposed(three_and_one)
stand_and_lie = _branches(lambda m, x: m.a(x) + m.b(x), a=_three, b=partial(_conv, (3, 1), padding=(1, 0)))
off_centre = _branches(lambda m, x: m.a(x) + m.b(x), a=partial(_conv, (5, 3), padding=(2, 1)), b=partial(_conv, 1))
even = _branches(
    lambda m, x: m.a(x) + m.b(x), (2, 6, 8), a=partial(_line, 3, padding=1, stride=2), b=partial(_line, 2, stride=2)
)
dilated = _branches(lambda m, x: m.a(x) + m.b(x), _row, a=partial(_line, 5, padding=4, dilation=2), b=partial(_line, 1))
other_dilation = _branches(
    lambda m, x: m.a(x) + m.b(x), _row, a=partial(_line, 5, padding=2), b=partial(_line, 3, padding=2, dilation=2)
)
other_stride = _branches(
    lambda m, x: m.a(x) + m.b(x), (2, 6, 3), a=partial(_line, 3, padding=1, stride=2), b=partial(_line, 2)
)
grouped_and_not = _branches(
    lambda m, x: m.a(x) + m.b(x), _row, a=partial(_line, 3, padding=1), b=partial(_line, 1, groups=3)
)
same_padding = _branches(lambda m, x: m.a(x) + m.b(x), a=partial(_conv, 3, padding="same"), b=partial(_conv, 1))
identity = _branches(lambda m, x: m.a(x) + x, a=_three)
grouped_identity = _branches(lambda m, x: m.a(x) + x, _row, a=partial(_line, 3, padding=1, groups=3))
depthwise_identity = _branches(lambda m, x: m.a(x) + x, _row, a=partial(_line, 3, padding=1, groups=6))
normalised = _branches(lambda m, x: m.a(x) + m.n(x), a=_three, n=_norm)
normalised_without_bias = _branches(lambda m, x: m.a(x) + m.n(x), a=partial(_three, bias=False), n=_norm)
scaled_places = _branches(
    lambda m, x: m.a(x) + x * m.k, (2, 6, 6), a=partial(_line, 3, padding=1), k=partial(torch.randn, 6)
)
weighted = _branches(lambda m, x: torch.add(m.a(x), m.b(x), alpha=3), a=_three, b=partial(_conv, 1))
difference = _branches(lambda m, x: x - m.a(x), a=_three)
read_elsewhere = _branches(lambda m, x: ((y := m.a(x)) + (z := m.b(x)), y, z), a=_three, b=partial(_conv, 1))
two_inputs = exported(functional((_shape, _shape), lambda m, x, y: m.a(x) + m.b(y), a=_three, b=partial(_conv, 1)))
twice_the_same = _branches(lambda m, x: (y := m.a(x)) + y, a=_three)
chained = _branches(lambda m, x: m.a(y := m.b(x)) + y, a=_three, b=partial(_conv, 1))
product = _branches(lambda m, x: m.a(x) * m.b(x), a=_three, b=partial(_conv, 1))
average = _branches(lambda m, x: m.a(x) + F.avg_pool2d(x, 3, 1, 1), a=_three)
average_of_what_is_there = _branches(lambda m, x: m.a(x) + F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), a=_three)
average_divided = _branches(lambda m, x: m.a(x) + F.avg_pool2d(x, 3, 1, 1, divisor_override=5), a=_three)
stacked = _branches(lambda m, x: torch.stack([m.a(x), m.b(x), x]).sum(0), a=_three, b=partial(_conv, 1))
stacked_along_channels = _branches(
    lambda m, x: torch.stack([m.a(x), m.b(x)], 1).sum(2),
    (2, 2, 9),
    a=partial(nn.Conv1d, 2, 2, 3, padding=1),
    b=partial(nn.Conv1d, 2, 2, 1),
)
with_another = exported(
    functional((_shape, _shape), lambda m, x, y: m.a(x) + y.sin() + m.b(x), a=_three, b=partial(_conv, 1))
)
halves = exported(
    functional((_shape, _shape), lambda m, x, y: (m.a(x) + y.sin()) - (m.b(x) + y.cos()), a=_three, b=partial(_conv, 1))
)
subtracted_rest = exported(
    functional((_shape, _shape), lambda m, x, y: m.a(x) + (m.b(x) - y.sin()), a=_three, b=partial(_conv, 1))
)
lora = _branches(
    lambda m, x: m.a(x) + m.c(m.b(x)) * 3,
    (4, 6),
    a=partial(nn.Linear, 6, 6),
    b=partial(nn.Linear, 6, 2),
    c=partial(nn.Linear, 2, 6),
)
dora = _branches(
    lambda m, x: (y := m.a(x)) + ((y - m.k) * m.s + m.c(m.b(x)) * m.s),
    (4, 6),
    a=partial(nn.Linear, 6, 6),
    b=partial(nn.Linear, 6, 2, bias=False),
    c=partial(nn.Linear, 2, 6, bias=False),
    k=partial(torch.randn, 6),
    s=partial(torch.randn, 6),
)
dora_read_elsewhere = _branches(
    lambda m, x: ((y := m.a(x)) + y * m.s, y.sin()), (4, 6), a=partial(nn.Linear, 6, 6), s=partial(torch.randn, 6)
)
transposed_terms = _branches(
    lambda m, x: m.a(x.transpose(0, 1)) + m.b(x.transpose(0, 2)),
    (6, 6, 6),
    a=partial(nn.Linear, 6, 6),
    b=partial(nn.Linear, 6, 6),
)


def _of_numbers(function: Callable[..., Any], **parts: Any) -> Any:
    make = functional(((1,),), function, **parts)
    return exported(lambda: (make()[0], (torch.tensor([[0, 1, 2], [1, 1, 0]]),)))


table_sum = _of_numbers(lambda m, x: m.a(x) + m.b(x) * 3, a=partial(nn.Embedding, 5, 6), b=partial(nn.Embedding, 5, 6))
table_linear = _of_numbers(lambda m, x: m.b(m.a(x)), a=partial(nn.Embedding, 5, 6), b=partial(nn.Linear, 6, 4))
other_rows = _of_numbers(
    lambda m, x: m.a(x) + m.b(1 - x.clamp(max=1)), a=partial(nn.Embedding, 5, 6), b=partial(nn.Embedding, 5, 6)
)

one_three = _branches(lambda m, x: m.b(m.a(x)), a=partial(_conv, 1, bias=False), b=_three)
one_three_biased = _branches(lambda m, x: m.b(m.a(x)), a=partial(_conv, 1), b=_three)
one_three_valid = _branches(lambda m, x: m.b(m.a(x)), a=partial(_conv, 1), b=partial(_conv, 3))
one_three_skipping = _branches(lambda m, x: m.b(m.a(x)), a=partial(_conv, 1, bias=False, stride=2), b=partial(_conv, 3))
three_one = _branches(lambda m, x: m.b(m.a(x)), a=partial(_three, stride=2), b=partial(_conv, 1))
three_one_strided = _branches(lambda m, x: m.b(m.a(x)), a=_three, b=partial(_conv, 1, stride=2))
three_three = _branches(lambda m, x: m.b(m.a(x)), a=_three, b=partial(_conv, 3))
grouped_chain = _branches(lambda m, x: m.b(m.a(x)), _row, a=partial(_line, 1, groups=3), b=partial(_line, 3, groups=3))
mixed_groups = _branches(lambda m, x: m.b(m.a(x)), _row, a=partial(_line, 1, groups=2), b=partial(_line, 1))
linears = _branches(lambda m, x: m.b(m.a(x)), (4, 6), a=partial(nn.Linear, 6, 8), b=partial(nn.Linear, 8, 6))
narrow = _branches(lambda m, x: m.b(m.a(x)), (4, 6), a=partial(nn.Linear, 6, 6), b=partial(nn.Linear, 6, 6, bias=False))
core_narrow = decomposed(narrow)
chain_read_elsewhere = _branches(
    lambda m, x: (m.b(y := m.a(x)), y.sin()), (4, 6), a=partial(nn.Linear, 6, 8), b=partial(nn.Linear, 8, 6)
)


def unite(wrong: Callable[..., Any]) -> Patch:
    """Other kernels, paddings and dilations of a sum."""
    return around(maps, "_unite", lambda original, base, other: wrong(*original(base, other)))


def offset(wrong: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Patch:
    """Smaller kernels are placed elsewhere."""
    return around(kernels, "place", lambda original, w, at, kernel: original(w, wrong(at), kernel))


def placed(wrong: Callable[[Tensor], Tensor]) -> Patch:
    return around(kernels, "place", lambda original, *a: wrong(original(*a)))


def joined(wrong: Callable[[Tensor, Tensor], Tensor]) -> Patch:
    """Other sums of two weights."""
    return around(kernels, "join", lambda original, base, other, *a: wrong(base, other))


def factors(wrong: Callable[[float, float], tuple[float, float]]) -> Patch:
    return around(kernels, "join", lambda original, base, other, f, g: original(base, other, *wrong(f, g)))


def diagonal(wrong: Callable[[Tensor], Tensor]) -> Patch:
    """Other kernels of a scale."""
    return around(kernels, "make_diagonal", lambda original, *a: wrong(original(*a)))


def spread(wrong: Callable[[Tensor], Tensor]) -> Patch:
    """Other weights in fewer groups."""
    return around(kernels, "regroup", lambda original, w, *a: wrong(original(w, *a)))


def step(wrong: Callable[[Any], Any]) -> Patch:
    """Operators are read as other maps."""
    return around(maps, "read_step", lambda original, *a: wrong(original(*a)))


def composed(wrong: Callable[[Tensor], Tensor]) -> Patch:
    return around(kernels, "compose", lambda original, *a: wrong(original(*a)))


def as_map(wrong: Callable[[Any, Any, Any], Any]) -> tuple[Patch, ...]:
    """Two operators in a row are other maps, wherever they are composed."""

    def compose(original: Any, outer: Any, inner: Any) -> Any:
        return original(outer, inner) if not outer.calls else wrong(original, outer, inner)

    return (around(maps, "compose", compose), around(chains, "compose", compose))


def careless_unite(base: Any, other: Any) -> Any:
    """Kernels are put together in the middle, wherever their taps are."""
    return base.kernel, base.padding, base.dilation


def in_the_middle(one: Any, groups: int, kernel: Any, padding: Any, dilation: Any) -> Any:
    if one.kernel == kernel:
        return one.expression
    at = tuple((size - small) // 2 for size, small in zip(kernel, one.kernel))
    return Expression(kernels.place, (one.expression, at, kernel))


careless = (patch(maps, "_unite", careless_unite), patch(maps, "_place", in_the_middle))


def without_strides(original: Any, base: Any, other: Any, *a: Any) -> Any:
    return original(base, replace(other, stride=base.stride), *a)


def first_input(base: Any, other: Any, constants: Any) -> Any:
    rank = maps.find_rank(base, constants)
    assert rank is not None
    one = maps.read_maps(base, rank, constants)[1]
    return one, replace(maps.read_maps(other, rank, constants)[1], x=one.x)


def places_are_channels(node: Any, rank: int, constants: Any) -> Any:
    call = maps.operator_node(node)
    found = maps.read_affine(call, constants)
    same = maps._identity(found.input, rank)
    scale, _ = found.affine.on(found.affine.channels.reshape(1, 6, 1)).vectors(1, 6)
    weight = Expression(kernels.make_diagonal, (scale, 6, same.kernel, 1.0))
    return replace(same, weight=weight, calls=(node,), path=(call.all_input_nodes.index(found.input),))


def pools_alike(original: Any, node: Any, rank: int) -> Any:
    given = maps.arguments(node)
    wrong = {**given, "count_include_pad": True}
    found = maps.arguments
    maps.arguments = lambda n: wrong if n is node else found(n)
    try:
        return original(node, rank)
    finally:
        maps.arguments = found


def any_stack(node: Any) -> Any:
    if branches.kind_of(node) == "sum":
        return list(branches.arguments(branches.arguments(node)["self"])["tensors"])
    return None


unread = patch(branches, "value_readers", lambda node: list(node.users)[:1])
unread_maps = patch(maps, "value_readers", lambda node: list(node.users)[:1])
MUTANTS: dict[str, Mutant] = {
    # where taps meet
    "one tap off": mutant(three_and_one, offset(lambda at: (at[0] + 1, *at[1:]))),
    "one tap off on the last axis": mutant(three_and_one, offset(lambda at: (*at[:-1], at[-1] - 1))),
    "the first tap": mutant(three_and_one, offset(lambda at: (0,) * len(at))),
    "the last tap": mutant(three_and_one, offset(lambda at: (2,) * len(at))),
    "axes of the kernel exchanged": mutant(off_centre, offset(lambda at: (at[1], at[1]))),
    "in the middle": mutant(even, *careless),
    "dilation ignored": mutant(dilated, unite(lambda k, p, d: (k, p, (1,))), patch(maps, "_place", in_the_middle)),
    "another dilation": mutant(other_dilation, *careless),
    "another stride": mutant(other_stride, *careless, patch(branches, "add", partial(without_strides, maps.add))),
    "another number of taps": mutant(stand_and_lie, offset(lambda at: (at[0], 0))),
    "padding named same": mutant(
        same_padding, around(maps, "_read_padding", lambda original, *a: tuple(0 for _ in original(*a)))
    ),
    "one tap off in core ATen": mutant(core_three_and_one, offset(lambda at: (at[0] + 1, *at[1:]))),
    "the padding stays": mutant(
        stand_and_lie, unite(lambda k, p, d: (k, tuple(0 for _ in p), d)), patch(maps, "_place", in_the_middle)
    ),
    # weights
    "the larger kernel twice": mutant(three_and_one, joined(lambda a, b: a + a)),
    "the smaller kernel lost": mutant(three_and_one, joined(lambda a, b: a * 1)),
    "the larger kernel lost": mutant(three_and_one, joined(lambda a, b: b * 1)),
    "kernels subtracted": mutant(three_and_one, joined(lambda a, b: a - b)),
    "kernels multiplied": mutant(three_and_one, joined(lambda a, b: a * b)),
    "the smaller kernel transposed": mutant(three_and_one, placed(lambda w: w.transpose(0, 1))),
    "the smaller kernel mirrored": mutant(off_centre, placed(lambda w: w.roll(1, 2))),
    "a kernel that lies": mutant(stand_and_lie, placed(lambda w: w.transpose(2, 3))),
    # biases
    "the other bias lost": mutant(three_and_one, patch(maps, "total", lambda a, b: a)),
    "the other bias only": mutant(three_and_one, patch(maps, "total", lambda a, b: b)),
    "the shift lost": mutant(
        normalised, around(maps, "_read_affine", lambda original, *a: replace(original(*a), bias=None))
    ),
    "no bias where there was none": mutant(normalised_without_bias, patch(maps, "remake_bias", lambda *a: ())),
    "the bias is not multiplied": mutant(weighted, patch(maps, "_times", lambda bias, factor: bias)),
    # x and scale·x
    "x is lost": mutant(identity, diagonal(lambda w: w * 0)),
    "x is subtracted": mutant(identity, diagonal(lambda w: -w)),
    "x of another channel": mutant(identity, spread(lambda w: w.flip(0))),
    "x of the next channel": mutant(identity, spread(lambda w: w.roll(1, 1))),
    "x of all channels": mutant(identity, spread(lambda w: w + w.amax(1, keepdim=True))),
    "x of another group": mutant(grouped_identity, spread(lambda w: w.flip(1))),
    "x twice in a depthwise convolution": mutant(depthwise_identity, diagonal(lambda w: 2 * w)),
    "x not scaled": mutant(
        normalised, around(kernels, "make_diagonal", lambda original, scale, *a: original(None, *a))
    ),
    "scales in reverse": mutant(normalised, diagonal(lambda w: w.flip(0))),
    # averages
    "a sum for an average": mutant(average, diagonal(lambda w: w * 9)),
    "an average of four": mutant(average, diagonal(lambda w: w * 9 / 4)),
    "an average of what is there": mutant(average_of_what_is_there, around(maps, "_read_pool", pools_alike)),
    "another divisor": mutant(average_divided, diagonal(lambda w: w * 5 / 9)),
    "an average of another channel": mutant(average, spread(lambda w: w.flip(0))),
    # groups
    "groups side by side": mutant(grouped_and_not, spread(lambda w: w.roll(1, 1))),
    "groups in reverse": mutant(grouped_and_not, spread(lambda w: w.flip(0))),
    # factors
    "alpha is lost": mutant(weighted, factors(lambda f, g: (1.0, g))),
    "alpha for the sum": mutant(weighted, factors(lambda f, g: (1.0, f))),
    "a difference is a sum": mutant(difference, factors(lambda f, g: (abs(f), abs(g)))),
    "a difference is its opposite": mutant(difference, factors(lambda f, g: (f, -g))),
    "the half that is subtracted is added": mutant(halves, factors(lambda f, g: (-f, g))),
    "the rest is not subtracted": mutant(
        subtracted_rest,
        around(
            branches,
            "_read_operands",
            lambda original, node: [(x, abs(f)) for x, f in original(node)],
        ),
    ),
    # guards
    "places are channels": mutant(scaled_places, patch(maps, "_read_affine", places_are_channels)),
    "a product is a sum": mutant(
        product, around(branches, "kind_of", lambda original, n: original(n).replace("mul", "add"))
    ),
    "a term is read elsewhere": mutant(read_elsewhere, unread, unread_maps),
    "a term of another value": mutant(two_inputs, patch(branches, "_find_maps", first_input)),
    "a convolution of a convolution": mutant(chained, patch(branches, "_find_maps", first_input), unread_maps),
    "another term is lost": mutant(
        with_another,
        around(branches, "_plan_pair", lambda original, *a: replace(plan := original(*a), input=plan.edits[0].node)),
    ),
    "a stack along another axis": mutant(stacked_along_channels, patch(branches, "_read_stack", any_stack)),
    "a term of the stack is lost": mutant(
        stacked, around(branches, "_read_stack", lambda original, node: (original(node) or [])[:2] or None)
    ),
    # one behind the other
    "in the other order": mutant(
        narrow,
        around(kernels, "compose", lambda original, a, b, *rest: original(b, a, *rest)),
    ),
    "the first operator lost": mutant(narrow, around(kernels, "compose", lambda original, a, b, *rest: a * 1)),
    "the second operator lost": mutant(narrow, around(kernels, "compose", lambda original, a, b, *rest: b * 1)),
    "the weight transposed": mutant(narrow, composed(lambda w: w.transpose(0, 1))),
    "the kernel mirrored": mutant(one_three, composed(lambda w: w.flip(2, 3))),
    "the kernel turned": mutant(three_one, composed(lambda w: w.transpose(2, 3))),
    "the first bias lost": mutant(linears, patch(maps, "total", lambda a, b: a)),
    "the first bias not multiplied": mutant(
        narrow, patch(maps, "convolve_constant", lambda w, shift, groups: shift * 1)
    ),
    "a bias behind which zeros are padded": mutant(
        one_three_biased,
        *as_map(
            lambda original, o, i: replace(
                original(replace(o, padding=tuple(0 for _ in o.padding)), i), padding=o.padding
            )
        ),
    ),
    "places are skipped before a kernel": mutant(
        one_three_skipping,
        *as_map(lambda original, o, i: replace(original(o, replace(i, stride=(1, 1))), stride=i.stride)),
    ),
    "the stride lost": mutant(
        three_one_strided, *as_map(lambda original, o, i: replace(original(o, i), stride=i.stride))
    ),
    "the stride of both": mutant(three_one, *as_map(lambda original, o, i: replace(original(o, i), stride=(4, 4)))),
    "the padding lost": mutant(three_one, *as_map(lambda original, o, i: replace(original(o, i), padding=(0, 0)))),
    "two kernels as one": mutant(
        three_three,
        *as_map(
            lambda original, o, i: replace(original(replace(o, shape=(6, 6, 1, 1)), i), work=1e9, shape=(6, 6, 3, 3))
        ),
        around(kernels, "compose", lambda original, a, b, *rest: original(a[..., 1:2, 1:2], b, *rest)),
    ),
    "groups of a row mixed": mutant(grouped_chain, composed(lambda w: w.flip(1))),
    "groups in a row ignored": mutant(mixed_groups, spread(lambda w: w.flip(0))),
    "two linears in core ATen, transposed": mutant(core_narrow, around(kernels, "swap", lambda original, w: w * 1)),
    "two in a row, of which the first is read elsewhere": mutant(
        chain_read_elsewhere,
        patch(chains, "value_readers", lambda node: [None]),
        composed(lambda w: w.flip(0)),
    ),
    "LoRA without its factor": mutant(lora, composed(lambda w: w / 3)),
    "LoRA in the other order": mutant(
        lora, around(kernels, "compose", lambda original, a, b, *rest: b.transpose(0, 1) @ a.transpose(0, 1))
    ),
    "DoRA without its factor": mutant(dora, factors(lambda f, g: (0.0, g))),
    "DoRA of x instead of the base": mutant(
        dora,
        around(
            branches, "compose", lambda original, outer, inner: replace(original(outer, inner), weight=inner.weight)
        ),
    ),
    "DoRA, of which the base is read elsewhere": mutant(
        dora_read_elsewhere, patch(branches, "_require_one_reader", lambda *a, **named: None)
    ),
    "axes that are transposed otherwise": mutant(
        transposed_terms, patch(branches, "_is_same", lambda a, b: a.target is b.target)
    ),
    "another table only": mutant(table_sum, joined(lambda a, b: b * 1)),
    "another table subtracted": mutant(table_sum, joined(lambda a, b: a - b)),
    "rows in reverse": mutant(table_linear, around(kernels, "make_rows", lambda original, *a: original(*a).flip(0))),
    "features in reverse": mutant(
        table_linear, around(kernels, "make_rows", lambda original, *a: original(*a).flip(1))
    ),
    "rows without the bias": mutant(
        table_linear, around(kernels, "make_rows", lambda original, columns, bias: original(columns, None))
    ),
    "a table of other rows": mutant(other_rows, patch(branches, "_find_maps", first_input)),
    "LoRA twice": mutant(lora, factors(lambda f, g: (2 * f, g))),
}
