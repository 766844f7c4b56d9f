"""The rewriting loop: find an affine, find what can absorb it, check, prove the region, rewrite; or say why not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

from foldproof.fusion.absorb import ABSORBERS, Absorber, NewConstant
from foldproof.fusion.affine import SOURCES, BatchNorm, Site
from foldproof.fusion.expression import evaluate
from foldproof.fusion.nodes import (
    constant_views,
    listed,
    short_name,
    value_of,
    value_readers,
)
from foldproof.fusion.refusal import AxisMismatch, CannotFold
from foldproof.fusion.region import Region
from foldproof.fusion.result import Declined, Rewrite
from foldproof.fusion.surgery import Draft, Surgery
from foldproof.program.nodes import operator_name, source_of
from foldproof.verdict import Kind, Verdict

Progress = Callable[[int, int, str], None]
"""Called with the number of steps done, the number of all steps, and what comes next."""

Derive = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
ProveRegion = Callable[[GraphModule, GraphModule, Sequence[Tensor], Derive], Verdict]

UNPROVED = Verdict(Kind.UNDECIDED, "proofs were switched off (prove=False)")


@dataclass(frozen=True)
class Rewriter:
    """Folds every affine that can be folded.

    A fold is kept only if ``prove_region`` proves it, so that a guard which is missing or wrong costs a fold and never
    an answer. Where ``prove_region`` is None the guards are trusted, and the verdict of each rewrite says so.
    """

    prove_region: ProveRegion | None
    sources: tuple[BatchNorm, ...] = SOURCES
    absorbers: tuple[Absorber, ...] = ABSORBERS

    def run(self, surgery: Surgery, progress: Progress) -> tuple[tuple[Rewrite, ...], tuple[Declined, ...]]:
        """Rewrites the surgery's working copy, in the order of its graph."""
        found = self._find(surgery.graph.nodes)
        rewrites: list[Rewrite] = []
        declined: list[Declined] = []
        for done, (source, node) in enumerate(found):
            progress(done, len(found) + 1, node.name)
            try:
                rewrites.append(self._fold(surgery, source, node))
            except CannotFold as refusal:
                declined.append(Declined(node.name, operator_name(node), source_of(node), str(refusal)))
                if isinstance(refusal, AxisMismatch):
                    # stacklevel: the caller of foldproof.fuse
                    warnings.warn(f"{node.name} ({short_name(node)}) is not folded: {refusal}", stacklevel=3)
        progress(len(found), len(found) + 1, "the whole program")
        return tuple(rewrites), (*declined, *self._left_in_subgraphs(surgery.program.graph_module))

    def _find(self, nodes: Iterable[Node]) -> list[tuple[BatchNorm, Node]]:
        return [(source, node) for node in nodes for source in self.sources if source.takes(node)]

    def _fold(self, surgery: Surgery, source: BatchNorm, node: Node) -> Rewrite:
        site = source.read(node, surgery.constants)
        _require_same_form(site)
        # An affine meets the node that it reads, and no other. To move it there through others, put the motion here:
        # it yields the producers it reaches, each with the affine as it stands on that producer's output.
        producer = site.input
        rule = self._absorber(producer)
        wanted = rule.absorb(producer, site.affine, surgery.constants)
        _require_one_reader(producer, node)
        drafts = {new.role: surgery.draft(new.base, new.like, new.expression) for new in wanted}
        verdict = self._prove(surgery, rule, site, wanted, drafts)
        if self.prove_region is not None and verdict.kind is not Kind.PROVED:
            raise CannotFold(f"the fold into {producer.name} was withdrawn, for it is not proved: {verdict.reason}")
        before = producer.all_input_nodes
        rule.install(producer, {role: surgery.add(draft) for role, draft in drafts.items()})
        for result in site.results:
            surgery.replace(result, producer)
        for operand in before:
            surgery.erase_unread(operand)
        names = (producer.name, node.name)
        return Rewrite(f"{source.id} into {rule.id}", names, producer.name, source_of(node), verdict)

    def _absorber(self, producer: Node) -> Absorber:
        for rule in self.absorbers:
            if rule.takes(producer):
                return rule
        if producer.op == "placeholder":
            raise CannotFold(f"it reads an input of the program, {producer.name}, so nothing before it can absorb it")
        raise CannotFold(
            f"it reads the output of {producer.name} ({operator_name(producer)}); only a convolution or linear operator"
            " directly before it absorbs it"
        )

    def _prove(
        self,
        surgery: Surgery,
        rule: Absorber,
        site: Site,
        wanted: Sequence[NewConstant],
        drafts: Mapping[str, Draft],
    ) -> Verdict:
        if self.prove_region is None:
            return UNPROVED
        producer = site.input
        others = [result for result in site.results if result is not site.node]
        nodes = [*constant_views(producer), producer, site.node, *others]
        before, after = Region(nodes, surgery.constants), Region(nodes, surgery.constants)
        copy = after.copies[producer]
        rule.install(copy, {role: after.parameter(draft.name) for role, draft in drafts.items()})
        for result in site.results:
            after.copies[result].replace_all_uses_with(copy)
        expressions = {drafts[new.role].name: new.expression for new in wanted}
        likes = {drafts[new.role].name: new.like for new in wanted}

        def derive(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
            made = evaluate(expressions, parameters.__getitem__)
            return {name: value.to(parameters[likes[name]].dtype) for name, value in made.items()}

        return self.prove_region(
            before.module({}),
            after.module({draft.name: draft.tensor for draft in drafts.values()}),
            before.inputs,
            derive,
        )

    def _left_in_subgraphs(self, module: GraphModule) -> list[Declined]:
        return [
            Declined(
                f"{name}.{node.name}",
                operator_name(node),
                source_of(node),
                f"it is inside the subgraph {name} of a higher-order operator, which is left whole",
            )
            for name, part in module.named_modules()
            if name and isinstance(part, GraphModule)
            for _, node in self._find(part.graph.nodes)
        ]


def _require_same_form(site: Site) -> None:
    """Without the affine its readers must find a tensor of the same dtype and memory layout."""
    given = value_of(site.input)
    for result in site.results:
        value = value_of(result)
        if value.dtype != given.dtype:
            raise CannotFold(f"it turns {given.dtype} into {value.dtype}, and without it the dtype would be another")
        sizes_and_strides = zip(value.shape, value.stride(), given.stride(), strict=True)
        if not all(statically_known_true(n <= 1) or statically_known_true(a == b) for n, a, b in sizes_and_strides):
            raise CannotFold("its result is laid out in memory in another way than its input")


def _require_one_reader(producer: Node, reader: Node) -> None:
    others = [node for node in value_readers(producer) if node is not reader]
    if others:
        raise CannotFold(f"the output of {producer.name}, which it scales, is also read by {listed(others)}")
