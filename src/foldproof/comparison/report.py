"""A comparison as a page to give away: a bug report where it is a bug, an explanation where it is rounding."""

from __future__ import annotations

from foldproof.comparison.result import CompareResult
from foldproof.verdict import Kind


def report(result: CompareResult, title: str) -> str:
    """Markdown. Of a REFUTED comparison, the sections of PyTorch's bug template for torch.compile."""
    if result.kind is Kind.REFUTED:
        return _bug(result, title)
    return _explanation(result, title)


def _bug(result: CompareResult, title: str) -> str:
    verdict = result.verdict
    at = verdict.difference
    where = (
        f" The operator at fault is `{at.node}` (`{at.operator}`)" + (f", {at.source}." if at.source else ".")
        if at
        else ""
    )
    described = f"""\
# {title}: wrong result from {result.against}

### 🐛 Describe the bug

{_sentence(verdict.reason)}{where} This is not the rounding that compiled code may do otherwise: the difference is
beyond what rounding explains, as far as that was measured on this program.

{_table(result)}
"""
    if result.reproduction:
        described += f"""
### Minimal reproduction

Needs nothing but PyTorch; prints the distances of both to a float64 baseline.

```python
{result.reproduction.rstrip()}
```
"""
    else:
        described += """
### Minimal reproduction

The difference could not be brought down to a script by itself: run the comparison again on the program.
"""
    return described + f"\n### Error logs\n\n```\n{result}\n```\n\n### Versions\n\n{_versions(result)}\n"


def _explanation(result: CompareResult, title: str) -> str:
    rounding = result.kind is Kind.ROUNDING
    head = f"# {title} and {result.against}: {'rounding, not a bug' if rounding else 'not decided'}"
    text = [head, _sentence(result.verdict.reason)]
    if rounding and not result.identical:
        text.append(
            "Floating-point sums depend on the order of their terms, and no order is the right one. Running the program"
            " in float64 gives a result to measure both sides by; running it again with every operator's result moved"
            " at random within its own rounding gives the noise floor: how far correct implementations may be apart."
        )
    text.append(_table(result))
    if result.truth_distance:
        text.append(f"Distance to the float64 result: {result.truth_distance}.")
    if result.found:
        text.append(f"Where it comes from: {result.found}.")
    if result.sources:
        text.append("\n".join(f"- {source}" for source in result.sources[:5]))
    if result.verdict.notes:
        text.append("\n".join(f"- note: {note}" for note in result.verdict.notes))
    text.append(f"Versions: {', '.join(f'{k} {v}' for k, v in result.versions.items())}.")
    return "\n\n".join(text) + "\n"


def _table(result: CompareResult) -> str:
    rows = [
        ("verdict", str(result.kind)),
        ("inputs tried", str(result.inputs)),
    ]
    if result.largest > 0:
        rows.append(("largest difference", f"{result.largest:.3g}, on outputs up to {result.scale:.3g}"))
    if result.noise_floor:
        f = result.noise_floor
        rows.append(("noise floor (root mean square)", f"{f.size:.3g}"))
        rows.append(("difference (root mean square)", f"{f.difference:.3g}"))
        rows.append(
            ("distance to the float64 result, in sigmas", f"candidate {f.sigma:.3g}, reference {f.reference_sigma:.3g}")
        )
    if result.verdict.counterexample and result.verdict.counterexample.difference:
        w = result.verdict.counterexample
        where = f"{w.name or f'output {w.output}'} at {list(w.index)}"
        rows.append(("counterexample", f"{where}: reference {w.before:.9g}, candidate {w.after:.9g}"))
    return "\n".join(["| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)])


def _versions(result: CompareResult) -> str:
    return "\n".join(f"- {name} {version}" for name, version in result.versions.items())


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
