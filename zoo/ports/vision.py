"""Vision models of torchvision, transformers and open_clip, and those of timm."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from zoo.ports.port import IMAGE, Pair, Port


def _timm(module: str, name: str) -> Any:
    return getattr(import_module(f"timm.models.{module}"), name)


def resnet() -> Pair:
    model = import_module("torchvision.models").resnet18(num_classes=5).eval()
    port = _timm("resnet", "ResNet")(_timm("resnet", "BasicBlock"), (2, 2, 2, 2), num_classes=5).eval()
    return Pair(model, port, (IMAGE,), dict)


def densenet() -> Pair:
    sizes: dict[str, Any] = {"growth_rate": 4, "block_config": (2, 2), "num_classes": 5}
    model = import_module("torchvision.models").DenseNet(num_init_features=8, **sizes).eval()
    port = _timm("densenet", "DenseNet")(**sizes).eval()
    return Pair(model, port, (IMAGE,), dict)


def vit() -> Pair:
    """The ViT of transformers in timm; the conversion undoes that of transformers' script."""
    transformers = import_module("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
    )
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
    port = _timm("vision_transformer", "VisionTransformer")(
        **sizes, mlp_ratio=2.0, num_classes=0, global_pool="", norm_layer=_norm(1e-12)
    ).eval()
    return Pair(lambda image: model(pixel_values=image).last_hidden_state, port, (IMAGE,), vit_to_timm)


def _norm(eps: float) -> Any:
    return functools.partial(nn.LayerNorm, eps=eps)


def vit_to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {"cls_token": state["embeddings.cls_token"], "pos_embed": state["embeddings.position_embeddings"]}
    for kind in ("weight", "bias"):
        out[f"patch_embed.proj.{kind}"] = state[f"embeddings.patch_embeddings.projection.{kind}"]
        out[f"norm.{kind}"] = state[f"layernorm.{kind}"]
        for i in range(2):
            old, new = f"layers.{i}", f"blocks.{i}"
            out |= {f"{new}.{b}.{kind}": state[f"{old}.{a}.{kind}"] for a, b in _VIT_NAMES.items()}
            packed = [state[f"{old}.attention.{x}_proj.{kind}"] for x in "qkv"]
            out[f"{new}.attn.qkv.{kind}"] = torch.cat(packed)
    return out


_VIT_NAMES = {
    "attention.o_proj": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def clip_vision() -> Pair:
    """CLIP's vision tower of open_clip in timm, by timm's own conversion of such checkpoints."""
    tower = import_module("open_clip.transformer").VisionTransformer
    model = tower(image_size=32, patch_size=8, width=32, layers=2, heads=4, mlp_ratio=2.0, output_dim=16).eval()
    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
    port = _timm("vision_transformer", "VisionTransformer")(
        **sizes, mlp_ratio=2.0, num_classes=16, pre_norm=True, norm_layer=_norm(1e-5)
    ).eval()

    def convert(port: Any, state: dict[str, Tensor]) -> Any:
        whole = {f"visual.{name}": x for name, x in state.items()}
        return _timm("vision_transformer", "checkpoint_filter_fn")(whole, port)

    return Pair(model, port, (IMAGE,), convert)


def swin() -> Pair:
    """The Swin transformer of torchvision in timm."""
    model = (
        import_module("torchvision.models.swin_transformer")
        .SwinTransformer(
            patch_size=[4, 4], embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4], num_classes=5
        )
        .eval()
    )
    port = _timm("swin_transformer", "SwinTransformer")(
        img_size=32, patch_size=4, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_size=4, num_classes=5
    ).eval()
    return Pair(model, port, (IMAGE,), swin_to_timm)


def swin_to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for name, x in state.items():
        name = name.replace("features.0.0.", "patch_embed.proj.").replace("features.0.2.", "patch_embed.norm.")
        name = name.replace("features.2.", "layers.1.downsample.")
        for stage, place in enumerate((1, 3)):
            name = name.replace(f"features.{place}.", f"layers.{stage}.blocks.")
        name = name.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.").replace("head.", "head.fc.")
        if "relative_position_index" not in name:
            out[name] = x
    return out


VISION = (
    Port("ResNet-18", "torchvision", "timm", "the same names", resnet),
    Port("DenseNet", "torchvision", "timm", "the same names", densenet),
    Port("Swin", "torchvision", "timm", "written here", swin),
    Port("ViT", "transformers", "timm", "written here", vit),
    Port("CLIP's vision tower", "open_clip", "timm", "timm's `checkpoint_filter_fn`", clip_vision),
)
