"""Hooks: the places in other packages that a tap patches, as data, so that `foldproof doctor` can check each one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from foldproof.auditing.externals import External
from foldproof.errors import FoldproofError

Make = Callable[[Any], Any]
"""Function that takes the original function and returns its replacement."""


@dataclass(frozen=True)
class Hook(External):
    """A function that is patched while a tap is open.

    ``observes`` describes the passes that the hook records. Without it, their changes are part of the unnamed step
    between two others. Without an ``essential`` hook there are no steps at all.
    """

    observes: str
    essential: bool = False

    @contextlib.contextmanager
    def patch(self, make: Make) -> Iterator[None]:
        """Patch the function with ``make(original)`` inside; do nothing if it is missing.

        Raises:
            FoldproofError: the function is missing and essential.
        """
        owner = self.find_owner()
        if owner is None:
            if self.essential:
                raise FoldproofError(f"{self.describe_absence()}; foldproof doctor tells which versions are tested")
            yield
            return
        with mock.patch.object(owner, self.attribute, make(getattr(owner, self.attribute))):
            yield

    def describe_absence(self) -> str:
        """Describe in a sentence the consequence of the missing function."""
        if self.essential:
            return f"{self} is missing, so {self.observes} can't be audited"
        return f"{self} is missing, so {self.observes} has no step of its own"
