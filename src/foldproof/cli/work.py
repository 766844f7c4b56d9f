"""The part of the commands that needs torch; imported when a command runs, since importing torch is slow."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

import foldproof
from foldproof.cli import interrupts
from foldproof.cli.options import SETTINGS
from foldproof.errors import FoldproofError, brief
from foldproof.log import hushed
from foldproof.onnx_graph import draw_inputs
from foldproof.porting.configurations import prove_each
from foldproof.program.export import export_module
from foldproof.program.flat import as_one_form, is_onnx_file
from foldproof.program.loading import Loaded, check_runs, importable, load_function, load_spec, moved
from foldproof.spec import FUNCTION, holds_outputs
from foldproof.torch_internals import tree_structure, treespec_dumps
from foldproof.verdict import Verdict

if TYPE_CHECKING:
    from foldproof.fusion import Declined

Progress = Callable[[int, int | None, str], None]

T = TypeVar("T")


def load(spec: str, functions: bool = False, settings: Mapping[str, Any] | None = None) -> Loaded:
    """Load the program of ``spec``, onto the device of ``--device``; raises FoldproofError if that fails."""
    device = SETTINGS.get().device
    loaded = load_spec(spec, functions, settings)
    return loaded if device is None else moved(loaded, device)


def fuse(spec: str, progress: Progress, options: Mapping[str, Any]) -> foldproof.FuseResult:
    """Fuse the program of ``spec``.

    Raises:
        FoldproofError: it can't be loaded, run, exported or saved, or is in training mode.
    """
    return _on_model(foldproof.fuse, spec, progress, options, saves=True)


def explain(spec: str, progress: Progress) -> tuple[Declined, ...]:
    """List the operators of ``spec`` that `fuse` can't fold, with reasons; raises like `fuse`."""
    return _on_model(foldproof.explain, spec, progress, {})


def fold_qat(spec: str, progress: Progress, quantize_bias: bool) -> foldproof.FoldQATResult:
    """Fold the chains in the program of ``spec``; raises FoldproofError if it can't be loaded, run or exported."""
    progress(0, None, f"loading {spec}")
    loaded = load(spec)
    program, inputs = loaded.program, loaded.require_inputs()
    with working_on(spec):
        check_runs(loaded, loaded)
        if not isinstance(program, ExportedProgram):
            progress(0, None, "exporting")
            try:
                program = export_module(program, inputs, loaded.kwargs, loaded.dynamic_shapes)
            except Exception as error:
                raise FoldproofError(f"{spec} can't be exported with its inputs: {brief(error)}") from error
        progress(0, None, "folding")
        return foldproof.fold_qat(program, inputs, loaded.kwargs, quantize_bias=quantize_bias)


def _on_model(
    function: Callable[..., T], spec: str, progress: Progress, options: Mapping[str, Any], saves: bool = False
) -> T:
    progress(0, None, f"loading {spec}")
    loaded = load(spec)
    progress(0, None, "exporting")
    with working_on(spec):
        output = check_runs(loaded, loaded)
        if saves:
            _check_saves(output, spec)
        return function(
            loaded.program,
            loaded.require_inputs(),
            loaded.kwargs,
            dynamic_shapes=loaded.dynamic_shapes,
            progress=progress,
            **options,
        )


def _check_saves(output: Any, spec: str) -> None:
    """Refuse an output in containers that no file can hold, before the long work.

    Raises:
        FoldproofError: torch.export.save has no name for a container.
    """
    try:
        treespec_dumps(tree_structure(output))
    except Exception as error:
        kind = type(output).__name__
        raise FoldproofError(
            f"{spec} returns a {kind}, which torch.export.save can't save ({brief(error)}); return tensors in tuples,"
            " lists or dicts"
        ) from error


