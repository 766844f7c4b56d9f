"""The pytest plugin for tests of passes: a fixture ``prove``, and an option ``--foldproof-report FILE``.

The report has each verdict of the fixture, of the assertions in `foldproof.testing` and of `foldproof.watch`, and the
outcome of each test. It does not import torch, because pytest loads it in every project.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from foldproof.recording import listening, record
from foldproof.verdict import SCHEMA, Kind, Verdict
from foldproof.version import __version__

_RECORDS = pytest.StashKey[list[dict[str, Any]]]()
_OUTCOMES = pytest.StashKey[dict[str, dict[str, Any]]]()
FIRST = (Kind.REFUTED.value, Kind.UNDECIDED.value)
"""Kinds of verdicts that come first in a report."""


class Prover:
    """Asserts that two programs, or a program before and after a pass, are the same function."""

    def __call__(
        self, before: Any, after: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any] | None = None
    ) -> Verdict:
        """Assert that two programs are the same function, up to rounding (see `foldproof.prove`).

        Raises:
            AssertionError: the verdict is REFUTED or UNDECIDED; the message explains it in full.
        """
        __tracebackhide__ = True
        from foldproof.proving import prove

        return _checked("prove", prove(before, after, inputs, kwargs))

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

        return _checked("prove.of_pass", prove_pass(pass_fn, program, inputs, kwargs, must_change=must_change))


def _checked(assertion: str, verdict: Verdict) -> Verdict:
    __tracebackhide__ = True
    record(assertion, verdict)
    if not verdict.ok:
        raise AssertionError(str(verdict))
    return verdict


@pytest.fixture
def prove() -> Prover:
    """Assertions ``prove(before, after, inputs)`` and ``prove.of_pass(pass_fn, program, inputs)``, with verdicts."""
    return Prover()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("foldproof")
    group.addoption(
        "--foldproof-report",
        metavar="FILE",
        help="Write the verdicts of all assertions to FILE, as JSON; `foldproof report FILE` makes it a page.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RECORDS], config.stash[_OUTCOMES] = [], {}
    path = config.getoption("--foldproof-report")
    if path is not None:
        if not Path(path).parent.is_dir() or Path(path).is_dir():
            raise pytest.UsageError(f"--foldproof-report {path} can't be written: give a file in a folder that exists")
        if Path(path).suffix != ".json":
            raise pytest.UsageError(
                f"--foldproof-report {path} must end in .json; foldproof report makes other formats of it"
            )
        config.pluginmanager.register(_Outcomes(config.stash[_OUTCOMES]))


class _Outcomes:
    """Collects how each test ended, as pytest counts it; with pytest-xdist, those of all workers."""

    def __init__(self, outcomes: dict[str, dict[str, Any]]) -> None:
        self._outcomes = outcomes

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        known = self._outcomes.setdefault(
            report.nodeid, {"test": report.nodeid, "outcome": "passed", "seconds": 0.0, "message": ""}
        )
        known["seconds"] += report.duration
        ended = report.outcome if report.when == "call" or not report.failed else "error"
        if ended != "passed":
            known["outcome"] = ended
            crash = getattr(report.longrepr, "reprcrash", None)
            known["message"] = crash.message if crash else report.longreprtext


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Listen to the assertions of a test."""
    if item.config.getoption("--foldproof-report") is None:
        yield
        return
    records = item.config.stash[_RECORDS]

    def listener(assertion: str, verdict: Verdict) -> None:
        records.append({"test": item.nodeid, "assertion": assertion, "verdict": verdict.to_dict()})

    with listening(listener):
        yield


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
    told = {
        "schema": SCHEMA,
        "command": "pytest",
        "foldproof": __version__,
        "tests": sorted(records, key=lambda one: (*FIRST, one["verdict"]["kind"]).index(one["verdict"]["kind"])),
        "outcomes": list(session.config.stash[_OUTCOMES].values()),
    }
    target = Path(path)
    temporary = target.with_name(f".{target.name}.part")
    temporary.write_text(json.dumps(told, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(target)
