"""Options that every command takes, before or after its name: how much is printed, colours, device, threads."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Annotated, Any

import typer


class Color(str, Enum):
    """When output is coloured; ``auto``: on a terminal, unless NO_COLOR is set."""

    auto = "auto"
    always = "always"
    never = "never"


@dataclass(frozen=True)
class Settings:
    """The values of these options."""

    quiet: bool = False
    verbose: bool = False
    color: Color | None = None
    device: str | None = None
    threads: int | None = None
    traceback: bool = False


SETTINGS = ContextVar("SETTINGS", default=Settings())  # noqa: B039 (it is frozen)


def _declared(
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the conclusion alone.")] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Print all evidence: primes, shapes, distances."),
    ] = False,
    color: Annotated[
        Color | None,
        typer.Option(help="When to print in colours.", metavar="auto|always|never"),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Move programs and inputs to this device, such as cuda."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of threads that PyTorch computes with."),
    ] = None,
    traceback: Annotated[
        bool,
        typer.Option("--traceback", help="Show the stack of an error in the model, besides its sentence."),
    ] = False,
) -> None:
    """Declare the options; their names are those of `Settings`."""


_OPTIONS = inspect.signature(_declared, eval_str=True).parameters
SHARED = tuple(one.name for one in fields(Settings))
"""Names of these options in Python."""
assert tuple(_OPTIONS) == SHARED


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to the signature of a command, and enter their values into `SETTINGS` when it runs."""
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        shared = {name: given.pop(name) for name in _OPTIONS}
        if shared["quiet"] and shared["verbose"]:
            raise typer.BadParameter("--quiet and --verbose exclude each other")
        if shared["quiet"] or shared["verbose"]:  # the nearer one wins
            SETTINGS.set(replace(SETTINGS.get(), quiet=False, verbose=False))
        SETTINGS.set(replace(SETTINGS.get(), **{name: value for name, value in shared.items() if value}))
        command(**given)

    parameters = [*own.parameters.values(), *_OPTIONS.values()]
    run.__signature__ = own.replace(  # type: ignore[attr-defined]  # where typer looks for it
        parameters=[one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    )
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
