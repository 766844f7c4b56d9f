"""Time and memory of proofs of large models, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

NAMES = (
    *(f"{n} layers on meta" for n in (2, 12, 48)),
    *("port of 8 layers", "port of Qwen2-0.5B"),
    *("Qwen2-0.5B", "Llama-3-8B on meta", "fuse ResNet-50", "fuse ResNet-152"),
)


@pytest.mark.parametrize("name", NAMES)
def test_large(benchmark: Any, name: str) -> None:
    def measure() -> dict[str, Any]:
        command = [sys.executable, "-m", "benchmarks.large", name]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        return found

    found = benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info.update(found | {"seconds": round(found["seconds"], 1)})
