"""Names in other packages that audits rely on, as data, so that `foldproof doctor` can look for each one."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar


@dataclass(frozen=True)
class External:
    """An attribute of ``module``: ``name``, or ``Class.name``."""

    module: str
    name: str

    @property
    def package(self) -> str:
        """Name of the installed package."""
        return self.module.partition(".")[0]

    @property
    def attribute(self) -> str:
        """Bare name of the attribute."""
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
        return owner if hasattr(owner, self.attribute) else None


Kind = TypeVar("Kind", bound=External)


def find_missing(externals: Iterable[Kind]) -> list[Kind]:
    """Return those that installed packages lack; not those whose module wants a package that is not installed."""
    return [
        one
        for one in externals
        if importlib.util.find_spec(one.package) is not None
        and one.find_owner() is None
        and not _wants_another_package(one)
    ]


def _wants_another_package(one: External) -> bool:
    try:
        importlib.import_module(one.module)
    except ModuleNotFoundError as error:
        return (error.name or "").partition(".")[0] != one.package
    except ImportError:
        return False
    return False
