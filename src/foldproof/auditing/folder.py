"""Audits on disk: reproductions and reports of culprits for the maintainers, and a way to run them again later."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from foldproof.auditing.codegen import write_listing
from foldproof.auditing.compilers import Compiler, find_compiler
from foldproof.auditing.compilers.compiler import list_versions
from foldproof.auditing.compilers.inductor import Inductor
from foldproof.auditing.definitions import Unwritable
from foldproof.auditing.fault import Crash, Fault, SharedMemory, WrongGradients, WrongNumbers, WrongPass
from foldproof.auditing.inputs import find_inputs
from foldproof.auditing.log import Change
from foldproof.auditing.reduce import reduce_fault
from foldproof.auditing.script import write_reproduction
from foldproof.auditing.specification import ModelSpec
from foldproof.auditing.stages import Stage, tell_stages
from foldproof.auditing.step import Step
from foldproof.errors import FoldproofError
from foldproof.log import log_caught
from foldproof.torch_internals import tree_leaves
from foldproof.verdict import Kind


@dataclass(frozen=True)
class Subject:
    """The model that was compiled, its example inputs, and the options of the compiler."""

    model: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]
    training: bool = False

    @property
    def is_reducible(self) -> bool:
        """True if smaller models can be made of it, which take positional inputs."""
        return not self.kwargs

    def numbers(self, compiler: Compiler) -> WrongNumbers | WrongGradients:
        """Return the fault of wrong numbers."""
        if self.training:
            assert isinstance(compiler, Inductor)
            return WrongGradients(compiler, self.options, self.model.training)
        return WrongNumbers(compiler, self.options)


def save(told: Mapping[str, Any], culprits: Sequence[Step], crash: str, subject: Subject, folder: Path) -> Path:
    """Write ``verdict.json`` and, for each culprit, ``repro.py``, ``graphs.py`` and ``report.md``.

    A compiler that fails is a culprit itself, with ``repro.py`` and ``report.md``.

    If there are several culprits, each has a subfolder named after it. Files of an earlier audit in the folder are
    removed, as the new verdict replaces theirs.

    Args:
        told: the audit as JSON.
        culprits: the steps that are wrong, or suspect.
        crash: the class and message of the compiler's failure, as `describe_crash` tells them; empty without one.
        subject: the audited model with its inputs and options.
        folder: the folder to write to.

    Raises:
        FoldproofError: the folder can't be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: reducing takes minutes, in which people press Ctrl-C.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as aside:
            _save_all(told, culprits, crash, subject, Path(aside))
            folder.mkdir(exist_ok=True)
            for name in ("verdict.json", "repro.py", "graphs.py", "report.md"):  # files of an earlier audit
                (folder / name).unlink(missing_ok=True)
            for made in Path(aside).iterdir():
                if made.is_dir():
                    shutil.rmtree(folder / made.name, ignore_errors=True)
                made.replace(folder / made.name)
        return folder
    except OSError as error:
        raise FoldproofError(f"{folder} can't be written: {error.strerror or error}") from error


def _save_all(told: Mapping[str, Any], culprits: Sequence[Step], crash: str, subject: Subject, folder: Path) -> None:
    by_name = {step.name: step for step in reversed(culprits)}
    for name, step in by_name.items():
        place = folder if len(by_name) == 1 else folder / re.sub(r"\W+", "_", name)
        place.mkdir(exist_ok=True)
        _save_step(told, step, subject, place)
    whole = told["end_to_end"]
    if crash and not by_name:
        _save_whole(told, Crash(find_compiler(told["compiler"]), subject.options, crash), subject, folder)
    elif not by_name and whole is not None and whole["verdict"]["kind"] == Kind.REFUTED.value:
        shared = "shares memory" in whole["verdict"]["reason"]
        compiler = find_compiler(told["compiler"])
        fault = SharedMemory(compiler, subject.options) if shared else subject.numbers(compiler)
        _save_whole(told, fault, subject, folder)
    elif len(by_name) != 1:
        write(folder / "verdict.json", _format_json(told))


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=path.suffix, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(path)
    path.chmod(0o644)


