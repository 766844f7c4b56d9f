"""Makes all computed pages at one commit, and docs/made.md, which tells how: ``make docs-all`` (many hours).

A page that docs/made.md has at this commit already is not made again, so that a run that was stopped goes on; most of
the long ones keep their parts, too. ``python -m docs.make_all rules commands`` makes these alone.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from docs.writing import write_whole
from zoo.commit import name_commit

PAGE = Path(__file__).with_name("made.md")


@dataclass(frozen=True)
class Made:
    """A page below docs/, and the module of docs/ that makes it, with its arguments."""

    page: str
    module: str
    arguments: tuple[str, ...] = ()


PAGES = (
    Made("commands.md", "make_commands"),
    Made("howto/audit.md", "make_compilers"),
    Made("schema.md", "make_schema"),
    Made("fuse.svg", "make_picture"),
    Made("tutorials/first_proof.ipynb", "make_notebook"),
    Made("rules.md", "make_rules"),
    Made("operators.md", "make_operators"),
    Made("matrix.md", "make_matrix"),
    Made("ports.md", "make_ports", ("build/ports",)),
    Made("backwards.md", "make_backwards"),
    Made("findings/README.md", "make_findings"),
    Made("known_faults.md", "make_known_faults"),
    Made("benchmarks.md", "make_benchmarks"),
    Made("compare.md", "make_compare"),
    Made("alternatives.md", "make_alternatives"),
    Made("self_proof.md", "make_self_proof"),
    Made("volume.md", "make_volume"),
    Made("zoo.md", "make_zoo"),
    Made("lowering.md", "make_lowering"),
    Made("audit_zoo.md", "make_audit_zoo", ("audit_zoo",)),
    Made("audit_onnx.md", "make_audit_zoo", ("audit_onnx",)),
    Made("audit_openvino.md", "make_audit_zoo", ("audit_openvino",)),
    Made("audit_training.md", "make_audit_zoo", ("audit_training",)),
)
"""From seconds to hours."""

HEAD = """\
# How these pages are made

`make docs-all` makes the pages with computed results, all at one commit, and goes on after an interruption. The table
says which page was made last at which commit, and its processor time, with all its processes. A part that was kept from
an earlier run takes none. Pages that have no row yet name their commit themselves.

| page | made by | commit | CPU seconds |
|---|---|---|---|
"""


def main(*names: str) -> int:
    """Make the pages, all or those of ``names``; returns 1 if one failed, after all others."""
    commit = name_commit()
    wanted = [one for one in PAGES if not names or one.module.removeprefix("make_") in names]
    failed = []
    for one in wanted:
        rows = read_rows()
        if rows.get(one.page, ("", ""))[0] == commit:
            continue
        sys.stderr.write(f"{one.page}\n")
        before = _seconds()
        if subprocess.run([sys.executable, "-m", f"docs.{one.module}", *one.arguments], check=False).returncode:
            failed.append(one.page)
            continue
        rows[one.page] = commit, f"{_seconds() - before:.0f}"
        write_whole(PAGE, page(rows))
    if failed:
        sys.stderr.write(f"not made: {', '.join(failed)}\n")
    return int(bool(failed))


def page(rows: dict[str, tuple[str, str]]) -> str:
    """The page of these rows: commit and seconds, by page."""
    lines = []
    for one in PAGES:
        if one.page in rows:
            commit, seconds = rows[one.page]
            command = " ".join([f"python -m docs.{one.module}", *one.arguments])
            lines.append(f"| [{one.page}]({one.page}) | `{command}` | `{commit}` | {seconds} |\n")
    return HEAD + "".join(lines)


def read_rows() -> dict[str, tuple[str, str]]:
    """The rows that the page has."""
    rows = {}
    for line in PAGE.read_text("utf-8").splitlines() if PAGE.exists() else ():
        if line.startswith("| ["):
            name, _, commit, seconds = (cell.strip() for cell in line.strip("|").split("|"))
            rows[name[1 : name.index("]")]] = commit.strip("`"), seconds
    return rows


def _seconds() -> float:
    """The processor time of the processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
