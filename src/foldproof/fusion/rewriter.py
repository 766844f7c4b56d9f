"""The rewriting loop: find an affine, plan where it goes, weigh it, prove the region, rewrite; or say why not.

What is claimed: the program that comes out is the function that went in, of its inputs and its parameters (of these
parameter values, for a rewrite that is conditional). It is claimed of every rewrite by itself.

Why that is sound:

1. *Rules are guesses.* A source says that an operator is an affine, a motion how it passes an operator, an absorber
   what becomes of a weight. Their guards make good folds likely and reasons readable; no answer rests on them. If one
   is missing or wrong, the plan is wrong, and step 3 throws it away.
2. *One thing is planned, proved and done.* A plan is a list of edits, each a function that changes one node, and of
   nodes whose readers are to read another one. The same edits are applied to a copy of the region and, if that is
   proved, to the program. The new constants are expressions over old ones: the proof evaluates an expression on
   residues, and the number that the program holds is the same expression in float64, rounded once.
3. *A region stands for the program.* All nodes whose values change, and the calls that compute their constants, are cut
   out with everything that is read outside as a result; `foldproof.graph.region` says why equal regions make equal
   programs, and what has to belong to one. What is not PROVED is withdrawn; nothing has been changed by then.
   Two things a region does not show, and guards have to: writes to memory from outside (constants that the program
   changes are not folded, and an affine does not move down past a write to what it read), and sizes other than those
   of the example (channels must not lie along a dynamic dimension). `fuse` proves the whole program at the end, at
   several sizes, where a mistake in these shows.
4. *Rewrites follow each other.* Each starts from the program that the last one left, and a constant that one made is
   read by the next as an expression over the original ones. So the program after n rewrites equals the first one by n
   equalities; the chances that one of them is wrong add up.

What is not claimed by a region: that the fold pays (`weigh`), that it keeps digits (`accuracy`, which may have the loop
run again without it), or that other layouts in memory do no harm (`layout` refuses those that reach the outside).

The loop ends because each rewrite removes a call, and goes round again only when branches were merged, after which an
affine may have found a place. Joining parallel linears comes last, for their weights have to be what they will be.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor
from torch.fx import GraphModule, Node

from foldproof.errors import FoldproofError
from foldproof.fusion import cost
from foldproof.fusion.absorb import ABSORBERS, Absorber
from foldproof.fusion.accuracy import Measured, Values
from foldproof.fusion.affines import SOURCES, AffineSource, Match, NormAffine, find, is_normalisation, read
from foldproof.fusion.batching import BATCHING, BatchLinears
from foldproof.fusion.layout import relaid
from foldproof.fusion.motion import MOTIONS, Motion
from foldproof.fusion.parallel import PARALLEL, ParallelConvolutions
from foldproof.fusion.plan import Plan, Planner
from foldproof.fusion.result import Rewrite
from foldproof.graph.nodes import is_getitem, listed, short_name
from foldproof.graph.text import operator_name, source_of
from foldproof.graph.view import view_graph
from foldproof.rewriting.account import UNPROVED, Declined
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.editor import GraphEditor
from foldproof.rewriting.refusal import AxisMismatch, CannotFold
from foldproof.rewriting.rewrite import cut_rewrite
from foldproof.rewriting.sizes import value_of
from foldproof.verdict import Kind, Verdict

Progress = Callable[[int, int, str], None]
"""Called with the number of steps done, the number of all steps, and what comes next."""

Derive = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class ProveRegion(Protocol):
    """`foldproof.proof.prove_region`."""

    def __call__(
        self, before: GraphModule, after: GraphModule, inputs: Sequence[Tensor], derive: Derive, *, general: bool
    ) -> Verdict: ...


WEIGHTS = "normalised_weights"
DEFAULT = (*(source.id for source in SOURCES if source.id != NormAffine.id), WEIGHTS, PARALLEL.id)
"""What `fuse` does when it is not told: all that computes less, on any machine."""
PASSES = (*DEFAULT, NormAffine.id, *(rule.id for rule in BATCHING))
"""What it can be told to do."""


@dataclass(frozen=True)
class Rewriter:
    """Folds every affine that can be folded.

    A fold is kept only if ``prove_region`` proves it, so that a guard which is missing or wrong costs a fold and never
    an answer. Where ``prove_region`` is None the guards are trusted, and the verdict of each rewrite says so.
    """

    prove_region: ProveRegion | None
    sources: tuple[AffineSource, ...] = SOURCES
    absorbers: tuple[Absorber, ...] = ABSORBERS
    motions: tuple[Motion, ...] = MOTIONS
    parallel: ParallelConvolutions | None = PARALLEL
    weights: bool = True
    batching: BatchLinears | None = None

    @staticmethod
    def of(passes: Sequence[str] | None, prove_region: ProveRegion | None) -> Rewriter:
        """A rewriter with these of `PASSES`.

        Raises:
            FoldproofError: a name is none of them, or ``passes`` is one string.
        """
        if isinstance(passes, str):
            raise FoldproofError(f"passes must be a list of names, not {passes!r}: write [{passes!r}]")
        chosen = DEFAULT if passes is None else tuple(passes)
        for name in chosen:
            if name not in PASSES:
                raise FoldproofError(f"there is no pass {name!r}: choose from {', '.join(PASSES)}")
        sources = tuple(source for source in SOURCES if source.id in chosen)
        parallel = PARALLEL if PARALLEL.id in chosen else None
        batching = next((rule for rule in reversed(BATCHING) if rule.id in chosen), None)  # the stricter of two
        return Rewriter(prove_region, sources, parallel=parallel, weights=WEIGHTS in chosen, batching=batching)

    def run(self, editor: GraphEditor, progress: Progress, refused: Mapping[str, str]) -> Account:
        """Rewrite the program under edit, in the order of its graph, until nothing more can be folded.

        ``refused`` maps names of nodes that are to be left, to reasons.
        """
        account = Account(refused)
        while True:
            account.declined = []
            made = len(account.rewrites)
            chains = find(editor.graph.nodes, editor.constants, self.sources)
            for done, chain in enumerate(chains):
                progress(done, len(chains) + 1, chain[0].name)
                self._fold_chain(editor, chain, account)
            if self.weights:
                self._fold_weights(editor, account)
            if not self._merge(editor, account) or made == len(account.rewrites):
                break
        self._batch(editor, account)
        progress(len(chains), len(chains) + 1, "the whole program")
        account.declined += self._left_in_subgraphs(editor)
        return account

    def _fold_chain(self, editor: GraphEditor, chain: list[Node], account: Account) -> None:
        """Folds affines in a row as one; if that can't be, each by itself."""
        if len(chain) > 1:
            with contextlib.suppress(CannotFold):
                steps = [read(node, editor.constants, self.sources) for node in chain]
                self._fold(editor, Match(tuple(steps)), account)
                return
        for node in chain:
            self._fold_one(editor, node, account)

    def _fold_one(self, editor: GraphEditor, node: Node, account: Account) -> None:
        try:
            step = read(node, editor.constants, self.sources)
            self._fold(editor, Match((step,)), account)
        except CannotFold as refusal:
            self._decline(node, refusal, editor.constants, account)

    def _fold(self, editor: GraphEditor, match: Match, account: Account) -> None:
        planner = Planner(editor.constants, editor.order, self.absorbers, self.motions)
        self._carry_out(editor, planner.plan(match), match.node, account)

    def _fold_weights(self, editor: GraphEditor, account: Account) -> None:
        """Computes once what the program computes at each run by normalising a weight (as in BiT and NFNet)."""
        for node in list(editor.graph.nodes):
            for operand in node.all_input_nodes:
                if editor.constants.holds(node) or not editor.constants.holds_computed(operand):
                    continue
                calls = [operand, *editor.constants.computing([operand])]
                norms = [call for call in calls if is_normalisation(call, editor.constants)]
                if not norms:
                    continue
                try:
                    plan = Planner(editor.constants, editor.order).constant(operand, node, norms)
                    self._carry_out(editor, plan, norms[0], account)
                except CannotFold as refusal:
                    self._decline(norms[0], refusal, editor.constants, account)

    def _merge(self, editor: GraphEditor, account: Account) -> bool:
        """Makes one convolution of those that are added up, and says whether there were any."""
        merged = False
        for node in list(editor.graph.nodes):
            if self.parallel is None or not self.parallel.takes(node):
                continue
            try:
                plan = self.parallel.plan(node, editor.constants)
                self._carry_out(editor, plan, node, account)
                merged = True
            except CannotFold:
                pass  # most sums are of something else
        return merged

    def _batch(self, editor: GraphEditor, account: Account) -> None:
        """Makes one operator of those that read one tensor; last, so that their weights are what they will be."""
        if self.batching is None:
            return
        for group in self.batching.groups(editor.graph, editor.constants):
            first, *others = [member.node for member in group.members]
            try:
                self._carry_out(editor, self.batching.plan(group, editor.constants), first, account)
            except CannotFold as refusal:
                alike = "which read the same" if group.is_shared else "of equal sizes"
                reason = f"it is not made one with {listed(others)}, {alike}: {refusal}"
                account.declined.append(
                    Declined(first.name, operator_name(first), source_of(first), reason, refusal.hint)
                )

    def _carry_out(self, editor: GraphEditor, plan: Plan, reported: Node, account: Account) -> None:
        """Weighs, proves and makes the changes of a plan.

        Raises:
            CannotFold: it does not pay, or is not proved; then nothing was changed.
        """
        if reported.name in account.refused:
            raise CannotFold(account.refused[reported.name], "raise accuracy_limit, if these digits do not matter")
        drafted = editor.draft_all(plan.edits)
        given = dict(plan.parts)
        if plan.input is not None:
            given |= dict.fromkeys(plan.results, value_of(plan.input))
        new_values = relaid(given, editor.order)
        redirected = {result: plan.input for result in plan.results if plan.input is not None}
        saving = cost.saving(plan, [draft for _, row in drafted for draft in row.values()], editor.constants)
        verdict, speed, drawings = UNPROVED, None, None
        if self.prove_region is not None or plan.judge is not None:
            region = cut_rewrite(editor, [*plan.nodes, *plan.context], drafted, redirected)
            before, after, inputs = region.before, region.after, region.inputs()
        if self.prove_region is not None:
            verdict = self.prove_region(before, after, inputs, region.derive, general=not plan.conditional)
            if verdict.kind is not Kind.PROVED:
                into = ", ".join(edit.node.name for edit in plan.edits)
                raise CannotFold(f"the fold into {into} was withdrawn, for it is not proved: {verdict.reason}")
        if plan.judge is not None:
            speed = plan.judge(before, after, inputs)
        if self.prove_region is not None:
            axes = {region.copies[node].name: axes for node, axes in plan.axes.items() if node in region.copies}
            drawings = (view_graph(before, axes), view_graph(after))
            operands = [account.values.name(operand) for operand in region.operands]
            known = tuple(name for name in operands if name is not None)
            account.measured.append(Measured(before, after, known) if None not in operands else None)
        account.values.changed(*plan.new_values())
        rewrite = Rewrite(
            rule=plan.rule,
            nodes=tuple(node.name for node in sorted(plan.nodes, key=editor.order)),
            result=next(edit.node.name for edit in plan.edits if edit.wanted),
            source=source_of(reported),
            verdict=verdict,
            through=tuple(
                short_name(node) for node in plan.moved if node.op == "call_function" and not is_getitem(node)
            ),
            saving=saving,
            reported=reported.name,
            conditional=plan.conditional,
            speed=speed,
            drawings=drawings,
        )
        account.rewrites.append(rewrite)
        values = {node: value for node, value in new_values.items() if node not in redirected}
        editor.carry_out(drafted, redirected, values)

    def _decline(self, node: Node, refusal: CannotFold, constants: Constants, account: Account) -> None:
        """Reports what was left, unless nobody expects it to go: arithmetic with numbers, or with whole tensors."""
        normalises = is_normalisation(node, constants)
        if not normalises and not _is_learnable(node, constants):
            return
        account.declined.append(Declined(node.name, operator_name(node), source_of(node), str(refusal), refusal.hint))
        if isinstance(refusal, AxisMismatch) and normalises:
            account.warnings.append(f"{node.name} ({short_name(node)}) is not folded: {refusal}")

    def _left_in_subgraphs(self, editor: GraphEditor) -> list[Declined]:
        return [
            Declined(
                f"{name}.{node.name}",
                operator_name(node),
                source_of(node),
                f"it is inside the subgraph {name} of a higher-order operator, which is left whole",
            )
            for name, part in editor.host.subgraphs.named_modules()
            if name and isinstance(part, GraphModule)
            for node in part.graph.nodes
            if is_normalisation(node, editor.constants)
        ]


@dataclass
class Account:
    """What one run of the rewriter did: ``measured`` has the regions of ``rewrites``, None where none can be run."""

    refused: Mapping[str, str]
    rewrites: list[Rewrite] = field(default_factory=list)
    measured: list[Measured | None] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    values: Values = field(default_factory=Values)


def _is_learnable(node: Node, constants: Constants) -> bool:
    """Does it compute with a parameter or buffer that changes along one axis at most?"""
    read = [constants.tensor_of(operand) for operand in node.all_input_nodes]
    return any(t is not None and t.is_floating_point() and max(t.shape, default=1) == t.numel() for t in read)
