"""The reference as a graph: run as it is, in float64, and in float64 with every operator perturbed."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, OutputSpec

from foldproof.comparison.calls import Call, input_tensors, state_of
from foldproof.comparison.inputs import Inputs
from foldproof.comparison.recorded import record
from foldproof.errors import FoldproofError, brief
from foldproof.graph.interpreter import Again, Change, Interpreter
from foldproof.log import giving_up, hushed
from foldproof.operators import bind_arguments, list_updated_statistics, list_written
from foldproof.program.export import export_module
from foldproof.program.state import copied, deepcopied, owned
from foldproof.program.structure import arranged
from foldproof.rounding.float64 import Float64, widened
from foldproof.rounding.noise import Noise
from foldproof.rounding.operands import Operands
from foldproof.torch_internals import (
    HigherOrderOperator,
    OpOverload,
    TreeSpec,
    flat_arguments,
    tree_flatten,
    tree_leaves,
    tree_map,
)


class Graph:
    """A functional graph of ATen operators, with the owner's parameters.

    With ``may_record``, a program that can't be exported is recorded as it runs at the inputs; ``recorded`` says why,
    and the graph then holds for inputs that take the same way. It is not exported where ``recorded`` is given.

    Perturbed runs round to ``precision`` where that is coarser than the program's own dtypes, parameters and inputs
    included. ``writes_state`` says that a call writes to parameters or buffers, ``writes`` that it writes to any of
    these or to inputs.

    Raises:
        FoldproofError: ``program`` can't be exported, or does not run.
    """

    def __init__(
        self,
        program: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        dynamic_shapes: Any = None,
        precision: torch.dtype | None = None,
        may_record: bool = False,
        recorded: str = "",
    ) -> None:
        self.recorded = recorded
        try:
            if recorded:
                raise FoldproofError(recorded)
            exported = _exported(program, tuple(args), dict(kwargs), dynamic_shapes)
        except FoldproofError as error:
            found = _recorded(program, args, kwargs) if may_record else None
            if found is None:
                raise
            exported, self.recorded = found, brief(error.__cause__ or error)
        call = _higher_order(exported) if may_record else None
        if call is not None and (found := _recorded(program, args, kwargs)) is not None:
            exported, self.recorded = found, f"{call.target} is in the way"
        self.program = exported
        signature = exported.graph_signature
        named = {id(t): name for name, t in input_tensors((tuple(args), dict(kwargs))).items()}
        self._inputs = [named.get(id(x), "") for x in flat_arguments(exported, args, kwargs)]
        self.writes_state = bool(signature.buffers_to_mutate or signature.parameters_to_mutate)
        self.writes = self.writes_state or bool(signature.user_inputs_to_mutate)
        self.module: fx.GraphModule = exported.module(check_guards=False)
        self._wide: fx.GraphModule | None = None
        self.precision = precision
        self.select: Callable[[list[Tensor], Inputs], list[Tensor]] = lambda outputs, given: outputs
        self.dtypes: dict[str, torch.dtype] = {}
        self.unknown: set[str] = set()

    @property
    def nodes(self) -> list[fx.Node]:
        """Nodes that compute something."""
        return [n for n in self.module.graph.nodes if n.op == "call_function"]

    @property
    def wide(self) -> fx.GraphModule:
        """The same graph over float64 parameters."""
        if self._wide is None:
            self._wide = deepcopied(self.module)
            self._wide.double()
        return self._wide

    def writer_of(self, name: str) -> fx.Node | None:
        """The node whose value a call leaves in a buffer, parameter or input, by its name in words."""
        kinds = {OutputKind.BUFFER_MUTATION: "buffer", OutputKind.PARAMETER_MUTATION: "parameter"}
        for spec in self.program.graph_signature.output_specs:
            target = spec.target or ""
            if (spec.kind in kinds and f"{kinds[spec.kind]} {target}" == name) or self._input_name(spec) == name:
                return next((n for n in self.program.graph.nodes if n.name == spec.arg.name), None)
        return None

    def _input_name(self, spec: OutputSpec) -> str | None:
        """The name in words of the input that an output is written to; None for other outputs."""
        if spec.kind is not OutputKind.USER_INPUT_MUTATION:
            return None
        given = [s.arg.name for s in self.program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
        return self._inputs[given.index(spec.target)] if spec.target in given[: len(self._inputs)] else None

    def flat(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The inputs as the graph takes them."""
        return flat_arguments(self.program, args, kwargs)

    @property
    def quantizes(self) -> bool:
        """True if a value is quantized."""
        return any(str(n.target).startswith("quantized_decomposed.quantize") for n in self.nodes)

    @property
    def other_outputs(self) -> list[Any]:
        """Outputs that are neither tensors nor numbers, without None."""
        outputs = [spec.arg for spec in self.program.graph_signature.output_specs]
        values = [x.value for x in outputs if isinstance(x, ConstantArgument)]
        return [x for x in values if x is not None and not isinstance(x, (int, float, complex))]

    @property
    def higher_order(self) -> fx.Node | None:
        """The first call of `torch.cond` or the like."""
        return _higher_order(self.program)

    @property
    def own_generator(self) -> fx.Node | None:
        """The first draw from a generator that the program holds, whose state every run moves on."""
        return next(filter(_has_generator, self.nodes), None)

    def put_together(self, out: Any, given: Inputs) -> list[Tensor]:
        """The values of the graph's output node as `flattened` outputs, of which ``select`` takes those that count."""
        return self.select(flattened(self.module.graph.process_outputs(out)), given)

    def count_outputs(self, given: Inputs) -> int:
        """The number of all outputs."""
        return len(self.run(*given))

    def run(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        after: Change | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> list[Tensor]:
        """The outputs in the program's own dtypes; learns which dtype each node has. ``known`` is as in `float64`."""

        def learn(node: fx.Node, value: Any, again: Again) -> Any:
            found = [t.dtype for t in tree_leaves(value) if isinstance(t, Tensor)]
            floats = [dtype.to_real() for dtype in found if dtype.is_floating_point or dtype.is_complex]
            if floats:
                self.dtypes[node.name] = floats[0]
            return value if after is None else after(node, value, again)

        return self._walk(self._fresh(self.module), [(tuple(args), dict(kwargs))], learn, None, known)[0].outputs

    def run_in_float64(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        after: Change | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> list[Tensor]:
        """The outputs in float64; ``known`` has the values of nodes, by name, that need not be computed."""
        return self.call_in_float64([(tuple(args), dict(kwargs))], after, known)[0].outputs

    def call_in_float64(
        self, calls: Sequence[Inputs], after: Change | None = None, known: Mapping[str, Any] | None = None
    ) -> list[Call]:
        """Calls in a row in float64, with the state that each leaves to the next."""
        exact = Float64()

        def before(node: fx.Node) -> None:
            exact.dtype = self.dtypes.get(node.name, torch.float32)

        wide, calls = self._fresh(self.wide), widen(calls)
        with exact:
            return self._walk(wide, calls, after, before, known)

    def perturbed(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        seed: int,
        amplitude: float = 1.0,
        operands: Operands | None = None,
        only: str | None = None,
        after: Change | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> list[Tensor]:
        """The outputs in float64 with every operator's result (or that of ``only`` one) moved within its rounding."""
        calls = [(tuple(args), dict(kwargs))]
        return self.call_perturbed(calls, seed, amplitude, operands, only, after, known)[0].outputs

    def call_perturbed(
        self,
        calls: Sequence[Inputs],
        seed: int,
        amplitude: float = 1.0,
        operands: Operands | None = None,
        only: str | None = None,
        after: Change | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> list[Call]:
        """Calls in a row, as in `call_in_float64`, perturbed as in `perturbed`."""
        noise = Noise(torch.Generator().manual_seed(seed), amplitude, operands)

        def before(node: fx.Node) -> None:
            noise.dtype = self._coarser(self.dtypes.get(node.name, torch.float32))
            noise.active = only is None or node.name == only

        wide, calls = self._fresh(self.wide), widen(calls)
        if self.precision is not None and only is None:
            wide, calls = self._stored(wide, calls, torch.Generator().manual_seed(seed))
        with noise:
            out = self._walk(wide, calls, after, before, known)
        self.unknown |= noise.unknown
        return out

    def _fresh(self, module: fx.GraphModule) -> fx.GraphModule:
        """A graph that may be run: a copy where a call writes to what it reads."""
        return deepcopied(module) if self.writes else module

    def _coarser(self, dtype: torch.dtype) -> torch.dtype:
        if self.precision is None or torch.finfo(self.precision).eps <= torch.finfo(dtype).eps:
            return dtype
        return self.precision

    def _stored(
        self, module: fx.GraphModule, calls: Sequence[Inputs], generator: torch.Generator
    ) -> tuple[fx.GraphModule, Sequence[Inputs]]:
        """Parameters and inputs as they may be once they are stored in the precision."""
        roundoff = torch.finfo(self._coarser(torch.float32)).eps / 2

        def moved(x: Any) -> Any:
            if not isinstance(x, Tensor) or x.dtype != torch.float64:
                return x
            noise = torch.rand(x.shape, generator=generator, dtype=torch.float64) * 2 - 1
            return x.detach() * (1 + roundoff * noise.to(x.device))

        module = deepcopied(module)
        with torch.no_grad():
            for _, tensor in owned(module):
                tensor.copy_(moved(tensor))
        return module, tree_map(moved, calls)

    def _walk(
        self,
        module: fx.GraphModule,
        calls: Sequence[Inputs],
        after: Change | None,
        before: Callable[[fx.Node], None] | None,
        known: Mapping[str, Any] | None = None,
    ) -> list[Call]:
        start = (
            {n: known[n.name] for n in module.graph.nodes if n.op == "call_function" and n.name in known}
            if known
            else None
        )
        made = []
        for args, kwargs in map(copied, calls):
            walk = Interpreter(module, before=before, change=after)
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                flat = self.flat(args, kwargs)
                out = walk.run(*flat, initial_env=dict(start) if start else None, enable_io_processing=False)
                outputs = self.select(flattened(module.graph.process_outputs(out)), (args, kwargs))
            state = state_of(module) if self.writes_state else {}
            if len(calls) > 1:
                outputs, state = copied((outputs, state))
            made.append(Call(outputs, input_tensors((args, kwargs)), state))
        return made


def widen(x: Any) -> Any:
    """Every tensor of lower floating-point precision as float64."""
    return tree_map(lambda t: widened(t) if isinstance(t, Tensor) else t, x)


def flattened(out: Any) -> list[Tensor]:
    """The tensors, arrays and numbers among outputs, in an order that does not hang on that of a dict's keys."""
    return _numbers(arranged(*tree_flatten(out))[0])


def as_called(out: Any) -> list[Tensor]:
    """The same in the order in which the program returned them."""
    return _numbers(tree_leaves(out))


def _numbers(leaves: Sequence[Any]) -> list[Tensor]:
    return [torch.as_tensor(x).detach() for x in leaves if isinstance(x, (Tensor, int, float, complex)) or is_array(x)]


def is_array(x: Any) -> bool:
    """True for an array or scalar of NumPy."""
    return type(x).__module__ == "numpy" and hasattr(x, "__array__")


def keys_of(spec: TreeSpec) -> list[str]:
    """The names of outputs that have keys, in the order of `flattened`: ``output['logits']``."""
    _, _, names = arranged(range(spec.num_leaves), spec)
    return [name for name in names if name.startswith(("output[", "output."))]


def _exported(source: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any) -> ExportedProgram:
    program = source if isinstance(source, ExportedProgram) else None
    if program is None:
        if not isinstance(source, nn.Module):
            raise FoldproofError(
                f"the reference is a {type(source).__name__}, whose float64 result can't be computed; give an"
                " nn.Module, a GraphModule or an ExportedProgram"
            )
        try:
            with torch.no_grad(), hushed(), _unprinted(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = export_module(source, args, kwargs, dynamic_shapes)
        except Exception as error:
            raise FoldproofError(
                f"{type(source).__name__} can't be exported, which is how its float64 result is computed"
                f" ({brief(error)}); give a torch.export program"
            ) from error
    return _functional(program)


def _functional(program: ExportedProgram) -> ExportedProgram:
    """The program in a form that writes nothing in place."""
    if not any(_writes(node) for node in program.graph.nodes):
        return program
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            functional: ExportedProgram = program.run_decompositions({})  # nothing is written in place
            return functional
    except Exception as error:
        raise FoldproofError(
            "the exported program can't be brought into a form that writes nothing in place, which is how its float64"
            f" result is computed ({brief(error)})"
        ) from error


@contextlib.contextmanager
def _unprinted() -> Iterator[None]:
    """An exporter that gives up prints the graph that it has so far."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _higher_order(program: ExportedProgram) -> fx.Node | None:
    return next((n for n in program.graph.nodes if isinstance(n.target, HigherOrderOperator)), None)


def _recorded(source: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ExportedProgram | None:
    """The operators that run at these inputs; None where they can't be recorded."""
    module = source.module(check_guards=False) if isinstance(source, ExportedProgram) else source
    if isinstance(module, nn.Module):
        with giving_up("recording operators"), hushed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = _functional(record(module, args, kwargs))
            return None if _higher_order(program) is not None else program
    return None


def _has_generator(node: fx.Node) -> bool:
    """Return True if an operator is given a generator to draw from."""
    if not isinstance(node.target, OpOverload):
        return False
    return bind_arguments(node.target, node.args, node.kwargs).get("generator") is not None


def _writes(node: fx.Node) -> bool:
    if not isinstance(node.target, OpOverload):
        return False
    given = bind_arguments(node.target, node.args, node.kwargs)
    return bool(list_written(node.target) or list_updated_statistics(node.target, given))
