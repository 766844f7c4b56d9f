"""The record that a tap keeps while a compiler runs: a chain of calls that changed a graph, without gaps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import fx
from torch.export import ExportedProgram

from foldproof.auditing.copies import Copies
from foldproof.auditing.snapshot import Snapshot, take_snapshot
from foldproof.errors import brief
from foldproof.log import log_caught
from foldproof.torch_internals import disable_current_modes


def find_program(result: Any, given: Any) -> Any:
    """Return the result of a pass: a program, the one in a PassResult, or ``given`` if it was changed in place."""
    for found in (result, getattr(result, "exported_program", None), getattr(result, "graph_module", None)):
        if isinstance(found, (fx.GraphModule, ExportedProgram)):
            return found
    return given


@dataclass(frozen=True)
class Rerun:
    """A pass that can be run again on ``program``, a copy from before it ran, or on copies with other tensors.

    Without a ``program``, it is run on the graph before.
    """

    run: Callable[[Any], Any]
    program: fx.GraphModule | ExportedProgram | None = None


@dataclass
class Change:
    """One call of a pass: its name, its phase, and the graph before and after.

    ``name`` is empty for a change between two observed calls.
    """

    name: str
    phase: str
    before: Snapshot
    after: Snapshot
    seconds: float = 0.0
    rerun: Rerun | None = None
    inputs: Sequence[Any] | None = None
    """Inputs of the graph, if the tap knows them."""
    note: str = ""
    unseen: str = ""
    """Reason why a graph can't be read, if so; ``before`` or ``after`` then has no meaning."""
    differentiate: Callable[[Change], Change] | None = None
    """Function that gives the change of both graphs with their gradients, if these have to be the same, too."""
    find_cause: Callable[[Callable[[Change], bool]], str] | None = None
    """Function that gives the parts of the pass that make its result wrong, from one that tells wrong changes."""

    @property
    def part(self) -> str:
        """The half of a joint graph that it changes, "forward" or "backward", or the part that control flow runs."""
        return self.after.part

    @property
    def fired(self) -> bool:
        return bool(self.unseen) or self.before.digest != self.after.digest


@dataclass
class _Open:
    """A call that has not returned yet."""

    name: str
    before: Snapshot
    start: float
    place: int
    """Number of changes recorded before the call began."""
    children: list[tuple[int, Change]] = field(default_factory=list)
    rerun: Rerun | None = None


def _make_empty() -> Snapshot:
    return Snapshot(fx.GraphModule({}, fx.Graph()))


