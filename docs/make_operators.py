"""Writes docs/operators.md. Run by ``make docs``; by hand: ``python -m docs.make_operators`` (half a minute)."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch._ops import OpOverload

from foldproof.operators import find_functional_form
from foldproof.rounding.answers import MEANINGS, describe_rounding
from foldproof.shadow import RULES
from foldproof.shadow.registry import describe
from tests.shadow.calls import CALLS, SAMPLES, from_database, of_our_own

aten = torch.ops.aten
PAGE = Path(__file__).with_name("operators.md")

_RANDOM = "random"
_WHOLE = "integers and booleans follow the value, so that no shadow reaches it"
_SHAPE = "arithmetic of shapes, which has no tensors"
_CONSTANT = "makes a constant from numbers, which is an ordinary tensor"
_MEMORY = "new memory holds random residues while a program runs: nothing may depend on it"
_COMPLEX = "complex numbers have no residues"

NO_RULE = {
    "_fft_c2r.default": _COMPLEX,
    "_fft_r2c.default": _COMPLEX,
    "_local_scalar_dense.default": "leaves the tensor world: the number goes on as a constant; the verdict says where",
    "arange.start_step": _CONSTANT,
    "bitwise_and.Scalar": _WHOLE,
    "bitwise_and.Tensor": _WHOLE,
    "bitwise_not.default": _WHOLE,
    "bitwise_or.Scalar": _WHOLE,
    "bitwise_or.Tensor": _WHOLE,
    "bitwise_xor.Scalar": _WHOLE,
    "bitwise_xor.Tensor": _WHOLE,
    "empty.memory_format": _MEMORY,
    "empty_strided.default": _MEMORY,
    "full.default": _CONSTANT,
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
"""Core ATen operators without a rule, and why."""

INTRODUCTION = """\
# Operators

What an operator means on residues. Generated from the registry by `make docs`; a test fails when this page is stale.

| kind | means |
|---|---|
| exact | field arithmetic, or selecting and rearranging |
| composed | built from exact and uninterpreted ones, so that fused and decomposed forms agree |
| uninterpreted | any function will do: equal operands and attributes give equal results, nothing else is assumed |
| branch | the residue follows the choice that the value made; the proof speaks of that choice only |

The last column says what an operator rounds, which `foldproof compare` measures differences by:

| rounding | means |
|---|---|
{roundings}
Operators that PyTorch defines by others (`linear`, `conv2d`, `batch_norm`, …) arrive as those others, custom
operators written in Python run as the operators in their body, and in-place and `out=` operators are their functional
form followed by a write. Any other operator without a rule makes the verdict UNDECIDED, and is named.

{rules} operators have a rule. Each is checked against PyTorch's own operator, over the real numbers in float64 and,
where it is exact or a branch, modulo several primes on whole numbers: on {database} calls of {reached} operators that
PyTorch's operator database leads to (`op_db`: the first {samples} samples of each entry, at most {calls} calls of each
operator, all different), and on {own} calls of our own where the database says too little.

## Rules

| operator | kind | meaning | rounding |
|---|---|---|---|
"""

CORE = """
## Core ATen operators without a rule of their own

Of the {core} operators tagged as core, {ruled} have one.

| operator | why |
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
    """Why a core operator needs no rule; raises KeyError where nobody has said."""
    if short(operator) in NO_RULE:
        return NO_RULE[short(operator)]
    if torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CompositeImplicitAutograd"):
        return "arrives as the operators that PyTorch defines it by"
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
    out.append(CORE.format(core=len(core), ruled=sum(o in RULES for o in core)))
    out += [f"| `{short(o)}` | {why(o)} |\n" for o in core if o not in RULES]
    return "".join(out)


def main() -> None:
    draft = PAGE.with_suffix(".tmp")
    draft.write_text(page(counts()), encoding="utf-8")
    os.replace(draft, PAGE)


if __name__ == "__main__":
    main()
