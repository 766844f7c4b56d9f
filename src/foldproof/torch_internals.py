"""Uses of PyTorch and ExecuTorch beyond their public interfaces, all of them in this module.

A test enforces that. There are two exceptions: the schemas of operators, which `foldproof.operators` reads, and the
places that taps patch, which the taps declare (`foldproof.auditing.taps.hooks`). Each entry gives its reason, and the
public name that would replace it. Heavy imports wait for the first call.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor, fx, nn

# OpOverload and its kin have no public home, and graphs consist of them. Replaced by: a public name of each.
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

# `isinstance` is the one sure test for a tensor without values. Replaced by: a public name of it.
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

# A module runs with other tensors, by any method and not only ``forward``, and its writes are read before they go.
# Replaced by: a context manager beside `torch.func.functional_call`.
from torch.nn.utils.stateless import _reparametrize_module as reparametrized

# Documented as the way to see every operator, under a private path. Replaced by: a public path.
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass

# Graphs and snapshots are made while a user's modes are active, which must not see it. Replaced by: a public name.
from torch.utils._python_dispatch import _disable_current_modes as disable_current_modes

# Arguments and outputs in the containers that torch.export knows. Replaced by: `torch.utils.pytree`, once public.
from torch.utils._pytree import (
    MappingKey,
    SequenceKey,
    TreeSpec,
    keystr,
    tree_flatten,
    tree_flatten_with_path,
    tree_iter,
    tree_leaves,
    tree_leaves_with_path,
    tree_map,
    tree_structure,
    tree_unflatten,
    treespec_dumps,
)

__all__ = [
    "DispatchMode",
    "FakeTensor",
    "HigherOrderOperator",
    "MappingKey",
    "OpOverload",
    "OpOverloadPacket",
    "SequenceKey",
    "TreeSpec",
    "arguments_of",
    "body_in_aten",
    "code_generator",
    "compile_apart",
    "compile_with_inductor",
    "copy_attribute",
    "decompose_lstm_layer",
    "decomposition_of",
    "disable_current_modes",
    "edge_operators",
    "every_pass_runs",
    "flat_arguments",
    "gradient_hooks",
    "has_decomposition",
    "has_hooks",
    "hook_tables",
    "hooks_of",
    "inductor_counts",
    "inductor_setting",
    "is_compiled",
    "is_mkldnn",
    "is_namespace",
    "is_static_input",
    "is_traceable_wrapper_subclass",
    "keystr",
    "lazy_clone",
    "load_package",
    "make_wrapper",
    "name_of_backend",
    "named_fusions",
    "negated_view",
    "note_write",
    "optimized_context",
    "options_of_mode",
    "patched_inductor",
    "python_body",
    "qualified_name",
    "quantized_operators",
    "reparametrized",
    "resolving_bits",
    "restarts",
    "set_graph",
    "set_tensor",
    "solve_order",
    "storage_id",
    "structures_of",
    "tree_flatten",
    "tree_flatten_with_path",
    "tree_iter",
    "tree_leaves",
    "tree_leaves_with_path",
    "tree_map",
    "tree_structure",
    "tree_unflatten",
    "treespec_dumps",
    "version_of",
]

T = TypeVar("T", bound=nn.Module)

# Modes.


def resolving_bits() -> contextlib.AbstractContextManager[Any]:
    """Return a context, for the code of a mode or subclass, in which operators resolve conjugate and negative views.

    PyTorch resolves them before it calls that code, and not in it: there, kernels compute with the memory of a
    conjugate as if it were no conjugate. Replaced by: a mode whose code runs as other code does.
    """
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in (torch._C.DispatchKey.Conjugate, torch._C.DispatchKey.Negative):
        excluded = excluded.remove(key)
    return torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded)


class DispatchMode(TorchDispatchMode):
    """A mode that sees every operator, in one thread at a time; another thread waits for its turn.

    Operators in its code resolve conjugate and negative views.

    PyTorch tells `torch.compile` of an active mode by flags of the whole process, and each mode restores the flags that
    it found. Modes of two threads at once would leave them set for good, and nothing would be compiled any more.
    Replaced by: flags for each thread.
    """

    _turn = threading.RLock()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]
        own = cls.__dict__.get("__torch_dispatch__")
        if own is None:
            return

        @functools.wraps(own)
        def resolving(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            with resolving_bits():
                return own(self, func, types, args, kwargs)

        cls.__torch_dispatch__ = resolving  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Any:
        self._turn.acquire()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *raised: Any) -> None:
        try:
            super().__exit__(*raised)  # type: ignore[no-untyped-call]
        finally:
            self._turn.release()


# Tensors.


def version_of(tensor: Tensor) -> int:
    """Return the number of writes to the tensor's memory. Replaced by: a public reader beside `increment_version`."""
    return tensor._version + getattr(tensor, _WRITES, 0)


