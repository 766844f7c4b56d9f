"""Names used in the code of pages without a definition."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn


def network() -> dict[str, Any]:
    """A new network, programs and passes for it, and a quantized network for ``fold_qat``."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from torch.fx.passes.infra.pass_manager import PassManager

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).eval()
    model[1].running_var.uniform_(0.5, 2)
    images = torch.randn(2, 3, 8, 8)
    program = torch.export.export(model, (images,))
    return {
        "torch": torch,
        "model": model,
        "images": images,
        "inputs": (images,),
        "before": model,
        "after": model[:2],
        "reference": model,
        "port": copy.deepcopy(model),
        "theirs_to_mine": dict,
        "mine_to_theirs": dict,
        "make": lambda heads, groups: (nn.Linear(heads, 5), nn.Linear(heads, 5), (torch.randn(2, heads),), dict),
        "program": program,
        "graph_module": program.module(),
        "converted": torch.export.export(_Quantized().eval(), (images,)).module(),
        "pass_fn": _without_dropout,
        "my_pipeline": _without_dropout,
        "pass_manager": PassManager(passes=[_without_dropout]),
        "PassManager": PassManager,
        "XnnpackPartitioner": XnnpackPartitioner,
        "to_edge_transform_and_lower": to_edge_transform_and_lower,
    }


class _Quantized(nn.Module):
    """A convolution with a quantized input and weight, followed by a BatchNorm that no quantizer's pattern matched."""

    def __init__(self) -> None:
        import torch.ao.quantization.fx._decomposed  # registers the operators

        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (4, 3, 1, 1), dtype=torch.int8))
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = torch.ops.quantized_decomposed
        limits = (-128, 127, torch.int8)
        x = q.dequantize_per_tensor(q.quantize_per_tensor(x, 0.02, 3, *limits), 0.02, 3, *limits)
        return self.bn(nn.functional.conv2d(x, q.dequantize_per_tensor(self.weight, 0.01, 0, *limits)))


def _without_dropout(program: fx.GraphModule | torch.export.ExportedProgram) -> None:
    graph_module = program if isinstance(program, fx.GraphModule) else program.graph_module
    for node in graph_module.graph.nodes:
        if node.target is torch.ops.aten.dropout.default:
            node.replace_all_uses_with(node.args[0])
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()


NAMES = dict.fromkeys(("docs/api.md", "docs/howto/audit.md", "docs/howto/pipelines.md"), network)
