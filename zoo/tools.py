"""Other tools on a model: the number of BatchNorms that each leaves, and the outputs of its program.

Each tool is used as released and documented, on one thread and in float32. If a tool has no BatchNorm operator at the
end, the remains of BatchNorms are counted; see each tool.
"""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from zoo.architecture import Inputs, Sample

aten = torch.ops.aten


@dataclass(frozen=True)
class Left:
    """The number of BatchNorms left by a tool, and a function that runs its program on the sample's inputs."""

    batch_norms: int
    run: Callable[[], Sequence[Tensor]]


def batch_norms(nodes: Iterable[fx.Node]) -> int:
    """BatchNorms with fixed statistics in a graph of ATen operators. Those with batch statistics aren't foldable."""
    return sum(_is_batch_norm(node) for node in nodes)


def _is_batch_norm(node: fx.Node) -> bool:
    name = str(node.target) if node.op == "call_function" else ""
    if "_native_batch_norm_legit_no_training" in name:
        return True
    return node.target is aten.batch_norm.default and not node.args[5]


def tensors(outputs: Any) -> list[Tensor]:
    """The tensors of nested outputs, in order."""
    return [x for x in tree_leaves(outputs) if isinstance(x, Tensor)]


def torchao(sample: Sample) -> Left:
    """The first two passes of ``prepare_pt2e``, on the exported program's module."""
    from torchao.quantization.pt2e.utils import _fuse_conv_bn_, _fuse_linear_bn_

    module = torch.export.export(sample.model, sample.inputs).module()
    _fuse_conv_bn_(module)
    _fuse_linear_bn_(module)
    return Left(batch_norms(module.graph.nodes), lambda: tensors(module(*sample.inputs)))


def torch_fx(sample: Sample) -> Left:
    """``torch.fx.experimental.optimization.fuse``, which needs symbolic tracing and fails on many models."""
    from torch.fx.experimental.optimization import fuse

    module: Any = fuse(sample.model)
    parts = dict(module.named_modules())
    left = sum(node.op == "call_module" and isinstance(parts[node.target], _BatchNorm) for node in module.graph.nodes)
    left += sum(node.target is nn.functional.batch_norm for node in module.graph.nodes)
    return Left(left, lambda: tensors(module(*sample.inputs)))


def inductor(sample: Sample) -> Left:
    """``torch.compile`` with freezing: a run of the graphs for code generation.

    BatchNorm is decomposed into subtract, multiply and add, which keep its name and disappear together.
    """
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx

    graphs: list[fx.GraphModule] = []

    def keep(module: fx.GraphModule, example_inputs: Any, **settings: Any) -> Any:
        graphs.append(module)

        def run(args: list[Any]) -> Any:
            given = list(args)
            args.clear()
            return module(*given)

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    with config.patch(freezing=True, force_disable_caches=True):
        compiled = torch.compile(sample.model, backend=partial(compile_fx, inner_compile=keep))
        outputs = tensors(compiled(*sample.inputs))
    return Left(sum(len(_remains(module.graph)) for module in graphs), lambda: outputs)


def _remains(graph: fx.Graph) -> set[str]:
    """The names, in Dynamo's graph, of the BatchNorms with remains."""
    return {
        node.meta["from_node"][0].name
        for node in graph.nodes
        if node.op == "call_function" and "batch_norm" in str(node.meta.get("original_aten"))
    }


def executorch(sample: Sample) -> Left:
    """``to_edge_transform_and_lower`` for XNNPACK, run by ExecuTorch's runtime.

    XNNPACK turns unfused BatchNorms into convolutions at the end; they are counted just before. Without delegation, a
    BatchNorm stays a BatchNorm.
    """
    from executorch.backends.xnnpack._passes.decompose_batch_norm import DecomposeBatchNorm
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    left = 0
    decompose = DecomposeBatchNorm.call

    def count(self: Any, module: fx.GraphModule) -> Any:
        nonlocal left
        left += batch_norms(module.graph.nodes)
        return decompose(self, module)

    program = torch.export.export(sample.model, sample.inputs)
    with mock.patch.object(DecomposeBatchNorm, "call", count):
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    left += batch_norms(edge.exported_program().graph.nodes)

    def run() -> list[Tensor]:
        buffer = edge.to_executorch().buffer  # the method reads the buffer and the program without keeping them alive
        loaded = Runtime.get().load_program(buffer)
        method = loaded.load_method("forward")
        assert method is not None
        return tensors(method.execute([x.contiguous() for x in sample.inputs]))

    return Left(left, run)


