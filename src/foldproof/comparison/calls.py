"""Everything that calls of a program change: outputs, inputs and state after each, with names in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.comparison.inputs import Inputs
from foldproof.comparison.judge import identical
from foldproof.comparison.state import State, name_in_words
from foldproof.digest import digest
from foldproof.generators import read_other_states, read_states
from foldproof.program import copied
from foldproof.program.state import owned, storage_key
from foldproof.proof.variation import named_inputs

Run = Callable[[Sequence[Any], Mapping[str, Any]], list[Tensor]]
"""Calls a program on (args, kwargs), which it may write to; gives the flat outputs."""
ENDS = ("", " in the second call")
AFTER = (" after the call", " after the second call")


@dataclass(frozen=True)
class Call:
    """One call of a program.

    ``inputs`` and ``state`` are values after the call, by name, and ``written`` names those that are not what they
    were before the first call. ``writes_state`` is set where state was changed, shown or not. ``layouts`` has the
    strides of each output, and ``shared`` the pairs of outputs and inputs of which a write to one changes the other
    (an output with itself, if a write to one element changes another); both are None where the program works on copies.
    ``generators`` is a digest of the states that the default generators of random numbers have after the call.
    """

    outputs: list[Tensor]
    inputs: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    written: frozenset[str] = frozenset()
    writes_state: bool = False
    layouts: tuple[tuple[int, ...], ...] | None = None
    shared: frozenset[tuple[str, str]] | None = None
    generators: str = ""


def output_names(count: int, call: int = 0) -> list[str]:
    """Names of a call's outputs in words."""
    return [f"output {i}{ENDS[call]}" for i in range(count)]


def name_values(calls: Sequence[Call]) -> dict[str, Tensor]:
    """All values of one or two calls by their names in words, such as "input 0 after the call"."""
    named: dict[str, Tensor] = {}
    for k, call in enumerate(calls):
        named |= zip(output_names(len(call.outputs), k), call.outputs)
        named |= {name + AFTER[k]: x for name, x in (*call.inputs.items(), *call.state.items())}
    return named


def input_tensors(given: Inputs) -> dict[str, Tensor]:
    """The tensors among the inputs, as ``input 0`` or ``input mask``."""
    found = ((name, x) for name, x in named_inputs(*given) if isinstance(x, Tensor))
    return {name if name.startswith("input ") else f"input {name}": x for name, x in found}


class Side:
    """A program that is run from the same state again and again.

    ``holder`` has its state, by names that mean nothing where it is ``hidden``; ``copies`` is set where the program
    takes and gives copies of tensors. ``restart`` puts back a state that only the program can reach.
    """

    def __init__(
        self,
        run: Run,
        holder: nn.Module | None,
        *,
        hidden: bool = False,
        copies: bool = False,
        restart: Callable[[], None] | None = None,
    ) -> None:
        self._run, self._hidden, self._copies, self._restart = run, hidden, copies, restart
        self._state = State(holder) if holder is not None else None

    def put_back(self) -> None:
        """Undo all calls."""
        if self._state is not None:
            self._state.put_back()
        if self._restart is not None:
            self._restart()

    def call(self, given: Inputs) -> Call:
        """Call it once, in the state that it is in, on copies of the inputs."""
        args, kwargs = copied(given)
        with torch.no_grad():
            outputs = self._run(args, kwargs)
        generators = state_of_generators()
        kept = [t.clone() for t in outputs]
        state, changed = self._state.read() if self._state is not None else ({}, frozenset())
        writes = bool(changed)
        if self._hidden:
            state, changed = {}, frozenset()
        if self._copies:
            return Call(kept, {}, state, changed, writes, generators=generators)
        before, after = input_tensors(given), input_tensors((args, kwargs))
        written = changed | {name for name, t in after.items() if not identical([before[name]], [t])}
        shared = _shared(dict(zip(output_names(len(outputs)), outputs)) | after)
        return Call(kept, after, state, written, writes, tuple(map(_visible_strides, outputs)), shared, generators)


def state_of_generators() -> str:
    """Return a digest of the states of all default generators, of Python and NumPy, too."""
    return digest([*read_states(), torch.frombuffer(bytearray(read_other_states()), dtype=torch.uint8)])


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by their names in words."""
    return {name_in_words(name, t): t.detach() for name, t in owned(module)}


def _visible_strides(t: Tensor) -> tuple[int, ...]:
    """Strides of the dimensions along which there is a second element to reach."""
    return tuple(stride for stride, size in zip(t.stride(), t.shape) if size > 1) if t.numel() else ()


def _shared(tensors: Mapping[str, Tensor]) -> frozenset[tuple[str, str]]:
    """Pairs of tensors that have an element in common, but for pairs of inputs."""
    dense = [(name, t) for name, t in tensors.items() if t.layout is torch.strided and t.numel()]
    outputs = [(name, t) for name, t in dense if name.startswith("output ")]
    return frozenset(
        (a, b)
        for (a, x), (b, y) in combinations(dense, 2)
        if a.startswith("output ") and storage_key(x) == storage_key(y) and _overlap(x, y)
    ) | frozenset((name, name) for name, t in outputs if _overlaps_itself(t))


def _overlaps_itself(x: Tensor) -> bool:
    """True if two elements are one place in memory, as those of an expanded tensor are."""
    reach = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape) if size > 1):
        if stride < reach:
            marks = torch.zeros(x.untyped_storage().nbytes() // x.element_size(), dtype=torch.bool)
            marks.as_strided(x.shape, x.stride(), x.storage_offset()).fill_(True)
            return int(marks.sum()) < x.numel()
        reach += stride * (size - 1)
    return False


def _overlap(x: Tensor, y: Tensor) -> bool:
    """True if two tensors of one storage have an element in common, or are of unequal element sizes."""
    if x.element_size() != y.element_size():
        return True
    marks = torch.zeros(x.untyped_storage().nbytes() // x.element_size(), dtype=torch.bool)
    marks.as_strided(x.shape, x.stride(), x.storage_offset()).fill_(True)
    return bool(marks.as_strided(y.shape, y.stride(), y.storage_offset()).any())
