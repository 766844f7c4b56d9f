"""JUnit XML: each rewrite, pass or program with a verdict is a test case; REFUTED is a failure, UNDECIDED an error."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from foldproof.report.document import Document, validated
from foldproof.report.findings import findings

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PROBLEMS = {"REFUTED": "failure", "UNDECIDED": "error"}


def junit(document: Document) -> str:
    """The result as JUnit XML, for CI systems.

    Raises:
        FoldproofError: ``document`` does not conform to the schema.
    """
    found = findings(validated(document))
    problems = [PROBLEMS.get(one.kind) for one in found]
    counts = {"failures": problems.count("failure"), "errors": problems.count("error"), "skipped": 0}
    attributes = {"tests": str(len(found)), "time": f"{sum(one.seconds for one in found):.3f}"}
    attributes |= {name: str(count) for name, count in counts.items()}
    top = ElementTree.Element("testsuites")
    attributes |= {"name": f"foldproof {document['command']}"}
    suite = ElementTree.SubElement(top, "testsuite", attributes)
    for one, problem in zip(found, problems, strict=True):
        case = ElementTree.SubElement(
            suite, "testcase", classname=_clean(one.group), name=_clean(one.name), time=f"{one.seconds:.3f}"
        )
        where = f" (at {one.file}:{one.line})" if one.file else ""
        if problem is not None:
            ElementTree.SubElement(case, problem, message=_clean(one.text), type=one.kind).text = _clean(
                one.text + where
            )
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(f"{one.kind}: {one.text}{where}")
    ElementTree.indent(top)
    return ElementTree.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    """``text`` without characters that XML forbids."""
    return _FORBIDDEN.sub("\ufffd", text)