class Log:
    """Calls of passes, in the order in which they end.

    Of a call that contains others, only the changes between those are recorded, as unobserved ones. So the changes form
    a chain from the first graph to the last.
    """

    def __init__(self, without: Iterable[str] = ()) -> None:
        self.without = frozenset(without)
        """Passes that the taps leave out."""
        self.optional: set[str] = set()
        """Passes that were called and can be left out."""
        self.failed = ""
        """The pass that raised, if one did."""
        self.changes: list[Change] = []
        self.lowerings: list[str] = []
        """Patterns that were replaced by a call of their lowering, which has no graph."""
        self.generated: list[Any] = []
        """Modules that were generated from recorded loops; see `foldproof.auditing.kernels`."""
        self._open: list[_Open] = []
        self.last: Snapshot | None = None
        """The last snapshot."""
        self.owners: list[ExportedProgram] = []
        """Exported programs in work, innermost last: a pass may get only the graph of one."""
        self.given: Sequence[Any] | None = None
        """Inputs of the recorded graphs, if the tap knows them."""
        self.watch: Callable[[Change], None] | None = None
        """Callback for every change as soon as it is known."""
        self.copies = Copies()
        """Copies of tensors at the time of each snapshot."""
        self.keep: list[Any] = []
        """Objects kept alive because the log identifies them by id."""
        self.part = ""
        """Name of the part that is compiled, if it is not the model."""
        self._program: ExportedProgram | None = None
        self._blind = False

    @contextmanager
    def of_part(self, name: str) -> Iterator[None]:
        """Give the changes that are recorded meanwhile the name of a part."""
        before, self.part = self.part, name
        try:
            yield
        finally:
            self.part = before

    def leaves_out(self, name: str) -> bool:
        """Return True if the pass that is called now has to be left out; record that it is optional."""
        self.optional.add(name)
        return name in self.without

    @property
    def names(self) -> list[str]:
        """Names of the running passes, outermost first."""
        return [call.name for call in self._open]

    def look(self, make: Callable[[], Snapshot]) -> Snapshot:
        """Return a snapshot; the last one if nothing has changed since, so that long pipelines share snapshots.

        A change of names alone makes a new one, since names pair the nodes in the changed region of the next step.
        """
        with disable_current_modes():
            seen = make()
        if self.last is None or self.last.digest != seen.digest or self.last.names != seen.names:
            self.last = seen
        self.last.sight = seen.sight  # other remarks on the same nodes are no change
        return self.last

    def enter(self, name: str, before: Snapshot, rerun: Rerun | None = None) -> None:
        """Record that a pass begins."""
        self._open.append(_Open(name, before, time.perf_counter(), len(self.changes), rerun=rerun))

    def rename(self, name: str) -> None:
        """Rename the pass that began last."""
        self._open[-1].name = name

    def add(self, change: Change) -> None:
        """Record a complete change."""
        self.changes.append(change)
        if self.watch is not None:
            self.watch(change)

    def leave(self, look: Callable[[], Snapshot], done: bool) -> None:
        """Record that the pass that began last ends; if it raised, keep its changes so far, if they can be read."""
        call = self._open.pop()
        try:
            after = look()
        except Exception as error:
            log_caught(error, f"looking at the graph after {call.name}")
            if done:
                self._unseen(call.name, call.before, error)
            return
        if not done and after.digest == call.before.digest:
            return
        seconds = time.perf_counter() - call.start
        phase = "/".join(self.names)
        inside = f"{phase}/{call.name}".strip("/")
        if not call.children:
            change = Change(call.name, phase, call.before, after, seconds, call.rerun, self.given)
            self.add(change)
        else:
            gaps: list[tuple[int, Change]] = []
            here = call.before
            for place, child in call.children:
                if child.before.digest != here.digest:
                    gaps.append(
                        (place, Change("", inside, here, child.before, inputs=self.given, note=f"before {child.name}"))
                    )
                here = child.after
            if here.digest != after.digest:
                end = f"after {call.children[-1][1].name}"
                gaps.append((len(self.changes), Change("", inside, here, after, inputs=self.given, note=end)))
            for place, gap in reversed(gaps):
                self.changes.insert(place, gap)
        if self._open:
            self._open[-1].children.append((call.place, Change(call.name, phase, call.before, after, seconds)))

    def _unseen(self, name: str, before: Snapshot, error: Exception) -> None:
        """Record a pass whose graph can't be read; the pass itself goes on."""
        why = brief(error)
        self.add(Change(name, "/".join(self.names), before, before, inputs=self.given, unseen=why))

    @contextmanager
    def separate(self, name: str) -> Iterator[None]:
        """Record the calls inside as passes on a separate graph."""
        self._open.append(_Open(name, _make_empty(), 0.0, len(self.changes)))
        try:
            yield
        finally:
            self._open.pop()

    @contextmanager
    def owned(self, program: ExportedProgram) -> Iterator[None]:
        """Treat this program as the owner of graphs recorded inside, whose inputs may be its parameters."""
        self.owners.append(program)
        try:
            yield
        finally:
            self.owners.pop()

    @contextmanager
    def call(
        self,
        name: str,
        program: Any,
        rerun: Callable[[], Rerun] | None = None,
        holder: ExportedProgram | None = None,
        whole: bool = True,
    ) -> Iterator[list[Any]]:
        """Record the change of ``program`` inside; the caller appends the result, unless it is changed in place.

        ``holder`` is the program that holds the parameters, if ``program`` is a bare graph. A ``whole`` call is one
        step, even if it calls other passes (some run passes on graphs of their own); other calls consist of steps.
        """

        def seen(x: Any) -> Snapshot:
            if isinstance(x, ExportedProgram):
                self._program = x
            owners = [holder, *reversed(self.owners), self._program]
            return take_snapshot(x, [o for o in owners if o is not None], self.copies)

        with self.around(name, program, seen, rerun, whole) as made:
            yield made

    @contextmanager
    def around(
        self,
        name: str,
        program: Any,
        snapshot: Callable[[Any], Snapshot],
        rerun: Callable[[], Rerun] | None = None,
        whole: bool = True,
    ) -> Iterator[list[Any]]:
        """Record the change of ``program`` inside, as `call` does; ``snapshot`` reads a program of any kind."""
        if self._blind:
            yield []
            return

        def seen(x: Any) -> Snapshot:
            return self.look(lambda: snapshot(x))

        try:
            before, again = seen(program), rerun() if rerun is not None else None
        except Exception as error:
            log_caught(error, f"looking at the graph before {name}")
            self._unseen(name, _make_empty(), error)
            yield []
            return
        self.enter(name, before, again)
        self._blind = whole
        made: list[Any] = []
        done = False
        try:
            yield made
            done = True
        finally:
            self._blind = False
            self.failed = "" if done else self.failed or name  # an error that the pass caught does not count
            self.leave(lambda: seen(made[-1] if made else program), done)
