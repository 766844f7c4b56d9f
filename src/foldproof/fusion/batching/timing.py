"""Timing: measure a region before and after a rewrite on this machine, and cache the result on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import operator
import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.utils.benchmark import Measurement, Timer

from foldproof.fusion.result import Speed
from foldproof.rewriting.refusal import CannotFold
from foldproof.thresholds import BITWISE_INPUTS, MIN_SPEEDUP

ROUNDS = 15
"""Number of measurements of each side, in turns, so that other load of the machine affects both."""
ROUND_SECONDS = 2e-3
"""Minimal duration of a measurement: many times the resolution of the clock."""


def require_faster(before: GraphModule, after: GraphModule, inputs: Sequence[Tensor], *, bitwise: bool) -> Speed:
    """Measure both sides on this machine.

    Raises:
        CannotFold: *after* is not faster than *before* by `MIN_SPEEDUP` and by more than the noise (the middle halves
            of the measurements overlap); or, if ``bitwise`` is required, a result is rounded differently.
    """
    if bitwise and not have_same_bits(before, after, inputs):
        raise CannotFold("as one operator, it rounds some results differently here", "allow it with batch_linears")
    measured = recall_or_measure(before, after, inputs)
    speed = Speed(
        measured["before"][1], measured["after"][1], _describe_setting(inputs), BITWISE_INPUTS if bitwise else 0
    )
    if measured["after"][2] >= measured["before"][0] or speed.before < MIN_SPEEDUP * speed.after:
        raise CannotFold(f"as one operator, it is not clearly faster here: {speed}")
    return speed


def have_same_bits(before: GraphModule, after: GraphModule, inputs: Sequence[Tensor]) -> bool:
    """Return True if all results agree to the last bit on random inputs of several magnitudes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for i in range(BITWISE_INPUTS):
            given = [
                (torch.randn(x.shape, generator=generator) * 10.0 ** (i % 4 - 2)).to(x.device, x.dtype)
                if x.is_floating_point()
                else x
                for x in inputs
            ]
            if not all(torch.equal(a, b) for a, b in zip(before(*given), after(*given), strict=True)):
                return False
    return True


def recall_or_measure(before: GraphModule, after: GraphModule, inputs: Sequence[Tensor]) -> dict[str, list[float]]:
    """Return the quartiles of the seconds of *before* and of *after*, from the cache if they were measured before."""
    key = {
        "machine": describe_machine(inputs),
        "before": _describe_graph(before, inputs),
        "after": _describe_graph(after, inputs),
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    file = find_folder() / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["key"] == key:
            return {side: [float(x) for x in found["seconds"][side]] for side in ("before", "after")}
    seconds = measure(before, after, inputs)
    with contextlib.suppress(OSError):  # without a cache, it is measured again the next time
        _write(file, json.dumps({"key": key, "seconds": seconds}, indent=1))
    return seconds


def measure(before: GraphModule, after: GraphModule, inputs: Sequence[Tensor]) -> dict[str, list[float]]:
    """Measure the quartiles of the seconds of one run of *before* and of *after*, in turns."""
    sides = {"before": before, "after": after}
    taken: dict[str, list[Measurement]] = {side: [] for side in sides}
    with torch.no_grad():
        timers = {
            side: Timer("run(*inputs)", globals={"run": m, "inputs": inputs}, num_threads=torch.get_num_threads())
            for side, m in sides.items()
        }
        once = max(timer.timeit(1).median for timer in (*timers.values(), *timers.values()))  # the first warms up
        runs = max(1, round(ROUND_SECONDS / once))
        for _ in range(ROUNDS):
            for side, timer in timers.items():
                taken[side].append(timer.timeit(runs))
    points = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return {
        side: torch.tensor([m.median for m in row], dtype=torch.float64).quantile(points).tolist()
        for side, row in taken.items()
    }


def find_folder() -> Path:
    """Return the folder of the cache: beside torch's other caches, which TORCH_HOME and XDG_CACHE_HOME move."""
    return Path(torch.hub.get_dir()).parent / "foldproof" / "timings"


def describe_machine(inputs: Sequence[Tensor]) -> dict[str, Any]:
    """Describe everything that the times depend on, except the program."""
    devices = sorted({str(x.device) for x in inputs})
    names = [torch.cuda.get_device_name(d) if d.startswith("cuda") else d for d in devices]
    return {"torch": torch.__version__, "cpu": _find_cpu(), "devices": names, "threads": torch.get_num_threads()}


def _describe_setting(inputs: Sequence[Tensor]) -> str:
    found = describe_machine(inputs)
    dtypes = ", ".join(sorted({str(x.dtype).removeprefix("torch.") for x in inputs}))
    threads = "1 thread" if found["threads"] == 1 else f"{found['threads']} threads"
    where = [name for name in found["devices"] if name != "cpu"] or [found["cpu"]]
    return f"{', '.join(where)}, {threads}, {dtypes}, torch {found['torch']}"


def _find_cpu() -> str:
    with contextlib.suppress(OSError, IndexError):
        rows = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next((row.split(":", 1)[1].strip() for row in rows if row.startswith("model name")), platform.machine())
    return platform.processor() or platform.machine()


def _describe_graph(module: GraphModule, inputs: Sequence[Tensor]) -> list[str]:
    """Describe the graph independently of its names: the operator, arguments and layout of each node."""
    numbers: dict[Node, Any] = {}
    given = iter(inputs)
    lines = []
    for node in module.graph.nodes:
        numbers[node] = f"%{len(numbers)}"
        if node.op == "placeholder":
            lines.append(f"input {_describe_layout(next(given))}")
        elif node.op == "get_attr":
            lines.append(f"constant {_describe_layout(operator.attrgetter(str(node.target))(module))}")
        else:
            lines.append(f"{node.target} {map_arg((node.args, node.kwargs), numbers.__getitem__)}")
    return lines


def _describe_layout(x: Tensor) -> str:
    return f"{x.dtype} {tuple(x.shape)} {x.stride()}"


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, delete=False) as temporary:
        temporary.write(text)
    os.replace(temporary.name, file)
