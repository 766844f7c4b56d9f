"""A conversion of checkpoints, run unmodified: it makes a port anew from a reference with any parameters.

It runs on copies of both. Those of the reference hold what is asked for, and the port's keep its own values until the
conversion sets them. On shadows the weights that it computes remain functions of the reference's.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from foldproof.errors import FoldproofError, brief
from foldproof.porting.model import Model, model_of
from foldproof.porting.trace import Origin, Trace, name_movement
from foldproof.program.state import Kept, owned
from foldproof.program.weightless import has_values
from foldproof.proof.obligation import identity
from foldproof.shadow import Shadow, embed_initial, is_number
from foldproof.torch_internals import disable_current_modes, version_of

Convert = Callable[..., Any]


@dataclass(frozen=True)
class Account:
    """An account of a conversion: what becomes of the names on both sides.

    Attributes:
        origins: the origins of the port's parameters and buffers that it sets, by name.
        unset: the port's parameters and buffers that it does not set, and that are part of a checkpoint.
        dropped: the reference's parameters that no parameter of the port is computed from.
        tables: the reference's buffers that are not part of the checkpoint, or that the conversion drops.
        own_tables: the port's buffers that are not part of a checkpoint, and that it does not set.
        unknown: names that it makes, and that the port lacks.
        copies: the port's names that hold an entry as it is, and the reference's names of these.
        written: entries of the reference's own state dict that it writes to.
        kept: Python state that it changes, such as a cache; each of its runs here starts without these changes.
    """

    origins: Mapping[str, Origin]
    unset: Sequence[str]
    dropped: Sequence[str]
    tables: Sequence[str]
    own_tables: Sequence[str]
    unknown: Sequence[str]
    copies: Mapping[str, str]
    written: Sequence[str]
    kept: Sequence[str]

    def told(self) -> list[str]:
        """Return what a user has to know, in sentences."""
        parts = (
            ("the conversion does not set {} of the port, which keep their values", self.unset),
            ("the conversion drops {} of the reference", self.dropped),
            ("the conversion makes {}, which the port lacks", self.unknown),
            ("the conversion changes the reference itself: it writes to {}", self.written),
            ("the conversion changes {}, so that the claim is for its first call alone", self.kept),
        )
        return [words.format(_listed(names)) for words, names in parts if names]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


class Conversion:
    """A function that fills ``port`` with the checkpoint of a reference.

    ``convert`` takes the reference's state dict and returns the port's, or changes it in place; a function of two
    arguments takes the port and the state dict, and loads it, or returns a state dict to load.
    """

    def __init__(self, convert: Convert, port: Any) -> None:
        self._convert, self._port = convert, model_of(port, "port")
        self._loads = _required(convert) > 1
        self.tables: frozenset[str] = frozenset()
        """Names of the port's tensors that are known to be tables, and have no residues."""

    def __call__(self, reference: Any) -> Any:
        """Return the port with the converted checkpoint of ``reference``, as its owner calls it.

        Raises:
            Exception: the conversion raises, or makes tensors that do not fit.
        """
        state = model_of(reference, "reference").module.state_dict()
        return self._fill(state)[0].program

    def round_trip(self, inverse: Convert, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state dict that ``inverse`` makes of the port's, filled from the reference's ``state``.

        Raises:
            FoldproofError: ``inverse`` returns no state dict.
            Exception: either conversion raises.
        """
        there = self._fill(dict(state))[0].module.state_dict()
        back = inverse(there)
        back = there if back is None else back
        if not isinstance(back, Mapping):
            raise FoldproofError(f"the inverse conversion returns a {type(back).__name__}, not a state dict")
        return dict(back)

    def account_of(self, reference: Any) -> tuple[Account, Any]:
        """Return an account of the conversion of ``reference``, which it may write to, and the port that it fills.

        Raises:
            FoldproofError: the conversion raises, or makes tensors that do not fit.
        """
        model = model_of(reference, "reference")
        state = model.module.state_dict()
        given = dict(state)  # a conversion may change the state dict
        versions = {name: version_of(x) for name, x in given.items() if isinstance(x, Tensor)}
        with torch.no_grad(), Trace(given) as trace:
            try:
                port, before, unknown, changed = self._fill(state)
            except FoldproofError:
                raise
            except Exception as error:
                raise FoldproofError(f"the conversion fails: {brief(error)}") from error
        leaves = dict(owned(port.module))
        found = {name: trace.origin(x) for name, x in leaves.items()}
        origins = {
            name: origin or Origin(()) for name, origin in found.items() if origin or leaves[name] is not before[name]
        }
        for name, origin in origins.items():
            if len(origin.entries) == 1 and origin.steps:
                moved = name_movement(leaves[name].detach(), given[origin.entries[0]])
                origins[name] = replace(origin, movement=moved)
        used = {identity(given[entry]) for origin in origins.values() for entry in origin.entries}
        kept, own_kept = model.persistent(), self._port.persistent()
        parameters = dict(model.module.named_parameters(remove_duplicate=False))
        unused = [name for name, x in owned(model.module) if name not in kept or identity(x) not in used]
        entries = {identity(x): name for name, x in owned(model.module)}
        account = Account(
            origins,
            [name for name in leaves if name not in origins and name in own_kept],
            [name for name in unused if name in parameters],
            [name for name in unused if name not in parameters],
            [name for name in leaves if name not in origins and name not in own_kept],
            unknown,
            {
                name: entries[identity(given[origin.entries[0]])]
                for name, origin in origins.items()
                if len(origin.entries) == 1 and not origin.steps and identity(given[origin.entries[0]]) in entries
            },
            [name for name, version in versions.items() if version_of(given[name]) != version],
            changed,
        )
        return account, port.program

    def _fill(self, state: dict[str, Any]) -> tuple[Model, dict[str, Tensor], list[str], list[str]]:
        """Return a filled copy of the port, its tensors before that, names that it lacks, and changed Python state."""
        with disable_current_modes():  # one of a sample point would count these tensors among the program's
            own = _starting(dict(owned(self._port.module)), state, self.tables)
        port = self._port.with_tensors(own)
        before = dict(owned(port.module))
        kept = Kept({}, [self._convert])
        try:
            # Reading memory reads values here; a pass may ask for the identity of memory alone.
            with _reading_values(state):
                made = self._convert(port.module, state) if self._loads else self._convert(state)
            changed = kept.list_changed()
            if made is None and not self._loads:
                made = state
            if isinstance(made, Mapping):
                unexpected = port.module.load_state_dict(made, strict=False).unexpected_keys
                return port, before, list(unexpected), changed
            if self._loads:  # it returns nothing, or what `load_state_dict` returns
                return port, before, [], changed
            raise FoldproofError(f"the conversion returns a {type(made).__name__}, not a state dict")
        finally:
            kept.put_back()


@contextlib.contextmanager
def _reading_values(state: Mapping[str, Any]) -> Iterator[None]:
    """Read as a program does, to whose numbers storages give access."""
    point = next((x.residue.point for x in state.values() if isinstance(x, Shadow)), None)
    if point is None:
        yield
        return
    before, point.running = point.running, True
    try:
        yield
    finally:
        point.running = before


def _required(convert: Convert) -> int:
    """Return the number of arguments that a function requires by position."""
    try:
        parameters = inspect.signature(convert).parameters.values()
    except ValueError:  # a builtin, such as dict
        return 1
    except TypeError as error:
        raise FoldproofError(f"a conversion is a function of a state dict, not a {type(convert).__name__}") from error
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


def _starting(own: Mapping[str, Tensor], state: Mapping[str, Any], tables: Container[str]) -> dict[str, Tensor]:
    """Return copies of the port's tensors that a conversion may write to: shadows of constants, for one on shadows.

    Tied tensors stay one. Those without values begin with zeros.
    """
    point = next((x.residue.point for x in state.values() if isinstance(x, Shadow)), None)
    made: dict[int, Tensor] = {}
    for name, x in own.items():
        if id(x) not in made:
            value = x.detach().clone() if has_values(x) else torch.zeros(x.shape, dtype=x.dtype)
            if point is not None and is_number(x.dtype) and name not in tables and not isinstance(value, Shadow):
                value = Shadow(value, embed_initial(point, x.detach() if has_values(x) else value.clone()))
            made[id(x)] = value
    return {name: made[id(x)] for name, x in own.items()}
