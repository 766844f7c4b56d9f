"""The commands: arguments, written files, printed output, and exit status."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from foldproof.cli import many, summary
from foldproof.cli.complaint import complain, without_warnings
from foldproof.cli.output import Output, Written, check_folder
from foldproof.cli.progress import Bar
from foldproof.compiler_catalog import DECLARED
from foldproof.errors import FoldproofError
from foldproof.log import log_caught
from foldproof.verdict import SCHEMA, Kind
from foldproof.version import __version__

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""
INTERNAL = 70
"""Exit status after a bug in foldproof (EX_SOFTWARE); 1 would say REFUTED."""

FORMS = (
    "a [b].pt2[/b] file, or [b]path/file.py:callable[/b] or [b]package.module:callable[/b] that returns"
    " (model, args[, kwargs[, dynamic_shapes]]); loading it runs its code"
)


@dataclass(frozen=True)
class Settings:
    """Options of all commands: PyTorch's number of threads, and if errors show their stack."""

    threads: int | None = None
    traceback: bool = False


SETTINGS = ContextVar("SETTINGS", default=Settings())  # noqa: B039 (it is frozen)

app = typer.Typer(
    help="Fuse PyTorch graphs, prove every rewrite, and tell a rounding difference from a wrong answer.",
    epilog="Exit status: 0 fine, 1 REFUTED, 2 wrong usage or input, 3 UNDECIDED.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Also write the whole result as JSON, with all evidence; [b]-[/b] prints it, and the summary to stderr.",
    ),
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write the whole result as an HTML page.")
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Fix the random draws, for a run that can be repeated.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"foldproof {__version__}\n")
        raise typer.Exit


@app.callback()
def main(
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of threads that PyTorch computes with.")
    ] = None,
    trace: Annotated[
        bool, typer.Option("--traceback", help="Show the stack of an error in the model, besides its sentence.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Fuse PyTorch graphs, prove every rewrite, and tell a rounding difference from a wrong answer."""
    SETTINGS.set(Settings(threads, trace))


@app.command()
def fuse(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help=f"The program to fuse: {FORMS}.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.pt2", help="File for the fused program.")],
    passes: Annotated[
        str | None, typer.Option("--passes", metavar="A,B", help="Apply only these rules, such as batch_norm.")
    ] = None,
    accuracy_limit: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Decline folds that move a result X times as far from the float64 result as before."
        ),
    ] = None,
    json_file: JsonOption = None,
    html_file: HtmlOption = None,
) -> None:
    """Fold all foldable operators, prove each rewrite and the whole program, and save it."""
    options: dict[str, Any] = {} if passes is None else {"passes": passes.split(",")}
    if accuracy_limit is not None:
        options["accuracy_limit"] = accuracy_limit
    raise typer.Exit(_guarded(partial(_fuse, spec, output, Written(json_file, html_file), options)))


@app.command()
def fold_qat(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help=f"The program to fold: {FORMS}.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.pt2", help="File for the folded program.")],
    float_biases: Annotated[
        bool, typer.Option("--float-biases", help="Keep biases in floating point, as XNNPACK requires.")
    ] = False,
    json_file: JsonOption = None,
    html_file: HtmlOption = None,
) -> None:
    """Fold the chains of converted quantization-aware training into quantized biases and weights, and prove it."""
    raise typer.Exit(_guarded(partial(_fold_qat, spec, output, Written(json_file, html_file), not float_biases)))


@app.command()
def explain(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help=f"The program to explain: {FORMS}.", show_default=False)],
    json_file: JsonOption = None,
    html_file: HtmlOption = None,
) -> None:
    """List the normalisations that fuse can't fold, each with the reason and a remedy if there is one."""
    raise typer.Exit(_guarded(partial(_explain, spec, Written(json_file, html_file))))


