"""Every way to change a parameter is seen at the next call of what `foldproof.backend` compiled, by name."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from foldproof import backend


class Model(nn.Module):
    """A normalization that folds into a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.n = nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.n(self.c(x))
        return y.relu()


@dataclass
class Compiled:
    """A model, what it was compiled to, and what the backend made of its graphs."""

    model: Model
    fast: Callable[[Tensor], Tensor]
    seen: list[backend.Rewritten | None] = field(default_factory=list)


@pytest.fixture(scope="module")
def compiled() -> Iterator[Compiled]:
    """One for all changes."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Model().eval()
    found = Compiled(model, torch.compile(model, backend=backend.foldproof))
    original = backend.rewrite_graph

    def noted(*arguments: Any) -> backend.Rewritten | None:
        found.seen.append(original(*arguments))
        return found.seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "rewrite_graph", noted)
        yield found
    torch._dynamo.reset()


def in_place(m: Model) -> None:
    m.c.weight.mul_(2)


def in_inference_mode(m: Model) -> None:
    with torch.inference_mode():
        m.c.weight.mul_(2)


def data(m: Model) -> None:
    m.c.weight.data.mul_(2)


def one_element_of_data(m: Model) -> None:
    m.c.weight.data[1, 2, 0, 1] += 9


def rows_permuted(m: Model) -> None:
    """The same numbers in another order."""
    m.c.weight.data.copy_(m.c.weight.data.flip(0))


def data_replaced(m: Model) -> None:
    m.n.weight.data = torch.rand(8) + 1


def numpy(m: Model) -> None:
    m.c.weight.detach().numpy()[:] *= 2


def dlpack(m: Model) -> None:
    torch.from_dlpack(m.c.weight.detach()).mul_(2)


def storage(m: Model) -> None:
    m.n.running_var.untyped_storage().copy_((torch.rand(8) + 1).untyped_storage())


def address(m: Model) -> None:
    other = torch.randn(8)
    ctypes.memmove(m.n.running_mean.data_ptr(), other.data_ptr(), other.nbytes)


def version_preserved(m: Model) -> None:
    with torch.autograd._unsafe_preserve_version_counter(m.c.weight):
        m.c.weight.mul_(2)


def foreach(m: Model) -> None:
    torch._foreach_mul_([m.c.weight, m.n.weight], 1.5)


def foreach_of_data(m: Model) -> None:
    torch._foreach_mul_([m.c.weight.data, m.n.weight.data], 1.5)


def resized_and_set(m: Model) -> None:
    m.c.weight.set_(torch.randn(m.c.weight.shape))  # type: ignore[call-overload]


def swapped(m: Model) -> None:
    torch.utils.swap_tensors(m.c.weight, nn.Parameter(torch.randn(m.c.weight.shape)))


def replaced(m: Model) -> None:
    m.n.bias = nn.Parameter(torch.randn(8))


def vector(m: Model) -> None:
    vector_to_parameters(parameters_to_vector(m.parameters()) * 1.5, m.parameters())


def loaded(m: Model) -> None:
    m.load_state_dict(Model().state_dict())


def assigned(m: Model) -> None:
    other = Model()
    nn.init.normal_(other.n.bias)
    m.load_state_dict(other.state_dict(), assign=True)


def fused_step(m: Model) -> None:
    _step(torch.optim.AdamW(m.parameters(), lr=0.1, fused=True), m)


def foreach_step(m: Model) -> None:
    _step(torch.optim.SGD(m.parameters(), lr=1, foreach=True), m)


def _step(optimizer: torch.optim.Optimizer, m: Model) -> None:
    for p in m.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.zero_grad()


def broadcast(m: Model) -> None:
    options = dist.BroadcastOptions()
    options.rootRank = 1
    _collective(lambda group, x: group.broadcast([x], options), m.c.weight)


def all_reduce(m: Model) -> None:
    _collective(lambda group, x: group.allreduce([x]), m.n.weight.data)


def _collective(call: Callable[[Any, Tensor], Any], mine: Tensor) -> None:
    """Two ranks in two threads; the other one has ones."""
    store = dist.HashStore()

    def rank(i: int) -> None:
        options = dist.ProcessGroupGloo._Options()
        options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1", lazy_init=False)]
        options._timeout = timedelta(seconds=60)
        group = dist.ProcessGroupGloo(store, i, 2, options)
        call(group, torch.ones_like(mine) if i else mine).wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(rank, range(2)))


CHANGES = [
    in_place,
    in_inference_mode,
    data,
    one_element_of_data,
    rows_permuted,
    data_replaced,
    numpy,
    dlpack,
    storage,
    address,
    version_preserved,
    foreach,
    foreach_of_data,
    resized_and_set,
    swapped,
    replaced,
    vector,
    loaded,
    assigned,
    fused_step,
    foreach_step,
    pytest.param(broadcast, marks=pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")),
    pytest.param(all_reduce, marks=pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")),
]


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_change(compiled: Compiled, change: Callable[[Model], None]) -> None:
    loaded(compiled.model)
    assert_seen(compiled, lambda: change(compiled.model))


@torch.no_grad()
@pytest.mark.parametrize("write", [lambda flat: flat.mul_(1.5), lambda flat: flat.numpy().__imul__(1.5)])
@pytest.mark.parametrize("by_data", [True, False])
def test_views_of_one_flat_buffer(compiled: Compiled, write: Callable[[Tensor], object], by_data: bool) -> None:
    """As in FSDP, and in DeepSpeed."""
    loaded(compiled.model)
    parameters = dict(compiled.model.named_parameters())
    flat = torch.cat([p.detach().flatten() for p in parameters.values()])
    for (name, p), part in zip(parameters.items(), flat.split([p.numel() for p in parameters.values()]), strict=True):
        if by_data:
            p.data = part.view_as(p)
        else:
            owner, _, attribute = name.rpartition(".")
            setattr(compiled.model.get_submodule(owner), attribute, nn.Parameter(part.view_as(p)))
    assert_seen(compiled, lambda: write(flat))


def assert_seen(compiled: Compiled, change: Callable[[], object]) -> None:
    """The next call after the change gives the new result, by the code that was there before."""
    x = torch.randn(2, 4, 6, 6)
    before = compiled.fast(x)
    assert_same(before, compiled.model(x))
    change()
    expected = compiled.model(x)
    assert not torch.allclose(expected, before, rtol=1e-2)
    assert_same(compiled.fast(x), expected)
    [one] = compiled.seen
    assert one is not None and one.made == 2


def assert_same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_of_what_is_right_for_some_values() -> None:
    """A scale was moved past a maximum; a negative one runs uncompiled, until it is positive again."""

    class Pooled(Model):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.n(nn.functional.max_pool2d(self.c(x), 2))
            return y

    torch._dynamo.reset()
    torch.manual_seed(0)
    model, x = Pooled().eval(), torch.randn(2, 4, 6, 6)
    fast = torch.compile(model, backend=backend.foldproof)
    assert_same(fast(x), model(x))
    with pytest.warns(UserWarning, match="right for its old value only"):
        for _ in range(4):
            model.n.weight.data.neg_()
            assert_same(fast(x), model(x))
    torch._dynamo.reset()
