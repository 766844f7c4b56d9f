"""The compilers that can be audited: how each is run, and how a program that shows its fault is written."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import nn

from foldproof.auditing.log import Log, Rerun
from foldproof.auditing.taps.executorch import exir_program, tap_executorch
from foldproof.auditing.taps.inductor import tap_inductor
from foldproof.auditing.taps.passes import tap_passes
from foldproof.auditing.taps.torchao import quantize_pt2e, tap_torchao
from foldproof.errors import FoldproofError, MissingExtra
from foldproof.program.loading import brief
from foldproof.program.state import deepcopied

Options = Mapping[str, Any]
Disabled = frozenset[str]


@dataclass(frozen=True)
class Compiled:
    """What came out: something that takes the model's inputs, and what it is, in words."""

    call: Callable[..., Any]
    what: str


class Compiler(Protocol):
    """Runs one pipeline under its tap."""

    @property
    def name(self) -> str: ...

    @property
    def options(self) -> Mapping[str, str]:
        """Options it knows, each with what it means."""

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
        disabled: Disabled,
    ) -> Compiled:
        """Compile ``model``, and write every step into ``log``."""

    def script(self, options: Options) -> tuple[list[str], list[str]]:
        """Lines of Python: imports, and what makes ``got`` of ``model`` and the tuple ``inputs``."""


class Inductor:
    name = "inductor"
    options = MappingProxyType({"…": "any setting of torch._inductor.config, such as freezing"})

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
        disabled: Disabled,
    ) -> Compiled:
        torch._dynamo.reset()  # Dynamo keeps compiled code with code objects, whatever the configuration
        own = deepcopied(model)
        compiled: Callable[..., Any] = torch.compile(own, dynamic=False)
        # Dynamo itself looks at some settings (freezing), so they are set, and not given to torch.compile.
        with _configured(options), tap_inductor(log, own, disabled):
            compiled(*_copied(args), **_copied(kwargs))
        return Compiled(_from_start(compiled, own, model), "torch.compile")

    def script(self, options: Options) -> tuple[list[str], list[str]]:
        settings = [f"torch._inductor.config.{name} = {value!r}" for name, value in options.items()]
        imports = ["import torch._inductor.config"] if options else []
        return imports, [*settings, "got = torch.no_grad()(torch.compile(model))(*inputs)"]


@contextlib.contextmanager
def _configured(options: Options) -> Iterator[None]:
    import torch._inductor.config as config

    try:
        patch: Any = config.patch(dict(options))
        patch.__enter__()
    except AttributeError as error:
        raise FoldproofError(f"torch._inductor.config has no such setting ({brief(error)})") from error
    try:
        yield
    finally:
        patch.__exit__(None, None, None)


class Torchao:
    name = "torchao"
    options = MappingProxyType(
        {
            "quantizer": "x86 (default), xnnpack, none, or a torchao Quantizer",
            "qat": "True for prepare_qat_pt2e instead of prepare_pt2e",
        }
    )

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
        disabled: Disabled,
    ) -> Compiled:
        known(self, options)
        steps = quantize_pt2e()
        from torchao.quantization.pt2e import move_exported_model_to_eval

        qat = bool(options.get("qat"))
        own = deepcopied(model)
        program = torch.export.export(own.train() if qat else own, args, kwargs).module()
        quantizer = _quantizer(options.get("quantizer", "x86"))
        with tap_passes(log, disabled), tap_torchao(log, disabled):
            try:
                with log.call("", program, whole=False) as made:
                    prepared = (steps.prepare_qat_pt2e if qat else steps.prepare_pt2e)(program, quantizer)
                    made.append(prepared)
            except Exception as error:
                raise FoldproofError(
                    f"torchao can't prepare this model with its quantizer ({brief(error)}); choose another with the"
                    " option quantizer=x86, xnnpack or none"
                ) from error
            prepared(*_copied(args), **_copied(kwargs))
            if qat:
                move_exported_model_to_eval(prepared)
            kept = copy.deepcopy(prepared)
            with log.call("", prepared, whole=False) as made:
                converted = steps.convert_pt2e(prepared)
                made.append(converted)
        if options.get("quantizer") == "none":
            return Compiled(
                _from_start(converted, converted, model), "the converted model, in which nothing is quantized"
            )
        if qat:
            from torchao.quantization.pt2e import disable_fake_quant

            kept.apply(disable_fake_quant)
        return Compiled(_from_start(kept, kept, model), "the prepared model, before anything is quantized")

    def script(self, options: Options) -> tuple[list[str], list[str]]:
        prepare = "prepare_qat_pt2e" if options.get("qat") else "prepare_pt2e"
        imports, quantizer = _QUANTIZERS.get(str(options.get("quantizer", "x86")), _QUANTIZERS["x86"])
        return [
            f"from torchao.quantization.pt2e.quantize_pt2e import {prepare}",
            imports,
        ], [
            f"got = {prepare}(torch.export.export(model, inputs).module(), {quantizer})(*inputs)",
        ]


