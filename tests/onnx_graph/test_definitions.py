"""The definitions of ONNX operators, on the examples of ONNX's specification, and against ONNX Runtime."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

from foldproof.onnx_graph import DEFINITIONS, NotTranslated, read_graph
from foldproof.onnx_graph.functions import is_function

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

_UNREADABLE = ("can't convert np.ndarray", "float8", "is no tensor", "data type")


@functools.cache
def examples() -> dict[str, Any]:
    """The examples of ONNX's specification of which each operator has a definition."""
    from onnx.backend.test.case.node import collect_testcases

    def is_defined(node: Any) -> bool:
        known = (node.domain, node.op_type) in DEFINITIONS or node.op_type == "Constant"
        parts = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        return (known or is_function(node.domain, node.op_type, 23)) and all(
            map(is_defined, (inner for part in parts for inner in part.node))
        )

    return {case.name: case for case in collect_testcases(None) if all(map(is_defined, case.model.graph.node))}


KINDS = sorted({name.split("_")[1] for name in examples()})


@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_the_specification(kind: str) -> None:
    checked = 0
    for name, case in examples().items():
        if name.split("_")[1] != kind or "fp16" in name:
            continue
        for given, wanted in case.data_sets:
            if not all(_is_number(x) for x in (*given, *wanted)):
                continue
            (version, *_) = case.model.opset_import
            if any(node.op_type in OF_OLD for node in case.model.graph.node) and name != SCAN_OF_OLD:
                version.version = max(13, version.version)
            try:
                got = read_graph(case.model)(*(torch.from_numpy(np.array(x)) for x in given))
            except NotTranslated:
                continue
            for x, y in zip(got if isinstance(got, tuple) else (got,), wanted):
                assert tuple(x.shape) == np.shape(y), name
                expected = torch.from_numpy(np.array(y))
                torch.testing.assert_close(
                    x, expected, rtol=1e-3, atol=1e-5, equal_nan=True, msg=lambda m: f"{name}: {m}"
                )
                checked += 1
    assert checked or kind in NOTHING_TO_CHECK, f"no example of {kind} was checked"


OF_OLD = {
    *("And", "MatMulInteger", "Not", "Or", "Xor", "If", "Loop", "Scan", "ConvInteger", "QLinearConv", "MaxUnpool"),
    *("Compress", "ReverseSequence", "SequenceInsert", "SequenceEmpty", "SequenceLength", "Shrink", "ThresholdedRelu"),
}
"""Operators whose examples are of versions that foldproof does not read, and which have not changed since."""


SCAN_OF_OLD = "test_scan_sum"
"""An example of the operator before its inputs changed."""

NOTHING_TO_CHECK = {
    *("bernoulli", "cast", "castlike", "dynamicquantizelinear", "loop11", "loop13", "scan", "sequence", "training"),
    "upsample",
}
"""Kinds of examples that are refused, or are no arrays; ONNX Runtime checks some of these."""


_DTYPES = {"float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool"}
"""NumPy's names of the dtypes that both libraries read."""


def _is_number(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic) and np.asarray(x).dtype.name in _DTYPES
