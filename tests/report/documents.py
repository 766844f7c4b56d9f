"""A made-up result as large as they come, for what has to stay quick."""

from __future__ import annotations

from typing import Any

VERDICT = {
    "schema": 2,
    "kind": "PROVED",
    "reason": "the same function over the real numbers",
    "claim": None,
    "notes": [],
    "seconds": 0.1,
    "proof": None,
    "steps": [],
    "rounding": None,
    "difference": None,
    "counterexample": None,
    "evidence": [],
}


def node(name: str, operator: str, inputs: list[str], module: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "call",
        "operator": f"aten.{operator}.default",
        "inputs": inputs,
        "shape": [2, 8, 14, 14],
        "dtype": "float32",
        "module": module,
        "source": f"model.py:{len(name)}",
    }


def large_fuse(operators: int) -> dict[str, Any]:
    """A fusion of a residual network of so many operators: blocks of conv, batch_norm, relu and add, in stages."""
    before: list[dict[str, Any]] = [{"name": "x", "kind": "input", "operator": "x", "inputs": []}]
    after = list(before)
    rewrites = []
    last = "x"
    for i in range(operators // 4):
        module = f"stages.{i // 100}.blocks.{i % 100}"
        conv, norm, relu, add = (f"{name}_{i}" for name in ("conv2d", "batch_norm", "relu", "add"))
        head = node(conv, "conv2d", [last], f"{module}.conv")
        middle = node(norm, "batch_norm", [conv], f"{module}.bn")
        before += [head, middle, node(relu, "relu", [norm], module), node(add, "add", [relu, last], module)]
        after += [head, node(relu, "relu", [conv], module), node(add, "add", [relu, last], module)]
        region = [{"name": last, "kind": "input", "operator": last, "inputs": []}, head | {"axes": [1]}]
        rewrites.append(
            {
                "rule": "batch_norm into convolution",
                "nodes": [conv, norm],
                "result": conv,
                "reported": norm,
                "source": f"model.py:{i}",
                "through": [],
                "saving": {"operators": 1, "bytes": 12544},
                "accuracy": {"before": 1e-7 * (1 + i % 7), "after": 1e-7 * (1 + i % 5), "epsilon": 1.2e-7},
                "verdict": VERDICT,
                "graphs": {
                    "before": {"nodes": [*region, middle], "omitted": 0},
                    "after": {"nodes": region, "omitted": 0},
                },
            }
        )
        last = add
    return {
        "schema": 2,
        "command": "fuse",
        "subject": "model.py:make",
        "foldproof": "0",
        "verdict": VERDICT,
        "rewrites": rewrites,
        "declined": [],
        "operators_before": {"aten.conv2d.default": len(before) - 1},
        "operators_after": {"aten.conv2d.default": len(after) - 1},
        "bytes_before": 2,
        "bytes_after": 1,
        "seconds": 1.0,
        "graphs": {"before": {"nodes": before, "omitted": 0}, "after": {"nodes": after, "omitted": 0}},
    }
