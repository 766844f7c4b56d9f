"""`foldproof doctor`: the installed versions, and the features available with them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foldproof.compiler_catalog import DECLARED
from foldproof.errors import FoldproofError
from foldproof.log import hushed
from foldproof.version import __version__

TESTED = {"torch": "2.13.0", "torchao": "0.18.0", "executorch": "1.5.1"}
"""Versions in the tests; other releases may have operators without a rule, and passes without a tap."""

EXTRAS = {
    "cli": ["the command line"],
    "report": ["HTML pages: --html, foldproof report"],
    "explore": ["foldproof explore"],
    "torchao": ["programs for fold-qat"],
    "executorch": ["compare --against FILE.pte"],
    "onnx": ["compare --against FILE.onnx"],
    "openvino": ["compare --against FILE.xml"],
}
"""Features of each extra, besides compilers to audit."""


def examine() -> dict[str, Any]:
    """Collect versions, extras and features as plain JSON values."""
    import torch

    from foldproof.auditing.taps import HOOKS
    from foldproof.auditing.taps.hooks import find_missing_hooks
    from foldproof.comparison.candidate import BACKENDS, FILES
    from foldproof.fusion.rewriter import PASSES
    from foldproof.shadow import RULES

    with hushed():  # packages log when they are imported
        missing = [hook.describe_absence() for hook in find_missing_hooks(HOOKS)]
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    packages = {".pte": "executorch", ".onnx": "onnxruntime", ".xml": "openvino", ".npy": "numpy", ".npz": "numpy"}
    needs = {"inductor": compiler is not None, **{name: _has(package) for name, package in packages.items()}}
    return {
        "versions": {
            "foldproof": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            **{name: _version(name) for name in TESTED if name != "torch"},
        },
        "tested": TESTED,
        "machine": f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "cpp_compiler": compiler,
        "extras": {name: _extra(name, gives) for name, gives in _gives().items()},
        "operators": len(RULES),
        "fuse": list(PASSES),
        "audit": {
            name: all(map(_has, one.packages)) and (compiler is not None or not one.builds)
            for name, one in DECLARED.items()
        },
        "compare": {name: needs.get(name, True) for name in (*BACKENDS, *FILES)},
        "hooks": {"declared": len(HOOKS), "missing": missing},
    }


def print_examination(out: Console, found: dict[str, Any]) -> None:
    """Print the result of `examine`."""
    versions = _table("package", "installed", "tested with")
    for name, version in found["versions"].items():
        tested = found["tested"].get(name, "")
        same = not tested or version is None or version.split("+")[0] == tested
        versions.add_row(name, Text(version or "not installed", "" if same and version else "yellow"), tested)
    out.print(versions, "")
    extras = _table("extra", "", "gives", "packages")
    for name, extra in found["extras"].items():
        told = ", ".join(f"{package} {version or 'missing'}" for package, version in extra["packages"].items())
        extras.add_row(name, _mark(extra["present"]), extra["gives"], told)
    out.print(extras, "")
    out.print(f"{found['machine']}, {found['threads']} threads, C++ compiler {found['cpp_compiler'] or 'not found'}")
    out.print(f"operators with a rule: {found['operators']}")
    out.print(f"rules of fuse: {', '.join(found['fuse'])}")
    for command in ("audit", "compare"):
        able = [name if here else f"{name} (not here)" for name, here in found[command].items()]
        out.print(f"{command}: {', '.join(able)}")
    hooks = found["hooks"]
    gone = len(hooks["missing"])
    out.print(f"hooks of taps: {hooks['declared']}, {gone or 'none'} missing in the installed versions")
    for sentence in hooks["missing"]:
        out.print(Text(f"  {sentence}", "yellow"), soft_wrap=True)
    missing = [name for name, extra in found["extras"].items() if not extra["present"]]
    if missing:
        out.print(f"\nto install the missing extras: pip install 'foldproof[{','.join(missing)}]'")


def _gives() -> dict[str, str]:
    """The features of each of our extras."""
    audits = {name: f"audit --compiler {name}" for name in DECLARED}
    found: dict[str, list[str]] = {}
    for one in DECLARED.values():
        if one.extra is not None:
            found.setdefault(one.extra, []).append(audits[one.name])
    names = [*EXTRAS, *(name for name in found if name not in EXTRAS)]
    return {name: "; ".join([*found.get(name, []), *EXTRAS.get(name, [])]) for name in names}


def _extra(name: str, gives: str) -> dict[str, Any]:
    packages = {package: _version(package) for package in _packages(name)}
    return {"gives": gives, "packages": packages, "present": bool(packages) and all(packages.values())}


def _mark(present: bool) -> Text:
    return Text("✓ present", "green") if present else Text("– missing", "yellow")


def _packages(extra: str) -> list[str]:
    """The packages of one of our extras, from foldproof's metadata."""
    found = re.compile(rf"([\w.-]+).*;.*extra == ['\"]{extra}['\"]")
    try:
        wanted = importlib.metadata.requires("foldproof") or ()
    except importlib.metadata.PackageNotFoundError as error:
        raise FoldproofError(
            "doctor reads the extras from foldproof's installed metadata, but foldproof is not installed here; run"
            " pip install -e . in its folder"
        ) from error
    return [match[1] for match in map(found.match, wanted) if match]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table
