"""Attribution of a difference to operators, each fed the same inputs on both sides.

The candidate's value of every operator is needed. Where it is a graph itself, the two are walked side by side. Where it
was compiled, the graph is compiled once more in the same way with every value as an output. Then, walking the reference
on the *candidate's* values, each operator shows what it alone does differently; putting that one difference into a
float64 run of the reference shows what later layers make of it. To first order the contributions add up to the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from foldproof.comparison.candidate import Candidate
from foldproof.comparison.graph import Graph
from foldproof.comparison.inner import Inside
from foldproof.comparison.inputs import Inputs
from foldproof.comparison.judge import Outputs, distance, identical, rms
from foldproof.comparison.result import DifferenceSource
from foldproof.comparison.runtimes import Look
from foldproof.errors import FoldproofError, brief
from foldproof.formatting import format_count
from foldproof.graph.diff import align_nodes
from foldproof.graph.interpreter import Again
from foldproof.graph.region import collect_dependencies, cut_region
from foldproof.graph.text import operator_name, source_of
from foldproof.log import giving_up, log_caught
from foldproof.operators import is_pointwise, is_view
from foldproof.program import copied
from foldproof.program.state import deepcopied
from foldproof.rounding.answers import is_exact
from foldproof.rounding.float64 import Float64
from foldproof.rounding.floor import Floor
from foldproof.rounding.noise import Noise
from foldproof.rounding.operands import Operands
from foldproof.thresholds import (
    MAX_COMPILATIONS,
    MAX_COMPILED_ALONE,
    MAX_ERROR_OF_SHARES,
    MAX_SENSIBLE_SHARE,
    MAX_TRACED_OPERATORS,
    MAX_UNREPRODUCED,
    MIN_LOCAL_SIGMAS,
    RUNS_OF_OPERATOR,
)
from foldproof.torch_internals import OpOverload, patched_inductor

Values = Mapping[str, Tensor]
Instead = Callable[[fx.Node, Any, Again, Mapping[str, Any]], Any]
Tell = Callable[[int, int | None, str], None]

NO_SHARES = (
    "; one by one their effects do not add up to it, for when a number changes all later layers round otherwise: no"
    " shares are given"
)


def find_sources(
    graph: Graph,
    candidate: Candidate,
    given: Inputs,
    outputs: Outputs,
    operands: Operands | None,
    large: bool,
    tell: Tell,
) -> Findings:
    """The operators that a difference at these inputs comes from; ``large`` where it is beyond rounding."""
    values, told = _values(graph, candidate, given, outputs, large)
    if candidate.look is not None:
        candidate = replace(candidate, compile=None)  # the file itself is watched, so nothing is made anew
    if values is None and large:
        return Findings((), f"{told}, so it can't be seen at which operator it goes wrong")
    if values is None:
        sources = _expected(graph, given, outputs, operands, tell)
        return Findings(sources, f"{told}, so this is where rounding is to be expected to come from")
    partings, seen = _partings(graph, values, given, operands)
    if not partings:
        unseen = [n for n in _watched(graph, _of_integers(outputs)) if n.name not in seen]
        return Findings((), f"{told}; {_tell_same(len(seen), unseen)}", None, values)
    sources = _contributions(graph, partings, given, outputs, tell)
    other = next((s for s in sources if abs(s.share or 0.0) > MAX_SENSIBLE_SHARE), None)
    if other is not None and not large:
        told += (
            f", but what is {short(other.operator)} here is not the same value there (where weights are folded, say)"
        )
        return Findings((), f"{told}, so the difference can't be traced", None, values)
    told += _innocent(graph, values, partings)
    said, left, count = _fewest(graph, candidate, values, partings, sources, given, outputs)
    if large and left <= MAX_UNREPRODUCED and any(s.sigma > MIN_LOCAL_SIGMAS for s in sources[:count]):
        sources = sources[:count]  # what the others do differently cancels out, or is rounding
    elif left > MAX_UNREPRODUCED or not _add_up([s.share or 0.0 for s in sources]):
        said += NO_SHARES if len(sources) > 1 else ""
        sources = tuple(replace(s, share=None) for s in sources)
        sources = sources if large else tuple(sorted(sources, key=lambda s: -s.propagated))
    return Findings(sources, f"{told}; {said}", _part_of_largest(graph, values, sources, given), values)


def _tell_same(seen: int, unseen: Sequence[fx.Node]) -> str:
    """A sentence on operators that give the same bits on the same operands, of which some may not have been seen."""
    if not seen:
        return "no operator of the reference could be watched, so nothing is said of where it comes from"
    if not unseen:
        return "every operator of the reference gives the same bits on the same operands"
    kinds = list(dict.fromkeys(short(operator_name(n)) for n in unseen))
    named = f"{_listed(kinds[:3])}{' …' if len(kinds) > 3 else ''}"
    return (
        f"{seen} of {format_count(seen + len(unseen), 'operator')} could be watched, with the same bits on the same"
        f" operands; not {named}"
    )


def _of_integers(outputs: Outputs) -> bool:
    """True if no float differs."""
    return outputs.traced != outputs.floats


def _add_up(shares: Sequence[float]) -> bool:
    """True if shares can be read as such; those that cancel each other can't."""
    return abs(sum(shares) - 1) <= MAX_ERROR_OF_SHARES and sum(map(abs, shares)) <= 1 + 2 * MAX_ERROR_OF_SHARES


