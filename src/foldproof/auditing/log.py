"""What a tap writes down while a compiler works: every call that changed a graph, without a gap."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import fx
from torch.export import ExportedProgram

from foldproof.auditing.copies import Copies
from foldproof.auditing.snapshot import Snapshot, snapshot_of
from foldproof.errors import brief
from foldproof.log import log_caught
from foldproof.torch_internals import disable_current_modes


def program_in(result: Any, given: Any) -> Any:
    """What a pass made: a program, the one in a PassResult, or what it was given, changed in place."""
    for found in (result, getattr(result, "exported_program", None), getattr(result, "graph_module", None)):
        if isinstance(found, (fx.GraphModule, ExportedProgram)):
            return found
    return given


@dataclass(frozen=True)
class Rerun:
    """A pass that can be run again: on ``program`` (a copy from before it ran) or copies of it with other tensors.

    Without a ``program``, on the graph before.
    """

    run: Callable[[Any], Any]
    program: fx.GraphModule | ExportedProgram | None = None


@dataclass
class Change:
    """One call of a pass: its name, where it stands, and the graph before and after.

    ``name`` is empty for what happened between two observed calls.
    """

    name: str
    phase: str
    before: Snapshot
    after: Snapshot
    seconds: float = 0.0
    rerun: Rerun | None = None
    inputs: Sequence[Any] | None = None
    """What the graph is given, where the tap knows it."""
    note: str = ""
    unseen: str = ""
    """Why a graph can't be seen, and so nothing be said; then ``before`` or ``after`` stands for nothing."""

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
    """How many changes were written down before it began."""
    children: list[tuple[int, Change]] = field(default_factory=list)
    rerun: Rerun | None = None


def _nothing() -> Snapshot:
    return Snapshot(fx.GraphModule({}, fx.Graph()))


class Log:
    """Calls of passes, in the order in which they end.

    A call that contains others is written down only for what happened between those (as an unobserved change), so
    that the changes form a chain from the first graph to the last.
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
        """Patterns that were replaced by a call of their lowering, below which there is no graph."""
        self._open: list[_Open] = []
        self._last: Snapshot | None = None
        self.owners: list[ExportedProgram] = []
        """Exported programs that are worked on, innermost last: a pass may be given nothing but a graph of theirs."""
        self.given: Sequence[Any] | None = None
        """The inputs of the graphs that are seen, where the tap knows them."""
        self.watch: Callable[[Change], None] | None = None
        """Called with every change as soon as it is known."""
        self.copies = Copies()
        """Tensors as they were when they were seen."""
        self.keep: list[Any] = []
        """What must live as long as the log, because it is known by its id."""
        self._program: ExportedProgram | None = None
        self._blind = False

    def leaves_out(self, name: str) -> bool:
        """Whether a pass that is called now is to be left out."""
        self.optional.add(name)
        return name in self.without

    @property
    def names(self) -> list[str]:
        """The passes that are running, outermost first."""
        return [call.name for call in self._open]

    def look(self, make: Callable[[], Snapshot]) -> Snapshot:
        """A snapshot; the last one where nothing changed since, so that long pipelines share them.

        New names alone make it another one, since the changed region of the next step is told by names, too.
        """
        with disable_current_modes():
            seen = make()
        if self._last is None or self._last.digest != seen.digest or self._last.names != seen.names:
            self._last = seen
        return self._last

    def enter(self, name: str, before: Snapshot, rerun: Rerun | None = None) -> None:
        """A pass begins."""
        self._open.append(_Open(name, before, time.perf_counter(), len(self.changes), rerun=rerun))

    def rename(self, name: str) -> None:
        """The pass that began last is better known by another name."""
        self._open[-1].name = name

    def add(self, change: Change) -> None:
        """Write down a change that is complete."""
        self.changes.append(change)
        if self.watch is not None:
            self.watch(change)

    def leave(self, look: Callable[[], Snapshot], done: bool) -> None:
        """The pass that began last ends; where it raised, what it had changed until then counts, if it can be seen."""
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
        """A pass works all the same where its graph can't be seen."""
        why = brief(error)
        self.add(Change(name, "/".join(self.names), before, before, inputs=self.given, unseen=why))

    @contextmanager
    def separate(self, name: str) -> Iterator[None]:
        """What is called inside works on a graph of its own."""
        self._open.append(_Open(name, _nothing(), 0.0, len(self.changes)))
        try:
            yield
        finally:
            self._open.pop()

    @contextmanager
    def owned(self, program: ExportedProgram) -> Iterator[None]:
        """Graphs that are seen inside may have this program's parameters as inputs."""
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
        """Note what happens to ``program`` inside; append what it becomes, unless it is changed in place.

        ``holder`` is the program that holds the parameters, where ``program`` is a bare graph. A ``whole`` call is one
        step, whatever is called inside (some passes run passes on graphs of their own); others are made of steps.
        """
        if self._blind:
            yield []
            return

        def seen(x: Any) -> Snapshot:
            if isinstance(x, ExportedProgram):
                self._program = x
            owners = [holder, *reversed(self.owners), self._program]
            return self.look(lambda: snapshot_of(x, [o for o in owners if o is not None], self.copies))

        try:
            before, again = seen(program), rerun() if rerun is not None else None
        except Exception as error:
            log_caught(error, f"looking at the graph before {name}")
            self._unseen(name, _nothing(), error)
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
            self.failed = "" if done else self.failed or name  # what was caught did no harm
            self.leave(lambda: seen(made[-1] if made else program), done)
