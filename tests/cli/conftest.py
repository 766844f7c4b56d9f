"""Each test works in a folder of its own, with a few models to name."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

TWICE = """
class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(self.conv(x)) + self.conv(x)
"""
"""A model with a convolution that is called twice, which a fold of its BatchNorm makes wrong."""

MODELS = """
import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return self.bn(y) + y.sigmoid()


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return nn.functional.silu(self.gate(x)) * self.up(x)


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class Sparse(nn.Module):
    def forward(self, x):
        return (x + 1).to_sparse().to_dense()


class Arrays(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy() * 2)


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Quantized(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (4, 3), dtype=torch.int8))
        self.bn = nn.BatchNorm1d(4)

    def forward(self, x):
        q = torch.ops.quantized_decomposed
        limits = (-128, 127, torch.int8)
        x = q.dequantize_per_tensor(q.quantize_per_tensor(x, 0.02, 3, *limits), 0.02, 3, *limits)
        return self.bn(nn.functional.linear(x, q.dequantize_per_tensor(self.weight, 0.01, 0, *limits)))


def seeded(model):
    torch.manual_seed(0)
    model = model()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.weight), nn.init.normal_(module.bias)
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
    return model.eval()


def image():
    return (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)),)


def conv_bn():
    return seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())), image()


def port():
    class Port(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = conv_bn()[0]

        def forward(self, image):
            return self.layers(image)

    model = seeded(Port)
    return (lambda image: model(image=image)), image()


def renamed(state):
    return {f"layers.{name}": x for name, x in state.items()}


def renamed_back(state):
    return {name.removeprefix("layers."): x for name, x in state.items()}


def without_a_bias(port, state):
    port.load_state_dict({name: x for name, x in renamed(state).items() if name != "layers.0.bias"}, strict=False)


def linear(width, out=4):
    return nn.Linear(width, out), (torch.randn(2, width),)


def transposed_if_square(state):
    weight = state["weight"]
    return {"weight": weight.T if weight.shape[0] == weight.shape[1] else weight, "bias": state["bias"]}


def gate():
    return seeded(Gate), (torch.randn(4, 8),)


def without_bias_of_bn():
    model, args = conv_bn()
    model[1].bias.data.zero_()
    return model, args


def deep():
    block = lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
    return seeded(lambda: nn.Sequential(*[block() for _ in range(14)])), image()


def training():
    model, inputs = deep()
    return model.train(), inputs


class Pair:
    def __init__(self, *parts):
        self.parts = parts


torch.utils._pytree.register_pytree_node(Pair, lambda pair: (list(pair.parts), None), lambda parts, _: Pair(*parts))


def unnamed_container():
    class Pairs(Residual):
        def forward(self, x):
            return Pair(super().forward(x), x)

    return Pairs().eval(), image()


def residual():
    return seeded(Residual), image()


def quantized():
    import torch.ao.quantization.fx._decomposed

    return seeded(Quantized), (torch.randn(5, 3, generator=torch.Generator().manual_seed(1)),)


class QuantizedTwice(Quantized):
    def __init__(self):
        super().__init__()
        self.register_buffer("other", self.weight[:, :1].repeat(1, 4))
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x):
        q = torch.ops.quantized_decomposed
        limits = (-128, 127, torch.int8)
        x = q.dequantize_per_tensor(q.quantize_per_tensor(super().forward(x), 0.02, 0, *limits), 0.02, 0, *limits)
        return nn.functional.linear(x, q.dequantize_per_tensor(self.other, 0.01, 0, *limits), self.bias)


def quantized_biases():
    import torch.ao.quantization.fx._decomposed

    return seeded(QuantizedTwice), (torch.randn(5, 3, generator=torch.Generator().manual_seed(1)),)


def relu():
    return nn.ReLU(), image()


def small():
    return nn.ReLU(), (torch.ones(3),)


def sigmoid():
    return nn.Sigmoid(), image()


def noisy():
    return Noisy(), image()


def sparse():
    return Sparse(), (torch.randn(2, 3),)


def unexportable():
    return Branches(), image()


def unrecordable():
    return Arrays(), image()


def wrong_shape():
    return conv_bn()[0], (torch.randn(2, 5, 8, 8),)


def other_shape():
    return nn.Sequential(nn.Conv2d(5, 4, 3), nn.ReLU()), (torch.randn(2, 5, 8, 8),)


def with_kwargs():
    return conv_bn()[0], (), {"input": image()[0]}


def dynamic():
    return conv_bn()[0], image(), None, {"input": {0: torch.export.Dim("batch")}}


def slow():
    import time

    print("slow has begun", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The working folder: empty but for models.py. A command leaves sys.path as it was."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "models.py").write_text(MODELS)
    monkeypatch.chdir(folder)
    before = _search_path()
    yield
    assert _search_path() == before


def _search_path() -> list[str]:
    """``sys.path`` without the folder that setuptools adds when torch first imports it."""
    return [folder for folder in sys.path if not folder.endswith("setuptools/_vendor")]
