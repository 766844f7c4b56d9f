"""The pytest plugin for tests of passes: a fixture ``prove``, and an option ``--foldproof-report FILE``.

It does not import torch, because pytest loads it in every project.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from foldproof.verdict import SCHEMA
from foldproof.version import __version__

if TYPE_CHECKING:
    from foldproof.verdict import Verdict

_RECORDS = pytest.StashKey[list[dict[str, Any]]]()


class Prover:
    """Asserts that two programs, or a program before and after a pass, are the same function; records each verdict."""

    def __init__(self, test: str, records: list[dict[str, Any]]) -> None:
        self._test, self._records = test, records

    def __call__(
        self, before: Any, after: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any] | None = None
    ) -> Verdict:
        """Assert that two programs are the same function, up to rounding (see `foldproof.prove`).

        Raises:
            AssertionError: the verdict is REFUTED or UNDECIDED; the message explains it in full.
        """
        __tracebackhide__ = True
        from foldproof.proving import prove

        return self._checked(prove(before, after, inputs, kwargs))

    def of_pass(
        self,
        pass_fn: Callable[[Any], Any],
        program: Any,
        inputs: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        *,
        must_change: bool = True,
    ) -> Verdict:
        """Assert that a pass keeps the meaning of ``program`` (see `foldproof.prove_pass`) and, by default, changes it.

        Raises:
            AssertionError: the verdict is REFUTED or UNDECIDED, or the pass changed nothing; the message explains it in
                full.
        """
        __tracebackhide__ = True  # so that pytest shows the line of the test
        from foldproof.proof import prove_pass

        return self._checked(prove_pass(pass_fn, program, inputs, kwargs, must_change=must_change))

    def _checked(self, verdict: Verdict) -> Verdict:
        __tracebackhide__ = True
        self._records.append({"test": self._test, "verdict": verdict.to_dict()})
        if not verdict.ok:
            raise AssertionError(str(verdict))
        return verdict


@pytest.fixture
def prove(request: pytest.FixtureRequest) -> Prover:
    """Assertions ``prove(before, after, inputs)`` and ``prove.of_pass(pass_fn, program, inputs)``, with verdicts."""
    return Prover(request.node.nodeid, request.config.stash[_RECORDS])


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("foldproof")
    group.addoption(
        "--foldproof-report",
        metavar="FILE",
        help="Write all verdicts of the fixture `prove` to FILE, as JSON; `foldproof report FILE` makes it a page.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RECORDS] = []
    path = config.getoption("--foldproof-report")
    if path is not None and not (Path(path).parent.is_dir() and not Path(path).is_dir()):
        raise pytest.UsageError(f"--foldproof-report {path} can't be written: give a file in a folder that exists")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect the records of a pytest-xdist worker that has ended."""
    node.config.stash[_RECORDS] += getattr(node, "workeroutput", {}).get("foldproof", ())


def pytest_sessionfinish(session: pytest.Session) -> None:
    path, records = session.config.getoption("--foldproof-report"), session.config.stash[_RECORDS]
    if path is None:
        return
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["foldproof"] = records
        return
    told = {"schema": SCHEMA, "command": "pytest", "foldproof": __version__, "tests": records}
    target = Path(path)
    temporary = target.with_name(f".{target.name}.part")
    temporary.write_text(json.dumps(told, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(target)
