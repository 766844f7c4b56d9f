"""Values inside of a candidate, matched with operators of the reference.

Exporters rename, fold and split operators, and other programs compute in other pieces (sample by sample, token by
token, with padding), so that a value is matched by what it is. The reference is walked on the candidate's values: an
operator whose result is, but for rounding, a value of the candidate (or a part of one, or several put together) has
that value, and the next one is computed from it. An operator that the candidate computes otherwise has the value of
its name, which exporters of PyTorch keep, or the one that leads to the candidate's outputs when the reference goes on
with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, fx

from foldproof.comparison.graph import Graph
from foldproof.comparison.inputs import Inputs
from foldproof.comparison.judge import Outputs, distance, rms
from foldproof.graph.interpreter import Again
from foldproof.thresholds import MAX_ALIKE_INSIDE, MAX_COMPARED_PIECES, MAX_TRIED_INSIDE, MAX_UNREPRODUCED

Named = Sequence[tuple[str, Tensor]]
"""Values with their names, in the order in which they are computed."""


class Inside:
    """The values inside of a candidate at some inputs, beside the operators ``nodes`` of the reference.

    ``used`` has the places of those that were matched.
    """

    def __init__(self, graph: Graph, nodes: Sequence[fx.Node], given: Inputs, named: Named) -> None:
        self._graph, self._nodes, self._given, self._named = graph, nodes, given, named
        self._by_name = {name: i for i, (name, _) in enumerate(named)}
        self.used: set[int] = set()
        self._left = MAX_COMPARED_PIECES

    def match(self) -> dict[str, Tensor]:
        """Return the file's values, by node, of the operators that have one."""
        return self._walk({})[0]

    def match_wrong(self, outputs: Outputs) -> dict[str, Tensor]:
        """The same where the file is wrong: an operator has no value like its own, and leads to these outputs."""
        whole = rms(distance(outputs.candidate, outputs.reference, outputs.traced))
        values, places, own = self._walk({})
        for node, i in self._pairs(places, own):
            theirs = self._shaped(i, own[node])

            def exchange(n: fx.Node, value: Any, again: Again, node: fx.Node = node, theirs: Tensor = theirs) -> Any:
                return theirs.to(value.dtype) if n is node else value

            made = self._graph.run(*self._given, after=exchange)
            if rms(distance(made, outputs.candidate, outputs.traced)) <= MAX_UNREPRODUCED * whole:
                return self._walk({node: i})[0]
        return values

    def _pairs(self, places: Mapping[fx.Node, int], own: Mapping[fx.Node, Tensor]) -> Iterator[tuple[fx.Node, int]]:
        """Operators without a value, and values of their size that the file computes after those of their operands."""
        tried = 0
        for node in self._nodes:
            if node in places or node not in own:
                continue
            after = _after(node, places)
            for i in range(after + 1, len(self._named)):
                if _squeezed(self._named[i][1]) == _squeezed(own[node]) and tried < MAX_TRIED_INSIDE:
                    tried += 1
                    yield node, i

    def _walk(
        self, pinned: Mapping[fx.Node, int]
    ) -> tuple[dict[str, Tensor], dict[fx.Node, int], dict[fx.Node, Tensor]]:
        """Return the file's values by node, their places, and the reference's own values of ``nodes``."""
        nodes = set(self._nodes)
        values: dict[str, Tensor] = {}
        places: dict[fx.Node, int] = {}
        own: dict[fx.Node, Tensor] = {}

        def follow(node: fx.Node, value: Any, again: Again) -> Any:
            if node not in nodes or not isinstance(value, Tensor):
                return value
            own[node] = value
            place = pinned[node] if node in pinned else self._find(node, value, places)
            if place is not None:
                places[node], values[node.name] = place, self._shaped(place, value)
                self.used.add(place)
                return values[node.name].to(value.dtype)
            made, parts = self._put_together(value)
            if made is None:
                return value
            places[node], values[node.name] = max(parts), made
            self.used.update(parts)
            return made.to(value.dtype)

        self.used.clear()
        self._left = MAX_COMPARED_PIECES
        self._graph.run(*self._given, after=follow)
        return values, places, own

    def _find(self, node: fx.Node, own: Tensor, places: Mapping[fx.Node, int]) -> int | None:
        """Return the place of the value like this one; or of its name, if all that it is computed from has one."""
        same = self._by_name.get(node.name)
        alike = [i for i, (_, x) in enumerate(self._named) if _squeezed(x) == _squeezed(own)]
        apart = {i: rms(distance([self._shaped(i, own)], [own], [0])) for i in alike}
        nearest = min(apart, key=lambda i: (apart[i], i != same), default=None)
        if nearest is not None and _are_alike(self._shaped(nearest, own), own):
            return nearest
        known = all(n in places or n.op != "call_function" for n in node.all_input_nodes)
        return same if known and same in apart else None

    def _put_together(self, own: Tensor) -> tuple[Tensor | None, list[int]]:
        """Return this value as the candidate has it in other pieces along one dimension, and the places of these."""
        for axis in range(own.ndim):
            rest = _without(own.shape, axis)
            pieces = [
                i
                for i, (_, x) in enumerate(self._named)
                if x.ndim == own.ndim and x.dtype == own.dtype and _without(x.shape, axis) == rest and x.numel()
            ]
            for i in pieces:
                for start in range(self._named[i][1].shape[axis] - own.shape[axis] + 1):
                    window = self._named[i][1].narrow(axis, start, own.shape[axis])
                    if self._fits(window, own):
                        return window, [i]
            shorter = [i for i in pieces if self._named[i][1].shape[axis] < own.shape[axis] and i not in self.used]
            made, parts = self._joined(own, axis, sorted(shorter, key=lambda i: -self._named[i][1].shape[axis]))
            if made is not None:
                return made, parts
        return None, []

    def _joined(self, own: Tensor, axis: int, pieces: Sequence[int]) -> tuple[Tensor | None, list[int]]:
        """Put pieces where they are alike, and one that is like nothing where nothing is, if it fits.

        Parts that the candidate does not compute, as all tokens but the last, stay as the reference has them.
        """
        length = own.shape[axis]
        taken, at, left = [False] * length, dict[int, int](), list[int]()
        for i in pieces:
            piece = self._named[i][1]
            size = piece.shape[axis]
            free = [k for k in range(length - size + 1) if not any(taken[k : k + size])]
            start = next((k for k in free if self._fits(piece, own.narrow(axis, k, size))), None)
            if start is None:
                left.append(i)
                continue
            at[start], taken[start : start + size] = i, [True] * size
        if not at:
            return None, []
        holes = [k for k in range(length) if not taken[k]]
        if holes:
            fits = holes == list(range(holes[0], holes[-1] + 1))
            odd = next((i for i in left if fits and self._named[i][1].shape[axis] == len(holes)), None)
            if odd is not None:
                at[holes[0]] = odd
        made = own.clone()
        for start, i in at.items():
            made.narrow(axis, start, self._named[i][1].shape[axis]).copy_(self._named[i][1])
        return made, list(at.values())

    def _fits(self, piece: Tensor, own: Tensor) -> bool:
        """True if two pieces are alike; False once too many were compared."""
        self._left -= 1
        return self._left >= 0 and _are_alike(piece, own)

    def _shaped(self, place: int, like: Tensor) -> Tensor:
        return self._named[place][1].reshape(like.shape)


def _after(node: fx.Node, places: Mapping[fx.Node, int]) -> int:
    """The last place of a value that the node is computed from."""
    waiting, seen, last = list(node.all_input_nodes), set[fx.Node](), -1
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        if one in places:
            last = max(last, places[one])
        else:
            waiting += one.all_input_nodes
    return last


def _are_alike(x: Tensor, own: Tensor) -> bool:
    return rms(distance([x], [own], [0])) <= MAX_ALIKE_INSIDE * rms(distance([own], [own * 0], [0]))


def _without(shape: Sequence[int], axis: int) -> list[int]:
    return [size for i, size in enumerate(shape) if i != axis]


def _squeezed(x: Tensor) -> tuple[int, ...]:
    return tuple(size for size in x.shape if size > 1)
