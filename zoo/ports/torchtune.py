"""Models of transformers, and those of torchtune with torchtune's own conversions."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from zoo.ports.port import TOKENS, Pair, Port

SIZES = {"vocab_size": 64, "num_layers": 2, "num_heads": 4, "embed_dim": 32, "max_seq_len": 64, "intermediate_dim": 48}
"""torchtune's names of the sizes."""


def _config(kind: str, **own: Any) -> Any:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.1,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return getattr(import_module("transformers"), f"{kind}Config")(**{**sizes, **own})


def _decoder(kind: str, own: dict[str, Any], port: nn.Module, convert: Any) -> Pair:
    model = getattr(import_module("transformers"), f"{kind}ForCausalLM")(_config(kind, **own)).eval()
    return Pair(lambda tokens: model(input_ids=tokens, use_cache=False).logits, port.eval(), (TOKENS,), convert)


def _builder(family: str, name: str) -> Any:
    return getattr(import_module(f"torchtune.models.{family}._component_builders"), name)


def _conversion(family: str, name: str, **sizes: Any) -> Any:
    where = f"torchtune.models.{family}._convert_weights" if family else "torchtune.models.convert_weights"
    return functools.partial(getattr(import_module(where), name), **{"num_heads": 4, "dim": 32, **sizes})


def llama2() -> Pair:
    port = _builder("llama2", "llama2")(**SIZES, num_kv_heads=4, norm_eps=1e-6)
    return _decoder("Llama", {"num_key_value_heads": 4}, port, _conversion("", "hf_to_tune", num_kv_heads=4))


def llama3_2() -> Pair:
    scaling = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope = {"rope_type": "llama3", "original_max_position_embeddings": 8192, "rope_theta": 500_000.0, **scaling}
    own = {"tie_word_embeddings": True, "rope_parameters": rope, "rms_norm_eps": 1e-5}
    port = _builder("llama3_2", "llama3_2")(**SIZES, num_kv_heads=2, rope_base=500_000, norm_eps=1e-5)
    return _decoder("Llama", own, port, _conversion("", "hf_to_tune", num_kv_heads=2))


def mistral() -> Pair:
    port = _builder("mistral", "mistral")(**SIZES, num_kv_heads=2, norm_eps=1e-6)
    return _decoder("Mistral", {"sliding_window": None}, port, _conversion("", "hf_to_tune", num_kv_heads=2))


def qwen2() -> Pair:
    port = _builder("qwen2", "qwen2")(**SIZES, num_kv_heads=2, norm_eps=1e-6, rope_base=10_000.0)
    return _decoder("Qwen2", {}, port, _conversion("qwen2", "qwen2_hf_to_tune", num_kv_heads=2))


def gemma() -> Pair:
    port = _builder("gemma", "gemma")(**SIZES, num_kv_heads=1, head_dim=16)
    own = {"head_dim": 16, "num_key_value_heads": 1, "hidden_activation": "gelu_pytorch_tanh"}
    return _decoder("Gemma", own, port, _conversion("", "hf_to_tune", num_kv_heads=1, head_dim=16))


def gemma2() -> Pair:
    caps = {"hidden_capping_value": 50.0, "final_capping_value": 30.0}
    port = _builder("gemma2", "gemma2")(
        **SIZES, **caps, num_kv_heads=2, head_dim=16, sliding_window_size=4, query_pre_attn_scalar=16
    )
    own = {"head_dim": 16, "sliding_window": 4, "query_pre_attn_scalar": 16, "attn_implementation": "eager"}
    return _decoder("Gemma2", own, port, _conversion("gemma2", "gemma2_hf_to_tune", num_kv_heads=2, head_dim=16))


def phi3() -> Pair:
    port = _builder("phi3", "phi3")(**SIZES, num_kv_heads=4)
    own = {"num_key_value_heads": 4, "rms_norm_eps": 1e-5, "sliding_window": None}
    return _decoder("Phi3", own, port, _conversion("phi3", "phi3_hf_to_tune", num_kv_heads=4))


def clip_text() -> Pair:
    transformers = import_module("transformers")
    config = _config("CLIPText", **_CLIP, intermediate_size=128, max_position_embeddings=6, eos_token_id=49407)
    model = transformers.CLIPTextModel(config).eval()
    sizes = {"embed_dim": 32, "num_heads": 4, "num_layers": 2, "max_seq_len": 6}
    port = _builder("clip", "clip_text_encoder")(**_CLIP, **sizes).eval()
    converted = import_module("torchtune.models.clip._convert_weights").clip_text_hf_to_tune

    def convert(state: dict[str, Tensor]) -> Any:
        return converted({f"text_model.{name}": x for name, x in state.items()})  # as transformers 4 named them

    tokens = torch.cat([TOKENS[:, :5], torch.tensor([[49407]])], 1)  # the end of a text
    return Pair(lambda tokens: model(input_ids=tokens).pooler_output, port, (tokens,), convert)


_CLIP = {"vocab_size": 49408}


def t5_encoder() -> Pair:
    transformers = import_module("transformers")
    own = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu"}
    model = transformers.T5EncoderModel(transformers.T5Config(vocab_size=64, dropout_rate=0.0, **own)).eval()
    sizes = {"embed_dim": 32, "mlp_dim": 48, "num_heads": 4, "head_dim": 8, "num_layers": 2, "vocab_size": 64}
    positions = {"rel_pos_num_buckets": 32, "rel_pos_max_dist": 128, "norm_eps": 1e-6, "max_seq_len": 6}
    port = _builder("t5", "t5_encoder")(**sizes, **positions).eval()
    convert = import_module("torchtune.models.t5._convert_weights").t5_encoder_hf_to_tune
    return Pair(lambda tokens: model(input_ids=tokens).last_hidden_state, port, (TOKENS,), convert)


CAPPED_STATES = """\
**A finding.** Gemma 2 caps its logits: 30·tanh(logits/30). torchtune's `Gemma2FinalNorm` caps the normalised hidden
state instead, before the product with the embedding (`torchtune/models/gemma2/_component_builders.py`)."""

EXACT_GELU = """\
**A finding.** The gated GELU of T5 1.1 is the approximation by tanh (`gelu_new` in transformers). torchtune's encoder
has the exact one (`torchtune/models/t5/_component_builders.py`)."""

TORCHTUNE = tuple(
    Port(name, "transformers", "torchtune", f"torchtune's `{convert}`", make, *remark)
    for name, convert, make, *remark in (
        ("Llama 2", "hf_to_tune", llama2),
        ("Llama 3.2, tied and with grouped heads", "hf_to_tune", llama3_2),
        ("Mistral", "hf_to_tune", mistral),
        ("Qwen 2", "qwen2_hf_to_tune", qwen2),
        ("Gemma", "hf_to_tune", gemma),
        ("Gemma 2", "gemma2_hf_to_tune", gemma2, CAPPED_STATES),
        ("Phi 3", "phi3_hf_to_tune", phi3),
        ("CLIP's text encoder", "clip_text_hf_to_tune", clip_text),
        ("T5's encoder", "t5_encoder_hf_to_tune", t5_encoder, EXACT_GELU),
    )
)
