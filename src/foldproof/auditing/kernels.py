"""Generated kernels, each compared with the loops that it was generated from, on the values that it is given.

Below the loops, Inductor writes kernels as text: it cuts nests into tiles and vectors, and chooses registers and the
starts of reductions. No proof covers that. So the tensors of each kernel are recorded during one call of the compiled
code, and the recorded loops run beside it. After its last loop, each buffer has the kernel's numbers again, so that a
difference is that of one kernel, and not of an earlier one.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx

from foldproof.auditing.explained import explains, measure, run_rounding
from foldproof.auditing.loops import BUFFERS, LABEL, Loop
from foldproof.graph.interpreter import Interpreter
from foldproof.log import log_caught
from foldproof.torch_internals import disable_current_modes
from foldproof.verdict import plain


class Generated:
    """The module that Inductor generated from recorded ``loops``; its ``call`` shows what it is given."""

    def __init__(self, loops: fx.GraphModule, module: Any) -> None:
        self.loops, self.module = loops, module
        self._call = module.call
        self.watch: Callable[[Sequence[Any]], None] | None = None
        module.call = self.call

    def call(self, args: list[Any]) -> Any:
        """Run the module; it takes its arguments out of the list."""
        if self.watch is not None:
            self.watch(args)
        return self._call(args)


@dataclass(frozen=True)
class WrongKernel:
    """A kernel that computes other numbers than its loop: by ``difference``, of numbers up to ``size``."""

    kernel: str
    loop: Loop
    difference: float
    size: float
    code: str
    """Its text, in C++."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.kernel,
            "buffer": self.loop.buffer,
            "origins": list(self.loop.origins),
            "source": self.loop.source,
            "loop": self.loop.lines,
            "difference": plain(self.difference),
            "size": self.size,
            "code": self.code,
        }

    def __str__(self) -> str:
        at = f" at {self.loop.source}" if self.loop.source else ""
        made = f"{self.loop.buffer} (from {', '.join(self.loop.origins)})" if self.loop.origins else self.loop.buffer
        return (
            f"the kernel {self.kernel} computes {made}{at} otherwise than its loop does with the same values: by"
            f" {self.difference:.3g}, of numbers up to {self.size:.3g}"
        )


def find_wrong_kernel(generated: Sequence[Generated], call: Callable[[], Any]) -> WrongKernel | None:
    """Call the compiled code once, and return the first kernel that computes other numbers than its loops."""
    with contextlib.ExitStack() as stack:
        runs = [(one, stack.enter_context(_recording(one))) for one in generated]
        call()
    for one, run in runs:
        if not run.is_complete:
            continue
        try:
            found = _compare(one, run)
        except Exception as error:
            log_caught(error, "running the loops beside the kernels")
            continue
        if found is not None:
            return found
    return None


@dataclass
class _Run:
    """One call of a generated module.

    ``given`` are its inputs, and ``left`` the kernel that had a buffer last, with the buffer as that kernel left it.
    """

    text: _Text
    given: dict[str, Any]
    left: dict[str, tuple[str, Tensor]]
    is_complete: bool = True
    """False if a kernel was called that the text does not call there."""


@contextlib.contextmanager
def _recording(generated: Generated) -> Iterator[_Run]:
    """Record the next call of a module, and of each of its kernels."""
    run = _Run(_Text.read(Path(generated.module.__file__)), {}, {})
    upcoming = iter(run.text.calls)

    def watch(args: Sequence[Any]) -> None:
        run.given |= {n: x.clone() if isinstance(x, Tensor) else x for n, x in zip(run.text.inputs, args)}

    def watched(kernel: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            result = original(*args)
            expected, names = next(upcoming, ("", ()))
            if kernel == expected:
                run.left |= {n: (kernel, x.clone()) for n, x in zip(names, args) if n and isinstance(x, Tensor)}
            else:
                run.is_complete = False
            return result

        return call

    kernels = {name: watched(name, vars(generated.module)[name]) for name in run.text.kernels}
    generated.watch = watch
    try:
        with mock.patch.dict(vars(generated.module), kernels):
            yield run
    finally:
        generated.watch = None


@dataclass(frozen=True)
class _Text:
    """A generated module, read: the texts of its kernels, its inputs, and the calls of kernels with their buffers."""

    kernels: dict[str, str]
    inputs: tuple[str, ...]
    calls: tuple[tuple[str, tuple[str, ...]], ...]

    @staticmethod
    def read(file: Path) -> _Text:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        kernels = {}
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("async_compile."):
                texts = [
                    x.value for x in ast.walk(node.value) if isinstance(x, ast.Constant) and isinstance(x.value, str)
                ]
                kernels[ast.unparse(node.targets[0])] = max(texts, key=len)
        body = next(x for x in ast.walk(tree) if isinstance(x, ast.FunctionDef) and x.name == "call")
        inputs: tuple[str, ...] = ()
        calls = []
        for statement in body.body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.value) == "args":
                (target,) = statement.targets
                inputs = tuple(map(ast.unparse, target.elts if isinstance(target, ast.Tuple) else [target]))
            call = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in kernels:
                names = tuple(x.id if isinstance(x, ast.Name) else "" for x in call.args)
                calls.append((call.func.id, names))
        return _Text(kernels, inputs, tuple(calls))


def _compare(generated: Generated, run: _Run) -> WrongKernel | None:
    """Run the loops with the numbers of the kernels, and return the first difference that rounding does not explain."""
    expected = _run_beside(generated, run)
    if all(explains(x, run.left[name][1], []) for name, (_, x) in expected.items()):
        return None
    moved = list(run_rounding(lambda: _run_beside(generated, run)))
    for name, (loop, x) in expected.items():
        kernel, actual = run.left[name]
        if not explains(x, actual, [one[name][1] for one in moved]):
            return WrongKernel(kernel, loop, *measure(x, actual), run.text.kernels[kernel])
    return None


def _run_beside(generated: Generated, run: _Run) -> dict[str, tuple[Loop, Tensor]]:
    """Run the loops, and return each buffer after its last loop; later loops take the kernel's numbers."""
    graph = generated.loops.graph
    last = {name: node for node in graph.nodes for name in node.meta.get(BUFFERS, ())}
    found: dict[str, tuple[Loop, Tensor]] = {}

    def change(node: fx.Node, out: Any, again: Any) -> Any:
        for name in node.meta.get(BUFFERS, ()):
            if last[name] is node and name in run.left and isinstance(out, Tensor):
                with disable_current_modes():
                    actual = run.left[name][1]
                    out = out.clone()
                    expected = out.view(-1).as_strided(actual.shape, actual.stride())
                    if LABEL in node.meta:
                        found[name] = node.meta[LABEL], expected.to(torch.float64, copy=True)
                    expected.copy_(actual)
        return out

    with torch.no_grad():
        given = [run.given[str(node.target)] for node in graph.nodes if node.op == "placeholder"]
        Interpreter(generated.loops, change=change).run(*given)
    return found
