"""ExecuTorch: from a model to a .pte program in its runtime."""

from __future__ import annotations

from typing import Any

from torch import nn

from foldproof.auditing.compilers.compiler import Compiled, Options, require_known_options
from foldproof.auditing.log import Log
from foldproof.auditing.taps.executorch import import_exir_program, tap_executorch
from foldproof.auditing.taps.fx_passes import tap_passes
from foldproof.comparison.runtimes import ExecuTorchProgram
from foldproof.compiler_catalog import EXECUTORCH
from foldproof.errors import FoldproofError
from foldproof.program.export import export_module
from foldproof.program.state import deepcopied
from foldproof.torch_internals import tree_leaves, tree_unflatten


class Executorch:
    declared = EXECUTORCH

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
    ) -> Compiled:
        require_known_options(self, options)
        import_exir_program()
        from executorch.exir import to_edge_transform_and_lower

        program = export_module(deepcopied(model), args, kwargs)
        taps = tap_passes(log), tap_executorch(log)
        with taps[0], taps[1], log.call("", program, whole=False) as made:
            edge = to_edge_transform_and_lower(
                program, partitioner=_make_partitioners(options.get("partitioner", "xnnpack"))
            )
            lowered = edge.to_executorch()
            made.append(lowered.exported_program())
        buffer, spec = lowered.buffer, program.call_spec.out_spec

        loaded: list[ExecuTorchProgram] = []

        def restart() -> None:
            if loaded:
                loaded[0].restart()

        def call(*args: Any, **kwargs: Any) -> Any:
            if not loaded:
                loaded.append(ExecuTorchProgram(buffer, "the .pte program"))
            out = loaded[0].execute(tree_leaves((args, kwargs)))
            return tree_unflatten(out[len(out) - spec.num_leaves :], spec)  # inputs that it writes to come first

        return Compiled(call, "the .pte program in the ExecuTorch runtime", restart=restart)

    def write_script(self, options: Options) -> tuple[list[str], list[str]]:
        imports = ["import executorch.exir", "from executorch.runtime import Runtime"]
        given = ""
        if options.get("partitioner", "xnnpack") == "xnnpack":
            imports.append("from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner")
            given = ", partitioner=[XnnpackPartitioner()]"
        return imports, [
            f"edge = executorch.exir.to_edge_transform_and_lower(torch.export.export(model, inputs){given})",
            "program = Runtime.get().load_program(buffer := edge.to_executorch().buffer)",
            'got = program.load_method("forward").execute(inputs)[0]',
        ]


COMPILER = Executorch()


def _make_partitioners(wanted: Any) -> list[Any]:
    if wanted in ("none", None):
        return []
    if wanted != "xnnpack":
        if isinstance(wanted, str):
            raise FoldproofError(f"partitioner is xnnpack, none or a list of partitioners, not {wanted!r}")
        return list(wanted)
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    return [XnnpackPartitioner()]