@app.command()
def prove(
    before: Annotated[str, typer.Argument(metavar="A", help=f"A program: {FORMS}.", show_default=False)],
    after: Annotated[
        str, typer.Argument(metavar="B", help="Another program, run on the inputs of A.", show_default=False)
    ],
    convert: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="The conversion of checkpoints, if B is a port of A: a function from the state dict of A to that of B,"
            " or of B and the state dict of A. The check is then for every checkpoint, and the callables of A and B may"
            " return functions that adapt their models: [b]lambda tokens: model(input_ids=tokens).logits[/b].",
            show_default=False,
        ),
    ] = None,
    seed: SeedOption = None,
    json_file: JsonOption = None,
    html_file: HtmlOption = None,
) -> None:
    """Check two programs for equivalence, and show the evidence."""
    raise typer.Exit(_guarded(partial(_prove, before, after, convert, seed, Written(json_file, html_file))))


@app.command()
def compare(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help=f"The reference: {FORMS}.", show_default=False)],
    against: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="The source of the other numbers: a backend of torch.compile that compiles the reference"
            " ([b]inductor[/b], [b]aot_eager[/b], [b]eager[/b]), another program (a [b].pt2[/b] file, TorchScript in a"
            " [b].pt[/b] file, [b]file.py:callable[/b]), a file of another runtime ([b].pte[/b]: ExecuTorch,"
            " [b].onnx[/b]: ONNX Runtime, [b].xml[/b]: OpenVINO), or saved outputs ([b].pt[/b], [b].npy[/b],"
            " [b].npz[/b]).",
            show_default=False,
        ),
    ],
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A precision that the other side is meant to have: [b]bfloat16[/b], [b]float16[/b], [b]tf32[/b],"
            " [b]int8[/b]; without it, another dtype of an output is wrong, and so is rounding to it.",
            show_default=False,
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print the evidence, too: distances, the noise floor, notes.")
    ] = False,
    json_file: JsonOption = None,
    html_file: HtmlOption = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Also write a shareable page: a bug report, or an explanation."),
    ] = None,
) -> None:
    """Tell a rounding difference from a bug, find the side nearer the float64 result, and locate the difference."""
    raise typer.Exit(
        _guarded(partial(_compare, spec, against, precision, verbose, Written(json_file, html_file), report))
    )


@app.command()
def audit(
    specs: Annotated[
        list[str],
        typer.Argument(metavar="SPEC", help=f"The program to compile, or several: {FORMS}.", show_default=False),
    ],
    compiler: Annotated[
        str,
        typer.Option(
            "--compiler",
            metavar="NAME",
            help=f"{', '.join(DECLARED)}.",
            show_default=False,
        ),
    ],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="A setting of the compiler, such as freezing=True."),
    ] = None,
    disable: Annotated[
        list[str] | None, typer.Option("--disable", metavar="PASS", help="Compile without this pass.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FOLDER", help="Write a program that reproduces the fault, and a report."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write the result of each SPEC as JSON to this folder as it comes, and print one line for each. A"
            " result that is there is not computed again.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("-j", "--jobs", metavar="N", min=1, help="Audits at a time, each in a process of its own.")
    ] = 1,
    json_file: JsonOption = None,
    html_file: HtmlOption = None,
) -> None:
    """Run a compiler, validate every graph pass, and name the pass that changes the meaning."""
    written = Written(json_file, html_file)
    if results is not None or len(specs) > 1:
        one_only = save is not None or bool(written.files)
        asked = partial(_audit_many, specs, compiler, option or [], disable or [], results, jobs, one_only)
        raise typer.Exit(_guarded(asked))
    raise typer.Exit(_guarded(partial(_audit, specs[0], compiler, option or [], disable or [], save, written)))


@app.command()
def report(
    result: Annotated[
        Path, typer.Argument(metavar="FILE.json", help="A result written with --json.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="File to write; by default an .html file beside the result."
        ),
    ] = None,
) -> None:
    """Write a result as an HTML page (.html), JUnit XML (.xml) or SARIF (.sarif)."""
    raise typer.Exit(_guarded(partial(_report, result, output)))


