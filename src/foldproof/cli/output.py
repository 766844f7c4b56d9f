"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from foldproof.errors import FoldproofError


class Output:
    """A file to be written later. Whether it can be is found out at once, before hours of work.

    Raises:
        FoldproofError: the folder is missing or unwritable, or the path is something other than a regular file.
    """

    def __init__(self, path: Path) -> None:
        self._shown = path  # as the user wrote it
        self._path = Path(os.path.realpath(path))  # through a link, to the file it stands for
        folder = self._path.parent
        if not folder.is_dir():
            raise FoldproofError(f"{self._shown} can't be written: {folder} is not a folder")
        if self._path.exists() and not self._path.is_file():
            raise FoldproofError(f"{self._shown} can't be written: it is not a regular file")
        if self._path.exists() and not os.access(self._path, os.W_OK):
            raise FoldproofError(f"{self._shown} can't be written: the file is read-only")
        self._replace(Path.touch, keep=False)

    def write(self, write: Callable[[Path], object]) -> None:
        """Calls ``write`` with a path in the same folder, then renames that file to the one that was asked for.

        Raises:
            FoldproofError: the operating system refused; an older file is still what it was.
        """
        self._replace(write, keep=True)

    def _replace(self, write: Callable[[Path], object], keep: bool) -> None:
        # The suffix stays: torch.export.save looks at it.
        temporary = self._path.with_name(f".{self._path.stem}.{secrets.token_hex(4)}{self._path.suffix}")
        try:
            write(temporary)
            if keep:
                os.replace(temporary, self._path)
        except OSError as error:
            raise FoldproofError(f"{self._shown} can't be written: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)
