"""The side that gives numbers: compiled code, another program, a runtime's file, or outputs saved elsewhere."""

from __future__ import annotations

import contextlib
import inspect
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from foldproof.comparison import runtimes
from foldproof.comparison.calls import Run
from foldproof.comparison.graph import flattened, is_array, keys_of
from foldproof.comparison.state import separate
from foldproof.errors import FoldproofError, brief
from foldproof.log import giving_up
from foldproof.program.loading import load_function, load_spec
from foldproof.program.mirror import captured
from foldproof.program.state import deepcopied
from foldproof.spec import AGAINST, BACKENDS, FILES, check_file, check_other
from foldproof.torch_internals import (
    compile_apart,
    inductor_counts,
    is_compiled,
    load_package,
    name_of_backend,
    optimized_context,
    original_of,
    tree_flatten,
    tree_leaves,
    tree_map,
)

Compile = Callable[[nn.Module], Callable[..., Any]]


@dataclass(frozen=True)
class Candidate:
    """Something that gives numbers for inputs.

    ``run`` takes (args, kwargs), to which it may write, and gives the flat outputs. ``holder`` is the module whose
    parameters, buffers and attributes are its state; ``hidden`` says why they, and what it writes to inputs if it works
    on ``copies``, can't be compared by name. ``compile`` compiles another graph the way this candidate
    was compiled (``backend`` is what `torch.compile` knows it as), or exports it to the same runtime. ``program`` is
    the candidate itself where it is a graph. Without either, it can't be looked into.
    ``given_only`` says that it has numbers for the given inputs only. ``notes`` tells, once it has run, what else is
    worth knowing of how it came about.
    """

    name: str
    run: Run
    holder: nn.Module | None = None
    hidden: str = ""
    copies: bool = False
    compile: Compile | None = None
    program: Any = None
    backend: str | None = None
    given_only: bool = False
    notes: Callable[[], list[str]] = list
    signature: tuple[Sequence[str], Sequence[str]] | None = None
    """Names of inputs and outputs, which may be none, of what keeps no structure: a runtime's file, a saved list."""
    function: Callable[..., Any] | None = None
    """The callable that ``run`` calls, which may return its outputs without keys, or under others."""
    restart: Callable[[], None] | None = None
    """Puts back a state that only the candidate's runtime can reach."""
    look: runtimes.Look | None = None
    """Runs it once more, and gives the values inside of it, too."""


def candidate_of(source: Any, reference: Any) -> Candidate:
    """The candidate that ``source`` is or names (see `AGAINST`); a backend's name compiles ``reference``.

    Raises:
        FoldproofError: it is nothing that gives numbers, or its file can't be loaded.
    """
    if isinstance(source, Candidate):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _named(os.fspath(source), reference)
    if isinstance(source, ExportedProgram):
        return _exported("an ExportedProgram", source)
    context = optimized_context(source)
    if context is not None:
        return _compiled_elsewhere(source, context)
    if isinstance(source, torch.jit.ScriptModule):
        return _scripted(source)
    if type(source).__name__ == "InferenceSession" and hasattr(source, "get_inputs"):
        run, signature = runtimes.session_runner(source, "the session")
        return replace(_runtime("the session", "ONNX Runtime", run, None), signature=signature)
    if isinstance(source, nn.Module):
        name = "a GraphModule" if isinstance(source, fx.GraphModule) else f"the module {type(source).__name__}"
        if any(map(is_compiled, source.modules())):  # its code may read these very tensors
            return Candidate(name, caller(source), source, program=source)
        own = separate(source)
        dtype = _dtype_of(source)
        if dtype is not None and dtype != _dtype_of(reference):
            cast = _Cast(own, dtype)
            told = [f"the candidate's parameters are {_named_dtype(dtype)}: so were its inputs"]
            return Candidate(f"{name} in {_named_dtype(dtype)}", caller(cast), own, program=cast, notes=lambda: told)
        return Candidate(name, caller(own), own, program=source, function=own)
    if isinstance(source, (Tensor, list, tuple, Mapping)) or is_array(source):
        return _saved("saved outputs", source, reference)
    if callable(source):
        name = getattr(source, "__name__", type(source).__name__)
        return Candidate(name, caller(source), **_state_of(source), function=source)
    raise FoldproofError(
        f"cannot compare with a {type(source).__name__}; give a callable, a compiled module, an ExportedProgram, saved"
        f" outputs, or one of: {AGAINST}"
    )


