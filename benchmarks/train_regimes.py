"""Two regimes of training, for benchmarks: a model, and pairs of a certain length.

Speed depends on sizes and lengths alone, so that the larger model has random weights, and the pairs are sentences of
this project's documentation with labels that are drawn.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from maskdpo.models import cache_dir, load_tokenizer, resolve_model
from maskdpo.schemas import Label, Message, Pair, PairSentence

DOCS = Path(__file__).parents[1] / "docs"


@dataclass(frozen=True)
class Regime:
    """Tokens of a prompt, with what the chat template adds, and of an answer; pairs per optimiser step."""

    prompt: int
    answer: int
    batch: int
    micro_batches: tuple[int, ...]
    """That TRL is tried with."""
    budgets: tuple[int, ...]
    """``tokens_per_batch`` that maskdpo is tried with, the default first."""


REGIMES = {
    "smollm2": Regime(prompt=56, answer=80, batch=8, micro_batches=(1, 2, 4, 8), budgets=(2048, 512)),
    "real": Regime(prompt=100, answer=400, batch=2, micro_batches=(1, 2, 4), budgets=(2048, 1024)),
}

QWEN = {
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151_936,
    "max_position_embeddings": 32_768,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}
"""Qwen2.5-0.5B, whose embedding and ``lm_head`` are one matrix."""


def model_of(regime: str, layers: int | None = None) -> str:
    """The folder of the model: SmolLM2-135M, or random weights in the shape of Qwen2.5-0.5B, written once into the
    cache. The latter has SmolLM2's tokenizer, so that rows of its embedding beyond 49,152 are never an input."""
    if regime == "smollm2":
        return resolve_model("smollm2")
    return _random_qwen(QWEN | ({"num_hidden_layers": layers} if layers else {}))


def tiny_model() -> str:
    """A model of the same kind and two small layers, to see which options of a library run at all."""
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 49_152}
    return _random_qwen(QWEN | small | {"num_attention_heads": 4})


def _random_qwen(settings: dict[str, Any]) -> str:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    size = "x".join(str(settings[name]) for name in ("num_hidden_layers", "hidden_size", "vocab_size"))
    folder = cache_dir() / "benchmarks" / f"random-qwen2-{size}"
    if not (folder / "tokenizer_config.json").exists():  # written last
        torch.manual_seed(0)
        tokenizer = load_tokenizer("smollm2")
        ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
        Qwen2ForCausalLM(Qwen2Config(**settings, **ends)).bfloat16().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return str(folder)


def pairs_of(regime: Regime, count: int, tokenizer: Any) -> list[Pair]:
    """Pairs of about so many tokens. Every sentence is right or wrong by the toss of a coin, so that Mask-DPO trains
    about half of the tokens."""
    source, coin = sentences(), random.Random(0)
    template = len(
        tokenizer.apply_chat_template([{"role": "user", "content": ""}], add_generation_prompt=True)["input_ids"]
    )

    def text(tokens: int) -> list[str]:
        found: list[str] = []
        while (left := tokens - len(tokenizer("".join(found))["input_ids"])) > 4:
            ids = tokenizer(next(source))["input_ids"]
            found.append(tokenizer.decode(ids[:left]))
        return found

    def answer(tokens: int) -> tuple[list[Message], list[PairSentence]]:
        parts, spans = text(tokens), []
        for i, part in enumerate(parts):
            begin = sum(map(len, parts[:i]))
            label = (Label.NO_HALLUCINATION, Label.CONTRADICTORY)[i if i < 2 else coin.randrange(2)]  # one of each
            spans.append(PairSentence(start=begin, end=begin + len(part), label=label))
        return [Message(role="assistant", content="".join(parts))], spans

    pairs = []
    for i in range(count):
        prompt = [Message(role="user", content="".join(text(regime.prompt - template)))]
        (chosen, right), (rejected, wrong) = answer(regime.answer), answer(regime.answer)
        answers = {"chosen": chosen, "rejected": rejected, "chosen_sentences": right, "rejected_sentences": wrong}
        pairs.append(Pair(id=f"pair-{i}", prompt_id=f"prompt-{i}", topic="docs", prompt=prompt, **answers))
    return pairs


def sentences() -> Iterator[str]:
    """Sentences of the prose in docs/, each with a space before it, again and again."""
    found = []
    for file in sorted(DOCS.glob("*.md")):
        prose = [line for line in file.read_text(encoding="utf-8").splitlines() if line[:1].isalpha()]
        found += re.findall(r"\s[A-Z][^.!?|`]{30,200}[.!?](?=\s)", " ".join(prose))
    return cycle(found)