@dataclass(frozen=True)
class Findings:
    """Sources, largest part first, a sentence on how they were found, and the largest one as a graph by itself.

    ``values`` are the candidate's own, by node, where they could be seen.
    """

    sources: tuple[DifferenceSource, ...]
    told: str
    part: Part | None = None
    values: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """A few operators as a graph, and the operands that the candidate's own values give them."""

    module: fx.GraphModule
    inputs: tuple[Tensor, ...]


def largest_source(sources: Sequence[DifferenceSource]) -> DifferenceSource:
    """The largest source: of those that are beyond their own rounding, the one that accounts for most."""
    beyond = [s for s in sources if s.sigma > MIN_LOCAL_SIGMAS]
    return next((s for s in beyond if not s.before), beyond[0] if beyond else sources[0])


def _part_of_largest(graph: Graph, values: Values, sources: Sequence[DifferenceSource], given: Inputs) -> Part:
    node = next(n for n in graph.nodes if n.name == largest_source(sources).node)
    region = _fused_region(graph, node, values)
    operands: dict[str, Any] = {}

    def follow(n: fx.Node, value: Any, again: Again) -> Any:
        known = values.get(n.name)  # of a candidate that may compute in another precision
        operands[n.name] = value if known is None else known.to(value.dtype)
        return operands[n.name]

    graph.run(*given, after=follow)
    return Part(region.module, tuple(operands[name] for name in region.inputs))


def _innocent(graph: Graph, values: Values, partings: Sequence[_Parting]) -> str:
    """Kinds of operators that give the same bits wherever they are called."""
    parted = {operator_name(p.node) for p in partings}
    names = [operator_name(n) for n in graph.nodes if n.name in values]
    clean = [short(name) for name in dict.fromkeys(names) if name not in parted]
    return f", and {_listed(clean)} gave the same bits each time" if clean else ""


def short(operator: str) -> str:
    """``linear`` for ``aten.linear.default``."""
    return operator.split(".")[1] if operator.count(".") else operator


# ---------------------------------------------------------------------- the candidate's values


def _values(
    graph: Graph, candidate: Candidate, given: Inputs, outputs: Outputs, large: bool
) -> tuple[Values | None, str]:
    if candidate.look is not None:
        found = _inner_values(graph, candidate.look, given, outputs, large)
        if found is not None:
            return found
    if candidate.compile is not None:
        return _compiled_values(graph, candidate, given, outputs, large)
    if candidate.program is not None:
        return _graph_values(graph, candidate, given, outputs, large)
    return None, "the candidate gives no numbers but its outputs"


def _inner_values(graph: Graph, look: Look, given: Inputs, outputs: Outputs, large: bool) -> tuple[Values, str] | None:
    """From the file itself, run with its values as outputs; None if that does not show the difference."""
    with giving_up("looking into the file"):
        named, again = look(*copied(given))
        left = rms(distance(again, outputs.candidate, outputs.traced))
        whole = rms(distance(outputs.candidate, outputs.reference, outputs.traced))
        if not identical(again, outputs.candidate) and not (large and left <= MAX_UNREPRODUCED * whole):
            return None
        watched = _watched(graph, _of_integers(outputs))
        inside = Inside(graph, watched, given, named)
        values = inside.match_wrong(outputs) if large else inside.match()
        verb = "was" if len(watched) == 1 else "were"
        count = format_count(len(watched), "operator")
        told = f"{len(values)} of {count} {verb} matched with values inside of the file"
        return (values, told) if values else None
    return None


