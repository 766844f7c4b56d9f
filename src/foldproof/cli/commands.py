"""The work of each command: written files, printed output, and exit status."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from foldproof.cli import interrupts, summary
from foldproof.cli.options import SETTINGS
from foldproof.cli.output import Output, Written, check_folder
from foldproof.cli.progress import Bar
from foldproof.cli.setup import Setup
from foldproof.cli.text import console, say
from foldproof.compiler_catalog import check_compiler
from foldproof.errors import FoldproofError
from foldproof.executors import Executors, find_executor
from foldproof.spec import (
    check_file,
    check_function,
    check_other,
    check_program,
    check_spec,
    holds_outputs,
    read_settings,
)
from foldproof.verdict import SCHEMA, Kind


def fuse(spec: str, output: Path, written: Written, options: Mapping[str, Any]) -> int:
    def fused(progress: Bar) -> Any:
        from foldproof.cli import work

        return work.fuse(spec, progress, options)

    return _made(fused, summary.print_fuse, spec, output, written)


def fold_qat(spec: str, output: Path, written: Written, quantize_bias: bool) -> int:
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
    check_spec(spec)

    started = time.perf_counter()
    with Bar() as progress:
        from foldproof.cli import work

        result = make(progress)
        progress(0, None, f"saving {output}")
        saved = result.verdict.kind is not Kind.REFUTED
        if saved:
            program_out.write(partial(work.save_program, result.program))
        written.write(result.to_dict() | {"subject": spec})

    out = console(written.printed)
    told(out, result)
    summary.print_ending(out, output if saved else None, written.files, time.perf_counter() - started)
    status: int = result.verdict.kind.exit_code
    return status


def explain(spec: str, written: Written) -> int:
    written.check()
    check_spec(spec)

    with Bar() as progress:
        from foldproof.cli import work

        declined = work.explain(spec, progress)
        told = {"schema": SCHEMA, "command": "explain", "declined": [asdict(one) for one in declined]}
        written.write(told | {"subject": spec})

    out = console(written.printed)
    summary.print_explanations(out, declined)
    summary.print_written(out, written.files)
    return 0


def prove(
    before: str,
    after: str,
    conversions: tuple[str | None, str | None],
    configurations: Sequence[str],
    seed: int | None,
    written: Written,
) -> int:
    written.check()
    settings = [read_settings(text) for text in configurations]
    check_program(before)
    check_program(after)
    for conversion in conversions:
        if conversion is not None:
            check_function(conversion)

    with Bar() as progress:
        from foldproof.cli import work

        verdict, document = work.prove(before, after, conversions, settings, seed, progress)
        if written.wanted:
            written.write(document() | {"subject": before, "other": after})

    out = console(written.printed)
    summary.print_verdict(out, verdict)
    summary.print_written(out, written.files)
    return verdict.kind.exit_code


def compare(
    spec: str,
    against: str,
    precision: str | None,
    part: tuple[Sequence[str] | None, str | None],
    written: Written,
    report: Path | None,
) -> int:
    written.check(report)
    report_out = Output(report) if report is not None else None
    check_file(spec) if holds_outputs(spec) else check_spec(spec)
    check_other(against)

    with Bar() as progress:
        from foldproof.cli import work

        result = work.compare(spec, against, precision, part, progress)
        written.write(result.to_dict() | {"subject": spec})
        if report_out:
            report_out.write(partial(work.save_report, result, spec))

    out = console(written.printed)
    summary.print_comparison(out, result)
    summary.print_written(out, [*written.files, *([report] if report else [])])
    return result.verdict.kind.exit_code


def audit(
    spec: str,
    setup: Setup,
    folder: Path | None,
    written: Written,
) -> int:
    written.check()
    check_compiler(setup.compiler)
    check_spec(spec)
    if folder is not None:
        check_folder(folder)
    saving = None
    reproduced = folder is not None and (folder / "repro.py").is_file()

    with Bar() as progress:
        from foldproof.cli import audits

        found = audits.audit(spec, setup, progress)
        if folder is not None:
            progress(0, None, "reducing the model")
            start = time.perf_counter()
            interrupts.require_none()
            found.save(folder)
            saving = time.perf_counter() - start
        if written.wanted:
            written.write(audits.document(found, folder) | {"subject": spec})

    out = console(written.printed)
    audits.print_audit(out, found, saving)
    reported = found.refuted or found.suspects or (folder is not None and (folder / "report.md").is_file())
    if folder is not None and not reported:
        gone = " (the reproduction that was there is gone)" if reproduced else ""
        say(out, f"no pass is refuted: wrote only the verdict to {folder}{gone}")
        folder = None
    summary.print_written(out, [*([folder] if folder else []), *written.files])
    return found.kind.exit_code


_NAME_VALUE = re.compile(r"[\w.]+=")


def audit_many(
    specs: Sequence[str],
    setup: Setup,
    folder: Path | None,
    jobs: int,
    executor: Executors,
    one_only: bool,
) -> int:
    option = next((spec for spec in specs if _NAME_VALUE.match(spec)), None)
    if option is not None:
        raise FoldproofError(f"{option} is no SPEC; an option of the compiler is written --option {option}")
    if folder is None:
        raise FoldproofError("several SPECs take --results FOLDER, where the result of each is kept")
    if one_only:
        raise FoldproofError(
            "--save, --json and --html take one SPEC without --results, whose folder has the JSON of each"
        )
    from foldproof.cli import many

    device = SETTINGS.get().device
    questions = [many.Question(spec, setup, device) for spec in dict.fromkeys(specs)]
    with Bar() as progress:
        answers = many.audit_all(questions, folder, jobs, find_executor(executor), progress)
    lines = [(f"{question.spec}: {answer.told}", answer.kind) for question, answer in answers]
    summary.print_answers(console(), lines, folder)
    return many.worst([answer for _, answer in answers])


def report(result: Path, output: Path | None) -> int:
    from foldproof.report import FORMS as forms
    from foldproof.report import load

    check_file(str(result))
    output = output or result.with_suffix(".html")
    if output.suffix not in forms:
        raise FoldproofError(f"{output} must end in {', '.join(forms)}; the suffix chooses the format")
    if os.path.realpath(output) == os.path.realpath(result):
        raise FoldproofError(f"{output} is the result itself; give another file")
    out = Output(output)
    text = forms[output.suffix](load(result))
    out.write(lambda path: path.write_text(text, encoding="utf-8"))
    summary.print_written(console(), [output])
    return 0


def explore(result: Path, port: int, browser: bool) -> int:
    from foldproof.report import explorer, load

    check_file(str(result))
    explorer.require()
    explorer.explore(load(result), port, browser)
    return 0


def doctor(json_file: Path | None) -> int:
    written = Written(json_file, None)
    written.check()
    from foldproof.cli import doctor as examination

    found = examination.examine()
    written.write(found)
    out = console(written.printed)
    examination.print_examination(out, found)
    summary.print_written(out, written.files)
    return 0


def replay(folder: Path) -> int:
    from foldproof.cli import audits

    kind, told = audits.replay(folder)
    say(console(), told)
    return kind.exit_code
