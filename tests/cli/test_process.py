"""Behavior that only a process of its own can show: imports, signals, pipes, terminals and full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "foldproof"]
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals, limits and terminals")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)


def files() -> set[str]:
    return {path.name for path in Path().iterdir()} - {"models.py", "__pycache__"}


@pytest.mark.parametrize("args", [["--help"], ["fuse", "--help"], ["prove", "--help"], []], ids=" ".join)
def test_help_imports_no_torch(args: list[str]) -> None:
    ran = python(f"import sys; from foldproof.cli import main; main({args}); sys.exit('torch' in sys.modules)")
    assert ran.returncode == 0, ran
    assert "Usage: foldproof" in ran.stdout


def test_bad_output_is_noticed_before_torch_is_imported() -> None:
    ran = python(
        "import sys; from foldproof.cli import main;"
        "assert main(['fuse', 'models.py:conv_bn', '-o', 'no/such.pt2']) == 2; sys.exit('torch' in sys.modules)"
    )
    assert ran.returncode == 0, ran


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_its_extra_the_command_line_names_the_pip_command(package: str) -> None:
    ran = python(
        f"import sys; sys.modules[{package!r}] = None; from foldproof.cli import main; sys.exit(main(['--help']))"
    )
    assert ran.returncode == 2
    assert ran.stderr == f"foldproof: {package} is not installed; run: pip install 'foldproof[cli]'\n"


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
