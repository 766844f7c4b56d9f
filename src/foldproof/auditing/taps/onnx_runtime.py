"""ONNX Runtime's optimizers: the graph that they make of a file at a level, and those that make a graph wrong.

A level runs its optimizers over and over until none changes the graph, so that there is no graph between two of them.
Any of them can be left out by its name. Their names are in the log that ONNX Runtime writes while it loads a file.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foldproof.log import giving_up

_RULES = "Level1_RuleBasedTransformer"
"""The optimizer that applies the rules of the first level; its log does not tell which."""
_RULES_OF_FIRST_LEVEL = (
    *("EliminateIdentity", "EliminateSlice", "UnsqueezeElimination", "EliminateDropout", "ExpandElimination"),
    *("CastElimination", "PreShapeNodeElimination", "NoopElimination", "DivMulFusion", "FuseReluClip", "GemmSumFusion"),
    *("GemmTransposeFusion", "NotWhereFusion", "ConvAddFusion", "ConvMulFusion", "ConvBNFusion", "Pad_Fusion"),
    *("MatMul_BatchNormalization_Fusion", "ClipQuantRewrite", "LabelEncoderFusion", "GatherToSliceFusion"),
)
_CHANGED = re.compile(r"GraphTransformer (\w+) modified: 1 ")
_TRIED = re.compile(r"Applying graph transformer (\w+) on step")


@dataclass(frozen=True)
class Optimized:
    """The file that ONNX Runtime made of another, and the names of the optimizers that changed something."""

    path: Path
    optimizers: tuple[str, ...]


def optimize(path: Path, level: Any, without: Collection[str] = ()) -> Optimized:
    """Let ONNX Runtime optimize a model at a level, without some optimizers; the result is beside it."""
    result = path.with_name(f"{path.stem}.{level.name}.{len(without)}.onnx")
    with _log() as lines:
        _load(path, level, without, log_severity_level=1, optimized_model_filepath=str(result))
    return Optimized(result, tuple(name for name in _names(_CHANGED, lines) if name not in without))


def list_optimizers(path: Path, level: Any) -> tuple[str, ...]:
    """Return the optimizers that ONNX Runtime tries on a model, to the end or until one of them fails."""
    with _log() as lines, giving_up("loading a file in ONNX Runtime"):
        _load(path, level, (), log_severity_level=0)
    return _names(_TRIED, lines)


def _load(path: Path, level: Any, without: Collection[str], **settings: Any) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    for name, value in ({"graph_optimization_level": level} | settings).items():
        setattr(options, name, value)
    onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=sorted(without)
    )


def _names(told: re.Pattern[str], lines: Sequence[str]) -> tuple[str, ...]:
    """Return the optimizers of which the log tells this, with the rules of the first level one by one."""
    found = dict.fromkeys(match.group(1) for line in lines if (match := told.search(line)))
    return tuple(name for one in found for name in (_RULES_OF_FIRST_LEVEL if one == _RULES else (one,)))


@contextmanager
def _log() -> Iterator[list[str]]:
    """Hold back what native code writes to stderr, and fill the list with its lines at the end."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        lines: list[str] = []
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


def find_needed(names: Sequence[str], is_wrong: Callable[[frozenset[str]], bool]) -> tuple[str, ...]:
    """Return a smallest part of ``names`` that is still wrong, where ``is_wrong`` takes the ones that are left out.

    No name of the part can be left out. Halves are tried before single names. Empty if all of them are not wrong.
    """
    if not is_wrong(frozenset()):
        return ()
    without, step = frozenset[str](), len(names)
    while step:
        for i in range(0, len(names), step):
            more = without.union(names[i : i + step])
            if more != without and is_wrong(more):
                without = more
        step //= 2
    return tuple(name for name in names if name not in without)
