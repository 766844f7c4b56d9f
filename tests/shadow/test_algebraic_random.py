"""Random expressions and writes whose residues agree in the algebraic reading have equal values in float64."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foldproof.shadow import Semantics, Undecided
from foldproof.shadow.leaves import draw_variable
from foldproof.shadow.sample import SamplePoint
from foldproof.shadow.tensor import Shadow

EXPRESSIONS = 500
COMPARISONS = {"eq", "ge", "gt", "le", "lt", "ne"}


def _then(
    make: Callable[[Tensor], Tensor], write: Callable[[Tensor], object], of_source: bool
) -> Callable[..., Tensor]:
    """Return a function that makes a value of a copy, writes to one of the two, and returns a sum of both."""

    def function(x: Tensor) -> Tensor:
        source = x.clone()
        made = make(source)
        write(source if of_source else made)
        return made + source * 3

    return function


ONE: list[Callable[[Tensor], Tensor]] = [
    *(torch.exp, torch.log, torch.sqrt, torch.rsqrt, torch.abs, torch.relu, torch.neg, torch.reciprocal, torch.sin),
    *(
        torch.cos,
        torch.tanh,
        torch.sigmoid,
        torch.square,
        torch.erf,
        torch.atan,
        torch.expm1,
        torch.log1p,
        F.logsigmoid,
    ),
    *(F.silu, F.elu, F.relu6, F.hardswish, F.softshrink, torch.clone, torch.sinh, torch.cosh),
    *(lambda x, c=c: x * c for c in (0.5, -1, 2, -3)),
    *(lambda x, c=c: x + c for c in (0.5, -1, 2)),
    *(lambda x, c=c: x.clamp(min=c) for c in (-1, 0, 0.5)),
    *(lambda x, c=c: x.clamp(c, 1) for c in (-1, 0, 2)),
    *(lambda x, n=n: x**n for n in (-2, -1, 0.5, 3)),
    lambda x: x.softmax(-1),
    lambda x: x.log_softmax(-1),
    lambda x: x.sum(-1, keepdim=True),
    lambda x: x.mean(-1, keepdim=True),
    lambda x: x.amax(-1, keepdim=True),
    *(lambda x, c=c: torch.where(x > c, x, c) for c in (-1, 0, 0.5)),
    *(lambda x, c=c: x.masked_fill(x < c, c) for c in (0, 1)),
    *(lambda x, c=c: x * (x >= c) for c in (0, 0.5)),
    *(lambda x, c=c: (x > c).to(x.dtype) for c in (-1, 0)),
    *(lambda x, c=c: (x >= c).double() for c in (0, 1)),
    *(lambda x, c=c: torch.where(x == c, 1.0, x) for c in (0, 1)),
    *(lambda x, c=c: F.threshold(x, c, 0.5) for c in (0, 0.5)),
    torch.tan,
    *(torch.sign, F.hardtanh, F.hardsigmoid, F.hardshrink, F.leaky_relu, F.softplus, torch.exp2, torch.log2),
    lambda x: torch.where((x > -1) & ~(x > 1), x * x, x.abs()),
    lambda x: torch.where((x < 0) | (x > 2), 0.0, x),
    lambda x: x.where(x != 0, 2.0),
    lambda x: (x > 0).logical_xor(x > 1).double() * x,
    lambda x: x.flip(-1),
    lambda x: F.pad(x, (1, 0), value=-2.0)[..., :-1],
    *(
        _then(make, write, of_source)
        for make in (lambda x: x.exp().log(), lambda x: (x * x).sqrt(), lambda x: x.reciprocal().reciprocal())
        for write in (lambda x: x.add_(1), lambda x: x[:1].neg_())
        for of_source in (True, False)
    ),
]
TWO: list[Callable[[Tensor, Tensor], Tensor]] = [
    *(torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum, torch.hypot, torch.logaddexp),
    torch.atan2,
    lambda x, y: torch.where(x > y, x, y),
    lambda x, y: torch.where(x <= y, x - y, 0.0),
    lambda x, y: (x > 0).double() * y,
    lambda x, y: torch.where((x > 0) & (y > 0), x, y),
    lambda x, y: torch.where(x.sign() == y.sign(), x, y),
    lambda x, y: F.smooth_l1_loss(x, y, reduction="none") if x.shape == y.shape else x * y,
    lambda x, y: (x * x).copy_(y * y).abs() if x.shape == y.shape else x - y,
]


def _keeping_nan(function: Callable[..., Tensor], operands: tuple[Tensor, ...]) -> Tensor:
    """Return the function's result, nan where an operand is: a comparison with nan is false, and shows no error."""
    out = function(*operands)
    for x in operands:
        out = out + x * 0 if x.shape == out.shape else out
    return out


@pytest.mark.parametrize("seed", range(3))
def test_equal_residues_are_equal_values(seed: int) -> None:
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    point = SamplePoint(seed, 2, Semantics(algebraic=True, pieces=bool(seed % 2)))

    def draw(sign: int) -> list[Tensor]:
        drawn = [torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(6)]
        drawn = [x.abs() + 0.2 if i < sign else x for i, x in enumerate(drawn)]
        whole = [torch.randint(-2, 3, (3, 4), generator=generator).double() / 2 for _ in range(4)]
        return [*drawn, *whole]  # whole and half numbers meet the limits of choices

    pool: list[tuple[Tensor, list[Tensor], str]] = []
    for name in "xy":
        values = draw(3)
        pool.append((Shadow(values[0], draw_variable(point, values[0], True)), values, name))
    found: dict[object, list[tuple[list[Tensor], str]]] = defaultdict(list)
    compared = 0
    for _ in range(EXPRESSIONS):
        operands = [rng.choice(pool[:20] if rng.random() < 0.5 else pool[-300:]) for _ in range(rng.choice((1, 1, 2)))]
        at = rng.randrange(len(ONE) if len(operands) == 1 else len(TWO))
        function: Callable[..., Tensor] = ONE[at] if len(operands) == 1 else TWO[at]
        point.branch.clear()
        try:
            shadow = function(*[o[0] for o in operands])
        except Undecided:
            continue
        if point.branch.keys() & COMPARISONS:  # they have nan for some inputs, and follow the values
            continue
        if not isinstance(shadow, Shadow) or shadow.residue.infinite or not bool(shadow.value.isfinite().all()):
            continue
        values = [_keeping_nan(function, each) for each in zip(*[o[1] for o in operands])]
        text = f"{at}({', '.join(o[2] for o in operands)})"
        alike = found[(tuple(shadow.shape), tuple(tuple(part.flatten().tolist()) for part in shadow.residue.parts))]
        for others, other in alike:
            compared += 1
            for v, w in zip(values, others):
                both = v.isfinite() & w.isfinite() & (v.abs() < 1e6)
                torch.testing.assert_close(v[both], w[both], rtol=1e-4, atol=1e-4, msg=f"{text} and {other}")
        if len(alike) < 3:
            alike.append((values, text))
            pool.append((shadow, values, text))
    assert compared > 20
