"""SPECs, by which the command line names a program: what can be told of one without importing torch."""

from __future__ import annotations

import ast
import zipfile
from pathlib import Path
from typing import Any

from foldproof.errors import FoldproofError

FUNCTION = "path/file.py:callable or package.module:callable"
FORMS = f"a .pt2 file, {FUNCTION}"

BACKENDS = ("inductor", "aot_eager", "aot_eager_decomp_partition", "eager")
"""Backends of torch.compile that are meant by their names."""
AGAINST = (
    "inductor, aot_eager, aot_eager_decomp_partition, eager, a .pt2, .pte, .onnx, .xml, .pt, .npy or .npz file, or"
    " path/file.py:callable (a function without parameters, which makes a program, or one that is called on the inputs)"
)

FILES = (".pt2", ".pte", ".onnx", ".xml", ".pt", ".npy", ".npz")
"""Suffixes of files that hold programs or outputs to compare with."""


def check_spec(spec: str) -> None:
    """Check the form of a SPEC, and that its file is there.

    Raises:
        FoldproofError: it is no SPEC, its file is missing, or a ``.pt2`` file is no archive.
    """
    if spec.endswith(".pt2"):
        check_file(spec)
        _check_archive(spec)
    else:
        check_function(spec, FORMS)


def check_program(spec: str) -> None:
    """Check what ``prove`` takes: a SPEC, or an ONNX file.

    Raises:
        FoldproofError: as `check_spec`.
    """
    if spec.endswith(".onnx"):
        check_file(spec)
    else:
        check_spec(spec)


def check_function(spec: str, forms: str = FUNCTION) -> None:
    """Check that ``spec`` names a function, and that its file is there.

    Raises:
        FoldproofError: it does not, or the file is missing; ``forms`` says what may be given.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise FoldproofError(f"{spec!r} is not a SPEC: give {forms}")
    if place.endswith(".py"):
        check_file(place, f"{spec}: ")


def read_settings(text: str) -> dict[str, Any]:
    """Read the arguments of a call, such as ``heads=4,groups=2``; values are literals of Python.

    Raises:
        FoldproofError: the text is something else.
    """
    try:
        call = ast.parse(f"dict({text})", mode="eval").body
        if isinstance(call, ast.Call) and call.keywords and not call.args:
            return {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg is not None}
    except (SyntaxError, ValueError):
        pass
    raise FoldproofError(f"{text!r} is no configuration: give names and values, such as heads=4,groups=2")


def check_other(against: str) -> None:
    """Check what ``compare --against`` names.

    Raises:
        FoldproofError: it is nothing to compare with, or a file is missing.
    """
    if Path(against).suffix in FILES:
        check_file(against)
    elif ":" in against:
        check_spec(against)
    elif against not in BACKENDS:
        raise FoldproofError(f"cannot compare with {against!r}; give {AGAINST}")


def holds_outputs(spec: str) -> bool:
    """Return True if ``spec`` names a file of saved outputs, by its suffix."""
    return Path(spec).suffix in (".npy", ".npz", ".pt")


def check_file(name: str, before: str = "") -> None:
    """Check that a file is there; ``before`` begins the message.

    Raises:
        FoldproofError: it is missing, or no file.
    """
    path = Path(name)
    if not path.is_file():
        raise FoldproofError(f"{before}{name} {'is not a file' if path.exists() else 'does not exist'}")


def _check_archive(name: str) -> None:
    try:
        with Path(name).open("rb") as file:
            whole = zipfile.is_zipfile(file)
    except OSError as error:
        raise FoldproofError(f"{name} can't be read: {error.strerror}") from error
    if not whole:
        raise FoldproofError(f"{name} is truncated or was not written by torch.export.save: it is no zip archive")
