"""Wrong folds of other tools, each as a program that needs only PyTorch and the tool."""

from __future__ import annotations

import logging
import textwrap
import warnings
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class WrongAnswer:
    """A program whose last line computes the difference between the outputs of the folded model and the model.

    ``reports`` are links to known reports.
    """

    title: str
    explanation: str
    program: str
    reports: tuple[str, ...] = ()

    def difference(self) -> float:
        """Run the program; the largest difference of an output element, about 1 for outputs of about 1."""
        names: dict[str, Any] = {}
        logging.disable(logging.WARNING)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                exec(self.program, names)
        finally:
            logging.disable(logging.NOTSET)
        return float(names["difference"])


def _program(text: str) -> str:
    return textwrap.dedent(text)


WRONG_ANSWERS = (
    WrongAnswer(
        title="torchao: a convolution's output with a second reader",
        explanation="`_fuse_conv_bn_` changes the convolution's weight without checking for other readers of its"
        " output. The same holds for `_fuse_linear_bn_`.",
        program=_program("""\
            import torch
            from torch import nn
            from torchao.quantization.pt2e.utils import _fuse_conv_bn_

            class Model(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
                    self.bn.running_var.fill_(4.0)

                def forward(self, x):
                    y = self.conv(x)
                    return y + self.bn(y)

            torch.manual_seed(0)
            model, x = Model().eval(), torch.randn(2, 3, 8, 8)
            _fuse_conv_bn_(folded := torch.export.export(model, (x,)).module())
            difference = (folded(x) - model(x)).abs().max()
            """),
    ),
    WrongAnswer(
        title="torchao: a weight with a second reader",
        explanation="The folded weight and bias take the names of the old ones, so every other reader gets the new"
        " ones: another call of the module, or another module that shares its weight or only its bias.",
        program=_program("""\
            import torch
            from torch import nn
            from torchao.quantization.pt2e.utils import _fuse_conv_bn_

            torch.manual_seed(0)
            model = nn.Sequential(conv := nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), conv).eval()
            model[1].running_var.fill_(4.0)
            x = torch.randn(2, 3, 8, 8)
            _fuse_conv_bn_(folded := torch.export.export(model, (x,)).module())
            difference = (folded(x) - model(x)).abs().max()
            """),
    ),
    WrongAnswer(
        title="torchao: a second BatchNorm",
        explanation="A weight that was folded once counts as folded. The second of two consecutive BatchNorms is"
        " therefore removed without being folded, and so is a second BatchNorm behind a second call of a module.",
        program=_program("""\
            import torch
            from torch import nn
            from torchao.quantization.pt2e.utils import _fuse_conv_bn_

            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)).eval()
            model[2].running_var.fill_(4.0)
            x = torch.randn(2, 3, 8, 8)
            _fuse_conv_bn_(folded := torch.export.export(model, (x,)).module())
            difference = (folded(x) - model(x)).abs().max()
            """),
    ),
    WrongAnswer(
        title="torchao and torch.fx: an unbatched convolution",
        explanation="Without a batch dimension, BatchNorm's channels are the convolution's positions. If their numbers"
        " are equal, the fold goes through; otherwise it raises.",
        program=_program("""\
            import torch
            from torch import nn
            from torch.fx.experimental.optimization import fuse

            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8)).eval()
            model[1].running_mean.normal_()
            x = torch.randn(4, 10)
            difference = (fuse(model)(x) - model(x)).abs().max()
            """),
    ),
    WrongAnswer(
        title="torch.fx: linear, then BatchNorm, on three dimensions",
        explanation="torch.fx still has the fault that torchao fixed in <https://github.com/pytorch/ao/pull/4242>:"
        " linear acts on the last dimension and BatchNorm on dimension 1. If their sizes differ, it raises.",
        program=_program("""\
            import torch
            from torch import nn
            from torch.fx.experimental.optimization import fuse

            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)).eval()
            model[1].running_mean.normal_()
            x = torch.randn(2, 5, 3)
            difference = (fuse(model)(x) - model(x)).abs().max()
            """),
    ),
    WrongAnswer(
        title="torch.fx: a module called twice",
        explanation="The folded convolution replaces the module, so every other call gets it, too. With the same"
        " BatchNorm behind both calls, it is folded in twice.",
        program=_program("""\
            import torch
            from torch import nn
            from torch.fx.experimental.optimization import fuse

            torch.manual_seed(0)
            model = nn.Sequential(conv := nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), conv).eval()
            model[1].running_var.fill_(4.0)
            x = torch.randn(2, 3, 8, 8)
            difference = (fuse(model)(x) - model(x)).abs().max()
            """),
        reports=(
            "https://github.com/pytorch/pytorch/issues/104593",
            "https://github.com/pytorch/pytorch/issues/197539",
        ),
    ),
    WrongAnswer(
        title="ExecuTorch: linear, then BatchNorm, on three or four dimensions",
        explanation="XNNPACK's `FuseBatchNormPass` does not compare dimensions. If sizes differ, lowering fails.",
        program=_program("""\
            import torch
            from torch import nn
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
            from executorch.runtime import Runtime

            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)).eval()
            model[1].running_mean.normal_()
            x = torch.randn(2, 5, 3)
            edge = to_edge_transform_and_lower(torch.export.export(model, (x,)), partitioner=[XnnpackPartitioner()])
            program = Runtime.get().load_program(edge.to_executorch().buffer)
            difference = (program.load_method("forward").execute([x])[0] - model(x)).abs().max()
            """),
    ),
    WrongAnswer(
        title="ExecuTorch: a convolution called twice, with two BatchNorms",
        explanation="Both calls get a new weight, under the same name. The same holds for a linear.",
        program=_program("""\
            import torch
            from torch import nn
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
            from executorch.runtime import Runtime

            torch.manual_seed(0)
            model = nn.Sequential(conv := nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), conv, nn.BatchNorm2d(3)).eval()
            model[3].running_var.fill_(4.0)
            x = torch.randn(2, 3, 8, 8)
            edge = to_edge_transform_and_lower(torch.export.export(model, (x,)), partitioner=[XnnpackPartitioner()])
            program = Runtime.get().load_program(edge.to_executorch().buffer)
            difference = (program.load_method("forward").execute([x])[0] - model(x)).abs().max()
            """),
    ),
)