def prove(
    before: str,
    after: str,
    conversions: tuple[str | None, str | None],
    configurations: Sequence[Mapping[str, Any]],
    seed: int | None,
    progress: Progress,
) -> tuple[Verdict, Callable[[], dict[str, Any]]]:
    """Prove the programs of two SPECs equal, on the inputs of the first; ``conversions`` are a port's, there and back.

    With ``configurations``, the callables of both are called with the settings of each.

    Returns:
        The verdict, and a function that makes the JSON form of the answer (with the programs of the last
        configuration).

    Raises:
        FoldproofError: a program can't be run.
    """
    there, back = (None if spec is None else load_function(spec) for spec in conversions)
    last: tuple[Any, ...] = ()

    def prove_one(settings: Mapping[str, Any]) -> Verdict:
        nonlocal last
        progress(0, None, f"loading {before}")
        a = _load_program(before, settings)
        progress(0, None, f"loading {after}")
        b = _load_program(after, settings)
        given = a if not is_onnx_file(before) else b
        inputs = draw_inputs(Path(before)) if is_onnx_file(given.program) else given.require_inputs()
        last = a.program, b.program, inputs, given.kwargs
        progress(0, None, "comparing")
        with working_on(before, after, *filter(None, conversions)):
            for one in (a, b):
                if not is_onnx_file(one.program):  # these are run when they are read
                    check_runs(one, given)
            return foldproof.prove(*last, convert=there, inverse=back, seed=seed, progress=progress)

    verdict = prove_each(configurations, prove_one) if configurations else prove_one({})

    def document() -> dict[str, Any]:
        from foldproof.proof.document import prove_document

        with working_on(before, after):
            first, second, flat, named = as_one_form(*last)
            return prove_document(verdict, first, second, flat, named or {})

    return verdict, document


def _load_program(spec: str, settings: Mapping[str, Any]) -> Loaded:
    """Load what ``prove`` takes; an ONNX file is read beside the other program."""
    if not is_onnx_file(spec):
        return load(spec, functions=True, settings=settings)
    if settings:
        raise FoldproofError(f"{spec} is a file, which has one configuration; give {FUNCTION}")
    return Loaded(spec, Path(spec), None, {})


def compare(
    spec: str,
    against: str,
    precision: str | None,
    part: tuple[Sequence[str] | None, str | None],
    progress: Progress,
) -> foldproof.CompareResult:
    """Compare the program of ``spec`` with other numbers; raises FoldproofError if either can't be loaded or run.

    ``part`` has the outputs that count, and the input that masks them.
    """
    if holds_outputs(spec):
        return foldproof.compare(spec, against, ())
    progress(0, None, f"loading {spec}")
    loaded = load(spec)
    inputs = loaded.require_inputs()
    with working_on(spec):
        check_runs(loaded, loaded)
        return foldproof.compare(
            loaded.program,
            against,
            inputs,
            loaded.kwargs,
            dynamic_shapes=loaded.dynamic_shapes,
            precision=precision,
            outputs=part[0],
            mask=part[1],
            progress=progress,
        )


def save_program(program: ExportedProgram | GraphModule, path: Path) -> None:
    """Write a ``.pt2`` file; raises OSError, or FoldproofError if the program can't be saved."""
    # Write to memory first: on a full disk, torch's own writer ends the whole process.
    content = io.BytesIO()
    assert isinstance(program, ExportedProgram)  # no SPEC gives a GraphModule
    try:
        torch.export.save(program, content)
    except Exception as error:
        raise FoldproofError(f"torch.export.save can't save the new program ({brief(error)})") from error
    path.write_bytes(content.getbuffer())


def save_report(result: foldproof.CompareResult, title: str, path: Path) -> None:
    """Write a comparison as Markdown; raises OSError."""
    from foldproof.comparison.report import report

    path.write_text(report(result, title), encoding="utf-8")


@contextlib.contextmanager
def working_on(*specs: str) -> Iterator[None]:
    """Hold back torch's output on stderr: dropped after a FoldproofError or Ctrl-C, told in one sentence; else shown.

    Inside, the programs of ``specs`` may import their neighbouring modules.
    """
    held = io.StringIO()
    try:
        with importable(*specs), hushed(), contextlib.redirect_stderr(held):
            yield
        interrupts.require_none()
    except (FoldproofError, KeyboardInterrupt):
        held = io.StringIO()
        raise
    finally:
        sys.stderr.write(held.getvalue())
