"""Inductor's lowering and scheduling of each operator of PyTorch's operator database, for docs/lowering.md.

``python -m zoo.lowered_operators FILE [NAME ...]`` appends a line of JSON for each operator that FILE lacks.
"""

from __future__ import annotations

import itertools
import json
import random
import resource
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.testing._internal.common_methods_invocations import op_db

from foldproof.auditing.step import Step
from foldproof.operators import find_operator, is_uninitialized, is_view
from foldproof.torch_internals import tree_flatten, tree_leaves, tree_unflatten
from foldproof.verdict import Kind
from zoo.commit import name_commit
from zoo.lowered import loop_steps

DTYPES = (torch.float32, torch.int64)
SAMPLES = 2
"""Samples of each operator and dtype."""
LIMIT = 60
"""Seconds for one sample."""


class Call(nn.Module):
    """An operator as a function of the tensors among its arguments."""

    def __init__(self, operator: Any, arguments: Any) -> None:
        super().__init__()
        self._operator = operator
        self._leaves, self._structure = tree_flatten(arguments)

    @property
    def tensors(self) -> list[Tensor]:
        return [x.detach() for x in self._leaves if isinstance(x, Tensor)]

    def forward(self, *tensors: Tensor) -> Any:
        given = iter(tensors)
        leaves = [next(given) if isinstance(x, Tensor) else x for x in self._leaves]
        args, kwargs = tree_unflatten(leaves, self._structure)
        return self._operator(*args, **kwargs)


def samples(operator: Any, dtype: torch.dtype) -> Iterator[Call]:
    """Some of the database's samples, drawn at random: the first as it comes, the second with other strides."""
    torch.manual_seed(0)
    found = list(itertools.islice(operator.sample_inputs("cpu", dtype), 24))
    random.Random(operator.name).shuffle(found)
    for i, sample in enumerate(found[:SAMPLES]):
        arguments = ([sample.input, *sample.args], dict(sample.kwargs))
        leaves, structure = tree_flatten(arguments)
        leaves = [_strided(x) if i % 2 and isinstance(x, Tensor) else x for x in leaves]
        yield Call(operator.op, tree_unflatten(leaves, structure))


def _strided(x: Tensor) -> Tensor:
    """The same values, with the dimensions in the opposite order in memory."""
    if x.dim() < 2:
        return x.detach()
    return x.detach().permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))


def judged(call: Call) -> tuple[str, str]:
    """The worst verdict on a call's steps, and its reason."""
    steps = loop_steps(call, call.tensors)
    if not steps:
        return "none", "nothing is lowered"
    if any(map(_returns_new_memory, steps.values())):
        return "none", "the result is memory that nobody wrote"
    order = (Kind.REFUTED, Kind.UNDECIDED, Kind.ROUNDING, Kind.PROVED_WITHIN, Kind.PROVED)
    if any(step.verdict.reason.startswith("all outputs are empty") for step in steps.values()):
        return "none", "all outputs are empty"
    worst = min(steps.values(), key=lambda step: order.index(step.verdict.kind))
    return worst.verdict.kind.value, f"{worst.name}: {worst.verdict.reason}"


def _returns_new_memory(step: Step) -> bool:
    """True if an output of the graph before a step is new memory, or a view of it, without contents."""
    return any(_is_new_memory(x) for x in tree_leaves([*step.before.graph.nodes][-1].args) if isinstance(x, fx.Node))


def _is_new_memory(node: fx.Node) -> bool:
    operator = find_operator(node.target) if node.op == "call_function" else None
    if operator is None:
        return False
    if is_view(operator) or operator is torch.ops.aten.reshape.default:
        return _is_new_memory(node.all_input_nodes[0])
    return is_uninitialized(operator) and bool(node.meta["val"].numel())


def rows(operator: Any) -> Iterator[dict[str, str]]:
    for dtype in DTYPES:
        if dtype not in operator.dtypes:
            continue
        for i, call in enumerate(samples(operator, dtype)):
            kind, why = _guarded(call)
            shapes = ", ".join(str(tuple(t.shape)) for t in call.tensors)
            name = f"{operator.name}{'.' * bool(operator.variant_test_name)}{operator.variant_test_name}"
            yield {"operator": name, "dtype": str(dtype), "sample": str(i), "shapes": shapes, "kind": kind, "why": why}


def _guarded(call: Call) -> tuple[str, str]:
    def expire(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, expire)
    signal.alarm(LIMIT)
    try:
        return judged(call)
    except TimeoutError:
        return "none", f"longer than {LIMIT} s"
    except Exception as error:  # the operator itself may refuse to be compiled
        return "none", f"not compiled: {type(error).__name__}"
    finally:
        signal.alarm(0)


def main(path: Path, names: Sequence[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    memory = 6 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    commit = name_commit()
    done = {line["of"] for line in map(json.loads, path.read_text("utf-8").splitlines())} if path.exists() else set()
    with path.open("a", encoding="utf-8") as file:
        for operator in random.Random(0).sample(op_db, len(op_db)):  # so that the first results are fair
            of = f"{operator.name} {operator.variant_test_name}".strip()
            if of not in done and (not names or of in names):
                try:
                    found = list(rows(operator))
                except Exception as error:
                    found = [{"operator": of, "kind": "none", "why": f"no sample: {type(error).__name__}"}]
                file.write(json.dumps({"of": of, "commit": commit, "rows": found}) + "\n")
                file.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
