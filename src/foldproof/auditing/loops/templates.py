"""Products of matrices that Inductor writes from a template, with the functions that it applies to each element.

A template multiplies by a weight that is cut into blocks of columns. A constant weight is cut while the graph is
lowered, and takes the place of the graph's own constant. It is read as that constant if it consists of the same bits,
so that a proof holds for all weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from foldproof.auditing.loops.layouts import Layouts, unboxed
from foldproof.auditing.loops.memory import Memory
from foldproof.auditing.loops.nest import Nest
from foldproof.auditing.loops.recorder import Recorder, Unreadable, Value, convert, expand, reshape
from foldproof.torch_internals import call_pointwise, is_mkldnn, make_loop_variables

aten = torch.ops.aten

PRODUCTS = {"CppGemmTemplate": aten.mm.default, "CppBmmTemplate": aten.bmm.default}


class Templates:
    """Kernels made from templates."""

    def __init__(self, recorder: Recorder, memory: Memory, layouts: Layouts) -> None:
        self._recorder, self._memory, self._layouts = recorder, memory, layouts

    def record(self, buffer: Any, packed: Mapping[str, Tensor]) -> list[str]:
        """Record a kernel, and return its listing; ``packed`` are the constants of the lowered graph.

        Raises:
            Unreadable: the template, or its weight, has no reading.
        """
        template, name = buffer.template, buffer.get_name()
        product = PRODUCTS.get(type(template).__name__)
        x, *others = buffer.inputs
        given = self._layouts.read(x, {})
        if product is None or not given.example.is_floating_point() or len(others) != 1 + bool(template.has_bias):
            raise Unreadable(f"{name} is computed by a {type(template).__name__}")
        weight = self._read_weight(template, others[0], packed)
        call = self._recorder.call
        made = call(product, given, convert(self._recorder, weight, given.example.dtype))
        text = f"{given.text} @ {weight.text}"
        if template.alpha != 1:
            made, text = call(aten.mul.Tensor, made, template.alpha), f"{text} * {template.alpha}"
        if template.has_bias and template.beta:
            bias = expand(self._recorder, self._layouts.read(others[1], {}), list(made.example.shape))
            made = call(aten.add.Tensor, made, bias, alpha=template.beta)
            text = f"{text} + {bias.text}" + f" * {template.beta}" * (template.beta != 1)
        _, dtype = self._layouts.place(buffer)
        self._layouts.write(buffer, convert(self._recorder, made, dtype))
        lines = [f"{name} = {text}"]
        return lines if template.epilogue_creator is None else [*lines, *self._apply(template.epilogue_creator, buffer)]

    def _apply(self, create: Callable[[Any], Any], buffer: Any) -> list[str]:
        """Record the function that a template applies to each element of its product."""
        place, _ = self._layouts.place(buffer)
        ranges = dict(zip(make_loop_variables(len(place.sizes)), place.sizes))
        nest = Nest(self._recorder, self._memory, ranges, 0)
        call_pointwise(unboxed(create(buffer)), buffer, list(ranges), nest)
        heading = ", ".join(f"{v} < {n}" for v, n in ranges.items())
        return [f"for {heading}:", *(f"    {line}" for line in nest.lines)]

    def _read_weight(self, template: Any, node: Any, packed: Mapping[str, Tensor]) -> Value:
        """Return the weight as a matrix, or as several."""
        name = unboxed(node).get_name()
        if name not in packed:
            whole = self._layouts.read(node, {})
            if not template.should_block_weights:
                return whole
            if whole.example.dtype != torch.float32:
                raise Unreadable(f"{name} is a weight in blocks whose order is not known")
            return self._join(whole, template.n)
        original = unboxed(template.input_nodes[1]).get_name()
        if original not in self._recorder.constants:
            raise Unreadable(f"{name} is a weight of an unknown origin")
        return self._read_constant(packed[name], original, template)

    def _read_constant(self, blocks: Tensor, original: str, template: Any) -> Value:
        constant = self._recorder.constants[original]
        dense = constant.to_dense() if is_mkldnn(constant) else constant
        blocked = template.should_block_weights
        joined = [_joined(blocks, template.n, each) for each in (1, 2, 4)] if blocked else [blocks]
        straight = any(torch.equal(dense, x) for x in joined if x is not None)
        turned = dense.dim() == 2 and any(torch.equal(dense.t(), x) for x in joined if x is not None)
        if straight == turned:
            raise Unreadable(f"the weight {original} is packed in a way that has no reading")
        whole = self._recorder.hold(original, constant)
        return whole if straight else self._recorder.call(aten.permute.default, whole, [1, 0], text=f"{whole.text}.T")

    def _join(self, blocks: Value, n: int) -> Value:
        *others, count, k, width = blocks.example.shape
        order = [*range(len(others)), len(others) + 1, len(others), len(others) + 2]
        rows = self._recorder.call(aten.permute.default, blocks, order)
        whole = reshape(self._recorder, rows, [*others, k, count * width])
        return self._recorder.call(aten.slice.Tensor, whole, len(others) + 1, 0, n, text=blocks.text)


def _joined(blocks: Tensor, n: int, each: int) -> Tensor | None:
    """Return the matrix of a weight in blocks of columns, of which ``each`` rows are interleaved, or None."""
    shape: Sequence[int] = blocks.shape
    if blocks.dim() < 3 or shape[-2] % each:
        return None
    *others, count, k, width = shape
    rows = blocks.reshape(*others, count, k // each, width, each).transpose(-1, -2).reshape(*others, count, k, width)
    return rows.transpose(-3, -2).reshape(*others, k, count * width)[..., :n]
