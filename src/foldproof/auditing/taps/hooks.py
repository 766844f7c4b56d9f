"""Hooks: the places in other packages that a tap patches, as data, so that `foldproof doctor` can check each one."""

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
"""Function that takes the original function and returns its replacement."""


@dataclass(frozen=True)
class Hook:
    """An attribute of ``module`` (``name``, or ``Class.name``) that is patched while a tap is open.

    ``observes`` describes the passes that the hook records. Without it, their changes are part of the unnamed step
    between two others. Without an ``essential`` hook there are no steps at all.
    """

    module: str
    name: str
    observes: str
    essential: bool = False

    @property
    def package(self) -> str:
        """Name of the installed package."""
        return self.module.partition(".")[0]

    @property
    def function(self) -> str:
        """Bare name of the patched function."""
        return self.name.rpartition(".")[2]

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    def find_owner(self) -> Any:
        """Return the module or class that has the attribute; None if it is missing."""
        try:
            owner: Any = importlib.import_module(self.module)
        except ImportError:
            return None
        for part in self.name.split(".")[:-1]:
            owner = getattr(owner, part, None)
        return owner if hasattr(owner, self.function) else None

    @contextlib.contextmanager
    def patch(self, make: Make) -> Iterator[None]:
        """Patch the attribute with ``make(original)`` inside; do nothing if it is missing.

        Raises:
            FoldproofError: the attribute is missing and essential.
        """
        owner = self.find_owner()
        if owner is None:
            if self.essential:
                raise FoldproofError(f"{self.describe_absence()}; foldproof doctor tells which versions are tested")
            yield
            return
        with mock.patch.object(owner, self.function, make(getattr(owner, self.function))):
            yield

    def describe_absence(self) -> str:
        """Describe in a sentence the consequence of the missing attribute."""
        if self.essential:
            return f"{self} is missing, so {self.observes} can't be audited"
        return f"{self} is missing, so {self.observes} has no step of its own"


def find_missing_hooks(hooks: Iterable[Hook]) -> list[Hook]:
    """Return the hooks that are missing from installed packages; not those whose module wants a package that is not."""
    return [
        hook
        for hook in hooks
        if importlib.util.find_spec(hook.package) is not None
        and hook.find_owner() is None
        and not _wants_another_package(hook)
    ]


def _wants_another_package(hook: Hook) -> bool:
    try:
        importlib.import_module(hook.module)
    except ModuleNotFoundError as error:
        return (error.name or "").partition(".")[0] != hook.package
    except ImportError:
        return False
    return False
