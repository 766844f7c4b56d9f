"""Facts about operators: shared and written memory, randomness, and functional forms.

PyTorch's schemas and tags supply most of them, and leave some out. This package is the only home of each fact, for
operators (`schema`, `effects`) and for the Python functions and modules in their place in traced graphs (`functions`).
"""

from foldproof.operators.decompositions import NoDecomposition, find_decomposition
from foldproof.operators.effects import (
    follows_layout,
    is_custom,
    is_draw,
    is_functional,
    is_random,
    is_repeatable,
    is_uninitialized,
    list_updated_statistics,
)
from foldproof.operators.foreach import define_foreach
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
    has_dynamic_shape,
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
    "define_foreach",
    "find_decomposition",
    "find_functional_form",
    "find_operator",
    "follows_layout",
    "get_name",
    "get_types",
    "has_dynamic_shape",
    "is_custom",
    "is_draw",
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
