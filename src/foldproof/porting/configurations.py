"""The public function `prove_configurations`: a port in several configurations, in one verdict.

A proof is for the configuration at hand, and mistakes hide where two sizes coincide. Configurations that differ in what
coincides leave no such place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from foldproof.errors import FoldproofError
from foldproof.porting.api import prove_port
from foldproof.porting.sizes import COINCIDE
from foldproof.proof.inquiry import Progress
from foldproof.verdict import Verdict, weakest


def prove_configurations(
    make: Callable[..., tuple[Any, Any, tuple[Any, ...], Callable[..., Any]]],
    configurations: Iterable[Mapping[str, Any]],
    *,
    by_value: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Prove a port in several configurations.

    Args:
        make: a function of a configuration's settings, given by name. It returns the reference, the port, example
            inputs and the conversion, as `foldproof.prove` takes them.
        configurations: the settings of each configuration, such as ``{"heads": 4, "groups": 2}``.
        by_value: as of `foldproof.prove`.
        seed: as of `foldproof.prove`.
        progress: as of `foldproof.prove`.

    Returns:
        One verdict for all configurations, or the first that is no proof, with a note that names its configuration.

    Raises:
        FoldproofError: there is no configuration; otherwise as `foldproof.prove`.
    """

    def prove_one(settings: Mapping[str, Any]) -> Verdict:
        reference, port, inputs, convert = make(**settings)
        return prove_port(reference, port, inputs, None, convert, None, by_value, seed, progress)

    return prove_each(configurations, prove_one)


def prove_each(
    configurations: Iterable[Mapping[str, Any]], prove_one: Callable[[Mapping[str, Any]], Verdict]
) -> Verdict:
    """Return one verdict for all configurations, or the first that is no proof; see `prove_configurations`."""
    proved: list[Verdict] = []
    names: list[str] = []
    for settings in configurations:
        verdict = prove_one(settings)
        names.append(tell_settings(settings))
        if verdict.proof is None:
            seconds = verdict.seconds + sum(v.seconds for v in proved)
            return replace(verdict, notes=(*verdict.notes, f"in the configuration {names[-1]}"), seconds=seconds)
        proved.append(verdict)
    if not proved:
        raise FoldproofError("there is no configuration to prove a port in; give the settings of at least one")
    found = weakest(proved)
    # A coincidence in one configuration does not matter if another has none.
    everywhere = all(any(note.startswith(COINCIDE) for note in v.notes) for v in proved)
    notes = [note for note in found.notes if everywhere or not note.startswith(COINCIDE)]
    return replace(found, notes=(*notes, f"in {len(names)} configurations: {'; '.join(names)}"))


def tell_settings(settings: Mapping[str, Any]) -> str:
    """Return settings as the arguments of a call."""
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())