_WRITES = "_foldproof_writes"


def note_write(tensor: Tensor) -> None:
    """Count a write that PyTorch does not, as that of a BatchNorm: autograd would miss a value that it saved.

    Replaced by: schemas that declare these writes.
    """
    setattr(tensor, _WRITES, getattr(tensor, _WRITES, 0) + 1)


def storage_id(tensor: Tensor) -> int:
    """Return a number shared by tensors of one storage, empty ones too. Replaced by: a comparison of storages."""
    return int(tensor.untyped_storage()._cdata)


def lazy_clone(tensor: Tensor) -> Tensor:
    """Return a copy that takes memory at the first write to either. Replaced by: a public name of it."""
    return tensor._lazy_clone()


def negated_view(tensor: Tensor) -> Tensor:
    """Return the view with the negative bit, as `torch.conj` returns the conjugate one. Replaced by: a public name."""
    return torch._neg_view(tensor)


def is_mkldnn(tensor: Tensor) -> bool:
    """True if the tensor is in oneDNN's own layout. Replaced by: a public name of that layout."""
    return tensor.layout is torch._mkldnn  # type: ignore[attr-defined]


def make_wrapper(cls: type[Tensor], value: Tensor) -> Any:
    """Return a tensor of class ``cls`` without memory, with the shape, strides, dtype, device and bits of ``value``.

    The documented way to write a wrapper subclass, under a private name. Replaced by: a public name.
    """
    made = Tensor._make_wrapper_subclass(
        cls,
        value.shape,
        strides=value.stride(),
        storage_offset=value.storage_offset(),
        dtype=value.dtype,
        device=value.device,
        requires_grad=False,
    )
    # The bits of a conjugate or negative view, of which PyTorch keeps most operators away.
    if value.is_conj():
        torch._C._set_conj(made, True)
    if value.is_neg():
        torch._C._set_neg(made, True)
    return made


# Operators.


def quantized_operators() -> Any:
    """Return the namespace ``quantized_decomposed``, filled by a private module's import. Replaced by: a public one."""
    import torch.ao.quantization.fx._decomposed

    return torch.ops.quantized_decomposed


def has_decomposition(operator: OpOverload) -> bool:
    """True if `OpOverload.decompose` has something to do. Replaced by: a public name."""
    return bool(operator._can_decompose())


def decomposition_of(operator: OpOverload) -> Callable[..., Any]:
    """Return PyTorch's decomposition in Python. Replaced by: a larger table than `default_decompositions`."""
    from torch._decomp import decomposition_table

    return decomposition_table[operator]


def decompose_lstm_layer(*args: Any) -> Any:
    """Run one layer of an LSTM by its steps, in one direction. Replaced by: a decomposition of ``mkldnn_rnn_layer``."""
    from torch._decomp.decompositions import one_layer_lstm

    return one_layer_lstm(*args)


def vector_jacobian_product(
    function: Callable[..., Sequence[Tensor]], operands: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> list[Tensor]:
    """Return the gradients of ``operands``, where autograd is off, as it is below it, in the midst of an operator.

    There is a cotangent for each of the function's results.

    Replaced by: a public way to differentiate there.
    """
    key = torch._C.DispatchKey.AutogradFunctionality
    with torch._C._SetExcludeDispatchKeyGuard(key, False), torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in operands]
        found = torch.autograd.grad(list(function(*leaves)), leaves, cotangents, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g.detach() for x, g in zip(operands, found)]


