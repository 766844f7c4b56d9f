"""Runs docs/tutorials/first_proof.ipynb and writes its outputs into it: ``python -m docs.make_notebook`` (seconds).

It stands in for Jupyter, which is not needed: cells run in order in one namespace, and the last expression of a cell is
shown as a notebook shows it.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.writing import write_whole

NOTEBOOK = Path(__file__).parent / "tutorials" / "first_proof.ipynb"


def read() -> dict[str, Any]:
    """The notebook, as nbformat 4 has it."""
    notebook: dict[str, Any] = json.loads(NOTEBOOK.read_text("utf-8"))
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that hold code, in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(notebook: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Run the cells, and yield the outputs of each."""
    namespace: dict[str, Any] = {}
    for number, cell in enumerate(code_cells(notebook), 1):
        *statements, last = ast.parse("".join(cell["source"])).body
        shown = isinstance(last, ast.Expr)
        value = None
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(
                compile(ast.Module(statements if shown else [*statements, last], []), f"cell {number}", "exec"),
                namespace,
            )
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), namespace)
        yield [*_printed(out.getvalue()), *_result(value, number)]


def _printed(text: str) -> Iterator[dict[str, Any]]:
    if text:
        yield {"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}


def _result(value: Any, number: int) -> Iterator[dict[str, Any]]:
    if value is not None:
        data = {"text/plain": [repr(value)]}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_().splitlines(keepends=True)
        yield {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}


def write() -> None:
    notebook = read()
    for number, (cell, outputs) in enumerate(zip(code_cells(notebook), run(notebook)), 1):
        cell["execution_count"], cell["outputs"] = number, outputs
    write_whole(NOTEBOOK, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write()
