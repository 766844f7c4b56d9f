"""Loading of SPECs, by which the command line names a program with its example inputs.

A SPEC is a ``.pt2`` file, ``path/file.py:callable`` or ``package.module:callable``. Loading any of them can run code: a
Python file is imported and called, and ``torch.export.load`` unpickles the file.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from foldproof.errors import FoldproofError, brief
from foldproof.log import hushed
from foldproof.program.modules import FunctionProgram
from foldproof.program.state import owned, require_shape
from foldproof.spec import FUNCTION, check_function, check_spec
from foldproof.torch_internals import tree_map


@dataclass(frozen=True)
class Loaded:
    """A program, its example inputs for export and proof, and its SPEC.

    ``inputs`` is None if a ``.pt2`` file contains no example inputs.
    """

    spec: str
    program: Any
    """An nn.Module or ExportedProgram, or a function, where these are asked for."""
    inputs: tuple[Any, ...] | None
    kwargs: dict[str, Any]
    dynamic_shapes: Any = None

    def require_inputs(self) -> tuple[Any, ...]:
        """Return the example inputs.

        Raises:
            FoldproofError: there are none.
        """
        if self.inputs is None:
            raise FoldproofError(
                f"{self.spec} carries no example inputs; export it again with torch.export.export(model, args),"
                " or give a SPEC of the form path/file.py:callable that returns (program, args)"
            )
        return self.inputs


def load_spec(spec: str, functions: bool = False, settings: Mapping[str, Any] | None = None) -> Loaded:
    """Load the program that ``spec`` names, which may be a function if ``functions`` says so. Runs code.

    A callable is called with ``settings``, if there are any.

    Raises:
        FoldproofError: the file is missing or damaged, the module does not import, the callable raises or returns
            something other than (model, args[, kwargs[, dynamic_shapes]]), or a file is to be made with settings.
    """
    check_spec(spec)
    if spec.endswith(".pt2"):
        if settings:
            raise FoldproofError(f"{spec} is a file, which has one configuration; give {FUNCTION}")
        return _load_pt2(spec)
    function = load_function(spec)
    name = spec.rpartition(":")[2]
    given = ", ".join(f"{key}={value!r}" for key, value in (settings or {}).items())
    with importable(spec), _blaming(f"{spec}: calling {name}({given})"):
        made = function(**(settings or {}))
    return _check_made(spec, name, made, functions)


def load_function(spec: str) -> Callable[..., Any]:
    """Load the function that ``spec`` names. Runs code.

    Raises:
        FoldproofError: the module does not import, or has no such function.
    """
    check_function(spec)
    place, _, name = spec.rpartition(":")
    with importable(spec):
        function = getattr(_import(spec, place), name, None)
    if not callable(function):
        raise FoldproofError(f"{spec}: {place} has no callable named {name!r}")
    return function  # type: ignore[no-any-return]


def moved(loaded: Loaded, device: str) -> Loaded:
    """Return the program and its inputs on another device; a module itself is moved.

    Raises:
        FoldproofError: there is no such device here, or the program can't be moved to it.
    """
    program = loaded.program
    try:
        if isinstance(program, ExportedProgram):
            program = move_to_device_pass(program, device)
        elif isinstance(program, nn.Module):
            program.to(device)
        given = loaded.inputs, loaded.kwargs
        inputs, kwargs = tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, given)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise FoldproofError(f"{loaded.spec} can't be moved to {device!r} ({brief(error)})") from error
    return replace(loaded, program=program, inputs=inputs, kwargs=kwargs)


def check_runs(loaded: Loaded, of: Loaded) -> Any:
    """Run a program once on the inputs of ``of``, so that unsuitable inputs show before the long work starts.

    Return its output.

    Parameters, buffers and inputs are copies, so that a program that writes to them changes nothing.

    Raises:
        FoldproofError: it raises on them, their shapes differ from those that it was exported for, or a parameter has
            no shape yet.
    """
    inputs = copy.deepcopy((of.require_inputs(), of.kwargs))
    if not isinstance(loaded.program, (nn.Module, ExportedProgram)):
        return _check_function_runs(loaded, inputs, of)
    program = loaded.program.module() if isinstance(loaded.program, ExportedProgram) else loaded.program
    # One copy of each tensor, under all its names, keeps tied weights tied.
    own = dict(owned(program))
    for name, tensor in own.items():
        require_shape(name, tensor)
    copies = {id(tensor): tensor.detach().clone() for tensor in own.values()}
    state = {name: copies[id(tensor)] for name, tensor in own.items()}
    try:
        with torch.no_grad():
            return torch.func.functional_call(program, state, *inputs, tie_weights=False)
    except Exception as error:
        raise _failed(loaded, of, error) from error


def _check_function_runs(loaded: Loaded, inputs: tuple[Any, Any], of: Loaded) -> Any:
    program = FunctionProgram(loaded.program)
    try:
        with torch.no_grad():
            return program.run_as_it_is(*inputs)
    except Exception as error:
        raise _failed(loaded, of, error) from error


def _failed(loaded: Loaded, of: Loaded, error: Exception) -> FoldproofError:
    whose = "its inputs" if of is loaded else f"the inputs of {of.spec}"
    return FoldproofError(f"{loaded.spec} does not run on {whose} ({brief(error)})")


def _load_pt2(spec: str) -> Loaded:
    with hushed():  # torch.export.load also logs the traceback of its exceptions
        try:
            program = torch.export.load(spec)
        except Exception as error:
            # If the archive itself is unreadable, torch's message is only "check the warnings above".
            detail = "" if "warnings above" in str(error) else f" ({brief(error)})"
            raise FoldproofError(
                f"{spec} is damaged, or was not written by torch.export.save of a compatible PyTorch{detail}"
            ) from error
    if program.example_inputs is None:
        return Loaded(spec, program, None, {})
    args, kwargs = program.example_inputs
    return Loaded(spec, program, tuple(args), dict(kwargs))


def _import(spec: str, place: str) -> ModuleType:
    if place.endswith(".py"):
        return _import_file(spec, Path(place).resolve())
    with _blaming(f"{spec}: importing {place}"):
        return importlib.import_module(place)


def _import_file(spec: str, path: Path) -> ModuleType:
    # The path in the name keeps a file from hiding an installed module of the same name, distinguishes two files called
    # model.py, and makes a file that is named twice run once.
    name = f"_foldproof_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        with _blaming(f"{spec}: importing {path.name}"):
            found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def importable(*specs: str) -> Iterator[None]:
    """Let the modules of these SPECs import their neighbours, as with ``python file.py`` and ``python -m module``."""
    places = [spec.rpartition(":")[0] for spec in specs if not spec.endswith(".pt2")]
    folders = [str(Path(place).resolve().parent if place.endswith(".py") else Path.cwd()) for place in places]
    added = [folder for folder in dict.fromkeys(folders) if folder not in sys.path]
    for folder in added:
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        for folder in added:
            with suppress(ValueError):  # the loaded code may have removed it
                sys.path.remove(folder)


@contextmanager
def _blaming(doing: str) -> Iterator[None]:
    """Turn exceptions of the user's code, `sys.exit` included, into one sentence with its file and line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        where = _place(error)
        raise FoldproofError(f"{doing} raised {brief(error)}{f' at {where}' if where else ''}") from error


