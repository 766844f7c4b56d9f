"""Writes docs/operators.md. Run by ``make docs``; by hand: ``python -m docs.make_operators`` (half a minute)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch._ops import OpOverload

from docs.writing import write_whole
from foldproof.operators import find_functional_form
from foldproof.rounding.answers import MEANINGS, describe_rounding
from foldproof.shadow import RULES
from foldproof.shadow.registry import COMPLEX, describe
from tests.shadow.calls import CALLS, SAMPLES, from_database, of_our_own

aten = torch.ops.aten
PAGE = Path(__file__).with_name("operators.md")

_RANDOM = "random"
_WHOLE = "integers and booleans follow the value; no shadow reaches it"
_SHAPE = "arithmetic of shapes, without tensors"
_CONSTANT = "makes a constant from numbers: an ordinary tensor"
_MEMORY = "new memory holds random residues while a program runs, so nothing may depend on it"

NO_RULE = {
    "_local_scalar_dense.default": "gives a Python number, which counts as a constant; the verdict names the place",
    "arange.start_step": _CONSTANT,
    "bitwise_and.Scalar": _WHOLE,
    "bitwise_or.Scalar": _WHOLE,
    "bitwise_xor.Scalar": _WHOLE,
    "empty.memory_format": _MEMORY,
    "empty_strided.default": _MEMORY,
    "full.default": "makes a constant from numbers",
    "native_dropout.default": _RANDOM,
    "rand.default": _RANDOM,
    "randn.default": _RANDOM,
    "randperm.default": _RANDOM,
    "resize_.default": "leaves elements uninitialised",
    "scalar_tensor.default": _CONSTANT,
    "sym_is_contiguous.default": _SHAPE,
    "sym_numel.default": _SHAPE,
    "sym_size.int": _SHAPE,
    "sym_storage_offset.default": _SHAPE,
    "sym_stride.int": _SHAPE,
}
"""Core ATen operators without a rule, with the reason."""

INTRODUCTION = """\
# Operators

The meaning of each operator on residues, and its rounding. `make docs` generates this page from the registry; a test
fails when it is stale.

| kind | meaning |
|---|---|
| exact | field arithmetic, or selecting and rearranging elements |
| composed | built from exact and uninterpreted rules, so that fused and decomposed forms agree |
| uninterpreted | any function: equal operands and attributes give equal results, and nothing else is assumed |
| branch | the residue follows the choice made by the value; the proof holds for that choice only |

The last column gives the rounding of an operator, by which `foldproof compare` measures differences:

| rounding | meaning |
|---|---|
{roundings}
Operators that PyTorch defines by others (`linear`, `conv2d`, `batch_norm`, …) arrive as those others. Custom operators
written in Python run as the operators in their body. In-place and `out=` operators are their functional form followed
by a write. Operators on lists (`_foreach_add`, …) are the operator in their name, applied to each element. Operators of
`prims` without a rule are the ATen operators in PyTorch's definition. Any other operator of PyTorch's is one
uninterpreted function of all its operands, unless it draws random numbers or returns a view: then the verdict is
UNDECIDED, with its name.

{rules} operators have a rule. Each rule is checked against PyTorch's own operator, over the real numbers in float64
and, if it is exact or a branch, modulo several primes on integers. The calls come from PyTorch's operator database:
{database} calls of {reached} operators (`op_db`: the first {samples} samples of each entry, at most {calls} calls of
each operator, all different). {own} more calls of our own cover gaps in the database.

## Rules

| operator | kind | meaning | rounding |
|---|---|---|---|
"""

COMPLEX_NUMBERS = """
## Complex numbers

A complex tensor is a real tensor with a last axis of two. Operators that select and rearrange elements have the same
rules as above. The following are defined by operators on real and imaginary parts, with z = a + i·b, x = a + i·b and
y = c + i·d. Any other operator on complex numbers is one uninterpreted function of all parts.

| operator | meaning |
|---|---|
"""

CORE = """
## Core ATen operators without a rule of their own

Of the {core} operators tagged as core, {ruled} have one.

| operator | reason |
|---|---|
"""


def core_operators() -> list[OpOverload]:
    out = []
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = name.partition("::")
        packet, _, overload = rest.partition(".")
        if namespace == "aten" and hasattr(aten, packet):
            operator = getattr(getattr(aten, packet), overload or "default", None)
            if operator is not None and torch.Tag.core in operator.tags:
                out.append(operator)
    return sorted(out, key=str)


def why(operator: OpOverload) -> str:
    """The reason why a core operator needs no rule; raises KeyError if none is known."""
    if short(operator) in NO_RULE:
        return NO_RULE[short(operator)]
    if torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CompositeImplicitAutograd"):
        return "arrives as the operators in PyTorch's definition"
    form = find_functional_form(operator)
    if form is not None and form.operator in RULES:
        return f"as `{short(form.operator)}`, followed by a write"
    raise KeyError(f"{operator} has no rule, and NO_RULE does not say why")


def short(operator: OpOverload) -> str:
    return str(operator).removeprefix("aten.")


def counts() -> dict[str, int]:
    database, own = from_database(), of_our_own()
    return {
        "rules": len(RULES),
        "database": sum(map(len, database.values())),
        "reached": len(database),
        "own": sum(map(len, own.values())),
        "samples": SAMPLES,
        "calls": CALLS,
    }


def page(numbers: dict[str, int]) -> str:
    roundings = "".join(f"| {answer} | {meaning} |\n" for answer, meaning in MEANINGS.items())
    out = [INTRODUCTION.format(**numbers, roundings=roundings)]
    for operator, rule in sorted(RULES.items(), key=lambda item: str(item[0])):
        cells = (f"`{short(operator)}`", str(rule.kind), describe(rule), describe_rounding(operator))
        out.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n")
    core = core_operators()
    out.append(COMPLEX_NUMBERS)
    out += [f"| `{short(o)}` | {_first_line(f)} |\n" for o, f in sorted(COMPLEX.items(), key=lambda item: str(item[0]))]
    ruled = [o for o in core if o in RULES or o in COMPLEX]
    out.append(CORE.format(core=len(core), ruled=len(ruled)))
    out += [f"| `{short(o)}` | {why(o)} |\n" for o in core if o not in ruled]
    return "".join(out)


def _first_line(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]


def main() -> None:
    write_whole(PAGE, page(counts()))


if __name__ == "__main__":
    main()
