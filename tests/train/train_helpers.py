"""Throw-away tokenizers, chat templates, pairs and models for the tests of training. Nothing is downloaded."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from maskdpo.schemas import Label, Message, Pair, PairSentence
from maskdpo.train.data.encode import Encoder
from maskdpo.train.data.encoded_pair import EncodedPair, EncodedSide
from maskdpo.train.data.settings import EncodeSettings
from maskdpo.train.step import Trainer

SPECIAL = [
    "<unk>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]

BYTES = [f"<0x{i:02X}>" for i in range(256)]

CORPUS = [
    "Marie Curie was born in Warsaw in 1867. She won two Nobel prizes, in physics and in chemistry!",
    "The river Rhine flows through Basel; it is 1,230 km long. Is it the longest river? No, it is not.",
    "Paris is the capital of France. Tokyo is the capital of Japan.\n\n- first item\n- second item\r\n\r\n  indented",
    "# Heading\n\n1. one\n2. two\n\n```python\nprint('hello')\n```\nHere is what I know about it: nothing.",
    "巴黎是法国的首都。东京是日本的首都。居里夫人出生于华沙。",
    "Café naïve Ünïcode e\u0301 a\u0300 résumé ...   spaces\tand tabs  ",
    "system user assistant think You are a helpful assistant. What is the capital? Tell me about it.",
] * 3

LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _train(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_level_bpe(*, prefix_space: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    if prefix_space:  # as in RoBERTa: the space that belongs to a token is left out of its offsets
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _train(
        tokenizer,
        trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )


def llama3_like() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _train(
        tokenizer,
        trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )


def sentencepiece_like() -> Tokenizer:
    """As in Mistral: words behind a Metaspace, characters outside the vocabulary as bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return _train(tokenizer, trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL + BYTES, show_progress=False))


def llama2_like() -> Tokenizer:
    """As in Llama 2: the normaliser, not the pre-tokenizer, makes the spaces visible."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _train(tokenizer, trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL + BYTES, show_progress=False))


def lower_casing_wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True, handle_chinese_chars=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _train(tokenizer, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False))


def unigram() -> Tokenizer:
    """As in T5: NFKC, which makes several characters of one and one of several."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _train(
        tokenizer,
        trainers.UnigramTrainer(vocab_size=250, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False),
    )


def gemma_like() -> Tokenizer:
    """Blanks are made visible by the normaliser and end a piece; characters outside the vocabulary are bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _train(tokenizer, trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL + BYTES, show_progress=False))


def normalised_byte_level(normalizer: Any) -> Tokenizer:
    tokenizer = byte_level_bpe(prefix_space=False)
    tokenizer.normalizer = normalizer
    return tokenizer


def unigram_bytes() -> Tokenizer:
    """Characters outside the vocabulary are bytes, and all bytes of a run report one range."""
    tokenizer = unigram()
    tokenizer.normalizer = None
    trainer = trainers.UnigramTrainer(
        vocab_size=560, special_tokens=SPECIAL + BYTES, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    settings = json.loads(tokenizer.to_str())
    settings["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(settings))


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": lambda: byte_level_bpe(prefix_space=False),
    "byte-level-prefix-space": lambda: byte_level_bpe(prefix_space=True),
    "llama3-like": llama3_like,
    "sentencepiece-like": sentencepiece_like,
    "llama2-like": llama2_like,
    "wordpiece": lower_casing_wordpiece,
    "unigram": unigram,
    "unigram-bytes": unigram_bytes,
    "gemma-like": gemma_like,
    "byte-level-nfc": lambda: normalised_byte_level(normalizers.NFC()),
    "byte-level-nfkc": lambda: normalised_byte_level(normalizers.NFKC()),
}

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
THINK = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REASONING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "<s>{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
NO_ASSISTANT = "{% for m in messages %}{% if m.role != 'assistant' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"

SPACED = CHATML.replace("<|im_end|>", " \n<|im_end|>")

TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "think": THINK, "no-system": NO_SYSTEM, "spaced": SPACED}


@cache
def fast_tokenizer(name: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """One of ``TOKENIZERS`` as transformers sees it, with a chat template; its end of turn is ``<|im_end|>``."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=TOKENIZERS[name](), unk_token="<unk>", bos_token="<s>", eos_token="<|im_end|>"
    )
    tokenizer.chat_template = template
    return tokenizer


