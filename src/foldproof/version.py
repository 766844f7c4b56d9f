"""The version, which packaging reads here, too, and those of other packages."""

from __future__ import annotations

__version__ = "0.2.0"


def find_version(package: str) -> str:
    """Return the installed version of a package; that of foldproof is the one that runs."""
    if package == "foldproof":
        return __version__
    import importlib.metadata  # a third of the time that `foldproof --help` takes to start

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def find_requirements(extra: str) -> list[str]:
    """Return what an extra installs here, such as ``rich>=13.8``; nothing if foldproof itself is not installed."""
    import importlib.metadata
    import re
    import sys

    try:
        listed = importlib.metadata.requires("foldproof") or ()
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for one in listed:
        name, _, condition = (part.strip() for part in one.partition(";"))
        older = re.search(r"python_version < ['\"](\d+)\.(\d+)['\"]", condition)
        unneeded = older is not None and sys.version_info >= (int(older[1]), int(older[2]))
        if re.search(rf"extra == ['\"]{extra}['\"]", condition) and not unneeded:
            found.append(name)
    return found
