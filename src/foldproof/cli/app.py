"""The commands and their arguments.

The work is done in `foldproof.cli.commands`, which is imported when a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from foldproof.cli import interrupts
from foldproof.cli.complaint import complain, tell_unwritten, without_warnings
from foldproof.cli.configuration import read_settings
from foldproof.cli.options import SETTINGS, SHARED, Settings, with_options
from foldproof.cli.output import Written
from foldproof.cli.setup import Setup
from foldproof.compiler_catalog import DECLARED
from foldproof.errors import FoldproofError
from foldproof.executors import Executors
from foldproof.log import log_caught
from foldproof.version import __version__

INTERNAL = 70
"""Exit status after a bug in foldproof (EX_SOFTWARE); 1 would say REFUTED."""

FORMS = (
    "a .pt2 file, or path/file.py:callable or package.module:callable that returns"
    " (model, args[, kwargs[, dynamic_shapes]]); loading it runs its code"
)


app = typer.Typer(
    help="Fuse PyTorch graphs, prove every rewrite, and tell a rounding difference from a wrong answer.",
    epilog="Exit status: 0 fine, 1 REFUTED, 2 wrong usage or input, 3 UNDECIDED.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes as long to import as all the rest
)

JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Also write the whole result as JSON, with all evidence; - prints it, and the summary to stderr.",
    ),
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write the whole result as an HTML page.")
]
ExecutorOption = Annotated[
    Executors,
    typer.Option(
        "--executor",
        metavar="processes|ray",
        help="Where processes run: on this machine, or on those of a Ray cluster, which see the same files.",
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Fix the random draws, for a run that can be repeated.")
]


def _compilers(incomplete: str) -> list[str]:
    return [name for name in DECLARED if name.startswith(incomplete)]


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"foldproof {__version__}\n")
        raise typer.Exit


@app.callback()
@with_options
def main(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Fuse PyTorch graphs, prove every rewrite, and tell a rounding difference from a wrong answer."""


@app.command()
@with_options
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
    """Fold operators, prove each rewrite, and save the program.

    The whole program is proved, too.
    """
    from foldproof.cli import commands

    options: dict[str, Any] = {} if passes is None else {"passes": passes.split(",")}
    if accuracy_limit is not None:
        options["accuracy_limit"] = accuracy_limit
    _end(partial(commands.fuse, spec, output, Written(json_file, html_file), options))


@app.command()
@with_options
def fold_qat(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help=f"The program to fold: {FORMS}.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.pt2", help="File for the folded program.")],
    float_biases: Annotated[
        bool, typer.Option("--float-biases", help="Keep biases in floating point, as XNNPACK requires.")
    ] = False,
    json_file: JsonOption = None,
    html_file: HtmlOption = None,
) -> None:
    """Fold the chains of quantization-aware training, and prove it.

    They go into the quantized biases and weights of the converted program.
    """
    from foldproof.cli import commands

    _end(partial(commands.fold_qat, spec, output, Written(json_file, html_file), not float_biases))


@app.command()
@with_options
def explain(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help=f"The program to explain: {FORMS}.", show_default=False)],
    json_file: JsonOption = None,
    html_file: HtmlOption = None,
) -> None:
    """List what fuse can't fold, with reasons and remedies."""
    from foldproof.cli import commands

    _end(partial(commands.explain, spec, Written(json_file, html_file)))


@app.command()
@with_options
def prove(
    before: Annotated[
        str, typer.Argument(metavar="A", help=f"A program: {FORMS}; or an .onnx file.", show_default=False)
    ],
    after: Annotated[
        str,
        typer.Argument(
            metavar="B",
            help="Another program, run on the inputs of A; or an .onnx file, whose inputs and outputs are"
            " the tensors of A's, by name or in order. Of two such files, the inputs are drawn at random.",
            show_default=False,
        ),
    ],
    convert: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="The conversion of checkpoints, if B is a port of A: a function from the state dict of A to that of B,"
            " or of B and the state dict of A. The check is then for every checkpoint, and the callables of A and B may"
            " return functions that adapt their models: lambda tokens: model(input_ids=tokens).logits.",
            show_default=False,
        ),
    ] = None,
    inverse: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="The conversion back, from the state dict of B to that of A: the round trip of every checkpoint is"
            " checked, too.",
            show_default=False,
        ),
    ] = None,
    configuration: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE,...",
            help="Arguments of the callables of A and B, such as heads=4,groups=2. Give the option several times"
            " for one verdict on several configurations: mistakes hide where two sizes coincide.",
            show_default=False,
        ),
    ] = None,
    seed: SeedOption = None,
    json_file: JsonOption = None,
    html_file: HtmlOption = None,
) -> None:
    """Check two programs for equivalence, and show the evidence."""
    from foldproof.cli import commands

    written = Written(json_file, html_file)
    _end(partial(commands.prove, before, after, (convert, inverse), configuration or (), seed, written))


