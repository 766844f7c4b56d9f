"""The zoo: one row for each architecture."""

from __future__ import annotations

from torch import nn

from zoo import special
from zoo.architecture import Architecture, Family, Rows, name_rows
from zoo.construct import SMALL, VOCABULARY, image, normal, tokens, transformer

_WORDS = dict(SMALL, vocab_size=VOCABULARY)
_GROUPED = dict(_WORDS, num_key_value_heads=2)  # two heads share a key and a value
_WAVE = dict(
    SMALL,
    conv_dim=(32, 32, 32),
    conv_stride=(5, 4, 4),
    conv_kernel=(10, 8, 8),
    num_feat_extract_layers=3,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)
_PATCHES = {
    "num_input_channels": 3,
    "context_length": 64,
    "patch_length": 8,
    "patch_stride": 8,
    "prediction_length": 8,
}
_EXPERTS = dict(_WORDS, num_experts_per_tok=2)


_CONVOLUTION: Rows = {
    "resnet": (
        transformer(
            "ResNetForImageClassification", embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 2], num_labels=7
        ),
        image(),
    ),
    "regnet": (
        transformer(
            "RegNetForImageClassification",
            embedding_size=16,
            hidden_sizes=[16, 32, 64],
            depths=[1, 1, 2],
            groups_width=8,
            num_labels=7,
        ),
        image(),
    ),
    "mobilenet_v1": (transformer("MobileNetV1ForImageClassification", depth_multiplier=0.25), image()),
    "mobilenet_v2": (transformer("MobileNetV2ForImageClassification", depth_multiplier=0.35), image()),
    "efficientnet": (
        transformer(
            "EfficientNetForImageClassification", width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320
        ),
        image(),
    ),
    "convnext": (
        transformer("ConvNextForImageClassification", hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1]),
        image(),
    ),
    "bit": (
        transformer("BitForImageClassification", embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1], num_groups=8),
        image(),
    ),
    "hgnet_v2": (
        transformer(
            "HGNetV2ForImageClassification",
            stem_channels=[3, 8, 16],
            stage_in_channels=[16, 32, 48, 64],
            stage_mid_channels=[8, 8, 8, 8],
            stage_out_channels=[32, 48, 64, 64],
            stage_num_blocks=[1, 1, 1, 1],
            hidden_sizes=[32, 48, 64, 64],
            use_learnable_affine_block=True,
        ),
        image(),
    ),
    "pp_lcnet": (transformer("PPLCNetForImageClassification", scale=0.5, class_expand=320), image()),
    "textnet": (
        transformer("TextNetForImageClassification", stem_out_channels=16, hidden_sizes=[16, 16, 24, 32, 48]),
        image(),
    ),
    "superpoint": (special.superpoint, image(channels=1)),
    "efficientloftr_repvgg": (special.efficientloftr, image(channels=1)),
    "speecht5_postnet": (special.speecht5_postnet, normal(2, 12, 64)),
    "informer_distilling": (special.informer_distilling, normal(2, 12, 16)),
}

