"""Python state outside of modules: two calls show it, and the owner's objects are as they were afterwards."""

from __future__ import annotations

import functools
import itertools
import sys
import threading
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.infra.pass_base import PassBase, PassResult

import foldproof
from foldproof import FoldproofError, Kind

from .programs import normal

X = normal(3, 4)
COUNT = 0
SEEN: list[int] = []
TABLE: dict[str, int] = {}
SHIFT = torch.zeros(4)
WEIGHT = torch.ones(4)

Case = tuple[Callable[[Tensor], Tensor], Callable[[], Any]]
"""A program whose first call is the identity, and a reading of the state that each call changes."""
CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__.replace("_", " ").strip()] = make
    return make


class Calls(nn.Module):
    """A module whose class reads the function from a variable of its own, as any class in a function does."""


def module(function: Callable[[Any, Tensor], Tensor], **held: Any) -> nn.Module:
    class Net(Calls):
        def forward(self, x: Tensor) -> Tensor:
            return function(self, x)

    net = Net()
    net.__dict__.update(held)
    return net


class Plain:
    def __init__(self) -> None:
        self.n = 0

    def count(self, x: Tensor) -> Tensor:
        self.n += 1
        return x * self.n

    def __call__(self, x: Tensor) -> Tensor:
        return self.count(x)

    def __getitem__(self, k: int) -> int:
        self.n += k
        return self.n


GLOBAL = Plain()


class Slotted:
    __slots__ = ("__hidden", "filled", "n")

    def __init__(self) -> None:
        self.n, self.filled, self.__hidden = 0, list[int](), 0

    def count(self) -> int:
        self.n += 1
        return self.n

    def fill(self) -> int:
        self.filled.append(1)
        return len(self.filled)

    def count_hidden(self) -> int:
        self.__hidden += 1
        return self.__hidden


@case
def a_number_of_a_closure() -> Case:
    n = 0

    def forward(s: Any, x: Tensor) -> Tensor:
        nonlocal n
        n += 1
        return x * n

    return module(forward), lambda: n


@case
def a_list_of_a_closure() -> Case:
    seen: list[int] = []

    def forward(s: Any, x: Tensor) -> Tensor:
        seen.append(1)
        return x * len(seen)

    return module(forward), lambda: list(seen)


@case
def a_tensor_of_a_closure() -> Case:
    shift = torch.zeros(4)

    def forward(s: Any, x: Tensor) -> Tensor:
        y = x + shift
        shift.add_(1)
        return y

    return module(forward), shift.tolist


@case
def an_object_of_a_closure() -> Case:
    held = Plain()
    return module(lambda s, x: held.count(x)), lambda: held.n


@case
def an_operator_of_an_object() -> Case:
    held = Plain()
    return module(lambda s, x: x * held[1]), lambda: held.n


@case
def a_module_of_a_closure() -> Case:
    norm = nn.BatchNorm1d(4, momentum=0.5)

    def forward(s: Any, x: Tensor) -> Tensor:
        y = x + norm.num_batches_tracked
        norm.num_batches_tracked.add_(1)
        return y

    return module(forward), norm.num_batches_tracked.item


@case
def a_default() -> Case:
    class Net(nn.Module):
        def forward(self, x: Tensor, seen: list[int] = []) -> Tensor:  # noqa: B006 (the case)
            seen.append(1)
            return x * len(seen)

    return Net(), lambda: list(Net.forward.__defaults__[0])  # type: ignore[index]


@case
def a_default_by_name() -> Case:
    class Net(nn.Module):
        def forward(self, x: Tensor, *, seen: list[int] = []) -> Tensor:  # noqa: B006 (the case)
            seen.append(1)
            return x * len(seen)

    return Net(), lambda: list(Net.forward.__kwdefaults__["seen"])


