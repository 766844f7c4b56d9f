"""The rewriting loop: match an affine, plan its path, compute the cost, prove the region, rewrite; or give a reason.

Claim: the resulting program is the same function of its inputs and its parameters as the original. (A conditional
rewrite is right for these parameter values only.) The claim is made for every rewrite separately.

The argument:

1. *Rules are guesses.* A source reads an operator as an affine, a motion moves the affine past an operator, and an
   absorber computes new weights. Their guards make good folds likely and reasons readable, but no answer relies on
   them. If a guard is missing or wrong, the plan is wrong, and step 3 rejects it.
2. *The plan that is proved is the plan that is carried out.* A plan is a list of edits, each a function that changes
   one node, and of nodes whose readers get another operand. The same edits are applied to a copy of the region and,
   after the proof, to the program. New constants are expressions over old ones: the proof evaluates an expression on
   residues, and the program holds the value of the same expression in float64, rounded once.
3. *A region stands for the program.* It contains all nodes whose values change, and the calls that compute their
   constants; its results are the values that are read outside. `foldproof.graph.region` shows that equal regions make
   equal programs, and defines the nodes that belong to one. A fold that is not PROVED is withdrawn, before anything has
   been changed. A region does not show two things, so guards have to check them: writes to memory from outside
   (constants that the program changes are not folded, and an affine does not move down past a write to its operand;
   in-place operators are functional meanwhile, where nothing else shows their memory),
   and sizes other than those of the example (channels must not lie along a dynamic dimension). `fuse` proves the whole
   program at the end, at several sizes, which would show a mistake in these.
4. *Equalities add up.* Each rewrite starts from the program that the last one left, and reads a constant made by an
   earlier one as an expression over the original ones. So the program after n rewrites equals the original by n
   equalities; the chances that one of them is wrong add up.

A region's proof does not claim that the fold pays (see `cost`), that it keeps digits (see `accuracy`, which may make
`fuse` run the loop again without the fold), or that new memory layouts are harmless (`layout` refuses those that reach
the outside).

The loop ends because each rewrite removes a call or some channels. It runs again after each rewrite, which may make
room for another, until the reasons for what stays are those of the final program. Joining parallel linears comes last,
because it needs their final weights.
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
from foldproof.fusion.affines import (
    SOURCES,
    AffineSource,
    Match,
    NormAffine,
    find_chains,
    is_normalisation,
    read_affine,
)
from foldproof.fusion.batching import BATCHING, BatchLinears
from foldproof.fusion.computed import find_computed, require_small
from foldproof.fusion.dead_channels import DeadChannels
from foldproof.fusion.layout import propagate_strides
from foldproof.fusion.merging import MERGES, MergeRule
from foldproof.fusion.motion import MOTIONS, Motion
from foldproof.fusion.plan import Plan, Planner
from foldproof.fusion.result import Rewrite
from foldproof.graph.nodes import arguments, is_getitem, kind_of, listed, short_name
from foldproof.graph.text import operator_name, source_of
from foldproof.graph.view import view_graph
from foldproof.rewriting.account import UNPROVED, Declined
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.editor import GraphEditor
from foldproof.rewriting.refusal import AxisMismatch, CannotFold
from foldproof.rewriting.rewrite import cut_rewrite
from foldproof.rewriting.sizes import value_of
from foldproof.torch_internals import HigherOrderOperator
from foldproof.verdict import Kind, Verdict

Progress = Callable[[int, int, str], None]
"""Callback that takes the number of steps done, the number of all steps, and the name of the next step."""

Derive = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class ProveRegion(Protocol):
    """The signature of `foldproof.proof.prove_region`."""

    def __call__(
        self, before: GraphModule, after: GraphModule, inputs: Sequence[Tensor], derive: Derive, *, general: bool
    ) -> Verdict: ...


COMPUTED = "computed_constants"
DEFAULT = (*(source.id for source in SOURCES if source.id != NormAffine.id), COMPUTED, *(rule.id for rule in MERGES))
"""Rules that `fuse` applies by default: those that save computation on any machine."""
PASSES = (*DEFAULT, NormAffine.id, DeadChannels.id, *(rule.id for rule in BATCHING))
"""Names of all rules."""


@dataclass(frozen=True)
class Rewriter:
    """The loop that folds every affine that can be folded.

    A fold is kept only if ``prove_region`` proves it, so a missing or wrong guard costs a fold, but never makes a wrong
    program. If ``prove_region`` is None, the guards are trusted, and the verdict of each rewrite is UNDECIDED.
    ``most_made`` is how many elements new constants may have in all, where each call computes them.
    """

    prove_region: ProveRegion | None
    sources: tuple[AffineSource, ...] = SOURCES
    absorbers: tuple[Absorber, ...] = ABSORBERS
    motions: tuple[Motion, ...] = MOTIONS
    merges: tuple[MergeRule, ...] = MERGES
    computed: bool = True
    dead: DeadChannels | None = None
    batching: BatchLinears | None = None
    most_made: int | None = None

    @staticmethod
    def of(passes: Sequence[str] | None, prove_region: ProveRegion | None) -> Rewriter:
        """Return a rewriter that applies these rules of `PASSES`; None stands for `DEFAULT`.

        Raises:
            FoldproofError: a name is unknown, or ``passes`` is a string.
        """
        if isinstance(passes, str):
            raise FoldproofError(f"passes must be a list of names, not {passes!r}: write [{passes!r}]")
        chosen = DEFAULT if passes is None else tuple(passes)
        for name in chosen:
            if name not in PASSES:
                raise FoldproofError(f"there is no pass {name!r}: choose from {', '.join(PASSES)}")
        sources = tuple(source for source in SOURCES if source.id in chosen)
        merges = tuple(rule for rule in MERGES if rule.id in chosen)
        batching = next((rule for rule in reversed(BATCHING) if rule.id in chosen), None)  # the stricter one wins
        dead = DeadChannels() if DeadChannels.id in chosen else None
        return Rewriter(prove_region, sources, merges=merges, computed=COMPUTED in chosen, dead=dead, batching=batching)

    def run(self, editor: GraphEditor, progress: Progress, refused: Mapping[str, str]) -> Account:
        """Rewrite the program under edit, in the order of its graph, until nothing more can be folded.

        ``refused`` maps the names of nodes that must not be folded to reasons.
        """
        account = Account(refused)
        steps = len(find_chains(editor.graph.nodes, editor.constants, self.sources))
        while True:
            account.declined = []  # reasons of an earlier round may no longer hold
            made = len(account.rewrites)
            for done, chain in enumerate(find_chains(editor.graph.nodes, editor.constants, self.sources)):
                if not made:  # later rounds are short
                    progress(done, steps + 1, chain[0].name)
                self._fold_chain(editor, chain, account)
            if self.computed:
                self._compute_constants(editor, account)
            self._merge(editor, account)
            self._cut_channels(editor, account)
            if made == len(account.rewrites):  # so the reasons are those of the final program
                break
        self._batch(editor, account)
        progress(steps, steps + 1, "the whole program")
        account.declined += [*self._list_of_samples(editor), *self._list_left_in_subgraphs(editor)]
        return account

    def _fold_chain(self, editor: GraphEditor, chain: list[Node], account: Account) -> None:
        """Fold consecutive affines as one; if that is impossible, fold each separately."""
        if len(chain) > 1:
            with contextlib.suppress(CannotFold):  # folded as one, new constants are rounded once
                steps = [read_affine(node, editor.constants, self.sources) for node in chain]
                self._fold(editor, Match(tuple(steps)), account)
                return
        for node in chain:
            self._fold_one(editor, node, account)

    def _fold_one(self, editor: GraphEditor, node: Node, account: Account) -> None:
        try:
            step = read_affine(node, editor.constants, self.sources)
            self._fold(editor, Match((step,)), account)
        except CannotFold as refusal:
            self._decline(node, refusal, editor.constants, account)

    def _fold(self, editor: GraphEditor, match: Match, account: Account) -> None:
        planner = Planner(editor.constants, editor.order, self.absorbers, self.motions)
        self._carry_out(editor, planner.plan(match), match.node, account)

    def _compute_constants(self, editor: GraphEditor, account: Account) -> None:
        """Compute constants once in advance that the program computes in each run."""
        for one in find_computed(editor.graph.nodes, editor.constants):
            if not editor.has(one.node):
                continue
            try:
                require_small(one.node, editor.constants)
                plan = Planner(editor.constants, editor.order).plan_constant(one.node, one.calls)
                self._carry_out(editor, plan, one.calls[0], account)
            except CannotFold as refusal:
                node = one.calls[0]
                reason = f"it computes the same at every call, and can't be computed once in advance: {refusal}"
                if all(one.node != node.name for one in account.declined):  # it may be a part of several
                    found = Declined(node.name, operator_name(node), source_of(node), reason, refusal.hint)
                    account.declined.append(found)

    def _merge(self, editor: GraphEditor, account: Account) -> None:
        """Replace linear operators by one that computes the same."""
        for node in list(editor.graph.nodes):
            while editor.has(node) and self._merge_at(editor, node, account):
                pass

    def _merge_at(self, editor: GraphEditor, node: Node, account: Account) -> bool:
        for rule in self.merges:
            if not rule.takes(node, editor.constants):
                continue
            try:
                for plan in rule.plans(node, editor.constants):
                    if self._try_merge(editor, plan, node, account):
                        return True
            except CannotFold as refusal:
                found = Declined(node.name, operator_name(node), source_of(node), str(refusal), refusal.hint)
                account.declined.append(found)
        return False

    def _try_merge(self, editor: GraphEditor, plan: Plan, node: Node, account: Account) -> bool:
        try:
            self._carry_out(editor, plan, node, account)
        except CannotFold as refusal:
            operators = sorted([*plan.folded, plan.edits[0].node], key=editor.order)
            what = f"{listed(operators)} are not merged into one operator: "
            if not any(one.reason.startswith(what) for one in account.declined):  # either may take the other in
                found = Declined(node.name, operator_name(node), source_of(node), f"{what}{refusal}", refusal.hint)
                account.declined.append(found)
            return False
        return True

    def _cut_channels(self, editor: GraphEditor, account: Account) -> None:
        """Cut out channels that are the same for all inputs."""
        if self.dead is None:
            return
        for node in list(editor.graph.nodes):
            if not self.dead.takes(node, editor.constants):
                continue
            try:
                plan = self.dead.plan(node, editor.constants)
                if plan is not None:
                    self._carry_out(editor, plan, node, account)
            except CannotFold as refusal:
                found = Declined(node.name, operator_name(node), source_of(node), str(refusal), refusal.hint)
                account.declined.append(found)

    def _batch(self, editor: GraphEditor, account: Account) -> None:
        """Join operators that read one tensor; this comes last, because it needs their final weights."""
        if self.batching is None:
            return
        for group in self.batching.find_groups(editor.graph, editor.constants):
            first, *others = [member.node for member in group.members]
            try:
                self._carry_out(editor, self.batching.plan(group, editor.constants), first, account)
            except CannotFold as refusal:
                alike = "which read the same tensor" if group.is_shared else "of equal sizes"
                reason = f"it is not joined with {listed(others)}, {alike}: {refusal}"
                account.declined.append(
                    Declined(first.name, operator_name(first), source_of(first), reason, refusal.hint)
                )

    def _carry_out(self, editor: GraphEditor, plan: Plan, reported: Node, account: Account) -> None:
        """Carry out a plan, after computing its cost and proving its region.

        The order matters: nothing in the program changes before the proof and the measurement have passed.

        Raises:
            CannotFold: the plan does not pay, or is not proved; the program is then unchanged.
        """
        if reported.name in account.refused:
            raise CannotFold(account.refused[reported.name], "raise accuracy_limit, if these digits do not matter")
        planned = editor.draft_all(plan.edits)
        drafts = {draft.name: draft for _, row in planned for draft in row.values()}
        new = [draft.tensor.numel() for name, draft in drafts.items() if name not in editor.constants.tensors]
        made = sum(new) + plan.products
        if self.most_made is not None and account.made + made > self.most_made:
            raise CannotFold(
                f"each call would have to compute {made} elements of new constants, which takes too much of its time",
                "use foldproof.fuse, if the parameters don't change any more",
            )
        given = dict(plan.parts)
        if plan.input is not None:
            given |= dict.fromkeys(plan.results, value_of(plan.input))
        new_values = propagate_strides(given, editor.order)
        redirected = {result: plan.input for result in plan.results if plan.input is not None}
        new_constants = [constant for _, row in planned for constant in row.values()]
        saving = cost.compute_saving(plan, new_constants, editor.constants)
        verdict, speed, drawings = UNPROVED, None, None
        if self.prove_region is not None or plan.judge is not None:
            region = cut_rewrite(editor, [*plan.nodes, *plan.context], planned, redirected)
            before, after, inputs = region.before, region.after, region.inputs()
        if self.prove_region is not None:
            known = account.withdrawn.get((before.code, after.code))
            if known is not None:  # in an earlier round
                raise CannotFold(known)
            verdict = self.prove_region(before, after, inputs, region.derive, general=not plan.conditional)
            if verdict.kind is not Kind.PROVED:
                into = ", ".join(edit.node.name for edit in plan.edits)
                withdrawn = f"the fold into {into} was withdrawn, because it is not proved: {verdict.reason}"
                account.withdrawn[before.code, after.code] = withdrawn
                raise CannotFold(withdrawn)
        if plan.judge is not None:
            speed = plan.judge(before, after, inputs)
        if self.prove_region is not None:
            axes = {region.copies[node].name: axes for node, axes in plan.axes.items() if node in region.copies}
            drawings = (view_graph(before, axes), view_graph(after))
            operands = [account.values.find_name(operand) for operand in region.operands]
            names = tuple(name for name in operands if name is not None)
            account.measured.append(Measured(before, after, names) if None not in operands else None)
        account.values.record(*plan.new_values())
        changed = [edit.node for edit in plan.edits]
        rewrite = Rewrite(
            rule=plan.rule,
            nodes=tuple(node.name for node in sorted(plan.nodes, key=editor.order)),
            result=next((edit.node for edit in plan.edits if edit.wanted), plan.input or reported).name,
            source=source_of(reported),
            verdict=verdict,
            through=tuple(
                short_name(node)
                for node in plan.moved
                if node.op == "call_function" and not is_getitem(node) and node not in (*changed, *plan.folded)
            ),
            saving=saving,
            reported=reported.name,
            conditional=plan.conditional,
            speed=speed,
            drawings=drawings,
        )
        account.rewrites.append(rewrite)
        account.made += made
        values = {node: value for node, value in new_values.items() if node not in redirected}
        editor.carry_out(planned, redirected, values)

    def _decline(self, node: Node, refusal: CannotFold, constants: Constants, account: Account) -> None:
        """Report a declined node, except arithmetic with numbers or whole tensors, which no user expects to fold."""
        normalises = is_normalisation(node, constants)
        if not normalises and not _is_learnable(node, constants):
            return
        account.declined.append(Declined(node.name, operator_name(node), source_of(node), str(refusal), refusal.hint))
        if isinstance(refusal, AxisMismatch) and normalises:
            account.warnings.append(f"{node.name} ({short_name(node)}) is not folded: {refusal}")

    def _list_of_samples(self, editor: GraphEditor) -> list[Declined]:
        """List normalisations that stay because they have no statistics of their own."""
        chosen = any(isinstance(source, NormAffine) for source in self.sources)
        return [
            Declined(
                node.name,
                operator_name(node),
                source_of(node),
                "it computes its statistics from each sample",
                "" if chosen or arguments(node)["weight"] is None else _OF_AFFINE,
            )
            for node in editor.graph.nodes
            if kind_of(node) in NormAffine.kinds
        ]

    def _list_left_in_subgraphs(self, editor: GraphEditor) -> list[Declined]:
        runs = {
            str(part.target): node.target.name() if isinstance(node.target, HigherOrderOperator) else ""
            for node in editor.graph.nodes
            for part in node.all_input_nodes
            if part.op == "get_attr"
        }
        return [
            Declined(
                f"{name}.{node.name}",
                operator_name(node),
                source_of(node),
                f"it is inside the subgraph {name} of a higher-order operator, which is left whole",
                _OF_AUTOCAST if runs[name.split(".")[0]] == "wrap_with_autocast" else "",
            )
            for name, part in editor.host.subgraphs.named_modules()
            if name.split(".")[0] in runs and isinstance(part, GraphModule)
            for node in part.graph.nodes
            if is_normalisation(node, editor.constants)
        ]


_OF_AFFINE = f"the pass {NormAffine.id!r} moves its weight and bias into its readers, where they can take them"
_OF_AUTOCAST = (
    "the subgraph runs under autocast; fold exported_program.run_decompositions({}), which has conversions instead"
)


@dataclass
class Account:
    """An account of one run of the rewriter.

    ``measured`` has the regions of ``rewrites``, None where none can be run; ``made`` counts elements of new constants.
    ``withdrawn`` has the reasons why regions were not proved, by their code before and after.
    """

    refused: Mapping[str, str]
    rewrites: list[Rewrite] = field(default_factory=list)
    measured: list[Measured | None] = field(default_factory=list)
    made: int = 0
    declined: list[Declined] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    values: Values = field(default_factory=Values)
    withdrawn: dict[tuple[str, str], str] = field(default_factory=dict)


def _is_learnable(node: Node, constants: Constants) -> bool:
    """Return True if the node reads a parameter or buffer that changes along at most one axis."""
    read = [constants.tensor_of(operand) for operand in node.all_input_nodes]
    return any(t is not None and t.is_floating_point() and max(t.shape, default=1) == t.numel() for t in read)
