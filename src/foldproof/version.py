"""The version, which packaging reads here, too, and those of other packages."""

from __future__ import annotations

import importlib.metadata

__version__ = "0.2.0"


def find_version(package: str) -> str:
    """Return the installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
