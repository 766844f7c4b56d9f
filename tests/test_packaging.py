"""The metadata of wheel and sdist, and what the documentation says of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info < (3, 11):
    pytest.skip("needs tomllib", allow_module_level=True)
import tomllib

ROOT = Path(__file__).parents[1]
CONFIG: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = CONFIG["project"]["optional-dependencies"]
FOR_DEVELOPERS = {"demo", "dev", "zoo"}
ALWAYS_IN = {"README.md", "LICENSE", "pyproject.toml", ".gitignore"}


def test_the_sdist_has_all_but_the_settings_of_ci() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no clone")
    top = {name.partition("/")[0] for name in listed.stdout.splitlines()}
    included = CONFIG["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert top - ALWAYS_IN - {".ci"} == set(included)


def test_every_vendored_script_has_its_licence_in_the_metadata() -> None:
    vendor = ROOT / "src/foldproof/report/vendor"
    licensed = {path for pattern in CONFIG["project"]["license-files"] for path in ROOT.glob(pattern)}
    scripts = list(vendor.glob("*.js"))
    assert scripts and all(vendor / f"{script.name.split('.')[0]}.LICENSE" in licensed for script in scripts)
    named = set(re.findall(r"\| (\w+) \|$", (vendor / "README.md").read_text("utf-8"), re.MULTILINE)) - {"licence"}
    assert named <= set(CONFIG["project"]["license"].split(" AND "))


def packages_of(extra: str) -> set[str]:
    wanted = [one for one in EXTRAS[extra] if ";" not in one]  # those of one version of Python are left out
    return {re.split(r"[^\w.-]", one)[0] for one in wanted}


def test_the_page_of_installation_names_the_extras() -> None:
    page = (ROOT / "docs/installation.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", page)
    assert {name: set(told.split(", ")) for name, told in rows} == {
        name: packages_of(name) for name in EXTRAS if name not in FOR_DEVELOPERS
    }


@pytest.mark.parametrize(
    "page", ["README.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
)
def test_lines_to_install_work_from_a_clone_or_a_wheel(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for line in re.findall(r"pip install ([^`\n]*)", text):
        assert not re.match(r"'?foldproof(\[|'|\s|$)", line), f"not on PyPI: pip install {line}"
        for named in re.findall(r"\[([\w,]+)\]", line.split("  ")[0]):
            assert set(named.split(",")) <= set(EXTRAS), line
