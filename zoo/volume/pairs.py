"""Pairs of programs, put together from blocks at random, and the distance of the two in float64."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import zoo.volume.arrays
import zoo.volume.layers
import zoo.volume.pointwise
import zoo.volume.state  # noqa: F401 (they enter their blocks)
from zoo.volume.block import ANY, STATEFUL, STATELESS, Block, Draw, Forward

SCALES = (1.0, 1.0, 1e-3, 0.1, 4.0, 30.0)
"""Of the random inputs at which two programs are compared."""


class _Step(nn.Module):
    """One variant of a block with its tensors."""

    def __init__(self, forward: Forward, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._variant = forward
        for name, x in tensors.items():
            self.register_buffer(name, x)

    def forward(self, *args: Tensor) -> Tensor:
        y: Tensor = self._variant(self, *args)
        return y


class Program(nn.Module):
    """Steps one after the other; those with an extra input take the next one."""

    def __init__(self, steps: Sequence[_Step], extras: Sequence[bool]) -> None:
        super().__init__()
        self.steps, self._extras = nn.ModuleList(steps), tuple(extras)

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        others = iter(given)
        for step, extra in zip(self.steps, self._extras):
            x = step(x, next(others)) if extra else step(x)
        return x


@dataclass(frozen=True)
class Pair:
    """Two programs and inputs, in one dtype.

    Attributes:
        seed: what the pair is made from.
        names: the blocks.
        changed: the number of the block that was changed, or None where the programs are equal over the reals.
        before: the first program.
        after: the second one; an exported program where it was decomposed by PyTorch.
        inputs: a float tensor, and integers and booleans.
        exact: the two in float64, with nothing rewritten but what was changed.
    """

    seed: int
    names: tuple[str, ...]
    changed: int | None
    before: Program
    after: Any
    inputs: tuple[Tensor, ...]
    exact: tuple[Program, Program]


def make_pair(seed: int, dtype: torch.dtype, changed: bool, stateful: bool) -> Pair:
    """The pair of ``seed``: one to three blocks, of which one at least is rewritten, or one changed.

    At least one of the blocks of a ``stateful`` pair writes to its buffers.
    """
    rng = random.Random(f"{seed} {dtype} {changed} {stateful}")
    shape = rng.choice(ANY)
    count = rng.choice((1, 2, 2, 3))
    where = rng.randrange(count)
    names, blocks = [], []
    for i in range(count):
        table = STATEFUL if stateful and i == where else STATELESS
        names.append(rng.choice([name for name, (_, shapes) in table.items() if shape in shapes]))
        blocks.append(_rounded(table[names[-1]][0](Draw(rng.randrange(2**31), shape)), dtype))
    at = where if stateful and rng.random() < 0.8 else rng.randrange(count)
    variants = []
    for i, block in enumerate(blocks):
        rewrite = (not changed and i == at) or rng.random() < 0.5
        # Folded constants in half precision move outputs by more than the smallest changes do.
        folded = block.folded if not changed or dtype == torch.float32 else ()
        variants.append(rng.choice((*block.equal, *folded)) if rewrite else block.forward)
    own = [block.forward for block in blocks]
    wrong = list(own)
    if changed:
        variants[at] = wrong[at] = rng.choice((*blocks[at].changed, *blocks[at].misfolded))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    inputs = (x, *(block.extra for block in blocks if block.extra is not None))
    before = _assemble(blocks, own, dtype)
    double = torch.float64
    exact = _assemble(blocks, own, double), _assemble(blocks, wrong if changed else variants, double)
    after: Any = _assemble(blocks, variants, dtype)
    if not changed and rng.random() < 1 / 16:
        after = torch.export.export(before, inputs).run_decompositions()
    return Pair(seed, tuple(names), at if changed else None, before, after, inputs, exact)


def _rounded(block: Block, dtype: torch.dtype) -> Block:
    """The block with tensors that the dtype holds, in float64 still."""
    held = {name: x.to(dtype).double() if x.is_floating_point() else x for name, x in block.held.items()}
    return replace(block, held=held)


def _assemble(blocks: Sequence[Block], variants: Sequence[Forward], dtype: torch.dtype) -> Program:
    steps = []
    for block, variant in zip(blocks, variants):
        tensors = dict(block.held)
        if block.derived is not None and variant in (*block.folded, *block.misfolded):
            tensors |= block.derived(block.held)
        steps.append(
            _Step(variant, {n: x.to(dtype) if x.is_floating_point() else x.clone() for n, x in tensors.items()})
        )
    return Program(steps, [block.extra is not None for block in blocks]).eval()


# ------------------------------------------------------------------------------------------------ what is true


@dataclass(frozen=True)
class Distance:
    """The largest difference of two programs, relative to the root mean square of what it is a difference of.

    Attributes:
        given: at the given inputs, in two calls in a row.
        random: at random inputs of the same size.
        scaled: at random inputs of other sizes.
    """

    given: float
    random: float
    scaled: float

    @property
    def ordinary(self) -> float:
        """At inputs of ordinary size."""
        return max(self.given, self.random)

    @property
    def largest(self) -> float:
        """At any of the inputs."""
        return max(self.ordinary, self.scaled)


def distance(pair: Pair) -> Distance:
    """Measure the programs of a pair in float64: outputs and buffers, of two calls in a row."""
    wide = tuple(x.double() if x.is_floating_point() else x for x in pair.inputs)
    given = _apart(pair.exact, wide, wide)
    found = dict.fromkeys(SCALES, 0.0)
    generator = torch.Generator().manual_seed(pair.seed)
    for scale in (*SCALES, *SCALES):
        calls = [tuple(_redrawn(x, scale, generator) for x in wide) for _ in range(2)]
        found[scale] = max(found[scale], _apart(pair.exact, *calls))
    return Distance(given, found.pop(1.0), max(found.values()))


def _redrawn(x: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    if x.is_floating_point():
        return torch.randn(x.shape, generator=generator, dtype=x.dtype) * scale
    if x.dtype is torch.bool:
        return torch.rand(x.shape, generator=generator) < 0.5
    return torch.randint(int(x.max()) + 1, x.shape, generator=generator)


def _apart(programs: Sequence[Program], *calls: tuple[Tensor, ...]) -> float:
    before, after = (_results(program, calls) for program in programs)
    return max(_relative(a, b) for a, b in zip(before, after))


def _results(program: Program, calls: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """The outputs of all calls, and the buffers after them; the program is left as it was."""
    saved = {name: x.clone() for name, x in program.named_buffers()}
    with torch.no_grad():
        outputs = [program(*inputs).clone() for inputs in calls]
        buffers = {name: x.clone() for name, x in program.named_buffers()}
        for name, x in program.named_buffers():
            x.copy_(saved[name])
    return [*outputs, *(x for name, x in sorted(buffers.items()) if name.split(".")[-1] not in DERIVED)]


DERIVED = ("folded", "shift", "scale")
"""Names of tensors that rewrites hold besides."""


def _relative(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    same = (a == b) | (a.isnan() & b.isnan())
    if bool(same.all()):
        return 0.0
    if not bool((a.isfinite() == b.isfinite()).all()):
        return float("inf")
    fine = a.isfinite()
    size = float(a[fine].square().mean().sqrt()) or 1.0
    return float((a - b)[fine].abs().max()) / size


# ------------------------------------------------------------------------------------------------ operators


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def operators(pair: Pair) -> set[str]:
    """The ATen operators that the two programs call, without names of overloads."""
    seen = _Operators()
    with torch.no_grad(), seen:
        for program in pair.exact:
            program(*(x.double() if x.is_floating_point() else x for x in pair.inputs))
    return seen.names
