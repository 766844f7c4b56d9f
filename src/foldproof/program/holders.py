"""The places where a program keeps Python state: attributes, slots, classes, and the variables of its functions.

They are found by following what a call may reach: the modules and the user's own objects in their attributes, the
functions of their classes that some followed code names, and what these functions read from outside. Code of PyTorch,
of Python's standard library and of installed packages is not followed.
"""

from __future__ import annotations

import dis
import functools
import sys
import sysconfig
import threading
from collections.abc import Iterable, Mapping
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.program.containers import flat

ABSENT = object()
"""The value of a name that a holder lacks."""
CACHED = type(functools.lru_cache(lambda: None))
"""The class of functions with a cache of `functools`."""
REGISTRIES = frozenset({"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"})
"""Attributes of every module whose contents are its leaves and children."""


class Holder:
    """A place with named values."""

    def __init__(self, label: str, owner: Any) -> None:
        self.label, self.owner = label, owner

    def read(self) -> dict[str, Any]:
        """Return the values by name."""
        raise NotImplementedError

    def write(self, name: str, x: Any) -> None:
        """Set a value, or delete it if ``x`` is ``ABSENT``."""
        if x is ABSENT:
            delattr(self.owner, name)
        else:
            setattr(self.owner, name, x)

    def tell(self, name: str) -> str:
        """Return a value's name in words."""
        return f"{name} of {self.label}"


class Attributes(Holder):
    """The ``__dict__`` of a module, an object or a function."""

    def read(self) -> dict[str, Any]:
        return dict(self.owner.__dict__)

    def write(self, name: str, x: Any) -> None:
        if x is ABSENT:
            self.owner.__dict__.pop(name, None)
        else:
            self.owner.__dict__[name] = x

    def tell(self, name: str) -> str:
        return self.label + name


class Slots(Holder):
    """The slots of an object."""

    def read(self) -> dict[str, Any]:
        names = [name for cls in type(self.owner).__mro__ for name in vars(cls) if _is_slot(vars(cls)[name])]
        found = {name: getattr(self.owner, name, ABSENT) for name in names}
        return {name: x for name, x in found.items() if x is not ABSENT}

    def write(self, name: str, x: Any) -> None:
        if x is ABSENT:
            object.__delattr__(self.owner, name)
        else:
            object.__setattr__(self.owner, name, x)

    def tell(self, name: str) -> str:
        return self.label + name


class ClassAttributes(Holder):
    """The attributes of a class that are no functions."""

    def read(self) -> dict[str, Any]:
        held = {n: x for n, x in vars(self.owner).items() if not n.startswith("__")}
        return {n: x for n, x in held.items() if isinstance(x, CACHED) or not hasattr(x, "__get__")}

    def write(self, name: str, x: Any) -> None:
        if x is ABSENT:
            type.__delattr__(self.owner, name)
        else:
            type.__setattr__(self.owner, name, x)


class Closure(Holder):
    """The variables that a function reads from the functions around it."""

    def read(self) -> dict[str, Any]:
        cells = zip(self.owner.__code__.co_freevars, self.owner.__closure__ or ())
        return {name: x for name, cell in cells if (x := _content(cell)) is not ABSENT}

    def write(self, name: str, x: Any) -> None:
        cell = self.owner.__closure__[self.owner.__code__.co_freevars.index(name)]
        if x is ABSENT:
            del cell.cell_contents
        else:
            cell.cell_contents = x


class Defaults(Holder):
    """The defaults of a function's arguments."""

    def read(self) -> dict[str, Any]:
        return {"__defaults__": self.owner.__defaults__, "__kwdefaults__": self.owner.__kwdefaults__}


class Arguments(Holder):
    """The arguments that a `functools.partial` has already."""

    def read(self) -> dict[str, Any]:
        return {**{str(i): x for i, x in enumerate(self.owner.args)}, **self.owner.keywords}

    def write(self, name: str, x: Any) -> None:
        function, args, keywords, attributes = self.owner.__reduce__()[2]
        if name.isdecimal():
            args = tuple(x if str(i) == name else old for i, old in enumerate(args))
        else:
            keywords = {**(keywords or {}), name: x}
        self.owner.__setstate__((function, args, keywords, attributes))