@app.command()
def explore(
    result: Annotated[
        Path, typer.Argument(metavar="FILE.json", help="A result written with --json.", show_default=False)
    ],
) -> None:
    """Open the graphs of a result in Model Explorer, with verdicts, bounds and errors as layers."""
    raise typer.Exit(_guarded(partial(_explore, result)))


@app.command()
def doctor(json_file: JsonOption = None) -> None:
    """Show the installed versions and the features available with them."""
    raise typer.Exit(_guarded(partial(_doctor, json_file)))


@app.command()
def replay(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder written by audit --save.", show_default=False)
    ],
) -> None:
    """Run a saved reproduction on the installed versions, and report if the fault is fixed."""
    raise typer.Exit(_guarded(partial(_replay, folder)))


def run(argv: Sequence[str] | None = None) -> int:
    """Parse ``argv`` (``sys.argv[1:]`` by default), run the command and return its exit status."""
    try:
        app(args=None if argv is None else list(argv), prog_name="foldproof")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _fuse(spec: str, output: Path, written: Written, options: Mapping[str, Any]) -> int:
    def fused(progress: Bar) -> Any:
        from foldproof.cli import work

        return work.fuse(spec, progress, options)

    return _made(fused, summary.print_fuse, spec, output, written)


def _fold_qat(spec: str, output: Path, written: Written, quantize_bias: bool) -> int:
    def folded(progress: Bar) -> Any:
        from foldproof.cli import work

        return work.fold_qat(spec, progress, quantize_bias)

    return _made(folded, summary.print_fold_qat, spec, output, written)


def _made(
    make: Callable[[Bar], Any], told: Callable[[Any, Any], None], spec: str, output: Path, written: Written
) -> int:
    """Make a program, save it with its result, and print the result with ``told``."""
    if output.suffix != ".pt2":
        raise FoldproofError(f"{output} must end in .pt2, the suffix of exported programs")
    program_out = Output(output)
    written.check(output)

    started = time.perf_counter()
    with Bar() as progress:
        from foldproof.cli import work

        result = make(progress)
        progress(0, None, f"saving {output}")
        saved = result.verdict.kind is not Kind.REFUTED
        if saved:
            program_out.write(partial(work.save_program, result.program))
        written.write(result.to_dict() | {"subject": spec})

    console = summary.console(written.printed)
    told(console, result)
    summary.print_ending(console, output if saved else None, written.files, time.perf_counter() - started)
    status: int = result.verdict.kind.exit_code
    return status


def _explain(spec: str, written: Written) -> int:
    written.check()

    with Bar() as progress:
        from foldproof.cli import work

        declined = work.explain(spec, progress)
        told = {"schema": SCHEMA, "command": "explain", "declined": [asdict(one) for one in declined]}
        written.write(told | {"subject": spec})

    out = summary.console(written.printed)
    summary.print_explanations(out, declined)
    summary.print_written(out, written.files)
    return 0


def _prove(before: str, after: str, convert: str | None, seed: int | None, written: Written) -> int:
    written.check()

    with Bar() as progress:
        from foldproof.cli import work

        verdict, document = work.prove(before, after, convert, seed, progress)
        if written.wanted:
            written.write(document() | {"subject": before, "other": after})

    out = summary.console(written.printed)
    summary.print_verdict(out, verdict)
    summary.print_written(out, written.files)
    return verdict.kind.exit_code


def _compare(
    spec: str, against: str, precision: str | None, verbose: bool, written: Written, report: Path | None
) -> int:
    written.check(report)
    report_out = Output(report) if report is not None else None

    with Bar() as progress:
        from foldproof.cli import work

        result = work.compare(spec, against, precision, progress)
        written.write(result.to_dict() | {"subject": spec})
        if report_out:
            report_out.write(partial(work.save_report, result, spec))

    out = summary.console(written.printed)
    summary.print_comparison(out, result, verbose)
    summary.print_written(out, [*written.files, *([report] if report else [])])
    return result.verdict.kind.exit_code


