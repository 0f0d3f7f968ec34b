"""Tiny random models of many architectures: with attention, recurrent layers, and both."""

from functools import cache
from typing import Any

import torch
import transformers as T
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

VOCABULARY = 64
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": None,
}
MAMBA = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2}
MAMBA2 = MAMBA | {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_chunk_size": 8}
TWO_KINDS = {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}
GATED_DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SLIDING = {"head_dim": 8, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
MAMBA_ONLY = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
MAMBA2_ONLY = MAMBA_ONLY | {"num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8}
LONG = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_type": "longrope", "rope_theta": 1e4}

MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}


def _vision(vision: dict[str, Any]) -> dict[str, Any]:
    return {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2} | vision


CONFIGS: dict[str, Any] = {
    "llama": lambda: T.LlamaConfig(**COMMON),
    "gpt2": lambda: T.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128),
    "opt": lambda: T.OPTConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, ffn_dim=48, num_attention_heads=4,
        max_position_embeddings=128, word_embed_proj_dim=32, dropout=0.0,
    ),
    "bloom": lambda: T.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
    "mistral": lambda: T.MistralConfig(**COMMON, sliding_window=6, head_dim=8),
    "gemma3_text": lambda: T.Gemma3TextConfig(**COMMON | SLIDING, query_pre_attn_scalar=8),
    "gemma3": lambda: T.Gemma3Config(
        text_config=COMMON | SLIDING | {"query_pre_attn_scalar": 8},
        vision_config=_vision({"image_size": 28, "patch_size": 14}), mm_tokens_per_image=4,
        image_token_index=60, boi_token_index=61, eoi_token_index=62,
    ),
    "gemma4_text": lambda: T.Gemma4TextConfig(
        **COMMON | SLIDING, global_head_dim=8, vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=8,
        num_kv_shared_layers=0,
    ),
    "mistral3": lambda: T.Mistral3Config(
        text_config=COMMON | {"model_type": "mistral", "head_dim": 8, "sliding_window": 6},
        vision_config=_vision({"model_type": "pixtral", "image_size": 28, "patch_size": 14}), image_token_index=60,
    ),
    "qwen2_5_vl": lambda: T.Qwen2_5_VLConfig(
        text_config=COMMON | {"rope_parameters": MROPE}, vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2,
        "intermediate_size": 16, "out_hidden_size": 32}, image_token_id=60, video_token_id=61,
        vision_start_token_id=62, vision_end_token_id=63,
    ),
    "qwen3_vl": lambda: T.Qwen3VLConfig(
        text_config=COMMON | {"head_dim": 8, "rope_parameters": MROPE}, vision_config={"depth": 1, "hidden_size": 16,
        "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32, "deepstack_visual_indexes": [0]},
        image_token_id=60, video_token_id=61, vision_start_token_id=62, vision_end_token_id=63,
    ),
    "gpt_oss": lambda: T.GptOssConfig(**COMMON | SLIDING, num_local_experts=4, num_experts_per_tok=2),
    "phi3_long": lambda: T.Phi3Config(
        **COMMON, original_max_position_embeddings=16, rope_parameters=LONG | {"original_max_position_embeddings": 16},
    ),
    "llama_dynamic": lambda: T.LlamaConfig(
        **COMMON | {"max_position_embeddings": 16},
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
    ),
    "qwen3_next": lambda: T.Qwen3NextConfig(
        **COMMON | TWO_KINDS | GATED_DELTA | EXPERTS, shared_expert_intermediate_size=24,
    ),
    "qwen3_5": lambda: T.Qwen3_5TextConfig(**COMMON | TWO_KINDS | GATED_DELTA),
    "lfm2": lambda: T.Lfm2Config(**COMMON, layer_types=["conv", "full_attention"]),
    "jamba": lambda: T.JambaConfig(
        **COMMON | MAMBA, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1,
        num_experts=2, num_experts_per_tok=1, use_mamba_kernels=False,
    ),
    "granite_hybrid": lambda: T.GraniteMoeHybridConfig(
        **COMMON | MAMBA2, layer_types=["linear_attention", "full_attention"], num_local_experts=4,
        num_experts_per_tok=2, shared_intermediate_size=24,
    ),
    "falcon_h1": lambda: T.FalconH1Config(**COMMON | MAMBA2, mamba_d_ssm=64, head_dim=8),
    "nemotron_h": lambda: T.NemotronHConfig(
        **COMMON | {"num_hidden_layers": 3}, head_dim=8, layers_block_type=["mamba", "attention", "mlp"],
        ssm_state_size=8, mamba_num_heads=4, mamba_head_dim=16, n_groups=1, chunk_size=8, conv_kernel=4,
    ),
    "mamba": lambda: T.MambaConfig(**MAMBA_ONLY),
    "mamba2": lambda: T.Mamba2Config(**MAMBA2_ONLY),
    "recurrent_gemma": lambda: T.RecurrentGemmaConfig(
        **COMMON | {"num_hidden_layers": 3}, lru_width=32, attention_window_size=8,
    ),
    "rwkv": lambda: T.RwkvConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, context_length=128),
    "minimax": lambda: T.MiniMaxConfig(
        **COMMON, head_dim=8, layer_types=["linear_attention", "full_attention"], num_local_experts=4,
        num_experts_per_tok=2, block_size=8,
    ),
    "bart": lambda: T.BartConfig(
        vocab_size=VOCABULARY, d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=48,
        max_position_embeddings=128, is_decoder=True, is_encoder_decoder=False, dropout=0.0,
    ),
}  # fmt: skip

EAGER = {"gpt_oss", "bloom"}
"""Without scaled-dot-product attention."""


@cache
def model_of(name: str) -> PreTrainedModel:
    """In float32, all its numbers random: biases that are zero would hide what padding leaves behind."""
    torch.manual_seed(0)
    config = CONFIGS[name]()
    loader = T.AutoModelForCausalLM if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else T.AutoModelForImageTextToText
    attention = "eager" if name in EAGER else None
    model: PreTrainedModel = loader.from_config(config, dtype=torch.float32, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.1))
    model.generation_config = T.GenerationConfig()  # BART's forces tokens
    return model.eval()
