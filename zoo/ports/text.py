"""Text models of transformers, and PyTorch's own modules."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor, nn

from zoo.ports.port import TOKENS, Pair, Port


def bert_layers() -> Pair:
    """BERT's layers as an nn.TransformerEncoder, with its fast path."""
    transformers = import_module("transformers")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, attn_implementation="eager"
    )
    model = transformers.models.bert.modeling_bert.BertEncoder(config).eval()
    layer = nn.TransformerEncoderLayer(
        32, 4, 48, activation="gelu", layer_norm_eps=1e-12, batch_first=True, norm_first=False
    )
    port = nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    return Pair(lambda x: model(x).last_hidden_state, port, (x,), bert_to_encoder)


def bert_to_encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {
        "attention.output.dense": "self_attn.out_proj",
        "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "linear1",
        "output.dense": "linear2",
        "output.LayerNorm": "norm2",
    }
    out = {}
    for i in range(2):
        for kind in ("weight", "bias"):
            packed = [state[f"layer.{i}.attention.self.{x}.{kind}"] for x in ("query", "key", "value")]
            out[f"layers.{i}.self_attn.in_proj_{kind}"] = torch.cat(packed)
            out |= {f"layers.{i}.{new}.{kind}": state[f"layer.{i}.{old}.{kind}"] for old, new in names.items()}
    return out


def gpt2_attention() -> Pair:
    """GPT-2's attention as an nn.MultiheadAttention with a causal mask."""
    transformers = import_module("transformers")
    config = transformers.GPT2Config(n_embd=32, n_head=4, n_layer=1, attn_implementation="eager")
    model = transformers.models.gpt2.modeling_gpt2.GPT2Attention(config, layer_idx=0).eval()
    port = nn.MultiheadAttention(32, 4).eval()
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    causal = torch.zeros(1, 1, 5, 5).masked_fill(mask, float("-inf"))
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))

    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        turned = {name: x.T if x.ndim == 2 else x for name, x in state.items()}  # Conv1D keeps its transpose
        names = {"c_attn.weight": "in_proj_weight", "c_attn.bias": "in_proj_bias"}
        names |= {f"c_proj.{kind}": f"out_proj.{kind}" for kind in ("weight", "bias")}
        return {new: turned[old] for old, new in names.items()}

    return Pair(
        lambda x: model(x, attention_mask=causal)[0],
        lambda x: port(*[x.transpose(0, 1)] * 3, attn_mask=mask, need_weights=False)[0].transpose(0, 1),
        (x,),
        convert,
    )


def clip_text() -> Pair:
    """CLIP's text tower in open_clip, from the checkpoint of transformers."""
    transformers = import_module("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=6,
        projection_dim=16,
        hidden_act="gelu",
        eos_token_id=2,  # the pooled token is the largest one, as in OpenAI's checkpoints
    )
    model = transformers.CLIPTextModelWithProjection(config).eval()
    tower = import_module("open_clip.transformer").TextTransformer
    port = tower(context_length=6, vocab_size=64, width=32, heads=4, layers=2, output_dim=16).eval()
    tokens = torch.cat([TOKENS[:, :5], torch.tensor([[63]])], 1)
    return Pair(lambda tokens: model(input_ids=tokens).text_embeds, port, (tokens,), clip_to_open_clip)


def clip_to_open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    text, out = "text_model.", {}
    out["token_embedding.weight"] = state[f"{text}embeddings.token_embedding.weight"]
    out["positional_embedding"] = state[f"{text}embeddings.position_embedding.weight"]
    out["text_projection"] = state["text_projection.weight"].T
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    names["self_attn.out_proj"] = "attn.out_proj"
    for kind in ("weight", "bias"):
        out[f"ln_final.{kind}"] = state[f"{text}final_layer_norm.{kind}"]
        for i in range(2):
            old, new = f"{text}encoder.layers.{i}", f"transformer.resblocks.{i}"
            out |= {f"{new}.{b}.{kind}": state[f"{old}.{a}.{kind}"] for a, b in names.items()}
            packed = [state[f"{old}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
            out[f"{new}.attn.in_proj_{kind}"] = torch.cat(packed)
    return out


TEXT = (
    Port("BERT's layers", "transformers", "nn.TransformerEncoder", "written here", bert_layers),
    Port("GPT-2's attention", "transformers", "nn.MultiheadAttention", "written here", gpt2_attention),
    Port("CLIP's text tower", "transformers", "open_clip", "written here", clip_text),
)
