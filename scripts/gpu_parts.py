"""What the sections of ``gpu_check.py`` share: rows, random models and pairs, and clocks that wait for the device."""

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from maskdpo.devices import default_device
from maskdpo.schemas import Label, Message, Pair, PairSentence
from maskdpo.train.data.encoded_pair import EncodedPair, EncodedSide

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from train_regimes import DOCS, sentences

DEVICE = default_device()
ON_GPU = DEVICE == "cuda"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

ONE_B = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "vocab_size": 128_256,
}
"""Llama 3.2 1B."""

TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "vocab_size": 1024,
}


def row(what: str, found: object, limit: float | None = None, **values: float) -> dict[str, Any]:
    """A line of the table: a number with a limit must not be larger, and must be one.

    Args:
        values: further numbers for the JSON, which has ``found`` and ``limit`` unrounded, too.
    """
    numbers = {"found": found, "limit": limit} if isinstance(found, int | float) else {}
    shown = f"{found:.3g}" if isinstance(found, float) else str(found)
    ok = None if limit is None else bool(isinstance(found, int | float) and found <= limit)
    return {
        "what": what,
        "found": shown,
        "limit": "" if limit is None else f"{limit:.3g}",
        "ok": ok,
        "values": numbers | values,
    }


def check(what: str, good: bool, found: object, **values: float) -> dict[str, Any]:
    """A line that is right or wrong."""
    return {"what": what, "found": str(found), "limit": "", "ok": good, "values": values}


def llama(device: str = DEVICE, dtype: torch.dtype = torch.float32, **settings: Any) -> PreTrainedModel:
    """A random Llama whose predictions depend on what precedes, in evaluation mode."""
    torch.manual_seed(0)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = LlamaConfig(**{"max_position_embeddings": 8192, "rope_theta": 5e5, **ends, **settings})
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=dtype, attn_implementation="sdpa")
    return model.eval()


def random_pairs(lengths: list[tuple[int, int, int]], vocabulary: int, share: float = 0.5) -> list[EncodedPair]:
    """Random tokens: so many of prompt, chosen and rejected answer, and weight on about a share of them."""
    rng = np.random.default_rng(0)

    def side(length: int) -> EncodedSide:
        weights = (rng.random(length) < share).astype(np.float32)
        weights[:2] = 1
        return EncodedSide(rng.integers(3, vocabulary, length), weights)

    return [
        EncodedPair(str(i), rng.integers(3, vocabulary, prompt), side(chosen), side(rejected))
        for i, (prompt, chosen, rejected) in enumerate(lengths)
    ]


def model_folder(folder: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> Path:
    """A random Llama with a byte-level tokenizer of 1,024 words made of this documentation."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator((file.read_text(encoding="utf-8") for file in sorted(DOCS.glob("*.md"))), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|im_start|>"
    )
    tokenizer.chat_template = TEMPLATE
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    llama(dtype=dtype, **settings, **ends).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def text_pairs(file: Path, count: int, per_answer: int = 3) -> Path:
    """A pairs file of sentences of this documentation, right and wrong in turn."""
    source = sentences()

    def answer() -> tuple[list[Message], list[PairSentence]]:
        parts, spans, begin = [next(source) for _ in range(per_answer)], [], 0
        for i, part in enumerate(parts):
            label = Label.CONTRADICTORY if i % 2 else Label.NO_HALLUCINATION
            spans.append(PairSentence(start=begin, end=begin + len(part), label=label))
            begin += len(part)
        return [Message(role="assistant", content="".join(parts))], spans

    with file.open("w", encoding="utf-8") as lines:
        for i in range(count):
            (chosen, right), (rejected, wrong) = answer(), answer()
            pair = Pair(
                id=f"pair-{i}",
                prompt_id=f"prompt-{i}",
                topic="docs",
                prompt=[Message(role="user", content=next(source))],
                chosen=chosen,
                rejected=rejected,
                chosen_sentences=right,
                rejected_sentences=wrong,
            )
            lines.write(pair.model_dump_json() + "\n")
    return file


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def seconds_of(work: Callable[[], object], repeats: int, warm: int = 2) -> float:
    """The median time of a piece of work, after some runs that do not count."""
    times = []
    for i in range(warm + repeats):
        wait()
        started = time.perf_counter()
        work()
        wait()
        if i >= warm:
            times.append(time.perf_counter() - started)
    return float(np.median(times))


def wait() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def forget() -> None:
    """Free what is no longer used, and begin to count memory anew."""
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb() -> float:
    """Largest memory since ``forget``; 0 on a CPU, where it is not counted."""
    return torch.cuda.max_memory_allocated() / 1e9 if ON_GPU else 0.0
