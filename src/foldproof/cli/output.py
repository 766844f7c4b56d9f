"""Output files, written completely or not at all."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from foldproof.errors import FoldproofError
from foldproof.version import __version__


class Output:
    """A file to be written later. Problems with its path show at once, before hours of work.

    Raises:
        FoldproofError: the folder is missing or unwritable, or the path is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self._shown = path  # as the user wrote it
        self._path = Path(os.path.realpath(path))  # the target of a link
        folder = self._path.parent
        if not folder.is_dir():
            raise FoldproofError(f"{self._shown} can't be written: {folder} is not a folder")
        if self._path.exists() and not self._path.is_file():
            raise FoldproofError(f"{self._shown} can't be written: it is not a regular file")
        if self._path.exists() and not os.access(self._path, os.W_OK):
            raise FoldproofError(f"{self._shown} can't be written: the file is read-only")
        self._replace(Path.touch, keep=False)

    def write(self, write: Callable[[Path], object]) -> None:
        """Call ``write`` with a path in the same folder, then rename that file to the requested one.

        Raises:
            FoldproofError: the operating system refused; an older file is unchanged.
        """
        self._replace(write, keep=True)

    def _replace(self, write: Callable[[Path], object], keep: bool) -> None:
        # Keep the suffix: torch.export.save checks it.
        temporary = self._path.with_name(f".{self._path.stem}.{os.urandom(4).hex()}{self._path.suffix}")
        try:
            write(temporary)
            if keep:
                os.replace(temporary, self._path)
        except OSError as error:
            raise FoldproofError(f"{self._shown} can't be written: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Check, before hours of work, that a folder exists or can be created.

    Raises:
        FoldproofError: a file is in its place, or its parent can't be written.
    """
    place = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not place.is_dir():
        raise FoldproofError(f"{path} can't be written: {place} is not a folder")
    if not os.access(place, os.W_OK):
        raise FoldproofError(f"{path} can't be written: {place} is read-only")


class Written:
    """The files of ``--json`` and ``--html``; ``printed`` tells that the JSON goes to stdout (``--json -``)."""

    def __init__(self, json_file: Path | None, html_file: Path | None) -> None:
        self.printed = json_file == Path("-")
        self._json_file, self._html_file = None if self.printed else json_file, html_file
        self.files = [path for path in (self._json_file, html_file) if path is not None]

    @property
    def wanted(self) -> bool:
        """True if a result is to be written at all."""
        return self.printed or bool(self.files)

    def check(self, *others: Path | None) -> None:
        """Check, before hours of work, that the files can be written, and differ from ``others``.

        Raises:
            FoldproofError: a file can't be written, or two are the same.
            MissingExtra: the packages for pages are not installed.
        """
        asked = [*(path for path in others if path is not None), *self.files]
        for i, path in enumerate(asked):
            if any(os.path.realpath(path) == os.path.realpath(other) for other in asked[:i]):
                raise FoldproofError(f"{path} is given for two outputs; give two files")
        self._json_out = Output(self._json_file) if self._json_file is not None else None
        self._html_out = Output(self._html_file) if self._html_file is not None else None
        if self._html_file is not None:
            from foldproof.report import page

            page.require()

    def write(self, document: dict[str, Any]) -> None:
        """Write a result to the requested files."""
        document = document | {"foldproof": __version__}
        if self.printed:
            sys.stdout.write(_as_json(document))
        if self._json_out is not None:
            self._json_out.write(partial(save_json, document))
        if self._html_out is not None:
            from foldproof.report import html

            text = html(document)
            self._html_out.write(lambda path: path.write_text(text, encoding="utf-8"))


def save_json(value: dict[str, Any], path: Path) -> None:
    """Write strict JSON: no NaN, no Infinity."""
    path.write_text(_as_json(value), encoding="utf-8")


def _as_json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