class _Cast(nn.Module):
    """A module in another dtype, whose inputs of any floating-point dtype are converted to its own."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        def cast(x: Any) -> Any:
            return x.to(self.dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

        args, kwargs = tree_map(cast, (args, kwargs))
        return self.module(*args, **kwargs)


def _dtype_of(source: Any) -> torch.dtype | None:
    """Return the dtype of all floating-point parameters; None if there are several, or none."""
    held = source.parameters() if hasattr(source, "parameters") and callable(source.parameters) else ()
    dtypes = {x.dtype for x in held if type(x) is nn.Parameter and x.is_floating_point()}
    return dtypes.pop() if len(dtypes) == 1 else None


def _named_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _compiled_elsewhere(source: Any, context: Any) -> Candidate:
    backend = name_of_backend(context)
    state = _state_of(original_of(source))
    return Candidate(f"torch.compile ({backend})", caller(source), **state, compile=context, backend=backend)


def _state_of(source: Any) -> dict[str, Any]:
    """The fields ``holder`` and ``hidden`` for a module, a method of one, or a function that may read some."""
    if isinstance(source, nn.Module):
        return {"holder": source}
    found = captured(source)
    if isinstance(found.get("self"), nn.Module):
        return {"holder": found["self"]}
    modules = {id(x): x for x in tree_leaves(found) if isinstance(x, nn.Module)}
    return {
        "holder": nn.ModuleList(modules.values()) if modules else None,
        "hidden": "a plain callable does not show it",
    }


def _exported(name: str, program: ExportedProgram) -> Candidate:
    module = separate(program.module(check_guards=False))
    return Candidate(name, caller(module), module, program=program, function=module)


def _named(name: str, reference: Any) -> Candidate:
    if name in BACKENDS:
        return _compiled(name, reference)
    path = Path(name)
    if path.suffix not in FILES and ":" in name:
        function = load_function(name)
        if _takes_inputs(function):  # it gives the numbers itself, wherever it gets them from
            return replace(candidate_of(function, reference), name=name)
        return candidate_of(load_spec(name).program, reference)
    check_other(name)
    if path.suffix == ".pt2":
        return _pt2(name)
    if path.suffix in (".npy", ".npz"):
        return _saved(name, _load_arrays(path), reference)
    if path.suffix == ".pt":
        script = _load_script(path)
        return _saved(name, _load_outputs(path), reference) if script is None else replace(_scripted(script), name=name)
    if path.suffix == ".xml":
        run, signature = runtimes.openvino(path)
        made = _runtime(name, "OpenVINO", run, None)
        return replace(made, signature=signature, look=runtimes.look_into_openvino(path))
    if path.suffix == ".onnx":
        run, signature = runtimes.onnx(path)
        made = _runtime(name, "ONNX Runtime", run, runtimes.onnx_exporter)
        return replace(made, signature=signature, look=runtimes.look_into_onnx(path))
    found = runtimes.ExecuTorchProgram(path, name)
    made = _runtime(name, "ExecuTorch", runtimes.run_executorch(found), runtimes.executorch_exporter(path))
    return replace(made, restart=found.restart, look=runtimes.look_into_executorch(path))


def _takes_inputs(function: Callable[..., Any]) -> bool:
    """True for a function that can't be called without arguments; those that make programs can."""
    if isinstance(function, nn.Module):
        return True
    with contextlib.suppress(TypeError, ValueError):
        given = inspect.signature(function).parameters.values()
        return any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in given)
    return False


def _runtime(name: str, runtime: str, run: Run, compile: Compile | None) -> Candidate:
    hidden = f"{runtime} shows outputs only"
    return Candidate(f"{name} in {runtime}", run, None, hidden, copies=True, compile=compile, signature=((), ()))


