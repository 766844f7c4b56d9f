"""Operators that ONNX's specification defines as functions of others."""

from __future__ import annotations

from typing import Any

from foldproof.errors import brief
from foldproof.onnx_graph.registry import DEFINITIONS, NotTranslated


def is_function(domain: str, operator: str, version: int) -> bool:
    """Return True if an operator has no definition of its own here, and one as a function in ONNX's specification."""
    if (domain, operator) in DEFINITIONS:
        return False
    try:
        import onnx
    except ModuleNotFoundError:
        return False
    if not onnx.defs.has(operator, version, domain):
        return False
    schema: Any = onnx.defs.get_schema(operator, version, domain)
    return bool(schema.has_function or schema.has_context_dependent_function)


def written_out(node: Any, versions: dict[str, int]) -> Any:
    """Return the graph of a node of `is_function`: the nodes that it stands for, with its inputs and outputs.

    Raises:
        NotTranslated: ONNX can't write it out, as where the type of an input is not known.
    """
    import onnx
    import onnx_ir
    from onnx.inliner import inline_selected_functions

    given = {value.name: value for value in node.inputs if value is not None}
    outputs = {value.name: value for value in node.outputs if value.name}
    helper = onnx.helper
    proto = onnx_ir.serde.serialize_node(node)
    schema = onnx.defs.get_schema(node.op_type, versions[node.domain], node.domain)
    defaults = {name: one.default_value for name, one in schema.attributes.items() if one.default_value.name}
    proto.attribute.extend(value for name, value in defaults.items() if name not in node.attributes)
    graph = helper.make_graph(
        [proto],
        "function",
        [_declare(value) for value in given.values()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    try:
        made = inline_selected_functions(model, [(node.domain, node.op_type)], inline_schema_functions=True)
        made = onnx.shape_inference.infer_shapes(made)  # functions inside of it need types, too
    except Exception as error:
        raise NotTranslated(f"the function {node.op_type} can't be written out ({brief(error)})") from error
    if any(one.op_type == node.op_type for one in made.graph.node):
        why = "the types of its inputs are not known, or it is none in this version of ONNX"
        raise NotTranslated(f"the function {node.op_type} can't be written out: {why}")
    return onnx_ir.from_proto(made).graph


def _declare(value: Any) -> Any:
    import onnx
    import onnx_ir

    if value.type is None:
        return onnx.helper.make_empty_tensor_value_info(value.name)
    return onnx_ir.serde.serialize_value(value)
