"""torchao's quantization of exported programs (PT2E)."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from foldproof.auditing.compilers.compiler import (
    UNQUANTIZED,
    Compiled,
    Options,
    clone_tensors,
    copy_buffers,
    require_known_options,
    set_buffers,
)
from foldproof.auditing.log import Log
from foldproof.auditing.taps.fx_passes import tap_passes
from foldproof.auditing.taps.torchao import import_quantize_pt2e, tap_torchao
from foldproof.compiler_catalog import TORCHAO
from foldproof.errors import FoldproofError, MissingExtra, brief
from foldproof.program.export import export_module
from foldproof.program.state import deepcopied


class Torchao:
    declared = TORCHAO

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
    ) -> Compiled:
        require_known_options(self, options)
        steps = import_quantize_pt2e()
        from torchao.quantization.pt2e import move_exported_model_to_eval

        qat = options.get("qat", False)
        if not isinstance(qat, bool):
            raise FoldproofError(f"qat is True or False, not {qat!r}")
        own = deepcopied(model)
        program = export_module(own.train() if qat else own, args, kwargs).module()
        quantizer = _make_quantizer(options.get("quantizer", "x86"))
        with tap_passes(log), tap_torchao(log):
            try:
                with log.call("", program, whole=False) as made:
                    prepared = (steps.prepare_qat_pt2e if qat else steps.prepare_pt2e)(program, quantizer)
                    made.append(prepared)
            except Exception as error:
                if log.failed not in ("", "prepare"):
                    raise  # that pass does not ask the quantizer
                raise FoldproofError(
                    f"torchao can't prepare this model with its quantizer ({brief(error)}); choose another with the"
                    " option quantizer=x86, xnnpack or none"
                ) from error
            prepared(*clone_tensors(args), **clone_tensors(kwargs))
            set_buffers(prepared, copy_buffers(model))
            if qat:
                move_exported_model_to_eval(prepared)
            kept = copy.deepcopy(prepared)
            with log.call("", prepared, whole=False) as made:
                converted = steps.convert_pt2e(prepared)
                made.append(converted)
        if options.get("quantizer", "x86") in _NOTHING:
            return Compiled(converted, "the converted model, in which nothing is quantized", holder=converted)
        if qat:
            from torchao.quantization.pt2e import disable_fake_quant

            kept.apply(disable_fake_quant)
        return Compiled(kept, f"the prepared model{UNQUANTIZED}", holder=kept)

    def write_script(self, options: Options) -> tuple[list[str], list[str]]:
        prepare = "prepare_qat_pt2e" if options.get("qat") else "prepare_pt2e"
        imports, quantizer = _QUANTIZERS.get(str(options.get("quantizer", "x86")), _QUANTIZERS["x86"])
        return [
            f"from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, {prepare}",
            imports,
        ], [
            f"got = convert_pt2e({prepare}(torch.export.export(model, inputs).module(), {quantizer}))(*inputs)",
        ]


COMPILER = Torchao()


_NOTHING = ("none", None)
"""Values of the option ``quantizer`` that mean no quantizer."""

_X86 = "from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer"
_QUANTIZERS = {
    "x86": (_X86, "X86InductorQuantizer()"),
    "none": (_X86, "X86InductorQuantizer()"),
    "xnnpack": (
        "from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer",
        "XNNPACKQuantizer()",
    ),
}
"""Import and constructor of each quantizer in a reproduction; without a configuration, they annotate nothing."""


def _make_quantizer(wanted: Any) -> Any:
    if not isinstance(wanted, str | None):
        return wanted
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    if wanted in _NOTHING:
        return x86.X86InductorQuantizer()
    if wanted == "x86":
        return x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    if wanted != "xnnpack":
        raise FoldproofError(f"quantizer is x86, xnnpack, none or a Quantizer, not {wanted!r}")
    try:
        from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    except ModuleNotFoundError:
        raise MissingExtra("executorch", "executorch") from None
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    return xnnpack.XNNPACKQuantizer().set_global(config)
