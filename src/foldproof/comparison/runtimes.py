"""Files that another runtime executes: ``.pte`` in ExecuTorch, ``.onnx`` in ONNX Runtime, ``.xml`` in OpenVINO."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.comparison.graph import flattened
from foldproof.errors import FoldproofError, MissingExtra, brief
from foldproof.log import hushed
from foldproof.program.export import export_module, separated
from foldproof.torch_internals import load_package, load_traced, save_package, tree_leaves

Run = Callable[[Sequence[Any], Mapping[str, Any]], list[Tensor]]
Look = Callable[[Sequence[Any], Mapping[str, Any]], tuple[Sequence[tuple[str, Tensor]], list[Tensor]]]
"""Runs a file on (args, kwargs), and gives the values inside of it, with names, and its outputs."""

Signature = tuple[list[str], list[str]]
"""Names of inputs and outputs."""

OPENVINO_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}  # the default on some processors is bfloat16


def onnx(path: Path, without: Iterable[str] = ()) -> tuple[Run, Signature]:
    """Return what runs a ``.onnx`` file in ONNX Runtime on the CPU, by position, and names of inputs and outputs.

    Its optimizers of the names ``without`` are left out.

    Raises:
        MissingExtra: onnxruntime is not installed.
        FoldproofError: the file can't be loaded, or (from what is returned) does not run on the inputs.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtra("onnxruntime", "onnx") from error
    try:
        session = onnxruntime.InferenceSession(
            str(path), providers=["CPUExecutionProvider"], disabled_optimizers=sorted(without)
        )
    except Exception as error:
        raise FoldproofError(f"{path} can't be loaded by ONNX Runtime ({brief(error)})") from error
    return session_runner(session, path)


def session_runner(session: Any, name: object) -> tuple[Run, Signature]:
    """Return what runs an ``onnxruntime.InferenceSession``, by position, and names of inputs and outputs."""
    names = [given.name for given in session.get_inputs()]

    def run(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        given = _tensors(name, args, kwargs, len(names))
        with _blamed(name, "ONNX Runtime"):
            made = session.run(None, dict(zip(names, as_arrays(given, "ONNX Runtime"))))
        return [torch.from_numpy(x) for x in made]

    return run, (names, [made.name for made in session.get_outputs()])


def look_into_onnx(path: Path) -> Look:
    """Return what runs a ``.onnx`` file with all its values as outputs, in ONNX Runtime."""

    def look(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[tuple[str, Tensor]], list[Tensor]]:
        import onnx
        import onnxruntime

        model = onnx.load(str(path))
        count = len(model.graph.output)
        shown = {value.name for value in model.graph.output}
        inner = [name for node in model.graph.node if node.op_type != "Constant" for name in node.output if name]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner if name not in shown)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # shapes of the outputs that were added are not declared
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        made = session_runner(session, path)[0](args, kwargs)
        values = dict(zip((value.name for value in session.get_outputs()), made))
        return [(name, values[name]) for name in inner], made[:count]

    return look


