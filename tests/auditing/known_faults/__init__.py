"""Correctness bugs of `torch.compile` that are fixed, reimplemented from their public descriptions."""

from tests.auditing.known_faults import (
    code_generation,
    decompositions,
    frontend,
    graph_passes,
    lowerings,
    scheduling,
)
from tests.auditing.known_faults.fault import KnownFault

STAGES: dict[str, dict[str, KnownFault]] = {
    "frontend": frontend.FAULTS,
    "decomposition": decompositions.FAULTS,
    "graph pass": graph_passes.FAULTS,
    "lowering": lowerings.FAULTS,
    "scheduling": scheduling.FAULTS,
    "code generation": code_generation.FAULTS,
}
KNOWN = {name: fault for faults in STAGES.values() for name, fault in faults.items()}
"""All faults by name."""
