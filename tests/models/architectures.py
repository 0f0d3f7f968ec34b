"""The architectures of the matrix: a name, real models of that kind, and a tiny random model that does what they do.

Every model has 2 to 4 layers of width 32. Sliding windows are 16 tokens and chunks 16, so that all prompts and answers
of the tests cross them; whatever the real models have besides (experts, soft caps, sinks, dropout) is on.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from train_helpers import CHATML, fast_tokenizer

VOCABULARY = 512
PAD, BOS, EOS = 0, 1, 4
"""Ids of ``train_helpers.SPECIAL``; the end of a turn is ``<|im_end|>``."""

WINDOW = 16
SPREAD = 0.15
"""Standard deviation of the random matrices: log-probs then depend on all that precedes, and errors show."""

Settings = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """One row of the matrix."""

    examples: str
    """Real models of this kind."""
    config: Callable[[], Any]
    model: Callable[[Any], Any] = hf.AutoModelForCausalLM.from_config
    refused: Mapping[str, str] = field(default_factory=dict)
    """What maskdpo does not do with it: the check (or ``all``), and words of the refusal."""
    note: str = ""


def _sizes(**changes: Any) -> Settings:
    """What most configs call their sizes."""
    names = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    }
    return {name: value for name, value in (names | changes).items() if value is not ...}


ALTERNATING: Settings = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
GEMMA: Settings = _sizes(head_dim=8, query_pre_attn_scalar=8)
EXPERTS: Settings = {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_EXPERTS: Settings = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
DELTA_NET: Settings = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MAMBA2: Settings = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_expand": 2, "mamba_n_groups": 1}
VISION: Settings = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
DROPOUT = 0.1


def _latent(**changes: Any) -> Settings:
    """Multi-head latent attention."""
    ranks = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
    return (
        _sizes(num_key_value_heads=4, moe_intermediate_size=24, first_k_dense_replace=1, **ranks, **experts) | changes
    )


def _gpt2(**changes: Any) -> Settings:
    return {
        "vocab_size": VOCABULARY,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 512,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    } | changes


def _rope(kind: str, **settings: Any) -> Settings:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **settings}}


def _longrope(original: int) -> Settings:
    """The factors change at ``original`` tokens."""
    factors = {"short_factor": [1.0, 1.2, 1.4, 1.6], "long_factor": [2.0, 3.0, 5.0, 9.0]}
    return _rope("longrope", **factors, original_max_position_embeddings=original, factor=512 / original)


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("Llama 2, 3, 3.1, 3.2, 3.3; Yi; TinyLlama", lambda: hf.LlamaConfig(**_sizes())),
    "llama-tied": Architecture(
        "Llama 3.2 1B and 3B; SmolLM2", lambda: hf.LlamaConfig(**_sizes(tie_word_embeddings=True))
    ),
    "llama-dynamic": Architecture(
        "Llama-like models with dynamic NTK scaling",
        lambda: hf.LlamaConfig(**_sizes(max_position_embeddings=128), **_rope("dynamic", factor=8.0)),
        note="pairs within the original length; beyond it see the next row",
    ),
    "llama-dynamic-long": Architecture(
        "the same, pairs beyond the original length",
        lambda: hf.LlamaConfig(**_sizes(max_position_embeddings=48), **_rope("dynamic", factor=8.0)),
        refused={
            "training": "its rotary embedding (dynamic) changes for the whole pass",
            "sampling": "the model's limit is 48",
        },
    ),
    "llama4-text": Architecture(
        "Llama 4 Scout and Maverick (the text model)",
        lambda: hf.Llama4TextConfig(
            **_sizes(head_dim=8, intermediate_size_mlp=48, **EXPERTS),
            attention_chunk_size=WINDOW,
            layer_types=["chunked_attention", "full_attention"],
            no_rope_layers=[1, 0],
            attn_temperature_tuning=True,
            floor_scale=16,
        ),
    ),
    "qwen2": Architecture("Qwen2, Qwen2.5", lambda: hf.Qwen2Config(**_sizes())),
    "qwen2-moe": Architecture(
        "Qwen1.5-MoE, Qwen2-57B-A14B",
        lambda: hf.Qwen2MoeConfig(**_sizes(), **QWEN_EXPERTS, shared_expert_intermediate_size=24),
    ),
    "qwen2.5-vl": Architecture(
        "Qwen2.5-VL (text only)",
        lambda: hf.Qwen2_5_VLConfig(
            text_config=_sizes(rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2]}),
            vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32},
        ),
        hf.Qwen2_5_VLForConditionalGeneration,
    ),
    "qwen3": Architecture("Qwen3 0.6B to 32B", lambda: hf.Qwen3Config(**_sizes(head_dim=8))),
    "qwen3-moe": Architecture("Qwen3-30B-A3B", lambda: hf.Qwen3MoeConfig(**_sizes(head_dim=8), **QWEN_EXPERTS)),
    "qwen3-next": Architecture(
        "Qwen3-Next-80B-A3B",
        lambda: hf.Qwen3NextConfig(
            **_sizes(head_dim=8), **QWEN_EXPERTS, **DELTA_NET, shared_expert_intermediate_size=24
        ),
    ),
    "qwen3-vl": Architecture(
        "Qwen3-VL (text only)",
        lambda: hf.Qwen3VLConfig(
            text_config=_sizes(head_dim=8, rope_parameters={"rope_type": "default", "mrope_section": [2, 1, 1]}),
            vision_config={
                "depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32,
                "deepstack_visual_indexes": [0],
            },
        ),
        hf.Qwen3VLForConditionalGeneration,
    ),
    "qwen3.5": Architecture("Qwen3.5 (dense)", lambda: hf.Qwen3_5TextConfig(**_sizes(head_dim=8), **DELTA_NET)),
    "qwen3.5-moe": Architecture(
        "Qwen3.5 (mixture of experts)",
        lambda: hf.Qwen3_5MoeTextConfig(
            **_sizes(head_dim=8), **QWEN_EXPERTS, **DELTA_NET, shared_expert_intermediate_size=24
        ),
    ),
    "gemma": Architecture("Gemma 1", lambda: hf.GemmaConfig(**_sizes(head_dim=8))),
    "gemma2": Architecture("Gemma 2", lambda: hf.Gemma2Config(**GEMMA, **ALTERNATING)),
    "gemma3-text": Architecture("Gemma 3 270M and 1B", lambda: hf.Gemma3TextConfig(**GEMMA, **ALTERNATING)),
    "gemma3": Architecture(
        "Gemma 3 4B, 12B, 27B",
        lambda: hf.Gemma3Config(text_config=GEMMA | ALTERNATING, vision_config=VISION, mm_tokens_per_image=4),
        hf.Gemma3ForConditionalGeneration,
    ),
    "gemma3n-text": Architecture(
        "Gemma 3n (the text model)",
        lambda: hf.Gemma3nTextConfig(
            **_sizes(head_dim=8, intermediate_size=[48, 48]),
            **ALTERNATING,
            vocab_size_per_layer_input=VOCABULARY,
            hidden_size_per_layer_input=8,
            laurel_rank=4,
            num_kv_shared_layers=0,
            activation_sparsity_pattern=[0.0, 0.0],
            altup_num_inputs=2,
        ),
    ),
    "gemma4-text": Architecture(
        "Gemma 4 (the text model)",
        lambda: hf.Gemma4TextConfig(
            **_sizes(head_dim=8, global_head_dim=8),
            **ALTERNATING,
            vocab_size_per_layer_input=VOCABULARY,
            hidden_size_per_layer_input=8,
            num_kv_shared_layers=0,
        ),
    ),
    "gpt-oss": Architecture(
        "gpt-oss 20B and 120B", lambda: hf.GptOssConfig(**_sizes(head_dim=8), **EXPERTS, **ALTERNATING)
    ),
    "mistral": Architecture("Mistral 7B v0.2, v0.3; Nemo", lambda: hf.MistralConfig(**_sizes(sliding_window=None))),
    "mistral-sliding": Architecture("Mistral 7B v0.1; Zephyr", lambda: hf.MistralConfig(**_sizes(sliding_window=WINDOW))),
    "ministral": Architecture(
        "Ministral 8B", lambda: hf.MinistralConfig(**_sizes(head_dim=8), **ALTERNATING)
    ),
    "ministral3": Architecture("Ministral 3 (the text model)", lambda: hf.Ministral3Config(**_sizes(head_dim=8))),
    "mistral3": Architecture(
        "Mistral Small 3.1, 3.2",
        lambda: hf.Mistral3Config(
            text_config=_sizes(model_type="mistral", head_dim=8, sliding_window=None),
            vision_config=VISION | {"model_type": "pixtral", "head_dim": 8},
        ),
        hf.Mistral3ForConditionalGeneration,
    ),
    "mixtral": Architecture(
        "Mixtral 8x7B, 8x22B", lambda: hf.MixtralConfig(**_sizes(), **EXPERTS, router_jitter_noise=DROPOUT)
    ),
    "deepseek-v2": Architecture("DeepSeek V2", lambda: hf.DeepseekV2Config(**_latent())),
    "deepseek-v3": Architecture("DeepSeek V3, R1; Moonlight", lambda: hf.DeepseekV3Config(**_latent())),
    "phi": Architecture(
        "Phi-1, Phi-1.5, Phi-2",
        lambda: hf.PhiConfig(
            **_sizes(), resid_pdrop=DROPOUT, embd_pdrop=DROPOUT, attention_dropout=DROPOUT, partial_rotary_factor=0.5
        ),
    ),
    "phi3": Architecture(
        "Phi-3 mini 4k, Phi-4",
        lambda: hf.Phi3Config(**_sizes(), resid_pdrop=DROPOUT, embd_pdrop=DROPOUT, attention_dropout=DROPOUT),
    ),
    "phi3-sliding": Architecture("Phi-3 mini 4k (as published)", lambda: hf.Phi3Config(**_sizes(), sliding_window=WINDOW)),
    "phi3-longrope": Architecture(
        "Phi-3 mini 128k, Phi-3.5 mini, Phi-4-mini",
        lambda: hf.Phi3Config(**_sizes(), original_max_position_embeddings=128, **_longrope(128)),
        note="pairs within the original length (4096 tokens for the real models); beyond it see the next row",
    ),
    "phi3-longrope-long": Architecture(
        "the same, pairs beyond the original length",
        lambda: hf.Phi3Config(**_sizes(), original_max_position_embeddings=48, **_longrope(48)),
        refused={"training": "its rotary embedding (longrope) changes for the whole pass"},
    ),
    "phimoe": Architecture(
        "Phi-3.5-MoE",
        lambda: hf.PhimoeConfig(
            **_sizes(), **EXPERTS, sliding_window=None, router_jitter_noise=0.01, input_jitter_noise=0.01
        ),
    ),
    "glm": Architecture("GLM-4 9B (hf)", lambda: hf.GlmConfig(**_sizes(head_dim=8))),
    "glm4": Architecture("GLM-4-0414", lambda: hf.Glm4Config(**_sizes(head_dim=8))),
    "glm4-moe": Architecture(
        "GLM-4.5, GLM-4.6",
        lambda: hf.Glm4MoeConfig(
            **_sizes(head_dim=8), n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
            first_k_dense_replace=1, n_group=1, topk_group=1,
        ),
    ),
    "cohere": Architecture("Command R, Aya 23", lambda: hf.CohereConfig(**_sizes(), logit_scale=0.25)),
    "cohere2": Architecture(
        "Command R7B, Command A", lambda: hf.Cohere2Config(**_sizes(head_dim=8), **ALTERNATING, logit_scale=0.25)
    ),
    "olmo": Architecture("OLMo 1", lambda: hf.OlmoConfig(**_sizes())),
    "olmo2": Architecture("OLMo 2; Tulu 3 on OLMo 2", lambda: hf.Olmo2Config(**_sizes())),
    "olmo3": Architecture("OLMo 3", lambda: hf.Olmo3Config(**_sizes(), **ALTERNATING)),
    "olmoe": Architecture("OLMoE 1B-7B", lambda: hf.OlmoeConfig(**_sizes(), num_experts=4, num_experts_per_tok=2)),
    "granite": Architecture(
        "Granite 3",
        lambda: hf.GraniteConfig(
            **_sizes(), logits_scaling=2.0, embedding_multiplier=6.0, residual_multiplier=0.5, attention_multiplier=0.5
        ),
    ),
    "granite-moe": Architecture(
        "Granite 3 MoE (1B-A400M, 3B-A800M)",
        lambda: hf.GraniteMoeConfig(**_sizes(), **EXPERTS, logits_scaling=2.0, embedding_multiplier=6.0, attention_multiplier=0.5),
    ),
    "granite-hybrid": Architecture(
        "Granite 4 (H models)",
        lambda: hf.GraniteMoeHybridConfig(
            **_sizes(), **EXPERTS, **MAMBA2, layer_types=["mamba", "attention"], shared_intermediate_size=48,
            logits_scaling=2.0, embedding_multiplier=6.0, attention_multiplier=0.5, position_embedding_type=None,
        ),
    ),
    "bamba": Architecture("Bamba 9B", lambda: hf.BambaConfig(**_sizes(), **MAMBA2, attn_layer_indices=[1])),
    "lfm2": Architecture("LFM2", lambda: hf.Lfm2Config(**_sizes(), layer_types=["conv", "full_attention"])),
    "lfm2-moe": Architecture(
        "LFM2-8B-A1B",
        lambda: hf.Lfm2MoeConfig(
            **_sizes(), **QWEN_EXPERTS, layer_types=["conv", "full_attention"], num_dense_layers=1
        ),
    ),
    "jamba": Architecture(
        "Jamba 1.5, 1.6",
        lambda: hf.JambaConfig(
            **_sizes(), attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1,
            num_experts=4, num_experts_per_tok=2, mamba_d_state=8, mamba_dt_rank=4, use_mamba_kernels=False,
        ),
    ),
    "nemotron": Architecture("Nemotron-4, Minitron", lambda: hf.NemotronConfig(**_sizes())),
    "nemotron-h": Architecture(
        "Nemotron-H, Nemotron Nano 2",
        lambda: hf.NemotronHConfig(
            **_sizes(head_dim=8, num_hidden_layers=...), layers_block_type=["mamba", "attention", "mlp"],
            mamba_num_heads=8, mamba_head_dim=8, ssm_state_size=8, n_groups=1, use_mamba_kernels=False,
        ),
    ),
    "falcon": Architecture(
        "Falcon 7B, 40B, 180B",
        lambda: hf.FalconConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, bos_token_id=BOS,
            eos_token_id=EOS, hidden_dropout=DROPOUT, attention_dropout=DROPOUT,
        ),
    ),
    "falcon-alibi": Architecture(
        "Falcon-RW 1B",
        lambda: hf.FalconConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, bos_token_id=BOS,
            eos_token_id=EOS, alibi=True,
        ),
    ),
    "falcon-h1": Architecture(
        "Falcon-H1",
        lambda: hf.FalconH1Config(
            **_sizes(), mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, lm_head_multiplier=0.5
        ),
    ),
    "falcon-mamba": Architecture(
        "Falcon Mamba 7B",
        lambda: hf.FalconMambaConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8, pad_token_id=PAD, bos_token_id=BOS,
            eos_token_id=EOS,
        ),
    ),
    "mamba": Architecture(
        "Mamba 130M to 2.8B",
        lambda: hf.MambaConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8, pad_token_id=PAD, bos_token_id=BOS,
            eos_token_id=EOS,
        ),
    ),
    "mamba2": Architecture(
        "Mamba-2, Codestral Mamba",
        lambda: hf.Mamba2Config(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8, num_heads=8, head_dim=8, n_groups=1,
            pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        ),
    ),
    "starcoder2": Architecture(
        "StarCoder2",
        lambda: hf.Starcoder2Config(
            **_sizes(), sliding_window=WINDOW, attention_dropout=DROPOUT, residual_dropout=DROPOUT,
            embedding_dropout=DROPOUT,
        ),
    ),
    "opt": Architecture(
        "OPT",
        lambda: hf.OPTConfig(
            **_sizes(intermediate_size=..., num_key_value_heads=...), ffn_dim=48, word_embed_proj_dim=32,
            dropout=DROPOUT, attention_dropout=DROPOUT, layerdrop=DROPOUT,
        ),
    ),
    "gpt2": Architecture("GPT-2, DistilGPT2", lambda: hf.GPT2Config(**_gpt2())),
    "gpt-bigcode": Architecture("StarCoder, SantaCoder", lambda: hf.GPTBigCodeConfig(**_gpt2())),
    "gpt-neo": Architecture(
        "GPT-Neo 125M to 2.7B",
        lambda: hf.GPTNeoConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]],
            window_size=WINDOW, max_position_embeddings=512, bos_token_id=BOS, eos_token_id=EOS,
            resid_dropout=DROPOUT, embed_dropout=DROPOUT, attention_dropout=DROPOUT,
        ),
    ),
    "gpt-neox": Architecture(
        "GPT-NeoX 20B, Pythia, Dolly 2",
        lambda: hf.GPTNeoXConfig(**_sizes(num_key_value_heads=...), hidden_dropout=DROPOUT, attention_dropout=DROPOUT),
    ),
    "gptj": Architecture(
        "GPT-J 6B", lambda: hf.GPTJConfig(**_gpt2(), rotary_dim=4, resid_pdrop=DROPOUT, attn_pdrop=DROPOUT)
    ),
    "bloom": Architecture(
        "BLOOM, BLOOMZ",
        lambda: hf.BloomConfig(
            vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, pad_token_id=PAD, bos_token_id=BOS,
            eos_token_id=EOS, hidden_dropout=DROPOUT, attention_dropout=DROPOUT,
        ),
    ),
    "mpt": Architecture(
        "MPT 7B, 30B",
        lambda: hf.MptConfig(
            vocab_size=VOCABULARY, d_model=32, n_heads=4, n_layers=2, max_seq_len=512, resid_pdrop=DROPOUT,
            emb_pdrop=DROPOUT,
        ),
    ),
    "smollm3": Architecture("SmolLM3 3B", lambda: hf.SmolLM3Config(**_sizes(), no_rope_layers=[1, 0])),
    "stablelm": Architecture(
        "StableLM 2, StableLM Zephyr",
        lambda: hf.StableLmConfig(**_sizes(), hidden_dropout=DROPOUT, attention_dropout=DROPOUT),
    ),
    "exaone4": Architecture("EXAONE 4", lambda: hf.Exaone4Config(**_sizes(), **ALTERNATING)),
    "ernie4.5": Architecture("ERNIE 4.5 0.3B", lambda: hf.Ernie4_5Config(**_sizes(head_dim=8))),
    "hunyuan": Architecture(
        "Hunyuan 0.5B to 7B", lambda: hf.HunYuanDenseV1Config(**_sizes(head_dim=8))
    ),
    "seed-oss": Architecture("Seed-OSS 36B", lambda: hf.SeedOssConfig(**_sizes(head_dim=8))),
    "minimax": Architecture(
        "MiniMax-Text-01, MiniMax-M1",
        lambda: hf.MiniMaxConfig(
            **_sizes(head_dim=8), **EXPERTS, layer_types=["linear_attention", "full_attention"], block_size=WINDOW
        ),
    ),
}  # fmt: skip

CORE = {
    "llama", "llama4-text", "qwen2.5-vl", "qwen3-moe", "qwen3.5", "gemma3-text", "gemma3n-text", "gpt-oss",
    "mistral-sliding", "mixtral", "deepseek-v3", "phi", "phi3-longrope", "glm4", "cohere2", "olmo2", "granite-hybrid",
    "lfm2", "jamba", "nemotron-h", "falcon-alibi", "mamba", "starcoder2", "opt", "gpt2", "gptj", "bloom", "mpt",
    "smollm3", "stablelm", "exaone4", "ernie4.5", "hunyuan", "seed-oss", "bamba", "minimax",
    *(name for name, architecture in ARCHITECTURES.items() if architecture.refused),
}  # fmt: skip
"""What CI tests: a row of every family, of every kind of layer and position, and all that is refused."""


def build(name: str, folder: Path) -> str:
    """The model of this architecture, as a model folder."""
    torch.manual_seed(zlib.crc32(name.encode()))
    architecture = ARCHITECTURES[name]
    model = architecture.model(architecture.config()).float()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(SPREAD * noise if parameter.ndim > 1 else parameter + SPREAD * noise)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = EOS, PAD
    model.save_pretrained(folder)
    fast_tokenizer("byte-level", CHATML).save_pretrained(folder)
    return str(folder)
