"""Known faults of passes over graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.fx_passes import fuse_attention, joint_graph, pre_grad, split_cat

from tests.auditing.known_faults.fault import KnownFault, matched, normal, patched

aten = torch.ops.aten


def _split_and_cat(x: Tensor) -> Tensor:
    a, b, c = torch.split(x, [3, 2, 3], dim=1)
    return torch.cat([b, a, c], dim=1)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.matmul(q, k.transpose(-2, -1)).div(3.0).softmax(dim=-1).matmul(v)


def _without_scale(original: Any) -> Any:
    return lambda *args, scale=None, **named: original(*args, **named)


def _mm_plus(match: Any, mat1: fx.Node, mat2: fx.Node, *, inp: fx.Node, alpha: Any, beta: Any) -> None:
    match.replace_by_example(lambda inp, a, b: inp + a @ b, [inp, mat1, mat2])


def _cumsum_unpromoted(match: Any, shape: Any, fill_value: Any, device: Any, dtype: Any, dim: int) -> None:
    def count(*shape: int) -> Tensor:
        places = torch.arange(1, shape[dim] + 1, device=device, dtype=dtype)
        return (places * fill_value).view([shape[dim] if i == dim else 1 for i in range(len(shape))]).expand(shape)

    match.nodes = [match.output_node()]
    match.replace_by_example(count, list(shape))


def _remove_additions(module: fx.GraphModule, zeros: Any, ones: Any) -> None:
    """The removal of additions of zeros, which does not look for writes."""
    for node in module.graph.find_nodes(op="call_function", target=aten.add.Tensor):
        if node.args[1] in zeros:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)


def _zeros_and_write(x: Tensor) -> Tensor:
    y = x + torch.zeros(3, 4)
    x.mul_(2)
    return y


def _cat_forgets_dim(original: Any) -> Any:
    def sink(module: fx.GraphModule) -> fx.GraphModule:
        for node in module.graph.find_nodes(op="call_function", target=torch.cat):
            node.args, node.kwargs = node.args[:1], {}
        return original(module)

    return sink


def _every_other(x: Tensor) -> tuple[Tensor, ...]:
    a, b, c, d = torch.split(x, 2, dim=1)
    return torch.cat([a, c], dim=1).exp(), b.sin(), d.cos()


def _always(*_: Any, **__: Any) -> bool:
    return True


FAULTS = {
    "a split and its parts in another order": KnownFault(
        "a concatenation of all parts of a split is taken for the operand, in whatever order",
        99686,
        matched("splitwithsizes_cat_replace", extra_check=_always),
        _split_and_cat,
        normal((2, 8)),
        "lowering",
    ),
    "a scale of attention": KnownFault(
        "attention with a scale of its own becomes attention with the default one",
        174361,
        patched(fuse_attention, "_scaled_dot_product_attention", _without_scale),
        _attend,
        normal((1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8)),
        "ReplacementPatternEntry._sfdp",
    ),
    "alpha and beta of addmm": KnownFault(
        "`addmm` is taken apart without its alpha and beta",
        167313,
        matched("unfuse_bias_add_to_pointwise", extra_check=_always, handler=_mm_plus),
        lambda b, x, y: torch.addmm(b, x, y, alpha=0.5, beta=0.25).relu(),
        normal((4,), (2, 3), (3, 4)),
        "post_grad.unfuse_bias_add_to_pointwise",
    ),
    "cumsum without promotion": KnownFault(
        "`cumsum` of a constant tensor keeps the dtype of whole numbers",
        109925,
        matched("pointless_cumsum_replacement", handler=_cumsum_unpromoted),
        lambda x: (torch.full((3, 4), 100, dtype=torch.uint8).cumsum(1), x.exp()),
        normal((2,)),
        "post_grad.pointless_cumsum_replacement",
    ),
    "zeros added before a write": KnownFault(
        "an addition of zeros is removed although its operand is written to afterwards",
        174187,
        patched(joint_graph, "remove_no_ops", lambda _: _remove_additions),
        _zeros_and_write,
        normal((3, 4)),
        "constant_fold_uniform_value",
    ),
    "cat along another dimension": KnownFault(
        "a concatenation that moves behind a pointwise operator loses its dimension",
        171979,
        patched(pre_grad, "sink_cat_after_pointwise", _cat_forgets_dim),
        lambda x, y: torch.cat([x, y], dim=1).relu().sum(0),
        normal((3, 3), (3, 3)),
        "fuse_fx",
    ),
    "parts that are no neighbours": KnownFault(
        "concatenated parts of a split become one part, even if they are no neighbours",
        113822,
        patched(split_cat, "is_sorted_and_consecutive", lambda _: _always),
        _every_other,
        normal((2, 8)),
        "merge_getitem_cat_pass",
        options={"pre_grad_fusion_options": {"normalization_pass": {}, "merge_getitem_cat_pass": {}}},
    ),
}