def _watched(graph: Graph, integers: bool) -> list[fx.Node]:
    """Nodes whose values are worth an output: views and choices of tuples carry no arithmetic."""
    return [
        n
        for n in graph.nodes
        if (integers or n.name in graph.dtypes)
        and isinstance(n.target, OpOverload)
        and not is_view(n.target)
        and isinstance(n.meta.get("val"), Tensor)
    ]


def _compiled_values(
    graph: Graph, candidate: Candidate, given: Inputs, outputs: Outputs, large: bool
) -> tuple[Values | None, str]:
    """From the graph with values as outputs, compiled as the candidate was.

    What is put out is no longer fused away, which may change how the program rounds. So only what compilers store in
    any case is watched; where that does not give the candidate's very outputs, fewer at a time, and several times.
    Where the difference is ``large``, other roundings do not matter, and all values are watched.
    """
    values: dict[str, Tensor] = {}
    nearest: tuple[float, Values] | None = None
    watched = _watched(graph, _of_integers(outputs))
    stored = [n.name for n in watched if _stored(n)]
    queue = [[n.name for n in watched], stored] if large else [stored]
    whole = rms(distance(outputs.candidate, outputs.reference, outputs.traced))
    for _ in range(MAX_COMPILATIONS):
        if not queue:
            break
        names = queue.pop(0)
        try:
            seen, again = _run_tapped(graph, candidate, names, given)
        except Exception as error:
            log_caught(error, "compiling the graph with its values as outputs")
            if nearest is not None:
                break
            return None, f"the graph could not be compiled with its values as outputs ({brief(error)})"
        left = rms(distance(again, outputs.candidate, outputs.traced))
        if identical(again, outputs.candidate) or (large and left <= MAX_UNREPRODUCED * whole):
            values |= seen
            if large:
                break
            continue
        if nearest is None or left < nearest[0]:
            nearest = left, seen
        if len(names) > 1 and not large:
            queue += [names[: len(names) // 2], names[len(names) // 2 :]]
    told = _tell_fed(len(values))
    if not values and large:
        made, hint = "made anew", ""
        if candidate.backend is not None:
            made, hint = "compiled", "a value that is put out may stop a pass, which foldproof audit can name; or "
        return None, (
            f"the reference, {made} with its values as outputs, does not show the difference ({hint}another program,"
            " another release, or other settings gave these numbers)"
        )
    if not values and nearest is not None:
        left, values = nearest[0], dict(nearest[1])
        told = _tell_fed(len(values))
        if left > MAX_UNREPRODUCED * whole:
            told += f", in a program that rounds otherwise for being watched (by {left:.2g}): shares tell of that one"
    return values, told


def _tell_fed(count: int) -> str:
    fused, verb = ("it", "was") if count == 1 else ("them", "were")
    told = format_count(count, "operator")
    return f"{told} (with what is fused into {fused}) {verb} fed the same inputs on both sides"


def _run_tapped(graph: Graph, candidate: Candidate, names: Sequence[str], given: Inputs) -> tuple[Values, list[Tensor]]:
    assert candidate.compile is not None
    # Values come out laid out as the compiled program has them: to keep eager's strides would change its loops.
    with torch.no_grad(), patched_inductor(keep_output_stride=False):
        made = candidate.compile(_tapped(graph, names))(*copied(graph.flat(*given)))
    end = len(made) - len(names)
    return dict(zip(names, made[end:])), graph.put_together(made[:end], given)


def _stored(node: fx.Node) -> bool:
    """True if a compiler stores the value in any case: outputs, and all arithmetic that is not pointwise."""
    assert isinstance(node.target, OpOverload)
    if any(user.op == "output" for user in node.users):
        return True
    return not is_pointwise(node.target) and not is_exact(node.target)


def _tapped(graph: Graph, names: Sequence[str]) -> fx.GraphModule:
    """The graph on flat inputs, with the values of these nodes after its outputs."""
    root = deepcopied(graph.module) if graph.writes else graph.module
    copied_graph = deepcopied(graph.module.graph)
    copied_graph.set_codegen(fx.graph.CodeGen())
    nodes = {n.name: n for n in copied_graph.nodes}
    output = copied_graph.output_node()
    output.args = ((*output.args[0], *(nodes[name] for name in names)),)  # type: ignore[misc]
    return fx.GraphModule(root, copied_graph)


def _graph_values(
    graph: Graph, candidate: Candidate, given: Inputs, outputs: Outputs, large: bool
) -> tuple[Values | None, str]:
    """From the candidate's own graph, where its operators are those of the reference, or compute the same numbers."""
    integers = _of_integers(outputs)
    try:
        other = Graph(candidate.program, *given, may_record=True)
        other.select = graph.select
    except FoldproofError as error:
        return None, str(error)
    theirs: dict[str, Tensor] = {}

    def keep(node: fx.Node, value: Any, again: Again) -> Any:
        if isinstance(value, Tensor):
            theirs[node.name] = value
        return value

    other.run(*given, after=keep)
    ours = [n for n in graph.nodes if isinstance(n.meta.get("val"), Tensor)]
    pairs = align_nodes(ours, [n for n in other.nodes if n.name in theirs])
    values = {node.name: theirs[match.name] for node, match in pairs.items()}
    # Where the candidate's operators read something else in a value's place, that is its value.
    for node, match in pairs.items():
        for mine, its in zip(node.all_input_nodes, match.all_input_nodes):
            if mine in pairs and its is not pairs[mine] and its.name in theirs:
                values[mine.name] = theirs[its.name]
    watched = {n.name for n in _watched(graph, integers)}
    values = {name: value for name, value in values.items() if name in watched}
    matched = set(pairs.values())
    if 2 * len(values) < len(watched):  # another order, or other pieces
        nodes = [n for n in _watched(other, integers) if n.name in theirs]
        inside = Inside(graph, _watched(graph, integers), given, [(n.name, theirs[n.name]) for n in nodes])
        by_number = inside.match_wrong(outputs) if large else inside.match()
        if len(by_number) > len(values):
            values, matched = by_number, {nodes[i] for i in inside.used}
    verb = "is" if len(watched) == 1 else "are"
    count = format_count(len(watched), "operator")
    told = f"both graphs were walked side by side ({len(values)} of {count} {verb} in both"
    others = [n for n in _watched(other, integers) if n not in matched]
    lone = [n for n in _watched(graph, integers) if n.name not in values]
    for side, nodes in (("the reference", lone), ("the candidate", others)):
        kinds = list(dict.fromkeys(short(operator_name(n)) for n in nodes))
        if kinds:
            told += f"; only {side} has {_listed(kinds[:4])}{' …' if len(kinds) > 4 else ''}"
    return values, f"{told})"


# ---------------------------------------------------------------------- what each operator does differently


@dataclass(frozen=True)
class _Parting:
    """An operator that gives other numbers on the same operands: by how much, and in units of its own rounding."""

    node: fx.Node
    error: Tensor
    sigma: float
    before: tuple[str, ...]


def _partings(
    graph: Graph, values: Values, given: Inputs, operands: Operands | None
) -> tuple[list[_Parting], set[str]]:
    """The operators that differ, and the names of all that were compared: a value of another shape is another value."""
    found: list[_Parting] = []
    seen: set[str] = set()

    def follow(node: fx.Node, value: Any, again: Again) -> Any:
        theirs = values.get(node.name)
        if theirs is None or not isinstance(value, Tensor) or theirs.shape != value.shape:
            return value
        seen.add(node.name)
        if not identical([value], [theirs]):
            error = distance([theirs], [value], [0])[0]
            sigma = _local_sigma(theirs, value.dtype, again, operands)
            found.append(_Parting(node, error, sigma, _unshown(graph, node, values)))
        return theirs.to(value.dtype)

    graph.run(*given, after=follow)
    return found, seen


def _unshown(graph: Graph, node: fx.Node, values: Values) -> tuple[str, ...]:
    """Kinds of operators that round on the way to a node from values that the candidate shows, in order."""

    def is_shown(n: fx.Node) -> bool:
        return n is not node and (n.op != "call_function" or n.name in values)

    on_way = {n.name for n in collect_dependencies([node], is_shown)} - {node.name}
    return tuple(dict.fromkeys(short(operator_name(n)) for n in graph.nodes if n.name in on_way and _rounds(n)))


def _rounds(node: fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and not is_view(node.target) and not is_exact(node.target)


def _local_sigma(theirs: Tensor, dtype: torch.dtype, again: Again, operands: Operands | None) -> float:
    """Distance of the candidate's result from the exact one on these operands, in units of the operator's rounding."""
    if not (dtype.is_floating_point or dtype.is_complex):
        return math.inf
    with Float64():
        exact = again()
    runs = []
    for k in range(RUNS_OF_OPERATOR):
        noise = Noise(torch.Generator().manual_seed(k), operands=operands)
        noise.dtype = dtype.to_real() if dtype.is_complex else dtype
        with noise:
            runs.append(distance([again()], [exact], [0]))
    return Floor(runs).score(distance([theirs], [exact], [0])).rms


# ---------------------------------------------------------------------- what later layers make of it


def _contributions(
    graph: Graph, partings: Sequence[_Parting], given: Inputs, outputs: Outputs, tell: Tell
) -> tuple[DifferenceSource, ...]:
    float64, own = _all_values(graph.run_in_float64, given), _all_values(graph.run, given)
    plain = graph.run(*given)
    difference = distance(outputs.candidate, outputs.reference, outputs.traced)
    whole = sum(float(d.square().sum()) for d in difference)
    loudest = sorted(partings, key=lambda p: -p.sigma)[:MAX_TRACED_OPERATORS]
    sources = []
    for i, parting in enumerate(loudest):
        tell(i, len(loudest), "tracing differences to the outputs")
        name, error = parting.node.name, parting.error
        moved = distance(graph.run(*given, known=_with(graph, name, error, own)), plain, outputs.traced)
        exact = distance(
            graph.run_in_float64(*given, known=_with(graph, name, error, float64)), outputs.float64, outputs.traced
        )
        share = sum(float((m * d).sum()) for m, d in zip(moved, difference)) / whole if whole else 0.0
        size, there = rms(moved), rms([error])
        sources.append(
            DifferenceSource(
                name,
                operator_name(parting.node),
                source_of(parting.node),
                error=there,
                contribution=size,
                amplification=size / there if there else 0.0,
                propagated=rms(exact),
                share=share,
                sigma=parting.sigma,
                before=parting.before,
            )
        )
    return tuple(sorted(sources, key=lambda s: -abs(s.share or 0.0)))


def _all_values(run: Callable[..., Any], given: Inputs) -> dict[str, Any]:
    values: dict[str, Any] = {}

    def keep(node: fx.Node, value: Any, again: Again) -> Any:
        values[node.name] = value
        return value

    run(*given, after=keep)
    return values


def _with(graph: Graph, name: str, error: Tensor, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the node moved by ``error``, and of all nodes that do not depend on it."""
    return _unaffected(graph, name, values) | {name: _added(values[name], error)}


def _added(value: Tensor, error: Tensor) -> Tensor:
    moved = value.clone()  # laid out in memory as it was
    if value.is_complex():
        error = torch.view_as_complex(error.reshape(*value.shape, 2).contiguous())
    wide = torch.complex128 if value.is_complex() else torch.float64
    return moved.copy_(value.to(wide) + error.to(value.device).reshape(value.shape))


def _unaffected(graph: Graph, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the nodes that do not depend on this one."""
    reached = {name}
    for node in graph.module.graph.nodes:
        if any(i.name in reached for i in node.all_input_nodes):
            reached.add(node.name)
    return {other: value for other, value in values.items() if other not in reached}


# ---------------------------------------------------------------------- the fewest that do it


def _fewest(
    graph: Graph,
    candidate: Candidate,
    values: Values,
    partings: Sequence[_Parting],
    sources: Sequence[DifferenceSource],
    given: Inputs,
    outputs: Outputs,
) -> tuple[str, float, int]:
    """Find the fewest of the largest sources that reproduce the difference, and try them compiled alone.

    Returns that in words, the part of the difference that is left when these, or all, do as the candidate does, and
    their number.
    """
    errors = {p.node.name: p.error for p in partings}
    left = 1.0
    for count in range(1, len(sources) + 1):
        largest = [s.node for s in sources[:count]]
        left = _left(graph, {name: _adding(errors[name]) for name in largest}, given, outputs)
        if left <= MAX_UNREPRODUCED:
            break
    else:
        whose = (
            "the operator that differs does" if len(sources) == 1 else f"the {len(sources)} operators that differ do"
        )
        return f"what {whose} differently leaves {100 * left:.0f}% of the difference to be explained", left, count
    told = _listed(largest) if count <= 3 else f"{count} operators"
    said = f"what {told} {'does' if count == 1 else 'do'} differently reproduces the difference {_but(left)}"
    if candidate.compile is None or count > MAX_COMPILED_ALONE:
        return said, left, count
    nodes = {n.name: n for n in graph.nodes}
    try:
        regions = [_fused_region(graph, nodes[name], values) for name in largest]
        alone = _left(graph, {r.node: _Recompiled(candidate, r) for r in regions}, given, outputs)
    except Exception as error:
        log_caught(error, "compiling operators alone")
        return f"{said} (compiling {'it' if count == 1 else 'them'} alone failed: {brief(error)})", left, count
    if alone > MAX_UNREPRODUCED:
        said += f", but only when compiled together with what is around {'it' if count == 1 else 'them'}"
        return said, left, count
    fused = [name for r in regions for name in r.fused]
    whole = f"{told} (with {_listed(fused[:3])}{' …' if len(fused) > 3 else ''}, fused into it)" if fused else told
    return (
        f"compiling {whole} alone, and running all else by the reference, reproduces the difference {_but(alone)}",
        left,
        count,
    )


def _adding(error: Tensor) -> Instead:
    def instead(node: fx.Node, value: Any, again: Again, env: Mapping[str, Any]) -> Any:
        return _added(value, error)

    return instead


@dataclass(frozen=True)
class _Fused:
    """A node and what is computed on the way to it from values that are stored, as a graph of its own."""

    node: str
    fused: tuple[str, ...]
    inputs: tuple[str, ...]
    module: fx.GraphModule


def _fused_region(graph: Graph, node: fx.Node, values: Values) -> _Fused:
    def is_stored(n: fx.Node) -> bool:
        return n is not node and (n.op != "call_function" or n.name in values)

    nodes = collect_dependencies([node], is_stored)
    region = cut_region(nodes, node)
    fused = tuple(n.name for n in nodes if n is not node and n.name in graph.dtypes)
    module = fx.GraphModule(nn.Module(), region.graph)
    return _Fused(node.name, fused, tuple(n.name for n in region.inputs), module)


class _Recompiled:
    """A region, compiled as the candidate was, in place of its node."""

    def __init__(self, candidate: Candidate, region: _Fused) -> None:
        assert candidate.compile is not None
        self._function = candidate.compile(region.module)
        self._inputs = region.inputs

    def __call__(self, node: fx.Node, value: Any, again: Again, env: Mapping[str, Any]) -> Any:
        with torch.no_grad():
            return self._function(*copied([env[name] for name in self._inputs]))


def _left(graph: Graph, instead: Mapping[str, Instead], given: Inputs, outputs: Outputs) -> float:
    """The part of the difference that is not there when only these nodes are computed otherwise."""
    env: dict[str, Any] = {}

    def exchange(node: fx.Node, value: Any, again: Again) -> Any:
        if node.name in instead:
            value = instead[node.name](node, value, again, env)
        env[node.name] = value
        return value

    hybrid = graph.run(*given, after=exchange)
    whole = rms(distance(outputs.candidate, outputs.reference, outputs.traced))
    return rms(distance(hybrid, outputs.candidate, outputs.traced)) / whole if whole else 0.0


def _but(left: float) -> str:
    return "to the last bit" if left == 0 else f"but for {100 * left:.2g}%"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# ---------------------------------------------------------------------- where nothing can be watched


def _expected(
    graph: Graph, given: Inputs, outputs: Outputs, operands: Operands | None, tell: Tell
) -> tuple[DifferenceSource, ...]:
    """Each operator's part of the noise floor."""
    float64 = _all_values(graph.run_in_float64, given)
    nodes = _watched(graph, False)
    sources, squares = [], {}
    for i, node in enumerate(nodes):
        tell(i, len(nodes), "perturbing one operator after the other")
        at: list[Tensor] = []

        def keep(n: fx.Node, value: Any, again: Again, name: str = node.name, at: list[Tensor] = at) -> Any:
            if n.name == name:
                at.append(value)
            return value

        known = _unaffected(graph, node.name, float64)
        moved = graph.perturbed(*given, i, operands=operands, only=node.name, after=keep, known=known)
        error, size = (
            rms(distance(at, [float64[node.name]], [0])),
            rms(distance(moved, outputs.float64, outputs.traced)),
        )
        if size:
            gain = size / error if error else 0.0
            where = operator_name(node), source_of(node)
            squares[node.name] = size * size
            sources.append(DifferenceSource(node.name, *where, error, size, gain, size, None, 0.0, measured=False))
    whole = sum(squares.values())
    return tuple(replace(s, share=squares[s.node] / whole) for s in sorted(sources, key=lambda s: -squares[s.node]))
