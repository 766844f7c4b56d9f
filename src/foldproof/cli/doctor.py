"""`foldproof doctor`: the installed versions, and the features available with them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
from typing import Any

from rich.console import Console
from rich.text import Text

from foldproof.cli.text import print_table, say
from foldproof.compiler_catalog import DECLARED
from foldproof.errors import FoldproofError
from foldproof.log import hushed
from foldproof.version import __version__, find_requirements

TESTED = {"torch": "2.13.0", "torchao": "0.18.0", "executorch": "1.5.1"}
"""Versions in the tests; other releases may have operators without a rule, and passes without a tap."""

COSTS = {
    "torch": "New operators have no rule, and leave a proof UNDECIDED; passes that have moved are not watched.",
    "torchao": "Steps that have moved are not watched, and operators that are new leave a proof UNDECIDED.",
    "executorch": "Passes that have moved are not watched, and operators that are new leave a proof UNDECIDED.",
}
"""Costs of an untested version of each; never a wrong PROVED, since an operator without a rule is not guessed."""

EXTRAS = {
    "cli": ["the command line"],
    "report": ["HTML pages: --html, foldproof report"],
    "explore": ["foldproof explore"],
    "torchao": ["programs for fold-qat"],
    "executorch": ["compare --against FILE.pte"],
    "onnx": ["compare --against FILE.onnx"],
    "openvino": ["compare --against FILE.xml"],
    "ray": ["--executor ray"],
}
"""Features of each extra, besides compilers to audit."""


def examine() -> dict[str, Any]:
    """Collect versions, extras and features as plain JSON values."""
    import torch

    from foldproof.auditing.externals import find_missing
    from foldproof.auditing.loops.needs import NEEDS
    from foldproof.auditing.taps import HOOKS
    from foldproof.fusion.rewriter import PASSES
    from foldproof.shadow import RULES
    from foldproof.spec import BACKENDS, FILES

    with hushed():  # packages log when they are imported
        missing = [hook.describe_absence() for hook in find_missing(HOOKS)]
        unreadable = [need.describe_absence() for need in find_missing(NEEDS)]
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    packages = {".pte": "executorch", ".onnx": "onnxruntime", ".xml": "openvino", ".npy": "numpy", ".npz": "numpy"}
    needs = {"inductor": compiler is not None, **{name: _has(package) for name, package in packages.items()}}
    versions: dict[str, str | None] = {
        "foldproof": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{name: _version(name) for name in TESTED if name not in ("python", "torch")},
    }
    return {
        "versions": versions,
        "tested": TESTED,
        "untested": _tell_untested(versions),
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
        "loops": {"declared": len(NEEDS), "missing": unreadable},
    }


def print_examination(out: Console, found: dict[str, Any]) -> None:
    """Print the result of `examine`."""
    tested = {name: found["tested"].get(name, "") for name in found["versions"]}
    rows = []
    for name, version in found["versions"].items():
        style = "" if version and not is_untested(version, tested[name]) else "yellow"
        rows.append((name, Text(version or "not installed", style), tested[name]))
    print_table(out, ("package", "installed", "tested with"), rows)
    for sentence in found["untested"]:
        say(out, sentence, "yellow")
    out.print()
    extras = [
        (
            name,
            _mark(extra["present"]),
            extra["gives"],
            ", ".join(f"{package} {version or 'missing'}" for package, version in extra["packages"].items()),
        )
        for name, extra in found["extras"].items()
    ]
    print_table(out, ("extra", "state", "gives", "packages"), extras)
    out.print()
    say(out, f"{found['machine']}, {found['threads']} threads, C++ compiler {found['cpp_compiler'] or 'not found'}")
    say(out, f"operators with a rule: {found['operators']}")
    say(out, f"rules of fuse: {', '.join(found['fuse'])}")
    for command in ("audit", "compare"):
        able = [name if here else f"{name} (not here)" for name, here in found[command].items()]
        say(out, f"{command}: {', '.join(able)}")
    for of, externals in (("hooks of taps", found["hooks"]), ("names that loops are read by", found["loops"])):
        gone = len(externals["missing"])
        say(out, f"{of}: {externals['declared']}, {gone or 'none'} missing in the installed versions")
        for sentence in externals["missing"]:
            say(out, f"  {sentence}", "yellow")
    lacking = [name for extra in found["extras"].values() for name, version in extra["packages"].items() if not version]
    if lacking:
        say(out, f"\nto install what is missing: pip install {' '.join(dict.fromkeys(lacking))}")


def is_untested(version: str, tested: str) -> bool:
    """Return True for another release than the tested one; builds of a release count as it."""
    return bool(tested) and version.split("+")[0] != tested


def _tell_untested(versions: dict[str, str | None]) -> list[str]:
    return [
        f"{name} {version} is untested: tests run with {TESTED[name]}. {COSTS[name]}"
        for name, version in versions.items()
        if version and is_untested(version, TESTED.get(name, ""))
    ]


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
    wanted = find_requirements(extra)
    if not wanted:
        raise FoldproofError(
            "doctor reads the extras from foldproof's installed metadata, but foldproof is not installed here; run"
            " pip install -e . in its folder"
        )
    return [re.split(r"[^\w.-]", one)[0] for one in wanted]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