@app.command()
@with_options
def compare(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="SPEC",
            help=f"The reference: {FORMS}; or saved outputs (.pt, .npy, .npz) to compare with saved outputs.",
            show_default=False,
        ),
    ],
    against: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="The source of the other numbers: a backend of torch.compile that compiles the reference"
            " (inductor, aot_eager, eager), another program (a .pt2 file, TorchScript in a"
            " .pt file, file.py:callable), a file of another runtime (.pte: ExecuTorch,"
            " .onnx: ONNX Runtime, .xml: OpenVINO), or saved outputs (.pt, .npy,"
            " .npz).",
            show_default=False,
        ),
    ],
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A precision that the other side is meant to have: bfloat16, float16, tf32,"
            " int8; without it, another dtype of an output is wrong, and so is rounding to it.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="NAME", help="Compare only this output: its key, or its number; repeatable."),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="INPUT",
            help="Compare only positions at which this input is not 0, such as attention_mask.",
            show_default=False,
        ),
    ] = None,
    json_file: JsonOption = None,
    html_file: HtmlOption = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Also write a shareable page: a bug report, or an explanation."),
    ] = None,
) -> None:
    """Tell rounding from a bug, and locate the difference.

    The side that is nearer the float64 result is named, too.
    """
    from foldproof.cli import commands

    _end(partial(commands.compare, spec, against, precision, (output, mask), Written(json_file, html_file), report))


COMPILER = typer.Option(
    "--compiler",
    metavar="NAME",
    help=f"{', '.join(DECLARED)}.",
    show_default=False,
    autocompletion=_compilers,
)


@app.command()
@with_options
def audit(
    specs: Annotated[
        list[str],
        typer.Argument(metavar="SPEC", help=f"The program to compile, or several: {FORMS}.", show_default=False),
    ],
    compiler: Annotated[str, COMPILER],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="A setting of the compiler, such as freezing=True."),
    ] = None,
    disable: Annotated[
        list[str] | None, typer.Option("--disable", metavar="PASS", help="Compile without this pass.")
    ] = None,
    training: Annotated[
        bool,
        typer.Option("--training", help="Compile with gradients, and audit the backward, too (inductor)."),
    ] = False,
    optimizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="With --training: audit the compiled step of an optimizer, too. The function takes the list of"
            " parameters and returns their optimizer, as torch.optim:AdamW does.",
        ),
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
    executor: ExecutorOption = Executors.processes,
    json_file: JsonOption = None,
    html_file: HtmlOption = None,
) -> None:
    """Run a compiler, and name the pass that changes the meaning.

    Every graph pass is validated.
    """
    from foldproof.cli import commands

    written = Written(json_file, html_file)
    setup = Setup(compiler, tuple(option or ()), tuple(disable or ()), training, optimizer)
    if results is not None or len(specs) > 1:
        one_only = save is not None or written.wanted
        _end(partial(commands.audit_many, specs, setup, results, jobs, executor, one_only))
    _end(partial(commands.audit, specs[0], setup, save, written))


@app.command()
@with_options
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
    """Write a result as a page, JUnit XML or SARIF.

    The suffix of the file decides: .html, .xml or .sarif.
    """
    from foldproof.cli import commands

    _end(partial(commands.report, result, output))


@app.command()
@with_options
def explore(
    result: Annotated[
        Path, typer.Argument(metavar="FILE.json", help="A result written with --json.", show_default=False)
    ],
    port: Annotated[
        int, typer.Option(metavar="N", min=1, max=65535, help="Listen on this port, or the next free one.")
    ] = 8080,
    no_open: Annotated[bool, typer.Option("--no-open", help="Start the server, and open no browser.")] = False,
) -> None:
    """Open the graphs of a result in Model Explorer.

    Verdicts, bounds and errors are layers.
    """
    from foldproof.cli import commands

    _end(partial(commands.explore, result, port, not no_open))


