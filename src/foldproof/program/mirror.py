"""Copies of modules and functions that share the originals' tensors, so that a run leaves the originals alone.

Another thread may serve the module during a proof, or prove it as well. A mirror has the same tensors, settings, hooks
and instance methods as the original, in dictionaries and lists of its own. Making it runs no code of the user's, unlike
`copy.deepcopy`.
"""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from foldproof.torch_internals import code_generator, hook_tables, hooks_of


def mirror(module: nn.Module, tensors: Mapping[int, Tensor] | None = None) -> nn.Module:
    """Return a mirror of ``module`` and its submodules; scripted modules have no mirror and stay themselves.

    ``tensors`` maps ids of tensors to tensors that replace them, wherever the module holds them.
    """
    made: dict[int, Any] = dict(tensors or {})
    originals = [m for m in module.modules() if not isinstance(m, torch.jit.ScriptModule)]
    for m in originals:
        made[id(m)] = object.__new__(type(m))
    for m in originals:
        made[id(m)].__dict__.update({name: _swapped(x, made) for name, x in m.__dict__.items()})
    found: nn.Module = made.get(id(module), module)
    return found


def keep_hooks(module: nn.Module, copy: nn.Module) -> None:
    """Copy the owner's hooks on graph modules of ``module`` to those of a deep ``copy``, because FX leaves them out.

    PyTorch's own hooks, which check inputs, are not copied.
    """
    copies = dict(copy.named_modules())
    made: dict[int, Any] = {id(m): copies[name] for name, m in module.named_modules() if name in copies}
    for name, m in module.named_modules():
        if isinstance(m, fx.GraphModule) and name in copies:
            own, tables = hooks_of(m), hook_tables(copies[name])
            for kind, table in hook_tables(m).items():
                tables[kind].update({k: _swapped(hook, made) for k, hook in table.items() if k in own})


def hung_on(module: nn.Module) -> list[Any]:
    """Return the hooks around a call of ``module``, and what else a call runs beside its graph, without PyTorch's own.

    That is its own ``forward``, classes of the user's that define a call, and functions put into the code generator.
    """
    found = [*hooks_of(module).values(), *([f] if (f := module.__dict__.get("forward")) else [])]
    if isinstance(module, fx.GraphModule):
        own = [cls for cls in type(module).__mro__ if cls.__module__.partition(".")[0] != "torch"]
        found += [cls for cls in own if cls is not object and vars(cls).keys() & {"forward", "__call__"}]
        found += [x for x in vars(code_generator(module.graph)).values() if isinstance(x, types.FunctionType)]
    return found


def captured(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the modules and tensors, and lists and dicts of them, that a Python function reads from outside, by name.

    The method of a module reads that module, as ``self``.
    """
    owner = getattr(function, "__self__", None)
    if isinstance(owner, nn.Module):
        return {"self": owner}
    if not inspect.isfunction(function):
        return {}
    seen = inspect.getclosurevars(function)
    inner = {name: function.__globals__[name] for name in _names_in(function.__code__) & function.__globals__.keys()}
    return {name: x for name, x in {**inner, **seen.globals, **seen.nonlocals}.items() if _holds_state(x)}


def _names_in(code: types.CodeType) -> set[str]:
    """Return the global variables that some code names, in its comprehensions and inner functions, too."""
    named = {x.argval for x in dis.get_instructions(code) if x.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (_names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return named.union(*inner)


def rebound(function: Callable[..., Any], values: Mapping[str, Any]) -> Callable[..., Any]:
    """Return ``function`` with other ``values`` of the variables that `captured` names."""
    if not values:
        return function
    if isinstance(function, types.MethodType):
        return types.MethodType(function.__func__, values["self"])
    if not isinstance(function, types.FunctionType):
        return function
    cells = tuple(
        types.CellType(values[name]) if name in values else cell
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ())
    )
    there = function.__globals__
    outside = {name: x for name, x in values.items() if name in there and name not in function.__code__.co_freevars}
    if outside:
        outside = there | outside
        # Functions of the same Python module share its variables: what one writes, another reads.
        for name, x in there.items():
            if isinstance(x, types.FunctionType) and x.__globals__ is there:
                outside[name] = _remade(x, outside, x.__closure__)
    return _remade(function, outside or there, cells)


def _remade(function: types.FunctionType, outside: dict[str, Any], cells: Any) -> types.FunctionType:
    made = types.FunctionType(function.__code__, outside, function.__name__, function.__defaults__, cells)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    made.__dict__.update(function.__dict__)
    return made


def _holds_state(x: Any) -> bool:
    if isinstance(x, (nn.Module, Tensor)):
        return True
    if type(x) in (list, tuple):
        return any(_holds_state(v) for v in x)
    return type(x) is dict and any(_holds_state(v) for v in x.values())


def _swapped(x: Any, made: dict[int, Any]) -> Any:
    """Return ``x`` with mirrors in place of modules.

    ``made`` maps ids of objects to their replacements so far, so that cycles end.
    """
    if id(x) in made:
        return made[id(x)]
    if isinstance(x, types.MethodType) and id(x.__self__) in made:
        return types.MethodType(x.__func__, made[id(x.__self__)])
    if isinstance(x, types.FunctionType):
        made[id(x)] = x  # ends the recursion of a function that reads itself
        made[id(x)] = rebound(x, {name: _swapped(v, made) for name, v in captured(x).items()})
    elif type(x) is functools.partial:
        args, kwargs = _swapped(x.args, made), _swapped(x.keywords, made)
        return functools.partial(_swapped(x.func, made), *args, **kwargs)
    elif type(x) is list:
        made[id(x)] = new = list[Any]()
        new.extend(_swapped(v, made) for v in x)
    elif type(x) in (dict, OrderedDict):
        made[id(x)] = held = type(x)()
        held.update((k, _swapped(v, made)) for k, v in x.items())
    elif type(x) is deque:
        made[id(x)] = queue = deque[Any](maxlen=x.maxlen)
        queue.extend(_swapped(v, made) for v in x)
    elif type(x) in (tuple, set):
        return type(x)(_swapped(v, made) for v in x)
    return made.get(id(x), x)
