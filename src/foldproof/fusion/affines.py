"""Sources of affines: operators that compute a scale and a shift of each channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

from foldproof.fusion import examples
from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.layout import have_equal_strides
from foldproof.graph.nodes import (
    arguments,
    is_getitem,
    kind_of,
    listed,
    memory_of,
    operator_node,
    operator_of,
    set_argument,
    value_readers,
)
from foldproof.operators import is_functional
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.expression import Expression, Operand
from foldproof.rewriting.refusal import CannotFold, TrainingMode, next_training
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import flat, number, product


@dataclass(frozen=True)
class AffineStep:
    """An operator that computes an affine of ``input``; ``results`` are the nodes that hold its value."""

    source: AffineSource
    node: Node
    input: Node
    results: tuple[Node, ...]
    affine: Affine
    strip: Callable[[Node], None] | None = None
    """Function that removes the affine from ``node``, if the affine is only a part of it and the node stays."""
    between: tuple[Node, ...] = ()
    """Nodes between ``input`` and ``node``."""


@dataclass(frozen=True)
class Match:
    """A match: consecutive affines, which together are one affine; ``results`` hold ``affine(input)``."""

    steps: tuple[AffineStep, ...]

    @property
    def input(self) -> Node:
        return self.steps[0].input

    @property
    def results(self) -> tuple[Node, ...]:
        return self.steps[-1].results

    @property
    def affine(self) -> Affine:
        return reduce(Affine.then, (step.affine for step in self.steps))

    @property
    def node(self) -> Node:
        """Node under which the match is reported: the first normalisation, else the first node."""
        return next((s.node for s in self.steps if s.source.is_normalisation), self.steps[0].node)

    @property
    def nodes(self) -> list[Node]:
        return list(dict.fromkeys(node for step in self.steps for node in (step.node, *step.results)))

    @property
    def rule(self) -> str:
        return ", ".join(dict.fromkeys(step.source.id for step in self.steps))


class AffineSource(Protocol):
    """A rule that reads the scale and shift of an operator. The docstring of a rule states the algebra."""

    id: str
    is_normalisation: bool
    fires: tuple[Fires, ...]
    declines: tuple[Declines, ...]

    def takes(self, node: Node, constants: Constants) -> bool:
        """Return True if this rule knows the operator."""

    def read(self, node: Node, constants: Constants) -> AffineStep:
        """Read the affine that ``node`` computes.

        Raises:
            CannotFold: its scale and shift are not fixed.
        """


class BatchNorm:
    """Batch normalisation with fixed statistics is an affine of each channel, axis 1.

    γ·(x − μ)/√(σ² + ε) + β = scale·x + shift, with scale = γ·(σ² + ε)^(-1/2) and shift = β − μ·scale
    (Ioffe and Szegedy 2015, section 3.1). Without γ and β they are 1 and 0.
    """

    id = "batch_norm"
    is_normalisation = True
    kinds = frozenset(
        {
            "batch_norm",
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "_batch_norm_no_update",
        }
    )
    # These never have fixed statistics. The rule takes them so that it can report the reason.
    training_kinds = frozenset(
        {
            "_native_batch_norm_legit_functional",
            "_batch_norm_with_update",
            "_batch_norm_with_update_functional",
        }
    )
    fires: tuple[Fires, ...] = examples.batch_norm_fires
    declines: tuple[Declines, ...] = examples.batch_norm_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        """Return True for a batch normalisation of any kind."""
        kind = kind_of(node)
        return kind in self.kinds or kind in self.training_kinds

    def read(self, node: Node, constants: Constants) -> AffineStep:
        given = arguments(node)
        if given.get("running_mean") is None or given.get("running_var") is None:
            raise CannotFold(
                "it keeps no running statistics and computes them from each batch (track_running_stats=False)",
                next_training("use track_running_stats=True"),
            )
        if given.get("training") or kind_of(node) in self.training_kinds:
            raise _in_training("batch")
        return AffineStep(self, node, given["input"], _list_results(node), _read_statistics(given, constants))


class InstanceNorm:
    """Instance normalisation that uses its running statistics is a `BatchNorm`: an affine of each channel, axis 1.

    It uses them in eval mode with track_running_stats=True. Otherwise the statistics are those of each sample, and the
    operator is not affine (Ulyanov et al. 2016).
    """

    id = "instance_norm"
    is_normalisation = True
    fires: tuple[Fires, ...] = examples.instance_norm_fires
    declines: tuple[Declines, ...] = examples.instance_norm_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        """Return True for an instance normalisation of any kind."""
        return kind_of(node) == "instance_norm"

    def read(self, node: Node, constants: Constants) -> AffineStep:
        given = arguments(node)
        if given["use_input_stats"]:
            if given.get("running_mean") is not None:
                raise _in_training("sample")
            raise CannotFold(
                "it computes its statistics from each sample (track_running_stats=False)",
                next_training("use track_running_stats=True"),
            )
        return AffineStep(self, node, given["input"], (node,), _read_statistics(given, constants))


def _in_training(what: str) -> TrainingMode:
    return TrainingMode(
        f"it is in training mode and computes its statistics from each {what}: call model.eval()",
        "call model.eval() before the export",
    )


def _read_statistics(given: Mapping[str, Any], constants: Constants) -> Affine:
    """Compute the affine of a normalisation with fixed statistics from its arguments.

    Core ATen writes an instance normalisation as a batch normalisation over all instances in a row, whose vectors are
    those of one instance, repeated.
    """
    vectors = [given[name] for name in ("weight", "bias", "running_mean", "running_var")]
    times = {_count_repetitions(vector) for vector in vectors if vector is not None}
    if len(times) == 1 and times != {None}:
        vectors = [None if vector is None else vector.args[0] for vector in vectors]
    weight, bias = (constants.optional(x, f"its {name}") for x, name in zip(vectors, ("weight", "bias")))
    mean, variance = (
        constants.expression(x, f"its running {name}") for x, name in zip(vectors[2:], ("mean", "variance"))
    )
    scale = Expression(batch_norm_scale, (weight, variance, given["eps"]))
    shift = Expression(batch_norm_shift, (bias, mean, scale))
    channels, count = int(value_of(given["running_mean"]).shape[0]), int(value_of(vectors[2]).shape[0])
    affine = Affine.along(1, value_of(given["input"]).dim(), channels, scale, shift)
    return replace(affine, channels=affine.channels % count, count=count)


def _count_repetitions(vector: Node) -> int | None:
    """Return the number of times that ``vector`` repeats another vector; None for any other node."""
    if kind_of(vector) != "repeat":
        return None
    given = arguments(vector)
    repeats = given["repeats"]
    return repeats[0] if len(repeats) == 1 and value_of(given["self"]).dim() == 1 else None


def batch_norm_scale(weight: Tensor | None, variance: Tensor, eps: float) -> Tensor:
    scale = torch.rsqrt(variance + eps)
    return scale if weight is None else weight * scale


def batch_norm_deviation(variance: Tensor, eps: float) -> Tensor:
    return torch.sqrt(variance + eps)


def batch_norm_shift(bias: Tensor | None, mean: Tensor, scale: Tensor) -> Tensor:
    shift = -mean * scale
    return shift if bias is None else bias + shift


def _list_results(node: Node) -> tuple[Node, ...]:
    """List the nodes that hold the normalised value: getitem 0, if the operator returns saved statistics, too."""
    if isinstance(node.meta.get("val"), torch.Tensor):
        return (node,)
    results = tuple(user for user in node.users if is_getitem(user) and user.args[1] == 0)
    others = [user for user in node.users if user not in results]
    if others:
        raise CannotFold(f"the statistics that it saves beside its result are read by {listed(others)}")
    if not results:
        raise CannotFold("nothing reads its result")
    for result in results:
        value_of(result)
    return results


class Arithmetic:
    """x·k, x/k, x + k, x − k, k − x, −x and x·k + m are affines if k and m are constants that broadcast to x.

    x/k = (1/k)·x; k − x = (−1)·x + k; addcmul(m, x, k, v) = (v·k)·x + m. Layer scales, frozen batch normalisations
    (DETR), learnable affine blocks (HGNet-V2), (x − mean)/std, and bias additions are of this kind.
    """

    id = "arithmetic"
    is_normalisation = False
    kinds = frozenset({"mul", "div", "true_divide", "add", "sub", "rsub", "neg", "addcmul"})
    fires: tuple[Fires, ...] = examples.arithmetic_fires
    declines: tuple[Declines, ...] = examples.arithmetic_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        """Return True for arithmetic of one tensor with constants, at least one of them a parameter or buffer."""
        if kind_of(node) not in self.kinds or not isinstance(node.meta.get("val"), torch.Tensor):
            return False
        given = arguments(node)
        if given.get("rounding_mode") is not None or not value_of(node).is_floating_point():
            return False
        data = [x for x in node.all_input_nodes if not constants.holds(x)]
        if len(data) != 1 or not isinstance(data[0].meta.get("val"), torch.Tensor):
            return False
        times = [x for x in (*node.args, *node.kwargs.values()) if x is data[0]]
        same_shape = tuple(value_of(data[0]).shape) == tuple(value_of(node).shape)
        return (
            len(times) == 1
            and same_shape
            and not (kind_of(node) in ("div", "true_divide") and given["other"] is data[0])
        )

    def read(self, node: Node, constants: Constants) -> AffineStep:
        [x] = [operand for operand in node.all_input_nodes if not constants.holds(operand)]
        given = arguments(node)
        read = _Reader(node, x, constants)
        kind = kind_of(node)
        if kind == "addcmul":
            affine = self._addcmul(read, given)
        elif kind == "neg":
            affine = read.affine(number(-1), None)
        else:
            affine = self._of_two(read, kind, given)
        return AffineStep(self, node, x, (node,), affine)

    def _of_two(self, read: _Reader, kind: str, given: dict[str, object]) -> Affine:
        alpha = given.get("alpha", 1)
        factor = None if alpha == 1 else number(read.number(alpha))
        first = given["self"] is read.x
        other = read.vector(given["other" if first else "self"])
        if kind == "mul":
            return read.affine(other, None)
        if kind in ("div", "true_divide"):
            return read.affine(Expression(reciprocal, (other,)), None)
        minus = number(-1)
        # add: self + α·other; sub: self − α·other; rsub: other − α·self
        if kind == "rsub":
            first = not first
        sign = None if kind == "add" else minus
        if first:
            return read.affine(None, product(product(other, factor), sign))
        return read.affine(product(factor, sign), other)

    def _addcmul(self, read: _Reader, given: dict[str, object]) -> Affine:
        value = given.get("value", 1)
        factor = None if value == 1 else number(read.number(value))
        terms = [given["tensor1"], given["tensor2"]]
        if given["self"] is read.x:
            return read.affine(None, product(product(read.vector(terms[0]), read.vector(terms[1])), factor))
        [other] = [t for t in terms if t is not read.x]
        return read.affine(product(read.vector(other), factor), read.vector(given["self"]))


class _Reader:
    """Reader of the constant operands of an arithmetic node, as vectors over a common numbering of channels."""

    def __init__(self, node: Node, x: Node, constants: Constants) -> None:
        self.node, self.x, self.constants = node, x, constants
        self.shape = value_of(x).shape
        shapes = [value_of(k).shape for k in node.all_input_nodes if k is not x]
        self.wide = torch.broadcast_shapes(*shapes) if shapes else torch.Size()
        self.wide = torch.Size([1] * (len(self.shape) - len(self.wide)) + list(self.wide))
        if not all(isinstance(size, int) for size in self.wide):
            raise CannotFold("one of its constants has a dynamic shape")

    def number(self, value: object) -> float:
        if not isinstance(value, (int, float)):
            raise CannotFold(f"a factor of {self.node.name} is {value!r}, not a number")
        return float(value)

    def vector(self, operand: object) -> Operand:
        if not isinstance(operand, Node):
            return number(self.number(operand))
        what = f"what {self.node.name} computes with"
        expression = self.constants.expression(operand, what)
        if value_of(operand).numel() in (1, self.wide.numel()):
            return flat(expression)
        return Expression(broadcast, (expression, tuple(self.wide)))

    def affine(self, scale: Operand, shift: Operand) -> Affine:
        channels = torch.arange(self.wide.numel()).reshape(self.wide)
        return Affine(channels, self.wide.numel(), _expand_vector(scale, channels), _expand_vector(shift, channels))


def _expand_vector(vector: Operand, channels: Tensor) -> Operand:
    return None if vector is None else Expression(broadcast, (vector, (channels.numel(),)))


def broadcast(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x.expand(shape).reshape(-1)


def reciprocal(x: Tensor) -> Tensor:
    return 1 / x


class Identity:
    """f(x) = 1·x + 0 for dropout in evaluation, for a copy, and for a reshaping of x that is reshaped back.

    So is a conversion to the dtype and device that x has, and a part of x that is the whole. A result that the program
    returns, or that it writes to, stays.
    """

    id = "identity"
    is_normalisation = False
    dropouts = frozenset({"dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"})
    kinds = dropouts | {"clone"}
    reshapings = frozenset({"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as"})
    wholes = frozenset({"alias", "slice", "narrow", "expand", "to", "type_as", "contiguous"})
    fires: tuple[Fires, ...] = examples.identity_fires
    declines: tuple[Declines, ...] = examples.identity_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        """Return True for an operator that changes nothing, or that undoes the ones before it."""
        operator = operator_of(node)
        if kind_of(node) in self.reshapings:
            return self._find_same(node) is not None
        if kind_of(node) in self.wholes:
            return _is_whole(node)
        if kind_of(node) not in self.kinds or operator is None or not is_functional(operator, arguments(node)):
            return False
        return arguments(node).get("memory_format") in (None, torch.preserve_format)

    def read(self, node: Node, constants: Constants) -> AffineStep:
        x = self._find_same(node) if kind_of(node) in self.reshapings else node.all_input_nodes[0]
        assert x is not None
        between: list[Node] = []
        while (last := between[-1] if between else node).all_input_nodes[0] is not x:
            between.append(last.all_input_nodes[0])
        if any(user.op == "output" for user in node.users):
            raise CannotFold("the program returns it")
        if any(constants.is_written(memory) for one in (node, x) for memory in memory_of(one)):
            raise CannotFold(f"the program writes to the memory of {x.name}")
        rank = value_of(node).dim()
        same = Affine(torch.zeros([1] * rank, dtype=torch.int64), 1, None, None)
        return AffineStep(self, node, x, (node,), same, between=tuple(between))

    def _find_same(self, node: Node) -> Node | None:
        """Return the value of equal shape that was reshaped to this one; reshaping keeps the order of elements."""
        found: Node = node
        while kind_of(found) in self.reshapings:
            found = found.all_input_nodes[0]
            if _have_equal_shapes(found, node):
                return found
        return None


def _is_whole(node: Node) -> bool:
    """Return True for a part or a conversion of a tensor that is the tensor itself, in the same layout."""
    x, y = node.all_input_nodes[0].meta.get("val"), node.meta.get("val")
    if not (isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)) or arguments(node).get("copy"):
        return False
    alike = (x.dtype, x.device, x.layout) == (y.dtype, y.device, y.layout)
    return alike and _have_equal_shapes(node.all_input_nodes[0], node) and have_equal_strides(x, y)


def _have_equal_shapes(a: Node, b: Node) -> bool:
    x, y = a.meta.get("val"), b.meta.get("val")
    if not (isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)) or x.dim() != y.dim():
        return False
    return all(statically_known_true(n == m) for n, m in zip(x.shape, y.shape, strict=True))


class NormAffine:
    """γ·n(x) + β = scale·n(x) + shift, for the normalisations n that compute their statistics from x.

    For layer_norm, group_norm and rms_norm, the readers can absorb γ and β. The normalisation itself stays, so no
    operator call is saved. The fold pays before quantization, where γ would otherwise be rounded separately.
    """

    id = "norm_affine"
    is_normalisation = False
    kinds = frozenset({"layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "rms_norm"})
    fires: tuple[Fires, ...] = examples.norm_affine_fires
    declines: tuple[Declines, ...] = examples.norm_affine_declines

    def takes(self, node: Node, constants: Constants) -> bool:
        return kind_of(node) in self.kinds and arguments(node)["weight"] is not None

    def read(self, node: Node, constants: Constants) -> AffineStep:
        given = arguments(node)
        weight = flat(constants.expression(given["weight"], "its weight"))
        bias = constants.optional(given.get("bias"), "its bias")
        shape = value_of(given["weight"]).shape
        results = _list_results(node)
        rank = value_of(results[0]).dim()
        channels = torch.arange(shape.numel())
        if "group" in kind_of(node):
            channels = channels.reshape([1, -1, *[1] * (rank - 2)])
        else:
            channels = channels.reshape([*[1] * (rank - len(shape)), *shape])
        affine = Affine(channels, shape.numel(), weight, None if bias is None else flat(bias))
        return AffineStep(self, node, node, results, affine, _remove_affine)


def _remove_affine(node: Node) -> None:
    for name in ("weight", "bias"):
        if name in arguments(node):
            set_argument(node, name, None)


SOURCES: tuple[AffineSource, ...] = (BatchNorm(), InstanceNorm(), Arithmetic(), Identity(), NormAffine())
"""Rules of all operators that are read as affines."""


def is_normalisation(node: Node, constants: Constants) -> bool:
    """Return True for a normalisation that users expect to be folded, so that `fuse` reports why it was not."""
    return any(source.is_normalisation and source.takes(node, constants) for source in SOURCES)


def is_in_training(node: Node, constants: Constants) -> bool:
    """Return True for a normalisation of activations that has running statistics and does not use them."""
    if constants.holds(node) or not is_normalisation(node, constants):
        return False
    try:
        read_affine(node, constants)
    except TrainingMode:
        return True
    except CannotFold:
        pass
    return False


def drops_at_random(node: Node) -> bool:
    """Return True for a dropout in training mode."""
    operator = operator_of(node)
    if operator is None or kind_of(node) not in Identity.dropouts | {"native_dropout"}:
        return False
    return not is_functional(operator, arguments(node))


def find_chains(
    nodes: Iterable[Node], constants: Constants, sources: tuple[AffineSource, ...] = SOURCES
) -> list[list[Node]]:
    """Find the nodes that may be affines, in the order of the graph; group those that feed only each other."""
    chains: list[list[Node]] = []
    ends: dict[Node, list[Node]] = {}
    for node in nodes:
        if constants.holds(node) or not any(source.takes(node, constants) for source in sources):
            continue
        before = next((x for x in map(operator_node, node.all_input_nodes) if x in ends), None)
        if before is not None and len(value_readers(before)) == 1:
            chain = ends.pop(before)
        else:
            chain = []
            chains.append(chain)
        chain.append(node)
        if not NormAffine().takes(node, constants):
            ends[node] = chain
    return chains


def read_affine(node: Node, constants: Constants, sources: tuple[AffineSource, ...] = SOURCES) -> AffineStep:
    """Read the affine of a node that `find_chains` found."""
    return next(source for source in sources if source.takes(node, constants)).read(node, constants)
