"""Writes docs/schema.md, from the schema of results. Run by ``make docs``; by hand: ``python -m docs.make_schema``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs.writing import write_whole
from foldproof.report.document import schema

PAGE = Path(__file__).with_name("schema.md")

HEAD = """\
# The JSON of a result

<!-- Written by docs/make_schema.py: run `make docs`, don't edit. -->

The keys of the files that `--json` writes, from their [JSON Schema](result-2.schema.json). Every file has `schema` (the
version, {version}), `command`, and mostly `subject` (the program, as the user named it) and `foldproof` (the version of
foldproof). The other keys depend on the command. Keys marked * are always there. A version may gain keys, but no key
changes its meaning.
"""


def page() -> str:
    """A table of keys for each command, then for each part that these name."""
    whole = schema()
    commands = whole["properties"]["command"]["enum"]
    parts = whole["$defs"]
    out = [HEAD.format(version=whole["properties"]["schema"]["const"])]
    for name in [*commands, *(name for name in parts if name not in commands)]:
        out.append(f"## {name}\n")
        out += list(_section(parts[name]))
    return "\n".join(out)


def _section(part: Mapping[str, Any]) -> Iterator[str]:
    if "description" in part:
        yield f"{part['description']}\n"
    for one in part.get("allOf", ()):
        yield f"All keys of {_type(one)}, and:\n"
    rows = list(_rows(part))
    if rows:
        yield "| key | value | meaning |\n|---|---|---|"
        yield from rows
        yield ""
    else:
        yield f"{_type(part)}\n"


def _rows(part: Mapping[str, Any], above: str = "") -> Iterator[str]:
    required = part.get("required", ())
    for key, value in part.get("properties", {}).items():
        name = f"{above}{key}"
        yield f"| `{name}`{'*' if key in required else ''} | {_type(value)} | {value.get('description', '')} |"
        yield from _rows(value, f"{name}.")
        yield from _rows(value.get("items", {}), f"{name}[].")


def _type(value: Mapping[str, Any]) -> str:
    """The kinds of value that a schema allows, in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name})"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    for several in ("anyOf", "oneOf"):
        if several in value:
            return " or ".join(_type(one) for one in value[several])
    names = value.get("type", "any")
    told = " or ".join([names] if isinstance(names, str) else names)
    if "items" in value and told.startswith("array"):
        return told.replace("array", f"array of {_type(value['items'])}", 1)
    if isinstance(value.get("additionalProperties"), Mapping):
        return f"{told}, each value {_type(value['additionalProperties'])}"
    return told


def write() -> None:
    write_whole(PAGE, page())


if __name__ == "__main__":
    write()