def _audit(
    spec: str,
    compiler: str,
    options: Sequence[str],
    disable: Sequence[str],
    folder: Path | None,
    written: Written,
) -> int:
    written.check()
    if folder is not None:
        check_folder(folder)
    saving = None
    reproduced = folder is not None and (folder / "repro.py").is_file()

    with Bar() as progress:
        from foldproof.cli import audits

        found = audits.audit(spec, compiler, options, disable, progress)
        if folder is not None:
            progress(0, None, "reducing the model")
            start = time.perf_counter()
            found.save(folder)
            saving = time.perf_counter() - start
        if written.wanted:
            written.write(audits.document(found, folder) | {"subject": spec})

    console = summary.console(written.printed)
    audits.print_audit(console, found, saving)
    if folder is not None and not found.refuted:
        gone = " (the reproduction that was there is gone)" if reproduced else ""
        console.print(f"no pass is refuted: wrote only the verdict to {folder}{gone}", soft_wrap=True)
        folder = None
    summary.print_written(console, [*([folder] if folder else []), *written.files])
    return found.kind.exit_code


def _audit_many(
    specs: Sequence[str],
    compiler: str,
    options: Sequence[str],
    disable: Sequence[str],
    folder: Path | None,
    jobs: int,
    one_only: bool,
) -> int:
    if folder is None:
        raise FoldproofError("several SPECs take --results FOLDER, where the result of each is kept")
    if one_only:
        raise FoldproofError(
            "--save, --json and --html take one SPEC without --results, whose folder has the JSON of each"
        )
    questions = [many.Question(spec, compiler, tuple(options), tuple(disable)) for spec in dict.fromkeys(specs)]
    with Bar() as progress:
        answers = many.audit_all(questions, folder, jobs, progress)
    lines = [(f"{question.spec}: {answer.told}", answer.kind) for question, answer in answers]
    summary.print_answers(summary.console(), lines, folder)
    return many.worst([answer for _, answer in answers])


def _report(result: Path, output: Path | None) -> int:
    from foldproof.report import FORMS as forms
    from foldproof.report import load

    output = output or result.with_suffix(".html")
    if output.suffix not in forms:
        raise FoldproofError(f"{output} must end in {', '.join(forms)}; the suffix chooses the format")
    if os.path.realpath(output) == os.path.realpath(result):
        raise FoldproofError(f"{output} is the result itself; give another file")
    out = Output(output)
    text = forms[output.suffix](load(result))
    out.write(lambda path: path.write_text(text, encoding="utf-8"))
    summary.print_written(summary.console(), [output])
    return 0


def _explore(result: Path) -> int:
    from foldproof.report import load
    from foldproof.report.explorer import explore as opened

    opened(load(result))
    return 0


def _doctor(json_file: Path | None) -> int:
    written = Written(json_file, None)
    written.check()
    from foldproof.cli import doctor as examination

    found = examination.examine()
    written.write(found)
    console = summary.console(written.printed)
    examination.print_examination(console, found)
    summary.print_written(console, written.files)
    return 0


def _replay(folder: Path) -> int:
    from foldproof.cli import audits

    kind, told = audits.replay(folder)
    summary.console().print(told, soft_wrap=True)
    return kind.exit_code


def _guarded(command: Callable[[], int]) -> int:
    """Run ``command`` and return its exit status. Errors become a sentence; bugs of foldproof keep their traceback."""
    settings = SETTINGS.get()
    try:
        if settings.threads is not None:
            import torch

            torch.set_num_threads(settings.threads)
        with without_warnings():
            return command()
    except FoldproofError as error:
        log_caught(error, "running a command")  # the sentence omits the cause
        if settings.traceback:
            traceback.print_exception(error.__cause__ or error)
        return complain(error)
    except KeyboardInterrupt:
        sys.stderr.write("foldproof: interrupted\n")
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        sys.stderr.write("foldproof: this is a bug in foldproof, please report it with the lines above\n")
        return INTERNAL
