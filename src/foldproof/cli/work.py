"""What the commands do with torch; imported when a command runs, for torch takes its time."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

import foldproof
from foldproof.errors import FoldproofError, brief
from foldproof.fusion import Declined
from foldproof.log import hushed
from foldproof.program.loading import check_runs, importable, load_spec
from foldproof.verdict import Verdict

Progress = Callable[[int, int | None, str], None]

T = TypeVar("T")


def fuse(spec: str, progress: Progress, options: Mapping[str, Any]) -> foldproof.FuseResult:
    """Fuses what ``spec`` names; raises FoldproofError where it can't be loaded, run or exported."""
    return _on_model(foldproof.fuse, spec, progress, options)


def explain(spec: str, progress: Progress) -> tuple[Declined, ...]:
    """What `fuse` would leave of what ``spec`` names, and why; raises as `fuse`."""
    return _on_model(foldproof.explain, spec, progress, {})


def fold_qat(spec: str, progress: Progress, quantize_bias: bool) -> foldproof.FoldQATResult:
    """Folds the chains of what ``spec`` names; raises FoldproofError where it can't be loaded, run or exported."""
    progress(0, None, f"loading {spec}")
    loaded = load_spec(spec)
    program, inputs = loaded.program, loaded.require_inputs()
    with working_on(spec):
        check_runs(loaded, loaded)
        if not isinstance(program, ExportedProgram):
            progress(0, None, "exporting")
            try:
                program = torch.export.export(program, inputs, loaded.kwargs, dynamic_shapes=loaded.dynamic_shapes)
            except Exception as error:
                raise FoldproofError(f"{spec} can't be exported with its inputs: {brief(error)}") from error
        progress(0, None, "folding")
        return foldproof.fold_qat(program, inputs, loaded.kwargs, quantize_bias=quantize_bias)


def _on_model(function: Callable[..., T], spec: str, progress: Progress, options: Mapping[str, Any]) -> T:
    progress(0, None, f"loading {spec}")
    loaded = load_spec(spec)
    progress(0, None, "exporting")
    with working_on(spec):
        check_runs(loaded, loaded)
        return function(
            loaded.program,
            loaded.require_inputs(),
            loaded.kwargs,
            dynamic_shapes=loaded.dynamic_shapes,
            progress=progress,
            **options,
        )


def prove(before: str, after: str, progress: Progress) -> tuple[Verdict, Callable[[], dict[str, Any]]]:
    """Compares what the two SPECs name, on the inputs of the first, and tells how to make the JSON form of the answer.

    Raises FoldproofError where one can't be run.
    """
    progress(0, None, f"loading {before}")
    a = load_spec(before)
    inputs = a.require_inputs()
    progress(0, None, f"loading {after}")
    b = load_spec(after)
    progress(0, None, "comparing")
    with working_on(before, after):
        check_runs(a, a)
        check_runs(b, a)
        verdict = foldproof.prove(a.program, b.program, inputs, a.kwargs, progress=progress)

    def document() -> dict[str, Any]:
        from foldproof.proof.document import prove_document

        with working_on(before, after):
            return prove_document(verdict, a.program, b.program, inputs, a.kwargs or {})

    return verdict, document


def compare(spec: str, against: str, progress: Progress) -> foldproof.CompareResult:
    """Compares what ``spec`` names with other numbers; raises FoldproofError where either can't be loaded or run."""
    progress(0, None, f"loading {spec}")
    loaded = load_spec(spec)
    inputs = loaded.require_inputs()
    with working_on(spec):
        check_runs(loaded, loaded)
        return foldproof.compare(
            loaded.program,
            against,
            inputs,
            loaded.kwargs,
            dynamic_shapes=loaded.dynamic_shapes,
            progress=progress,
        )


def save_program(program: ExportedProgram | GraphModule, path: Path) -> None:
    """Writes a ``.pt2`` file; raises OSError, or FoldproofError where the program has no file form."""
    # By way of memory: where a disk is full, torch's own writer ends the whole process.
    content = io.BytesIO()
    assert isinstance(program, ExportedProgram)  # no SPEC gives a GraphModule
    try:
        torch.export.save(program, content)
    except Exception as error:
        raise FoldproofError(f"torch.export.save can't save the new program ({brief(error)})") from error
    path.write_bytes(content.getbuffer())


def save_report(result: foldproof.CompareResult, title: str, path: Path) -> None:
    """Writes a comparison as Markdown; raises OSError."""
    from foldproof.comparison.report import report

    path.write_text(report(result, title), encoding="utf-8")


@contextlib.contextmanager
def working_on(*specs: str) -> Iterator[None]:
    """Drops what torch prints and logs about a failure that our one sentence tells; anything else is shown after.

    What ``specs`` name may import its neighbours now, too.
    """
    held = io.StringIO()
    try:
        with importable(*specs), hushed(), contextlib.redirect_stderr(held):
            yield
    except FoldproofError:
        held = io.StringIO()
        raise
    finally:
        sys.stderr.write(held.getvalue())
