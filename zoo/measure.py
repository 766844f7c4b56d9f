"""Results of foldproof and other tools on one model, for docs/zoo.md.

``python -m zoo.measure MODEL FOLDER STAGE ...`` runs the stages in order and writes FOLDER/STAGE.json. A stage is
`FOLD` or a tool of `zoo.tools`. It runs in a process of its own, because tools crash, hang and leave state behind.
Results are stamped with a digest of their dependencies, so only stale ones are computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch.export import ExportedProgram

import foldproof
from foldproof.errors import FoldproofError
from zoo.accuracy import error, truth
from zoo.architecture import Sample
from zoo.table import ZOO
from zoo.third_party import THIRD_PARTY
from zoo.third_party import load as load_third_party
from zoo.tools import OF_TIMM, TOOLS, batch_norms, tensors
from zoo.trained import PACKAGES as WEIGHTS
from zoo.trained import TRAINED, load

FOLD = "foldproof"
STAGES = (FOLD, *TOOLS)
PARTS = {
    "architectures": tuple(ZOO),
    "trained networks": tuple(TRAINED),
    "third-party models": tuple(THIRD_PARTY),
}
"""The models of each part of the page."""
MODELS = tuple(name for names in PARTS.values() for name in names)
PACKAGES: tuple[str, ...] = (
    *("torch", "transformers", "torchao", "executorch", "onnx", "onnxscript", "onnxruntime", "openvino", "onnxsim"),
    *(package for packages in dict.fromkeys(WEIGHTS.values()) for package in packages.split()),
)
"""Packages that results depend on."""

LIMIT = 300
"""Limit of processor time for one process, in seconds."""

NOT_RUN = "not run"
"""Prefix of the failure of a stage that was ended from outside."""

FAR = 100
"""A tool's answer counts as wrong if its distance to the float64 result is this multiple of eager's …"""
LARGE = 1e-3
"""… and at least this, relatively."""


@dataclass(frozen=True)
class Folding:
    """The result of foldproof.

    ``batch_norms`` are the numbers before and after, ``others`` the number of rewrites without a BatchNorm, and
    ``these_weights`` the number of rewrites that hold for the model's own weights only. ``declined`` has rows of
    operator, reason and count. Errors are relative root mean square distances to the float64 result, or None if PyTorch
    has no float64 form of the model.
    """

    family: str
    operators: tuple[int, int]
    batch_norms: tuple[int, int]
    rewrites: int
    others: int
    these_weights: int
    declined: list[tuple[str, str, int]]
    verdict: str
    reason: str
    eager_error: float | None
    error: float | None
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """The result of another tool; ``failure`` is the first line of its exception, and later fields are then None."""

    batch_norms: int | None = None
    eager_error: float | None = None
    error: float | None = None
    failure: str | None = None

    @property
    def not_run(self) -> bool:
        """True if it was ended from outside, which says nothing about the tool."""
        return self.failure is not None and self.failure.startswith(NOT_RUN)

    @property
    def wrong(self) -> bool:
        """True if the answer is too far from the float64 result for rounding."""
        if self.error is None or self.eager_error is None:
            return False
        return self.error > max(FAR * self.eager_error, LARGE)


def sample(name: str) -> Sample:
    """Build a model of the zoo or a trained one.

    Raises:
        FoldproofError: the package of a trained or third-party model is not installed.
    """
    if name in THIRD_PARTY:
        return load_third_party(name)
    return ZOO[name].build() if name in ZOO else load(name)


def family(name: str) -> str:
    """The family of a model, or "trained"."""
    return "trained" if name in TRAINED else str((ZOO | THIRD_PARTY)[name].family)


def tools(name: str) -> tuple[str, ...]:
    """The tools for a model."""
    return tuple(tool for tool in TOOLS if tool != OF_TIMM or name.startswith("timm_"))


def folding(name: str) -> Folding:
    """Fold a model with foldproof, prove it and measure it."""
    made = sample(name)
    program = torch.export.export(made.model, made.inputs)
    result = foldproof.fuse(program, made.inputs)
    assert isinstance(result.program, ExportedProgram)
    normalisations = {node.name for node in program.graph.nodes if batch_norms([node])}
    with torch.no_grad():
        eager, folded = (tensors(p.module()(*made.inputs)) for p in (program, result.program))
    errors: tuple[float, float] | tuple[None, None] = None, None
    with suppress(RuntimeError):
        true = truth(made)
        errors = error(eager, true), error(folded, true)
    return Folding(
        family=family(name),
        operators=(sum(result.operators_before.values()), sum(result.operators_after.values())),
        batch_norms=(len(normalisations), batch_norms(result.program.graph.nodes)),
        rewrites=len(result.rewrites),
        others=sum(normalisations.isdisjoint(rewrite.nodes) for rewrite in result.rewrites),
        these_weights=sum(
            rewrite.verdict.claim is not None and not rewrite.verdict.claim.all_parameters
            for rewrite in result.rewrites
        ),
        declined=[(*what, n) for what, n in Counter((d.operator, d.reason) for d in result.declined).items()],
        verdict=str(result.verdict.kind),
        reason=result.verdict.reason,
        eager_error=errors[0],
        error=errors[1],
        seconds=result.seconds,
    )


def outcome(name: str, tool: str) -> Outcome:
    """Run another tool on a model."""
    made = sample(name)
    standing = None
    with torch.no_grad():
        eager, true = tensors(made.model(*made.inputs)), truth(made)
        try:
            left = TOOLS[tool](sample(name))
            standing = left.batch_norms
            return Outcome(standing, error(eager, true), error(left.run(), true))
        except Exception as raised:
            return Outcome(standing, failure=f"{type(raised).__name__}: {first_line(str(raised))}")


def first_line(message: str) -> str:
    """The first nonempty line, and the next one if it ends with a colon."""
    told: list[str] = []
    for line in filter(None, map(str.strip, message.splitlines())):
        told.append(line)
        if not line.endswith(":"):
            break
    return " ".join(told) or "no message"


@cache
def stamp(stage: str) -> str:
    """A digest of the dependencies of a result: code of this project, and versions of packages."""
    zoo = Path(__file__).parent
    models = ("architecture", "construct", "packages", "special", "statistics", "table", "third_party", "trained")
    files = [zoo / f"{name}.py" for name in (*models, "accuracy")]
    files += sorted((zoo.parent / "src/foldproof").rglob("*.py")) if stage == FOLD else [zoo / "tools.py"]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    digest.update(repr([(name, package_version(name)) for name in PACKAGES]).encode())
    return digest.hexdigest()


def package_version(name: str) -> str:
    """The version of an installed package, or ``missing``."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def read(path: Path) -> Folding | Outcome | None:
    """Read a result if it exists and is not stale."""
    if not path.exists():
        return None
    written = json.loads(path.read_text(encoding="utf-8"))
    if written["stamp"] != stamp(path.stem):
        return None
    result: Folding | Outcome = (Folding if path.stem == FOLD else Outcome)(**written["result"])
    return result


def write(path: Path, result: Folding | Outcome) -> None:
    """Write a result, completely or not at all."""
    draft = path.with_suffix(".tmp")
    written = {"stamp": stamp(path.stem), "result": asdict(result)}
    draft.write_text(json.dumps(written, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(draft, path)


def main(name: str, folder: Path, stages: Sequence[str]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 10))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for stage in stages:
        write(folder / f"{stage}.json", folding(name) if stage == FOLD else outcome(name, stage))


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
    except FoldproofError as error_for_user:
        sys.exit(str(error_for_user))
