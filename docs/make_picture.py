"""Writes docs/fuse.svg, the terminal of a real `foldproof fuse`. By hand: ``python -m docs.make_picture`` (seconds)."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from unittest import mock

from rich.console import Console

from docs.writing import write_whole
from foldproof.cli import main, summary

PICTURE = Path(__file__).with_name("fuse.svg")
MODEL = Path(__file__).with_name("picture_model.py")
COMMAND = ["fuse", "model.py:make", "-o", "folded.pt2"]


def picture() -> str:
    """The command's output on a terminal, with colours."""
    with open(os.devnull, "w") as nowhere, tempfile.TemporaryDirectory() as folder:
        out = Console(record=True, width=132, force_terminal=True, highlight=False, markup=False, file=nowhere)
        out.print(f"$ foldproof {' '.join(COMMAND)}", style="bold")
        shutil.copy(MODEL, Path(folder) / "model.py")
        with contextlib.chdir(folder), mock.patch.object(summary, "console", lambda: out):
            main(COMMAND)
    text = out.export_svg(title="foldproof fuse", unique_id="foldproof")
    return re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL)  # fonts from elsewhere


if __name__ == "__main__":
    write_whole(PICTURE, picture())
