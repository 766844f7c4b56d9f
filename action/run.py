"""Runs a foldproof command for action.yml: its results go to a folder, its text to the job's summary.

It reads FOLDPROOF_ARGUMENTS and FOLDPROOF_FOLDER, appends to the files that GITHUB_OUTPUT and GITHUB_STEP_SUMMARY name,
and ends with the status of the command.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

FORMATS = {"sarif": ".sarif", "junit": ".xml", "html": ".html"}


def main() -> int:
    """Run the command, then write the reports, and return the command's exit status."""
    arguments = shlex.split(os.environ["FOLDPROOF_ARGUMENTS"])
    folder = Path(os.environ["FOLDPROOF_FOLDER"])
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.json"
    result.unlink(missing_ok=True)  # of another run

    ran = _foldproof(*arguments, "--json", str(result))
    outputs = {"status": str(ran.returncode)}
    if result.is_file():
        outputs["json"] = str(result)
        for name, suffix in FORMATS.items():
            made = result.with_suffix(suffix)
            if _foldproof("report", str(result), "-o", str(made)).returncode == 0:
                outputs[name] = str(made)
    _append("GITHUB_OUTPUT", "".join(f"{name}={value}\n" for name, value in outputs.items()))
    _append("GITHUB_STEP_SUMMARY", f"`foldproof {' '.join(arguments)}`\n\n```text\n{ran.stdout}{ran.stderr}```\n")
    return ran.returncode


def _foldproof(*arguments: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run([sys.executable, "-m", "foldproof", *arguments], capture_output=True, text=True, check=False)
    sys.stdout.write(ran.stdout + ran.stderr)  # the log of the job
    return ran


def _append(variable: str, text: str) -> None:
    with open(os.environ[variable], "a", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit(main())
