"""Gradients of PyTorch models against their joint graphs: the backward half of `zoo.self_proof`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._functorch.aot_autograd import aot_export_module
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.export import default_decompositions
from torch.utils._pytree import tree_leaves

import foldproof
from foldproof.program.state import undone
from foldproof.verdict import Kind, Verdict
from zoo.architecture import Architecture
from zoo.self_proof import quietly

_NO_MORE: Mapping[Any, Any] = {}


@dataclass(frozen=True)
class GradientProof:
    """The results of one architecture in training mode.

    ``joint`` compares autograd with the joint graph of AOTAutograd, and ``decomposed`` with that of core operators.
    ``operators`` counts the operator calls of the two graphs.
    """

    name: str
    operators: tuple[int | None, int | None]
    joint: Verdict
    decomposed: Verdict


class _Loss(nn.Module):
    """The sum of all floating-point outputs times one tensor for each: gradients for any loss.

    It holds each tied parameter once: AOTAutograd takes each name for a parameter of its own, which has no gradient.
    """

    def __init__(self, model: nn.Module, inputs: int) -> None:
        super().__init__()
        self._model, self.inputs = (model,), inputs
        self._places = {name: name.replace(".", "/") for name, _ in _held(model)}
        for name, x in _held(model):
            if isinstance(x, nn.Parameter):
                self.register_parameter(self._places[name], x)
            else:
                self.register_buffer(self._places[name], x)

    @property
    def model(self) -> nn.Module:
        return self._model[0]

    def forward(self, *given: Tensor) -> Any:
        held = {name: getattr(self, place) for name, place in self._places.items()}
        outputs = _floats(torch.func.functional_call(self.model, held, given[: self.inputs]))
        return (torch.stack([(x * c).sum() for x, c in zip(outputs, given[self.inputs :])]).sum(),)


def _held(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _floats(outputs: Any) -> list[Tensor]:
    return [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.is_floating_point() and x.requires_grad]


def prove_gradients(architecture: Architecture, seed: int = 0) -> GradientProof:
    """Trace the loss of a model of the zoo with its gradients, and compare both graphs with autograd."""
    sample = architecture.build()
    model = _trained(sample.model)
    with torch.random.fork_rng(devices=[]), quietly(), torch.enable_grad():
        torch.manual_seed(0)
        first = _trained(architecture.build().model)  # which keeps tensors of a call, as caches of positions do
        outputs = _floats(first(*sample.inputs))
        cotangents = [torch.randn_like(x) for x in outputs]
        used = [p for p in first.parameters() if p.requires_grad]
        gradients = iter(torch.autograd.grad(outputs, used, cotangents, allow_unused=True))
        for p in model.parameters():
            p.requires_grad_(p.requires_grad and next(gradients) is not None)  # the tracer takes no others
    step, given = _Loss(model, len(sample.inputs)), (*sample.inputs, *(c.detach() for c in cotangents))
    verdicts, counts = [], []
    for table in (_NO_MORE, _core_operators()):
        graph, verdict = None, None
        with quietly():
            try:
                graph, names, written = _trace(step, given, table)
            except Exception as error:
                verdict = Verdict(
                    Kind.UNDECIDED, f"tracing raises {type(error).__name__}: {str(error).splitlines()[0]}"
                )
            else:
                tensors = {**dict(step.named_parameters()), **dict(step.named_buffers())}
                flat = (*(tensors[name].detach() for name in names), *given)
                verdict = foldproof.prove(_autograd(step, names, written), graph, flat, seed=seed)
        verdicts.append(verdict)
        counts.append(None if graph is None else _operators(graph))
    return GradientProof(architecture.name, (counts[0], counts[1]), verdicts[0], verdicts[1])


def _trained(model: nn.Module) -> nn.Module:
    """Return the model in training mode, with dropouts of 1/2, whose 1/(1 - p) is no rounded number.

    No layer is dropped and no spectrum masked: these draw their random numbers in Python, for which there is no graph.
    Tensors that a model kept of the calls that calibrated it are forgotten.
    """
    for module in model.modules():
        for held in (module, getattr(module, "config", None)):
            for name, value in [*vars(held).items()] if held is not None else ():
                if name == "apply_spec_augment":
                    setattr(held, name, False)
                elif name.startswith("cached") and isinstance(value, Tensor):
                    setattr(held, name, None)
                elif isinstance(value, float) and value and ("drop" in name or isinstance(module, nn.Dropout)):
                    setattr(held, name, 0.0 if "layer" in name else 0.5)
    return model.train()


def _copying_view(x: Tensor, size: list[int]) -> Any:
    """A view of a copy: the strides of some normalizations are traced wrong, so that a later view fails."""
    return _VIEW_OF_COPY(x.clone(memory_format=torch.contiguous_format), size)


def _core_operators() -> Mapping[Any, Any]:
    """Return the decompositions of `torch.export`, but for that of attention on CPUs.

    The program in place of attention returns its weights as the logsumexp, which the backward then reads: the joint
    graph with it is wrong.
    """
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    return {op: made for op, made in default_decompositions().items() if op is not attention}


_VIEW_OF_COPY = torch.ops.aten._unsafe_view.default
_COPYING_VIEWS = {torch.ops.aten.view.default: _copying_view}


def _trace(
    module: _Loss, given: tuple[Tensor, ...], table: Mapping[Any, Any]
) -> tuple[fx.GraphModule, list[str], list[str]]:
    """Return the joint graph, the names of its parameters and buffers, and of the buffers that it writes to."""

    def trace(module: _Loss, more: Mapping[Any, Any] = _NO_MORE) -> Any:
        used = {op: made for op, made in {**table, **more}.items() if not more or op is not _VIEW_OF_COPY}
        try:
            return aot_export_module(module, given, trace_joint=True, output_loss_index=0, decompositions=used)
        except RuntimeError as error:
            if more or "view size is not compatible" not in str(error):
                raise
            return trace(module, _COPYING_VIEWS)

    with torch.enable_grad():
        try:
            with undone(module.model):
                graph, signature = trace(module)
        except (DataDependentOutputException, AssertionError):
            # The model asks for values of tensors, or holds tensors that it computed; its exported program does not.
            model = torch.export.export(module.model, given[: module.inputs]).module(check_guards=False)
            graph, signature = trace(_Loss(model, module.inputs))
    assert isinstance(graph, fx.GraphModule)
    return graph, [*signature.parameters, *signature.buffers], list(signature.buffers_to_mutate.values())


def _autograd(module: _Loss, names: list[str], written: list[str]) -> Callable[..., Any]:
    """Return the step as a function of parameters, buffers and inputs, with the results of the joint graph."""
    wanted = {name for name, p in module.named_parameters() if p.requires_grad}

    def step(*flat: Tensor) -> Any:
        with torch.enable_grad(), undone(module.model):
            held = {name: x.clone() for name, x in zip(names, flat)}
            leaves = {name: x.detach().requires_grad_() for name, x in held.items() if name in wanted}
            (loss,) = torch.func.functional_call(module, {**held, **leaves}, flat[len(names) :])
            gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        return (*(held[name] for name in written), loss.detach(), *gradients)

    return step


def _operators(graph: fx.GraphModule) -> int:
    return sum(isinstance(node.target, torch._ops.OpOverload) for node in graph.graph.nodes)