def _save_step(audit: Mapping[str, Any], step: Step, subject: Subject, folder: Path) -> None:
    unfinite = step.verdict.kind is not Kind.REFUTED and step.movement is not None and step.movement.is_unfinite
    compiler = find_compiler(audit["compiler"])
    wrong = WrongPass(compiler, subject.options, step.name, unfinite=unfinite)
    fault: Fault = subject.numbers(compiler) if subject.training else wrong
    spec = reduce_fault(fault, subject.model, subject.args) if subject.is_reducible else None
    change = step.change
    if spec is not None and fault is wrong:
        change = wrong.find_change(*spec.build()) or change
    text, ran = _reproduce(fault, spec, folder)
    small = spec is not None and change is not step.change
    given = [x for x in tree_leaves(spec.build()[1] if spec and small else subject.args) if isinstance(x, Tensor)]
    drawn = find_inputs(change.before, given if change.inputs is None else change.inputs)
    write(folder / "graphs.py", write_listing(change, drawn or ()))
    write(folder / "report.md", write_report(audit, step, change, text, ran))
    _write_verdict(audit, {"pass": step.name, "reproduced": _shows(ran), "verdict": step.verdict.to_dict()}, folder)


def _save_whole(
    audit: Mapping[str, Any],
    fault: Crash | SharedMemory | WrongNumbers | WrongGradients,
    subject: Subject,
    folder: Path,
) -> None:
    """Save a fault that is not one of a step."""
    spec = reduce_fault(fault, subject.model, subject.args) if subject.is_reducible else None
    text, ran = _reproduce(fault, spec, folder)
    title = "fails to compile a model that runs in eager mode"
    if isinstance(fault, (WrongNumbers, WrongGradients)):
        title = f"{audit['compiled']} gives wrong numbers"
    if isinstance(fault, SharedMemory):
        title = f"{audit['compiled']} returns memory that is not the output's own"
    write(folder / "report.md", write_short_report(audit, title, text, ran))
    error = {"error": fault.error} if isinstance(fault, Crash) else {"numbers": True}
    _write_verdict(audit, {**error, "reproduced": _shows(ran)}, folder)


def _reproduce(fault: Fault, spec: ModelSpec | None, folder: Path) -> tuple[str | None, Run | None]:
    """Write and run a reproduction; return its text and what it shows, or None where there is none."""
    if spec is None or not spec.written:
        return None, None
    try:
        text = write_reproduction(fault, spec)
    except Unwritable as error:
        log_caught(error, "writing a reproduction")
        return None, None
    write(folder / "repro.py", text)
    return text, run(folder / "repro.py", fault.error if isinstance(fault, Crash) else "")


def _shows(ran: Run | None) -> bool:
    return ran is not None and ran.wrong


def _write_verdict(audit: Mapping[str, Any], more: Mapping[str, Any], folder: Path) -> None:
    told = {**audit, **more}
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
    """Result of running a reproduction: True if the fault is still there, True if it fails in another way, the text."""

    wrong: bool
    failed: bool
    told: str