def onnx_runtime(sample: Sample) -> Left:
    """``torch.onnx.export``, which folds by itself, then a CPU session with all graph optimisations.

    BatchNorms are counted after the fusion of operators and before the choice of layouts, which turns some of the rest
    into convolutions.
    """
    program = torch.onnx.export(sample.model, sample.inputs, dynamo=True, verbose=False)
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exported.onnx"
        program.save(path)
        session = _onnx_session(path)
        left = _onnx_batch_norms(path)
    given = dict(zip((i.name for i in session.get_inputs()), _arrays(sample.inputs), strict=True))
    return Left(left, lambda: [torch.from_numpy(x) for x in session.run(None, given)])


def onnxsim(sample: Sample) -> Left:
    """``torch.onnx.export``, which folds by itself, then ``onnxsim.simplify``; ONNX Runtime runs the result."""
    import onnx
    from onnxsim import simplify

    program = torch.onnx.export(sample.model, sample.inputs, dynamo=True, verbose=False)
    assert program is not None
    simplified, equal = simplify(program.model_proto)
    assert equal
    left = sum(node.op_type == "BatchNormalization" for node in simplified.graph.node)

    def run() -> list[Tensor]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "simplified.onnx"
            onnx.save(simplified, path)
            session = _onnx_session(path)
        given = dict(zip((i.name for i in session.get_inputs()), _arrays(sample.inputs), strict=True))
        return [torch.from_numpy(x) for x in session.run(None, given)]

    return Left(left, run)


def _onnx_session(path: Path, **settings: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # ONNX Runtime warns that optimised files are for one kind of processor
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _onnx_batch_norms(path: Path) -> int:
    import onnx
    import onnxruntime

    fused = path.with_name("fused.onnx")
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    _onnx_session(path, graph_optimization_level=level, optimized_model_filepath=str(fused))
    return sum(node.op_type == "BatchNormalization" for node in onnx.load(fused).graph.node)


def openvino(sample: Sample) -> Left:
    """``convert_model`` of the exported program, compiled for the CPU in float32.

    BatchNorm is decomposed into multiply and add from the start, and operators lose their names. The number left is
    that of the multiplications in the compiled model, minus those of the model without BatchNorms. Multiplications
    count even if the kernel before them executes them, as most do.
    """
    compiled = _openvino_compiled(sample)

    def run() -> list[Tensor]:
        found = compiled(_arrays(sample.inputs))
        return [torch.from_numpy(found[i]) for i in range(len(compiled.outputs))]

    without = Sample(_without_batch_norms(sample.model), sample.inputs)
    return Left(_multiplications(compiled) - _multiplications(_openvino_compiled(without)), run)


def _openvino_compiled(sample: Sample) -> Any:
    import openvino

    plain = [lambda text: text] * 2  # without it, export_model scrambles its output
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "CACHE_ENCRYPTION_CALLBACKS": plain}
    program = torch.export.export(sample.model, sample.inputs)
    return openvino.Core().compile_model(openvino.convert_model(program), "CPU", settings)


def _multiplications(compiled: Any) -> int:
    """The number in the compiled model after all transformations, read from OpenVINO's cache."""
    cached = compiled.export_model()
    graph = re.search(rb"<net .*</net>", cached if isinstance(cached, bytes) else cached.read(), re.DOTALL)
    assert graph is not None
    return sum(layer.get("type") == "Multiply" for layer in ElementTree.fromstring(graph[0]).iter("layer"))


def _without_batch_norms(model: nn.Module) -> nn.Module:
    stripped = copy.deepcopy(model)
    for parent in list(stripped.modules()):
        for name, part in parent.named_children():
            if isinstance(part, _BatchNorm):
                setattr(parent, name, nn.Identity())
    return stripped


def timm_reparameterize(sample: Sample) -> Left:
    """``timm.utils.reparameterize_model``, on models of timm: a model has such a form, or parts of it have, or none."""
    from timm.utils import reparameterize_model

    program = torch.export.export(reparameterize_model(sample.model), sample.inputs)
    return Left(batch_norms(program.graph.nodes), lambda: tensors(program.module()(*sample.inputs)))


def _arrays(inputs: Inputs) -> list[Any]:
    return [x.numpy() for x in inputs]


TOOLS: dict[str, Callable[[Sample], Left]] = {
    "torchao": torchao,
    "torch.fx": torch_fx,
    "Inductor": inductor,
    "ExecuTorch": executorch,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
    "onnxsim": onnxsim,
    "timm reparameterize": timm_reparameterize,
}
"""Tools by their name on the page."""
OF_TIMM = "timm reparameterize"
"""The tool for models of timm alone."""