def _compiled(backend: str, reference: Any) -> Candidate:
    def compile(module: nn.Module) -> Callable[..., Any]:
        return compile_apart(module, backend)

    module = reference.module(check_guards=False) if isinstance(reference, ExportedProgram) else deepcopied(reference)
    compiled = compile(module)
    run = caller(compiled)
    before = inductor_counts()
    fired: list[str] = []

    def first(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        out = run(args, kwargs)
        if not fired:  # later compilations, of parts, count too
            fired.extend(_fired(inductor_counts() - before))
        return out

    notes = (lambda: fired) if backend == "inductor" else list
    name = f"torch.compile ({backend})"
    return Candidate(name, first, original_of(compiled), compile=compile, backend=backend, notes=notes)


def _fired(counted: Counter[str]) -> list[str]:
    """A sentence on the groups of operators that Inductor made one, of which it keeps count."""
    batches = [f"{name} ({n} times)" for name, n in counted.items() if name.startswith(("batch_", "group_"))]
    return ["Inductor " + (f"batched operators here: {', '.join(batches)}" if batches else "batched no operators here")]


def _pt2(name: str) -> Candidate:
    try:
        program = load_spec(name).program
    except FoldproofError:
        with giving_up(f"loading {name} as a package of AOTInductor"):
            hidden = "a package of AOTInductor does not show it"
            run = caller(load_package(name))
            return Candidate(f"{name} (AOTInductor)", run, hidden=hidden, compile=runtimes.package_again)
        raise
    assert isinstance(program, ExportedProgram)
    return _exported(name, program)


def _load_arrays(path: Path) -> Any:
    """Return the tensor of a ``.npy`` file, or those of a ``.npz`` file by name."""
    try:
        import numpy
    except ModuleNotFoundError:
        raise FoldproofError(f"{path} is a file of NumPy, which is not installed: pip install numpy") from None
    try:
        held = numpy.load(path, allow_pickle=False)
        if isinstance(held, numpy.ndarray):
            return torch.from_numpy(held)
        named = {name: torch.from_numpy(held[name]) for name in held.files}
    except Exception as error:
        raise FoldproofError(f"{path} is no file of arrays that NumPy wrote ({brief(error)})") from error
    numbered = [f"arr_{i}" for i in range(len(named))]  # the names of arrays that were saved without any
    return [named[name] for name in numbered] if sorted(named) == sorted(numbered) else named


def _load_script(path: Path) -> Any:
    """Return the program of TorchScript in a file; None if it holds none."""
    with contextlib.suppress(RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return torch.jit.load(str(path), map_location="cpu")
    return None


def _scripted(program: torch.jit.ScriptModule) -> Candidate:
    return Candidate("a TorchScript program", caller(program), hidden="a TorchScript program does not show it")


def _load_outputs(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's own text says how to run the code that is in it
        raise FoldproofError(f"{path} is damaged, or holds more than tensors: torch.save the outputs alone") from error
    except Exception as error:
        raise FoldproofError(f"{path} is no file of tensors that torch.save wrote ({brief(error)})") from error


def saved_outputs(source: Any) -> dict[str, Tensor]:
    """Return saved outputs, or those of a file, by name, or by number where they have none.

    Raises:
        FoldproofError: the file holds none.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        check_file(str(path))
        source = _load_outputs(path) if path.suffix == ".pt" else _load_arrays(path)
    names = [name.removeprefix("output").strip("[].'") for name in keys_of(tree_flatten(source)[1])]
    flat = flattened(source)
    return dict(zip(names if len(names) == len(flat) else map(str, range(len(flat))), flat))


def is_saved(source: Any) -> bool:
    """Return True for saved outputs, or the name of a file of them; a ``.pt`` file may also hold a program."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return path.suffix in (".npy", ".npz") or (path.suffix == ".pt" and _load_script(path) is None)
    return isinstance(source, (Tensor, list, tuple, Mapping)) or is_array(source)


def _saved(name: str, outputs: Any, reference: Any) -> Candidate:
    held = reference.state_dict if isinstance(reference, ExportedProgram) else getattr(reference, "state_dict", dict)()
    if isinstance(outputs, Mapping) and outputs and set(outputs) <= set(held):
        raise FoldproofError(
            f"{name}: these are parameters, not outputs; load them into a model, and compare with that"
        )
    flat = flattened(outputs)
    if not flat:
        raise FoldproofError(f"{name}: there is no tensor in it; save the outputs with torch.save(outputs, path)")
    hidden = "saved numbers are outputs only"
    return Candidate(
        name,
        lambda args, kwargs: flat,
        hidden=hidden,
        copies=True,
        given_only=True,
        function=lambda *args, **kwargs: outputs,
    )


def caller(function: Callable[..., Any]) -> Callable[[Sequence[Any], Mapping[str, Any]], list[Tensor]]:
    """A candidate's ``run``: the function's flat outputs."""

    def run(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        with torch.no_grad():
            return flattened(function(*args, **kwargs))

    return run
