"""Terms of a sum that are linear maps of one value become one operator (RepVGG: 3×3 + 1×1 + identity; LoRA)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

from foldproof.fusion import examples
from foldproof.fusion.affines import Identity
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.merging.maps import LinearMap, TakesLonger, add, compose, find_rank, plan_edit, read_maps
from foldproof.fusion.plan import Plan
from foldproof.graph.nodes import arguments, is_getitem, is_view, kind_of, listed, value_readers
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.sizes import value_of


@dataclass(frozen=True)
class _Term:
    """A term of a sum; ``path`` are the sums that it is in, from its own to the whole, with its factor in each."""

    node: Node
    path: tuple[tuple[Node, float], ...]

    @property
    def factor(self) -> float:
        found = 1.0
        for _, factor in self.path:
            found *= factor
        return found


class ParallelConvolutions:
    """(W₁ * x + b₁) + f·(W₂ * x + b₂) = (W₁ ⊕ f·W₂) * x + (b₁ + f·b₂), where ⊕ adds kernels where their taps meet.

    The terms are maps of one value x: convolutions of equal stride, with any kernels, padding and groups; linears; x
    itself, and scale·x + shift, which are depthwise kernels of size 1 (Ding et al. 2021, RepVGG, section 3.3); average
    pooling, a depthwise kernel of equal taps; and several of them in a row, such as the two linears of LoRA (Hu et al.
    2022). A term may be computed from another one, as in DoRA (Liu et al. 2024). Rows of tables, which whole numbers
    select, are linear, too. The terms may be anywhere in a tree of sums and differences, or in a stack that is summed.
    They are merged only if that takes no more multiplications.
    """

    id = "parallel_convolutions"
    fires: tuple[Fires, ...] = examples.parallel_fires
    declines: tuple[Declines, ...] = examples.parallel_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        """Return True for a sum that is no term of another one."""
        if _read_stack(node) is not None:
            return True
        readers = value_readers(node)
        inner = len(readers) == 1 and _is_sum(readers[0]) and _is_alike(node, readers[0])
        return _is_sum(node) and not inner

    def plans(self, node: Node, constants: Constants) -> Iterator[Plan]:
        """Yield plans that each merge terms of the sum ``node``; each holds for the program as it is."""
        stacked = _read_stack(node)
        if stacked is not None:
            terms = [_Term(x, ((node, 1.0),)) for x in stacked]
            with suppress(CannotFold):
                yield _plan_whole(node, terms, constants)
            return
        terms = list(_list_terms(node, ()))
        refusals: list[CannotFold] = []
        for i, first in enumerate(terms):
            for second in terms[:i]:
                for base, other in ((second, first), (first, second)):
                    plan = _try_pair(base, other, constants, refusals)
                    if plan is not None:
                        yield plan
        refusal = refusals[0] if refusals else _find_conversion(node, constants)
        if refusal is not None:
            raise refusal


def _try_pair(base: _Term, other: _Term, constants: Constants, refusals: list[CannotFold]) -> Plan | None:
    """Return the plan to let one term compute the other; None if there is none, with a refusal if it would not pay."""
    try:
        return _plan_pair(base, other, constants)
    except TakesLonger as longer:
        apart = sorted({base.node, other.node})
        refusals.append(CannotFold(f"{listed(apart)} are not merged into one operator: {longer}"))
    except CannotFold:  # most sums have other terms
        pass
    return None


def _is_sum(node: Node) -> bool:
    """Return True for a sum or difference of two values, which are not the same one."""
    return kind_of(node) in ("add", "sub") and len({x for x, _ in _read_operands(node)}) == 2


def _read_operands(node: Node) -> list[tuple[Node, float]]:
    """Return the two operands of a sum or difference with their factors; fewer if one is a number."""
    given = arguments(node)
    alpha = given.get("alpha", 1)
    if not isinstance(alpha, (int, float)):
        return []
    factor = -float(alpha) if kind_of(node) == "sub" else float(alpha)
    return [(x, f) for x, f in ((given["self"], 1.0), (given["other"], factor)) if isinstance(x, Node)]


def _is_alike(term: Node, whole: Node) -> bool:
    a, b = term.meta.get("val"), whole.meta.get("val")
    return getattr(a, "dtype", None) == getattr(b, "dtype", 0) and tuple(a.shape) == tuple(b.shape)  # type: ignore[union-attr]


def _list_terms(node: Node, path: tuple[tuple[Node, float], ...]) -> Iterator[_Term]:
    """List the terms of a sum, and of the sums that only it reads."""
    for x, factor in _read_operands(node):
        if not _is_alike(x, node):
            continue
        here = ((node, factor), *path)
        if _is_sum(x) and len(value_readers(x)) == 1:
            yield from _list_terms(x, here)
        else:
            yield _Term(x, here)


def _read_stack(node: Node) -> list[Node] | None:
    """Return the tensors that ``node`` stacks and adds up; None for any other node."""
    if kind_of(node) != "sum" or "dim" not in arguments(node) or arguments(node)["keepdim"]:
        return None
    stack, dim = arguments(node)["self"], arguments(node)["dim"]
    if kind_of(stack) != "stack" or len(value_readers(stack)) != 1 or arguments(node).get("dtype") is not None:
        return None
    rank = value_of(stack).dim()
    same = dim is not None and [d % rank for d in (dim if isinstance(dim, (list, tuple)) else [dim])] == [
        arguments(stack)["dim"] % rank
    ]
    return list(arguments(stack)["tensors"]) if same else None


def _plan_pair(base: _Term, other: _Term, constants: Constants) -> Plan:
    """Plan to let the operator of one term compute the other, too.

    The sum that reads the other term is left out, and its readers read what is left of it.
    """
    left_out, own = other.path[0]
    [(rest, factor)] = [(x, f) for x, f in _read_operands(left_out) if x is not other.node]
    sums = [node for node, _ in base.path]
    common = next(node for node, _ in other.path if node in sums)
    changed = sums[: sums.index(common)]
    if rest is base.node:
        ratio, whole = own / factor, factor
    elif factor == 1:
        ratio, whole = other.factor / base.factor, 1.0
    else:
        raise CannotFold(f"{left_out.name} subtracts the rest of the sum")
    if not _is_alike(rest, left_out):
        raise CannotFold(f"{left_out.name} broadcasts the rest of the sum")
    first, second = _find_maps(base.node, other.node, constants)
    merged = add(first, second, ratio, whole)
    between = [node for node, _ in other.path[1:] if node not in sums]
    # Reshapings around the operators are proved with them; that of the base stays.
    hidden = [other.node] if second.calls and other.node is not second.calls[0] else []
    folded = [node for node in (*hidden, *second.calls, left_out, *first.calls[1:]) if node is not base.node]
    shown = base.node is not first.calls[0]
    passed = [base.node] if shown or rest is not base.node else []
    return Plan(
        source=ParallelConvolutions.id,
        folded=_list_operators(folded),
        moved=[*changed, *passed, *between, *hidden, *second.calls, *first.calls[1:]],
        results=(left_out,),
        input=rest,
        edits=[plan_edit(merged, "convolution", constants)],
        context=[common, *_list_views(first.x, second.x)],
        products=merged.products,
    )


def _plan_whole(node: Node, terms: list[_Term], constants: Constants) -> Plan:
    """Plan to replace the sum of a stack by one operator."""
    for at in range(len(terms)):
        others = terms[:at] + terms[at + 1 :]
        if not others or len({term.node for term in terms}) != len(terms):
            break
        try:
            merged, folded = None, []
            for other in others:
                first, second = _find_maps(terms[at].node, other.node, constants)
                if merged is not None and merged.x is not first.x:
                    raise CannotFold("the terms are not computed from one value")
                merged = add(merged or first, second, 1.0, 1.0)
                folded += [*second.calls, *first.calls[1:]]
            assert merged is not None
            edit = plan_edit(merged, "convolution", constants)
        except CannotFold:
            continue
        stack = arguments(node)["self"]
        return Plan(
            ParallelConvolutions.id,
            _list_operators([*folded, stack, node]),
            moved=folded,
            results=(node,),
            input=terms[at].node,
            edits=[edit],
            products=merged.products,
        )
    raise CannotFold("the terms are not computed from one value")


def _find_maps(base: Node, other: Node, constants: Constants) -> tuple[LinearMap, LinearMap]:
    """Return two terms as maps of the nearest value that both are maps of; ``base`` is a convolution, linear or table.

    A map of ``base`` itself becomes a map of what base is computed from. Where both are rows that are reshaped alike,
    these are the maps of the rows.

    Raises:
        CannotFold: there is none, or something else reads a term.
    """
    if not _is_alike(base, other):
        raise CannotFold(f"{base.name} and {other.name} have different shapes")
    rows = [_find_rows(term) for term in (base, other)]
    if None not in rows and _is_alike(*rows):  # type: ignore[arg-type]
        return _find_maps(rows[0], rows[1], constants)  # type: ignore[arg-type]
    rank = find_rank(base, constants)
    if rank is None:
        raise CannotFold(f"{base.name} is no convolution or linear")
    first, second = (read_maps(term, rank, constants) for term in (base, other))
    for one in first[1:]:
        for two in second:
            through = two.x is base and bool(two.calls)
            if through or _is_same(one.x, two.x):
                _require_one_reader(other if two.calls else None)
                _require_one_reader(base, but=two.calls[-1] if through else None)
                constants.require_lasting(one.x)
                return one, replace(compose(two, one), calls=two.calls) if through else two
    raise CannotFold("the terms are not computed from one value")


def _require_one_reader(term: Node | None, but: Node | None = None) -> None:
    if term is not None and sum(reader is not but for reader in value_readers(term)) != 1:
        raise CannotFold(f"{term.name} is read by others, too")


_RESHAPINGS = Identity.reshapings


def _find_rows(term: Node) -> Node | None:
    """Return what ``term`` alone shows with other axes before the last one; None if it is no such view."""
    if kind_of(term) not in _RESHAPINGS:
        return None
    shown = term.all_input_nodes[0]
    axes = [value_of(x).shape[-1:] for x in (term, shown)]
    alike = len(axes[0]) == len(axes[1]) == 1 and statically_known_true(axes[0][0] == axes[1][0])
    return shown if alike and len(value_readers(term)) == len(value_readers(shown)) == 1 else None


def _is_same(a: Node, b: Node) -> bool:
    """Return True for the same value, or the same view of it."""
    if a is b or a.target is not b.target or a.op != "call_function" or not is_view(a):
        return a is b
    if len(a.all_input_nodes) != 1 or len(b.all_input_nodes) != 1 or a.kwargs != b.kwargs:
        return False
    return a.args[1:] == b.args[1:] and _is_same(a.all_input_nodes[0], b.all_input_nodes[0])


def _list_views(a: Node, b: Node) -> list[Node]:
    """Return the views by which two nodes show the same value alike, if they are not the same node."""
    found = []
    while a is not b and is_view(a) and is_view(b):
        found += [a, b]
        a, b = a.all_input_nodes[0], b.all_input_nodes[0]
    return found


def _find_conversion(node: Node, constants: Constants) -> CannotFold | None:
    """Return the reason why linears of one value stay: one of them reads it converted to another dtype."""
    ends: list[tuple[Node, Node, list[Node]]] = []
    for term, _ in _read_operands(node):
        rank = find_rank(term, constants)
        maps = read_maps(term, rank, constants) if rank is not None else []
        if len(maps) < 2:
            continue
        x, converted = maps[-1].x, []
        while kind_of(x) in ("to", "_to_copy"):
            converted.append(x)
            x = x.all_input_nodes[0]
        ends.append((term, x, converted))
    if len(ends) != 2 or ends[0][1] is not ends[1][1] or ends[0][2] == ends[1][2]:
        return None
    [to, *_] = [*ends[0][2], *ends[1][2]]
    old, new = (str(value_of(x).dtype).removeprefix("torch.") for x in (ends[0][1], to))
    terms = listed(end[0] for end in ends)
    return CannotFold(
        f"{terms} are not merged into one operator: {to.name} converts what one of them reads from {old} to {new}, and"
        " one operator would compute both in one of these",
        "convert both to one dtype before the export, if their digits do not matter",
    )


def _list_operators(calls: Iterable[Node]) -> list[Node]:
    """Return the calls without those that take one of several results, each once."""
    return [node for node in dict.fromkeys(calls) if not is_getitem(node)]
