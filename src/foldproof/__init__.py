"""foldproof: fuse what can be fused, prove every rewrite, and tell a rounding difference from a wrong answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foldproof.auditing import Audit as Audit
    from foldproof.auditing import audit as audit
    from foldproof.auditing import tap as tap
    from foldproof.auditing import watch as watch
    from foldproof.comparison import CompareResult as CompareResult
    from foldproof.comparison import compare as compare
    from foldproof.fusion import FuseResult as FuseResult
    from foldproof.fusion import explain as explain
    from foldproof.fusion import fuse as fuse
    from foldproof.porting import prove_configurations as prove_configurations
    from foldproof.proof import prove_pass as prove_pass
    from foldproof.proving import prove as prove
    from foldproof.qat import FoldQATResult as FoldQATResult
    from foldproof.qat import fold_qat as fold_qat
    from foldproof.training import TrainingStep as TrainingStep
    from foldproof.training import prove_step as prove_step
    from foldproof.verdict import Kind as Kind
    from foldproof.verdict import Verdict as Verdict

from foldproof.errors import FoldproofError
from foldproof.version import __version__

__all__ = [
    "Audit",
    "CompareResult",
    "FoldQATResult",
    "FoldproofError",
    "FuseResult",
    "Kind",
    "TrainingStep",
    "Verdict",
    "__version__",
    "audit",
    "compare",
    "explain",
    "fold_qat",
    "fuse",
    "prove",
    "prove_configurations",
    "prove_pass",
    "prove_step",
    "tap",
    "watch",
]

# Loaded on first use, so that neither `import foldproof` nor `foldproof --help` waits for torch.
_HOMES = {
    "Kind": "foldproof.verdict",
    "Verdict": "foldproof.verdict",
    "Audit": "foldproof.auditing",
    "audit": "foldproof.auditing",
    "tap": "foldproof.auditing",
    "watch": "foldproof.auditing",
    "CompareResult": "foldproof.comparison",
    "compare": "foldproof.comparison",
    "FuseResult": "foldproof.fusion",
    "explain": "foldproof.fusion",
    "FoldQATResult": "foldproof.qat",
    "fold_qat": "foldproof.qat",
    "fuse": "foldproof.fusion",
    "prove": "foldproof.proving",
    "prove_configurations": "foldproof.porting",
    "prove_pass": "foldproof.proof",
    "TrainingStep": "foldproof.training",
    "prove_step": "foldproof.training",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'foldproof' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
