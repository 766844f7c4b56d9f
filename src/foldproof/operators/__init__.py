"""Facts about operators: the memory that they share and write, what they draw, and their functional form.

Schemas and tags of PyTorch tell most of it, and leave out some. Each fact is told here and nowhere else, for operators
(`schema`, `effects`) and for the Python functions and modules that stand for them in traced graphs (`functions`).
"""

from foldproof.operators.decompositions import NoDecomposition, find_decomposition
from foldproof.operators.effects import (
    is_functional,
    is_random,
    is_repeatable,
    is_uninitialized,
    list_updated_statistics,
)
from foldproof.operators.functions import (
    is_functional_function,
    is_functional_method,
    is_functional_module,
    is_norm_function,
)
from foldproof.operators.schema import (
    FunctionalForm,
    bind_arguments,
    count_results,
    find_functional_form,
    find_operator,
    get_name,
    get_types,
    is_pointwise,
    is_view,
    is_view_copy,
    list_shared,
    list_written,
    reshapes_in_place,
    to_edge,
    writes_out,
    writes_result,
)

__all__ = [
    "FunctionalForm",
    "NoDecomposition",
    "bind_arguments",
    "count_results",
    "find_decomposition",
    "find_functional_form",
    "find_operator",
    "get_name",
    "get_types",
    "is_functional",
    "is_functional_function",
    "is_functional_method",
    "is_functional_module",
    "is_norm_function",
    "is_pointwise",
    "is_random",
    "is_repeatable",
    "is_uninitialized",
    "is_view",
    "is_view_copy",
    "list_shared",
    "list_updated_statistics",
    "list_written",
    "reshapes_in_place",
    "to_edge",
    "writes_out",
    "writes_result",
]
