"""Models of other people's packages, with random weights.

The packages are installed without their dependencies into a folder of their own (``make`` does it), because they
require another PyTorch, or libraries that no model here needs. `zoo.packages` stands in for modules that only their
imports ask for. Nothing is downloaded at run time.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foldproof.errors import FoldproofError
from zoo.architecture import Architecture, Family, Inputs, Rows, Sample, name_rows
from zoo.construct import image, normal
from zoo.packages import importable

FOLDER = Path(__file__).parent.parent / "build" / "third_party"
"""The folder of the packages."""

PACKAGES = (
    "timm==1.0.31",
    "torchvision==0.28.0",
    "segmentation-models-pytorch==0.6.0",
    "ultralytics==8.4.190",
    "monai==1.6.1",
    "torch-geometric==2.8.1",
    "xxhash==4.1.0",
    "speechbrain==1.1.2",
    "openunmix==1.3.0",
    "pytorchcv==0.0.74",
)
"""Arguments of ``pip install --no-deps --target``."""

ABSENT = ("cv2", "hyperpyyaml", "matplotlib", "soundfile", "torchaudio")
"""Packages that imports ask for, and models do not use."""


def load(name: str) -> Sample:
    """The model in eval mode, and its inputs.

    Raises:
        FoldproofError: its package is not installed.
    """
    importable(FOLDER, ABSENT)
    try:
        return THIRD_PARTY[name].build()
    except ModuleNotFoundError as error:
        module = str(error.name).partition(".")[0]
        raise FoldproofError(
            f"{name} needs the module {module}; run: pip install --no-deps --target {FOLDER} {' '.join(PACKAGES)}"
        ) from error


def _made(path: str, *args: Any, **settings: Any) -> Callable[[], nn.Module]:
    """Call the class or function at a dotted path."""

    def make() -> nn.Module:
        module, _, name = path.rpartition(".")
        model: nn.Module = getattr(importlib.import_module(module), name)(*args, **settings)
        return model

    return make


def _timm(name: str, **settings: Any) -> Callable[[], nn.Module]:
    return _made("timm.create_model", name, num_classes=10, **settings)


def _byobnet(variant: str) -> Callable[[], nn.Module]:
    """A network of blocks of timm with half its width, and at most two blocks in each stage."""

    def make() -> nn.Module:
        blocks = importlib.import_module("timm.models.byobnet")
        whole = blocks.model_cfgs[variant]
        stages = [[stage] if isinstance(stage, blocks.ByoBlockCfg) else stage[:2] for stage in whole.blocks]
        few = tuple(tuple(replace(block, d=min(block.d, 2), c=block.c // 2) for block in stage) for stage in stages)
        model: nn.Module = blocks.ByobNet(replace(whole, blocks=few, stem_chs=whole.stem_chs // 2), num_classes=10)
        return model

    return make


def _smp(name: str, encoder: str, **settings: Any) -> Callable[[], nn.Module]:
    return _made(f"segmentation_models_pytorch.{name}", encoder, encoder_weights=None, classes=3, **settings)


def _cv(module: str, name: str, **settings: Any) -> Callable[[], nn.Module]:
    return _made(f"pytorchcv.models.{module}.{name}", pretrained=False, **settings)


def _yolo(configuration: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())  # it writes its settings when imported
        return _made("ultralytics.nn.tasks.DetectionModel", configuration, ch=3, nc=4, verbose=False)()

    return make


def _graph_net(name: str, **settings: Any) -> Callable[[], nn.Module]:
    return _made(f"torch_geometric.nn.{name}", 8, 16, 2, 4, norm="batch_norm", **settings)


def _graph(nodes: int = 12, edges: int = 40) -> Callable[[], Inputs]:
    """Features of the nodes, and the ends of random edges."""
    return lambda: (torch.randn(nodes, 8), torch.randint(nodes, (2, edges)))


def _monai(name: str, **settings: Any) -> Callable[[], nn.Module]:
    return _made(f"monai.networks.nets.{name}", **settings)


_TIMM: Rows = {
    "timm_mobileone_s0": (_byobnet("mobileone_s0"), image()),
    "timm_repvgg_a0": (_byobnet("repvgg_a0"), image()),
    "timm_fastvit_t8": (_timm("fastvit_t8", layers=(1, 1, 2, 1), embed_dims=(16, 32, 64, 128)), image()),
    "timm_repghostnet_050": (_timm("repghostnet_050"), image()),
    "timm_repvit_m0_9": (_timm("repvit_m0_9", embed_dim=(16, 32, 48, 64), depth=(1, 1, 2, 1)), image()),
    "timm_efficientvit_b0": (_timm("efficientvit_b0"), image()),
    "timm_efficientvit_m0": (_timm("efficientvit_m0", img_size=64), image()),
    "timm_levit_128s": (_timm("levit_128s"), image(224)),
    "timm_ghostnet_050": (_timm("ghostnet_050"), image()),
    "timm_mnasnet_small": (_timm("mnasnet_small"), image()),
    "timm_mobilenetv3_small_050": (_timm("mobilenetv3_small_050"), image()),
    "timm_mobilenetv4_conv_small_035": (_timm("mobilenetv4_conv_small_035"), image()),
    "timm_tinynet_e": (_timm("tinynet_e"), image()),
    "timm_dla34": (_timm("dla34"), image()),
    "timm_cs3darknet_s": (_timm("cs3darknet_s"), image()),
    "timm_hrnet_w18_small": (_timm("hrnet_w18_small"), image()),
    "timm_regnety_002": (_timm("regnety_002"), image()),
    "timm_skresnet18": (_timm("skresnet18"), image()),
    "timm_resnest14d": (_timm("resnest14d"), image()),
    "timm_edgenext_xx_small": (_timm("edgenext_xx_small"), image()),
    "timm_convnext_atto": (_timm("convnext_atto"), image()),
    "timm_inception_next_atto": (_timm("inception_next_atto"), image()),
    "timm_pvt_v2_b0": (_timm("pvt_v2_b0"), image()),
    "timm_coatnet_nano": (_timm("coatnet_nano_rw_224", img_size=64), image()),
    "timm_maxvit_pico": (_timm("maxvit_rmlp_pico_rw_256", img_size=64), image()),
    "timm_rexnet_100": (_timm("rexnet_100"), image()),
    "timm_ese_vovnet19b": (_timm("ese_vovnet19b_slim_dw"), image()),
    "timm_starnet_s050": (_timm("starnet_s050"), image()),
    "timm_shvit_s1": (_timm("shvit_s1"), image()),
    "timm_fasternet_t0": (_timm("fasternet_t0"), image()),
    "timm_convmixer": (_made("timm.models.convmixer.ConvMixer", 64, 4, num_classes=10), image()),
    "timm_visformer_tiny": (_timm("visformer_tiny", img_size=64), image()),
    "timm_xcit_nano": (_timm("xcit_nano_12_p16_224", img_size=64, depth=2), image()),
    "timm_tiny_vit_5m": (_timm("tiny_vit_5m_224"), image()),
    "timm_botnet26t": (_timm("botnet26t_256", img_size=64), image()),
    "timm_lambda_resnet26t": (_timm("lambda_resnet26t", img_size=64), image()),
    "timm_iformer_t": (_timm("iformer_t"), image()),
    "timm_efficientvim_m1": (_timm("efficientvim_m1"), image()),
    "timm_lowformer_b0": (_timm("lowformer_b0"), image()),
    "timm_swiftformer_xs": (_timm("swiftformer_xs"), image()),
}

_SEGMENTATION: Rows = {
    "smp_unet": (_smp("Unet", "resnet18"), image()),
    "smp_unetplusplus": (_smp("UnetPlusPlus", "timm-regnety_002"), image()),
    "smp_fpn": (_smp("FPN", "mobilenet_v2"), image()),
    "smp_deeplabv3plus": (_smp("DeepLabV3Plus", "resnet18"), image()),
    "smp_pspnet": (_smp("PSPNet", "efficientnet-b0"), image()),
    "smp_linknet": (_smp("Linknet", "timm-mobilenetv3_small_minimal_100"), image()),
    "smp_manet": (_smp("MAnet", "resnet18"), image()),
    "smp_pan": (_smp("PAN", "resnet18"), image(128)),
    "smp_segformer": (_smp("Segformer", "mit_b0"), image()),
}

_DETECTION: Rows = {
    "yolov5n": (_yolo("yolov5n.yaml"), image()),
    "yolov6n": (_yolo("yolov6n.yaml"), image()),
    "yolov8n": (_yolo("yolov8n.yaml"), image()),
    "yolov9t": (_yolo("yolov9t.yaml"), image()),
    "yolov10n": (_yolo("yolov10n.yaml"), image()),
    "yolo11n": (_yolo("yolo11n.yaml"), image()),
    "yolo12n": (_yolo("yolo12n.yaml"), image()),
    "yolo26n": (_yolo("yolo26n.yaml"), image()),
}

_AUDIO: Rows = {
    "speechbrain_ecapa_tdnn": (
        _made(
            "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
            16,
            lin_neurons=8,
            channels=[16, 16, 16, 16, 48],
            attention_channels=8,
            res2net_scale=4,
            se_channels=8,
        ),
        normal(2, 40, 16),
    ),
    "speechbrain_resnet": (
        _made(
            "speechbrain.lobes.models.ResNet.ResNet",
            16,
            channels=[8, 8, 16, 16],
            block_sizes=[1, 1, 1, 1],
            lin_neurons=8,
        ),
        normal(2, 40, 16),
    ),
    "speechbrain_cnn14": (_made("speechbrain.lobes.models.Cnn14.Cnn14", 64, emb_dim=128), normal(2, 64, 64)),
    "speechbrain_crdnn": (
        _made(
            "speechbrain.lobes.models.CRDNN.CRDNN",
            input_shape=[None, None, 16],
            cnn_channels=[8, 16],
            rnn_neurons=16,
            rnn_layers=1,
            dnn_neurons=16,
        ),
        normal(2, 24, 16),
    ),
    "openunmix": (_made("openunmix.model.OpenUnmix", 33, 1, 16, 1), normal(2, 1, 33, 12)),
}

_VOLUME: Rows = {
    "monai_unet": (
        _monai(
            "UNet", spatial_dims=3, in_channels=1, out_channels=2, channels=(8, 16, 32), strides=(2, 2), norm="batch"
        ),
        normal(1, 1, 16, 16, 16),
    ),
    "monai_attention_unet": (
        _monai("AttentionUnet", spatial_dims=3, in_channels=1, out_channels=2, channels=(8, 16, 32), strides=(2, 2)),
        normal(1, 1, 16, 16, 16),
    ),
    "monai_basic_unet": (
        _monai(
            "BasicUNet", spatial_dims=3, in_channels=1, out_channels=2, features=(8, 8, 16, 16, 32, 8), norm="batch"
        ),
        normal(1, 1, 16, 16, 16),
    ),
    "monai_resnet10": (_monai("resnet10", spatial_dims=3, n_input_channels=1, num_classes=3), normal(1, 1, 16, 16, 16)),
    "monai_densenet": (
        _monai(
            "DenseNet",
            spatial_dims=3,
            in_channels=1,
            out_channels=3,
            init_features=16,
            growth_rate=8,
            block_config=(2, 2),
        ),
        normal(1, 1, 32, 32, 32),
    ),
    "monai_segresnet": (
        _monai("SegResNet", spatial_dims=3, init_filters=8, in_channels=1, out_channels=2, norm="BATCH"),
        normal(1, 1, 16, 16, 16),
    ),
    "monai_dynunet": (
        _monai(
            "DynUNet",
            spatial_dims=3,
            in_channels=1,
            out_channels=2,
            kernel_size=(3, 3, 3),
            strides=(1, 2, 2),
            upsample_kernel_size=(2, 2),
            filters=(8, 16, 32),
            norm_name="batch",
        ),
        normal(1, 1, 16, 16, 16),
    ),
    "monai_highresnet": (_monai("HighResNet", spatial_dims=3, in_channels=1, out_channels=2), normal(1, 1, 16, 16, 16)),
    "torchvision_r2plus1d_18": (_made("torchvision.models.video.r2plus1d_18", num_classes=5), normal(1, 3, 4, 32, 32)),
}

_GRAPH: Rows = {
    "pyg_gcn": (_graph_net("GCN"), _graph()),
    "pyg_graph_sage": (_graph_net("GraphSAGE"), _graph()),
    "pyg_gin": (_graph_net("GIN"), _graph()),
    "pyg_gat": (_graph_net("GAT", heads=2), _graph()),
    "pyg_pna": (
        _graph_net("PNA", aggregators=["mean", "max"], scalers=["identity"], deg=torch.tensor([1, 2, 4, 2])),
        _graph(),
    ),
    "pyg_edge_cnn": (_graph_net("EdgeCNN"), _graph()),
}

_OTHER: Rows = {
    "cv_erfnet": (_cv("erfnet", "erfnet_cityscapes", in_size=(64, 64)), image()),
}

_FAMILIES: dict[Family, Rows] = {
    Family.CONVOLUTION: _TIMM | _OTHER,
    Family.SEGMENTATION: _SEGMENTATION,
    Family.DETECTION: _DETECTION,
    Family.AUDIO: _AUDIO,
    Family.VOLUME: _VOLUME,
    Family.GRAPH: _GRAPH,
}

THIRD_PARTY: dict[str, Architecture] = name_rows(_FAMILIES)