@case
def an_attribute_of_a_class() -> Case:
    class Net(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            type(self).calls += 1
            return x * self.calls

    return Net(), lambda: Net.calls


@case
def an_attribute_of_a_base_class() -> Case:
    class Base(nn.Module):
        seen: list[int] = []  # noqa: RUF012 (the case)

    class Net(Base):
        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(1)
            return x * len(self.seen)

    return Net(), lambda: list(Base.seen)


@case
def a_tensor_of_a_class() -> Case:
    class Net(nn.Module):
        shift = torch.zeros(4)

        def forward(self, x: Tensor) -> Tensor:
            y = x + self.shift
            Net.shift = self.shift + 1
            return y

    return Net(), lambda: Net.shift.tolist()


@case
def a_property() -> Case:
    class Net(nn.Module):
        n = 0

        @property
        def count(self) -> int:
            Net.n += 1
            return Net.n

        def forward(self, x: Tensor) -> Tensor:
            return x * self.count

    return Net(), lambda: Net.n


@case
def a_class_method() -> Case:
    class Net(nn.Module):
        n = 0

        @classmethod
        def count(cls) -> int:
            cls.n += 1
            return cls.n

        def forward(self, x: Tensor) -> Tensor:
            return x * self.count()

    return Net(), lambda: Net.n


@case
def a_method_by_its_name() -> Case:
    seen: list[int] = []

    class Net(nn.Module):
        def count(self) -> int:
            seen.append(1)
            return len(seen)

        def forward(self, x: Tensor) -> Tensor:
            return x * getattr(self, "count")()  # noqa: B009 (the case)

    return Net(), lambda: list(seen)


@case
def a_decorated_forward() -> Case:
    seen: list[int] = []

    class Net(nn.Module):
        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            seen.append(1)
            return x * len(seen)

    return Net(), lambda: list(seen)


@case
def a_constructor() -> Case:
    class Made:
        count = 0

        def __init__(self) -> None:
            Made.count += 1

    def forward(s: Any, x: Tensor) -> Tensor:
        Made()
        return x * Made.count

    return module(forward), lambda: Made.count


@case
def slots() -> Case:
    held = Slotted()
    return module(lambda s, x: x * s.held.count(), held=held), lambda: held.n


@case
def a_list_in_slots() -> Case:
    held = Slotted()
    return module(lambda s, x: x * s.held.fill(), held=held), lambda: list(held.filled)


@case
def private_slots() -> Case:
    held = Slotted()
    return module(lambda s, x: x * s.held.count_hidden(), held=held), lambda: held._Slotted__hidden  # type: ignore[attr-defined]


@case
def a_global_number() -> Case:
    def forward(s: Any, x: Tensor) -> Tensor:
        global COUNT
        COUNT += 1
        return x * COUNT

    return module(forward), lambda: COUNT


@case
def a_global_list() -> Case:
    def forward(s: Any, x: Tensor) -> Tensor:
        SEEN.append(1)
        return x * len(SEEN)

    return module(forward), lambda: list(SEEN)


@case
def a_global_object() -> Case:
    return module(lambda s, x: GLOBAL.count(x)), lambda: GLOBAL.n


@case
def a_global_tensor() -> Case:
    def forward(s: Any, x: Tensor) -> Tensor:
        global SHIFT
        y = x + SHIFT
        SHIFT = SHIFT + 1
        return y

    return module(forward), lambda: SHIFT.tolist()


def count_in_a_table(x: Tensor) -> Tensor:
    TABLE["n"] = TABLE.get("n", 0) + 1
    return x * TABLE["n"]


@case
def a_global_that_a_helper_reads() -> Case:
    return module(lambda s, x: count_in_a_table(x)), lambda: dict(TABLE)


@case
def an_attribute_of_a_function() -> Case:
    def forward(s: Any, x: Tensor) -> Tensor:
        forward.n += 1  # type: ignore[attr-defined]
        return x * forward.n  # type: ignore[attr-defined,no-any-return]

    forward.n = 0  # type: ignore[attr-defined]
    return module(forward), lambda: forward.n  # type: ignore[attr-defined]


@case
def another_python_module() -> Case:
    other: Any = types.ModuleType("tests_of_state")
    other.n = 0
    sys.modules["tests_of_state"] = other

    def forward(s: Any, x: Tensor) -> Tensor:
        import tests_of_state  # type: ignore[import-not-found]

        tests_of_state.n += 1
        return x * tests_of_state.n  # type: ignore[no-any-return]

    return module(forward), lambda: other.n


@case
def a_thread_local() -> Case:
    held = threading.local()
    held.n = 0

    def forward(s: Any, x: Tensor) -> Tensor:
        held.n += 1
        return x * held.n  # type: ignore[no-any-return]

    return module(forward), lambda: held.n


@case
def a_hook() -> Case:
    net, seen = nn.Identity(), list[int]()

    def hook(net: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        seen.append(1)
        return output * len(seen)

    net.register_forward_hook(hook)
    return net, lambda: list(seen)


@case
def a_counter() -> Case:
    held: Counter[str] = Counter()

    def forward(s: Any, x: Tensor) -> Tensor:
        s.held["a"] += 1
        return x * s.held["a"]  # type: ignore[no-any-return]

    return module(forward, held=held), lambda: dict(held)


@case
def a_default_dict() -> Case:
    held: defaultdict[str, list[int]] = defaultdict(list)

    def forward(s: Any, x: Tensor) -> Tensor:
        s.held["a"].append(1)
        return x * len(s.held["a"])

    return module(forward, held=held), lambda: dict(held)


@case
def a_class_of_lists() -> Case:
    class Mine(list[int]):
        def clear(self) -> None:
            raise AssertionError("not for others to call")

    held = Mine()

    def forward(s: Any, x: Tensor) -> Tensor:
        s.held.append(1)
        return x * len(s.held)

    return module(forward, held=held), lambda: list(held)


@case
def an_array() -> Case:
    held = np.zeros(1)

    def forward(s: Any, x: Tensor) -> Tensor:
        s.held += 1
        return x * float(s.held[0])

    return module(forward, held=held), held.tolist


@case
def bytes_() -> Case:
    held = bytearray(1)

    def forward(s: Any, x: Tensor) -> Tensor:
        s.held[0] += 1
        return x * s.held[0]  # type: ignore[no-any-return]

    return module(forward, held=held), lambda: list(held)


@case
def a_function() -> Case:
    seen: list[int] = []

    def forward(x: Tensor) -> Tensor:
        seen.append(1)
        return x * len(seen)

    return forward, lambda: list(seen)


def weighted_count(x: Tensor) -> Tensor:
    global COUNT
    COUNT += 1
    return x * COUNT * WEIGHT


@case
def a_function_with_global_tensors() -> Case:
    return weighted_count, lambda: COUNT


def count_up() -> None:
    global COUNT
    COUNT += 1


def weighted_count_elsewhere(x: Tensor) -> Tensor:
    count_up()
    return x * COUNT * WEIGHT


@case
def a_helper_of_a_function_with_global_tensors() -> Case:
    return weighted_count_elsewhere, lambda: COUNT


@case
def a_function_that_rebinds_a_tensor() -> Case:
    weight = torch.ones(4)

    def forward(x: Tensor) -> Tensor:
        nonlocal weight
        y = x * weight
        weight = weight + 1
        return y

    return forward, lambda: weight.tolist()


@case
def a_callable_object() -> Case:
    held = Plain()
    return held, lambda: held.n


@case
def a_method_of_an_object() -> Case:
    held = Plain()
    return held.count, lambda: held.n


@case
def a_partial_function() -> Case:
    seen: list[int] = []

    def forward(seen: list[int], x: Tensor) -> Tensor:
        seen.append(1)
        return x * len(seen)

    return functools.partial(forward, seen), lambda: list(seen)


@case
def a_cached_function() -> Case:
    seen: list[int] = []

    @functools.lru_cache(None)
    def count(k: int) -> int:
        seen.append(k)
        return len(seen)

    return module(lambda s, x: x * count(len(seen))), lambda: (list(seen), count.cache_info())


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    global COUNT, SHIFT
    COUNT, SHIFT, GLOBAL.n = 0, torch.zeros(4), 0
    SEEN.clear()
    TABLE.clear()
    yield
    sys.modules.pop("tests_of_state", None)


@pytest.mark.parametrize("name", CASES)
def test_two_calls_show_it_and_nothing_stays(name: str) -> None:
    program, read = CASES[name]()
    before = repr(read())
    for pair in ((program, nn.Identity()), (nn.Identity(), program)):
        verdict = foldproof.prove(*pair, (X,))
        assert verdict.kind is Kind.REFUTED, str(verdict)
        assert repr(read()) == before
    verdict = foldproof.prove(program, program, (X,))
    assert verdict.kind is Kind.PROVED and verdict.claim is not None, str(verdict)
    assert "set by a call" in str(verdict.claim) and not verdict.claim.is_general
    assert repr(read()) == before
    first, second = program(X), program(X)
    assert torch.equal(first, X) and not torch.equal(second, X), "the case is one"


def test_a_cache_holds_no_results_of_a_proof() -> None:
    @functools.lru_cache(None)
    def table(n: int) -> Tensor:
        return torch.arange(n) * 1.0

    program = module(lambda s, x: x + table(4))
    for _ in range(2):
        verdict = foldproof.prove(program, lambda x: torch.arange(4) + x, (X,))
        assert verdict.kind is Kind.PROVED and verdict.claim is not None and verdict.claim.is_general, str(verdict)
        assert table.cache_info().currsize == 0
    assert type(program(X)) is Tensor


def ever(count: int = 0) -> Iterator[int]:
    while True:
        count += 1
        yield count


@pytest.mark.parametrize("make", [lambda: itertools.count(1), ever, lambda: iter(range(1, 9)), lambda: iter([1, 2, 3])])
def test_an_iterator_that_a_call_advances_is_refused(make: Callable[[], Iterator[int]]) -> None:
    program = module(lambda s, x: x * next(s.held), held=make())
    with pytest.raises(FoldproofError, match="advances the iterator held"):
        foldproof.prove(program, nn.Identity(), (X,))


def test_an_iterator_that_no_call_advances() -> None:
    assert foldproof.prove(module(lambda s, x: x, held=iter([1])), nn.Identity(), (X,)).kind is Kind.PROVED


def test_a_batch_norm_beside_the_module() -> None:
    """Its kernel writes to statistics without a trace that PyTorch records."""
    norm = nn.BatchNorm1d(4, momentum=0.5)

    def forward(s: Any, x: Tensor) -> Tensor:
        norm(x)
        return x * (1 + norm.running_mean.sum())  # type: ignore[union-attr]

    foldproof.prove(module(forward), nn.Identity(), (X,))
    assert norm.running_mean.tolist() == [0.0] * 4 and norm.num_batches_tracked.item() == 0  # type: ignore[union-attr]


def test_comparing_leaves_it_alone() -> None:
    class Net(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            type(self).calls += 1
            return x * 2

    assert foldproof.compare(Net(), Net(), (X,), trials=2, locate=False).kind is Kind.ROUNDING
    assert Net.calls == 0


def test_fusing_leaves_it_alone() -> None:
    seen: list[int] = []

    @functools.lru_cache(None)
    def table(n: int) -> Tensor:
        return torch.arange(n) * 1.0

    net, linear, norm = module(lambda s, x: s.norm(s.linear(x)) + table(4)), nn.Linear(4, 4), nn.BatchNorm1d(4)
    net.linear, net.norm = linear, norm
    net.register_forward_pre_hook(lambda net, inputs: seen.append(1))
    assert foldproof.fuse(net.eval(), (X,)).rewrites
    assert not seen and table.cache_info().currsize == 0


def test_what_an_exported_program_does_not_count_is_told() -> None:
    class Counting(nn.Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm, self.seen, self.own = nn.Linear(4, 4), nn.BatchNorm1d(4), list[int](), 0

        def forward(self, x: Tensor) -> Tensor:
            Counting.calls += 1
            self.own += 1
            self.seen.append(1)
            return self.norm(self.linear(x)) * self.own * len(self.seen) * Counting.calls  # type: ignore[no-any-return]

    model = Counting().eval()
    result = foldproof.fuse(model, (X,))
    told = [note for note in result.verdict.notes if "the exported program keeps" in note]
    assert len(told) == 1 and all(name in told[0] for name in ("own", "seen", "calls of class")), result.verdict.notes
    assert (model.own, model.seen, Counting.calls) == (0, [], 0)
    assert not model._forward_hooks
    plain = module(lambda s, x: s.norm(s.linear(x)) + s.shift * s.factors[0], shift=torch.ones(4), factors=[2.0])
    plain.linear, plain.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
    assert not any("keeps" in note for note in foldproof.fuse(plain.eval(), (X,)).verdict.notes)


class Logging(PassBase):
    """A pass with a name of its own for each graph, and a log of the parameters that it saw."""

    def __init__(self) -> None:
        self.count, self.seen = 0, list[Tensor]()

    def call(self, graph: fx.GraphModule) -> PassResult:
        self.count += 1
        self.seen += graph.parameters()
        SEEN.append(self.count)
        return PassResult(graph, False)


def test_a_pass_keeps_no_state_of_a_proof() -> None:
    one, graph = Logging(), torch.export.export(nn.Linear(4, 4), (X,)).module()
    assert foldproof.prove_pass(one, graph, (X,)).kind is Kind.PROVED
    assert (one.count, one.seen, SEEN) == (0, [], [])
    with foldproof.watch((X,)) as watched:
        one(graph)
    assert not watched.steps[0].fired and (one.count, SEEN) == (1, [1])


def test_a_wrong_pass_keeps_no_state_of_a_proof() -> None:
    log: list[Tensor] = []

    @torch.no_grad()
    def wrong(model: nn.Linear) -> None:
        model.weight.mul_(1.5)
        log.append(model.weight)

    assert foldproof.prove_pass(wrong, nn.Linear(4, 4), (X,)).kind is Kind.REFUTED
    assert not log
