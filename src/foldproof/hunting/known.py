"""Published faults, by which a cluster is no news."""

from __future__ import annotations

import json
from importlib import resources

from foldproof.hunting.fault import Fault
from foldproof.hunting.setup import Setup

INDEX = "known.json"
"""A list of faults with ``compiler``, ``pass``, and the name of their folder in docs/findings; docs.make_findings."""


def find_known(setup: Setup, fault: Fault) -> str:
    """Return the names of published faults of the same pass; empty if there is none."""
    listed = json.loads(resources.files(__package__).joinpath(INDEX).read_text("utf-8"))
    same = [one["name"] for one in listed if one["compiler"] == setup.compiler and one["pass"] in _passes(fault)]
    return ", ".join(same)


def _passes(fault: Fault) -> list[str]:
    return [part.strip() for part in fault.name.split(",")]
