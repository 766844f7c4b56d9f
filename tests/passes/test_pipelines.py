"""Folded programs in the pipelines of others: ExecuTorch, PT2E quantization, compilers, ONNX, files."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, export
from torch.fx.passes.infra.pass_manager import PassManager

import foldproof
from foldproof import passes
from foldproof.fusion.examples import made


class Network(nn.Module):
    """Folds of every direction: into a convolution, through views into a linear, and into what reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.tokens, self.token_norm = nn.Linear(8, 6), nn.BatchNorm1d(6)
        self.before, self.head = nn.BatchNorm1d(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).relu()
        y = self.token_norm(self.tokens(y.flatten(2).transpose(1, 2)).flatten(0, 1)).relu()
        return self.head(self.before(y))


@pytest.fixture(scope="module")
def network() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return made(Network(), (2, 3, 9, 9))


@pytest.fixture(scope="module")
def folded(network: Any) -> ExportedProgram:
    model, inputs = network
    result = foldproof.fuse(model, inputs)
    assert len(result.rewrites) == 3 and result.verdict.kind is foldproof.Kind.PROVED
    return result.program


def norms(graph: torch.fx.Graph) -> list[str]:
    return [node.name for node in graph.nodes if "batch_norm" in str(node.target)]


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() < 2e-6 * b.abs().max())


def test_a_function_of_programs(network: Any) -> None:
    model, inputs = network
    program = export(model, inputs)
    result = passes.fold(program)
    assert norms(program.graph) and not norms(result.graph)
    assert close(result.module()(*inputs), model(*inputs))


def test_a_pass_in_a_pass_manager(network: Any) -> None:
    model, inputs = network
    module = export(model, inputs).module()
    fold = passes.FoldAffines()
    result = PassManager(passes=[fold])(module)
    assert result.modified and not norms(result.graph_module.graph)
    assert fold.result is not None and len(fold.result.rewrites) == 3
    assert close(result.graph_module(*inputs), model(*inputs))
    assert not PassManager(passes=[fold])(result.graph_module).modified


def test_metadata_stays(folded: ExportedProgram) -> None:
    for node in folded.graph.nodes:
        if node.op == "call_function":
            assert {"val", "nn_module_stack", "stack_trace"} <= node.meta.keys(), node.name


def test_before_pt2e_quantization(network: Any) -> None:
    quantize = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    xnnpack = pytest.importorskip("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    model, inputs = network
    module = export(model, inputs).module()
    passes.fold_(module)
    assert not norms(module.graph)
    quantizer = xnnpack.XNNPACKQuantizer().set_global(xnnpack.get_symmetric_quantization_config())
    prepared = quantize.prepare_pt2e(module, quantizer)
    prepared(*inputs)
    converted = quantize.convert_pt2e(prepared)
    assert not norms(converted.graph)
    out, expected = converted(*inputs), model(*inputs)
    assert (out - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("when", ["before lowering", "transform_passes", "transform"])
def test_inside_executorch(when: str, network: Any, folded: ExportedProgram) -> None:
    exir = pytest.importorskip("executorch.exir")
    partitioner = pytest.importorskip("executorch.backends.xnnpack.partition.xnnpack_partitioner").XnnpackPartitioner
    from executorch.runtime import Runtime

    model, inputs = network
    program = folded if when == "before lowering" else export(model, inputs)
    fold = passes.executorch_pass()
    if when == "transform":
        edge = exir.to_edge(program).transform([fold])
        assert not norms(edge.exported_program().graph)
        # No to_backend: XNNPACK's ConvertToLinearPass (1.5.1) crashes on linears of 3-D input after to_edge, anyway.
    else:
        given = [fold] if when == "transform_passes" else None
        edge = exir.to_edge_transform_and_lower(program, transform_passes=given, partitioner=[partitioner()])
    if when != "before lowering":
        # The edge program transposes weights at every call, which is computed once.
        assert fold.result is not None and len(fold.result.rewrites) == (5 if when == "transform" else 3)
    buffer = edge.to_executorch().buffer
    [out] = Runtime.get().load_program(buffer).load_method("forward").execute(list(inputs))
    assert close(out, model(*inputs))


def test_torch_compile(network: Any, folded: ExportedProgram) -> None:
    model, inputs = network
    with torch.no_grad():
        out = torch.compile(folded.module(), backend="aot_eager")(*inputs)
    assert close(out, model(*inputs))


def test_aotinductor(network: Any, folded: ExportedProgram, tmp_path: Any) -> None:
    model, inputs = network
    # Headers are compiled ahead for the next packages; there are none.
    with torch.no_grad(), torch._inductor.config.patch({"aot_inductor.precompile_headers": False}):
        package = torch._inductor.aoti_compile_and_package(folded, package_path=str(tmp_path / "folded.pt2"))
        out = torch._inductor.aoti_load_package(package)(*inputs)
    assert close(out, model(*inputs))


def test_onnx_export(network: Any, folded: ExportedProgram, tmp_path: Any) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, inputs = network
    path = tmp_path / "folded.onnx"
    torch.onnx.export(folded, inputs, path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(path))
    [out] = session.run(None, {session.get_inputs()[0].name: inputs[0].numpy()})
    assert close(torch.from_numpy(out), model(*inputs))


def test_save_and_load(network: Any, folded: ExportedProgram) -> None:
    model, inputs = network
    file = io.BytesIO()
    torch.export.save(folded, file)
    file.seek(0)
    assert close(torch.export.load(file).module()(*inputs), model(*inputs))
