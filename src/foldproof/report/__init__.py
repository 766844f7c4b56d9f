"""Results as pages and as files of other tools, made from their JSON form alone. Imports no torch."""

from collections.abc import Callable, Mapping
from typing import Any

from foldproof.report.document import load, validated
from foldproof.report.junit import junit
from foldproof.report.page import html
from foldproof.report.sarif import sarif

FORMS: dict[str, Callable[[Mapping[str, Any]], str]] = {".html": html, ".xml": junit, ".sarif": sarif}
"""Functions that write a result in another format, by suffix of the file."""

__all__ = ["FORMS", "html", "junit", "load", "sarif", "validated"]
