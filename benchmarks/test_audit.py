"""The audit of a compiler relative to the compilation alone: the target is 2, taps and proofs together.

The comparison of outputs is left out, as a cost of `foldproof.compare`. Both run every pass, with the kernels in
Inductor's cache, and without `torch.nn`'s fast path, which would turn each encoder layer into one operator and leave
little to compile.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

import pytest
import torch

import foldproof
from foldproof.auditing import api, compilers
from foldproof.auditing.log import Log
from foldproof.torch_internals import every_pass_runs

from .networks import bert_like, resnet_like


@pytest.mark.parametrize("make", [resnet_like, bert_like])
@pytest.mark.parametrize("compiler", ["inductor", "executorch"])
def test_audit_over_compile(benchmark: Any, make: Any, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api._Subject, "compare", lambda *_: (None, "left out"))
    if compiler == "executorch":
        pytest.importorskip("executorch")
    monkeypatch.setattr(torch.backends.mha, "_is_fastpath_enabled", False)
    torch.manual_seed(0)
    model, args = make()
    ratios = []

    def plain() -> float:
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            chosen = compilers.find_compiler(compiler)
            module = sys.modules[type(chosen).__module__]
            for tap in [name for name in vars(module) if name.startswith("tap_")]:
                patch.setattr(module, tap, lambda *_: contextlib.nullcontext())
            torch._dynamo.reset()  # discard earlier compiled code
            start = time.process_time()
            with every_pass_runs():
                chosen.compile(model, args, {}, {}, Log())
            return time.process_time() - start

    def once() -> None:
        alone = plain()
        start = time.process_time()
        found = foldproof.audit(model, args, compiler=compiler)
        ratios.append((time.process_time() - start) / alone)
        assert not found.refuted

    plain()  # builds the kernels
    benchmark.pedantic(once, rounds=1)
    benchmark.extra_info["audit over compile, median"] = round(sorted(ratios)[len(ratios) // 2], 1)
