"""Calls on a real Ray cluster, of this machine: each has a process of its own, and what is lent stays in one place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from foldproof.executors import Executors, find_executor
from foldproof.hunting.corpus import BEGUN, Corpus
from foldproof.processes import Died, Executor, Processes
from tests.cli.test_many import MODEL


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "foldproof", *command], capture_output=True, text=True, check=False, timeout=300
    )


def test_audits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    names = ["crash", "wrong", "right"]
    options = ["--compiler", "fx", "--results", "results", "-j", "2", "--executor", "ray"]
    ran = run("audit", *(f"model.py:{name}" for name in names), *options)
    assert ran.returncode == 1, ran
    told = [line for line in ran.stdout.splitlines() if line.startswith("model.py:")]  # Ray tells the crash, too
    first, second, third = told
    assert first == "model.py:crash: failed: the process ended, by a crash or because it was killed"
    assert second.startswith("model.py:wrong: wrong: the pass fuse changes the meaning of the model")
    assert third.startswith("model.py:right: rounding: every graph pass is proved")
    kinds = {json.loads(path.read_text())["kind"] for path in Path("results").iterdir()}
    assert kinds == {"REFUTED", "ROUNDING"}


def test_a_hunt(tmp_path: Path) -> None:
    options = ["--corpus", str(tmp_path), "--programs", "3", "-j", "2", "--executor", "ray"]
    ran = run("hunt", "--compiler", "export", *options)
    assert ran.stdout.startswith("export: 3 programs"), ran
    with Corpus(tmp_path) as corpus:
        (setup,) = corpus.setups()
        found = corpus.outcomes(setup)
    assert found.total() == 3 and not {BEGUN, "killed", "error"} & found.keys()


@pytest.fixture(scope="module")
def ray() -> Iterator[Executor]:
    executor = find_executor(Executors.ray)
    yield executor
    executor.stop()


def test_calls_have_processes_of_their_own(ray: Executor) -> None:
    with Processes(2, ray) as processes:
        made = {processes.submit(os.getpid).result() for _ in range(3)}
        assert len(made) == 3 and os.getpid() not in made
        with pytest.raises(Died):
            processes.submit(os.abort).result()
        with pytest.raises(Died):
            processes.submit(int, "no number").result()


class Items(list[int]):
    """A list that can be opened."""

    def __enter__(self) -> Items:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def append(lent: Callable[[], AbstractContextManager[Items]], item: int) -> int:
    with lent() as items:
        items.append(item)
    return os.getpid()


def test_an_object_is_lent(ray: Executor) -> None:
    lent = ray.lend(Items)
    with Processes(2, ray) as processes:
        for future in [processes.submit(append, lent, n) for n in range(5)]:
            future.result()
    with lent() as items:
        assert sorted(items.copy()) == [0, 1, 2, 3, 4]


def test_without_ray(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from foldproof.cli import main

    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["audit", "a.py:f", "b.py:f", "--compiler", "fx", "--results", "r", "--executor", "ray"]) == 2
    assert "ray is not installed; run: pip install 'ray" in capsys.readouterr().err
