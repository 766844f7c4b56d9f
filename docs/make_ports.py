"""Writes docs/ports.md; by hand: ``python -m docs.make_ports FOLDER`` (minutes), with the ports' packages in FOLDER.

Each row runs in a process of its own, and is kept in ``FOLDER/rows``: what is there is not computed again.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import foldproof
from docs.writing import write_whole
from zoo.commit import name_commit
from zoo.ports import PACKAGES, PORTS, Port, installed

PAGE = Path(__file__).with_name("ports.md")
KINDS = {
    "PROVED": "the same function for every checkpoint",
    "PROVED_WITHIN": "the same, but for the rounding of the constants that are named",
    "ROUNDING": "no proof, and no difference that rounding would not explain",
    "REFUTED": "a different function",
    "UNDECIDED": "neither, for the reason given",
}

HEAD = """\
# Ports

`python -m docs.make_ports FOLDER` generates this page. Each row is a model that was implemented twice, most by other
people, or one that computes the same in two ways, in a small configuration: `foldproof.prove(reference, port, inputs,
convert=fn)` runs the conversion of checkpoints on shadows. PROVED is for every checkpoint of this configuration. [The
tutorial](tutorials/port.md) does it step by step.

```text
pip install --no-deps --target FOLDER {packages}
python -m docs.make_ports FOLDER
```

Made at commit `{commit}` with torch {torch} and transformers {transformers}. The configurations are in `zoo/ports/`.
"""


def main(folder: Path) -> None:
    """Prove all ports that have no row yet, then write the page."""
    rows = folder / "rows"
    rows.mkdir(exist_ok=True)
    for number, port in enumerate(PORTS):
        kept = rows / f"{number} {port.name}.json"
        if not kept.exists():
            process = multiprocessing.get_context("spawn").Process(target=prove_one, args=(folder, number, kept))
            process.start()
            process.join()
        if not kept.exists():
            raise SystemExit(f"{port.name} failed")
        sys.stderr.write(f"{number + 1}/{len(PORTS)} {port.name}: {json.loads(kept.read_text())['kind']}\n")
    verdicts = [json.loads((rows / f"{i} {port.name}.json").read_text("utf-8")) for i, port in enumerate(PORTS)]
    write_whole(PAGE, page(verdicts))


def prove_one(folder: Path, number: int, kept: Path) -> None:
    """Prove a port, and keep its verdict."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    installed(folder)
    pair = PORTS[number].pair()
    verdict = foldproof.prove(pair.reference, pair.port, pair.inputs, convert=pair.convert)
    write_whole(kept, json.dumps(verdict.to_dict()))


def page(verdicts: list[dict[str, Any]]) -> str:
    """Return the whole page."""
    packages, own = " ".join(PACKAGES), {"torch": torch.__version__, "transformers": version("transformers")}
    own["commit"] = name_commit()
    parts = [HEAD.format(packages=packages, **own), summary(verdicts), table(verdicts)]
    parts += [section(port, verdict) for port, verdict in zip(PORTS, verdicts)]
    return "\n".join(parts)


def summary(verdicts: list[dict[str, Any]]) -> str:
    """Return the number of ports with each kind of verdict."""
    counted = [(kind, sum(v["kind"] == kind for v in verdicts)) for kind in KINDS]
    return "\n".join(f"* **{kind}** {count}: {KINDS[kind]}" for kind, count in counted if count) + "\n"


def table(verdicts: list[dict[str, Any]]) -> str:
    """Return one line for each port."""
    lines = ["| model | reference | port | conversion | verdict | seconds |", "|---|---|---|---|---|---|"]
    for port, verdict in zip(PORTS, verdicts):
        cells = (port.name, port.reference, port.port, port.conversion, verdict["kind"], f"{verdict['seconds']:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def section(port: Port, verdict: dict[str, Any]) -> str:
    """Return the verdict of a port in full, with a remark of ours on it."""
    told = [f"{verdict['kind']}: {verdict['reason']}"]
    told += [f"  {e['label']}: {e['text']}" for e in verdict["evidence"]]
    remark = [port.remark, ""] if port.remark else []
    head = [f"## {port.name}: {port.reference} to {port.port}", "", *remark]
    return "\n".join([*head, "```text", *told, "```", ""])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
