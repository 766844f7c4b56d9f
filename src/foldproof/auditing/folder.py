"""Audits on disk: reproductions and reports of culprits for the maintainers, and a way to run them again later."""

from __future__ import annotations

import contextlib
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from foldproof.auditing.codegen import write_listing
from foldproof.auditing.compilers import find_compiler
from foldproof.auditing.compilers.compiler import list_versions
from foldproof.auditing.definitions import Unwritable
from foldproof.auditing.inputs import find_inputs
from foldproof.auditing.log import Change
from foldproof.auditing.reduce import Fault, reduce_fault
from foldproof.auditing.script import write_reproduction
from foldproof.auditing.step import Step
from foldproof.errors import FoldproofError
from foldproof.torch_internals import tree_leaves


@dataclass(frozen=True)
class Subject:
    """The model that was compiled, its example inputs, and the options of the compiler."""

    model: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]


def save(told: Mapping[str, Any], refuted: Sequence[Step], subject: Subject, folder: Path) -> Path:
    """Write ``verdict.json`` and, for each culprit, ``repro.py``, ``graphs.py`` and ``report.md``.

    If there are several culprits, each has a subfolder named after it. Files of an earlier audit in the folder are
    removed, as the new verdict replaces theirs.

    Args:
        told: the audit as JSON.
        refuted: its REFUTED steps.
        subject: the audited model with its inputs and options.
        folder: the folder to write to.

    Raises:
        FoldproofError: the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("verdict.json", "repro.py", "graphs.py", "report.md"):  # files of an earlier audit
            (folder / name).unlink(missing_ok=True)
        by_name = {step.name: step for step in reversed(refuted)}
        for name, step in by_name.items():
            place = folder if len(by_name) == 1 else folder / re.sub(r"\W+", "_", name)
            place.mkdir(exist_ok=True)
            _save_step(told, step, subject, place)
        if len(by_name) != 1:
            write(folder / "verdict.json", _format_json(told))
        return folder
    except OSError as error:
        raise FoldproofError(f"{folder} can't be written: {error.strerror or error}") from error


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=path.suffix, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(path)
    path.chmod(0o644)


def _save_step(audit: Mapping[str, Any], step: Step, subject: Subject, folder: Path) -> None:
    fault = Fault(find_compiler(audit["compiler"]), subject.options, step.name)
    change, text, ran = step.change, None, None
    spec = None if subject.kwargs else reduce_fault(fault, subject.model, subject.args)
    if spec is not None:
        model, inputs = spec.build()
        change = fault.find_change(model, inputs) or change
        if spec.written:
            with contextlib.suppress(Unwritable):
                text = write_reproduction(fault, spec)
                write(folder / "repro.py", text)
                ran = run(folder / "repro.py")
    given = [x for x in tree_leaves(spec.build()[1] if spec is not None else subject.args) if isinstance(x, Tensor)]
    drawn = find_inputs(change.before, given if change.inputs is None else change.inputs)
    write(folder / "graphs.py", write_listing(change, drawn or ()))
    write(folder / "report.md", write_report(audit, step, change, text, ran))
    told = dict(audit) | {
        "pass": step.name,
        "reproduced": ran is not None and ran.wrong,
        "verdict": step.verdict.to_dict(),
    }
    told["steps"] = [step for step in told["steps"] if step["fired"]]
    if told["end_to_end"] is not None:  # without graph and layers, which are long
        kept = {name: value for name, value in told["end_to_end"].items() if name not in ("graph", "layers")}
        told["end_to_end"] = kept | {"compiled": audit["compiled"]}
    here = f"{Path.cwd()}/"  # the folder is shared, so it must not contain local paths
    write(folder / "verdict.json", _format_json(told).replace(here, ""))


def _format_json(told: Mapping[str, Any]) -> str:
    """Format JSON with a line for each key, and for each element of a list of objects."""

    def text(value: Any) -> str:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "[\n" + ",\n".join(f"    {json.dumps(x, allow_nan=False)}" for x in value) + "\n  ]"
        return json.dumps(value, allow_nan=False)

    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {text(value)}" for key, value in told.items()) + "\n}\n"


@dataclass(frozen=True)
class Run:
    """Result of running a reproduction: True if outputs still differ, and the printed text."""

    wrong: bool
    failed: bool
    told: str


def run(program: Path) -> Run:
    """Run a reproduction in a separate process, with the same Python."""
    done = subprocess.run(
        [sys.executable, program.name],
        cwd=program.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    # Messages of assert_close about values, and about shapes and dtypes.
    told = any(words in done.stderr for words in ("not close", "do not match"))
    wrong = done.returncode != 0 and "AssertionError" in done.stderr and told
    start = next((i for i, line in enumerate(lines) if line.startswith("AssertionError")), len(lines) - 1)
    return Run(wrong, done.returncode != 0 and not wrong, "\n".join(lines[start:]) if done.returncode else "")


def write_report(audit: Mapping[str, Any], step: Step, change: Change, text: str | None, ran: Run | None) -> str:
    """Write a bug report in the form that PyTorch and related projects ask for."""
    shown = step.verdict.counterexample
    phases = [part for part in step.phase.split("/") if part]  # calls other than passes have no name
    where = f" (in {' → '.join(phases)})" if phases else ""
    out = [
        f"# {audit['compiler']}: {step.name} changes what the model computes",
        "",
        "### 🐛 Describe the bug",
        "",
        f"`{step.name}`{where} replaces a part of the graph by another function of its inputs and parameters."
        " The program compiles and runs without a warning; its outputs are wrong.",
        "",
    ]
    if text is not None:
        out += ["```python", text.rstrip(), "```", ""]
        if ran is not None and ran.told:
            out += ["```", ran.told, "```", ""]
        if ran is not None and not ran.wrong:
            out += ["(The graphs differ, but here the outputs of the whole program do not.)", ""]
    elif shown is None:
        out += ["No small program that reproduces it was found.", ""]
    out += ["### What differs", ""]
    difference = step.verdict.difference
    if difference is not None:
        out.append(
            f"The graphs part at `{difference.operator}`, node `{difference.node}` of the old graph"
            + (
                f", and `{difference.after.operator}`, node `{difference.after.node}` of the new."
                if difference.after
                else "."
            )
        )
    if shown is not None:
        out.append(
            f"In the model that it was found in, in float64, with {shown.description}: output {shown.output} at"
            f" {list(shown.index)} is"
            f" {shown.before:.6g} before the pass and {shown.after:.6g} after it;"
            f" rounding explains {shown.floor:.1g}."
        )
    # The change was found again in a reduced program, whose node counts differ from those in the audit.
    here = "In the model" if change is step.change else "In the program above" if text else "In a smaller model"
    out += [
        "",
        f"{here} the pass goes from {change.before.size} to {change.after.size} nodes;"
        " `graphs.py` has both graphs as Python.",
        "",
        "### Versions",
        "",
        f"Python {platform.python_version()}, " + ", ".join(f"{k} {v}" for k, v in audit["versions"].items()),
        "",
    ]
    return "\n".join(out)


def replay(folder: str | Path) -> tuple[bool, str]:
    """Run a saved reproduction on the installed versions.

    Returns:
        True if the outputs are still wrong, and a sentence that says so.

    Raises:
        FoldproofError: ``folder`` holds no reproduction, or it does not run.
    """
    folder = Path(folder)
    told = _read_verdict(folder)
    program = folder / "repro.py"
    if not program.is_file():
        if not told.get("refuted", True):
            raise FoldproofError(f"{folder} records no culprit, so there is no reproduction to run")
        raise FoldproofError(f"{folder} has no repro.py to run")
    ran = run(program)
    now = ", ".join(
        f"{name} {version}" for name, version in list_versions(find_compiler(str(told["compiler"]))).items()
    )
    if ran.failed:
        raise FoldproofError(
            f"{program} does not run with {now}: {ran.told.splitlines()[0] if ran.told else 'it fails'}"
        )
    if ran.wrong:
        return True, f"still wrong with {now}: {told.get('pass')} in {told['compiler']}"
    return False, f"fixed with {now}: {told.get('pass')} in {told['compiler']} no longer changes this model's outputs"


def _read_verdict(folder: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
        _ = found["compiler"]
        return found
    except (OSError, ValueError, KeyError) as error:
        raise FoldproofError(f"{folder} was not written by foldproof audit --save: it has no verdict.json") from error