@app.command()
@with_options
def doctor(json_file: JsonOption = None) -> None:
    """Show the installed versions, and what works with them."""
    from foldproof.cli import commands

    _end(partial(commands.doctor, json_file))


@app.command()
@with_options
def replay(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder written by audit --save.", show_default=False)
    ],
) -> None:
    """Run a saved reproduction on the installed versions.

    It tells if the fault is fixed.
    """
    from foldproof.cli import commands

    _end(partial(commands.replay, folder))


hunting = typer.Typer(rich_markup_mode=None, no_args_is_help=True, invoke_without_command=True)
app.add_typer(hunting, name="hunt")

CorpusOption = Annotated[
    Path, typer.Option("--corpus", metavar="DIR", help="The folder of the corpus.", show_default=False)
]


@hunting.callback()
@with_options
def hunt(
    context: typer.Context,
    compiler: Annotated[str | None, COMPILER] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep programs and faults in this folder, and go on from there."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="A setting of the compiler, such as freezing=True."),
    ] = None,
    training: Annotated[
        bool, typer.Option("--training", help="Compile with gradients, and audit the backward, too (inductor).")
    ] = False,
    programs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop after this many programs.", show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="N", min=0, help="Begin no program later.", show_default=False)
    ] = None,
    jobs: Annotated[
        int, typer.Option("-j", "--jobs", metavar="N", min=1, help="Programs at a time, in processes of their own.")
    ] = 1,
    executor: ExecutorOption = Executors.processes,
) -> None:
    """Look for wrong answers of a compiler in random programs.

    Each is audited, and those that show a fault are kept.
    """
    if context.invoked_subcommand is not None:
        return
    from foldproof.cli import hunts

    if compiler is None or corpus is None:
        raise typer.BadParameter("hunt takes --compiler NAME and --corpus DIR")
    _end(partial(hunts.hunt, compiler, option or (), training, (programs, minutes), jobs, executor, corpus))


@hunting.command("status")
@with_options
def hunt_status(corpus: CorpusOption) -> None:
    """Print the number of programs by outcome, and the faults."""
    from foldproof.cli import hunts

    _end(partial(hunts.status, corpus))


@hunting.command("report")
@with_options
def hunt_report(
    corpus: CorpusOption,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.md", help="File to write.")],
) -> None:
    """Write the faults, and all that was covered, in Markdown.

    Each fault is shown by its smallest program.
    """
    from foldproof.cli import hunts

    _end(partial(hunts.report, corpus, output))


@hunting.command("replay")
@with_options
def hunt_replay(
    corpus: CorpusOption,
    fault: Annotated[int | None, typer.Argument(metavar="FAULT", help="Its number; by default, all.")] = None,
) -> None:
    """Run the program of a fault with the installed compiler.

    foldproof's judgement is not needed for that.
    """
    from foldproof.cli import hunts

    _end(partial(hunts.replay, corpus, fault))


def run(argv: Sequence[str] | None = None) -> int:
    """Parse ``argv`` (``sys.argv[1:]`` by default), run the command and return its exit status."""
    SETTINGS.set(Settings())
    try:
        settings = read_settings(Path.cwd(), _options)
        app(args=None if argv is None else list(argv), prog_name="foldproof", default_map=settings)
    except FoldproofError as error:
        return complain(error)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _options() -> dict[str, dict[str, str]]:
    """The options that ``pyproject.toml`` may set, by command."""
    command = typer.main.get_command(app)
    found = {name: _long_names(one.params) for name, one in command.commands.items()}  # type: ignore[attr-defined]
    return found | {"": {name: one for name, one in _long_names(command.params).items() if one in SHARED}}


def _long_names(parameters: Sequence[Any]) -> dict[str, str]:
    options = [one for one in parameters if one.param_type_name == "option" and one.name != "version"]
    return {max(one.opts, key=len).removeprefix("--"): str(one.name) for one in options}


def _end(command: Callable[[], int]) -> NoReturn:
    raise typer.Exit(_guarded(command))


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
        interrupts.require_none()
        log_caught(error, "running a command")  # the sentence omits the cause
        if settings.traceback:
            traceback.print_exception(error.__cause__ or error)
        return complain(error)
    except OSError as error:
        return tell_unwritten(error)
    except Exception:
        interrupts.require_none()
        traceback.print_exc()
        sys.stderr.write("foldproof: this is a bug in foldproof, please report it with the lines above\n")
        return INTERNAL
