"""The places in other packages where a tap looks on, as data: `foldproof doctor` checks that each is still there."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from foldproof.errors import FoldproofError

Make = Callable[[Any], Any]
"""What to put in the place of the function that it is given."""


@dataclass(frozen=True)
class Hook:
    """An attribute of ``module`` (``name``, or ``Class.name``) that is patched for as long as a tap is open.

    ``observes`` names what would not be seen without it. Most are passes, and what they change is then a part of the
    unnamed step between two others; an ``essential`` hook is one without which there are no steps at all.
    """

    module: str
    name: str
    observes: str
    essential: bool = False

    @property
    def package(self) -> str:
        """The package that it is in, as it is installed."""
        return self.module.partition(".")[0]

    @property
    def function(self) -> str:
        """The bare name of what is patched."""
        return self.name.rpartition(".")[2]

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    def owner(self) -> Any:
        """The module or class that has it; None if it is not there."""
        try:
            owner: Any = importlib.import_module(self.module)
        except ImportError:
            return None
        for part in self.name.split(".")[:-1]:
            owner = getattr(owner, part, None)
        return owner if hasattr(owner, self.function) else None

    @contextlib.contextmanager
    def patched(self, make: Make) -> Iterator[None]:
        """With ``make(original)`` in its place; as it is where it is missing.

        Raises:
            FoldproofError: it is missing and essential.
        """
        owner = self.owner()
        if owner is None:
            if self.essential:
                raise FoldproofError(f"{self.missing()}; foldproof doctor tells which versions are tested")
            yield
            return
        with mock.patch.object(owner, self.function, make(getattr(owner, self.function))):
            yield

    def missing(self) -> str:
        """What it costs that it is missing, in a sentence."""
        if self.essential:
            return f"{self} is missing, so that {self.observes} can't be audited"
        return f"{self} is missing, so that {self.observes} is not told from what else happens around it"


def missing_hooks(hooks: Iterable[Hook]) -> list[Hook]:
    """Those that are gone from packages that are installed."""
    return [hook for hook in hooks if importlib.util.find_spec(hook.package) is not None and hook.owner() is None]
