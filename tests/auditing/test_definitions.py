"""Settings as Python: a user's pass is written out, so that a reproduction needs no other file."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch._inductor.custom_graph_pass import CustomGraphPass

from foldproof.auditing.compilers import find_compiler
from foldproof.auditing.definitions import Definitions, Unwritable
from foldproof.auditing.fault import WrongPass
from foldproof.auditing.script import write_reproduction
from foldproof.auditing.specification import specify_model

if TYPE_CHECKING:
    from collections.abc import Sequence

aten = torch.ops.aten
WHOLE, HALF = 1.0, aten.mul.Tensor


def halved(x: float) -> float:
    return math.sqrt(WHOLE) * x / 2


def swap(graph: fx.Graph, besides: Sequence[Any] = ()) -> None:
    for node in graph.nodes:
        if node.target in (aten.sub.Tensor, HALF, operator.sub, F.relu):
            node.args = tuple(reversed(node.args))


class Swap(CustomGraphPass):
    def __call__(self, graph: fx.Graph) -> None:
        swap(graph)

    def uuid(self) -> float:
        return halved(4)


class Configured(Swap):
    def __init__(self) -> None:
        self.times = 2


def made(value: Any) -> Any:
    """Evaluate the lines and the expression in an empty namespace."""
    own = Definitions()
    code = own.write_expression(value)
    names: dict[str, Any] = {"torch": torch, "nn": torch.nn}
    exec("from __future__ import annotations\n" + "\n".join(own.lines), names)
    return eval(code, names)


@pytest.mark.parametrize("value", [True, "max", {"batch_linear": {}}, [1, 2.5], torch.float16, aten.mm.default, F.relu])
def test_plain_values_and_what_is_installed(value: Any) -> None:
    assert made(value) == value


@pytest.mark.parametrize("value", [swap, Swap()])
def test_a_pass_with_all_that_it_refers_to(value: Callable[[fx.Graph], None]) -> None:
    graph = fx.Graph()
    node = graph.call_function(aten.sub.Tensor, (graph.placeholder("x"), graph.placeholder("y")))
    there = made(value)
    assert there is not value
    there(graph)
    assert [str(x) for x in node.args] == ["y", "x"]


def test_definitions_follow_what_they_refer_to() -> None:
    own = Definitions()
    assert own.write_expression(Swap()) == "Swap()"
    assert own.write_expression(swap) == "swap", "what is there is not written again"
    text = "\n".join(own.lines)
    assert text.index("aten = torch.ops.aten") < text.index("def swap") < text.index("class Swap")
    assert "import torch.nn.functional as F" in own.lines
    assert "import math" in own.lines
    assert "WHOLE = 1.0" in own.lines
    assert "HALF = torch.ops.aten.mul.Tensor" in own.lines
    assert text.count("def swap") == 1


class Subtract(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x - y


def test_a_program_that_shows_a_fault_defines_the_pass() -> None:
    fault = WrongPass(find_compiler("inductor"), {"post_grad_custom_pre_pass": swap}, "post_grad_custom_pre_pass")
    draft = replace(specify_model(Subtract(), (torch.ones(1), torch.ones(1)))[0], held=None, given=None)
    text = write_reproduction(fault, draft)
    # The program sets an option; monkeypatch would end by hiding it.
    with torch._inductor.config.patch(post_grad_custom_pre_pass=None):  # type: ignore[attr-defined]
        exec(text.partition("\ngot = ")[0], {})
    assert "def swap(graph: fx.Graph, besides" in text
    assert "torch._inductor.config.post_grad_custom_pre_pass = swap" in text
    assert "__init__" not in text and "state_dict" not in text, "a model without parameters needs neither"


def model(graph: fx.Graph) -> None:
    """A pass with a name that the program has for its model."""


def closed(times: int) -> Callable[[fx.Graph], None]:
    def inner(graph: fx.Graph) -> None:
        graph.lint() if times else None

    return inner


@pytest.mark.parametrize(
    "value", [lambda graph: None, closed(2), model, Configured(), functools.partial(swap), torch.ones(2)]
)
def test_what_can_not_be_written(value: Any) -> None:
    with pytest.raises(Unwritable):
        made(value)
