"""Settings in ``pyproject.toml``: ``[tool.foldproof]`` for options of all commands, a table below for each command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foldproof.errors import FoldproofError, MissingExtra

FILE = "pyproject.toml"


Options = Mapping[str, str]
"""Options by their long names, without dashes before them, and what they are called in Python."""


def read_settings(folder: Path, options: Callable[[], Mapping[str, Options]]) -> dict[str, Any]:
    """Return the settings of the nearest ``pyproject.toml``, by the names of options in Python.

    Args:
        folder: the folder to begin in; then its parents are looked at.
        options: returns the options of each command; those of all commands under "".

    Raises:
        FoldproofError: the file can't be read, or has a setting that is no option.
    """
    file = next((place / FILE for place in (folder, *folder.parents) if (place / FILE).is_file()), None)
    if file is None:
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        found = _parsed(text).get("tool", {}).get("foldproof", {}) if "tool.foldproof" in text else {}
    except (OSError, ValueError) as error:
        raise FoldproofError(f"{file} can't be read ({error})") from error
    return _checked(found, options(), str(file)) if found else {}


def _parsed(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError as error:
            raise MissingExtra("tomli", "cli") from error
    return tomllib.loads(text)


def _checked(found: Mapping[str, Any], options: Mapping[str, Options], file: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, dict) and key in options:
            where = f"{file}: [tool.foldproof.{key}]"
            settings[key] = {_known(name, options[key], where): one for name, one in value.items()}
        else:
            settings[_known(key, options[""], f"{file}: [tool.foldproof]")] = value
    return settings


def _known(name: str, known: Options, where: str) -> str:
    if name not in known:
        raise FoldproofError(f"{where} has {name!r}, which is no option; there are: {', '.join(known)}")
    return known[name]
