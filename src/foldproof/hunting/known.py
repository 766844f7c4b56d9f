"""Published faults, by which a cluster is no news."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from foldproof.hunting.fault import Fault
from foldproof.hunting.setup import Setup

INDEX = "known.json"
"""A list of faults, which docs.make_findings writes.

Each has the ``name`` of its folder in docs/findings, its ``compiler`` and ``pass``, and a true ``memory`` if values are
right, and share memory that they should not. No step of an audit names that fault.
"""


def find_known(setup: Setup, fault: Fault) -> str:
    """Return the names of published faults that may be this one; empty if there is none."""
    listed = json.loads(resources.files(__package__).joinpath(INDEX).read_text("utf-8"))
    alike = [one["name"] for one in listed if one["compiler"] == setup.compiler and _is_alike(one, fault)]
    return ", ".join(alike)


def _is_alike(published: Mapping[str, Any], fault: Fault) -> bool:
    if published["memory"]:
        return fault.difference == "memory"
    return published["pass"] in [part.strip() for part in fault.name.split(",")]