def _place(error: BaseException) -> str | None:
    """Return file:line of the innermost frame outside of this file, the standard library and installed packages."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    installed = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    own = [f for f in frames if not f.filename.startswith((*installed, "<"))]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None


def _check_made(spec: str, name: str, made: object, functions: bool) -> Loaded:
    wanted = (
        f"{spec}: {name}() must return (model, args), (model, args, kwargs) or (model, args, kwargs, dynamic_shapes)"
    )
    if not isinstance(made, tuple) or not 2 <= len(made) <= 4:
        what = f"a tuple of {len(made)}" if isinstance(made, tuple) else type(made).__name__
        raise FoldproofError(f"{wanted}, not {what}")
    program, args, kwargs, dynamic_shapes = (*made, None, None)[:4]
    if not isinstance(program, (nn.Module, ExportedProgram)) and not (functions and callable(program)):
        raise FoldproofError(f"{wanted}; model is {type(program).__name__}, not an nn.Module or ExportedProgram")
    if not isinstance(args, (tuple, list)):
        raise FoldproofError(f"{wanted}; args is {type(args).__name__}, not a tuple: for one input write (x,)")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise FoldproofError(f"{wanted}; kwargs is {type(kwargs).__name__}, not a dict")
    return Loaded(spec, program, tuple(args), kwargs or {}, dynamic_shapes)