def python_body(operator: OpOverload) -> Callable[..., Any] | None:
    """Return the function behind an operator of `torch.library.custom_op`. Replaced by: a public reader of it."""
    from torch._library.custom_ops import _maybe_get_opdef

    found = _maybe_get_opdef(operator)
    return None if found is None else found._init_fn


def body_in_aten(operator: OpOverload) -> Callable[..., Any] | None:
    """Return an operator of ``prims`` as a function of ATen operators. Replaced by: a public reader of it."""
    return getattr(operator, "impl_aten", None) if operator.namespace == "prims" else None


def edge_operators() -> Any:
    """Return ExecuTorch's own ATen operators, by namespace, name and overload. Replaced by: a public path."""
    from executorch.exir.dialects._ops import ops

    return ops.edge


def is_namespace(x: Any) -> bool:
    """True for a namespace of operators, such as ``torch.ops.aten``. Replaced by: a public name of its type."""
    return isinstance(x, torch._ops._OpNamespace)


# Graphs and programs.


def qualified_name(function: Callable[..., Any]) -> str:
    """Return a function's name as FX writes it in code. Replaced by: a public name."""
    return fx.node._get_qualified_name(function)


def copy_attribute(source: nn.Module, target: nn.Module, name: str) -> None:
    """Copy the attribute of a dotted name, as GraphModules do. Replaced by: a public name."""
    fx.graph_module._copy_attr(source, target, name)


def structures_of(graph: fx.Graph) -> Any:
    """Return the structures of arguments and outputs (``in_spec``, ``out_spec``); None if the graph has none.

    Replaced by: a public reader of a graph's code generator, as `Graph.process_inputs` is one of its functions.
    """
    return getattr(graph._codegen, "pytree_info", None)


def arguments_of(graph: fx.Graph, *args: Any, **kwargs: Any) -> Sequence[Any]:
    """Return values for the placeholders of a graph with `structures_of`. Replaced by: keywords in `process_inputs`."""
    flat: Sequence[Any] = graph._codegen.process_inputs(*args, **kwargs)
    return flat


