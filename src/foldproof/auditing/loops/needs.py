"""Names of Inductor's that its loops are read by, as data, so that `foldproof doctor` can look for each one.

They are classes of its nodes, some compared by name, and functions. PyTorch renames them without notice: 2.14 has
`Switch` in place of `Conditional`. A test finds uses that are not declared here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from foldproof.auditing.externals import External


@dataclass(frozen=True)
class Need(External):
    """A name without which graphs with ``reads`` have no reading as loops; ``older`` is its name in older releases."""

    reads: str
    older: str = ""

    def find_owner(self) -> Any:
        """Return the module or class that has it, by either name; None if it is missing."""
        owner = super().find_owner()
        return replace(self, name=self.older, older="").find_owner() if owner is None and self.older else owner

    def describe_absence(self) -> str:
        """Describe in a sentence the consequence of the missing name."""
        return f"{self} is missing, so loops with {self.reads} can't be read, and their steps are UNDECIDED"


_IR, _SCHEDULER, _CODEGEN = "torch._inductor.ir", "torch._inductor.scheduler", "torch._inductor.codegen"
_ANY, _CALLED, _PRODUCTS = "any buffer", "kernels that Inductor calls", "matrix products from a template"

NEEDS: tuple[Need, ...] = (
    *(
        Need(_IR, name, _ANY)
        for name in (
            *("Buffer", "Constant", "IRNode", "MutableBox", "ReinterpretView"),
            *("DonatedBuffer", "NoneAsConstantBuffer", "ShapeAsConstantBuffer"),
            *("FixedLayout", "FlexibleLayout", "NonOwningLayout", "MutationLayoutSHOULDREMOVE"),
            *("MultiOutputLayout", "NoneLayout"),
        )
    ),
    *(
        Need(_IR, name, _CALLED)
        for name in (
            *("ExternKernelAlloc", "ExternKernelOut", "FallbackKernel", "AllocatingMultiOutput", "MultiOutput"),
            *("IndexPutFallback", "InplaceBernoulliFallback", "InplaceCopyFallback", "ScatterFallback"),
            *("InvokeSubgraph", "WhileLoop"),
        )
    ),
    Need(_IR, "Switch", _CALLED, older="Conditional"),
    Need(_SCHEDULER, "SchedulerNode", _ANY),
    Need(_SCHEDULER, "NopKernelSchedulerNode", "buffers that nothing computes"),
    Need(_SCHEDULER, "ExternKernelSchedulerNode", _CALLED),
    Need("torch._inductor.virtualized", "V", _ANY),
    Need("torch._inductor.virtualized", "ops", _PRODUCTS),
    Need("torch._inductor.utils", "sympy_index_symbol", _PRODUCTS),
    Need(f"{_CODEGEN}.cpp_gemm_template", "CppGemmTemplate", _PRODUCTS),
    Need(f"{_CODEGEN}.cpp_bmm_template", "CppBmmTemplate", _PRODUCTS),
    Need("torch._inductor.lowering", "tensor", "constants that are written as numbers"),
)
"""All names that are needed, beside those that taps patch."""
