"""Writes docs/findings/: audits the models below with the installed compilers, one folder and one page for each fault.

``python -m docs.make_findings`` audits where there is no folder yet, and runs each folder's program on the installed
versions for its page. Remove folders to audit anew, on a machine that does little else: programs are made smaller for
two minutes only.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import foldproof
from foldproof.auditing import replay
from foldproof.errors import FoldproofError
from tests.auditing.models import FOUND

FOLDER = Path(__file__).parent / "findings"
NAMES = {
    "executorch: linear, 3-D, BatchNorm": "executorch_linear_batch_norm_3d",
    "executorch: one conv weight, two BatchNorms": "executorch_shared_conv_weight",
    "executorch: conv, ReLU, Hardtanh": "executorch_two_activations",
    "torchao: conv, BatchNorm, BatchNorm": "torchao_two_batch_norms",
    "torchao: conv output read twice": "torchao_conv_read_twice",
    "torchao: tied linear": "torchao_tied_linear",
    "fx: conv called twice": "fx_conv_called_twice",
    "torchao: a buffer that is written to": "torchao_buffer_written",
    "inductor: freezing ConvTranspose2d, BatchNorm": "inductor_binary_folding_transposed",
    "inductor: matmul, add with alpha": "inductor_add_alpha",
    "inductor: scaled, less the largest of all": "inductor_less_largest",
    "inductor: whole numbers, less the largest": "inductor_whole_numbers",
    "inductor: cumsum in whole numbers": "inductor_cumsum",
    "inductor: freezing conv, sub with alpha": "inductor_binary_folding_alpha",
    "inductor: batch_linear over a write": "inductor_batch_linear_write",
    "inductor: batch_linear_lhs over a write": "inductor_batch_linear_lhs_write",
    "inductor: batch_aten_sub with alpha": "inductor_batch_sub_alpha",
    "inductor: batch_clamp with two minima": "inductor_batch_clamp",
    "inductor: batch_nan_to_num with a number": "inductor_batch_nan_to_num",
    "inductor: batch_relu in place": "inductor_batch_relu_in_place",
    "inductor: batch_dropout in eval mode": "inductor_batch_dropout",
}

_UNNAMED = (
    "The pattern matcher takes a call for a match whatever keyword arguments it has that the pattern does not name"
    " (`CallFunction` in `torch/_inductor/pattern_matcher.py`), so `{}` is lost."
)
_POSITIONAL = "Only keyword arguments are compared and handed on: positional ones are lost."
CAUSES = {
    "inductor: matmul, add with alpha": _UNNAMED.format("alpha"),
    "inductor: cumsum in whole numbers": _UNNAMED.format("dtype"),
    "inductor: freezing conv, sub with alpha": _UNNAMED.format("alpha"),
    "inductor: scaled, less the largest of all": "`_other_is_broadcasted_in_dim` asks whether the factor is the same"
    " along each dimension that is reduced, and `amax` without a dimension, which reduces all, names none.",
    "inductor: whole numbers, less the largest": "The conversion moves in front of the product, as if its dtype were"
    " one of floating point.",
    "inductor: batch_linear_lhs over a write": "The layers are joined where the first one stood.",
    "inductor: batch_linear over a write": "The layers are joined where the first one stood.",
    "inductor: batch_aten_sub with alpha": "`alpha` is handed on for `add` only.",
    "inductor: batch_clamp with two minima": _POSITIONAL,
    "inductor: batch_nan_to_num with a number": _POSITIONAL,
    "inductor: batch_dropout in eval mode": f"{_POSITIONAL} So dropout has its default, which is to drop half.",
    "inductor: batch_relu in place": "What is rectified in place is the stacked copy.",
}
"""Seen in the sources of the release."""


def main() -> None:
    rows = []
    for case, name in NAMES.items():
        folder = FOLDER / name
        if not (folder / "verdict.json").exists():
            _audit(case, folder)
        told = json.loads((folder / "verdict.json").read_text())
        try:
            state = replay(folder)[1]
        except FoldproofError as error:
            state = str(error)
        (FOLDER / f"{name}.md").write_text(_page(case, folder, told, state))
        rows.append(f"| [{case}]({name}.md) | `{told['pass']}` | {state.split(':')[0]} |")
    head = [
        "# Findings",
        "",
        "Wrong answers of released compilers, found and proved by `foldproof audit`. Each has a folder with a program",
        "that stands alone; `foldproof replay FOLDER` runs it on the versions that are installed.",
        "",
        "| what | pass | state |",
        "|---|---|---|",
    ]
    (FOLDER / "README.md").write_text("\n".join([*head, *rows]) + "\n")


def _audit(case: str, folder: Path) -> None:
    wrong = FOUND[case]
    model, inputs = wrong.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = foldproof.audit(model, inputs, compiler=wrong.compiler, options=wrong.options)
        if not found.refuted:
            raise SystemExit(f"{case}: nothing is wrong any more: {found.conclusion}")
        found.save(folder)


def _page(case: str, folder: Path, told: dict[str, Any], state: str) -> str:
    witness = told["verdict"]["witness"]
    whole = told["end_to_end"]
    lines = [
        f"# {case}",
        "",
        f"**Pass:** `{told['pass']}` of {told['compiler']}. **State:** {state}.",
        "",
        "```python",
        (folder / "repro.py").read_text().rstrip(),
        "```",
        "",
        f"**Witness** (in the model that it was found in): {witness['description']}, output {witness['output']} at"
        f" {witness['index']} is {witness['before']:.6g} before the pass and {witness['after']:.6g} after it, where"
        f" rounding explains {witness['floor']:.2g}.",
        "",
        *([f"**Cause:** {CAUSES[case]}", ""] if case in CAUSES else []),
        f"**End to end**, {whole['compiled']} against the model: largest difference {whole['largest_difference']:.3g}"
        f" on outputs up to {whole['largest_magnitude']:.3g}.",
        "",
        f"Found with {', '.join(f'{k} {v}' for k, v in told['versions'].items())}. In its folder:"
        f" [the program]({folder.name}/repro.py),"
        f" [the graphs before and after the pass]({folder.name}/graphs.py) as Python,"
        f" [a report]({folder.name}/report.md) in the upstream's form,"
        f" [the verdict]({folder.name}/verdict.json).",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