def flat_arguments(program: ExportedProgram, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the user's inputs in the order of the program's placeholders. Replaced by: a public name.

    Raises (as that function does):
        Exception: the inputs do not fit the program.
    """
    return list(program._get_flat_args_with_check(tuple(args), dict(kwargs))[0])


def set_graph(program: ExportedProgram, module: fx.GraphModule) -> None:
    """Give a program another graph of the same signature. Replaced by: a public constructor from parts."""
    program._graph_module = module


def set_tensor(module: nn.Module, attribute: str, tensor: Tensor) -> None:
    """Replace a parameter or buffer by a tensor of any class. Replaced by: nothing; public setters check the class."""
    home = module._parameters if attribute in module._parameters else module._buffers
    home[attribute] = tensor  # type: ignore[assignment]


def has_hooks(module: nn.Module) -> bool:
    """True if a call of the module does more than its ``forward``. Replaced by: a public reader of its hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def code_generator(graph: fx.Graph) -> Any:
    """Return the generator of a graph's code, which also flattens inputs. Replaced by: a public attribute."""
    return graph._codegen


def hooks_of(module: nn.Module) -> dict[int, Callable[..., Any]]:
    """Return the user's hooks around a call of the module, by their handles' numbers.

    PyTorch's own hooks, which check inputs, are left out. Replaced by: a public reader of hooks.
    """
    hooks = {**module._forward_pre_hooks, **module._forward_hooks}
    return {k: hook for k, hook in hooks.items() if str(getattr(hook, "__module__", "")).partition(".")[0] != "torch"}


def gradient_hooks(tensor: Tensor) -> tuple[list[Any], list[Any]]:
    """Return the hooks on a tensor's gradient, and those that run after it was accumulated. Replaced by: the same."""
    tables = tensor._backward_hooks, getattr(tensor, "_post_accumulate_grad_hooks", None)
    before, after = ([hook for hook in (table or {}).values() if hook is not None] for table in tables)
    return before, after


def hook_tables(module: nn.Module) -> dict[str, dict[int, Any]]:
    """Return a module's tables of hooks, and of the ways to call them, by attribute.

    Replaced by: the same.
    """
    return {
        name: getattr(module, name)
        for name in (
            "_forward_hooks",
            "_forward_hooks_with_kwargs",
            "_forward_hooks_always_called",
            "_forward_pre_hooks",
            "_forward_pre_hooks_with_kwargs",
        )
    }


def solve_order(manager: Any) -> None:
    """Put the passes of a `PassManager` in the order of their runs. Replaced by: a public method that checks first."""
    if not manager._validated:
        manager.solve_constraints()


# Dynamo and Inductor.


def is_compiled(x: Any) -> bool:
    """True if `torch.compile` made it, or will compile its call. Replaced by: a public test."""
    return (
        isinstance(x, torch._dynamo.eval_frame.OptimizedModule)
        or hasattr(x, "_torchdynamo_orig_callable")
        or getattr(x, "_compiled_call_impl", None) is not None
    )


def optimized_context(x: Any) -> Any:
    """Return the context that compiled a module or function, and that can compile another; None if there is none.

    Replaced by: a public reader of a compiled object's options.
    """
    if isinstance(x, torch._dynamo.eval_frame.OptimizedModule):
        return x.dynamo_ctx
    if not hasattr(x, "_torchdynamo_orig_callable"):
        return None
    cells = getattr(x, "__closure__", None) or ()
    kind = torch._dynamo.eval_frame.OptimizeContext
    return next((c.cell_contents for c in cells if isinstance(c.cell_contents, kind)), None)


def original_of(x: Any) -> Any:
    """The module or function that `torch.compile` made ``x`` of; ``x`` itself where it is not compiled.

    Replaced by: a public attribute of compiled objects.
    """
    if isinstance(x, torch._dynamo.eval_frame.OptimizedModule):
        return x._orig_mod
    return getattr(x, "_torchdynamo_orig_callable", x)


def name_of_backend(context: Any) -> str:
    """Return the name of the backend of an `optimized_context`. Replaced by: as there."""
    found = getattr(context, "callback", None)
    name = getattr(found, "compiler_name", None)
    if name:
        return str(name)
    found = context if found is None else found
    for attribute in ("_torchdynamo_orig_backend", "_torchdynamo_orig_callable", "compiler_name"):
        while hasattr(found, attribute) and getattr(found, attribute) is not found:
            found = getattr(found, attribute)
    return found if isinstance(found, str) else getattr(found, "__name__", type(found).__name__)


_APART = itertools.count()


def compile_apart(module: nn.Module, backend: str, dynamic: bool | None = None) -> Callable[..., Any]:
    """Compile a module without earlier compiled code, and without leaving any behind.

    Dynamo stores compiled code, its limits and its findings on sizes by code object, for all instances of a class. So
    this module gets a ``forward`` with its own code object; and code called from there after a graph break is compiled
    in its own region, for a backend that equals no other.
    Replaced by: ``isolate_recompiles``, once it does not fall back to code outside of the region.
    """
    compiler = torch._dynamo.lookup_backend(backend)

    def apart(graph: fx.GraphModule, inputs: list[Tensor]) -> Any:
        return compiler(graph, inputs)

    compile: Any = torch.compile  # its overloads leave the last option out
    made: Callable[..., Any] = compile(
        _with_own_forward(module), backend=apart, dynamic=dynamic, isolate_recompiles=True
    )
    return made


@contextlib.contextmanager
def as_compiled() -> Iterator[None]:
    """Let code that asks take the path that it takes when compiled; optimizers then compute with counters as tensors.

    Replaced by: a public way to trace an optimizer's step.
    """
    with mock.patch.object(torch.compiler, "is_compiling", lambda: True):
        yield


def compile_function_apart(function: Callable[[], Any], backend: str) -> Callable[[], Any]:
    """Compile a function without arguments as `compile_apart` compiles a module.

    Replaced by: ``isolate_recompiles``, as there.
    """
    compiler = torch._dynamo.lookup_backend(backend)

    def apart(graph: fx.GraphModule, inputs: list[Tensor]) -> Any:
        return compiler(graph, inputs)

    def call() -> Any:
        return function()

    call.__code__ = call.__code__.replace(co_name=f"call_apart_{next(_APART)}")
    compile: Any = torch.compile
    made: Callable[[], Any] = compile(call, backend=apart, dynamic=False, isolate_recompiles=True)
    return made


def _with_own_forward(module: T) -> T:
    forward = type(module).forward
    if isinstance(module, fx.GraphModule) or not isinstance(forward, FunctionType) or "forward" in vars(module):
        return module  # graphs have code of their own
    made: T = object.__new__(type(module))
    vars(made).update(vars(module))  # the same parameters, buffers and submodules
    code = forward.__code__.replace(co_name=f"{forward.__code__.co_name}_apart_{next(_APART)}")
    own = FunctionType(code, forward.__globals__, forward.__name__, forward.__defaults__, forward.__closure__)
    own.__kwdefaults__ = forward.__kwdefaults__
    vars(own).update(vars(forward))  # marks of `torch.compiler.disable`, for one
    vars(made)["forward"] = MethodType(own, made)
    return made


def restarts() -> tuple[type[BaseException], ...]:
    """Return the exceptions by which Dynamo asks for another graph, not to be caught. Replaced by: public names."""
    from torch._dynamo.exc import RestartAnalysis, SkipFrame

    return RestartAnalysis, SkipFrame


def is_static_input(placeholder: fx.Node) -> bool:
    """True if an input of Dynamo's graph is a parameter or buffer of the model. Replaced by: a public mark of it."""
    return placeholder.meta.get("tensor_dict", {}).get("_dynamo_static_input_type") is not None


def compile_with_inductor(module: fx.GraphModule, inputs: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Compile a graph as `torch.compile` does. Replaced by: `torch._inductor.compile` under a public path."""
    from torch._inductor.compile_fx import compile_fx

    return compile_fx(module, inputs, config_patches=dict(options) or None)


def options_of_mode(mode: str) -> dict[str, Any]:
    """Return the settings behind a mode of `torch.compile`. Replaced by: a public path."""
    return dict(torch._inductor.list_mode_options(mode))


def inductor_setting(name: str) -> Any:
    """Return the current value of a setting of Inductor. Replaced by: a public path.

    Raises:
        AttributeError: there is no such setting.
    """
    return getattr(torch._inductor.config, name)


def patched_inductor(**settings: Any) -> contextlib.AbstractContextManager[None]:
    """Change settings of Inductor for a while. Replaced by: options in `torch.compile` that passes see, too."""
    patch: contextlib.AbstractContextManager[None] = torch._inductor.config.patch(settings)
    return patch


def inductor_counts() -> Counter[str]:
    """Return the counts of Inductor's rewrites so far. Replaced by: a public account of a compilation."""
    return Counter(torch._dynamo.utils.counters["inductor"])


def compiles_autograd() -> bool:
    """Return True if the backward that a compiled function calls is compiled as PyTorch's autograd runs it.

    Replaced by: nothing public.
    """
    return bool(torch._dynamo.config.compiled_autograd)


@contextlib.contextmanager
def every_pass_runs() -> Iterator[None]:
    """Bypass the caches of graphs, so that every pass runs. Replaced by: an option of `torch.compile`.

    Kernels stay in their cache, whose keys are their whole text and the command that builds them.
    """
    with (
        torch._dynamo.config.patch(
            caching_precompile=False, automatic_dynamic_local_pgo=False, automatic_dynamic_remote_pgo=False
        ),
        torch._functorch.config.patch(enable_autograd_cache=False, enable_remote_autograd_cache=False),
        torch._inductor.config.patch(fx_graph_cache=False, fx_graph_remote_cache=False),
    ):
        yield


def named_fusions() -> dict[Any, str]:
    """Return the names by which users configure Inductor's fusions of groups and batches, by their classes.

    Replaced by: a name in each class.
    """
    from torch._inductor.fx_passes.group_batch_fusion import POST_GRAD_FUSIONS, PRE_GRAD_FUSIONS

    return {made: name for name, made in [*POST_GRAD_FUSIONS.items(), *PRE_GRAD_FUSIONS.items()]}


def inductor_ir() -> Any:
    """Return the module of the nodes of Inductor's loops. Replaced by: a public path."""
    from torch._inductor import ir

    return ir


def read_conditional(kernel: Any) -> tuple[Any, tuple[Any, Any]] | None:
    """Return the predicate, and the branches for true and false, of Inductor's node for `torch.cond`; else None.

    Since 2.14 it is a `Switch`, which may stand for `torch.switch`, too, and has the branch for false first.
    Replaced by: nothing public.
    """
    from torch._inductor import ir

    if not hasattr(ir, "Switch"):
        is_cond = type(kernel) is ir.Conditional
        return (kernel.predicate, (kernel.true_subgraph, kernel.false_subgraph)) if is_cond else None
    if type(kernel) is not ir.Switch or not kernel.is_cond:
        return None
    false, true = kernel.branches
    return kernel.selector, (true, false)


def lowered_graph() -> Any:
    """Return Inductor's record of the graph that it lowers now. Replaced by: an argument of a public hook."""
    from torch._inductor.virtualized import V

    return V.graph


def loop_body(scheduled: Any) -> Any:
    """Return the loop nest of a scheduler's node; None if a template computes it. Replaced by: a public attribute."""
    return getattr(scheduled, "_body", None)


def call_loop_body(body: Any, handler: Any) -> None:
    """Call a loop nest with a handler for its operations. Replaced by: a public interface of loop nests."""
    from torch._inductor.virtualized import V

    with V.set_ops_handler(handler):
        body(list(body.iter_vars), list(body.reduce_vars), allow_same_symbol_in_index=True)


def name_constants(read: Callable[[], Any], name: Callable[[Any, int | None], Any]) -> Any:
    """Call a function that lowers a constant, with ``name(number, index)`` in place of each number that it writes.

    Replaced by: a public interface of loop nests.
    """
    from torch._inductor import ir, lowering

    write = lowering.tensor

    def named(numbers: Any, **options: Any) -> Any:
        return write([name(x, i) for i, x in enumerate(numbers)], **options)

    with mock.patch.object(lowering, "tensor", named):
        made = read()
    if isinstance(made, ir.Constant):
        return ir.Constant(value=name(made.value, None), dtype=made.dtype, device=made.device)
    return made


def make_loop_variables(count: int) -> list[Any]:
    """Return names of loop variables. Replaced by: a public interface of loop nests."""
    from torch._inductor.utils import sympy_index_symbol

    return [sympy_index_symbol(f"p{i}") for i in range(count)]


def call_pointwise(node: Any, buffer: Any, variables: Sequence[Any], handler: Any) -> None:
    """Compute a pointwise node and store it in a buffer, with a handler for the operations.

    Replaced by: a public interface of loop nests.
    """
    from torch._inductor.virtualized import V, ops

    with V.set_ops_handler(handler):
        place = buffer.get_layout().make_indexer()(variables)
        ops.store(buffer.get_name(), place, node.inner_fn(variables))


def load_package(path: str) -> Callable[..., Any]:
    """Load a package made by AOTInductor; documented, under a private path. Replaced by: a public path."""
    made: Callable[..., Any] = torch._inductor.aoti_load_package(path)
    return made


def save_package(program: ExportedProgram, path: str) -> None:
    """Compile by AOTInductor into a package; documented, under a private path. Replaced by: a public path."""
    torch._inductor.aoti_compile_and_package(program, package_path=path)


def load_traced(path: str, size: int) -> Any:
    """Load a ``.pte`` file whose runs are traced, with up to ``size`` bytes of values.

    Replaced by: an option of ``executorch.runtime``, which does not trace.
    """
    from executorch.extension.pybindings import portable_lib

    return portable_lib._load_for_executorch(path, enable_etdump=True, debug_buffer_size=size)


def record_operators(function: Callable[..., list[Tensor]], tensors: Sequence[Tensor]) -> fx.GraphModule:
    """Return the operators that a function of tensors runs, those of its gradients included.

    Numbers that it reads from tensors count as constants, with which the option of a private name agrees.
    Replaced by: a public option of ``make_fx``.
    """
    return make_fx(function, _error_on_data_dependent_ops=False, record_stack_traces=True)(*tensors)


def copied_graph(module: fx.GraphModule) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """Return a copy of a module's graph, called in the same way, and the copy of each node.

    Replaced by: a public property for the ``CodeGen`` that `torch.fx.Graph.set_codegen` sets.
    """
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    graph.output(graph.graph_copy(module.graph, copies))
    graph.set_codegen(module.graph._codegen)
    return graph, copies
