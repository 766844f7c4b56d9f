"""Kinds of models in use, each as small as possible: the rows of docs/matrix.md."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.nn.utils.parametrizations import weight_norm

from tests.proof.models import CalledTwice, Module, trained

Form = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]


def as_module(module: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> nn.Module:
    return module


@dataclass(frozen=True)
class Model:
    """A kind of model: a module, example inputs, and the form in which it is used."""

    build: Callable[[], nn.Module]
    inputs: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    form: Form = as_module
    training: bool = False

    def program(self) -> Any:
        """The module in its form, equal at each call."""
        return self.form(self._module(), *self.given())

    def changed(self) -> Any:
        """The same module with its last parameter increased by a half."""
        module = self._module()
        change(module)
        return self.form(module, *self.given())

    def given(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Copies of the inputs."""
        return copy.deepcopy(self.inputs), copy.deepcopy(dict(self.kwargs))

    def _module(self) -> nn.Module:
        torch.default_generator.manual_seed(0)
        return trained(self.build()).train(self.training)


@torch.no_grad()
def change(module: nn.Module) -> None:
    [*_, last] = (p for p in module.parameters() if p.is_floating_point())
    last.add_(0.5)


def exported(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.export.ExportedProgram:
    return torch.export.export(module, inputs, kwargs)


def exported_with_any_batch(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return torch.export.export(module, inputs, kwargs, dynamic_shapes=({0: Dim.DYNAMIC},) * len(inputs))


def graph_module(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule:
    return exported(module, inputs, kwargs).module()


def quantized(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule:
    """The module after PT2E quantization."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    prepared = prepare_pt2e(
        graph_module(module, inputs, kwargs), XNNPACKQuantizer().set_global(get_symmetric_quantization_config())
    )
    prepared(*inputs, **kwargs)
    return convert_pt2e(prepared)


def in_eight_bits(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
    """A module whose weights are tensors of a subclass of torchao."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(module, Int8WeightOnlyConfig())
    return module


def as_function(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        return module(x).relu()

    return function


def x(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def normed_linear() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())


def convolution(rank: int, transposed: bool = False) -> Model:
    kind = getattr(nn, f"Conv{'Transpose' * transposed}{rank}d")
    norm = getattr(nn, f"BatchNorm{rank}d")
    return Model(lambda: nn.Sequential(kind(2, 3, 2), norm(3)), (x(2, 2, *[4] * rank),))


def in_dtype(dtype: torch.dtype) -> Model:
    return Model(lambda: normed_linear().to(dtype), (x(3, 4, dtype=dtype),))


class Tied(nn.Module):
    """A tiny language model with tied weights: the embedding is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.head = nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(F.gelu(self.hidden(self.words(tokens))))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.attention(x, x, x, key_padding_mask=mask, need_weights=False)[0]


class Last(nn.Module):
    """The last state of a recurrent network."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.recurrent, self.head = kind(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


class Counts(nn.Module):
    """A module that updates a running mean and reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        self.mean.mul_(0.5).add_(y.mean(0))
        return y - self.mean


@dataclass
class Output:
    """A common form of outputs."""

    logits: Tensor
    hidden: Tensor


@dataclass
class RegisteredOutput:
    """The same, registered with torch.export."""

    logits: Tensor
    hidden: Tensor


torch.export.register_dataclass(RegisteredOutput)


def puts_out(form: Callable[[Tensor, Tensor], Any]) -> Model:
    def forward(m: Any, x: Tensor) -> Any:
        hidden = m.bn(m.first(x)).relu()
        return form(m.second(hidden), hidden)

    layers = lambda: {"first": nn.Linear(4, 4), "bn": nn.BatchNorm1d(4), "second": nn.Linear(4, 2)}  # noqa: E731
    return Model(lambda: Module(forward, **layers()), (x(3, 4),))


def puts_out_model_output() -> nn.Module:
    # Not in forward: transformers does not register the class while a program is traced.
    from transformers.modeling_outputs import SequenceClassifierOutput

    return puts_out(lambda logits, hidden: SequenceClassifierOutput(logits=logits, hidden_states=(hidden,))).build()


def takes(forward: Callable[..., Any], *inputs: Any, **kwargs: Any) -> Model:
    return Model(lambda: Module(forward, first=nn.Linear(4, 4), bn=nn.BatchNorm1d(4)), inputs, kwargs)


def with_bias(m: Any, x: Tensor, bias: Tensor | None = None, scale: float = 1.0) -> Tensor:
    y = m.bn(m.first(x)) * scale
    return y if bias is None else y + bias


class Named(Tensor):
    """A tensor subclass that changes nothing."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Named:
        return self.clone()


MODELS: Mapping[str, Model] = {
    "an ordinary module": Model(normed_linear, (x(3, 4),)),
    "tied weights": Model(Tied, (torch.tensor([[0, 3, 5], [1, 1, 2]]),)),
    "a module that is called twice": Model(CalledTwice, (x(1, 3, 4, 4),)),
    "Conv1d": convolution(1),
    "Conv2d": convolution(2),
    "Conv3d": convolution(3),
    "ConvTranspose1d": convolution(1, transposed=True),
    "ConvTranspose2d": convolution(2, transposed=True),
    "ConvTranspose3d": convolution(3, transposed=True),
    "LSTM": Model(lambda: Last(nn.LSTM), (x(2, 3, 3),)),
    "GRU": Model(lambda: Last(nn.GRU), (x(2, 3, 3),)),
    "attention with a mask": Model(
        Attention, (x(2, 3, 4), torch.tensor([[False, False, True], [False, False, False]]))
    ),
    "weight normalisation": Model(lambda: nn.Sequential(weight_norm(nn.Linear(4, 3)), nn.ReLU()), (x(3, 4),)),
    "a written buffer": Model(Counts, (x(3, 4),)),
    "training mode": Model(
        lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3)), (x(2, 2, 4, 4),), training=True
    ),
    "training mode with dropout": Model(
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)), (x(3, 4),), training=True
    ),
    "puts out a tuple": puts_out(lambda logits, hidden: (logits, [hidden, None])),
    "puts out a dict": puts_out(lambda logits, hidden: {"logits": logits, "hidden": hidden}),
    "puts out a dataclass": puts_out(Output),
    "puts out a registered dataclass": puts_out(RegisteredOutput),
    "puts out a ModelOutput": Model(puts_out_model_output, (x(3, 4),)),
    "takes keywords": takes(with_bias, x(3, 4), bias=x(4)),
    "takes keywords only": takes(with_bias, x=x(3, 4), bias=x(4)),
    "takes None": takes(with_bias, x(3, 4), None),
    "takes a number": takes(with_bias, x(3, 4), None, 0.3),
    "takes a list and a dict": takes(lambda m, a, b: m.bn(m.first(a[0] + b["x"])), [x(3, 4)], {"x": x(4)}),
    "takes whole numbers": Model(lambda: nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3)), (torch.tensor([[0, 4]]),)),
    "takes a tensor subclass": Model(normed_linear, (x(3, 4).as_subclass(Named),)),
    "bfloat16": in_dtype(torch.bfloat16),
    "float16": in_dtype(torch.float16),
    "float64": in_dtype(torch.float64),
    "weights of a tensor subclass": Model(normed_linear, (x(3, 4),), form=in_eight_bits),
    "compiled by torch.compile": Model(normed_linear, (x(3, 4),), form=lambda m, *_: torch.compile(m, backend="eager")),
    "DataParallel": Model(normed_linear, (x(3, 4),), form=lambda m, *_: nn.DataParallel(m)),
    "ExportedProgram": Model(normed_linear, (x(3, 4),), form=exported),
    "ExportedProgram, dynamic batch": Model(normed_linear, (x(3, 4),), form=exported_with_any_batch),
    "ExportedProgram, core ATen": Model(normed_linear, (x(3, 4),), form=lambda *a: exported(*a).run_decompositions()),
    "GraphModule of torch.export": Model(normed_linear, (x(3, 4),), form=graph_module),
    "GraphModule of symbolic_trace": Model(normed_linear, (x(3, 4),), form=lambda m, *_: fx.symbolic_trace(m)),
    "GraphModule of convert_pt2e": Model(normed_linear, (x(3, 4),), form=quantized),
    "TorchScript": Model(normed_linear, (x(3, 4),), form=lambda m, *_: torch.jit.script(m)),
    "a function": Model(normed_linear, (x(3, 4),), form=as_function),
}
