"""Tiny random classifiers of the classes that the presets have, with tokenizers that write their special tokens."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as T
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXTS = (
    "The river Thames flows through London, and 10 yes no bridges. predict: passage 1 2",
    "Paris lies on the Seine.",
)
SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "initializer_range": 0.5,
}  # fmt: skip
"""A wide range, so that scores are far from one half."""


def tokenizer(begin: str, end: str, *, metaspace: bool = False, pairs: bool = True) -> T.PreTrainedTokenizerFast:
    """Bytes and their pairs; ``[CLS] a [SEP] b [SEP]`` with the given names, or without where they are empty."""
    special = [token for token in dict.fromkeys(("<pad>", begin, end, "[UNK]")) if token]
    raw = Tokenizer(models.BPE(unk_token="[UNK]"))
    if metaspace:
        raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    else:
        raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = [*"▁", *map(chr, range(33, 127))] if metaspace else pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    if metaspace:
        raw.add_tokens(["▁1"])
    ids = [(token, raw.token_to_id(token)) for token in special]
    first = f"{begin} " if begin else ""
    if end:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{first}$A {end}", pair=f"{first}$A {end} $B:1 {end}:1", special_tokens=ids
        )
    return T.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="[UNK]", eos_token=end or "<pad>",
        cls_token=begin or None, sep_token=end or None,
        model_input_names=["input_ids", *(["token_type_ids"] if pairs else []), "attention_mask"],
    )  # fmt: skip


@cache
def words_of(kind: str) -> T.PreTrainedTokenizerFast:
    """The tokenizer of a kind of model."""
    made: T.PreTrainedTokenizerFast = _MODELS[kind]["tokenizer"]()
    return made


def save(folder: Path, kind: str, labels: int = 2, names: dict[int, str] | None = None) -> Path:
    """A random model with its tokenizer as a folder: deberta, roberta, t5, modernbert, llama."""
    torch.manual_seed(0)
    made: Any = _MODELS[kind]
    words = words_of(kind)
    common = {"vocab_size": len(words), "pad_token_id": words.pad_token_id, "num_labels": labels}
    if names is not None:
        common["id2label"], common["label2id"] = names, {name: index for index, name in names.items()}
    config = made["config"](**common, eos_token_id=words.eos_token_id)
    model = made["model"](config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


_MODELS: dict[str, dict[str, Any]] = {
    "deberta": {
        "tokenizer": lambda: tokenizer("[CLS]", "[SEP]"),
        "model": T.DebertaV2ForSequenceClassification,
        "config": lambda **more: T.DebertaV2Config(
            **SHAPE, **more, relative_attention=True, position_buckets=16, pos_att_type=["p2c", "c2p"],
            type_vocab_size=0, share_att_key=True, norm_rel_ebd="layer_norm", max_position_embeddings=64,
            position_biased_input=False, pooler_hidden_size=32,
        ),
    },
    "roberta": {
        "tokenizer": lambda: tokenizer("<s>", "</s>", pairs=False),
        "model": T.RobertaForSequenceClassification,
        "config": lambda **more: T.RobertaConfig(**SHAPE, **more, max_position_embeddings=514, type_vocab_size=1),
    },
    "t5": {
        "tokenizer": lambda: tokenizer("", "</s>", metaspace=True, pairs=False),
        "model": T.T5ForConditionalGeneration,
        "config": lambda num_labels, **more: T.T5Config(
            **more, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
            decoder_start_token_id=0, initializer_factor=0.8, tie_word_embeddings=False,
        ),
    },
    "modernbert": {
        "tokenizer": lambda: tokenizer("[CLS]", "[SEP]", pairs=False),
        "model": T.ModernBertForTokenClassification,
        "config": lambda **more: T.ModernBertConfig(
            **SHAPE, **more, max_position_embeddings=512, local_attention=16, global_attn_every_n_layers=2,
        ),
    },
    "llama": {
        "tokenizer": lambda: tokenizer("", "", pairs=False),
        "model": T.LlamaForCausalLM,
        "config": lambda num_labels, **more: T.LlamaConfig(
            **SHAPE, **more, num_key_value_heads=2, max_position_embeddings=2048,
        ),
    },
}  # fmt: skip
