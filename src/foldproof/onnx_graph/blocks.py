"""ONNX Runtime's operators on channels in blocks, read as ordinary ones.

On processors with wide registers, ONNX Runtime keeps images as blocks of channels, and filters as blocks of both kinds
of channels (``com.microsoft.nchwc``). Shapes do not show it: only the order in memory differs. Here images stay in the
usual order, so that `reorder` only adds or drops channels of padding. Filters are held in the order of blocks, as
ONNX Runtime has written them, and are put back.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from foldproof.onnx_graph import resizing, windows
from foldproof.onnx_graph.registry import NotTranslated, defines

DOMAIN = "com.microsoft.nchwc"


@functools.cache
def block_size() -> int:
    """Return the number of channels in a block on this machine, as ONNX Runtime pads a filter to it."""
    import tempfile
    from pathlib import Path

    import onnx
    import onnxruntime

    helper, one = onnx.helper, onnx.TensorProto.FLOAT
    weight = helper.make_tensor("w", one, [4, 4, 1, 1], [0.0] * 16)
    given, made = (helper.make_tensor_value_info(name, one, [1, 4, 2, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "probe", [given], [made], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "probe.onnx")
        options.log_severity_level = 4
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        optimized = onnx.load(options.optimized_model_filepath)
    found = [t.dims[0] for t in optimized.graph.initializer if len(t.dims) == 4]
    if not found or found[0] == 4:
        raise NotTranslated("ONNX Runtime has channels in blocks in this model, and none on this machine")
    return int(found[0])


@defines("ReorderInput", domain=DOMAIN)
def reorder_input(x: Tensor, *, channels_last: int = 0) -> Tensor:
    """Pad the channels to whole blocks."""
    x = x.movedim(-1, 1) if channels_last else x
    missing = -x.shape[1] % block_size()
    return functional.pad(x, (0, 0) * (x.dim() - 2) + (0, missing)) if missing else x.clone()


@defines("ReorderOutput", domain=DOMAIN)
def reorder_output(x: Tensor, *, channels: int, channels_last: int = 0) -> Tensor:
    """Drop the channels of padding."""
    x = x[:, :channels]
    return x.movedim(1, -1).contiguous() if channels_last else x.clone()


def _filter(weight: Tensor, group: int) -> Tensor:
    """Return a filter in the usual order.

    Memory holds O/b · I/b · height · width · b · b elements (outputs last); of fewer inputs than a block, as of each
    channel by itself, O/b · I · height · width · b.
    """
    b = block_size()
    outputs, inputs, *window = weight.shape
    by_channel = group > 1 and inputs == 1
    if outputs % b or (not by_channel and inputs >= b and inputs % b):
        raise NotTranslated("a filter of another machine's blocks has no definition")
    if by_channel or inputs < b:
        blocks = weight.reshape(outputs // b, inputs, *window, b)
        return blocks.movedim(-1, 1).reshape(weight.shape)
    blocks = weight.reshape(outputs // b, inputs // b, *window, b, b)
    return blocks.movedim(-1, 1).movedim(-1, 3).reshape(weight.shape)


@defines("Conv", domain=DOMAIN, like=windows.fused_conv)
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    other: Tensor | None = None,
    *,
    group: int = 1,
    **attributes: Any,
) -> Tensor:
    return windows.fused_conv(x, _filter(weight, group), bias, other, group=group, **attributes)


for _name, _function in (
    ("MaxPool", windows.max_pool),
    ("AveragePool", windows.average_pool),
    ("GlobalAveragePool", windows.global_average_pool),
    ("GlobalMaxPool", windows.global_max_pool),
):
    defines(_name, domain=DOMAIN, several=_name == "MaxPool")(_function)


@defines("Upsample", domain=DOMAIN)
def upsample(
    x: Tensor, *, coordinate_transformation_mode: str = "asymmetric", mode: str = "nearest", scales: Sequence[int]
) -> Tensor:
    by = torch.tensor([float(n) for n in scales])
    return resizing.resize(
        x,
        scales=by,
        coordinate_transformation_mode=coordinate_transformation_mode,
        mode=mode,
        nearest_mode="floor",
    )
