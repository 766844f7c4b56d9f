"""Kernels that Inductor calls and does not generate: each is an operator on tensors at places of its buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import getitem
from typing import Any

import torch
from torch import fx

from foldproof.auditing.loops.layouts import Layouts, unboxed
from foldproof.auditing.loops.memory import Memory
from foldproof.auditing.loops.recorder import Literal, Recorder, Unreadable, Value, convert, expand
from foldproof.operators import find_functional_form, get_types, list_written, writes_out
from foldproof.torch_internals import OpOverload, inductor_ir, read_conditional, tree_map

aten = torch.ops.aten


class Kernels:
    """Calls of kernels, recorded; results in several parts wait for the nodes that take them."""

    def __init__(
        self,
        recorder: Recorder,
        memory: Memory,
        layouts: Layouts,
        whole: Mapping[str, Value],
        hold: Callable[[str, fx.GraphModule], fx.Node],
    ) -> None:
        self._recorder, self._memory, self._layouts, self._whole = recorder, memory, layouts, whole
        self._hold = hold
        self._results: dict[str, Any] = {}

    def record(self, kernel: Any) -> str:
        """Record a kernel, and return its call as text.

        Raises:
            Unreadable: the kernel, or its operator, has no reading.
        """
        ir = inductor_ir()
        name = kernel.get_name()
        if type(kernel) in (ir.MultiOutput, ir.AllocatingMultiOutput):
            source = kernel.inputs[0].get_name()
            if source not in self._results:
                raise Unreadable(f"the results of {source} are not known")
            value = self._results[source]
            for _, i in kernel.indices:
                value = self._recorder.add(getitem, (value, i), {}, name)
            self._put(kernel, value)
            return f"{name} = {source}{''.join(f'[{i}]' for _, i in kernel.indices)}"
        if isinstance(kernel, ir.InplaceCopyFallback):
            return self._copy(*kernel.inputs[:2])
        if type(kernel) in (ir.WhileLoop, ir.InvokeSubgraph) or read_conditional(kernel) is not None:
            return self._call_parts(kernel)
        known: tuple[type, ...] = (ir.ExternKernelOut, ir.ExternKernelAlloc)
        known += ir.IndexPutFallback, ir.ScatterFallback, ir.InplaceBernoulliFallback
        if not isinstance(kernel, known):
            raise Unreadable(f"no reading of a {type(kernel).__name__}")
        operator, args, kwargs = self._find_call(kernel)
        if not isinstance(operator, OpOverload):
            raise Unreadable(f"no reading of the kernel {name}")
        args, kwargs = tree_map(self._argument, (args, kwargs))
        return self._call(kernel, operator, args, kwargs)

    def _call_parts(self, kernel: Any) -> str:
        """Record control flow, with the graphs of its parts; the loops of each are compared with its graph apart."""
        ir, name = inductor_ir(), kernel.get_name()
        if kernel.mutation_outputs:
            raise Unreadable(f"{name} runs a part of the graph that writes to its operands")
        parts: tuple[Any, ...]
        operands: tuple[Any, ...]
        if (conditional := read_conditional(kernel)) is not None:
            operator, parts = torch.ops.higher_order.cond, conditional[1]
            before, operands = [conditional[0]], (kernel.operands,)
        elif isinstance(kernel, ir.WhileLoop):
            operator, parts = torch.ops.higher_order.while_loop, (kernel.cond_subgraph, kernel.body_subgraph)
            before, operands = [], (kernel.carried_inputs, kernel.additional_inputs)
        else:
            operator, parts = torch.ops.higher_order.invoke_subgraph, (kernel.subgraph,)
            before, operands = [], (kernel.subgraph.name, *kernel.inputs)
        graphs = tuple(self._hold(part.name, part.graph_module) for part in parts)
        before, operands = tree_map(self._argument, (before, tuple(map(_listed, operands))))
        self._results[name] = self._recorder.add(operator, (*before, *graphs, *operands), {}, name)
        told = ", ".join(part.name for part in parts)
        return f"{name} = {operator.name()}({', '.join(map(_text, (*before, told, *operands)))})"

    def _copy(self, target: Any, source: Any) -> str:
        """Record a copy from one node's memory to another's."""
        place, dtype = self._layouts.place(target)
        value = convert(self._recorder, self._layouts.read(source, self._whole), dtype)
        self._layouts.write(target, expand(self._recorder, value, place.sizes))
        return f"{_name(target)} = {_name(source)}"

    def _find_call(self, kernel: Any) -> tuple[Any, Any, Any]:
        """Return the operator of a kernel, and its arguments as Inductor's nodes."""
        ir = inductor_ir()
        inputs, constants = list(kernel.inputs), list(kernel.constant_args)
        if isinstance(kernel, ir.FallbackKernel):
            args, kwargs = kernel.unflatten_args(inputs, constants)
            return kernel.op_overload, args, {**kwargs, **kernel.kwargs}
        if isinstance(kernel, ir.IndexPutFallback):
            given = iter(inputs[2:])
            indices = [None if i is None else next(given) for i in kernel.indices]
            return aten.index_put_.default, [inputs[0], indices, inputs[1], constants[0]], {}
        if isinstance(kernel, ir.ScatterFallback):
            x, index, *source = inputs
            kwargs = {k: v for k, v in kernel.kwargs.items() if v is not None}
            return kernel.op_overload, [x, constants[0], index, *(source or constants[1:])], kwargs
        return kernel.op_overload, inputs + constants, dict(kernel.kwargs)

    def _call(self, kernel: Any, operator: OpOverload, args: Any, kwargs: Any) -> str:
        name = kernel.get_name()
        text = f"{name} = {operator}({', '.join(_text(a) for a in (*args, *kwargs.values()))})"
        written = list_written(operator)
        functional = operator
        if written:
            form = find_functional_form(operator)
            if form is None or form.options:
                raise Unreadable(f"no functional form of {operator}")
            functional = form.operator
            # The order of arguments may be another one, as that of mkldnn's convolution that adds in place.
            args, kwargs = (), dict(zip(get_types(operator), args)) | dict(kwargs)
        kwargs = {k: v for k, v in kwargs.items() if k in get_types(functional)}
        node = self._recorder.add(functional, tuple(args), kwargs, name)
        if written and not writes_out(operator):
            if written != tuple(get_types(operator))[:1]:
                raise Unreadable(f"{operator} writes into other arguments than its first")
            target = kernel.inputs[0]
            self._layouts.write(target, Value(node, self._like(target)))
            self._results[name] = node
        elif isinstance(kernel.get_output_spec(), (inductor_ir().MultiOutputLayout, inductor_ir().NoneLayout)):
            self._results[name] = node
        else:
            self._put(kernel, node)
        return text

    def _like(self, node: Any) -> torch.Tensor:
        place, dtype = self._layouts.place(node)
        return torch.empty(place.sizes, dtype=dtype, device="meta")

    def _put(self, kernel: Any, node: Any) -> None:
        self._layouts.write(kernel, Value(node, self._like(kernel)))
        self._results[kernel.get_name()] = node

    def _argument(self, x: Any) -> Any:
        """Return an argument as the operator takes it."""
        ir = inductor_ir()
        if isinstance(x, ir.NoneAsConstantBuffer):
            return None
        if isinstance(x, ir.IRNode):
            return self._layouts.read(x, self._whole)
        return self._layouts.number(x)


def _listed(x: Any) -> Any:
    return tuple(x) if isinstance(x, (list, tuple)) else x


def _name(node: Any) -> str:
    return str(unboxed(node).get_name())


def _text(x: Any) -> str:
    if isinstance(x, (list, tuple)):
        return f"[{', '.join(map(_text, x))}]"
    return x.text if isinstance(x, (Value, Literal)) else repr(x)
