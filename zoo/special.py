"""Architectures that need more than a class name and a flat configuration: parts of models, and nested backbones."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from zoo.construct import SMALL, construct, library


def _module(name: str) -> Any:
    return importlib.import_module(f"transformers.models.{name}.modeling_{name}")


def superglue_keypoints() -> nn.Module:
    """The keypoint encoder's perceptron: linear → transpose → BatchNorm → transpose → ReLU, twice."""
    config = library().SuperGlueConfig(hidden_size=64, keypoint_encoder_sizes=[32, 64], num_attention_heads=4)
    layer = _module("superglue").SuperGlueMultiLayerPerceptron
    return nn.Sequential(layer(config, 3, 32), layer(config, 32, 64), nn.Linear(64, 64))


class _FirstOutput(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.layer(x)[0]
        return first


def superglue_propagation() -> nn.Module:
    """One attentional propagation step."""
    config = library().SuperGlueConfig(
        hidden_size=64, keypoint_encoder_sizes=[32, 64], num_attention_heads=4, gnn_layers_types=["self", "cross"]
    )
    config._attn_implementation = "eager"
    return _FirstOutput(_module("superglue").SuperGlueAttentionalPropagation(config))


def superpoint() -> nn.Module:
    """SuperPoint's convolutional encoder."""
    config = library().SuperPointConfig(encoder_hidden_sizes=[16, 16, 32], decoder_hidden_size=32)
    encoder: nn.Module = _module("superpoint").SuperPointEncoder(config)
    return encoder


def speecht5_postnet() -> nn.Module:
    """SpeechT5's convolutional decoder postnet."""
    config = library().SpeechT5Config(num_mel_bins=20, speech_decoder_postnet_units=32, hidden_size=64)
    postnet: nn.Module = _module("speecht5").SpeechT5SpeechDecoderPostnet(config)
    return postnet


def informer_distilling() -> nn.Module:
    """Informer's distilling layer between linears: circular conv1d → BatchNorm → ELU → max_pool."""
    return nn.Sequential(nn.Linear(16, 16), _module("informer").InformerConvLayer(16), nn.Linear(16, 4))


def efficientloftr() -> nn.Module:
    """EfficientLoFTR's RepVGG backbone: sums of conv3×3 → BatchNorm, conv1×1 → BatchNorm and BatchNorm."""
    config = library().EfficientLoFTRConfig(
        stage_num_blocks=[1, 2, 2, 2], out_features=[16, 16, 32, 64], stage_stride=[2, 1, 2, 2], hidden_size=64
    )
    backbone: nn.Module = _module("efficientloftr").EfficientLoFTRepVGG(config)
    return backbone


_STAGES = {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1]}


def detr() -> nn.Module:
    """DETR with a ResNet whose BatchNorms are frozen."""
    config = library().DetrConfig(
        backbone_config=library().ResNetConfig(**_STAGES, out_features=["stage4"]),
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=5,
    )
    return construct(library().DetrForObjectDetection, config)


def rt_detr() -> nn.Module:
    """RT-DETR: frozen BatchNorms in the backbone, ordinary ones in the hybrid encoder."""
    config = library().RTDetrConfig(
        backbone_config=library().RTDetrResNetConfig(
            **_STAGES, layer_type="basic", out_features=["stage2", "stage3", "stage4"]
        ),
        encoder_in_channels=[32, 64, 64],
        encoder_hidden_dim=32,
        d_model=32,
        decoder_in_channels=[32, 32, 32],
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        decoder_layers=1,
        num_queries=10,
        num_denoising=0,
        anchor_image_size=None,
    )
    return construct(library().RTDetrForObjectDetection, config)


def dpt() -> nn.Module:
    """DPT with BatchNorm in its fusion stage."""
    config = library().DPTConfig(
        **SMALL | {"num_hidden_layers": 4},
        image_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 32, 32],
        fusion_hidden_size=16,
        use_batch_norm_in_fusion_residual=True,
        head_in_index=-1,
    )
    model: Any = construct(library().DPTForDepthEstimation, config)
    model.head.head[-2].bias.data.fill_(2.0)  # otherwise the last ReLU gives 0 everywhere
    return model  # type: ignore[no-any-return]