def openvino(path: Path) -> tuple[Run, Signature]:
    """Return what runs a ``.xml`` file in OpenVINO on the CPU, by position, and names of inputs and outputs.

    Raises:
        MissingExtra: openvino is not installed.
        FoldproofError: the file can't be loaded, or (from what is returned) does not run on the inputs.
    """
    try:
        import openvino as runtime
    except ModuleNotFoundError as error:
        raise MissingExtra("openvino", "openvino") from error
    try:
        compiled = runtime.compile_model(str(path), "CPU", OPENVINO_SETTINGS)
    except Exception as error:
        raise FoldproofError(f"{path} can't be loaded by OpenVINO ({brief(error)})") from error

    def run(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        given = _tensors(path, args, kwargs, len(compiled.inputs))
        with _blamed(path, "OpenVINO"):
            return run_openvino(compiled, given)

    inputs, outputs = ([min(port.names, default="") for port in ports] for ports in (compiled.inputs, compiled.outputs))
    return run, (inputs, outputs)


def look_into_openvino(path: Path) -> Look:
    """Return what runs a ``.xml`` file with all its values as outputs, in OpenVINO."""

    def look(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[tuple[str, Tensor]], list[Tensor]]:
        import openvino as runtime

        core = runtime.Core()
        model = core.read_model(path)
        count = len(model.outputs)
        ports = {
            op.get_friendly_name(): op.output(0)
            for op in model.get_ordered_ops()
            if op.get_type_name() not in ("Parameter", "Constant", "Result") and op.get_output_size() == 1
        }
        at_end = {
            one.get_node().input_value(0).get_node().get_friendly_name(): i for i, one in enumerate(model.outputs)
        }
        inner = [name for name in ports if name not in at_end]
        model.add_outputs([ports[name] for name in inner])
        compiled = core.compile_model(model, "CPU", OPENVINO_SETTINGS)
        made = run_openvino(compiled, _tensors(path, args, kwargs, len(compiled.inputs)))
        places = at_end | {name: count + i for i, name in enumerate(inner)}
        # Its converter puts the name of the node of PyTorch first.
        return [(name.partition("/")[0], made[places[name]]) for name in ports], made[:count]

    return look


def run_openvino(compiled: Any, given: Sequence[Tensor]) -> list[Tensor]:
    """Return copies of the outputs of OpenVINO's compiled model."""
    made = compiled(as_arrays(given, "OpenVINO"))
    return [torch.from_numpy(made[i].copy()) for i in range(len(compiled.outputs))]


def onnx_exporter(module: nn.Module) -> Callable[..., Any]:
    """The module, exported to ONNX when it is first called, and run in ONNX Runtime; takes and gives tensors."""

    def export(inputs: tuple[Tensor, ...], folder: Path) -> Run:
        return onnx(export_onnx(module, inputs, folder / "part.onnx"))[0]

    return _made_when_called(export)


def package_again(module: nn.Module) -> Callable[..., Any]:
    """Compile by AOTInductor, as `onnx_exporter` exports to ONNX."""

    def export(inputs: tuple[Tensor, ...], folder: Path) -> Run:
        path = str(folder / "part.pt2")
        with _quietly():
            save_package(export_module(module, inputs), path)
            loaded = load_package(path)
        return lambda args, kwargs: flattened(loaded(*args, **kwargs))

    return _made_when_called(export)


def export_onnx(module: nn.Module, args: tuple[Any, ...], path: Path, kwargs: Mapping[str, Any] | None = None) -> Path:
    """Write a module as an ONNX file, and return its path."""
    args, named = separated(module, args, kwargs or {})
    with _quietly():
        torch.onnx.export(module, args, str(path), kwargs=named, dynamo=True, verbose=False)
    return path


def executorch_exporter(path: Path) -> Callable[[nn.Module], Callable[..., Any]]:
    """Export to ExecuTorch, as `onnx_exporter` does to ONNX; delegated to XNNPACK if ``path`` is."""
    delegated = b"XnnpackBackend" in path.read_bytes()

    def exporter(module: nn.Module) -> Callable[..., Any]:
        def export(inputs: tuple[Tensor, ...], folder: Path) -> Run:
            from executorch.exir import to_edge_transform_and_lower

            partitioners = []
            if delegated:
                from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
                    XnnpackPartitioner,
                )

                partitioners = [XnnpackPartitioner()]
            part = folder / "part.pte"
            with _quietly():
                lowered = to_edge_transform_and_lower(export_module(module, inputs), partitioner=partitioners)
                part.write_bytes(lowered.to_executorch().buffer)
            return run_executorch(ExecuTorchProgram(part, "a part of the program"))

        return _made_when_called(export)

    return exporter


