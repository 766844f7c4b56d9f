"""Known faults of scheduling, and of the memory of buffers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._inductor import graph, ir, scheduler

from tests.auditing.known_faults.fault import KnownFault, normal, patched, together

aten = torch.ops.aten


def _always(_: Any) -> Any:
    return lambda *args, **named: True


def _doubled_and_halved(source: Tensor) -> tuple[Tensor, Tensor]:
    out = torch.zeros(3).index_add(0, torch.tensor([0, 1, 0]), source, alpha=2.0)
    return out / 2, out


def _same_buffer(original: Any) -> Any:
    return lambda self, read, write, **named: read.name == write.name or original(self, read, write, **named)


def _mirrored(x: Tensor) -> Tensor:
    x.copy_(x.flip(0))
    return x


def _logarithms(x: Tensor) -> Tensor:
    y = torch.log(x)
    x[torch.tensor([1])] = 1.0
    return y


def _doubled_logarithms(x: Tensor) -> Tensor:
    return _logarithms(x) * 2


def _views(x: Tensor) -> tuple[Tensor, Tensor]:
    z = torch.view_as_complex(x + 1)
    return torch.view_as_real(z) + 1, torch.view_as_real(z + 1)


def _unless_weak(original: Any) -> Any:
    def add(self: Any, dep: Any) -> None:
        if not isinstance(dep, scheduler.WeakDep):
            original(self, dep)

    return add


def _writers_first(original: Any) -> Any:
    """The order of nodes, of which those that write in place come first where nothing makes them wait."""
    return lambda self, nodes: original(self, sorted(nodes, key=lambda node: not node.has_aliasing_or_mutation()))


def _users_unrealized(_: Any) -> Any:
    return lambda self, name: self.mutated_buffers.add(name)


FAULTS = {
    "a sum read before it is complete": KnownFault(
        "a loop that reads a buffer joins the loop that adds to its elements",
        108963,
        patched(scheduler.Scheduler, "fusable_read_and_write", _same_buffer),
        _doubled_and_halved,
        normal((3,)),
        options={"aggressive_fusion": True},
    ),
    "a mirror image in place": KnownFault(
        "a loop that reads mirrored elements joins the one that writes them",
        101950,
        patched(scheduler.Scheduler, "fusable_weak_dep", _always),
        _mirrored,
        normal((4, 3)),
        "scheduling",
    ),
    "a write before an older reader": KnownFault(
        "a write in place is scheduled before the readers of the old value, which are not computed yet",
        107614,
        patched(graph.GraphLowering, "mark_buffer_mutated", _users_unrealized),
        _doubled_logarithms,
        lambda: [normal((3, 4))()[0].abs() + 0.5],
        "lowering",
        options={"reorder_for_locality": False},
    ),
    "memory of a view": KnownFault(
        "the memory below a view of an operator that is not lowered is used again",
        122457,
        patched(ir.FallbackKernel, "get_inputs_that_alias_output", lambda _: lambda self: []),
        _views,
        normal((4, 2)),
    ),
    "a write among its readers": KnownFault(
        "an operation in place changes the results of the operations before it",
        94777,
        together(
            patched(scheduler.BaseSchedulerNode, "add_fake_dep", _unless_weak),
            patched(scheduler.Scheduler, "topological_sort_schedule", _writers_first),
        ),
        _logarithms,
        lambda: [normal((3, 4))()[0].abs() + 0.5],
        "scheduling",
    ),
}
