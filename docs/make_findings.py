"""Writes docs/findings/: audits the models below with the installed compilers, one folder and one page for each fault.

``python -m docs.make_findings`` audits the models without a folder, and runs the program of each folder on the
installed versions. To audit again, remove folders; use an otherwise idle machine, since the reduction of a program
stops after two minutes.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import foldproof
from foldproof.auditing import replay
from foldproof.errors import FoldproofError
from foldproof.report.migration import migrate
from foldproof.verdict import Kind
from tests.auditing.models import FOUND

FOLDER = Path(__file__).parent / "findings"
NEWER, RUN_AGAIN = "2.14.1", ("fx", "inductor", "torchao")
"""A later release of torch, and the compilers whose programs were run with it; each that was right is in ``fixed``."""
INDEX = FOLDER.parent.parent / "src/foldproof/hunting/known.json"
"""The faults as `foldproof hunt` knows them."""
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
    "inductor: places of max pooling, transposed": "inductor_max_pool_places",
    "inductor: freezing conv, sub with alpha": "inductor_binary_folding_alpha",
    "inductor: batch_linear over a write": "inductor_batch_linear_write",
    "inductor: batch_linear_lhs over a write": "inductor_batch_linear_lhs_write",
    "inductor: batch_aten_sub with alpha": "inductor_batch_sub_alpha",
    "inductor: batch_clamp with two minima": "inductor_batch_clamp",
    "inductor: batch_nan_to_num with a number": "inductor_batch_nan_to_num",
    "inductor: batch_relu in place": "inductor_batch_relu_in_place",
    "inductor: batch_dropout in eval mode": "inductor_batch_dropout",
    "inductor: attention along another dimension": "inductor_attention_dim",
    "inductor: index_put_, then added to its mirror": "inductor_index_put_mirror",
    "openvino: cumsum of booleans": "openvino_cumsum_of_booleans",
    "inductor: slice_scatter before a write": "inductor_scatter_before_write",
    "inductor: an operator on lists that reads its mirror": "inductor_foreach_mirror",
    "inductor: zeros and a tensor, the tensor itself": "inductor_zeros_added",
    "inductor: cumsum of ones in one column": "inductor_cumsum_expanded",
}


SEARCHED = "September 2026"
"""The last month of the public threads that were searched."""
REPORTED = {
    "fx: conv called twice": ("pytorch/pytorch#197539", "pytorch/pytorch#104593"),
    "inductor: attention along another dimension": ("pytorch/pytorch#196468",),
    "inductor: batch_aten_sub with alpha": ("pytorch/pytorch#195442",),
    "inductor: batch_clamp with two minima": ("pytorch/pytorch#190976",),
    "inductor: batch_dropout in eval mode": ("pytorch/pytorch#190976",),
    "inductor: batch_nan_to_num with a number": ("pytorch/pytorch#190976",),
    "inductor: an operator on lists that reads its mirror": ("pytorch/pytorch#198033",),
    "inductor: cumsum in whole numbers": ("pytorch/pytorch#189518",),
    "inductor: index_put_, then added to its mirror": ("pytorch/pytorch#198270",),
    "inductor: places of max pooling, transposed": ("pytorch/pytorch#197434",),
    "inductor: slice_scatter before a write": ("pytorch/pytorch#198096",),
}
"""Public threads on the same fault."""
RELATED = {
    "executorch: linear, 3-D, BatchNorm": (
        "the same fold in torchao and in ExecuTorch's NXP backend",
        ("pytorch/ao#4116", "pytorch/executorch#17736"),
    ),
    "executorch: one conv weight, two BatchNorms": ("the same fold in torchao", ("pytorch/ao#2795",)),
    "inductor: freezing conv, sub with alpha": (
        "`add` with alpha after a convolution, fixed since",
        ("pytorch/pytorch#122382",),
    ),
    "inductor: matmul, add with alpha": (
        "alpha and beta are lost where `addmm` is taken apart",
        ("pytorch/pytorch#167313", "pytorch/pytorch#196577"),
    ),
    "inductor: scaled, less the largest of all": (
        "the same pattern, with numbers that overflow",
        ("pytorch/pytorch#163932",),
    ),
    "inductor: whole numbers, less the largest": ("the same pattern fails for booleans", ("pytorch/pytorch#196743",)),
    "inductor: zeros and a tensor, the tensor itself": ("the same for scalars", ("pytorch/pytorch#197893",)),
    "torchao: a buffer that is written to": ("`index_put_` loses its buffer", ("pytorch/ao#4138",)),
    "torchao: tied linear": ("convolutions that share a weight", ("pytorch/ao#2795",)),
}
"""Public threads on a fault nearby, and what those are about."""


_UNNAMED = (
    "The pattern matcher ignores keyword arguments that the pattern does not name (`CallFunction` in"
    " `torch/_inductor/pattern_matcher.py`), so `{}` is lost."
)
_POSITIONAL = "Only keyword arguments are compared and passed on; positional ones are lost."
CAUSES = {
    "inductor: matmul, add with alpha": _UNNAMED.format("alpha"),
    "inductor: cumsum in whole numbers": _UNNAMED.format("dtype"),
    "inductor: places of max pooling, transposed": "Where a window is reduced by a loop, its dimensions are put in the"
    " order of the strides. `argmax` counts in that order, and the count is read in the order of the dimensions. The"
    " gradients of such a max pooling are wrong, too.",
    "inductor: freezing conv, sub with alpha": _UNNAMED.format("alpha"),
    "inductor: scaled, less the largest of all": "`_other_is_broadcasted_in_dim` checks that the factor is constant"
    " along each reduced dimension, but `amax` without a dimension reduces all and names none.",
    "inductor: whole numbers, less the largest": "The conversion moves in front of the product, as if it converted to"
    " floating point.",
    "inductor: batch_linear_lhs over a write": "The fused layer takes the place of the first one, before the write.",
    "inductor: batch_linear over a write": "The fused layer takes the place of the first one, before the write.",
    "inductor: batch_aten_sub with alpha": "`alpha` is passed on for `add` only.",
    "inductor: batch_clamp with two minima": _POSITIONAL,
    "inductor: batch_nan_to_num with a number": _POSITIONAL,
    "inductor: batch_dropout in eval mode": f"{_POSITIONAL} Dropout then uses its default and drops half.",
    "inductor: index_put_, then added to its mirror": "A loop that writes to the input, and one that reads other places"
    " of it, become one kernel.",
    "openvino: cumsum of booleans": "PyTorch adds up booleans as int64. The converter leaves the operand boolean, which"
    " the kernels hold in bytes: behind 255 follows 0. Position ids are counted from masks in this way.",
    "inductor: attention along another dimension": "The pattern ignores the dimension of the softmax. Its"
    " replacement takes the last one. Found by `foldproof hunt`.",
    "inductor: slice_scatter before a write": "The copy with other rows is written into the memory of the input, which"
    " is written again before the copy is read.",
    "inductor: an operator on lists that reads its mirror": "The loop reads elements that other iterations write.",
    "inductor: zeros and a tensor, the tensor itself": "`remove_no_ops` in `torch/_inductor/fx_passes/joint_graph.py`"
    " replaces a sum with zeros (a product with ones) by its operand, even if that is an input, and the sum an output."
    " A write to the output then changes the input. Found by `foldproof hunt`.",
    "inductor: cumsum of ones in one column": "`pointless_cumsum_replacement` returns one column, expanded. All columns"
    " are one memory, so that a write to one element changes others, and `add_` raises an error."
    " Found by `foldproof hunt`.",
    "inductor: batch_relu in place": "The stacked copy is rectified in place, not the inputs.",
}
"""Causes found in the source code of the release."""


def main() -> None:
    assert {*REPORTED, *RELATED} <= {*NAMES} and not {*REPORTED} & {*RELATED}
    rows, faults = [], {}
    for case, name in NAMES.items():
        folder = FOLDER / name
        if not (folder / "verdict.json").exists():
            _audit(case, folder)
        told = migrate(json.loads((folder / "verdict.json").read_text()))
        faults[name] = told, _pass(case, told)
        try:
            state = replay(folder)[1]
        except FoldproofError as error:
            state = str(error)
        if FOUND[case].fixed and not FOUND[case].is_fixed:
            state += f"; fixed in torch {FOUND[case].fixed}"
        elif FOUND[case].compiler in RUN_AGAIN:
            state += f"; still wrong with torch {NEWER}"
        (FOLDER / f"{name}.md").write_text(_page(case, folder, told, state))
        rows.append(
            f"| [{case}]({name}.md) | `{_pass(case, told)}` | {re.sub(r':[^;]*', '', state)} | {_threads(case)} |"
        )
    head = [
        "# Findings",
        "",
        "Wrong answers of released compilers, found by `foldproof audit`, each with a counterexample. Each has a",
        "folder with a self-contained program; `foldproof replay FOLDER` runs it on the installed versions. Public",
        f"issues and pull requests up to {SEARCHED} were searched for each.",
        "",
        "| model | pass | state | public thread |",
        "|---|---|---|---|",
    ]
    index = [
        {"name": name, "compiler": told["compiler"], "pass": culprit, "memory": "verdict" not in told}
        for name, (told, culprit) in faults.items()
    ]
    INDEX.write_text(json.dumps(index, indent=1) + "\n")
    (FOLDER / "README.md").write_text("\n".join([*head, *rows]) + "\n")


def _audit(case: str, folder: Path) -> None:
    wrong = FOUND[case]
    model, inputs = wrong.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = foldproof.audit(model, inputs, compiler=wrong.compiler, options=wrong.options)
        if found.kind is not Kind.REFUTED:
            raise SystemExit(f"{case}: nothing is wrong any more: {found.conclusion}")
        found.save(folder)


def _page(case: str, folder: Path, told: dict[str, Any], state: str) -> str:
    whole = told["end_to_end"]
    lines = [
        f"# {case}",
        "",
        f"**Pass:** `{_pass(case, told)}` of {told['compiler']}. **State:** {state}.",
        "",
        "```python",
        (folder / "repro.py").read_text().rstrip(),
        "```",
        "",
        *_differs(told),
        "",
        *([f"**Cause:** {CAUSES[case]}", ""] if case in CAUSES else []),
        f"**Public thread:** {_threads(case)}.",
        "",
        *([*_end(whole), ""] if "verdict" in told else []),
        f"Found with {', '.join(f'{k} {v}' for k, v in told['versions'].items())}. In its folder:"
        f" [the program]({folder.name}/repro.py),"
        + f" [the graphs before and after the pass]({folder.name}/graphs.py) as Python,"
        * ("verdict" in told)
        + f" [a report]({folder.name}/report.md) in the project's format,"
        f" [the verdict]({folder.name}/verdict.json).",
        "",
    ]
    return "\n".join(lines)


def _pass(case: str, told: dict[str, Any]) -> str:
    """The pass that is wrong: as the audit names it, or as somebody found it."""
    return str(told.get("pass", FOUND[case].culprit))


def _threads(case: str) -> str:
    """The public threads on a fault, or on one nearby."""
    if case in REPORTED:
        return ", ".join(map(_linked, REPORTED[case]))
    about, threads = RELATED.get(case, ("", ()))
    return "none found" + f"; near: {', '.join(map(_linked, threads))} ({about})" * bool(threads)


def _linked(thread: str) -> str:
    project, _, number = thread.partition("#")
    return f"[{thread}](https://github.com/{project}/issues/{number})"  # of a pull request, too: it is redirected


def _differs(told: dict[str, Any]) -> list[str]:
    """A paragraph on the numbers, or on the memory, that differ."""
    if "verdict" not in told:
        return [f"**Difference:** {told['end_to_end']['verdict']['reason']}."]
    shown = told["verdict"]["counterexample"]
    return [
        f"**Counterexample** (in the original model): {shown['description']}, output {shown['output']} at"
        f" {shown['index']} is {shown['before']:.6g} before the pass and {shown['after']:.6g} after it, where rounding"
        f" explains {shown['floor']:.2g}."
    ]


def _end(whole: dict[str, Any]) -> list[str]:
    return [
        f"**End to end**, {whole['compiled']} against the model: largest difference {whole['largest_difference']:.3g}"
        f" on outputs up to {whole['largest_magnitude']:.3g}."
    ]


if __name__ == "__main__":
    main()