class Variables(Holder):
    """Some global variables of a Python module; the owner is its namespace."""

    def __init__(self, label: str, owner: Any) -> None:
        super().__init__(label, owner)
        self.names: set[str] = set()

    def read(self) -> dict[str, Any]:
        return {name: self.owner[name] for name in sorted(self.names) if name in self.owner}

    def write(self, name: str, x: Any) -> None:
        if x is ABSENT:
            self.owner.pop(name, None)
        else:
            self.owner[name] = x


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return ABSENT


def _is_slot(x: Any) -> bool:
    return isinstance(x, MemberDescriptorType)


def holders_of(modules: Mapping[str, nn.Module], functions: Iterable[Any] = ()) -> list[Holder]:
    """Return the holders that a call of one of these may reach; the names of modules are prefixes of labels."""
    return _Search(modules, functions).found


def registering(modules: Iterable[nn.Module]) -> set[int]:
    """Return the ids of ``modules`` and their submodules, whose registered tensors are leaves."""
    return {id(m) for module in modules for m in module.modules()}


def own_tensors(holders: Iterable[Holder], modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return the tensors that ``holders`` hold, without the parameters and buffers of ``modules``."""
    registered = registering(modules)
    found: dict[int, Tensor] = {}
    for holder in holders:
        for name, x in holder.read().items():
            if name not in REGISTRIES or id(holder.owner) not in registered:
                found.update((id(t), t) for t in flat(x) if isinstance(t, Tensor))
    return list(found.values())


class _Search:
    def __init__(self, modules: Mapping[str, nn.Module], functions: Iterable[Any]) -> None:
        self.found: list[Holder] = []
        self._seen: dict[int, Any] = {}  # keeps objects alive, so that no other gets their id
        self._named = {"forward"}
        self._classes: list[type] = []
        self._modules: set[str] = set()
        self._spaces: dict[int, Variables] = {}
        self._labels: set[str] = set()
        for prefix, module in modules.items():
            for name, m in module.named_modules():
                self._visit(m, f"{prefix}{name}." if name else prefix)
        for function in functions:
            self._visit(function, "")
        self._follow()

    def _follow(self) -> None:
        """Visit what the holders hold, and the functions of classes that followed code names, until nothing is new."""
        visited, named = 0, -1
        while visited < len(self.found) or named < len(self._named) + len(self._modules):
            named = len(self._named) + len(self._modules)
            fresh, visited = self.found[visited:], len(self.found)
            for holder in (*fresh, *(v for v in self._spaces.values() if v not in fresh)):
                prefix = holder.label if isinstance(holder, (Attributes, Slots)) else ""
                for name, x in holder.read().items():
                    if type(x) in _PLAIN or (name in REGISTRIES and isinstance(holder.owner, nn.Module)):
                        continue
                    if isinstance(x, ModuleType) and isinstance(holder, Variables) and _is_followed(x.__name__):
                        self._modules.add(x.__name__)
                    for y in flat(x):
                        self._visit(y, f"{prefix}{name}.")
            for module in sorted(self._modules & sys.modules.keys()):
                space = sys.modules[module].__dict__
                self._space(space, module, self._named & space.keys())
            for cls in self._classes:
                # A library calls the methods of a class that extends one of its own by names that only it knows.
                extends = any(base is not object and not _is_followed(base.__module__) for base in cls.__mro__)
                for name, x in list(vars(cls).items()):
                    unnamed = not issubclass(cls, nn.Module) and (extends or _is_called_unnamed(name))
                    if name in self._named or unnamed:
                        for function in _functions_in(x):
                            self._visit(function, "")

    def _visit(self, x: Any, prefix: str) -> None:
        if id(x) in self._seen or isinstance(x, (Tensor, torch.jit.ScriptModule)):
            return
        if isinstance(x, FunctionType):
            self._seen[id(x)] = x
            self._function(x)
        elif isinstance(x, type):
            self._class(x)
        elif isinstance(x, MethodType):
            self._visit(x.__func__, prefix)
            self._visit(x.__self__, prefix)
        elif isinstance(x, functools.partial):
            self._seen[id(x)] = x
            self._add(Arguments("a partial function", x))
            self._visit(x.func, prefix)
        elif isinstance(x, CACHED):
            self._visit(x.__wrapped__, prefix)
        elif isinstance(x, nn.Module) or is_of_the_users(x):
            self._seen[id(x)] = x
            if type(getattr(x, "__dict__", None)) is dict:
                self._add(Attributes(prefix, x))
            if any(map(_is_slot, _class_values(type(x)))):
                self._add(Slots(prefix, x))
            self._class(type(x))

    def _add(self, holder: Holder) -> None:
        label, k = holder.label, 2
        while not isinstance(holder, (Attributes, Slots)) and holder.label in self._labels:
            holder.label, k = f"{label} ({k})", k + 1
        self._labels.add(holder.label)
        self.found.append(holder)

    def _class(self, cls: type) -> None:
        for base in cls.__mro__:
            if id(base) not in self._seen and _is_followed(base.__module__):
                self._seen[id(base)] = base
                self._classes.append(base)
                self._add(ClassAttributes(f"class {base.__qualname__}", base))

    def _function(self, f: FunctionType) -> None:
        space = f.__globals__.get("__name__")
        if not _is_followed(str(space)):
            for cell in f.__closure__ or ():  # PyTorch's decorators hold the user's function
                content = _content(cell)
                if isinstance(content, (FunctionType, MethodType)) or is_of_the_users(content):
                    self._visit(content, "")
            return
        names, attributes, imported = _names_in(f.__code__)
        self._named |= attributes
        self._modules |= {m for m in imported if m in sys.modules and _is_followed(m)}
        label = f"{f.__qualname__}()"
        if f.__closure__:
            self._add(Closure(label, f))
        if f.__defaults__ or f.__kwdefaults__:
            self._add(Defaults(label, f))
        if f.__dict__:
            self._add(Attributes(f"{f.__qualname__}.", f))
        self._space(f.__globals__, str(space), names)

    def _space(self, space: dict[str, Any], label: str, names: Iterable[str]) -> None:
        if id(space) not in self._spaces:
            self._spaces[id(space)] = Variables(f"module {label}", space)
            self._add(self._spaces[id(space)])
        self._spaces[id(space)].names |= set(names)
        self._named |= set(names)


@functools.lru_cache(maxsize=10_000)
def _names_in(code: CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the global variables that some code names, the attributes, and the Python modules that it imports."""
    names, attributes, imported = set[str](), set[str](), set[str]()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME"):
            names.add(str(instruction.argval))
        elif instruction.opname in ("LOAD_ATTR", "STORE_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            attributes.add(str(instruction.argval))
        elif instruction.opname == "IMPORT_NAME":
            imported.add(str(instruction.argval))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = _names_in(constant)
            names |= inner[0]
            attributes |= inner[1]
            imported |= inner[2]
        elif isinstance(constant, str) and constant.isidentifier():
            attributes.add(constant)  # it may be given to getattr
    return frozenset(names), frozenset(attributes), frozenset(imported)


def _functions_in(x: Any) -> list[Any]:
    """Return the functions of an attribute of a class: a method of any kind, or a property."""
    if isinstance(x, property):
        return [f for f in (x.fget, x.fset, x.fdel) if f is not None]
    return [x.__func__] if isinstance(x, (staticmethod, classmethod)) else [x]


def _class_values(cls: type) -> list[Any]:
    return [x for base in cls.__mro__ for x in vars(base).values()]


def _is_called_unnamed(name: str) -> bool:
    """True for methods behind operators and statements, which code calls without naming them."""
    return name.startswith("__") and name.endswith("__")


def is_of_the_users(x: Any) -> bool:
    """Return True for an object with attributes or slots; those of PyTorch and of Python have other ways."""
    if isinstance(x, _NO_OBJECTS):
        return False
    return isinstance(x, (SimpleNamespace, threading.local)) or (
        _is_of_the_users(type(x).__module__) and type(x).__flags__ & _HEAP_TYPE != 0
    )


_HEAP_TYPE = 1 << 9
"""Flag of a class that was made by a class statement (or by C code in the same way)."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_NO_OBJECTS = (type, Tensor, nn.Module, ModuleType, *_PLAIN)
_LIBRARIES = {*sys.stdlib_module_names, "torch", "foldproof"} - {"__main__"}


_INSTALLED = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def _is_of_the_users(module: str | None) -> bool:
    return bool(module) and str(module).partition(".")[0] not in _LIBRARIES


@functools.lru_cache(maxsize=10_000)
def _is_followed(module: str) -> bool:
    """True for code of the user's; that of installed packages is large, and keeps its state in objects."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return _is_of_the_users(module) and not (isinstance(file, str) and file.startswith(_INSTALLED))