_X86 = "from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer"
_QUANTIZERS = {
    "x86": (_X86, "X86InductorQuantizer()"),
    "none": (_X86, "X86InductorQuantizer()"),
    "xnnpack": (
        "from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer",
        "XNNPACKQuantizer()",
    ),
}
"""How to make each in a program that shows a fault: without a configuration they annotate nothing."""


def _quantizer(wanted: Any) -> Any:
    if not isinstance(wanted, str):
        return wanted
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    if wanted == "none":
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


class Executorch:
    name = "executorch"
    options = MappingProxyType({"partitioner": "xnnpack (default), none, or a list of partitioners"})

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
        disabled: Disabled,
    ) -> Compiled:
        known(self, options)
        exir_program()
        from executorch.exir import to_edge_transform_and_lower
        from executorch.runtime import Runtime

        program = torch.export.export(deepcopied(model), args, kwargs)
        taps = tap_passes(log, disabled), tap_executorch(log, disabled)
        with taps[0], taps[1], log.call("", program, whole=False) as made:
            edge = to_edge_transform_and_lower(
                program, partitioner=_partitioners(options.get("partitioner", "xnnpack"))
            )
            lowered = edge.to_executorch()
            made.append(lowered.exported_program())
        buffer, spec = lowered.buffer, program.call_spec.out_spec

        def call(*args: Any, **kwargs: Any) -> Any:
            # Loaded anew, buffers that it writes to are what they were at first. Its memory has to stay while it runs.
            loaded = Runtime.get().load_program(buffer)
            method = loaded.load_method("forward")
            given = torch.utils._pytree.tree_leaves((args, kwargs))
            out = method.execute([x.contiguous() if isinstance(x, torch.Tensor) else x for x in given])
            out = out[len(out) - spec.num_leaves :]  # inputs that were written to come first
            return torch.utils._pytree.tree_unflatten(
                [x.clone() if isinstance(x, torch.Tensor) else x for x in out], spec
            )

        return Compiled(call, "the .pte program in the ExecuTorch runtime")

    def script(self, options: Options) -> tuple[list[str], list[str]]:
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


def _partitioners(wanted: Any) -> list[Any]:
    if wanted == "none":
        return []
    if wanted != "xnnpack":
        if isinstance(wanted, str):
            raise FoldproofError(f"partitioner is xnnpack, none or a list of partitioners, not {wanted!r}")
        return list(wanted)
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    return [XnnpackPartitioner()]


class Fx:
    name = "fx"
    options = MappingProxyType[str, str]({})

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
        disabled: Disabled,
    ) -> Compiled:
        known(self, options)
        from torch.fx.experimental.optimization import fuse

        try:
            traced = torch.fx.symbolic_trace(deepcopied(model))
        except Exception as error:
            raise FoldproofError(f"torch.fx can't trace the model, which fuse needs ({brief(error)})") from error
        if "fuse" in disabled:
            return Compiled(traced, "the traced model")
        with log.call("fuse", traced, lambda: Rerun(fuse, traced)) as made:
            fused = fuse(model)
            made.append(fused)
        return Compiled(fused, "the fused model")

    def script(self, options: Options) -> tuple[list[str], list[str]]:
        return ["from torch.fx.experimental.optimization import fuse"], ["got = fuse(model)(*inputs)"]


COMPILERS: Mapping[str, Compiler] = {c.name: c for c in (Inductor(), Torchao(), Executorch(), Fx())}


def compiler_named(name: str) -> Compiler:
    """
    Raises:
        FoldproofError: there is none of that name.
    """
    if name not in COMPILERS:
        raise FoldproofError(f"compiler must be one of {', '.join(COMPILERS)}, not {name!r}")
    return COMPILERS[name]


def known(compiler: Compiler, options: Options) -> None:
    """
    Raises:
        FoldproofError: an option that the compiler does not have.
    """
    for name in options:
        if name not in compiler.options:
            has = ", ".join(compiler.options) or "none"
            raise FoldproofError(f"{compiler.name} has no option {name!r}; it has {has}")


def _from_start(function: Callable[..., Any], made: nn.Module, model: nn.Module) -> Callable[..., Any]:
    """``function``, which runs ``made``, with the buffers that a call may change as ``model`` has them."""
    own = dict(made.named_buffers())
    buffers = [(own[name], value.clone()) for name, value in model.named_buffers() if name in own]

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        return function(*args, **kwargs)

    return call


def _copied(x: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda t: t.clone() if isinstance(t, torch.Tensor) else t, x)
