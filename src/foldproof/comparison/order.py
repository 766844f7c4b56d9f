"""Inputs and outputs of files that keep no structure: matched by their names, else by their order in a call.

A module's outputs in a dict are compared in the order of its keys. A file has them in the order in which the module
returned them, and so it has keyword arguments in the order of the call that it was exported with.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import ConstantArgument, OutputKind

from foldproof.comparison.candidate import Candidate
from foldproof.comparison.graph import Graph, as_called, flattened, keys_of
from foldproof.comparison.inputs import Inputs
from foldproof.comparison.judge import distance, rms
from foldproof.log import giving_up
from foldproof.program.structure import arranged
from foldproof.torch_internals import tree_flatten, tree_leaves

_KEY = re.compile(r"output(?:\['|\.)([^'\[\].]+)(?:'\])?")
_NEAR = 1e-3
"""Relative distance of outputs that are taken for the same ones in another order."""
_MAX_PERMUTED = 6
"""Largest number of outputs whose orders are tried: there are 720."""


def match_by_order(candidate: Candidate, graph: Graph) -> Candidate:
    """Return the candidate with its inputs and outputs in the order of the reference, if it keeps no structure.

    Outputs under other keys than the reference's are matched by the order of the call, which a note tells.
    """
    names = candidate.signature or ((), ())
    into, out_of = _order_of_inputs(graph, names[0]), _order_of_outputs(graph, names[1])

    def reordered(made: list[Tensor]) -> list[Tensor]:
        return [made[i] for i in out_of] if len(made) == len(out_of) else made

    def sorted_inputs(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        given = [x for x in tree_leaves((tuple(args), dict(kwargs))) if isinstance(x, Tensor)]
        return [given[i] for i in into] if len(given) == len(into) else given

    def run(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        return reordered(candidate.run(sorted_inputs(args, kwargs), {}))

    def look(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[tuple[str, Tensor]], list[Tensor]]:
        assert candidate.look is not None
        values, made = candidate.look(sorted_inputs(args, kwargs), {})
        return values, graph.select(reordered(made), (tuple(args), dict(kwargs)))

    own, told = keys_of(graph.program.call_spec.out_spec), dict[str, None]()

    def call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        assert candidate.function is not None
        with torch.no_grad():
            out = candidate.function(*args, **kwargs)
        keys = keys_of(tree_flatten(out)[1])
        if keys == own:
            return flattened(out)
        if keys:
            others = ", ".join(key.removeprefix("output") for key in keys)
            told[f"the candidate's outputs have other keys ({others}): they are matched in the order of the call"] = (
                None
            )
        return reordered(as_called(out))

    if candidate.signature is not None:
        return replace(candidate, run=run, look=None if candidate.look is None else look)
    notes = candidate.notes
    return candidate if candidate.function is None else replace(candidate, run=call, notes=lambda: [*notes(), *told])


def _order_of_inputs(graph: Graph, names: Sequence[str]) -> list[int]:
    """Return the place among the reference's tensors of each input of the file."""
    own = list(graph.program.graph_signature.user_inputs)
    if sorted(names) != sorted(map(str, own)):
        return list(range(len(own)))
    return [own.index(name) for name in names]


def _order_of_outputs(graph: Graph, names: Sequence[str]) -> list[int]:
    """Return the place among the file's outputs of each output of the reference."""
    specs = [s.arg for s in graph.program.graph_signature.output_specs if s.kind is OutputKind.USER_OUTPUT]
    order, _, told = arranged(range(len(specs)), graph.program.call_spec.out_spec)
    present = [i for i in range(len(specs)) if not isinstance(specs[i], ConstantArgument)]
    keys = [_KEY.fullmatch(name) for name, i in zip(told, order) if i in present]
    by_name = [key[1] for key in keys if key is not None and key[1] in names]
    if len(keys) == len({*by_name}) == len(names):
        return [names.index(name) for name in by_name]
    return [present.index(i) for i in order if i in present]


def tell_other_order(reference: Sequence[Tensor], candidate: Sequence[Tensor]) -> str | None:
    """Return a sentence if the outputs agree in another order than their own, and in no part of their own."""
    if not 1 < len(reference) == len(candidate) <= _MAX_PERMUTED:
        return None
    near = [[_are_near(a, b) for b in candidate] for a in reference]
    if all(near[i][i] for i in range(len(near))):
        return None
    for order in itertools.permutations(range(len(near))):
        if all(near[i][j] for i, j in enumerate(order)):
            moved = [f"its output {j} is the reference's output {i}" for i, j in enumerate(order) if i != j]
            return f"the candidate's outputs agree in another order: {', '.join(moved)}"
    return None


def tell_other_inputs(candidate: Candidate, given: Inputs, reference: Sequence[Tensor]) -> str | None:
    """Return a sentence if a file gives the reference's outputs when it is given its inputs in another order."""
    tensors = [x for x in tree_leaves(given) if isinstance(x, Tensor)]
    if candidate.signature is None or not 1 < len(tensors) <= _MAX_PERMUTED:
        return None
    for order in itertools.permutations(range(len(tensors))):
        if [tensors[i].shape for i in order] != [x.shape for x in tensors] or list(order) == sorted(order):
            continue
        with giving_up("running a file on its inputs in another order"):
            made = candidate.run([tensors[i] for i in order], {})
            if len(made) == len(reference) and all(map(_are_near, reference, made)):
                moved = [f"its input {i} is the tensor {j} of the call" for i, j in enumerate(order) if i != j]
                return f"the candidate takes its inputs in another order: {', '.join(moved)}"
    return None


def _are_near(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not a.is_floating_point() or not b.is_floating_point():
        return a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all())
    return rms(distance([a], [b], [0])) <= _NEAR * rms(distance([a], [a * 0], [0]))
