"""Results as JSON: reading a file, and validation by the published schema (``schema.json`` beside this file)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from foldproof.errors import FoldproofError, MissingExtra
from foldproof.report.migration import migrate
from foldproof.verdict import SCHEMA

Document = Mapping[str, Any]


def load(path: Path) -> Document:
    """Read the result in a file written by ``--json``.

    Raises:
        FoldproofError: there is no such file, it is not JSON, or not a result of foldproof.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FoldproofError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise FoldproofError(f"{path} is not a JSON file ({error})") from error
    return validated(found, str(path))


def validated(found: Any, name: str = "the result") -> Document:
    """Return ``found`` if it conforms to the schema; version 1 is migrated.

    Raises:
        FoldproofError: ``found`` does not conform to the schema.
        MissingExtra: jsonschema is not installed.
    """
    if not isinstance(found, dict) or "command" not in found or "schema" not in found:
        raise FoldproofError(
            f"{name} is not a result of a foldproof command: write one with foldproof fuse, fold-qat, explain, prove,"
            " compare or audit and --json, with audit --save, or with pytest --foldproof-report"
        )
    if found["schema"] == 1:
        found = migrate(found)
        assert isinstance(found, dict)
    if found["schema"] != SCHEMA:
        raise FoldproofError(
            f"{name} has schema {found['schema']!r}, but this foldproof reads schemas 1 and {SCHEMA}: write it again,"
            " or use the version that wrote it"
        )
    problem = next(iter(_validator().iter_errors(found)), None)
    if problem is not None:
        place = "/".join(map(str, problem.absolute_path)) or "the top"
        raise FoldproofError(f"{name} is not a valid result of foldproof: at {place}, {problem.message[:200]}")
    return found


def schema() -> Document:
    """The published JSON Schema."""
    found: Document = json.loads(files(__package__).joinpath("schema.json").read_text(encoding="utf-8"))
    return found


@cache
def _validator() -> Any:
    try:
        from jsonschema import Draft202012Validator
    except ModuleNotFoundError as error:
        raise MissingExtra("jsonschema", "report") from error
    return Draft202012Validator(schema())
