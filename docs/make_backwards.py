"""Writes docs/backwards.md: hand-written backward functions of installed packages, proved or refuted.

By hand, in minutes: ``pip install --no-deps --target FOLDER`` the packages of `zoo.backwards`, then
``PYTHONPATH=FOLDER python -m docs.make_backwards``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from docs.writing import write_whole
from foldproof.verdict import Verdict
from zoo.backwards import Backward, installed

PAGE = Path(__file__).with_name("backwards.md")
HEAD = """\
# Backward functions that other people wrote

<!-- Written by docs/make_backwards.py: don't edit. -->

`torch.autograd.Function`s of public packages, as released, with torch {torch}. `foldproof.prove_step` compares each
with its own forward, differentiated by PyTorch's autograd, or with the implementation that the remark names: outputs
and all gradients, for any loss. [Is my custom backward right?](tutorials/custom_backward.md) shows how to do it with
yours.

| package | function | verdict | seconds | remark |
| --- | --- | --- | --- | --- |
"""


def main() -> None:
    """Prove all, and write the page in one go."""
    rows, reasons = [], []
    for function, version in installed():
        verdict = function.prove()
        sys.stderr.write(f"{function.package} {function.name}: {verdict.kind}\n")
        rows.append(_row(function, version, verdict))
        if verdict.proof is None:
            reasons.append(f"- **{function.package}**, `{function.name}`: {verdict.kind}, {_plain(verdict.reason)}.")
    told = ["## Functions that are not proved", "", *reasons] if reasons else ["Everything is proved."]
    write_whole(PAGE, HEAD.format(torch=torch.__version__) + "\n".join([*rows, "", *told]) + "\n")


def _plain(text: str) -> str:
    """Return text without links: brackets name outputs."""
    return text.replace("[", "\\[")


def _row(function: Backward, version: str, verdict: Verdict) -> str:
    name = function.name.strip("_")
    cells = (f"{function.package} {version}", f"`{name}`", str(verdict.kind), f"{verdict.seconds:.1f}", function.remark)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
