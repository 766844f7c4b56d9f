"""A known fault: a correctness bug of `torch.compile` that is fixed, planted again, and a program that shows it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._inductor import decomposition, lowering
from torch._inductor.fx_passes import post_grad
from torch._inductor.pattern_matcher import PatternMatcherPass

Plant = Callable[[], AbstractContextManager[Any]]
Wrong = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Makes a wrong function of the right one."""


@dataclass(frozen=True)
class KnownFault:
    """A fault, and a program that shows it.

    Attributes:
        what: the fault, in a sentence without a full stop.
        thread: the number of the public issue or pull request in pytorch/pytorch that describes it.
        plant: a context in which the installed compiler has the fault.
        program: a function of ``inputs``.
        step: the beginning of the name of the step that is wrong; empty where the fault lies outside of all steps.
    """

    what: str
    thread: int
    plant: Plant
    program: Callable[..., Any]
    inputs: Callable[[], Sequence[Any]]
    step: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    training: bool = False


# ------------------------------------------------------------------------------------------------------ inputs


def normal(*shapes: tuple[int, ...]) -> Callable[[], list[Tensor]]:
    """Standard normal float32 tensors."""
    return lambda: [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)]


def trained(*shapes: tuple[int, ...]) -> Callable[[], list[Tensor]]:
    """Standard normal float32 tensors that require gradients."""
    return lambda: [x.requires_grad_() for x in normal(*shapes)()]


def given(*values: Any, dtype: torch.dtype | None = None) -> Callable[[], list[Tensor]]:
    """Tensors of the given values."""
    return lambda: [torch.tensor(value, dtype=dtype) for value in values]


# ------------------------------------------------------------------------------------------------------ plants


def patched(owner: Any, name: str, wrong: Wrong) -> Plant:
    """Replace an attribute by one made from it."""
    return lambda: mock.patch.object(owner, name, wrong(getattr(owner, name)))


def lowered(operator: Any, wrong: Wrong) -> Plant:
    """Replace the lowering of an operator."""
    return lambda: mock.patch.dict(lowering.lowerings, {operator: wrong(lowering.lowerings[operator])})


def together(*plants: Plant) -> Plant:
    """Several changes of one fault."""

    def plant() -> AbstractContextManager[Any]:
        stack = ExitStack()
        for one in plants:
            stack.enter_context(one())
        return stack

    return plant


def decomposed(operator: Any, wrong: Callable[..., Any]) -> Plant:
    """Replace the decomposition of an operator."""

    def plant() -> AbstractContextManager[Any]:
        stack = ExitStack()
        for table in (decomposition.decompositions, decomposition.fast_random_decomps()):
            stack.enter_context(mock.patch.dict(table, {operator: wrong}))
        return stack

    return plant


def traced(operator: Any, key: Any, wrong: Callable[..., Any]) -> Plant:
    """Replace what an operator is while AOTAutograd traces it, for one dispatch key."""

    @contextmanager
    def plant() -> Iterator[None]:
        with mock.patch.dict(operator.py_kernels, {key: wrong}):
            operator._dispatch_cache.clear()
            yield
        operator._dispatch_cache.clear()

    return plant


def matched(handled_by: str, **changes: Any) -> Plant:
    """Change attributes of the entries of Inductor's last patterns that a function of this name handles."""

    def plant() -> AbstractContextManager[Any]:
        stack = ExitStack()
        entries = [entry for passes in post_grad.pass_patterns for entry in _entries(passes)]
        found = [entry for entry in entries if getattr(getattr(entry, "handler", None), "__name__", "") == handled_by]
        if not found:
            raise LookupError(f"no pattern is handled by {handled_by}")
        for entry in found:
            for name, value in changes.items():
                named = functools.wraps(getattr(entry, name))(value)  # steps have the names of handlers
                stack.enter_context(mock.patch.object(entry, name, named))
        return stack

    return plant


def _entries(passes: PatternMatcherPass) -> list[Any]:
    unique = {id(entry): entry for entries in passes.patterns.values() for entry in entries}
    return list(unique.values())