Labelled = Sequence[tuple[str, Label | None]]
"""The sentences of an answer, one behind the other, with their labels."""


def spans(sentences: Labelled) -> list[PairSentence]:
    found: list[PairSentence] = []
    begin = 0
    for text, label in sentences:
        found.append(PairSentence(start=begin, end=begin + len(text), label=label))
        begin += len(text)
    return found


def make_pair(
    chosen: Labelled, rejected: Labelled, *, prompt: str | list[Message] = "Tell me.", raw: bool = False, **fields: Any
) -> Pair:
    """A pair of two answers given as labelled sentences; a string prompt is one user turn unless ``raw``."""
    texts = ["".join(text for text, _ in side) for side in (chosen, rejected)]
    if isinstance(prompt, str) and not raw:
        prompt = [Message(role="user", content=prompt)]
    answers: list[Any] = texts if raw else [[Message(role="assistant", content=text)] for text in texts]
    return Pair(
        **{"id": "p", "prompt_id": "q", "topic": "t"} | fields,
        prompt=prompt,
        chosen=answers[0],
        rejected=answers[1],
        chosen_sentences=spans(chosen),
        rejected_sentences=spans(rejected),
    )


def random_pair(rng: np.random.Generator, name: str, *, vocab: int = 200, longest: int = 12) -> EncodedPair:
    """Random token ids; about half the tokens of either answer have weight, one of each at the least."""

    def side() -> EncodedSide:
        length = int(rng.integers(2, longest))
        weights = (rng.random(length) < 0.5).astype(np.float32)
        weights[rng.integers(length)] = 1
        return EncodedSide(rng.integers(3, vocab, length), weights)

    return EncodedPair(name, rng.integers(3, vocab, int(rng.integers(1, longest))), side(), side())


def tiny_config(kind: str = "llama", *, vocab: int = 200, **settings: Any) -> Any:
    """The config of a model of two layers."""
    size = {
        "vocab_size": vocab,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    special: dict[str, dict[str, Any]] = {
        "llama": {},
        "mistral": {"sliding_window": 6},
        "gemma2": {"sliding_window": 6, "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
        "cohere": {"logit_scale": 0.3},
        "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
        "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6},
        "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
        "granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    }
    if kind == "falcon":
        del size["head_dim"]  # derived
    return AutoConfig.for_model(kind, **size | special.get(kind, {}) | settings)


def random_model(kind: str = "llama", *, vocab: int = 200, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A random two-layer model whose log-probs really depend on what precedes."""
    torch.manual_seed(seed)
    config = tiny_config(kind, vocab=vocab, **settings)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval()


def steep_model(model: str, folder: Path) -> str:
    """The same model but for its scales: log-probs are equal and finite, and the norm of their gradient is not."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        loaded.model.norm.weight *= 1e-30
        loaded.lm_head.weight *= 1e30
    loaded.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


def encoder(tokenizer: Any, *, today: date | None = None, **settings: Any) -> Encoder:
    """An encoder with these settings, the others at their defaults."""
    of_the_loss = {name: settings.pop(name) for name in ("ld_alpha", "need_scores") if name in settings}
    return Encoder(tokenizer, EncodeSettings(model="tiny", **settings), today=today, **of_the_loss)


def die_in_step(number: int, patch: pytest.MonkeyPatch) -> None:
    """Let a training end with the error "killed" when its step of this number begins, counted from 1."""
    step, calls = Trainer.step, []

    def die(self: Trainer, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            raise RuntimeError("killed")
        return step(self, *args)

    patch.setattr(Trainer, "step", die)


@contextmanager
def killed_in_step(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What trains in this block must end so."""
    with monkeypatch.context() as patch:
        die_in_step(number, patch)
        with pytest.raises(RuntimeError, match="killed"):
            yield