_VISION: Rows = {
    "levit": (
        transformer(
            "LevitForImageClassification",
            hidden_sizes=[64, 96, 128],
            num_attention_heads=[2, 3, 4],
            depths=[1, 1, 1],
            key_dim=[16, 16, 16],
            num_labels=7,
        ),
        image(224),
    ),
    "cvt": (
        transformer(
            "CvtForImageClassification",
            embed_dim=[16, 32, 64],
            num_heads=[1, 2, 4],
            depth=[1, 2, 3],
            num_labels=7,
            cls_token=[False, False, True],
        ),
        image(),
    ),
    "mobilevit": (
        transformer(
            "MobileViTForImageClassification",
            hidden_sizes=[24, 32, 40],
            neck_hidden_sizes=[8, 12, 16, 20, 24, 28, 64],
            num_attention_heads=4,
            image_size=64,
        ),
        image(),
    ),
    "mobilevit_v2": (
        transformer(
            "MobileViTV2ForImageClassification", width_multiplier=0.5, image_size=64, base_attn_unit_dims=[32, 48, 64]
        ),
        image(),
    ),
    "swiftformer": (
        transformer(
            "SwiftFormerForImageClassification", depths=[1, 1, 1, 1], embed_dims=[16, 32, 48, 64], image_size=64
        ),
        image(),
    ),
    "segformer": (
        transformer(
            "SegformerForSemanticSegmentation",
            depths=[1, 1, 1, 1],
            hidden_sizes=[16, 16, 32, 32],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=32,
        ),
        image(),
    ),
    "dpt": (special.dpt, image()),
    "detr": (special.detr, image()),
    "rt_detr": (special.rt_detr, image(128)),
    "vit": (transformer("ViTModel", **SMALL, image_size=64, patch_size=16), image()),
    "dinov2_swiglu": (
        transformer(
            "Dinov2Model",
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=64,
            use_swiglu_ffn=True,
        ),
        image(),
    ),
    "superglue_keypoints": (special.superglue_keypoints, normal(2, 20, 3)),
    "superglue_propagation": (special.superglue_propagation, normal(2, 20, 64)),
}

_AUDIO: Rows = {
    "wav2vec2_conformer": (
        transformer("Wav2Vec2ConformerModel", **_WAVE, position_embeddings_type="rotary"),
        normal(2, 4000),
    ),
    "hubert_batch_norm": (transformer("HubertModel", **_WAVE, conv_pos_batch_norm=True), normal(2, 4000)),
    "seamless_m4t_speech": (
        transformer(
            "seamless_m4t.modeling_seamless_m4t.SeamlessM4TSpeechEncoder",
            hidden_size=64,
            speech_encoder_layers=2,
            speech_encoder_attention_heads=4,
            speech_encoder_intermediate_size=128,
            feature_projection_input_dim=32,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            max_source_positions=200,
        ),
        normal(2, 40, 32),
    ),
    "granite_speech": (
        transformer(
            "granite_speech.modeling_granite_speech.GraniteSpeechCTCEncoder",
            input_dim=32,
            num_layers=2,
            hidden_dim=64,
            feedforward_mult=2,
            num_heads=4,
            dim_head=16,
            output_dim=42,
            context_size=20,
            max_pos_emb=64,
        ),
        normal(2, 40, 32),
    ),
    "parakeet": (
        transformer("ParakeetEncoder", **SMALL, num_mel_bins=32, subsampling_conv_channels=16),
        normal(2, 64, 32),
    ),
    "lasr": (
        transformer("LasrEncoder", **SMALL, num_mel_bins=32, subsampling_conv_channels=16, num_key_value_heads=4),
        normal(2, 64, 32),
    ),
    "clap_audio": (
        transformer(
            "ClapAudioModel",
            spec_size=64,
            num_mel_bins=16,
            window_size=4,
            patch_size=4,
            patch_stride=[4, 4],
            patch_embeds_hidden_size=16,
            depths=[1, 1],
            num_attention_heads=[2, 2],
            num_hidden_layers=2,
            hidden_size=32,
            enable_fusion=False,
        ),
        normal(2, 1, 256, 16),
    ),
    "whisper_encoder": (
        transformer(
            "whisper.modeling_whisper.WhisperEncoder",
            d_model=64,
            encoder_layers=2,
            encoder_attention_heads=4,
            encoder_ffn_dim=128,
            num_mel_bins=16,
            max_source_positions=20,
        ),
        normal(2, 16, 40),
    ),
}

_SERIES: Rows = {
    "patchtst": (
        transformer(
            "PatchTSTForPrediction",
            **_PATCHES,
            d_model=32,
            num_attention_heads=4,
            num_hidden_layers=2,
            ffn_dim=64,
            norm_type="batchnorm",
            distribution_output="normal",
            loss="mse",
        ),
        normal(2, 64, 3),
    ),
    "patchtsmixer": (
        transformer(
            "PatchTSMixerForPrediction", **_PATCHES, d_model=16, num_layers=2, norm_mlp="BatchNorm", mode="mix_channel"
        ),
        normal(2, 64, 3),
    ),
}