def run(program: Path, crash: str = "") -> Run:
    """Run a reproduction in a separate process, with the same Python.

    The fault of a reproduction is a failed comparison, or the ``crash`` that it is saved for.
    """
    done = subprocess.run(
        [sys.executable, program.name],
        cwd=program.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    # Messages of assert_close about values, whole numbers, and shapes and dtypes.
    told = any(words in done.stderr for words in ("not close", "not equal", "do not match"))
    shown = any(crash in line for line in lines) if crash else "AssertionError" in done.stderr and told
    wrong = done.returncode != 0 and shown
    first = crash or "AssertionError"
    start = next((i for i, line in enumerate(lines) if first in line), len(lines) - 1)
    return Run(wrong, done.returncode != 0 and not wrong, "\n".join(lines[start:]) if done.returncode else "")


def write_report(audit: Mapping[str, Any], step: Step, change: Change, text: str | None, ran: Run | None) -> str:
    """Write a bug report in the form that PyTorch and related projects ask for."""
    shown = step.verdict.counterexample
    what = "replaces a part of the graph by another function of its inputs and parameters"
    if step.verdict.kind is not Kind.REFUTED:
        what = f"changes the numbers of the graph: {step.movement}"
    phases = [part for part in step.phase.split("/") if part]  # calls other than passes have no name
    where = f" (in {' → '.join(phases)})" if phases else ""
    out = [
        f"# {audit['compiler']}: {step.name} changes what the model computes",
        "",
        "### 🐛 Describe the bug",
        "",
        f"`{step.name}`{where} {what}. The program compiles and runs without a warning; its outputs are wrong.",
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
    difference = step.verdict.difference
    if difference is not None or shown is not None:
        out += ["### What differs", ""]
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
    if audit["stages"]:
        out += ["", f"{tell_stages(map(Stage.from_dict, audit['stages']))}."]
    if audit["compiler"] == "inductor" and ran is not None and ran.wrong:
        bisector = "python -m torch._inductor.compiler_bisector run python repro.py"
        out += ["", f"PyTorch's own bisector looks for it by `{bisector}`."]
    if step.loop is not None:
        out += ["", "The wrong loop of the model:", "", "```", *step.loop.lines, "```"]
    # The change was found again in a reduced program, whose node counts differ from those in the audit.
    here = "In the model" if change is step.change else "In the program above" if text else "In a smaller model"
    out += [
        "",
        f"{here} it goes from {change.before.size} to {change.after.size} nodes;"
        " `graphs.py` has both graphs as Python.",
        "",
        *_tell_versions(audit),
    ]
    return "\n".join(out)


def write_short_report(audit: Mapping[str, Any], title: str, text: str | None, ran: Run | None) -> str:
    """Write a bug report of a fault that is not one of a step."""
    out = [f"# {audit['compiler']}: {title}", "", "### 🐛 Describe the bug", ""]
    out += [f"{audit['conclusion'].removeprefix('crash: ')}.", ""]
    out += ["```python", text.rstrip(), "```", ""] if text else ["No small program that reproduces it was found.", ""]
    if ran is not None and ran.told:
        out += ["```", ran.told, "```", ""]
    if audit["stages"]:
        out += [f"{tell_stages(map(Stage.from_dict, audit['stages']))}.", ""]
    kernel = audit["kernel"]
    if kernel is not None:
        out += [f"The loop of `{kernel['name']}`, in the model that it was found in:", ""]
        out += ["```", *kernel["loop"], "```", "", "Its text:", "", "```cpp", kernel["code"].strip(), "```", ""]
    return "\n".join([*out, *_tell_versions(audit)])


def _tell_versions(audit: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in audit["versions"].items())
    return ["### Versions", "", f"Python {platform.python_version()}, {versions}", ""]


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
        if not told.get("refuted", True) and not told.keys() & {"pass", "error", "numbers"}:
            raise FoldproofError(f"{folder} records no culprit, so there is no reproduction to run")
        raise FoldproofError(f"{folder} has no repro.py to run")
    crash = str(told.get("error", ""))
    ran = run(program, crash)
    now = ", ".join(
        f"{name} {version}" for name, version in list_versions(find_compiler(str(told["compiler"]))).items()
    )
    if ran.failed:
        raise FoldproofError(
            f"{program} does not run with {now}: {ran.told.splitlines()[0] if ran.told else 'it fails'}"
        )
    if crash:
        return ran.wrong, f"still crashes with {now}: {crash}" if ran.wrong else f"fixed with {now}: no {crash}"
    culprit = f"{told['pass']} in {told['compiler']}" if "pass" in told else str(told["compiler"])
    if ran.wrong:
        return True, f"still wrong with {now}: {culprit}"
    return False, f"fixed with {now}: {culprit} no longer changes this model's outputs"


def _read_verdict(folder: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
        _ = found["compiler"]
        return found
    except (OSError, ValueError, KeyError) as error:
        raise FoldproofError(f"{folder} was not written by foldproof audit --save: it has no verdict.json") from error
