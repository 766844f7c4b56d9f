"""JUnit XML: each rewrite, pass or program with a verdict is a test case; REFUTED is a failure, UNDECIDED an error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from foldproof.report.document import Document, validated
from foldproof.report.findings import Finding, findings, place_of_test

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PROBLEMS = {"REFUTED": "failure", "UNDECIDED": "error"}
OUTCOMES = {"failed": "failure", "error": "error", "skipped": "skipped"}


@dataclass(frozen=True)
class _Case:
    """A test case; ``problem`` is the name of its element, if it has one, of class ``kind``."""

    group: str
    name: str
    seconds: float
    text: str
    problem: str | None = None
    kind: str = ""
    told: str = ""


def junit(document: Document) -> str:
    """The result as JUnit XML, for CI systems.

    Of a run of pytest, each test is a case, with the outcome that pytest gives it; its verdicts are its output.

    Raises:
        FoldproofError: ``document`` does not conform to the schema.
    """
    found = findings(validated(document))
    cases = list(_tests(document, found) if "outcomes" in document else map(_case, found))
    problems = [one.problem for one in cases]
    attributes = {
        "tests": str(len(cases)),
        "time": f"{sum(one.seconds for one in cases):.3f}",
        **{f"{name}s": str(problems.count(name)) for name in ("failure", "error")},
        "skipped": str(problems.count("skipped")),
        "name": f"foldproof {document['command']}",
    }
    top = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(top, "testsuite", attributes)
    for one in cases:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_clean(one.group), name=_clean(one.name), time=f"{one.seconds:.3f}"
        )
        if one.problem is not None:
            ElementTree.SubElement(case, one.problem, message=_clean(one.text), type=one.kind).text = _clean(one.told)
        elif one.told:
            ElementTree.SubElement(case, "system-out").text = _clean(one.told)
    ElementTree.indent(top)
    return ElementTree.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


def _case(one: Finding) -> _Case:
    where = f" (at {one.file}:{one.line})" if one.file else ""
    problem = PROBLEMS.get(one.kind)
    told = one.text + where if problem else f"{one.kind}: {one.text}{where}"
    return _Case(one.group, one.name, one.seconds, one.text, problem, one.kind, told)


def _tests(document: Document, found: Sequence[Finding]) -> Iterator[_Case]:
    """A case for each test of a run of pytest, whether it asked for a verdict or not."""
    for one in document["outcomes"]:
        place, name = place_of_test(one["test"])
        told = "\n".join(f"{v.kind}: {v.text}" for v in found if (v.group, v.name) == (place, name))
        text = one["message"].partition("\n")[0]
        problem = OUTCOMES.get(one["outcome"])
        whole = "\n".join(part for part in (one["message"], told) if part) if problem else told
        yield _Case(place, name, one["seconds"], text, problem, one["outcome"], whole)


def _clean(text: str) -> str:
    """``text`` without characters that XML forbids."""
    return _FORBIDDEN.sub("\ufffd", text)
