"""A result as one HTML file with its styles, scripts and data; it needs no network."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from foldproof.errors import MissingExtra
from foldproof.formatting import SYMBOLS, format_bytes, format_count, format_part
from foldproof.report.document import Document, validated

WORST_FIRST = ("REFUTED", "UNDECIDED", "ROUNDING", "PROVED_WITHIN", "PROVED")


def html(document: Document) -> str:
    """The page of a result.

    Raises:
        FoldproofError: ``document`` does not conform to the schema.
        MissingExtra: jinja2 or jsonschema is not installed.
    """
    require()
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    document = validated(document)
    env = Environment(
        loader=PackageLoader("foldproof.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "place": place,
        "size": format_bytes,
        "sig": sig,
        "counted": format_count,
        "base": base_name,
        "power": power,
        "share": share,
        "flags": flags,
        "ratio": ratio,
        "worst_first": worst_first,
    }
    env.globals.update(
        symbol=SYMBOLS.__getitem__,
        asset=lambda name: Markup(_asset(name)),
        kinds=lambda rows: Counter(row["verdict"]["kind"] for row in rows),
    )
    command = document["command"]
    return env.get_template(f"{command}.html").render(
        document=document,
        kind=kind_of(document),
        title=f"foldproof {command}" + (f": {document['subject']}" if "subject" in document else ""),
        sentence=sentence(document),
        data=Markup(_embedded(document)),
    )


def require() -> None:
    """Raise MissingExtra if a page can't be made; to be called before hours of work."""
    try:
        import jinja2  # noqa: F401
        import jsonschema  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "jinja2", "report") from error


def kind_of(document: Document) -> str | None:
    """The verdict's kind, or None if there is no verdict."""
    if document["command"] in ("prove", "audit"):
        return str(document["kind"])
    if document["command"] == "pytest":
        kinds = {row["verdict"]["kind"] for row in document["tests"]}
        worst = next((kind for kind in WORST_FIRST if kind in kinds), None)
        return None if worst not in WORST_FIRST[:2] and failed_tests(document) else worst  # no green page
    return str(document["verdict"]["kind"]) if "verdict" in document else None


def sentence(document: Document) -> str:
    """The result in one sentence."""
    command = document["command"]
    if command == "audit":
        return str(document["conclusion"])
    if command == "prove":
        return str(document["reason"])
    if command == "compare":
        return str(document["verdict"]["reason"])
    if command == "pytest":
        kinds = Counter(row["verdict"]["kind"] for row in document["tests"])
        bad = [row for kind in WORST_FIRST[:2] for row in document["tests"] if row["verdict"]["kind"] == kind]
        told = ", ".join(f"{kinds[kind]} {kind.replace('_', ' ')}" for kind in WORST_FIRST if kinds[kind])
        told += f"; look at {bad[0]['test']} first" if bad else ""
        told = f"{format_count(len(document['tests']), 'verdict')}: {told}" if told else "no test asked for a verdict"
        failed, tests = len(failed_tests(document)), len(document.get("outcomes", ()))
        return told + f"; {failed} of {format_count(tests, 'test')} failed" * bool(failed)
    declined = len(document["declined"])
    if command == "explain":
        return f"{format_count(declined, 'operator')} not folded" if declined else "every normalisation can be folded"
    if command == "fuse":
        made = format_count(len(document["rewrites"]), "rewrite")
    else:
        chains = sum(bool(one["chain"]) for one in document["folded"])
        biases = len(document["folded"]) - chains
        made = f"{format_count(chains, 'operator')} folded" if chains else "nothing folded"
        made += f", {format_count(biases, 'bias', 'biases')} quantized" if biases else ""
    left = f", {declined} declined" if declined else ", nothing declined"
    return f"{made}{left}: {document['verdict']['reason']}"


def failed_tests(document: Document) -> list[str]:
    """Names of the tests that failed, whatever their verdicts."""
    return [one["test"] for one in document.get("outcomes", ()) if one["outcome"] in ("failed", "error")]


def place(source: str | None) -> str:
    """A source line, with the file's name and its innermost folder."""
    return "/".join(source.split("/")[-2:]) if source and "/" in source else source or ""


def base_name(operator: str) -> str:
    """``conv2d`` for ``aten.conv2d.default``, ``linear`` for ``<built-in function linear>``."""
    if operator.startswith("<"):
        return next(iter(re.findall(r"function (\w+)", operator)), operator)
    return operator.split(".")[1] if operator.count(".") > 1 else operator


def sig(value: float | str | None) -> str:
    """A number in three significant digits; NaN and infinities come as strings."""
    return "" if value is None else value if isinstance(value, str) else f"{value:.3g}"


def ratio(accuracy: Mapping[str, Any]) -> str:
    """The distance after a rewrite over that before, as on the terminal; NaN and infinities come as strings."""
    before, after, epsilon = (float(accuracy[name]) for name in ("before", "after", "epsilon"))
    return f"×{after / max(before, epsilon / 4):.2g}"


def worst_first(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, Mapping[str, Any]]]:
    """Number rows with a verdict, and list the worst first."""
    return sorted(enumerate(rows), key=lambda one: WORST_FIRST.index(one[1]["verdict"]["kind"]))


def flags(text: str) -> Any:
    """The text as HTML, without line breaks inside options such as ``--disable``."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"--[\w-]+", r'<span class="nowrap">\g<0></span>', str(escape(text))))


def share(of: float | str) -> str:
    """A part of a difference; NaN and infinities come as strings."""
    return of if isinstance(of, str) else format_part(of)


def power(log2: float) -> int:
    """The exponent of a bound, rounded up."""
    return math.ceil(log2)


def _asset(name: str) -> str:
    text = files("foldproof.report").joinpath(name).read_text(encoding="utf-8")
    assert "</script" not in text and "</style" not in text
    return re.sub(r"(?m)^//# sourceMappingURL=.*$", "", text)


def _embedded(document: Document) -> str:
    """JSON that is safe inside a script element, whatever its strings."""
    text = json.dumps(_drawable(document), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _drawable(document: Document) -> Any:
    """The data for the scripts; counterexamples, proofs and code are in the page already."""
    keep = ("command", "graphs", "graph", "outputs", "distances", "layers", "sources", "truth_distance", "noise_floor")
    out: dict[str, Any] = {name: document[name] for name in keep if name in document}
    for name, wanted in (("rewrites", ("reported", "result", "accuracy", "graphs")), ("steps", ("name", "graphs"))):
        if name in document:
            out[name] = [_picked(row, wanted) for row in document[name]]
    if document.get("end_to_end"):
        out["end_to_end"] = _drawable(document["end_to_end"])
    return out


def _picked(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}