_TEXT: Rows = {
    "bert": (transformer("BertModel", **_WORDS), tokens()),
    "llama": (transformer("LlamaForCausalLM", **_GROUPED), tokens()),
    "qwen2": (transformer("Qwen2ForCausalLM", **_GROUPED), tokens()),
    "t5": (
        transformer(
            "T5EncoderModel",
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            vocab_size=VOCABULARY,
            feed_forward_proj="gated-gelu",
        ),
        tokens(),
    ),
    "gpt2": (transformer("GPT2LMHeadModel", n_embd=64, n_layer=2, n_head=4, vocab_size=VOCABULARY), tokens()),
    "bart": (
        transformer(
            "BartModel",
            d_model=64,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            vocab_size=VOCABULARY,
        ),
        tokens(),
    ),
    "mixtral": (transformer("MixtralForCausalLM", **_EXPERTS, num_key_value_heads=2, num_local_experts=4), tokens()),
    "qwen3_moe": (
        transformer(
            "Qwen3MoeForCausalLM",
            **_EXPERTS,
            num_key_value_heads=2,
            num_experts=4,
            moe_intermediate_size=32,
            head_dim=16,
        ),
        tokens(),
    ),
    "deepseek_v3": (
        transformer(
            "DeepseekV3ForCausalLM",
            **_EXPERTS,
            num_key_value_heads=4,
            n_routed_experts=4,
            n_group=1,
            topk_group=1,
            moe_intermediate_size=32,
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=16,
            first_k_dense_replace=1,
        ),
        tokens(),
    ),
    "mamba2": (
        transformer(
            "Mamba2Model",
            hidden_size=32,
            num_hidden_layers=1,
            num_heads=8,
            head_dim=8,
            state_size=8,
            n_groups=1,
            vocab_size=VOCABULARY,
            chunk_size=4,
        ),
        tokens(),
    ),
}

_HEAD: Rows = {
    "mae_probe": (lambda: nn.Sequential(nn.BatchNorm1d(64, affine=False, eps=1e-6), nn.Linear(64, 10)), normal(4, 64)),
    "byol_head": (
        lambda: nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(True), nn.Linear(128, 32)),
        normal(4, 64),
    ),
    "vicreg_head": (
        lambda: nn.Sequential(
            *(nn.Linear(64, 96), nn.BatchNorm1d(96), nn.ReLU(True)),
            *(nn.Linear(96, 96), nn.BatchNorm1d(96), nn.ReLU(True)),
            nn.Linear(96, 96, bias=False),
        ),
        normal(4, 64),
    ),
    "simsiam_head": (
        lambda: nn.Sequential(
            *(nn.Linear(64, 96, bias=False), nn.BatchNorm1d(96), nn.ReLU(True)),
            *(nn.Linear(96, 64, bias=False), nn.BatchNorm1d(64, affine=False)),
        ),
        normal(4, 64),
    ),
    "tabular_mlp": (
        lambda: nn.Sequential(
            *(nn.BatchNorm1d(16), nn.Linear(16, 32), nn.ReLU()),
            *(nn.BatchNorm1d(32), nn.Dropout(0.2), nn.Linear(32, 32), nn.ReLU()),
            *(nn.BatchNorm1d(32), nn.Linear(32, 2)),
        ),
        normal(4, 16),
    ),
    "conv_flatten_bn": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.BatchNorm1d(8 * 36), nn.Linear(8 * 36, 5)),
        normal(2, 3, 8, 8),
    ),
    "preactivation": (
        lambda: nn.Sequential(
            *(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()),
            *(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.ReLU()),
        ),
        normal(2, 3, 8, 8),
    ),
}

_FAMILIES: dict[Family, Rows] = {
    Family.CONVOLUTION: _CONVOLUTION,
    Family.VISION: _VISION,
    Family.AUDIO: _AUDIO,
    Family.SERIES: _SERIES,
    Family.TEXT: _TEXT,
    Family.HEAD: _HEAD,
}

ZOO: dict[str, Architecture] = name_rows(_FAMILIES)
