"""Behavior that only a process of its own can show: imports, signals, pipes, terminals and full disks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import TWICE

COMMAND = [sys.executable, "-m", "foldproof"]
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals, limits and terminals")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)


def files() -> set[str]:
    return {path.name for path in Path().iterdir()} - {"models.py", "__pycache__"}


@pytest.mark.parametrize("args", [["--help"], ["fuse", "--help"], ["prove", "--help"], []], ids=" ".join)
def test_help_imports_neither_torch_nor_rich(args: list[str]) -> None:
    slow = {"torch", "rich"}
    ran = python(f"import sys; from foldproof.cli import main; main({args}); sys.exit(bool({slow} & {{*sys.modules}}))")
    assert ran.returncode == 0, ran
    assert "Usage: foldproof" in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("typed", "offered"), [("au", "audit"), ("audit --comp", "--compiler"), ("audit --compiler exec", "executorch")]
)
def test_the_shell_completes_commands_options_and_compilers(typed: str, offered: str) -> None:
    asked = {
        "_FOLDPROOF_COMPLETE": "complete_bash",
        "COMP_WORDS": f"foldproof {typed}",
        "COMP_CWORD": str(len(typed.split())),
    }
    code = "from foldproof.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert ran.stdout.split() == [offered], ran


@pytest.mark.parametrize(
    "args",
    [
        ["prove", "models.py:relu", "missing.pt2"],
        ["prove", "missing.py:make", "models.py:relu"],
        ["explain", "no SPEC"],
        ["compare", "models.py:relu", "--against", "missing.onnx"],
        ["compare", "models.py:relu", "--against", "inductr"],
        ["audit", "models.py:relu", "--compiler", "inductr"],
        ["audit", "missing.py:make", "--compiler", "fx"],
        ["report", "missing.json"],
    ],
    ids=" ".join,
)
def test_what_is_not_there_is_noticed_before_torch_is_imported(args: list[str]) -> None:
    ran = python(
        f"import sys; from foldproof.cli import main; assert main({args}) == 2; sys.exit('torch' in sys.modules)"
    )
    assert ran.returncode == 0 and ran.stderr.count("\n") == 1, ran


def test_import_loads_no_more_than_it_needs() -> None:
    slow = ("torch", "numpy", "importlib.metadata", "dataclasses", "typer", "rich")
    ran = python(f"import foldproof, sys; print([name for name in {slow} if name in sys.modules])")
    assert ran.stdout == "[]\n", ran


def test_bad_output_is_noticed_before_torch_is_imported() -> None:
    ran = python(
        "import sys; from foldproof.cli import main;"
        "assert main(['fuse', 'models.py:conv_bn', '-o', 'no/such.pt2']) == 2; sys.exit('torch' in sys.modules)"
    )
    assert ran.returncode == 0, ran


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_its_extra_the_command_line_names_the_pip_command(package: str) -> None:
    ran = python(
        f"import sys; sys.modules[{package!r}] = None; from foldproof.cli import main;"
        "sys.exit(main(['prove', 'a.pt2', 'b.pt2']))"
    )
    assert ran.returncode == 2
    assert re.fullmatch(
        rf"foldproof: {package} is not installed; run: pip install '.* \(foldproof's extra cli\)\n", ran.stderr
    )
    assert "'typer>=" in ran.stderr and "'rich>=" in ran.stderr


def test_exit_status() -> None:
    """The process ends with the status that ``main`` returns; tests of each command check all of them."""
    command = [*COMMAND, "prove", "models.py:relu", "models.py:sigmoid"]
    assert subprocess.run(command, capture_output=True, timeout=300, check=False).returncode == 1


@posix
def test_control_c_leaves_nothing() -> None:
    with subprocess.Popen(
        [*COMMAND, "fuse", "models.py:slow", "-o", "out.pt2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them, and their children, ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "slow has begun\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == "foldproof: interrupted\n"
    assert files() == set()


@posix
@pytest.mark.parametrize("args", ["-V", "--help", "explain models.py:residual", "explain models.py:residual --json -"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_is_told_in_a_sentence(args: str) -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run([*COMMAND, *args.split()], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (2, "foldproof: the output can't be written: No space left on device\n")


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stderr_is_no_refutation() -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run([*COMMAND, "prove", "no.pt2", "models.py:relu"], stderr=full, check=False)
    assert ran.returncode == 2


@posix
@pytest.mark.parametrize("seconds", [0.4, 0.9, 1.6, 2.5])
def test_control_c_at_any_moment_is_one_sentence(seconds: float) -> None:
    """Wherever it hits: the imports, the work, the reduction of a model for ``--save``, or after the end."""
    body = "    return Twice().eval(), (torch.randn(2, 3, 4, 4),)"
    Path("twice.py").write_text(f"import torch\nfrom torch import nn\n{TWICE}\ndef make():\n{body}\n")
    with subprocess.Popen(
        [*COMMAND, "audit", "twice.py:make", "--compiler", "fx", "--save", "found", "--json", "found.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    # Python ends by the signal itself where an exec of its own was interrupted; a shell says 130 of that, too.
    if process.returncode in (130, -signal.SIGINT):
        assert told == "foldproof: interrupted\n"
    left = {path.name for path in Path().iterdir()}
    assert not any(name.startswith(".") for name in left), left
    if "found" in left:
        assert {path.name for path in Path("found").iterdir()} >= {"verdict.json", "repro.py", "report.md"}


@posix
def test_full_disk_leaves_the_older_file() -> None:
    Path("out.pt2").write_text("older")
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); from foldproof.cli import main;"
        "sys.dont_write_bytecode = True; sys.exit(main(['fuse', 'models.py:conv_bn', '-o', 'out.pt2']))"
    )
    ran = python(limited)
    assert ran.returncode == 2, ran
    assert ran.stderr.startswith("foldproof: ")
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert Path("out.pt2").read_text() == "older"
    assert files() == {"out.pt2"}


@posix
def test_a_reader_that_leaves_early_does_not_change_the_verdict() -> None:
    with subprocess.Popen(
        [*COMMAND, "prove", "models.py:relu", "models.py:relu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=300) == 0
        assert process.stderr.read() == b""


def test_without_a_terminal_a_line_tells_of_progress_every_few_seconds() -> None:
    ran = python(
        "import foldproof.cli.progress as progress; progress.EVERY = 0.05;"
        "from foldproof.cli import main; main(['prove', 'models.py:relu', 'models.py:relu'])"
    )
    assert ran.stdout.startswith("PROVED")
    lines = ran.stderr.splitlines()
    assert lines[0].startswith("foldproof: loading torch, ") and len(lines) > 3
    assert all(re.fullmatch(r"foldproof: .*, \d+ s", line) for line in lines), lines


@posix
def test_progress_is_shown_on_a_terminal() -> None:
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "fuse", "models.py:conv_bn", "-o", "out.pt2"],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                block = os.read(ours, 4096)
            except OSError:  # Linux says so when the other side has closed
                break
            if not block:
                break
            shown += block
        assert process.wait(timeout=300) == 0
    os.close(ours)
    assert b"exporting" in shown