def _made_when_called(export: Callable[[tuple[Tensor, ...], Path], Run]) -> Callable[..., Any]:
    """Runs what ``export`` makes of the first inputs; a lone output as it is, several as a list."""
    made: list[Run] = []

    def call(*inputs: Tensor) -> Any:
        if not made:
            with tempfile.TemporaryDirectory() as folder:
                made.append(export(inputs, Path(folder)))
        out = made[0](inputs, {})
        return out[0] if len(out) == 1 else out

    return call


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Exporters warn and log of what is no concern of who asked for a comparison."""
    with hushed(), warnings.catch_warnings(), _silent():
        warnings.simplefilter("ignore")
        yield


class ExecuTorchProgram:
    """The ``forward`` method of a ``.pte`` file, or of its bytes, in the ExecuTorch runtime.

    ``name`` is that of the program in messages.

    Raises:
        MissingExtra: executorch is not installed.
        FoldproofError: the program can't be loaded.
    """

    def __init__(self, source: Path | bytes, name: str) -> None:
        self._source, self.name = source if isinstance(source, bytes) else str(source), name
        self._loaded: tuple[Any, Any] = self._load()

    def _load(self) -> tuple[Any, Any]:
        try:
            with _silent():
                from executorch.runtime import Runtime
        except ModuleNotFoundError as error:
            raise MissingExtra("executorch", "executorch") from error
        with _blamed(self.name, "ExecuTorch", "be loaded by"), _silent():
            program = Runtime.get().load_program(self._source)
            method = program.load_method("forward")
        if method is None:
            raise FoldproofError(f"{self.name} has no method forward")
        return program, method  # a program owns the memory of its methods, so both are kept

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self._loaded[1].metadata.num_inputs())

    def restart(self) -> None:
        """Load it again, which resets the buffers that it writes to."""
        self._loaded = self._load()

    def execute(self, given: Sequence[Any]) -> list[Any]:
        """Return copies of the outputs, after those inputs that it writes to.

        Raises:
            FoldproofError: it does not run on these inputs.
        """
        contiguous = [x.contiguous() if isinstance(x, Tensor) else x for x in given]
        with _blamed(self.name, "ExecuTorch"), _silent():
            out = self._loaded[1].execute(contiguous)
            return [x.clone() if isinstance(x, Tensor) else x for x in out]


def look_into_executorch(path: Path) -> Look:
    """Return what runs a ``.pte`` file with a trace of its events, and reads the values of its operators from it.

    The trace does not show the inside of a delegate.
    """

    def look(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[tuple[str, Tensor]], list[Tensor]]:
        given = [x.detach().contiguous() for x in tree_leaves((tuple(args), dict(kwargs))) if isinstance(x, Tensor)]
        with tempfile.TemporaryDirectory() as folder, _quietly():
            from executorch.devtools import Inspector

            trace, buffer = str(Path(folder) / "trace.etdp"), str(Path(folder) / "values.bin")
            module = load_traced(str(path), _TRACE_BYTES)
            made = [x.clone() if isinstance(x, Tensor) else x for x in module.forward(given)]
            module.write_etdump_result_to_file(trace, buffer)
            blocks = Inspector(etdump_path=trace, debug_buffer_path=buffer).event_blocks
            events = [e for block in blocks for e in block.events if e.name in ("OPERATOR_CALL", "DELEGATE_CALL")]
            values = [x.clone() for event in events for x in event.debug_data if isinstance(x, Tensor) and x.numel()]
        return [("", x) for x in values], flattened(made)

    return look


_TRACE_BYTES = 1 << 28


def run_executorch(program: ExecuTorchProgram) -> Run:
    """Return a function that runs the program on the tensors among its inputs, by position."""

    def run(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        return flattened(program.execute(_tensors(program.name, args, kwargs, program.inputs)))

    return run


def as_arrays(tensors: Iterable[Tensor], runtime: str) -> list[Any]:
    """Return tensors as NumPy arrays, for a runtime that takes these.

    Raises:
        FoldproofError: NumPy lacks the dtype.
    """
    given = list(tensors)
    if any(t.dtype == torch.bfloat16 for t in given):
        raise FoldproofError(
            f"{runtime} takes NumPy arrays, which can't be bfloat16; give the model and inputs in float32"
        )
    return [t.detach().contiguous().numpy() for t in given]


def _tensors(name: object, args: Sequence[Any], kwargs: Mapping[str, Any], count: int) -> list[Tensor]:
    given = [x.detach().cpu().contiguous() for x in tree_leaves((tuple(args), dict(kwargs))) if isinstance(x, Tensor)]
    if len(given) != count:
        raise FoldproofError(f"{name} takes {count} inputs, and there are {len(given)} tensors among the given ones")
    return given


@contextlib.contextmanager
def _blamed(name: object, runtime: str, what: str = "run in") -> Iterator[None]:
    try:
        yield
    except FoldproofError:
        raise
    except Exception as error:
        raise FoldproofError(f"{name} can't {what} {runtime} ({brief(error)})") from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """ExecuTorch's native code writes what it finds out about the processor to stdout and stderr: the process's own, or
    Python's."""
    kept = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C has not written yet
        os.dup2(kept[0], 1), os.dup2(kept[1], 2)
        for descriptor in (*kept, nowhere):
            os.close(descriptor)
